// content_fwd_merge — the partial summaries of all splits as one.
//
// Work      one block per key channel of a (batch, head); its threads share columns, and take splits in turn
// Reads     partials and their statistics once (the maxima twice)
// Writes    summary, max and sum once
// Shared    Smem, size exported as <entry>_smem_bytes
// Numerics  f32; splits are added in an order that depends on nothing but their number and e
// Mirrors   src/reference/content.rs::forward, launched by src/ops/content/plan.rs::forward
#include "content.cuh"

struct ContentFwdMergeParams {
  content::Saved saved;
  float const* partials;           // [bh, split, d, quads of e]
  float const* stats;              // [bh, split, 2, d]: max, sum
  prim::Divisor channels;          // d
  int32_t e;
  int32_t form;
  int32_t splits;
  int32_t positions;               // of all splits
  int32_t lanes_log2;              // threads along e: enough for its quads
};
static_assert(sizeof(ContentFwdMergeParams) == 72, "ContentFwdMergeParams: change src/ops/content/params.rs together with this");

namespace content {

constexpr int kMergeThreads = 256;

struct MergeSmem {
  float4 sums[kMergeThreads];
  float totals[kMergeThreads];
  float tops[kMergeThreads / prim::kWarp];
};

__device__ __forceinline__ void merge(ContentFwdMergeParams const& p) {
  MergeSmem& smem = *prim::shared_memory<MergeSmem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const d = int(p.channels.value);
  int const bh = p.channels.quotient(blockIdx.x);
  int const ci = p.channels.remainder(blockIdx.x, bh);
  int const quads = prim::ceil_div(p.e, prim::kQuad);
  int const lane = threadIdx.x & ((1 << p.lanes_log2) - 1);
  int const row = threadIdx.x >> p.lanes_log2;
  int const rows = kMergeThreads >> p.lanes_log2;
  int64_t const first = int64_t(bh) * p.splits;
  float const* const tops = p.stats + first * 2 * d + ci;

  // ---- The largest key --------------------------------------------------------------------------------------------
  float top = is_softmax(p.form) ? kLowest : 0.f;
  for (int split = threadIdx.x; split < p.splits; split += kMergeThreads) {
    top = fmaxf(top, __ldg(tops + int64_t(split) * 2 * d));
  }
#pragma unroll
  for (int distance = prim::kWarp / 2; distance > 0; distance /= 2) {
    top = fmaxf(top, __shfl_xor_sync(prim::kAllLanes, top, distance));
  }
  if (threadIdx.x % prim::kWarp == 0) {
    smem.tops[threadIdx.x / prim::kWarp] = top;
  }
  __syncthreads();     // sync: the warps' maxima filled
#pragma unroll
  for (int i = 0; i < kMergeThreads / prim::kWarp; ++i) {
    top = fmaxf(top, smem.tops[i]);
  }

  // ---- Main loop: splits in turn ------------------------------------------------------------------------------------
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
  float total = 0.f;
  auto const* const partials = reinterpret_cast<float4 const*>(p.partials) + (first * d + ci) * quads + lane;
  if (lane < quads) {
#pragma unroll 4
    for (int split = row; split < p.splits; split += rows) {
      float const factor = exp_approx(__ldg(tops + int64_t(split) * 2 * d) - top);
      multiply_add(sum, factor, __ldg(partials + int64_t(split) * d * quads));
      total = fmaf(factor, __ldg(tops + (int64_t(split) * 2 + 1) * d), total);
    }
  }

  // ---- Store ----------------------------------------------------------------------------------------------------------
  smem.sums[threadIdx.x] = sum;
  smem.totals[threadIdx.x] = total;
  __syncthreads();     // sync: sums of all rows written before others read them
  for (int half = rows / 2; half > 0; half /= 2) {
    if (row < half) {
      int const other = threadIdx.x + (half << p.lanes_log2);
      multiply_add(sum, 1.f, smem.sums[other]);
      total += smem.totals[other];
      smem.sums[threadIdx.x] = sum;
      smem.totals[threadIdx.x] = total;
    }
    __syncthreads();   // sync: sums of the lower half written before they are read
  }
  if (row == 0 && lane < quads) {
    finish(p.saved, bh, ci, d, p.e, lane * prim::kQuad, sum, top, total, p.form, p.positions);
  }
}

}  // namespace content

ENTRY_SMEM(content_fwd_merge_f32, sizeof(content::MergeSmem));
extern "C" __global__ void __launch_bounds__(content::kMergeThreads, 2)
    content_fwd_merge_f32(__grid_constant__ ContentFwdMergeParams const p) {
  content::merge(p);
}
