// axial_fwd — one layer along columns or rows: o_i = Σ_j (q_i · r[j − i]) v_j, without softmax; batch norm of v if wanted; for
// gsa plus the other branch, q̂_i · summary.
//
// Work      a block holds one tile of queries of a few lines of one head; a warp a grain of queries (f32: half their channels)
// Reads     q once; v once per tile of queries that reaches it (lines of at most 64 pixels, f32 32: once); the table once per
//           block, or as often as v
// Writes    o once; or, instead of it or with it, mean and squared deviation of every channel once per block
// Shared    FwdSmem<T, D>, and behind it, for gsa, the summary in T, or as much of it as the plan finds room for
// Numerics  sums f32; with 16-bit elements the weights q·r and the normalised v are rounded to T before they meet; statistics
//           are of the f32 sums, before o is rounded; the sum of a long line stays on the tensor core, which truncates. gsa:
//           the summary and queries after softmax are rounded to T; both branches are one f32 sum, rounded once
// Mirrors   src/reference/axial.rs::forward and gsa.rs::forward, launched by src/ops/axial/forward.rs
#include "axial_tile.cuh"

namespace axial {

// Tensors of a launch.
enum FwdMap : int { kQ, kV, kO, kMaps };

}  // namespace axial

struct AxialFwdParams {
  axial::Map maps[axial::kMaps];   // o: data null: statistics alone
  axial::Table table;
  axial::Norm norm;          // of v
  axial::Summary summary;
  float* partials;           // null: none; else [blocks of the launch][1 + 2·e]: count, means, deviations
  axial::Lines lines;
  int32_t _pad;
};
static_assert(sizeof(AxialFwdParams) == 376, "AxialFwdParams: change src/ops/axial/params.rs together with this");

namespace axial {

constexpr int kFwdWarps = 4;
constexpr int kFwdThreads = kFwdWarps * prim::kWarp;

template <class T, int D>
struct FwdSmem {
  static constexpr int kRows = Shape<T, D>::kRows;
  static constexpr int kPitch = kRows + prim::kUnit<T>;   // of weights: eight rows lie in different banks
  unsigned char table[2 * Shape<T, D>::kTileBytes];       // two neighbouring tiles of offsets
  unsigned char q[Shape<T, D>::kTileBytes];
  unsigned char v[Shape<T, D>::kTileBytes];               // and then o
  T weights[kRows][kPitch];                               // of every query with its line's keys of the tile
  T* starts[kMaps * Shape<T, D>::kGrains][2];
  Affine<D> affine;
  float mean[Shape<T, D>::kGrains][D];
  float deviation[Shape<T, D>::kGrains][D];
  float count[Shape<T, D>::kGrains];
};

// Where the summary lies in shared memory.
template <class T, int D>
constexpr int kSummaryAt = prim::round_up(int(sizeof(FwdSmem<T, D>)), kLineBytes);
static_assert(kSummaryAt<float, 64> == 39296 && kSummaryAt<float, 128> == 73856, "change src/ops/axial/forward.rs with this");
static_assert(kSummaryAt<__half, 64> == 45056 && kSummaryAt<__half, 128> == 80640, "change src/ops/axial/forward.rs with this");

// Statistics of a warp's queries, into its grain's row.
template <class T, int D, int kGroups>
__device__ __forceinline__ void statistics(float const (&acc)[2 * kGroups][4], bool low_lives, bool high_lives, FwdSmem<T, D>& smem,
                                           int grain, int first_channel) {
  prim::Lane const at = prim::lane_of_warp();
  int const lows = __popc(__ballot_sync(prim::kAllLanes, low_lives && at.t == 0));
  float const count = float(lows + __popc(__ballot_sync(prim::kAllLanes, high_lives && at.t == 0)));
  float const part = count > 0.f ? 1.f / count : 0.f;
  if (at.g == 0 && at.t == 0 && first_channel == 0) {
    smem.count[grain] = count;
  }
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float const low = acc[2 * m + j][i];
        float const high = acc[2 * m + j][2 + i];
        float sum = (low_lives ? low : 0.f) + (high_lives ? high : 0.f);
#pragma unroll
        for (int distance = 4; distance < prim::kWarp; distance *= 2) {
          sum += __shfl_xor_sync(prim::kAllLanes, sum, distance);
        }
        float const mean = sum * part;
        float const low_off = low_lives ? low - mean : 0.f;
        float const high_off = high_lives ? high - mean : 0.f;
        float deviation = fmaf(low_off, low_off, high_off * high_off);
#pragma unroll
        for (int distance = 4; distance < prim::kWarp; distance *= 2) {
          deviation += __shfl_xor_sync(prim::kAllLanes, deviation, distance);
        }
        int const channel = first_channel + 16 * m + channel_of<T>(j, at.t) + i;
        if (at.g == 0) {
          smem.mean[grain][channel] = mean;
          smem.deviation[grain][channel] = deviation;
        }
      }
    }
  }
}

