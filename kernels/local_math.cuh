// local — the two products of a patch: with keys (`dots`) and with weights (`weighted_sum`), on tensor cores for 16-bit
// elements, in f32 for f32. Both leave the same fragments, so the kernels are written once:
//
//   dots           c[j][0], [1]: pixel g of the patch with keys 2t, 2t + 1 of group j;  c[j][2], [3]: pixel g + 8
//   weighted_sum   sum[D / 8][4]: as `Product::store` knows; `Product::scale` multiplies rows g and g + 8
#pragma once
#include "local_tile.cuh"

namespace local {

__device__ __forceinline__ uint4 load_shared_unit(uint32_t address) {
  uint4 u;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(u.x), "=r"(u.y), "=r"(u.z), "=r"(u.w) : "r"(address) : "memory");
  return u;
}

// Channels of q that a relative table row has, as one unit; zeros elsewhere.
template <class T>
__device__ __forceinline__ uint4 load_table_unit(Table const& table, T const* row, bool is_wide, int channel) {
  int const first = channel - table.first;
  if (is_wide) {
    bool const lives = first >= 0 && first < table.channels;
    return lives ? __ldg(reinterpret_cast<uint4 const*>(row + first)) : make_uint4(0, 0, 0, 0);
  }
  T element[prim::kUnit<T>];
#pragma unroll
  for (int i = 0; i < prim::kUnit<T>; ++i) {
    bool const lives = first + i >= 0 && first + i < table.channels;
    element[i] = lives ? row[(first + i) * table.stride_channel] : prim::from_float<T>(0.f);
  }
  return *reinterpret_cast<uint4 const*>(element);
}

template <class T>
__device__ __forceinline__ float table_element(Table const& table, T const* row, int channel) {
  int const at = channel - table.first;
  bool const lives = at >= 0 && at < table.channels;
  return lives ? prim::to_float(row[at * table.stride_channel]) : 0.f;
}

template <class T>
__device__ __forceinline__ bool is_wide(Table const& table) {
  int64_t const strides = table.stride_h | table.stride_row | table.first;
  return table.stride_channel == 1 && prim::channels_of<T>(table.data, strides, table.channels).wide;
}

// ---- 16-bit elements ------------------------------------------------------------------------------------------------

constexpr int kSpan = 32;          // channels of one unit per lane of a quad
constexpr int kUnitShift = 4;      // log2 of a unit's bytes
constexpr int kLineBytes = 128;    // units are permuted within a line

template <class T, int D>
struct Product {
  static_assert(D == 32 || D == 64 || D == 128, "a pixel is half a line, a line or two");
  using Type = T;
  static constexpr bool kRounds = true;   // weights
  static constexpr int kUnits = D / prim::kUnit<T>;

  static __device__ __forceinline__ int pixel_bytes(Frame const&) { return D * int(sizeof(T)); }

  // The rows of a patch: unit t of every 32 channels of pixels g and g + 8. The product's inner index is permuted so that
  // a lane's part is one unit, on both sides.
  struct Rows {
    uint4 unit[D / kSpan][2];

