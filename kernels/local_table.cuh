// local — two tables per query, by halo row and by halo column, that hold all that is not q·k: relative terms, the window
// and the border. Their sum is where a score starts; −inf: the query does not see the key.
#pragma once
#include "local_math.cuh"
#include "local_math_f32.cuh"

namespace local {

constexpr int kRepeated = kGroup - 2;   // columns that are there twice, so that no group of keys ends a row
constexpr int kRowBytes = 8;            // of two pixels' entry of a row
constexpr int kColumnBytes = 8;         // of two pixels' entry of a column

// How the host cut a warp's memory.
struct TableShape {
  int32_t row_pitch;    // rows; 4 more than a multiple of 8: neighbouring quads meet no bank conflict
  int32_t pair_pitch;   // pairs of columns; likewise
  int32_t bytes;        // of both tables
};

// A warp's tables, in f32:
//   columns  [8][pair_pitch][2][2]   pixel g or g + 8, two columns; column `packed` + i repeats column i
//   rows     [8][row_pitch][2]       pixel g or g + 8
struct Tables {
  uint32_t columns, rows;   // of this lane's pixel g
};

__device__ __forceinline__ Tables tables_at(uint32_t s_tables, TableShape const& shape) {
  int const g = prim::lane_of_warp().g;
  int const column_bytes = shape.pair_pitch * 2 * kColumnBytes;
  return Tables{s_tables + g * column_bytes, s_tables + kGroup * column_bytes + g * shape.row_pitch * kRowBytes};
}

__device__ __forceinline__ void clear_tables(uint32_t s_tables, TableShape const& shape, float value) {
  uint32_t const word = __float_as_uint(value);
#pragma unroll 1
  for (int at = threadIdx.x % prim::kWarp * prim::kUnitBytes; at < shape.bytes; at += prim::kWarp * prim::kUnitBytes) {
    prim::store_shared_unit(s_tables + at, make_uint4(word, word, word, word));
  }
}

__device__ __forceinline__ void store_shared(uint32_t address, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}
__device__ __forceinline__ float load_shared(uint32_t address) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(address) : "memory");
  return x;
}

template <class T>
__device__ __forceinline__ T const* table_of_head(Table const& table, int hi) {
  return table.data == nullptr ? nullptr : static_cast<T const*>(table.data) + hi * table.stride_h;
}

// Fills the table of rows or of columns of the patch whose pixels are `rows`. `query`: of pixels g and g + 8 along this axis;
// `halo_first`: the halo's first key.
template <bool kIsRow, class P, class T>
__device__ __forceinline__ void fill_tables(Tables const& tables, typename P::Rows const& rows, Table const& table,
                                            T const* data, Axis const& a, Span const& span, int const (&query)[2],
                                            int halo_first, int packed) {
  int const t = prim::lane_of_warp().t;
  bool const is_aligned = data != nullptr && is_wide(table);
  Keys keys[2];
  int first[2];   // the key of table row 2t
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    keys[half] = keys_of(a, span.size, window_start(a, span, query[half]));
    first[half] = query[half] + 2 * t - a.table_origin;
  }
#pragma unroll 1
  for (int row = 0; row < a.table_rows; row += kGroup) {
    float c[4] = {};
    if (data != nullptr) {
      P::table_dots(c, rows, table, data, is_aligned, row, a.table_rows);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const half = i / 2;
      int const key = first[half] + row + i % 2;
      if (keys[half].contain(key)) {
        int const at = key - halo_first;
        if (kIsRow) {
          store_shared(tables.rows + at * kRowBytes + half * int(sizeof(float)), c[i]);
        } else {
          uint32_t const to = tables.columns + (at / 2 * 4 + at % 2 + half * 2) * int(sizeof(float));
          store_shared(to, c[i]);
          if (at < kRepeated) {
            store_shared(to + packed * kColumnBytes, c[i]);   // packed is even
          }
        }
      }
    }
  }
}

// Where the scores of a walk's keys start.
struct Starts {
  uint32_t columns;   // pixel g, pair t, of the step's first key, if rows had no end
  uint32_t rows;      // pixel g, the walk's first row

  __device__ __forceinline__ void operator()(float (&c)[2][4], Walk const& walk, int key) const {
    int const t = prim::lane_of_warp().t;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      int const first = key + j * kGroup;
      uint32_t const of_column = columns - walk.row(first) * (walk.packed * kColumnBytes);
      uint4 const column = prim::load_shared_unit(of_column + j * kGroup * kColumnBytes);
      uint32_t const of_row = rows + walk.row(first + 2 * t) * kRowBytes;
      float2 row;
      asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(row.x), "=f"(row.y) : "r"(of_row) : "memory");
      c[j][0] = row.x + __uint_as_float(column.x);
      c[j][1] = row.x + __uint_as_float(column.y);
      c[j][2] = row.y + __uint_as_float(column.z);
      c[j][3] = row.y + __uint_as_float(column.w);
    }
  }
  __device__ __forceinline__ void advance() { columns += kStep * kColumnBytes; }
};

__device__ __forceinline__ Starts starts_of(Tables const& tables, int first_row) {
  return Starts{tables.columns + 2 * prim::lane_of_warp().t * kColumnBytes, tables.rows + first_row * kRowBytes};
}

// Scores of keys that the walk does not have: only its last step can hold some.
__device__ __forceinline__ void mask_tail(float (&c)[2][4], Walk const& walk, int key) {
  if (key + kStep > walk.count) {
    int const t = prim::lane_of_warp().t;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = key + j * kGroup + 2 * t + i % 2 < walk.count ? c[j][i] : -INFINITY;
      }
    }
  }
}

}  // namespace local
