// gaussian_fwd_tile_norm — per radius and query, 1/Z and the mean slope of weights that are not separable.
//
// Work      a block makes a tile of queries; four threads share a query, two rows of each tile of keys each
// Reads     sigma once
// Writes    inverse and, if wanted, mean: [radius][y][x]
// Shared    Smem, size exported as <entry>_smem_bytes
// Numerics  w in f32, rounded as the product rounds it; sums of positive terms, four in sequence and then together
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/tiles.rs
#include "gaussian_tile.cuh"

namespace gaussian {

constexpr int kNormThreads = 256;
constexpr int kParts = kNormThreads / kPixels;
constexpr int kRowsPerPart = kSide / kParts;
constexpr int kTapPitch = 24;   // a half warp reads 8 taps of 2 rows, which lie in different banks

struct Smem {
  Tap taps[2][kTapRows][kTapPitch];
  Tap parts[kParts][kPixels];
};

__device__ __forceinline__ void norm(GaussianTileNormParams const& p) {
  static_assert(kNormThreads == kTapRows * kTaps, "a tap per thread");
  Smem& smem = *prim::shared_memory<Smem>();

  // ---- Where am I ---------------------------------------------------------------------------
  int const per_radius = p.tiles.rows_of_tiles * p.tiles.tiles_of_row;
  int const ri = blockIdx.x / per_radius;
  Profile const profile = profile_of(p.radius, ri);
  int const pixel = threadIdx.x % kPixels;
  int const part = threadIdx.x / kPixels;
  int const qy = pixel / kSide;
  int const qx = pixel % kSide;
  int const tap_row = threadIdx.x / kTaps;
  int const tap_column = threadIdx.x % kTaps;

  // ---- Main loop: tiles of keys -----------------------------------------------------------------
  Tap sum = {0.f, 0.f};
  Walk walk(profile, p.tiles, blockIdx.x - ri * per_radius);
  int const row = walk.row;
  int const column = walk.column;
  for (int stage = 0; !walk.done(); walk.next(), stage ^= 1) {
    Tap tap = profile.tap(walk.dy() + tap_row - (kSide - 1), walk.dx() + tap_column - kSide);
    tap.w = rounded_as(tap.w, p.rounding);
    smem.taps[stage][tap_row][tap_column] = tap;
    __syncthreads();   // sync: taps filled; those of the other stage are read
    int const keys_y = p.tiles.y - walk.key_row * kSide;
    int const keys_x = p.tiles.x - walk.key_column * kSide;
#pragma unroll
    for (int i = 0; i < kRowsPerPart; ++i) {
      int const ky = part * kRowsPerPart + i;
      Tap const* const taps = &smem.taps[stage][qy - ky + kSide - 1][qx + kSide];
#pragma unroll
      for (int kx = 0; kx < kSide; ++kx) {
        if (ky < keys_y && kx < keys_x) {
          sum.w += taps[-kx].w;
          sum.slope += taps[-kx].slope;
        }
      }
    }
  }

  // ---- Store --------------------------------------------------------------------------------
  smem.parts[part][pixel] = sum;
  __syncthreads();   // sync: parts filled
  int const yi = row * kSide + qy;
  int const xi = column * kSide + qx;
  if (part == 0 && yi < p.tiles.y && xi < p.tiles.x) {
    for (int i = 1; i < kParts; ++i) {
      sum.w += smem.parts[i][pixel].w;
      sum.slope += smem.parts[i][pixel].slope;
    }
    int64_t const at = int64_t(ri) * (p.tiles.y * p.tiles.x) + yi * p.tiles.x + xi;
    p.inverse[at] = 1.f / sum.w;
    if (p.mean != nullptr) {
      p.mean[at] = sum.slope / sum.w;
    }
  }
}

}  // namespace gaussian

ENTRY_SMEM(gaussian_fwd_tile_norm_f32, sizeof(gaussian::Smem));
extern "C" __global__ void __launch_bounds__(gaussian::kNormThreads, 4)
    gaussian_fwd_tile_norm_f32(__grid_constant__ GaussianTileNormParams const p) {
  gaussian::norm(p);
}
