// gaussian_fwd_tile — products with weights that are not separable: o = (W v) / Z, and its transpose dv = W (g / Z).
//
// Work      a block makes a tile of queries × kColumns units of channels, of all images of a head, and walks over the tiles of
//           keys that have a weight; 16 bits: a warp makes all queries × 4 units; f32: a thread 8 queries of a row × one unit
// Reads     src, once per tile of queries that reaches it; inverse
// Writes    dst once
// Shared    Smem: two tiles of keys and of weights, sizes exported as <entry>_smem_bytes
// Numerics  16 bits: weights rounded to T, unnormalised; tensor cores, sums leave them every kMmaTermsMax terms; g/Z rounded
//           to T; f32: fma chains
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/tiles.rs
#include "gaussian_tile.cuh"
#include "prim/mma.cuh"

namespace gaussian {

template <class T>
struct Smem {
  TileOfUnits x[2];                     // keys
  uint32_t w[2][kTapRows][kTaps];       // f32: w(dx); 16 bits: pairs (w(dx), w(dx − 1))
};

template <class T>
__device__ __forceinline__ void fill_weights(uint32_t (&w)[kTapRows][kTaps], Profile const& profile, int dy, int dx) {
  static_assert(kTapRows * kTaps % kTileThreads == 0 && kTaps <= prim::kWarp, "whole passes of whole rows");
  int const column = threadIdx.x % kTaps;
#pragma unroll
  for (int row = threadIdx.x / kTaps; row < kTapRows; row += kTileThreads / kTaps) {
    float const weight = profile.tap(dy + row - (kSide - 1), dx + column - kSide).w;
    if constexpr (sizeof(T) == sizeof(float)) {
      w[row][column] = __float_as_uint(weight);
    } else {
      // Pairs begin at entry 2, so what entry 0 gets from the row before is not used.
      w[row][column] = prim::Pair<T>::pack(weight, __shfl_up_sync(prim::kAllLanes, weight, 1));
    }
  }
}

// ---- 16 bits ------------------------------------------------------------------------------------------------------

constexpr int kUnitsPerWarp = kColumns / kTileWarps;
constexpr int kRowPairs = kSide / 2;    // m16 tiles of queries, k16 tiles of keys: two rows each
constexpr int kTilesPerSum = prim::kMmaTermsMax / kPixels;

template <class T>
struct Sums {
  float on_core[kRowPairs][kUnitsPerWarp][4];
  float left[kRowPairs][kUnitsPerWarp][4];       // what has left the tensor core
  int tiles;

  __device__ __forceinline__ void start() {
    tiles = 0;
    each([](float& c, float& l) { c = l = 0.f; });
  }

  template <class F>
  __device__ __forceinline__ void each(F f) {
#pragma unroll
    for (int m = 0; m < kRowPairs; ++m) {
#pragma unroll
      for (int n = 0; n < kUnitsPerWarp; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          f(on_core[m][n][i], left[m][n][i]);
        }
      }
    }
  }

  __device__ __forceinline__ void leave() {
    each([](float& c, float& l) {
      l += c;
      c = 0.f;
    });
  }