    __device__ __forceinline__ void flip_signs() {
#pragma unroll
      for (int i = 0; i < D / kSpan; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          constexpr uint32_t kSigns = 0x80008000u;
          uint4& u = unit[i][half];
          u = make_uint4(u.x ^ kSigns, u.y ^ kSigns, u.z ^ kSigns, u.w ^ kSigns);
        }
      }
    }
  };

  static __device__ __forceinline__ Rows load_rows(T const* const (&pixel)[2], bool const (&lives)[2],
                                                   prim::Channels channels) {
    int const t = threadIdx.x % 4;
    Rows rows;
#pragma unroll
    for (int i = 0; i < D / kSpan; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const channel = i * kSpan + t * prim::kUnit<T>;
        rows.unit[i][half] = lives[half] && channel < channels.count
                                 ? prim::load_unit(pixel[half], channel, channels)
                                 : make_uint4(0, 0, 0, 0);
      }
    }
    return rows;
  }

  // What a lane adds to a pixel's address, for a walk whose key 0 has this phase.
  struct Units {
    uint32_t dot, sum;
  };

  static __device__ __forceinline__ Units units_of_lane(int phase) {
    int const lane = threadIdx.x % prim::kWarp;
    constexpr int kMask = (kUnits - 1) & (kGroup - 1);
    int const dot = lane % 4 ^ (swizzle(phase + lane / 4) & kMask);
    int const sum = lane / 16 ^ (swizzle(phase + lane % kGroup) & kMask);
    return Units{uint32_t(dot) << kUnitShift, uint32_t(sum) << kUnitShift};
  }

  // c[0..4] += rows · unit b of span i
  static __device__ __forceinline__ void multiply(float (&c)[4], Rows const& rows, int i, uint4 b) {
    uint4 const low = rows.unit[i][0];
    uint4 const high = rows.unit[i][1];
    uint32_t const first[4] = {low.x, high.x, low.y, high.y};
    uint32_t const second[4] = {low.z, high.z, low.w, high.w};
    prim::mma<T>(c, first, b.x, b.y);
    prim::mma<T>(c, second, b.z, b.w);
  }

  // c[j] += rows · keys of group j
  static __device__ __forceinline__ void dots(float (&c)[2][4], Rows const& rows, uint32_t s_band, Walk const& walk,
                                              Group const (&groups)[2], Units const& units, Frame const&) {
    int const g = threadIdx.x % prim::kWarp / 4;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t const address = s_band + walk.bytes(groups[j], g) + units.dot;
#pragma unroll
      for (int i = 0; i < D / kSpan; ++i) {
        multiply(c[j], rows, i, load_shared_unit((address ^ i % 2 * (kLineBytes / 2)) + i / 2 * kLineBytes));
      }
    }
  }

  // c += rows · rows `first` .. first + 7 of a table
  static __device__ __forceinline__ void table_dots(float (&c)[4], Rows const& rows, Table const& table, T const* data,
                                                    bool is_wide, int first, int count) {
    int const lane = threadIdx.x % prim::kWarp;
    T const* row = data + min(first + lane / 4, count - 1) * table.stride_row;
#pragma unroll
    for (int i = 0; i < D / kSpan; ++i) {
      multiply(c, rows, i, load_table_unit(table, row, is_wide, i * kSpan + lane % 4 * prim::kUnit<T>));
    }
  }

  // Weights of a step as the left side of a product, rounded to T.
  struct Weights {
    uint32_t a[4];
  };

  static __device__ __forceinline__ Weights weights_of(float const (&c)[2][4]) {
    using Pair = prim::Pair<T>;
    return Weights{{Pair::pack(c[0][0], c[0][1]), Pair::pack(c[0][2], c[0][3]), Pair::pack(c[1][0], c[1][1]),
                    Pair::pack(c[1][2], c[1][3])}};
  }

  // total[0], total[2] += the weights' sums, of rows g and g + 8
  static __device__ __forceinline__ void add_totals(float (&total)[4], Weights const& weights) {
    uint32_t const ones = prim::Pair<T>::pack(1.f, 1.f);
    prim::mma<T>(total, weights.a, ones, ones);
  }

  // sums[k] += weights[k] · values, for kCount patches that see the same keys
  template <int kCount>
  static __device__ __forceinline__ void weighted_sums(float (*const (&sums)[kCount])[4],
                                                       Weights const (&weights)[kCount], uint32_t s_band,
                                                       Walk const& walk, Group const (&groups)[2], Units const& units,
                                                       int) {
    int const lane = threadIdx.x % prim::kWarp;
    Group const& group = lane / kGroup % 2 == 0 ? groups[0] : groups[1];
    uint32_t const address = s_band + walk.bytes(group, lane % kGroup) + units.sum;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t b[4];
      prim::load_matrices_transposed(b, (address ^ i % 4 * (2 * prim::kUnitBytes)) + i / 4 * kLineBytes);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        prim::mma<T>(sums[k][2 * i], weights[k].a, b[0], b[1]);
        prim::mma<T>(sums[k][2 * i + 1], weights[k].a, b[2], b[3]);
      }
    }
  }

  static __device__ __forceinline__ void scale(float (&sum)[D / 8][4], float low, float high) {
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      sum[i][0] *= low;
      sum[i][1] *= low;
      sum[i][2] *= high;
      sum[i][3] *= high;
    }
  }

  // Neighbouring lanes swap halves, so that each stores 4 channels and a quad whole sectors.
  static __device__ __forceinline__ void store(float const (&sum)[D / 8][4], T* const (&pixel)[2], bool const (&lives)[2],
                                               prim::Channels channels) {
    int const t = threadIdx.x % 4;
    bool const is_odd = t % 2 != 0;
#pragma unroll
    for (int i = 0; i < D / 8; i += 2) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t const first = prim::Pair<T>::pack(sum[i][2 * half], sum[i][2 * half + 1]);
        uint32_t const second = prim::Pair<T>::pack(sum[i + 1][2 * half], sum[i + 1][2 * half + 1]);
        uint32_t const other = __shfl_xor_sync(prim::kAllLanes, is_odd ? first : second, 1);
        uint2 const quad = is_odd ? make_uint2(other, second) : make_uint2(first, other);
        int const channel = 8 * (i + t % 2) + 4 * (t / 2);
        if (lives[half] && channel < channels.count) {
          if (channels.wide) {
            *reinterpret_cast<uint2*>(pixel[half] + channel) = quad;
          } else {
            float2 const low = prim::Pair<T>::unpack(quad.x);
            float2 const high = prim::Pair<T>::unpack(quad.y);
            prim::store_quad(pixel[half], channel, channels, make_float4(low.x, low.y, high.x, high.y));
          }
        }
      }
    }
  }
};

}  // namespace local
