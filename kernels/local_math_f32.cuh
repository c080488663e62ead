// local — the two products of a patch in f32, on the FMA units: the same fragments as on tensor cores.
//
// A lane computes its own four elements of every 16×8 block of scores. For weighted sums it owns 4 channels of every 16
// and gets the weights of the other lanes of its quad by shuffles.
#pragma once
#include "local_math.cuh"

namespace local {

template <int D>
struct Product<float, D> {
  using T = float;
  using Type = T;
  static constexpr bool kRounds = false;   // weights
  static constexpr int kLineUnits = kLineBytes / prim::kUnitBytes;
  static constexpr int kSlice = 16;   // channels that a quad owns together

  static constexpr int kPixelBytes = 0;   // d and e say it at run time

  static __device__ __forceinline__ int pixel_bytes(Frame const& f) { return f.pixel_bytes; }

  // Pixels g and g + 8 of a patch stay in global memory, where a quad reads them through L1.
  struct Rows {
    T const* pixel[2];
    prim::Channels channels;
    float sign;

    __device__ __forceinline__ void flip_signs() { sign = -1.f; }
    __device__ __forceinline__ float4 quad(int half, int channel) const {
      return prim::load_quad(pixel[half], channel, channels);
    }
  };

  static __device__ __forceinline__ Rows load_rows(T const* const (&pixel)[2], bool const (&)[2], prim::Channels channels) {
    return Rows{{pixel[0], pixel[1]}, channels, 1.f};
  }

