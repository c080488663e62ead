// gaussian_bwd_line — dV and dσ of maps that do not fit in shared memory: a pass along one axis (row), then the other (col).
//
// The operators of the two axes commute, so with ĝ = A^xᵀ g and ê = ∂A^xᵀ g:  dV = A^yᵀ ĝ  and
// σ-gradient = ⟨v, A^yᵀ ê + ∂A^yᵀ ĝ⟩. Row makes ĝ/Z_y and (ê − mean_y ĝ)/Z_y; col sums them with w and w·ψ. (∂ = σ d/dσ)
//
// Work      a block makes kTile outputs × kColumns quads of channels, a thread kOutputs of one column
// Reads     row: g (kTile + 2·reach) / kTile times; col: both scratch planes as often, v once
// Writes    row: two scratch planes; col: dv, and one partial sum of dσ per block
// Shared    SmemRow, SmemCol, sizes exported as <entry>_smem_bytes
// Numerics  f32 throughout, for every element type; dv rounded to T once
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/plan.rs
#include "gaussian_line.cuh"
#include "prim/warp.cuh"

namespace gaussian {

constexpr int kOutputs = 4;                                      // consecutive outputs of a thread
constexpr int kColumns = kLineThreads / (kTile / kOutputs);      // quads of channels of a block
constexpr int kWarps = kLineThreads / prim::kWarp;

struct SmemRow {
  float4 g[kTile][kColumns];     // a chunk of g / Z_x
  float mean[kTile];             // mean_x of the chunk
  float w[2 * kTile];
  float wpsi[2 * kTile];
};
struct SmemCol {
  float4 g[kTile][kColumns];     // a chunk of ĝ / Z_y
  float4 e[kTile][kColumns];     // and of (ê − mean_y ĝ) / Z_y
  float w[2 * kTile];
  float wpsi[2 * kTile];
  float warps[kWarps];
};

// What a thread is in either pass.
struct Place {
  LineBlock block;
  Head head;
  float const* table;
  int column, row, line, channel, o_first;
  bool live;
};
__device__ __forceinline__ Place place_of(GaussianBwdLineParams const& p) {
  int const quads = prim::ceil_div(p.channels, prim::kQuad);
  Place place;
  place.block = line_block(p.num_lines * quads, kColumns, p.first_bh, p.heads, p.first_out, p.num_out);
  place.head = head_of(p.radius, place.block.hi, p.axis);
  place.table = p.tables + (p.radius.stride == 0 ? 0 : place.block.hi) * p.table_stride;
  place.column = threadIdx.x % kColumns;
  place.row = threadIdx.x / kColumns;
  int const flat = place.block.first_column + place.column;
  place.live = flat < p.num_lines * quads;
  place.line = place.live ? flat / quads : 0;
  place.channel = (flat - place.line * quads) * prim::kQuad;
  place.o_first = place.row * kOutputs;
  return place;
}

template <class T>
__device__ __forceinline__ void row(GaussianBwdLineParams const& p) {
  static_assert(kTile % kOutputs == 0 && kOutputs % prim::kQuad == 0, "whole blocks of weights");
  SmemRow& smem = *prim::shared_memory<SmemRow>();

  // ---- Where am I ---------------------------------------------------------------------------
  Place const at = place_of(p);
  auto const in = prim::channels_of<T>(p.d_o, bits_of(p.in_at), p.channels);
  T const* const src = static_cast<T const*>(p.d_o) + plane_of(p.in_at, at.block.bi, at.block.hi) +
                       int(p.in_at.line) * at.line;

  // ---- Main loop: chunks of the axis that the tile can reach ------------------------------------
  float4 ghat[kOutputs] = {};
  float4 ehat[kOutputs] = {};
  Reached const span = reached(at.block.tile_begin, at.head.reach, p.axis);
  for (int chunk = span.begin; chunk < span.end; chunk += kTile) {
    int const inputs = min(kTile, span.end - chunk);
    for (int i = at.row; i < kTile; i += kLineThreads / kColumns) {
      float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
      if (at.live && i < inputs) {
        x = scaled(prim::load_quad(src + int(p.in_at.axis) * (chunk + i), at.channel, in),
                   __ldg(at.table + p.pre + chunk + i));
      }
      smem.g[i][at.column] = x;
    }
    if (threadIdx.x < kTile) {
      smem.mean[threadIdx.x] = __ldg(at.table + p.mean_axis + min(chunk + int(threadIdx.x), p.axis - 1));
    }
    fill_toeplitz(at.head, at.block.tile_begin, chunk, smem.w, smem.wpsi);
    __syncthreads();   // sync: smem filled
    for (int i = 0; i < inputs; i += kOutputs) {
      int const offset = at.block.tile_begin + at.o_first - chunk - i;
      if (abs(offset) - (kOutputs - 1) > at.head.reach) {
        continue;      // no tap between these outputs and inputs
      }
      float w[2 * kOutputs];
      float wpsi[2 * kOutputs];
      load_weights<kOutputs>(w, smem.w, at.o_first, i);
      load_weights<kOutputs>(wpsi, smem.wpsi, at.o_first, i);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        float4 const x = smem.g[i + k][at.column];
        float4 const minus_mean = scaled(x, -smem.mean[i + k]);
#pragma unroll
        for (int r = 0; r < kOutputs; ++r) {
          multiply_add(ghat[r], w[kOutputs + r - k], x);
          multiply_add(ehat[r], wpsi[kOutputs + r - k], x);
          multiply_add(ehat[r], w[kOutputs + r - k], minus_mean);
        }
      }
    }
    __syncthreads();   // sync: smem read before the next chunk overwrites it
  }

