// local — the gradient of the bias table: sums of score gradients by offset of the key from the query.
//
// Neighbouring queries see a key at neighbouring offsets, so sums run along the diagonals of a patch's scores. A lane's quad
// neighbours pass their scores on by one or two columns; what then belongs to different offsets is added to shared memory, where
// every warp has sums of its own, for the window of a patch. A block adds its warps' sums to its partial, in their order.
#pragma once
#include "local_bias.cuh"

namespace local {

// Wanted gradient of a bias table.
struct BiasGradient {
  float* partials;            // [blocks][T_y][T_x]; null: not wanted
  int32_t offset;             // of a warp's sums in its memory: where the window starts, and the sums [rows][pitch]
  int32_t pitch, rows;        // floats, rows
  int32_t wrap_bytes;         // of a row of sums, less those of the keys of a halo row
  prim::Divisor columns;      // T_x
  int32_t unused;
};

constexpr int kPlaceBytes = prim::kUnitBytes;   // where a warp's window starts in the table

// A patch's sums begin so many rows and columns before the first query's window.
constexpr int kBefore = kPatch - 1;

__device__ __forceinline__ void clear_bias_sums(uint32_t s_own, BiasGradient const& gradient, Frame const& f, Span const& y,
                                                Span const& x, int patch_y, int patch_x) {
  int const lane = threadIdx.x % prim::kWarp;
  uint32_t const s_place = s_own + gradient.offset;
  for (int i = lane; i < gradient.rows * gradient.pitch; i += prim::kWarp) {
    store_shared(s_place + kPlaceBytes + i * int(sizeof(float)), 0.f);
  }
  if (lane == 0) {
    int const row = first_entry(f.y, y, patch_y) - kBefore;
    int const column = first_entry(f.x, x, patch_x) - kBefore;
    asm volatile("st.shared.v2.s32 [%0], {%1, %2};" ::"r"(s_place), "r"(row), "r"(column) : "memory");
  }
}

// A warp's way through a walk. A row's keys are `kBefore` more than a window's or more, so that what the end of a row passes on to
// the next one is 0.
struct BiasSums {
  float right[2];       // the last group's odd columns, of pixels g and g + 8
  float pairs[2];       // the last group's sums of two neighbouring queries
  int at;               // of the lane's sum of the step's first group, if rows had no end

  __device__ __forceinline__ BiasSums() {}
  // `first_row`: the walk's first, among the patch's.
  __device__ __forceinline__ BiasSums(uint32_t s_own, BiasGradient const& gradient, int first_row) {
    prim::Lane const lane = prim::lane_of_warp();
    right[0] = right[1] = pairs[0] = pairs[1] = 0.f;
    int const row = first_row + kBefore - query_row(lane);
    at = int(s_own) + gradient.offset + kPlaceBytes + (row * gradient.pitch + column(lane)) * int(sizeof(float));
  }

  static __device__ __forceinline__ bool is_left(prim::Lane const& lane) { return lane.g % kPatch < 2; }
  // Of a group's sums a lane ends up with that of one row of queries and one column.
  static __device__ __forceinline__ int query_row(prim::Lane const& lane) { return lane.g / kPatch + (is_left(lane) ? 2 : 0); }
  static __device__ __forceinline__ int column(prim::Lane const& lane) {
    int const t = is_left(lane) ? (lane.t + 1) % 4 : lane.t;
    return 2 * t + (lane.g % 2 == 0 ? 1 : 0);
  }

  // Score gradients of a step.
  __device__ __forceinline__ void add(float const (&c)[2][4], BiasGradient const& gradient, Walk const& walk, int key) {
    int const index = prim::fresh_lane();   // registers are few
    prim::Lane const lane{index / 4, index % 4};
    bool const is_even = lane.g % 2 == 0;
    bool const is_left = BiasSums::is_left(lane);
    bool const is_last = lane.t == 3;
    // Odd queries add what the even one on their left had one column before, even ones what the odd one has one column after.
    int const neighbour = (index ^ 4) - lane.t + (is_even ? lane.t : (lane.t + 3) % 4);
    // The two on the right add what those on the left had two columns before: the upper rows here, the lower rows there.
    int const opposite = (index ^ 8) - lane.t + (lane.t + (is_left ? 1 : 3)) % 4;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float own[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float const sent = is_even && is_last ? right[half] : c[j][2 * half + 1];
        right[half] = c[j][2 * half + 1];
        float const pair = c[j][2 * half] + __shfl_sync(prim::kAllLanes, sent, neighbour);
        own[half] = is_left && is_last ? pairs[half] : pair;
        pairs[half] = pair;
      }
      float const sum = (is_left ? own[1] : own[0]) + __shfl_sync(prim::kAllLanes, is_left ? own[0] : own[1], opposite);
      uint32_t const to = at + walk.row(key + j * kGroup + column(lane)) * gradient.wrap_bytes + j * kGroup * int(sizeof(float));
      __syncwarp();   // sync: sums of the group before written, by whichever lanes
      store_shared(to, load_shared(to) + sum);
    }
    at += kStep * int(sizeof(float));
  }
};

// Adds the warps' sums to (or starts) the block's partial. Behind a barrier after the last `add`.
__device__ __forceinline__ void add_bias_partial(float* partial, uint32_t s_bytes, BiasGradient const& gradient, Frame const& f,
                                                 Tile const& tile, bool is_first) {
  int const warps = (tile.end_plane - tile.first_plane) << (f.y.patches_log2 + f.x.patches_log2);
  int const rows = f.y.window + 2 * kBefore;
#pragma unroll 1
  for (int i = threadIdx.x; i < f.y.table_rows * f.x.table_rows; i += kThreads) {
    int const y = gradient.columns.quotient(i);
    int const x = gradient.columns.remainder(i, y);
    float sum = 0.f;
#pragma unroll 1
    for (int w = 0; w < warps; ++w) {
      uint32_t const s_place = s_bytes + f.warp_offset + w * f.warp_bytes + gradient.offset;
      int first_y, first_x;
      asm volatile("ld.shared.v2.s32 {%0, %1}, [%2];" : "=r"(first_y), "=r"(first_x) : "r"(s_place) : "memory");
      int const row = y - first_y;
      int const column = x - first_x;
      if (unsigned(row) < unsigned(rows) && unsigned(column) < unsigned(f.packed)) {
        sum += load_shared(s_place + kPlaceBytes + (row * gradient.pitch + column) * int(sizeof(float)));
      }
    }
    partial[i] = is_first ? sum : partial[i] + sum;
  }
}

}  // namespace local