  // In the order of `dots`: where a weight is 1, the output equals its value, and the gradient of the score is exactly 0.
  static __device__ __forceinline__ void row_dots(float (&sum)[2], Rows const& a, Rows const& b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = 0.f;
#pragma unroll 1
      for (int channel = 0; channel < a.channels.count; channel += prim::kQuad) {
        float4 const x = a.quad(half, channel);
        float4 const y = b.quad(half, channel);
        sum[half] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum[half]))));
      }
    }
  }

  // A lane's way through a walk: its keys 2t and 2t + 1 for dots, every key for sums.
  struct Way {
    Cursor dot[2];
    uint32_t s_band;
    int key;

    __device__ __forceinline__ void advance(Walk const& walk) {
      dot[0].advance(walk);
      dot[1].advance(walk);
      key += kStep;
    }
  };

  static __device__ __forceinline__ Way start_way(Walk const& walk, uint32_t s_band) {
    int const key = 2 * (threadIdx.x % 4);
    return Way{{Cursor(walk, s_band, key, swizzle(walk.phase + key) * prim::kUnitBytes),
                Cursor(walk, s_band, key + 1, swizzle(walk.phase + key + 1) * prim::kUnitBytes)},
               s_band, 0};
  }

  struct Addresses {
    uint32_t of_key[2][2];
  };

  static __device__ __forceinline__ Addresses dot_addresses(Way const& way, Walk const& walk) {
    Addresses a;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      a.of_key[0][i] = way.dot[i].address(walk, 0);
      a.of_key[1][i] = way.dot[i].address(walk, kGroup) + kGroup * walk.pixel_bytes;
    }
    return a;
  }

  static __device__ __forceinline__ float dot(float4 a, uint4 b, float c) {
    c = fmaf(a.x, __uint_as_float(b.x), c);
    c = fmaf(a.y, __uint_as_float(b.y), c);
    c = fmaf(a.z, __uint_as_float(b.z), c);
    return fmaf(a.w, __uint_as_float(b.w), c);
  }

  static __device__ __forceinline__ void dots(float (&c)[2][4], Rows const& rows, Addresses const& addresses, int tensor) {
    uint32_t address[2][2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        address[j][i] = addresses.of_key[j][i] + tensor;
      }
    }
    float sum[2][4] = {};
    for (int line = 0; line < rows.channels.count; line += kLineUnits * prim::kQuad) {
#pragma unroll
      for (int u = 0; u < kLineUnits; ++u) {
        int const channel = line + u * prim::kQuad;
        if (channel < rows.channels.count) {
          float4 const low = rows.quad(0, channel);
          float4 const high = rows.quad(1, channel);
#pragma unroll
          for (int j = 0; j < 2; ++j) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              uint4 const key = prim::load_shared_unit(address[j][i] ^ u * prim::kUnitBytes);
              sum[j][i] = dot(low, key, sum[j][i]);
              sum[j][2 + i] = dot(high, key, sum[j][2 + i]);
            }
          }
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        address[j][0] += kLineBytes;
        address[j][1] += kLineBytes;
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = fmaf(rows.sign, sum[j][i], c[j][i]);
      }
    }
  }

  static __device__ __forceinline__ void table_dots(float (&c)[4], Rows const& rows, Table const& table, T const* data,
                                                    bool is_wide, int first, int count) {
    int const t = threadIdx.x % 4;
    T const* row[2];
    float sum[4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      row[i] = data + min(first + 2 * t + i, count - 1) * table.stride_row;
    }
    for (int channel = 0; channel < rows.channels.count; channel += prim::kQuad) {
      float4 const low = rows.quad(0, channel);
      float4 const high = rows.quad(1, channel);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint4 const unit = load_table_unit(table, row[i], is_wide, channel);
        sum[i] = dot(low, unit, sum[i]);
        sum[2 + i] = dot(high, unit, sum[2 + i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      c[i] = fmaf(rows.sign, sum[i], c[i]);
    }
  }

  struct Weights {
    float c[2][4];
  };

  static __device__ __forceinline__ Weights weights_of(float const (&c)[2][4]) {
    Weights w;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w.c[j][i] = c[j][i];
      }
    }
    return w;
  }

  static __device__ __forceinline__ void add_totals(float (&)[4], Weights const&) {}

  template <int kCount>
  static __device__ __forceinline__ void weighted_sums(float (*const (&sums)[kCount])[4], Weights const (&weights)[kCount],
                                                       Way const& way, Walk const& walk, int tensor, int channels) {
    static_assert(kCount == 1, "f32 has no registers for more");
    int const t = threadIdx.x % 4;
#pragma unroll 1
    for (int owner = 0; owner < 4; ++owner) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          int const in_group = 2 * owner + i;
          float const low = __shfl_sync(prim::kAllLanes, weights[0].c[j][i], owner, 4);
          float const high = __shfl_sync(prim::kAllLanes, weights[0].c[j][2 + i], owner, 4);
          Cursor const cursor(walk, way.s_band + tensor, way.key + j * kGroup + in_group,
                              (t ^ swizzle(walk.phase + in_group)) * prim::kUnitBytes);
          uint32_t const address = cursor.address(walk, 0);
#pragma unroll
          for (int slice = 0; slice < D / kSlice; ++slice) {
            if (slice * kSlice < channels) {
              uint4 const u = prim::load_shared_unit((address ^ slice % 2 * (kLineBytes / 2)) + slice / 2 * kLineBytes);
              float const value[4] = {__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z),
                                      __uint_as_float(u.w)};
#pragma unroll
              for (int channel = 0; channel < 4; ++channel) {
                sums[0][2 * slice][channel] = fmaf(low, value[channel], sums[0][2 * slice][channel]);
                sums[0][2 * slice + 1][channel] = fmaf(high, value[channel], sums[0][2 * slice + 1][channel]);
              }
            }
          }
        }
      }
    }
  }

  static __device__ __forceinline__ void scale(float (&sum)[D / 8][4], float low, float high) {
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
#pragma unroll
      for (int channel = 0; channel < 4; ++channel) {
        sum[i][channel] *= i % 2 == 0 ? low : high;
      }
    }
  }

  static __device__ __forceinline__ void store(float const (&sum)[D / 8][4], T* const (&pixel)[2], bool const (&lives)[2],
                                               prim::Channels channels) {
    int const t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      int const channel = i / 2 * kSlice + t * 4;
      if (lives[i % 2] && channel < channels.count) {
        prim::store_quad(pixel[i % 2], channel, channels, make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
      }
    }
  }
};

}  // namespace local
