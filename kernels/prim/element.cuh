// prim/element — element types and how channels of one pixel are read and written.
//
// A *unit* is 16 bytes of consecutive channels (4 of f32, 8 of f16 or bf16); a *quad* is 4 channels as float4.
// Both are read and written whole when the tensor allows it (`wide`), channel by channel when not; `wide` is the same for
// a whole launch, so the branch is uniform. Everything a kernel knows of the memory order of channels is in `Channels`:
// a channels-first layout is one more field there and one more branch here, and no kernel changes.
#pragma once
#include "base.cuh"

namespace prim {

template <class T> constexpr int kUnit = kUnitBytes / int(sizeof(T));   // channels of a unit
constexpr int kQuad = 4;                                               // channels of a quad

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <class T> __device__ __forceinline__ float rounded(float x) { return to_float(from_float<T>(x)); }

// ---- Two 16-bit elements in one register; the first in the low half ------------------------------------------------

template <class T> struct Pair;
template <> struct Pair<__half> {
  static constexpr uint32_t kOnes = 0x3c003c00u;   // 1, 1
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    __half2 const pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t const*>(&pair);
  }
  static __device__ __forceinline__ float2 unpack(uint32_t bits) {
    return __half22float2(*reinterpret_cast<__half2 const*>(&bits));
  }
};
template <> struct Pair<__nv_bfloat16> {
  static constexpr uint32_t kOnes = 0x3f803f80u;   // 1, 1
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t const*>(&pair);
  }
  static __device__ __forceinline__ float2 unpack(uint32_t bits) {
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));   // bf16 = upper half of f32
  }
};

// ---- The numbers of a unit ------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void unpack_unit(float (&x)[kUnit<T>], uint4 unit) {
  uint32_t const word[4] = {unit.x, unit.y, unit.z, unit.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == sizeof(float)) {
      x[i] = __uint_as_float(word[i]);
    } else {
      float2 const pair = Pair<T>::unpack(word[i]);
      x[2 * i] = pair.x;
      x[2 * i + 1] = pair.y;
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 pack_unit(float const (&x)[kUnit<T>]) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == sizeof(float)) {
      word[i] = __float_as_uint(x[i]);
    } else {
      word[i] = Pair<T>::pack(x[2 * i], x[2 * i + 1]);
    }
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// ---- Channels of a pixel ------------------------------------------------------------------------------------------

// How the channels of one tensor lie, for a whole launch.
struct Channels {
  int32_t count;   // channels that exist; reads beyond give 0, writes beyond do nothing
  bool wide;       // whole units and quads are aligned and never straddle `count`
};

// `strides_or`: bitwise or of every stride and offset (in elements) that is ever added to `base`.
template <class T>
__device__ __forceinline__ Channels channels_of(void const* base, int64_t strides_or, int32_t count) {
  uint64_t const bytes = reinterpret_cast<uint64_t>(base) | uint64_t(strides_or) * sizeof(T);
  return Channels{count, (bytes % kUnitBytes == 0) && (count % kUnit<T> == 0)};
}

// A tensor [b, h, y, x, channels], channels contiguous; strides in elements.
struct Map {
  void* data;
  int64_t stride_b, stride_h, stride_y, stride_x;
  int64_t is_wide;   // strides and channels are whole units of 16 bytes
};

// A pointer to device memory, of which the compiler cannot see how it came about, and so addresses what is read from it channel by
// channel by it and a constant. Otherwise loops keep the offsets of all those channels in registers, for paths that are seldom taken.
template <class T>
__device__ __forceinline__ T* as_base(T* pointer) {
  size_t address = __cvta_generic_to_global(pointer);
  asm("" : "+l"(address));
  return static_cast<T*>(__cvta_global_to_generic(address));
}

