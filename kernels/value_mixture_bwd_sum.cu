// value_mixture_bwd_scores, _tables — gradients of the tables, from what the blocks of value_mixture_bwd left.
//
// Work      scores: one warp per site, lanes split the partial sums; tables: one block, sums of the scores' gradients along
//           both axes of the tables first, then a thread per element of a gradient
// Reads     the partials once; the gradients of the scores twice; the tables once per element
// Writes    dscores [m, table rows, table columns], margins [m, rows + columns]; each gradient once, where it is wanted
// Shared    none
// Numerics  f32, in a fixed order
// Mirrors   src/reference/value_mixture.rs::backward, launched by src/ops/value_mixture/plan.rs::backward
#include "prim/warp.cuh"
#include "value_mixture.cuh"

struct ValueMixtureBwdScoresParams {
  float const* p;              // [m, table rows, table columns]
  float4 const* partials;      // as ValueMixtureBwdParams.partials; not read where there are no splits
  float* dscores;              // like p
  prim::Divisor columns;       // of the tables
  int32_t sites;
  int32_t seen_rows, seen_columns;
  int32_t splits;
  int32_t mixtures;
};
static_assert(sizeof(ValueMixtureBwdScoresParams) == 56,
              "ValueMixtureBwdScoresParams: change src/ops/value_mixture/params.rs together with this");

struct ValueMixtureBwdTablesParams {
  value_mixture::Table row, column, nu;
  value_mixture::Table drow, dcolumn, dnu;   // data null: not wanted
  float const* dscores;
  float* margins;
  prim::Divisor span;          // table rows + columns
  prim::Divisor channels;      // r
  int32_t rows, columns;
  int32_t mixtures;
  int32_t _pad;
};
static_assert(sizeof(ValueMixtureBwdTablesParams) == 200,
              "ValueMixtureBwdTablesParams: change src/ops/value_mixture/params.rs together with this");

namespace value_mixture {

constexpr int kScoresThreads = 256;
constexpr int kTablesThreads = 512;

__device__ __forceinline__ void scores(ValueMixtureBwdScoresParams const& p) {
  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const lane = threadIdx.x % prim::kWarp;
  int const site = blockIdx.x * (kScoresThreads / prim::kWarp) + prim::warp_of_block();
  if (site >= p.sites) {
    return;
  }
  int const yi = p.columns.quotient(site);
  int const xi = p.columns.remainder(site, yi);
  int const splits = yi < p.seen_rows && xi < p.seen_columns ? p.splits : 0;   // no pixel falls on the others

  // ---- Main loop: the gradients of p, each kept by the lane that needs it again ---------------------------------------
  float inner = 0.f;           // Σ p dp
  int64_t of_quartet = (int64_t(yi) * p.seen_columns + xi) * p.splits;
  for (int mi = 0; mi < p.mixtures; mi += kQuartet) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int split = lane; split < splits; split += prim::kWarp) {
      float4 const part = __ldg(p.partials + of_quartet + split);
      sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
    }
    float const dp[kQuartet] = {prim::warp_sum(sum.x), prim::warp_sum(sum.y), prim::warp_sum(sum.z), prim::warp_sum(sum.w)};
#pragma unroll
    for (int k = 0; k < kQuartet; ++k) {
      if (mi + k < p.mixtures) {
        int64_t const at = int64_t(mi + k) * p.sites + site;
        inner = fmaf(__ldg(p.p + at), dp[k], inner);
        if ((mi + k) % prim::kWarp == lane) {
          p.dscores[at] = dp[k];
        }
      }
    }
    of_quartet += int64_t(p.seen_rows) * p.seen_columns * p.splits;
  }

  // ---- Store: through the softmax --------------------------------------------------------------------------------------
  for (int mi = lane; mi < p.mixtures; mi += prim::kWarp) {
    int64_t const at = int64_t(mi) * p.sites + site;
    p.dscores[at] = __ldg(p.p + at) * (p.dscores[at] - inner);
  }
}

__device__ __forceinline__ void tables(ValueMixtureBwdTablesParams const& p) {
  int const span = int(p.span.value);
  int const channels = int(p.channels.value);

  // ---- Main loop: margins ---------------------------------------------------------------------------------------------
  for (int task = threadIdx.x; task < p.mixtures * span; task += kTablesThreads) {
    int const mi = p.span.quotient(task);
    int const i = p.span.remainder(task, mi);
    bool const is_row = i < p.rows;
    int const count = is_row ? p.columns : p.rows;
    int const stride = is_row ? 1 : p.columns;
    float const* const from =
        p.dscores + int64_t(mi) * p.rows * p.columns + (is_row ? int64_t(i) * p.columns : i - p.rows);
    float sum = 0.f;
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      sum += __ldg(from + int64_t(j) * stride);
    }
    p.margins[task] = sum;
  }
  __syncthreads();       // sync: the margins written before other threads read them

  // ---- Store: gradients of both tables ----------------------------------------------------------------------------------
  for (int task = threadIdx.x; task < span * channels; task += kTablesThreads) {
    int const i = p.channels.quotient(task);
    int const ri = p.channels.remainder(task, i);
    float sum = 0.f;
    for (int mi = 0; mi < p.mixtures; ++mi) {
      sum = fmaf(p.margins[mi * span + i], p.nu.at(mi, ri), sum);
    }
    Table const& to = i < p.rows ? p.drow : p.dcolumn;
    if (to.data != nullptr) {
      to.data[(i < p.rows ? i : i - p.rows) * to.stride_row + ri * to.stride_channel] = sum;
    }
  }

  // ---- Store: gradient of nu ----------------------------------------------------------------------------------------------
  if (p.dnu.data != nullptr) {
    for (int task = threadIdx.x; task < p.mixtures * channels; task += kTablesThreads) {
      int const mi = p.channels.quotient(task);
      int const ri = p.channels.remainder(task, mi);
      float const* const margins = p.margins + mi * span;
      float sum = 0.f;
      for (int yi = 0; yi < p.rows; ++yi) {
        sum = fmaf(margins[yi], p.row.at(yi, ri), sum);
      }
      for (int xi = 0; xi < p.columns; ++xi) {
        sum = fmaf(margins[p.rows + xi], p.column.at(xi, ri), sum);
      }
      p.dnu.data[mi * p.dnu.stride_row + ri * p.dnu.stride_channel] = sum;
    }
  }
}

}  // namespace value_mixture

extern "C" __global__ void __launch_bounds__(value_mixture::kScoresThreads, 4)
    value_mixture_bwd_scores_f32(__grid_constant__ ValueMixtureBwdScoresParams const p) {
  value_mixture::scores(p);
}

extern "C" __global__ void __launch_bounds__(value_mixture::kTablesThreads, 1)
    value_mixture_bwd_tables_f32(__grid_constant__ ValueMixtureBwdTablesParams const p) {
  value_mixture::tables(p);
}