// Sums of a group of lines, plus their queries · summary. Lines may be of several images, each of which has a summary; the one
// in shared memory, if it is there whole, is that of image `held`, and serves later groups. Queries are normalised in place.
template <class T, int D, int kGroups>
__device__ __forceinline__ void add_content(float (&acc)[2 * kGroups][4], AxialFwdParams const& p, uint32_t s_q, uint32_t s_summary,
                                            int hi, int group, int grain, int first_channel,
                                            LaneOffsets<T, D, FwdSmem<T, D>::kPitch> const& of_lane, int& held) {
  constexpr int kSplit = kFwdWarps / Shape<T, D>::kGrains;
  Lines const& l = p.lines;
  Summary const& summary = p.summary;
  int const ep = prim::round_up(l.e, prim::Matrix<T>::kColumns);
  prim::Matrix<T> const matrix{s_summary, prim::Matrix<T>::pitch_of(ep)};
  if (summary.norms_queries) {
    if constexpr (kSplit == 1) {
      normalise_rows<T, D>(s_q, grain * kGrain, l.d);
      normalise_rows<T, D>(s_q, grain * kGrain + 8, l.d);
      __syncwarp();      // sync: the warp's queries are normalised
    } else {
      normalise_rows<T, D>(s_q, prim::warp_of_block() * 8, l.d);
      __syncthreads();   // sync: the queries of the warps that share a grain are normalised
    }
  }
  int const lines = Shape<T, D>::kGrains >> l.log2_grains;
  int const first_line = group * lines;
  int const line = first_line + (grain >> l.log2_grains);
  int const own = line < l.lines ? l.per_image.quotient(line) : -1;
  int const last = l.per_image.quotient(min(first_line + lines, l.lines) - 1);
#pragma unroll 1
  for (int image = l.per_image.quotient(first_line); image <= last; ++image) {
#pragma unroll 1
    for (int first = 0; first < l.d; first += summary.rows) {
      if (image != held || summary.rows < l.d) {
        int64_t const row = (int64_t(l.first_image + image) * summary.heads + hi) * l.d + first;
        int const rows = min(summary.rows, prim::round_up(l.d, kGrain) - first);
        __syncthreads();   // sync: what is there of the summary read before it is overwritten
        matrix.fill(summary.data + row * l.e, l.e, l.d - first, l.e, rows, ep, 1.f);
        __syncthreads();   // sync: the summary is there
        held = image;
      }
      if (image == own) {
        rows_by_matrix<kGroups>(acc, s_q, grain * kGrain, first, min(summary.rows, l.d - first), matrix, first_channel, l.e, of_lane);
      }
    }
  }
}

