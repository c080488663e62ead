// prim/warp — sums over a warp and a block, in a fixed order.
#pragma once
#include "base.cuh"

namespace prim {

// The lane, read anew at every call: what depends on it is computed where it is used, and no register holds it across a loop.
__device__ __forceinline__ int fresh_lane() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// threadIdx.x and blockIdx.x, likewise.
__device__ __forceinline__ int fresh_thread() {
  int thread = int(threadIdx.x);
  asm volatile("" : "+r"(thread));
  __builtin_assume(thread >= 0);
  return thread;
}

__device__ __forceinline__ int fresh_block() {
  int block = int(blockIdx.x);
  asm volatile("" : "+r"(block));
  __builtin_assume(block >= 0);
  return block;
}

// The warp's number in its block, in a form that the compiler knows to be the same for all lanes.
__device__ __forceinline__ int warp_of_block() { return __shfl_sync(kAllLanes, int(threadIdx.x) / kWarp, 0); }

// Every lane gets the same sum, added in the order of a butterfly.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, distance);
  }
  return x;
}

// Inclusive prefix sum over lanes.
__device__ __forceinline__ float warp_prefix(float x) {
  int const lane = threadIdx.x % kWarp;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    float const below = __shfl_up_sync(kAllLanes, x, distance);
    x += lane >= distance ? below : 0.f;
  }
  return x;
}

// Sum over the block; `s_warps` holds one float per warp and may not be in use before, nor before the next barrier after.
// Every thread gets the sum.
template <int kThreads>
__device__ __forceinline__ float block_sum(float x, float* s_warps) {
  static_assert(kThreads % kWarp == 0, "whole warps");
  float const of_warp = warp_sum(x);
  if (threadIdx.x % kWarp == 0) {
    s_warps[threadIdx.x / kWarp] = of_warp;
  }
  __syncthreads();   // sync: s_warps filled
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kThreads / kWarp; ++i) {
    sum += s_warps[i];
  }
  return sum;
}

}  // namespace prim
