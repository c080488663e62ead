// axial_fwd_norm — mean and variance of every channel, from what the blocks of axial_fwd left.
//
// Work      a block merges the partial statistics of 32 channels of one norm head: kRuns threads per channel take
//           consecutive runs, then one merges the runs
// Reads     the partials once
// Writes    mean and variance, to scratch and to the caller
// Shared    NormSmem, size exported as <entry>_smem_bytes
// Numerics  f32, merged after Chan in a fixed order
// Mirrors   src/reference/axial.rs::batch_statistics, launched by src/ops/axial/forward.rs
#include "axial.cuh"

struct AxialFwdNormParams {
  float const* partials;        // [norm heads][count][1 + 2·e]
  axial::Vector mean, var;      // for the next layer
  axial::Vector mean_out, var_out;   // data null: not wanted
  int32_t count;                // partials of a norm head
  int32_t e;
};
static_assert(sizeof(AxialFwdNormParams) == 112, "AxialFwdNormParams: change src/ops/axial/params.rs together with this");

namespace axial {

constexpr int kRuns = 8;
constexpr int kNormThreads = kRuns * prim::kWarp;

struct NormSmem {
  float count[kRuns][prim::kWarp];
  float mean[kRuns][prim::kWarp];
  float deviation[kRuns][prim::kWarp];
};

__device__ __forceinline__ void norm(AxialFwdNormParams const& p) {
  NormSmem& smem = *prim::shared_memory<NormSmem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const groups = prim::ceil_div(p.e, prim::kWarp);
  int const hi = blockIdx.x / groups;
  int const lane = threadIdx.x % prim::kWarp;
  int const run = threadIdx.x / prim::kWarp;
  int const channel = (blockIdx.x - hi * groups) * prim::kWarp + lane;
  bool const lives = channel < p.e;
  int const pitch = 1 + 2 * p.e;
  float const* const partials = p.partials + int64_t(hi) * p.count * pitch;

  // ---- Main loop: a run of partials -----------------------------------------------------------------------------------
  int const of_run = prim::ceil_div(p.count, kRuns);
  int const end = min((run + 1) * of_run, p.count);
  Moments moments{0.f, 0.f, 0.f};
  for (int i = run * of_run; i < end; ++i) {
    float const* const partial = partials + int64_t(i) * pitch;
    if (lives) {
      moments.add(__ldg(partial), __ldg(partial + 1 + channel), __ldg(partial + 1 + p.e + channel));
    }
  }
  smem.count[run][lane] = moments.count;
  smem.mean[run][lane] = moments.mean;
  smem.deviation[run][lane] = moments.deviation;
  __syncthreads();   // sync: runs are there before one thread merges them

  // ---- Store --------------------------------------------------------------------------------------------------------
  if (run == 0 && lives) {
    for (int i = 1; i < kRuns; ++i) {
      moments.add(smem.count[i][lane], smem.mean[i][lane], smem.deviation[i][lane]);
    }
    float const var = moments.count > 0.f ? moments.deviation / moments.count : 0.f;
    *p.mean.at(hi, channel) = moments.mean;
    *p.var.at(hi, channel) = var;
    if (p.mean_out.data != nullptr) {
      *p.mean_out.at(hi, channel) = moments.mean;
      *p.var_out.at(hi, channel) = var;
    }
  }
}

}  // namespace axial

ENTRY_SMEM(axial_fwd_norm_f32, sizeof(axial::NormSmem));
extern "C" __global__ void __launch_bounds__(axial::kNormThreads, 2)
    axial_fwd_norm_f32(__grid_constant__ AxialFwdNormParams const p) {
  axial::norm(p);
}
