// content_tile — tiles of positions of two tensors in shared memory, for blocks that sum over positions; and the sums of
// their groups of warps, merged in order.
#pragma once
#include "content_unit.cuh"

namespace content {

// How the host cut the positions of a block into tiles. In shared memory a tile holds its positions of the one tensor, then
// those of the other.
struct Tiling {
  prim::Divisor units_per_position;   // of both tensors
  int32_t positions_per_pass;         // that the block's threads copy at once
  int32_t slices, groups;             // units side by side along e; groups of warps
  int32_t tile, stages;               // positions per tile, a multiple of 16; tiles in shared memory, 1 to 3
  int32_t stage_bytes;                // of a tile
  int32_t own_bytes;                  // of a warp: scratch, and room for sums that leave the tensor core
};

// The thread, read anew at every call: what depends on it is computed where it is used, and no register holds it across a
// loop.
__device__ __forceinline__ int fresh_thread() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// Every thread copies one unit of channels, of every few positions.
template <class T>
struct TileCopy {
  Map const& a;
  int a_count, a_padded;   // channels, and in shared memory
  Map const& b;
  int b_count, b_padded;

  // Tile number `tile` of the block into stage `stage`, as one group; nothing where there are no positions.
  __device__ __forceinline__ void operator()(Tiling const& tiling, Positions const& positions, prim::Divisor const& heads,
                                             unsigned char* stages, int tile, int stage) const {
    Part const part = part_of_block(positions, heads);
    int const first = tile * tiling.tile;
    if (first < part.count) {
      int const thread = fresh_thread();
      int const first_row = tiling.units_per_position.quotient(thread);
      int const unit = tiling.units_per_position.remainder(thread, first_row);
      int const a_units = a_padded / prim::kUnit<T>;
      bool const is_a = unit < a_units;
      prim::Channels const channels = is_a ? channels_of(a, a_count) : channels_of(b, b_count);
      Plane<T const> const plane(is_a ? a : b, positions, part);
      int const channel = (is_a ? unit : unit - a_units) * prim::kUnit<T>;
      int const pitch = pitch_of<T>(is_a ? a_padded : b_padded);
      unsigned char* const to =
          stages + stage * tiling.stage_bytes + (is_a ? 0 : tiling.tile * pitch_of<T>(a_padded)) + channel * int(sizeof(T));
      int const end = first_row < tiling.positions_per_pass ? tiling.tile : 0;
      for (int row = first_row; row < end; row += tiling.positions_per_pass) {
        bool const live = first + row < part.count && channel < channels.count;
        T const* const pixel = plane.pixel(part.first + (live ? first + row : 0));
        prim::copy_unit(reinterpret_cast<uint4*>(to + row * pitch), pixel, channel, channels, live);
      }
    }
    prim::commit_copies();
  }
};

// What a warp of the block sums.
struct WarpUnit {
  int group, channel, column, columns;   // first channels, and how many value channels in whole blocks
  bool works;                            // some warps may be left over

  template <class T>
  static __device__ __forceinline__ WarpUnit of(Tiling const& tiling, int warp, int dp, int ep) {
    int const units = dp / kBlock * tiling.slices;
    int const unit = warp % units;
    WarpUnit u;
    u.group = warp / units;
    u.channel = unit / tiling.slices * kBlock;
    u.column = unit % tiling.slices * kSlice;
    u.columns = min(ep - u.column, kSlice);
    u.works = u.group < tiling.groups;
    return u;
  }
};

__device__ __forceinline__ Parts parts_of_block(unsigned char* smem, int groups, int dp, int ep) {
  Parts parts;
  parts.pitch = ep + prim::kMmaN;
  parts.sums = prim::shared_address(smem);
  parts.tops = reinterpret_cast<float*>(smem + groups * dp * parts.pitch * int(sizeof(float)));
  parts.totals = parts.tops + groups * dp;
  return parts;
}

// Channel `ci` of all groups: the quad of columns from `column` on, and the whole row's maximum and total.
struct Merged {
  float4 sum;
  float top, total;

  __device__ __forceinline__ Merged(Parts const& parts, int groups, int dp, int ci, int column) {
    top = parts.tops[ci];
    for (int i = 1; i < groups; ++i) {
      top = fmaxf(top, parts.tops[i * dp + ci]);
    }
    sum = make_float4(0.f, 0.f, 0.f, 0.f);
    total = 0.f;
    for (int row = ci; row < groups * dp; row += dp) {
      float const factor = exp_approx(parts.tops[row] - top);
      multiply_add(sum, factor, quad_at(parts.sums + (row * parts.pitch + column) * int(sizeof(float))));
      total = fmaf(factor, parts.totals[row], total);
    }
  }
};

}  // namespace content
