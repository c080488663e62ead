// value_mixture — parameters and geometry of the mixture of value maps, the same for forward and backward.
//
//   o = Σ_m p_m v_m        p = softmax over m of (row[yi mod rows] + column[xi mod columns]) · nu_m
//
//   site      a place in the tables; all pixels that fall on it share their weights p, and so do all heads
//   quartet   4 mixtures, which a thread has in flight together
//   unit      16 bytes of consecutive channels
#pragma once
#include "prim/divide.cuh"
#include "prim/element.cuh"

namespace value_mixture {

constexpr int kQuartet = 4;

// ---- Parameters: change src/ops/value_mixture/params.rs together with these -----------------------------------------

// A tensor [m, b, h, y, x, e], or [b, h, y, x, e] with a stride_m of 0; channels contiguous, strides in elements.
struct Map {
  void* data;
  int64_t stride_m, stride_b, stride_h, stride_y, stride_x;
  int64_t is_wide;   // strides and channels are whole units
};
static_assert(sizeof(Map) == 56, "change src/ops/value_mixture/params.rs together with this");

// A table [positions or mixtures, r] of f32; strides in elements.
struct Table {
  float* data;
  int64_t stride_row, stride_channel;

  __device__ __forceinline__ float at(int row, int channel) const {
    return __ldg(data + row * stride_row + channel * stride_channel);
  }
};
static_assert(sizeof(Table) == 24, "change src/ops/value_mixture/params.rs together with this");

// ---- Geometry -------------------------------------------------------------------------------------------------------

// The host has seen whether strides and channels are whole units, the kernel sees the address.
__device__ __forceinline__ bool is_wide(Map const& map) {
  return map.is_wide && reinterpret_cast<uint64_t>(map.data) % prim::kUnitBytes == 0;
}

template <class T>
__device__ __forceinline__ T* pixel_of(Map const& map, int bi, int hi, int yi, int xi) {
  return static_cast<T*>(map.data) + bi * map.stride_b + hi * map.stride_h + yi * map.stride_y + xi * map.stride_x;
}

}  // namespace value_mixture
