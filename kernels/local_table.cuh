// local — two tables per query, by halo row and by halo column, that hold all that is not q·k: relative terms, the window
// and the border. Their sum is where a score starts; −inf: the query does not see the key.
#pragma once
#include "local_math.cuh"
#include "local_math_f32.cuh"

namespace local {

constexpr int kPairColumns = 2;                        // columns of a pair
constexpr int kRepeated = kGroup - kPairColumns;       // columns that are there twice, so that no group ends a row
constexpr int kPairBytes = 16;

// A warp's tables, in f32:
//   rows     [8][row_pitch][2]          pixels g and g + 8, halo row; the last one is −inf, for keys beyond the halo
//   columns  [8][pair_pitch][2][2]      pixel g or g + 8, two columns; column `packed` + i repeats column i
struct Tables {
  int row_pitch, pair_pitch, no_row;
  unsigned char* s_rows;
  unsigned char* s_columns;

  __device__ __forceinline__ float* row(int g, int half, int y) const {
    return reinterpret_cast<float*>(s_rows) + (g * row_pitch + y) * 2 + half;
  }
  __device__ __forceinline__ float* column(int g, int half, int x) const {
    return reinterpret_cast<float*>(s_columns) + (g * pair_pitch + x / 2) * 4 + half * 2 + x % 2;
  }
};

// How the host cut a warp's memory.
struct TableShape {
  int32_t row_pitch;    // in pairs of floats; 4 more than a multiple of 8: neighbouring quads meet no bank conflict
  int32_t pair_pitch;   // in units; likewise
  int32_t bytes;        // of both tables
};

__device__ __forceinline__ Tables tables_at(unsigned char* s_warp, TableShape const& shape, Frame const& f) {
  return Tables{shape.row_pitch, shape.pair_pitch, f.y.window + kPatch - 1, s_warp + kGroup * shape.pair_pitch * kPairBytes,
                s_warp};
}

__device__ __forceinline__ void clear_tables(Tables const& tables, TableShape const& shape) {
  float const none = -INFINITY;
  auto* unit = reinterpret_cast<float4*>(tables.s_columns);
  for (int i = threadIdx.x % prim::kWarp; i < shape.bytes / prim::kUnitBytes; i += prim::kWarp) {
    unit[i] = make_float4(none, none, none, none);
  }
}

// One axis of the tables of the patch whose pixels are `rows`; query 0 of the patch is at `first`.
template <bool kIsRow, class P, class T>
__device__ __forceinline__ void fill_axis(Tables const& tables, typename P::Rows const& rows, Table const& table, T const* data,
                                          Axis const& a, Span const& span, int first, int packed) {
  Lane const lane = lane_of_warp();
  bool const wide = data != nullptr && is_wide<T>(table);
  int const halo_first = window_start(a, span, first);
  for (int row = 0; row < a.table_rows; row += kGroup) {
    float c[4] = {};
    if (data != nullptr) {
      P::table_dots(c, rows, table, data, wide, row, a.table_rows);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const pixel = lane.g + i / 2 * kGroup;
      int const query = first + (kIsRow ? pixel / kPatch : pixel % kPatch);
      int const offset = row + 2 * lane.t + i % 2;
      int const key = query + offset - a.table_origin;
      if (offset < a.table_rows && sees(a, span.size, window_start(a, span, query), key)) {
        int const at = key - halo_first;
        if (kIsRow) {
          *tables.row(lane.g, i / 2, at) = c[i];
        } else {
          *tables.column(lane.g, i / 2, at) = c[i];
          if (at < kRepeated) {
            *tables.column(lane.g, i / 2, at + packed) = c[i];
          }
        }
      }
    }
  }
}

template <class T>
__device__ __forceinline__ T const* table_of_head(Table const& table, int hi) {
  return table.data == nullptr ? nullptr : static_cast<T const*>(table.data) + hi * table.stride_h;
}

// Where the scores of a group start.
struct Starts {
  uint32_t columns;   // address of pixel g, pair t
  uint32_t rows;      // address of pixel g, row 0 of the walk

  __device__ __forceinline__ void operator()(float (&c)[4], Walk const& walk, Group const& group, int end_row, int no_row) const {
    int const t = threadIdx.x % 4;
    int const row = walk.row(group, 2 * t);
    uint4 const column = load_shared_unit(columns + group.x * (kPairBytes / kPairColumns));
    float2 r;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(r.x), "=f"(r.y)
                 : "r"(rows + (row < end_row ? row : no_row) * int(sizeof(float2)))
                 : "memory");
    c[0] = r.x + __uint_as_float(column.x);
    c[1] = r.x + __uint_as_float(column.y);
    c[2] = r.y + __uint_as_float(column.z);
    c[3] = r.y + __uint_as_float(column.w);
  }
};

__device__ __forceinline__ Starts starts_of(Tables const& tables) {
  Lane const lane = lane_of_warp();
  return Starts{prim::shared_address(tables.column(lane.g, 0, 2 * lane.t)), prim::shared_address(tables.row(lane.g, 0, 0))};
}

}  // namespace local
