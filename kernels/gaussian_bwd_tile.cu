// gaussian_bwd_tile — dσ of weights that are not separable: Σ_ij (∂w_ij/∂σ − w_ij mean_i) / Z_i · S_ij, where S_ij = Σ g_i v_j
// over all channels of all images of a head is one product: the weights are evaluated once for all of them.
//
// Work      a block has the gradients of a tile of queries, kColumns units of channels, and walks over the tiles of keys that
//           have a weight; 16 bits: a warp makes S of 4 rows of queries × 4 of keys; f32: a thread 8 queries of a row × 4 keys
// Reads     d_o once; v once per tile of queries that it reaches; inverse and mean
// Writes    one partial sum per block
// Shared    Smem: two tiles of keys (f32: and the queries) and of weights, sizes exported as <entry>_smem_bytes
// Numerics  S on tensor cores for 16 bits, sums of at most kColumns units; all else f32; w rounded to T as in Z
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/tiles.rs
#include "gaussian_tile.cuh"
#include "prim/mma.cuh"
#include "prim/warp.cuh"

namespace gaussian {

constexpr int kTapPitch = 24;   // rows of taps that a warp reads together lie in different banks

template <class T>
struct Smem {
  static constexpr int kTiles = sizeof(T) == sizeof(float) ? 3 : 2;
  TileOfUnits x[kTiles];                // keys; the last: queries, which 16 bits take into registers before it holds keys
  Tap taps[2][kTapRows][kTapPitch];
  float warps[kTileWarps];
};

template <class T>
__device__ __forceinline__ void fill_taps(Tap (&taps)[kTapRows][kTapPitch], Profile const& profile, int dy, int dx) {
  int const column = threadIdx.x % kTaps;
#pragma unroll
  for (int row = threadIdx.x / kTaps; row < kTapRows; row += kTileThreads / kTaps) {
    Tap tap = profile.tap(dy + row - (kSide - 1), dx + column - kSide);
    tap.w = prim::rounded<T>(tap.w);
    taps[row][column] = tap;
  }
}

// What belongs to a query.
struct Query {
  float inverse, mean;
  __device__ __forceinline__ Query(GaussianBwdTileParams const& p, int64_t of_radius, int yi, int xi) {
    bool const exists = yi < p.tiles.y && xi < p.tiles.x;
    bool const is_row = p.inverse != nullptr;
    int64_t const at = of_radius + yi * p.tiles.x + xi;
    inverse = !exists ? 0.f : is_row ? __ldg(p.inverse + at) : 1.f;
    mean = exists && is_row ? __ldg(p.mean + at) : 0.f;
  }
};

// ---- 16 bits ------------------------------------------------------------------------------------------------------

constexpr int kSteps = kColumns / 2;              // of k16: two units
constexpr int kWarpRows = kSide / 2;              // of queries, and of keys
constexpr int kQueryTiles = kWarpRows / 2;        // m16: two rows

template <class T>
struct Leans {
  static constexpr bool kHoldsQueries = true;     // in registers, from the start
  uint32_t g[kQueryTiles][kSteps][4];
  float sum[kQueryTiles][2];                      // Σ_j (slope − w mean) S of rows of queries
  float mean[kQueryTiles][2];
  float inverse[kQueryTiles][2];
  int first_query, first_key;                     // rows of this warp within a tile

  __device__ __forceinline__ void start(TileOfUnits const& queries, GaussianBwdTileParams const& p, int64_t of_radius,
                                        int first_y, int first_x) {
    int const lane = threadIdx.x % prim::kWarp;
    int const warp = threadIdx.x / prim::kWarp;
    first_query = warp / 2 * kWarpRows;
    first_key = warp % 2 * kWarpRows;
#pragma unroll
    for (int m = 0; m < kQueryTiles; ++m) {
      uint4 const* const rows = &queries[first_query * kSide + m * prim::kMmaM + lane % prim::kMmaM][lane / prim::kMmaM];
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        prim::load_matrices(g[m][k], prim::shared_address(rows + 2 * k));
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Query const query(p, of_radius, first_y + first_query + 2 * m + half, first_x + lane / 4);
        sum[m][half] = 0.f;
        mean[m][half] = query.mean;
        inverse[m][half] = query.inverse;
      }
    }
  }

  __device__ __forceinline__ void add(TileOfUnits const&, TileOfUnits const& x, Tap const (&taps)[kTapRows][kTapPitch],
                                      int columns, int query_rows, int key_rows) {
    if (first_query >= query_rows || first_key >= key_rows) {
      return;
    }
    int const lane = threadIdx.x % prim::kWarp;
    float s[kQueryTiles][kWarpRows][4] = {};
    uint4 const* const keys = &x[first_key * kSide + lane / 16 * kSide + lane % 8][lane / 8 % 2];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (2 * k >= columns) {
        break;
      }
#pragma unroll
      for (int n = 0; n < kWarpRows / 2; ++n) {
        uint32_t b[4];
        prim::load_matrices(b, prim::shared_address(keys + n * 2 * kSide * kPitch + 2 * k));
#pragma unroll
        for (int m = 0; m < kQueryTiles; ++m) {
          prim::mma<T>(s[m][2 * n], g[m][k], b[0], b[1]);
          prim::mma<T>(s[m][2 * n + 1], g[m][k], b[2], b[3]);
        }
      }
    }
    // Lane 4·g + t has query g of two rows, and keys 2t and 2t + 1 of each row.
    Tap const* const near = &taps[first_query - first_key + kSide - 1][kSide + lane / 4 - lane % 4 * 2];
#pragma unroll
    for (int m = 0; m < kQueryTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int n = 0; n < kWarpRows; ++n) {
          Tap const* const row = near + (2 * m + half - n) * kTapPitch;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float const lean = row[-i].slope - row[-i].w * mean[m][half];
            sum[m][half] = fmaf(lean, s[m][n][2 * half + i], sum[m][half]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ float total() const {
    float all = 0.f;
#pragma unroll
    for (int m = 0; m < kQueryTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        all = fmaf(sum[m][half], inverse[m][half], all);
      }
    }
    return all;
  }
};

// ---- f32 ----------------------------------------------------------------------------------------------------------

constexpr int kKeys = kPixels / kColumns;         // of a thread, kColumns apart

template <>
struct Leans<float> {
  static constexpr bool kHoldsQueries = false;
  float sum[kSide], mean[kSide], inverse[kSide];  // of a row of queries