  // Rows of queries and keys beyond the map are left out by twos.
  __device__ __forceinline__ void add(TileOfUnits const& x, uint32_t const (&w)[kTapRows][kTaps], int query_rows, int key_rows) {
    int const lane = threadIdx.x % prim::kWarp;
    int const warp = threadIdx.x / prim::kWarp;
    auto const [g, t] = prim::lane_of_warp();
    uint4 const* const keys = &x[lane % prim::kMmaK][warp * kUnitsPerWarp + lane / prim::kMmaK];
    // The pairs of this lane between any two rows: what A is made of, for all tiles.
    uint32_t taps[2 * kSide - 1];
#pragma unroll
    for (int row = 0; row < 2 * kSide - 1; ++row) {
      taps[row] = w[row][kSide + g - 2 * t];
    }
#pragma unroll
    for (int k = 0; k < kRowPairs; ++k) {
      if (2 * k >= key_rows) {
        break;
      }
      uint32_t b[kUnitsPerWarp / 2][4];
#pragma unroll
      for (int n = 0; n < kUnitsPerWarp / 2; ++n) {
        prim::load_matrices_transposed(b[n], prim::shared_address(keys + k * prim::kMmaK * kPitch + 2 * n));
      }
#pragma unroll
      for (int m = 0; m < kRowPairs; ++m) {
        if (2 * m < query_rows) {
          int const same = kSide - 1 + 2 * (m - k);
          uint32_t const a[4] = {taps[same], taps[same + 1], taps[same - 1], taps[same]};
#pragma unroll
          for (int n = 0; n < kUnitsPerWarp; ++n) {
            prim::mma<T>(on_core[m][n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
          }
        }
      }
    }
    if (++tiles % kTilesPerSum == 0) {
      leave();
    }
  }

  // Into shared memory, so that a thread stores whole units.
  __device__ __forceinline__ void stage(TileOfUnits& to, float const* factors, GaussianTiles const& tiles, int first_y, int first_x) {
    leave();
    int const warp = threadIdx.x / prim::kWarp;
    auto const [g, t] = prim::lane_of_warp();
    int const xi = min(first_x + g, tiles.x - 1);
#pragma unroll
    for (int m = 0; m < kRowPairs; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const row = 2 * m + half;
        int const yi = min(first_y + row, tiles.y - 1);
        float const f = factors != nullptr ? __ldg(factors + yi * tiles.x + xi) : 1.f;
#pragma unroll
        for (int n = 0; n < kUnitsPerWarp; ++n) {
          uint4& unit = to[row * kSide + g][warp * kUnitsPerWarp + n];
          reinterpret_cast<uint32_t*>(&unit)[t] =
              prim::Pair<T>::pack(left[m][n][2 * half] * f, left[m][n][2 * half + 1] * f);
        }
      }
    }
  }
};

// ---- f32 ----------------------------------------------------------------------------------------------------------

template <>
struct Sums<float> {
  float4 acc[kSide];         // of a row of queries

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      acc[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
  }

  __device__ __forceinline__ void add(TileOfUnits const& x, uint32_t const (&w)[kTapRows][kTaps], int query_rows, int key_rows) {
    int const column = threadIdx.x % kColumns;
    int const row = threadIdx.x / kColumns;
    int const rows = row < query_rows ? min(key_rows, kSide) : 0;
    for (int k = 0; k < rows; ++k) {
      float taps[kTaps];
      float4 const* const from = reinterpret_cast<float4 const*>(w[row - k + kSide - 1]);
#pragma unroll
      for (int i = 0; i < kTaps / prim::kQuad; ++i) {
        reinterpret_cast<float4&>(taps[i * prim::kQuad]) = from[i];
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        float4 const in = reinterpret_cast<float4 const&>(x[k * kSide + i][column]);
#pragma unroll
        for (int o = 0; o < kSide; ++o) {
          float const tap = taps[o - i + kSide];
          acc[o].x = fmaf(tap, in.x, acc[o].x);
          acc[o].y = fmaf(tap, in.y, acc[o].y);
          acc[o].z = fmaf(tap, in.z, acc[o].z);
          acc[o].w = fmaf(tap, in.w, acc[o].w);
        }
      }
    }
  }

  __device__ __forceinline__ void stage(TileOfUnits& to, float const* factors, GaussianTiles const& tiles, int first_y, int first_x) {
    int const column = threadIdx.x % kColumns;
    int const row = threadIdx.x / kColumns;
    int const yi = min(first_y + row, tiles.y - 1);
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      int const xi = min(first_x + i, tiles.x - 1);
      float const f = factors != nullptr ? __ldg(factors + yi * tiles.x + xi) : 1.f;
      float4 const out = make_float4(acc[i].x * f, acc[i].y * f, acc[i].z * f, acc[i].w * f);
      reinterpret_cast<float4&>(to[row * kSide + i][column]) = out;
    }
  }
};