// A unit of 16 bytes: `pixel` points at channel 0, `channel` is a multiple of the unit.
template <class T>
__device__ __forceinline__ uint4 load_unit(T const* pixel, int channel, Channels channels) {
  T const* const unit = pixel + channel;
  if (channels.wide) {
    return __ldg(reinterpret_cast<uint4 const*>(unit));
  }
  T const* const base = as_base(unit);
  int const left = channels.count - channel;
  uint32_t word[4] = {0, 0, 0, 0};
  constexpr int kPerWord = int(sizeof(uint32_t) / sizeof(T));
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) {
    if (i < left) {
      if constexpr (kPerWord == 1) {
        word[i] = __float_as_uint(__ldg(base + i));
      } else {
        uint32_t const bits = __ldg(reinterpret_cast<unsigned short const*>(base + i));
        word[i / kPerWord] |= bits << (i % kPerWord * 16);
      }
    }
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// load_unit of memory that this launch writes.
template <class T>
__device__ __forceinline__ uint4 load_written(T const* pixel, int channel, Channels channels) {
  T const* const unit = pixel + channel;
  if (channels.wide) {
    return *reinterpret_cast<uint4 const*>(unit);
  }
  T const* const base = as_base(unit);
  int const left = channels.count - channel;
  float x[kUnit<T>];
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) {
    x[i] = i < left ? to_float(base[i]) : 0.f;
  }
  return pack_unit<T>(x);
}

// a + b, rounded to T.
template <class T>
__device__ __forceinline__ uint4 sum_of_units(uint4 a, uint4 b) {
  float x[kUnit<T>];
  float y[kUnit<T>];
  unpack_unit<T>(x, a);
  unpack_unit<T>(y, b);
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) {
    x[i] += y[i];
  }
  return pack_unit<T>(x);
}

template <class T>
__device__ __forceinline__ void store_unit(T* pixel, int channel, Channels channels, uint4 unit) {
  T* const to = pixel + channel;
  if (channels.wide) {
    *reinterpret_cast<uint4*>(to) = unit;
    return;
  }
  T* const base = as_base(to);
  int const left = channels.count - channel;
  uint32_t const word[4] = {unit.x, unit.y, unit.z, unit.w};
  constexpr int kPerWord = int(sizeof(uint32_t) / sizeof(T));
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) {
    if (i < left) {
      if constexpr (kPerWord == 1) {
        base[i] = __uint_as_float(word[i]);
      } else {
        reinterpret_cast<unsigned short*>(base)[i] =
            static_cast<unsigned short>(word[i / kPerWord] >> (i % kPerWord * 16));
      }
    }
  }
}

// 4 channels of 16 bits, as they are; `count` of them exist.
template <class T>
__device__ __forceinline__ void store_quad_bits(T* quad, int count, bool wide, uint2 bits) {
  if (wide) {
    *reinterpret_cast<uint2*>(quad) = bits;
    return;
  }
  auto* out = reinterpret_cast<unsigned short*>(quad);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (i < count) {
      out[i] = static_cast<unsigned short>((i < 2 ? bits.x : bits.y) >> (i % 2 * 16));
    }
  }
}

// A quad of 4 channels as f32: `channel` is a multiple of 4.
template <class T>
__device__ __forceinline__ float4 load_quad(T const* pixel, int channel, Channels channels) {
  if (channels.wide) {
    if constexpr (sizeof(T) == sizeof(float)) {
      return __ldg(reinterpret_cast<float4 const*>(pixel + channel));
    } else {
      uint2 const bits = __ldg(reinterpret_cast<uint2 const*>(pixel + channel));
      float2 const low = Pair<T>::unpack(bits.x);
      float2 const high = Pair<T>::unpack(bits.y);
      return make_float4(low.x, low.y, high.x, high.y);
    }
  }
  float value[kQuad] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (channel + i < channels.count) {
      value[i] = to_float(pixel[channel + i]);
    }
  }
  return make_float4(value[0], value[1], value[2], value[3]);
}

template <class T>
__device__ __forceinline__ void store_quad(T* pixel, int channel, Channels channels, float4 quad) {
  if (channels.wide) {
    if constexpr (sizeof(T) == sizeof(float)) {
      *reinterpret_cast<float4*>(pixel + channel) = quad;
    } else {
      *reinterpret_cast<uint2*>(pixel + channel) =
          make_uint2(Pair<T>::pack(quad.x, quad.y), Pair<T>::pack(quad.z, quad.w));
    }
    return;
  }
  float const value[kQuad] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (channel + i < channels.count) {
      pixel[channel + i] = from_float<T>(value[i]);
    }
  }
}

}  // namespace prim
