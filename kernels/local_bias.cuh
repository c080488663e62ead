// local — the additive bias table: B[key − query + origin, per axis] joins a score behind the factor α, so that its size and its
// bits do not depend on α.
//
// A block copies its head's table to shared memory, with pads of −inf for what a patch asks for beyond the table. Entries that a
// query does not see reach nothing, whatever they hold; −inf hides a key.
//
// A bias most often comes without relative tables, whose place in shared memory would then say nothing but which keys a query
// sees. So with a bias the pads say that, or, at borders and where the table is larger than the window, a comparison; the
// relative tables are filled and read only where there are any. Calls without any positions run here too, on a bias of zeros.
#pragma once
#include "local_table.cuh"

namespace local {

// A bias table [heads, T_y, T_x] in f32, and its copies.
struct Bias {
  float const* data;                      // null: all zeros
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
      float entry = lives ? 0.f : -INFINITY;
      if (lives && bias.data != nullptr) {
        entry = __ldg(table + yi * bias.stride_y + xi * bias.stride_x) * prim::Exponent<!P::kRounds>::kOfNatural;
      }
      store_shared(to + i * int(sizeof(float)), entry);
    }
  }
}

// The entry of a patch's first query and the first key that the patch sees, along one axis. Where no query lives, any that the
// copy holds.
__device__ __forceinline__ int first_entry(Axis const& a, Span const& s, int patch) {
  return clamped(window_start(a, s, patch) - patch + a.table_origin, 0, a.table_rows - a.window);
}

// What a patch needs to know of its bias, and of the keys that its pixels g and g + 8 see. Registers are few, so small numbers share
// one: `kByPads`, for all lanes alike, if the copy's pads say all that is not seen; else a byte each for
//   0, 1   the first rows that pixels g and g + 8 see, from the patch's first; `kNoRow`: none
//   2      the first column that both see, from the patch's first
//   3      how many columns
struct BiasPatch {
  static constexpr uint32_t kByPads = 0xffffffffu;
  static constexpr int kNoRow = 0xff;

  int at;           // where the bias of pixel g and its first key lies, of the patch's first row
  uint32_t sight;

  // Volatile, so that it stays where it is used.
  template <int i>
  __device__ __forceinline__ int byte() const {
    int x;
    asm volatile("bfe.u32 %0, %1, %2, 8;" : "=r"(x) : "r"(sight), "n"(8 * i));
    return x;
  }
};

// `kDeadSeeNothing`: where the scores of a patch's pixels meet, those of pixels that do not live must be none.
template <bool kDeadSeeNothing>
__device__ __forceinline__ BiasPatch bias_of_patch(Bias const& bias, uint32_t s_copy, Frame const& f, Span const& y, Span const& x,
                                                   int patch_y, int patch_x, bool const (&lives)[2]) {
  int const g = prim::lane_of_warp().g;
  BiasPatch patch;
  int const row = first_entry(f.y, y, patch_y) - g / kPatch + bias.pad_y;
  int const column = first_entry(f.x, x, patch_x) - g % kPatch + bias.pad_x;
  patch.at = int(s_copy) + row * bias.row_bytes + column * int(sizeof(float));

  int const first_row = window_start(f.y, y, patch_y);
  int const first_column = window_start(f.x, x, patch_x);
  int const end_column = window_start(f.x, x, patch_x + kPatch - 1) + f.x.window;
  bool const all_live = patch_y + kPatch <= y.end && patch_x + kPatch <= x.end && min(patch_y, patch_x) >= 0;
  bool const all_exist = f.x.has_outside || (first_column >= 0 && end_column <= x.size);
  // In a block all queries see the same keys: those of the walk, if its rows are no wider.
  bool const x_is_seen = f.x.block == 0 ? !f.x.is_shifted : f.x.window == f.packed;
  if ((all_live || !kDeadSeeNothing) && all_exist && x_is_seen && !f.y.is_shifted) {
    patch.sight = BiasPatch::kByPads;
    return patch;
  }
  Keys const keys = keys_of(f.x, x.size, window_start(f.x, x, patch_x + g % kPatch));
  patch.sight = uint32_t(keys.count) << 24 | uint32_t(keys.first - first_column) << 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int const own_row = window_start(f.y, y, patch_y + g / kPatch + half * 2);
    bool const sees = lives[half] || !kDeadSeeNothing;
    patch.sight |= uint32_t(sees ? own_row - first_row : BiasPatch::kNoRow) << 8 * half;
  }
  return patch;
}

// Kernels are written once, for either of these.
struct WithoutBias {
  static constexpr bool kIsThere = false;
  struct Patch {};
  using Starts = local::Starts;

  static __device__ __forceinline__ Starts starts_of(Tables const& tables, bool, Bias const*, Patch const&, int first_row) {
    return local::starts_of(tables, first_row);
  }
  static __device__ __forceinline__ void add(float (&)[2][4], Starts&, Bias const*, Walk const&, int, int, float) {}
  // The factor that scores are still to be multiplied by.
  static __device__ __forceinline__ float rest(float scale) { return scale; }
};

struct WithBias {
  static constexpr bool kIsThere = true;
  using Patch = BiasPatch;

  // Of a walk.
  struct Starts {
    bool has_tables;
    local::Starts tables;
    BiasPatch patch;   // its address: from the walk's first row and the lane's first key on
    int first_row;     // the walk's, among the patch's

    __device__ __forceinline__ void operator()(float (&c)[2][4], Walk const& walk, int key) const {
      if (has_tables) {
        tables(c, walk, key);
        return;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          c[j][i] = 0.f;
        }
      }
    }
    __device__ __forceinline__ void advance() {
      tables.advance();
      patch.at += kStep * int(sizeof(float));
    }
  };

  static __device__ __forceinline__ Starts starts_of(Tables const& tables, bool has_tables, Bias const* bias, Patch const& patch,
                                                     int first_row) {
    BiasPatch own = patch;
    own.at += first_row * bias->row_bytes + 2 * prim::lane_of_warp().t * int(sizeof(float));
    return Starts{has_tables, local::starts_of(tables, first_row), own, first_row};
  }

  // The scores of a step, behind `advance`, as Exponent takes them. `window`: rows of one.
  static __device__ __forceinline__ void add(float (&c)[2][4], Starts const& starts, Bias const* bias, Walk const& walk, int key,
                                             int window, float scale) {
    int const t = prim::lane_of_warp().t;
    BiasPatch const& patch = starts.patch;
    int row[2];   // of the walk
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      row[j] = walk.row(key + j * kGroup + 2 * t);
      uint32_t const low = patch.at + row[j] * bias->wrap_bytes + (j * kGroup - kStep) * int(sizeof(float));
      uint32_t const high = low - 2 * bias->row_bytes;   // pixel g + 8 is two rows further
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = fmaf(c[j][i], scale, load_shared((i < 2 ? low : high) + i % 2 * int(sizeof(float))));
      }
    }
    if (patch.sight == BiasPatch::kByPads) {
      return;
    }
    int const before[2] = {patch.byte<0>() - starts.first_row, patch.byte<1>() - starts.first_row};
    int const before_x = patch.byte<2>();
    int const columns = patch.byte<3>();
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      int const column = key + j * kGroup + 2 * t - row[j] * walk.packed - before_x;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        bool const sees = unsigned(row[j] - before[i / 2]) < unsigned(window) && unsigned(column + i % 2) < unsigned(columns);
        c[j][i] = sees ? c[j][i] : -INFINITY;
      }
    }
  }
  static __device__ __forceinline__ float rest(float) { return 1.f; }
};

}  // namespace local