// Whether the warp has a column that exists.
template <class T>
__device__ __forceinline__ bool has_columns(TileBlock const& block, GaussianTiles const& tiles) {
  int const first = sizeof(T) == sizeof(float) ? 0 : int(threadIdx.x) / prim::kWarp * kUnitsPerWarp;
  return block.first_column + first < tiles.columns;
}

// ---- Both ---------------------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void product(GaussianTileParams const& p) {
  Smem<T>& smem = *prim::shared_memory<Smem<T>>();

  // ---- Where am I ---------------------------------------------------------------------------
  TileBlock const block = tile_block(p.tiles);
  Profile const profile = profile_of(p.radius, block.hi);
  Column<T> const in(p.tiles, p.src, p.src_at, block);
  int64_t const of_radius = p.radius.stride == 0 ? 0 : int64_t(block.hi) * (p.tiles.y * p.tiles.x);
  float const* const factors = p.inverse != nullptr ? p.inverse + of_radius : nullptr;
  float const* const of_inputs = p.scales_inputs ? factors : nullptr;
  Walk walk(profile, p.tiles, block.tile);
  int const query_rows = p.tiles.y - walk.row * kSide;
  bool const works = has_columns<T>(block, p.tiles);

  // ---- Main loop: tiles of keys, the next on its way ----------------------------------------------
  Sums<T> sums;
  sums.start();
  int stage = 0;
  in.copy(smem.x[0], p.src, walk.key_row, walk.key_column);
  prim::commit_copies();
  while (!walk.done()) {
    int const key_row = walk.key_row;
    fill_weights<T>(smem.w[stage], profile, walk.dy(), walk.dx());
    prim::wait_copies<0>();
    if (of_inputs != nullptr) {
      in.scale(smem.x[stage], of_inputs, key_row, walk.key_column);
    }
    __syncthreads();   // sync: keys and weights of this stage filled; the other stage is read
    walk.next();
    if (!walk.done()) {
      in.copy(smem.x[stage ^ 1], p.src, walk.key_row, walk.key_column);
      prim::commit_copies();
    }
    if (works) {
      sums.add(smem.x[stage], smem.w[stage], query_rows, p.tiles.y - key_row * kSide);
    }
    stage ^= 1;
  }

  // ---- Store: `stage` is the one that was read before the last barrier ------------------------------
  int const first_y = walk.row * kSide;
  int const first_x = walk.column * kSide;
  sums.stage(smem.x[stage], p.scales_inputs ? nullptr : factors, p.tiles, first_y, first_x);
  __syncthreads();   // sync: outputs of all threads in shared memory
  Column<T> const out(p.tiles, p.dst, p.dst_at, block);
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    int const yi = first_y + i;
    int const xi = first_x + out.own;
    if (out.exists(yi, xi)) {
      T* const pixel = static_cast<T*>(p.dst) + out.origin + (out.line * yi + out.axis * xi);
      prim::store_unit(pixel, out.channel, out.channels, smem.x[stage][i * kSide + out.own][out.index]);
    }
  }
}

}  // namespace gaussian

#define VARIANT(dtype, T, blocks)                                                                           \
  ENTRY_SMEM(gaussian_fwd_tile_##dtype, sizeof(gaussian::Smem<T>));                                         \
  extern "C" __global__ void __launch_bounds__(gaussian::kTileThreads, blocks)                              \
      gaussian_fwd_tile_##dtype(__grid_constant__ GaussianTileParams const p) {                             \
    gaussian::product<T>(p);                                                                                \
  }
VARIANT(f32, float, 4)
VARIANT(f16, __half, 2)
VARIANT(bf16, __nv_bfloat16, 2)
