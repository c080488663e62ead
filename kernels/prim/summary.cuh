// prim/summary — the d×e summary of keys and values in shared memory, and the softmax over channels of the queries that meet it.
#pragma once
#include "copy.cuh"
#include "softmax.cuh"

namespace prim {

// A d×e matrix in shared memory, in T. 16 bits: rows are an odd number of units apart, so that neighbouring ones lie in other
// banks. f32: no padding; the units of a row are swapped about by the row's quad, so that neither reading along a row nor
// reading neighbouring quads of rows meets bank conflicts.
template <class T>
struct Matrix {
  uint32_t bytes;   // address
  int pitch;        // of a row

  static constexpr bool kSwaps = sizeof(T) == sizeof(float);
  static constexpr int kColumns = kSwaps ? 32 : 16;   // come in whole blocks of so many

  static __device__ __forceinline__ int pitch_of(int ep) { return ep * int(sizeof(T)) + (kSwaps ? 0 : kUnitBytes); }

  __device__ __forceinline__ uint32_t unit(int row, int unit) const {
    return bytes + row * pitch + (kSwaps ? unit ^ row / kQuad % 8 : unit) * kUnitBytes;
  }

  // From d rows of e f32 numbers, `stride` apart, times `by`; zeros up to whole blocks.
  __device__ __forceinline__ void fill(float const* from, int stride, int d, int e, int dp, int ep, float by) const {
    Channels const channels = channels_of<float>(from, stride, e);
    int const lane = threadIdx.x % kWarp;
    for (int ci = warp_of_block(); ci < dp; ci += int(blockDim.x) / kWarp) {
      for (int i = lane; i < ep / kUnit<T>; i += kWarp) {
        uint4 u = make_uint4(0, 0, 0, 0);
        int const column = i * kUnit<T>;
        if (ci < d) {
          float4 const a = column < e ? load_quad(from + int64_t(ci) * stride, column, channels) : float4{};
          if constexpr (kSwaps) {
            u = make_uint4(__float_as_uint(a.x * by), __float_as_uint(a.y * by), __float_as_uint(a.z * by),
                           __float_as_uint(a.w * by));
          } else {
            int const next = column + kQuad;
            float4 const b = next < e ? load_quad(from + int64_t(ci) * stride, next, channels) : float4{};
            u = make_uint4(Pair<T>::pack(a.x * by, a.y * by), Pair<T>::pack(a.z * by, a.w * by),
                           Pair<T>::pack(b.x * by, b.y * by), Pair<T>::pack(b.z * by, b.w * by));
          }
        }
        store_shared_unit(unit(ci, i), u);
      }
    }
  }
};

// ---- Rows of elements, eight of a warp at a time: lanes l, l + 8, l + 16 and l + 24 have row l ------------------------

constexpr int kRowLanes = kWarp / 8;

__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 8);
  return x + __shfl_xor_sync(kAllLanes, x, 16);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 8));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 16));
}

// Calls f(channel, element) for those of the row that this lane has; `unit_of`: address of a unit of the row.
template <class T, class Unit, class F>
__device__ __forceinline__ void each_of_row(int count, Unit unit_of, F f) {
#pragma unroll 1
  for (int unit = fresh_lane() / 8; unit < ceil_div(count, kUnit<T>); unit += kRowLanes) {
    float x[kUnit<T>];
    unpack_unit<T>(x, load_shared_unit(unit_of(unit)));
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) {
      f(unit * kUnit<T> + i, x[i]);
    }
  }
}

// Puts f(element) in place of every element of the row; zeros behind them, up to a whole unit.
template <class T, class Unit, class F>
__device__ __forceinline__ void replace_row(int count, Unit unit_of, F f) {
#pragma unroll 1
  for (int unit = fresh_lane() / 8; unit < ceil_div(count, kUnit<T>); unit += kRowLanes) {
    float x[kUnit<T>];
    uint32_t const at = unit_of(unit);
    unpack_unit<T>(x, load_shared_unit(at));
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) {
      x[i] = unit * kUnit<T> + i < count ? f(x[i]) : 0.f;
    }
    store_shared_unit(at, pack_unit<T>(x));
  }
}

// Softmax over the channels of a row.
struct RowSoftmax {
  float top;       // the largest element
  float inverse;   // 1 / Σ exp(element − top)

  __device__ __forceinline__ float weight(float x) const { return Exponent<true>::power(x - top) * inverse; }

  template <class T, class Unit>
  static __device__ __forceinline__ RowSoftmax of(int count, Unit unit_of) {
    constexpr float kLowest = -3.402823466e38f;   // below every element, and yet finite
    RowSoftmax softmax{kLowest, 0.f};
    each_of_row<T>(count, unit_of,
                   [&](int channel, float x) { softmax.top = fmaxf(softmax.top, channel < count ? x : kLowest); });
    softmax.top = row_max(softmax.top);
    float sum = 0.f;
    each_of_row<T>(count, unit_of,
                   [&](int channel, float x) { sum += channel < count ? Exponent<true>::power(x - softmax.top) : 0.f; });
    softmax.inverse = 1.f / row_sum(sum);
    return softmax;
  }
};

}  // namespace prim