  // ---- Store --------------------------------------------------------------------------------
  prim::Channels const scratch{prim::round_up(p.channels, prim::kQuad), true};   // scratch pixels hold whole quads
  int64_t const plane = plane_of(p.scratch_at, at.block.bi, at.block.hi) + int(p.scratch_at.line) * at.line;
  float const by_z = __ldg(at.table + p.post_line + at.line);
  float const mean_y = __ldg(at.table + p.mean_line + at.line);
#pragma unroll
  for (int r = 0; r < kOutputs; ++r) {
    int const o = at.block.tile_begin + at.o_first + r;
    if (at.live && o < p.first_out + p.num_out) {
      int64_t const pixel = plane + int(p.scratch_at.axis) * o;
      float4 const g = scaled(ghat[r], by_z);
      float4 e = scaled(ehat[r], by_z);
      multiply_add(e, -mean_y, g);
      prim::store_quad(p.ghat + pixel, at.channel, scratch, g);
      prim::store_quad(p.ehat + pixel, at.channel, scratch, e);
    }
  }
}

template <class T>
__device__ __forceinline__ void col(GaussianBwdLineParams const& p) {
  SmemCol& smem = *prim::shared_memory<SmemCol>();

  // ---- Where am I ---------------------------------------------------------------------------
  Place const at = place_of(p);
  prim::Channels const scratch{prim::round_up(p.channels, prim::kQuad), true};   // scratch pixels hold whole quads
  int64_t const plane = plane_of(p.scratch_at, at.block.bi, at.block.hi) + int(p.scratch_at.line) * at.line;

  // ---- Main loop: chunks of the axis that the tile can reach ------------------------------------
  float4 dv[kOutputs] = {};
  float4 y[kOutputs] = {};       // what v is multiplied with
  Reached const span = reached(at.block.tile_begin, at.head.reach, p.axis);
  for (int chunk = span.begin; chunk < span.end; chunk += kTile) {
    int const inputs = min(kTile, span.end - chunk);
    for (int i = at.row; i < kTile; i += kLineThreads / kColumns) {
      float4 g = make_float4(0.f, 0.f, 0.f, 0.f);
      float4 e = g;
      if (at.live && i < inputs) {
        int64_t const pixel = plane + int(p.scratch_at.axis) * (chunk + i);
        g = prim::load_quad(p.ghat + pixel, at.channel, scratch);
        e = prim::load_quad(p.ehat + pixel, at.channel, scratch);
      }
      smem.g[i][at.column] = g;
      smem.e[i][at.column] = e;
    }
    fill_toeplitz(at.head, at.block.tile_begin, chunk, smem.w, smem.wpsi);
    __syncthreads();   // sync: smem filled
    for (int i = 0; i < inputs; i += kOutputs) {
      int const offset = at.block.tile_begin + at.o_first - chunk - i;
      if (abs(offset) - (kOutputs - 1) > at.head.reach) {
        continue;      // no tap between these outputs and inputs
      }
      float w[2 * kOutputs];
      float wpsi[2 * kOutputs];
      load_weights<kOutputs>(w, smem.w, at.o_first, i);
      load_weights<kOutputs>(wpsi, smem.wpsi, at.o_first, i);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        float4 const g = smem.g[i + k][at.column];
        float4 const e = smem.e[i + k][at.column];
#pragma unroll
        for (int r = 0; r < kOutputs; ++r) {
          multiply_add(dv[r], w[kOutputs + r - k], g);
          multiply_add(y[r], w[kOutputs + r - k], e);
          multiply_add(y[r], wpsi[kOutputs + r - k], g);
        }
      }
    }
    __syncthreads();   // sync: smem read before the next chunk overwrites it
  }

  // ---- Store --------------------------------------------------------------------------------
  auto const in = prim::channels_of<T>(p.v, bits_of(p.in_at), p.channels);
  auto const out = prim::channels_of<T>(p.dv, bits_of(p.out_at), p.channels);
  T const* const v =
      static_cast<T const*>(p.v) + plane_of(p.in_at, at.block.bi, at.block.hi) + int(p.in_at.line) * at.line;
  T* const dst =
      static_cast<T*>(p.dv) + plane_of(p.out_at, at.block.bi, at.block.hi) + int(p.out_at.line) * at.line;
  float partial = 0.f;
