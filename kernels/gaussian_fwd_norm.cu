// gaussian_fwd_norm — per radius, the factors that turn the passes' unnormalised sums into A, for maps of any size.
//
// Work      one block per radius; both axes in turn, kThreads positions at a time
// Reads     sigma once
// Writes    the table of its radius: first[y], mean_y[y], second[x], mean_x[x], last (GaussianLayout below)
// Shared    Smem, size exported as <entry>_smem_bytes
// Numerics  w in f32, then rounded as the passes round it; S(n) = w(0) + … + w(n) by a tree per kThreads positions and
//           in sequence across them; Z_i = S(i) + S(last − i) − w(0): sums of positive terms, no cancellation
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/plan.rs
#include "gaussian.cuh"
#include "prim/warp.cuh"

namespace gaussian {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / prim::kWarp;

struct Smem {
  float weights[kWarps];   // sum of w over each warp's positions
  float moments[kWarps];   // sum of w·ψ
};

// Z at both ends' smallest and the middle's largest: w falls with distance, so a window loses most at the border.
struct Extremes {
  float z_min, z_max;
};

// norm[i] = Z_i and mean[i] = Σ_j w ψ / Z_i (0 when not wanted) for one axis; a barrier must follow.
__device__ __forceinline__ Extremes normalisers(Head const& head, int rounding, int axis, float* norm, float* mean, Smem& smem) {
  int const lane = threadIdx.x % prim::kWarp;
  int const warp = threadIdx.x / prim::kWarp;

  // ---- Prefix sums over distance, in place of the results -----------------------------------
  float weight_below = 0.f;
  float moment_below = 0.f;
  for (int first = 0; first < axis; first += kThreads) {
    int const distance = first + int(threadIdx.x);
    float const w = rounded_as(head.weight(distance), rounding);
    float const moment = w == 0.f ? 0.f : w * head.psi(distance);
    float const w_prefix = prim::warp_prefix(w);
    float const moment_prefix = prim::warp_prefix(moment);
    if (lane == prim::kWarp - 1) {
      smem.weights[warp] = w_prefix;
      smem.moments[warp] = moment_prefix;
    }
    __syncthreads();   // sync: the warps' sums are filled
    float w_sum = weight_below;
    float moment_sum = moment_below;
    for (int i = 0; i < warp; ++i) {
      w_sum += smem.weights[i];
      moment_sum += smem.moments[i];
    }
    if (distance < axis) {
      norm[distance] = w_sum + w_prefix;
      mean[distance] = moment_sum + moment_prefix;
    }
    for (int i = 0; i < kWarps; ++i) {
      weight_below += smem.weights[i];
      moment_below += smem.moments[i];
    }
    __syncthreads();   // sync: the sums are read before the next round overwrites them, and the prefixes are written
  }

  // ---- From prefix sums to Z and mean ---------------------------------------------------------
  float const centre = rounded_as(head.weight(0), rounding);
  int const last = axis - 1;
  Extremes extremes;
  extremes.z_min = norm[last];
  extremes.z_max = norm[axis / 2] + norm[last - axis / 2] - centre;
  __syncthreads();     // sync: the prefixes behind the extremes are read before they become Z
  for (int i = threadIdx.x; i <= last - i; i += kThreads) {   // i and last − i need the same two prefixes
    float const z = norm[i] + norm[last - i] - centre;
    float const m = (mean[i] + mean[last - i]) / z;
    norm[i] = z;
    mean[i] = m;
    norm[last - i] = z;
    mean[last - i] = m;
  }
  return extremes;
}

__device__ __forceinline__ void norm(GaussianNormParams const& p) {
  Smem& smem = *prim::shared_memory<Smem>();

  // ---- Where am I ---------------------------------------------------------------------------
  int const ri = blockIdx.x;
  float* const first = p.tables + int64_t(ri) * (2 * (int64_t(p.y) + p.x) + 1);
  float* const mean_y = first + p.y;
  float* const second = mean_y + p.y;
  float* const mean_x = second + p.x;
  float* const last = mean_x + p.x;

  // ---- Main loop: Z of both axes --------------------------------------------------------------
  Extremes const z_y = normalisers(head_of(p.radius, ri, p.y), p.rounding, p.y, first, mean_y, smem);
  Extremes const z_x = normalisers(head_of(p.radius, ri, p.x), p.rounding, p.x, second, mean_x, smem);
  __syncthreads();     // sync: Z and mean of both axes are written before they become factors

  // ---- Store: the factors of each pass --------------------------------------------------------
  // Intermediates of 16 bits stay in range: row keeps them below the inputs' size, none divides by a power of two.
  bool const scaled = p.rounding != kToF32;
  bool const is_row = p.is_row != 0;
  float const c_y = scaled ? power_of_two(is_row ? z_y.z_min : z_y.z_max, !is_row) : 1.f;
  float const c_x = scaled ? power_of_two(is_row ? z_x.z_min : z_x.z_max, !is_row) : 1.f;
  bool const is_single = p.y == 1;   // then there is only the pass along x
  for (int i = threadIdx.x; i < p.y; i += kThreads) {
    if (p.is_backward) {
      first[i] = is_row ? c_y / first[i] / c_x : is_single ? 1.f : 1.f / c_x;
    } else {
      first[i] = is_row ? 1.f / first[i] : 1.f / c_y;
    }
    mean_y[i] = is_row ? mean_y[i] : 0.f;
  }
  for (int i = threadIdx.x; i < p.x; i += kThreads) {
    if (p.is_backward) {
      second[i] = is_row ? c_x / second[i] : 1.f;
    } else {
      second[i] = is_row ? 1.f / second[i] : c_y;
    }
    mean_x[i] = is_row ? mean_x[i] : 0.f;
  }
  if (threadIdx.x == 0) {
    *last = !p.is_backward ? 1.f : is_row ? 1.f / c_y : c_x;
  }
}

}  // namespace gaussian

ENTRY_SMEM(gaussian_fwd_norm_f32, sizeof(gaussian::Smem));
extern "C" __global__ void __launch_bounds__(gaussian::kThreads, 2)
    gaussian_fwd_norm_f32(__grid_constant__ GaussianNormParams const p) {
  gaussian::norm(p);
}
