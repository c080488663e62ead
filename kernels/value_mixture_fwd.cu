// value_mixture_fwd — every pixel of every head is the sum of its values, each times the weight of its mixture at that site.
//
// Work      one thread per unit of channels of a pixel; a block has as many whole pixels as it has threads for
// Reads     vs once; p, which stays in cache
// Writes    o once
// Shared    none
// Numerics  f32, mixtures in order
// Mirrors   src/reference/value_mixture.rs::forward, launched by src/ops/value_mixture/plan.rs::forward
#include "value_mixture.cuh"

struct ValueMixtureFwdParams {
  value_mixture::Map vs, o;
  float const* p;              // [m, table rows, table columns]
  prim::Divisor units;         // of a pixel
  prim::Divisor columns, rows, heads;
  prim::Divisor table_rows, table_columns;
  int32_t pixels;              // of all images and heads
  int32_t pixels_per_block;
  int32_t mixtures;
  int32_t channels;
};
static_assert(sizeof(ValueMixtureFwdParams) == 208,
              "ValueMixtureFwdParams: change src/ops/value_mixture/params.rs together with this");

namespace value_mixture {

constexpr int kFwdThreads = 256;

template <class T, bool kWide>
__device__ __forceinline__ void fwd(ValueMixtureFwdParams const& p) {
  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const slot = p.units.quotient(threadIdx.x);
  int const channel = p.units.remainder(threadIdx.x, slot) * prim::kUnit<T>;
  int const pixel = blockIdx.x * p.pixels_per_block + slot;
  if (slot >= p.pixels_per_block || pixel >= p.pixels) {
    return;
  }
  int const line = p.columns.quotient(pixel);
  int const xi = p.columns.remainder(pixel, line);
  int const plane = p.rows.quotient(line);
  int const yi = p.rows.remainder(line, plane);
  int const bi = p.heads.quotient(plane);
  int const hi = p.heads.remainder(plane, bi);
  int const row = p.table_rows.remainder(yi, p.table_rows.quotient(yi));
  int const column = p.table_columns.remainder(xi, p.table_columns.quotient(xi));
  int64_t const sites = int64_t(p.table_rows.value) * p.table_columns.value;
  float const* weight = p.p + int64_t(row) * p.table_columns.value + column;
  T const* v = pixel_of<T const>(p.vs, bi, hi, yi, xi);
  prim::Channels const channels{p.channels, kWide};

  // ---- Main loop: a quartet of mixtures -------------------------------------------------------------------------------
  float sum[prim::kUnit<T>];
#pragma unroll
  for (int i = 0; i < prim::kUnit<T>; ++i) {
    sum[i] = 0.f;
  }
  for (int left = p.mixtures; left > 0; left -= kQuartet) {
    uint4 unit[kQuartet];
    float w[kQuartet];
#pragma unroll
    for (int k = 0; k < kQuartet; ++k) {
      bool const live = k < left;
      unit[k] = live ? prim::load_unit(v + k * p.vs.stride_m, channel, channels) : make_uint4(0, 0, 0, 0);
      w[k] = live ? __ldg(weight + k * sites) : 0.f;
    }
#pragma unroll
    for (int k = 0; k < kQuartet; ++k) {
      float x[prim::kUnit<T>];
      prim::unpack_unit<T>(x, unit[k]);
#pragma unroll
      for (int i = 0; i < prim::kUnit<T>; ++i) {
        sum[i] = fmaf(w[k], x[i], sum[i]);
      }
    }
    v += kQuartet * p.vs.stride_m;
    weight += kQuartet * sites;
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  prim::store_unit(pixel_of<T>(p.o, bi, hi, yi, xi), channel, channels, prim::pack_unit<T>(sum));
}

}  // namespace value_mixture

#define VARIANT(dtype, T)                                                                                   \
  extern "C" __global__ void __launch_bounds__(value_mixture::kFwdThreads, 2)                               \
      value_mixture_fwd_##dtype(__grid_constant__ ValueMixtureFwdParams const p) {                          \
    if (value_mixture::is_wide(p.vs) && value_mixture::is_wide(p.o)) {                                      \
      value_mixture::fwd<T, true>(p);                                                                       \
    } else {                                                                                                \
      value_mixture::fwd<T, false>(p);                                                                      \
    }                                                                                                       \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
