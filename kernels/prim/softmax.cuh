// prim/softmax — softmax over keys that arrive a few at a time.
#pragma once
#include "warp.cuh"

namespace prim {

// 2^x to 2 ulp; results below the smallest normal number are 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2(x) to about 2^-22.
__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to 1 ulp, for x in normal range.
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float kLn2 = 0.6931471805599453f;
constexpr float kLog2E = 1.4426950408889634f;

// The sum over the 4 lanes of a quad, for each of them.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// Powers and logarithms of scores. Base 2 costs one operation less a score. Base e is for f32: the score that a row's logarithm
// came from is subtracted from itself, so that its weight is exactly 1 in every pass, also where scores are thousands.
template <bool kNatural>
struct Exponent {
  static constexpr float kOfNatural = kNatural ? 1.f : kLog2E;   // what a natural logarithm is multiplied by

  static __device__ __forceinline__ float power(float x) { return exp2_approx(kNatural ? x * kLog2E : x); }
  static __device__ __forceinline__ float logarithm(float x) { return kNatural ? log2_approx(x) * kLn2 : log2_approx(x); }

  // The power of score·scale − reference.
  static __device__ __forceinline__ float weight(float score, float scale, float reference) {
    return kNatural ? power(__fmul_rn(score, scale) - reference) : power(fmaf(score, scale, -reference));
  }
};

// One row of scores, spread over a quad. Weights are powers of (score·scale − reference), where the reference is a maximum seen
// before; it moves only when a score exceeds it by more than kSlack, so weights stay bounded and sums are seldom rescaled.
template <bool kNatural>
struct LazySoftmax {
  using E = Exponent<kNatural>;
  static constexpr float kSlack = 8.f;
  static constexpr float kEmpty = -0x1p120f;   // below any score in earnest; −inf would make NaN of masked ones

  float reference;
  float sum;         // this lane's part, unrounded

  __device__ __forceinline__ void start() {
    reference = kEmpty;
    sum = 0.f;
  }

  // Whether the reference has to move for a score of `top`·`scale`.
  __device__ __forceinline__ bool is_outgrown(float top, float scale) const {
    return fmaf(top, scale, -reference) > kSlack;
  }

  // Moves the reference to the quad's highest score, if it is outgrown; returns what sums so far have to be multiplied by.
  // A row without keys so far has sums of 0: its factor is 1.
  __device__ __forceinline__ float move(float top, float scale) {
    float const highest = quad_max(top);
    float const moved = is_outgrown(highest, scale) ? highest * scale : reference;
    float const factor = reference == kEmpty ? 1.f : E::power(reference - moved);
    reference = moved;
    sum *= factor;
    return factor;
  }

  __device__ __forceinline__ float weight(float score, float scale) {
    float const w = E::weight(score, scale, reference);
    sum += w;
    return w;
  }
};

}  // namespace prim
