// value_mixture_fwd_weights — p of every site, from the tables.
//
// Work      one warp per site; lanes split the channels of the tables, then the mixtures
// Reads     the tables once per site
// Writes    p [m, rows, columns]; scores and powers stand in it on the way, each kept by the lane that needs it again
// Shared    none
// Numerics  f32; the largest score is subtracted from all
// Mirrors   src/reference/value_mixture.rs::weights, launched by src/ops/value_mixture/plan.rs
#include "prim/softmax.cuh"
#include "value_mixture.cuh"

struct ValueMixtureFwdWeightsParams {
  value_mixture::Table row, column, nu;
  float* p;                  // contiguous
  prim::Divisor columns;     // of the tables
  int32_t sites;
  int32_t mixtures;
  int32_t channels;          // r
};
static_assert(sizeof(ValueMixtureFwdWeightsParams) == 104,
              "ValueMixtureFwdWeightsParams: change src/ops/value_mixture/params.rs together with this");

namespace value_mixture {

constexpr int kWeightsThreads = 256;

__device__ __forceinline__ void weights(ValueMixtureFwdWeightsParams const& p) {
  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const lane = threadIdx.x % prim::kWarp;
  int const site = blockIdx.x * (kWeightsThreads / prim::kWarp) + prim::warp_of_block();
  if (site >= p.sites) {
    return;
  }
  int const yi = p.columns.quotient(site);
  int const xi = p.columns.remainder(site, yi);

  // ---- Main loop: scores ----------------------------------------------------------------------------------------------
  float top = -INFINITY;
  for (int mi = 0; mi < p.mixtures; ++mi) {
    float score = 0.f;
    for (int ri = lane; ri < p.channels; ri += prim::kWarp) {
      score = fmaf(p.row.at(yi, ri) + p.column.at(xi, ri), p.nu.at(mi, ri), score);
    }
    score = prim::warp_sum(score);
    top = fmaxf(top, score);
    if (mi % prim::kWarp == lane) {
      p.p[int64_t(mi) * p.sites + site] = score;
    }
  }

  // ---- Store: the softmax of them -------------------------------------------------------------------------------------
  float sum = 0.f;
  for (int mi = lane; mi < p.mixtures; mi += prim::kWarp) {
    float* const at = p.p + int64_t(mi) * p.sites + site;
    float const power = prim::exp2_approx((*at - top) * prim::kLog2E);
    *at = power;
    sum += power;
  }
  sum = prim::warp_sum(sum);
  for (int mi = lane; mi < p.mixtures; mi += prim::kWarp) {
    float* const at = p.p + int64_t(mi) * p.sites + site;
    *at = *at / sum;
  }
}

}  // namespace value_mixture

extern "C" __global__ void __launch_bounds__(value_mixture::kWeightsThreads, 4)
    value_mixture_fwd_weights_f32(__grid_constant__ ValueMixtureFwdWeightsParams const p) {
  value_mixture::weights(p);
}
