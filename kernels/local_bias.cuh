// local — the additive bias table: B[key − query + origin, per axis] joins a score behind the factor α, so that its size and its
// bits do not depend on α.
//
// A block copies its head's table to shared memory, with pads: what a patch asks for beyond the table is there to be read, and
// never used. Entries that a query does not see reach nothing, whatever they hold; −inf hides a key.
#pragma once
#include "local_table.cuh"

namespace local {

// A bias table [heads, T_y, T_x] in f32, and its copies.
struct Bias {
  float const* data;
  int64_t stride_h, stride_y, stride_x;   // stride_h is 0 when the heads share the table
  int32_t offset;                         // of the copies in shared memory
  int32_t plane_bytes;                    // of the copy of one of the block's planes; 0: one for all
  int32_t rows;                           // of a copy
  int32_t row_bytes;                      // of a copy
  int32_t wrap_bytes;                     // of a copy's row, less those of the keys of a halo row
  int32_t pad_y, pad_x;                   // rows and columns of a copy before the table's first
  prim::Divisor columns;                  // of a copy
};

__device__ __forceinline__ uint32_t bias_of_slot(Bias const& bias, uint32_t s_bytes, int slot) {
  return s_bytes + bias.offset + slot * bias.plane_bytes;
}

// Copies the tables of a tile's planes, in units of Exponent's powers. Visible behind the next barrier.
template <class P>
__device__ __forceinline__ void copy_bias(uint32_t s_bytes, Bias const& bias, Frame const& f, Tile const& tile) {
  int const copies = bias.plane_bytes == 0 ? 1 : tile.end_plane - tile.first_plane;
#pragma unroll 1
  for (int slot = 0; slot < copies; ++slot) {
    float const* const table = bias.data + plane_index(f, tile.first_plane + slot).hi * bias.stride_h;
    uint32_t const to = bias_of_slot(bias, s_bytes, slot);
#pragma unroll 1
    for (int i = threadIdx.x; i < bias.rows * int(bias.columns.value); i += kThreads) {
      int const row = bias.columns.quotient(i);
      int const yi = row - bias.pad_y;
      int const xi = bias.columns.remainder(i, row) - bias.pad_x;
      bool const lives = unsigned(yi) < unsigned(f.y.table_rows) && unsigned(xi) < unsigned(f.x.table_rows);
      float const entry = lives ? __ldg(table + yi * bias.stride_y + xi * bias.stride_x) : 0.f;
      store_shared(to + i * int(sizeof(float)), entry * prim::Exponent<!P::kRounds>::kOfNatural);
    }
  }
}

// A score that is not hidden, as Exponent takes it.
__device__ __forceinline__ float biased(float score, float scale, float bias) {
  return score == -INFINITY ? score : fmaf(score, scale, bias);
}

// The entry of a patch's first query and the first key that the patch sees, along one axis. Where no query lives, any that the
// copy holds.
__device__ __forceinline__ int first_entry(Axis const& a, Span const& s, int patch) {
  return clamped(window_start(a, s, patch) - patch + a.table_origin, 0, a.table_rows - a.window);
}

// Where the bias of a patch's scores is: of pixel g's first key, in the patch's first row.
__device__ __forceinline__ int bias_of_patch(Bias const& bias, uint32_t s_copy, Frame const& f, Span const& y, Span const& x,
                                             int patch_y, int patch_x) {
  int const g = prim::lane_of_warp().g;
  int const row = first_entry(f.y, y, patch_y) - g / kPatch + bias.pad_y;
  int const column = first_entry(f.x, x, patch_x) - g % kPatch + bias.pad_x;
  return int(s_copy) + row * bias.row_bytes + column * int(sizeof(float));
}

// Along a walk over keys.
struct BiasWay {
  int at;   // of pixel g and key 2t of the step, if rows had no end

  __device__ __forceinline__ void add(float (&c)[2][4], Bias const& bias, Walk const& walk, int key, float scale) {
    int const t = prim::lane_of_warp().t;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t const low = at + walk.row(key + j * kGroup + 2 * t) * bias.wrap_bytes;
      uint32_t const high = low - 2 * bias.row_bytes;   // pixel g + 8 is two rows further
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const entry = load_shared((i < 2 ? low : high) + (j * kGroup + i % 2) * int(sizeof(float)));
        c[j][i] = biased(c[j][i], scale, entry);
      }
    }
    at += kStep * int(sizeof(float));
  }
};

// Kernels are written once, for either of these.
struct WithoutBias {
  static constexpr bool kIsThere = false;
  using Starts = local::Starts;

  static __device__ __forceinline__ Starts starts_of(Tables const& tables, Bias const*, int, int first_row) {
    return local::starts_of(tables, first_row);
  }
  static __device__ __forceinline__ void add(float (&)[2][4], Starts&, Bias const*, Walk const&, int, float) {}
  // The factor that scores are still to be multiplied by.
  static __device__ __forceinline__ float rest(float scale) { return scale; }
};

struct WithBias {
  static constexpr bool kIsThere = true;
  struct Starts : local::Starts {
    BiasWay bias;
  };

  // `of_patch`: see bias_of_patch; `first_row`: the walk's first, among the patch's.
  static __device__ __forceinline__ Starts starts_of(Tables const& tables, Bias const* bias, int of_patch, int first_row) {
    int const of_walk = of_patch + first_row * bias->row_bytes + 2 * prim::lane_of_warp().t * int(sizeof(float));
    return Starts{local::starts_of(tables, first_row), BiasWay{of_walk}};
  }
  static __device__ __forceinline__ void add(float (&c)[2][4], Starts& starts, Bias const* bias, Walk const& walk, int key,
                                             float scale) {
    starts.bias.add(c, *bias, walk, key, scale);
  }
  static __device__ __forceinline__ float rest(float) { return 1.f; }
};

}  // namespace local