  __device__ __forceinline__ void start(TileOfUnits const&, GaussianBwdTileParams const& p, int64_t of_radius, int first_y,
                                        int first_x) {
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      Query const query(p, of_radius, first_y + int(threadIdx.x) / kColumns, first_x + i);
      sum[i] = 0.f;
      mean[i] = query.mean;
      inverse[i] = query.inverse;
    }
  }

  __device__ __forceinline__ void add(TileOfUnits const& queries, TileOfUnits const& x,
                                      Tap const (&taps)[kTapRows][kTapPitch], int columns, int query_rows, int) {
    int const row = threadIdx.x / kColumns;
    int const key = threadIdx.x % kColumns;
    if (row >= query_rows) {
      return;
    }
    float s[kSide][kKeys] = {};
    for (int k = 0; k < columns; ++k) {
      float4 v[kKeys];
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        v[j] = reinterpret_cast<float4 const&>(x[key + j * kColumns][k]);
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        float4 const g = reinterpret_cast<float4 const&>(queries[row * kSide + i][k]);
#pragma unroll
        for (int j = 0; j < kKeys; ++j) {
          s[i][j] = fmaf(g.x, v[j].x, fmaf(g.y, v[j].y, fmaf(g.z, v[j].z, fmaf(g.w, v[j].w, s[i][j]))));
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      Tap const* const near = &taps[row - key / kSide - j * (kColumns / kSide) + kSide - 1][kSide - key % kSide];
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        float const lean = near[i].slope - near[i].w * mean[i];
        sum[i] = fmaf(lean, s[i][j], sum[i]);
      }
    }
  }

  __device__ __forceinline__ float total() const {
    float all = 0.f;
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      all = fmaf(sum[i], inverse[i], all);
    }
    return all;
  }
};

// ---- Both ---------------------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void lean(GaussianBwdTileParams const& p) {
  Smem<T>& smem = *prim::shared_memory<Smem<T>>();
  TileOfUnits& queries = smem.x[Smem<T>::kTiles - 1];

  // ---- Where am I ---------------------------------------------------------------------------
  TileBlock const block = tile_block(p.tiles);
  Profile const profile = profile_of(p.radius, block.hi);
  Column<T> const of_v(p.tiles, p.v, p.v_at, block);
  int64_t const of_radius = p.radius.stride == 0 ? 0 : int64_t(block.hi) * (p.tiles.y * p.tiles.x);
  Walk walk(profile, p.tiles, block.tile);
  int const columns = min(p.tiles.columns - block.first_column, kColumns);
  int const query_rows = p.tiles.y - walk.row * kSide;

  // ---- Load: queries and the first keys -----------------------------------------------------------
  Column<T>(p.tiles, p.d_o, p.d_o_at, block).copy(queries, p.d_o, walk.row, walk.column);
  of_v.copy(smem.x[0], p.v, walk.key_row, walk.key_column);
  prim::commit_copies();
  if constexpr (Leans<T>::kHoldsQueries) {
    prim::wait_copies<0>();
    __syncthreads();   // sync: queries landed
  }
  Leans<T> leans;
  leans.start(queries, p, of_radius, walk.row * kSide, walk.column * kSide);

  // ---- Main loop: tiles of keys, the next on its way ----------------------------------------------
  for (int stage = 0; !walk.done(); stage ^= 1) {
    int const key_row = walk.key_row;
    fill_taps<T>(smem.taps[stage], profile, walk.dy(), walk.dx());
    prim::wait_copies<0>();
    __syncthreads();   // sync: keys and weights of this stage filled; the other stage is read
    walk.next();
    if (!walk.done()) {
      of_v.copy(smem.x[stage ^ 1], p.v, walk.key_row, walk.key_column);
      prim::commit_copies();
    }
    leans.add(queries, smem.x[stage], smem.taps[stage], columns, query_rows, p.tiles.y - key_row * kSide);
  }

  // ---- Store --------------------------------------------------------------------------------
  float const total = prim::block_sum<kTileThreads>(leans.total(), smem.warps);
  if (threadIdx.x == 0) {
    p.partials[blockIdx.x] = total;
  }
}

}  // namespace gaussian

#define VARIANT(dtype, T, blocks)                                                                           \
  ENTRY_SMEM(gaussian_bwd_tile_##dtype, sizeof(gaussian::Smem<T>));                                         \
  extern "C" __global__ void __launch_bounds__(gaussian::kTileThreads, blocks)                              \
      gaussian_bwd_tile_##dtype(__grid_constant__ GaussianBwdTileParams const p) {                          \
    gaussian::lean<T>(p);                                                                                   \
  }
VARIANT(f32, float, 3)
VARIANT(f16, __half, 3)
VARIANT(bf16, __nv_bfloat16, 3)