template <class T, int D>
__device__ __forceinline__ void fwd(AxialFwdParams const& p) {
  constexpr int kSplit = kFwdWarps / Shape<T, D>::kGrains;          // warps that share a grain of queries
  constexpr int kGroups = D / 16 / kSplit;                          // of 16 channels of o, of a warp
  using Smem = FwdSmem<T, D>;
  static_assert(D <= kFwdThreads, "a thread merges the statistics of a channel");
  Smem& smem = *prim::shared_memory<Smem>();
  uint32_t const s_table = prim::shared_address(smem.table);
  uint32_t const s_q = prim::shared_address(smem.q);
  uint32_t const s_v = prim::shared_address(smem.v);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Lines const& l = p.lines;
  Block const block = block_of_grid(l, blockIdx.x);
  int const log2_grains = l.log2_grains;
  int const grains = 1 << log2_grains;
  int const size = kGrain << log2_grains;
  int const warp = prim::warp_of_block();
  int const grain = warp / kSplit;                                  // of the block's rows
  int const of_line = grain & (grains - 1);                         // of the line's tile
  int const line_row = (grain - of_line) * kGrain;                  // first row of the line's tile
  int const first_channel = warp % kSplit * (kGroups * 16);
  prim::Lane const at = prim::lane_of_warp();
  LaneOffsets<T, D, Smem::kPitch> const of_lane;
  uint32_t const s_weights = prim::shared_address(&smem.weights[grain * kGrain][0]);
  int const first_query = block.first_tile * size;                  // a block has one tile
  Reached const span = reached(l, p.table, first_query);
  bool const has_norm = p.norm.weight.data != nullptr;
  if (has_norm) {
    smem.affine.fill(p.norm, block.hi, 0, l.e);
  }
  Starts<T, Shape<T, D>::kGrains, int(sizeof(smem.starts[0]))> const starts{reinterpret_cast<unsigned char*>(smem.starts)};
  starts.fill(0, l, block.hi, block.first_group, p.maps);
  __syncthreads();   // sync: affine and the first lines' starts filled

  // ---- Main loop: groups of lines, tiles of keys ----------------------------------------------------------------------
  Moments moments{0.f, 0.f, 0.f};
  int held = -1;   // image whose summary is in shared memory
  int parity = 0;  // of the group
#pragma unroll 1
  for (int group = block.first_group; group < block.end_group; ++group) {
    auto rows = [&](FwdMap map, int first) { return Rows(starts, parity, map, p.maps[map], l, group, first); };
    load_tile<T, D, kFwdThreads>(s_q, p.maps[kQ], l.d, rows(kQ, first_query));
    float acc[2 * kGroups][4];
    clear(acc);
#pragma unroll 1
    for (int tile = span.begin; tile < span.end; ++tile) {
      int const first_key = first_query + tile * size;
      if (has_norm) {
        load_normalised<T, D, kFwdThreads>(s_v, p.maps[kV], l.e, smem.affine, rows(kV, first_key));
      } else {
        load_tile<T, D, kFwdThreads>(s_v, p.maps[kV], l.e, rows(kV, first_key));
      }
      bool const is_first = tile == span.begin;
      if (is_first && (group == block.first_group || span.end - span.begin > 1)) {
        load_offsets<T, D, kFwdThreads>(s_table, p.table, l.d, block.hi, tile - 1, log2_grains);
      }
      if (!is_first || group == block.first_group || span.end - span.begin > 1) {
        load_offsets<T, D, kFwdThreads>(s_table, p.table, l.d, block.hi, tile, log2_grains);
      }
      prim::commit_copies();
      prim::wait_copies<0>();
      __syncthreads();   // sync: q, v and the offsets are there

      // Weights: a band at a time, each row one further to the left than the one above.
#pragma unroll 1
      for (int band = grains - of_line - 1 + warp % kSplit; band < 2 * grains - of_line; band += kSplit) {
        float c[2][4] = {};
        rows_by_rows(c, s_q, grain * kGrain, s_table, band_row(band * kGrain, tile, log2_grains), l.d, of_lane);
        int const first = (of_line + band - grains) * kGrain;       // key of the band's first row and column
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            int const row = at.g + i / 2 * 8;
            int const key = first + row + 8 * j + 2 * at.t + i % 2;
            if (unsigned(key) < unsigned(size)) {
              store_weight<T>(s_weights, row * Smem::kPitch + key, c[j][i]);
            }
          }
        }
      }
      if constexpr (kSplit == 1) {
        __syncwarp();      // sync: the warp's weights are there
      } else {
        __syncthreads();   // sync: the weights of the warps that share a grain are there
      }
#pragma unroll 1
      for (int key = 0; key < min(size, l.axis - first_key); key += kGrain) {
        weights_by_rows<false, kGroups>(acc, s_weights + key * int(sizeof(T)), s_v, line_row + key, first_channel, l.e, of_lane);
      }
      __syncthreads();   // sync: q, v, the offsets and the weights read before they are overwritten
    }

    if (p.summary.data != nullptr) {
      uint32_t const s_summary = prim::shared_address(&smem) + kSummaryAt<T, D>;
      add_content<T, D, kGroups>(acc, p, s_q, s_summary, block.hi, group, grain, first_channel, of_lane, held);
    }

    // ---- Store ------------------------------------------------------------------------------------------------------
    // All threads have begun this group, so none looks for the lines of the last one.
    starts.fill(parity ^ 1, l, block.hi, group + 1, p.maps);
    if (p.maps[kO].data != nullptr) {
      stage<T, D, kGroups>(acc, s_v, grain * kGrain, first_channel, l.e);
    }
    if (p.partials != nullptr) {
      auto const queries = rows(kQ, first_query);
      bool const low_lives = queries(grain * kGrain + at.g).lives;
      bool const high_lives = queries(grain * kGrain + at.g + 8).lives;
      statistics<T, D, kGroups>(acc, low_lives, high_lives, smem, grain, first_channel);
    }
    __syncthreads();   // sync: o in smem.v before other threads store it; statistics before they are merged; the next starts
    if (p.maps[kO].data != nullptr) {
      store_tile<T, D, kFwdThreads>(s_v, p.maps[kO], l.e, false, rows(kO, first_query));
    }
    parity ^= 1;
    if (p.partials != nullptr && int(threadIdx.x) < l.e) {
#pragma unroll
      for (int i = 0; i < Shape<T, D>::kGrains; ++i) {
        moments.add(smem.count[i], smem.mean[i][threadIdx.x], smem.deviation[i][threadIdx.x]);
      }
    }
    // No barrier: a thread copies the next group's v to where it has read o, and there are others before the next statistics.
  }
  if (p.partials != nullptr && int(threadIdx.x) < l.e) {
    float* const partial = p.partials + block.index * (1 + 2 * l.e);
    if (threadIdx.x == 0) {
      partial[0] = moments.count;
    }
    partial[1 + threadIdx.x] = moments.mean;
    partial[1 + l.e + threadIdx.x] = moments.deviation;
  }
}

}  // namespace axial

#define AXIAL_FWD(name, T, D, kMinBlocks)                                           \
  ENTRY_SMEM(name, prim::kSharedSm90);                                              \
  extern "C" __global__ void __launch_bounds__(axial::kFwdThreads, kMinBlocks)      \
      name(__grid_constant__ AxialFwdParams const p) {                              \
    axial::fwd<T, D>(p);                                                            \
  }
AXIAL_FWD(axial_fwd_f32_d64, float, 64, 3)
AXIAL_FWD(axial_fwd_f32_d128, float, 128, 2)
AXIAL_FWD(axial_fwd_f16_d64, __half, 64, 3)
AXIAL_FWD(axial_fwd_f16_d128, __half, 128, 2)
AXIAL_FWD(axial_fwd_bf16_d64, __nv_bfloat16, 64, 3)
AXIAL_FWD(axial_fwd_bf16_d128, __nv_bfloat16, 128, 2)
