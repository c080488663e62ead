// content_bwd_merge — the partial gradients of the summary of all splits as one, and what each key channel adds to dK.
//
// Work      one block per key channel of a (batch, head); its threads share columns, and take splits in turn
// Reads     partials, the saved summary once
// Writes    dc = dC divided as the summary was, and shift once
// Shared    Smem, size exported as <entry>_smem_bytes
// Numerics  f32; splits are added in an order that depends on nothing but their number and e
// Mirrors   src/reference/content.rs::backward, launched by src/ops/content/plan.rs::backward
#include "content.cuh"

struct ContentBwdMergeParams {
  float const* partials;           // [bh, split, d, quads of e]
  float const* totals;             // [bh, split, d]
  float const* summary;            // [b, h, d, e]
  float const* sum;                // [b, h, d]
  float* dc;                       // [bh, d, e]
  float* shift;                    // [bh, d]: what is added to v · dcᵀ
  prim::Divisor channels;          // d
  int32_t e;
  int32_t form;
  int32_t splits;
  float shrink;                    // what the partial sums of the linear forms lack
  int32_t lanes_log2;              // threads along e: enough for its quads
};
static_assert(sizeof(ContentBwdMergeParams) == 80, "ContentBwdMergeParams: change src/ops/content/plan/params.rs together with this");

namespace content {

constexpr int kMergeThreads = 256;

struct MergeSmem {
  float4 sums[kMergeThreads];
  float totals[kMergeThreads];
};

__device__ __forceinline__ void merge(ContentBwdMergeParams const& p) {
  MergeSmem& smem = *prim::shared_memory<MergeSmem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const d = int(p.channels.value);
  int const bh = p.channels.quotient(blockIdx.x);
  int const ci = p.channels.remainder(blockIdx.x, bh);
  int const quads = prim::ceil_div(p.e, prim::kQuad);
  int const lane = threadIdx.x & ((1 << p.lanes_log2) - 1);
  int const row = threadIdx.x >> p.lanes_log2;
  int const rows = kMergeThreads >> p.lanes_log2;
  int64_t const first = int64_t(bh) * p.splits * d + ci;

  // ---- Main loop: splits in turn ------------------------------------------------------------------------------------
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
  float total = 0.f;
  auto const* const partials = reinterpret_cast<float4 const*>(p.partials);
  if (lane < quads) {
#pragma unroll 4
    for (int split = row; split < p.splits; split += rows) {
      int64_t const at = first + int64_t(split) * d;
      multiply_add(sum, 1.f, __ldg(partials + at * quads + lane));
      total += __ldg(p.totals + at);
    }
  }
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

  // ---- Store: row 0 is in the first warp --------------------------------------------------------------------------------
  if (threadIdx.x < prim::kWarp) {
    bool const writes = row == 0 && lane < quads;
    int64_t const out = int64_t(bh) * d + ci;
    int const column = lane * prim::kQuad;
    float const by = is_linear(p.form) ? p.shrink : 1.f / __ldg(p.sum + out);
    sum = make_float4(sum.x * by, sum.y * by, sum.z * by, sum.w * by);
    float dot = 0.f;
    if (writes) {
      prim::store_quad(p.dc + out * p.e, column, prim::channels_of<float>(p.dc, p.e, p.e), sum);
      float4 const c = prim::load_quad(p.summary + out * p.e, column, prim::channels_of<float>(p.summary, p.e, p.e));
      dot = fmaf(c.x, sum.x, fmaf(c.y, sum.y, fmaf(c.z, sum.z, c.w * sum.w)));
    }
    dot = prim::warp_sum(dot);
    if (threadIdx.x == 0) {
      p.shift[out] = is_softmax(p.form) ? -dot : is_linear(p.form) ? -total * p.shrink : 0.f;
    }
  }
}

}  // namespace content

ENTRY_SMEM(content_bwd_merge_f32, sizeof(content::MergeSmem));
extern "C" __global__ void __launch_bounds__(content::kMergeThreads, 2)
    content_bwd_merge_f32(__grid_constant__ ContentBwdMergeParams const p) {
  content::merge(p);
}