#pragma unroll
  for (int r = 0; r < kOutputs; ++r) {
    int const o = at.block.tile_begin + at.o_first + r;
    if (at.live && o < p.first_out + p.num_out) {
      partial += dot(y[r], prim::load_quad(v + int(p.in_at.axis) * o, at.channel, in));
      if (p.dv != nullptr) {
        prim::store_quad(dst + int(p.out_at.axis) * o, at.channel, out, dv[r]);
      }
    }
  }
  partial = prim::block_sum<kLineThreads>(partial, smem.warps);
  if (threadIdx.x == 0) {
    int64_t const bh = int64_t(at.block.bi) * p.heads + at.block.hi;
    p.partials[bh * p.partials_bh + p.first_partial + at.block.index] = partial;
  }
}

// dσ = Σ partials / σ, one block per radius, in a fixed order. Partials of weights that are not separable are of dσ itself.
constexpr int kSumThreads = 256;
struct SmemSum {
  float warps[kSumThreads / prim::kWarp];
};
__device__ __forceinline__ void sum(GaussianBwdSumParams const& p) {
  SmemSum& smem = *prim::shared_memory<SmemSum>();
  int const ri = blockIdx.x;
  bool const is_shared = gridDim.x == 1;             // one radius: all heads, next to each other
  int64_t const run = is_shared ? p.heads * p.per_bh : p.per_bh;
  int64_t const first = is_shared ? 0 : ri * p.per_bh;
  float sum = 0.f;
  float carry = 0.f;                                 // Kahan: a thread may add thousands
  for (int bi = 0; bi < p.b; ++bi) {
    float const* const partials = p.partials + bi * (p.heads * p.per_bh) + first;
    for (int64_t i = threadIdx.x; i < run; i += kSumThreads) {
      float const term = __fadd_rn(__ldg(partials + i), -carry);
      float const next = __fadd_rn(sum, term);
      carry = __fadd_rn(__fadd_rn(next, -sum), -term);
      sum = next;
    }
  }
  sum = prim::block_sum<kSumThreads>(sum, smem.warps);
  if (threadIdx.x == 0) {
    float const sigma = __ldg(p.radius.sigma + ri * p.radius.stride);
    float const dsigma = p.radius.kernel <= kManhattan ? sum / sigma : sum;
    p.dsigma[ri * p.dsigma_stride] = sigma > 0.f ? dsigma : prim::not_a_number();
  }
}

}  // namespace gaussian

#define VARIANT(dtype, T)                                                                                   \
  ENTRY_SMEM(gaussian_bwd_row_##dtype, sizeof(gaussian::SmemRow));                                          \
  extern "C" __global__ void __launch_bounds__(gaussian::kLineThreads, 2)                                   \
      gaussian_bwd_row_##dtype(__grid_constant__ GaussianBwdLineParams const p) {                           \
    gaussian::row<T>(p);                                                                                    \
  }                                                                                                         \
  ENTRY_SMEM(gaussian_bwd_col_##dtype, sizeof(gaussian::SmemCol));                                          \
  extern "C" __global__ void __launch_bounds__(gaussian::kLineThreads, 2)                                   \
      gaussian_bwd_col_##dtype(__grid_constant__ GaussianBwdLineParams const p) {                           \
    gaussian::col<T>(p);                                                                                    \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)

ENTRY_SMEM(gaussian_bwd_sum_f32, sizeof(gaussian::SmemSum));
extern "C" __global__ void __launch_bounds__(gaussian::kSumThreads, 2)
    gaussian_bwd_sum_f32(__grid_constant__ GaussianBwdSumParams const p) {
  gaussian::sum(p);
}
