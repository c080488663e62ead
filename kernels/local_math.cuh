// local — the two products of a patch: with keys (`dots`) and with weights (`weighted_sum`), on tensor cores for 16-bit
// elements, in f32 for f32. Both leave the same fragments, so the kernels are written once:
//
//   dots           c[j][0], [1]: pixel g of the patch with keys 2t, 2t + 1 of group j;  c[j][2], [3]: pixel g + 8
//   weighted_sum   sum[D / 8][4]: as `Product::store` knows; `Product::scale` multiplies rows g and g + 8
#pragma once
#include "local_tile.cuh"
#include "prim/softmax.cuh"

namespace local {

// Channels of q that a relative table row has, as one unit; zeros elsewhere.
template <class T>
__device__ __forceinline__ uint4 load_table_unit(Table const& table, T const* row, bool is_wide, int channel) {
  int const first = channel - table.first;
  if (is_wide) {
    bool const lives = unsigned(first) < unsigned(table.channels);
    uint4 const unit = __ldg(reinterpret_cast<uint4 const*>(row + (lives ? first : 0)));
    return lives ? unit : make_uint4(0, 0, 0, 0);
  }
  // Element by element, rolled: each enters at the top and moves down. (A rare path, kept small.)
  uint4 unit = make_uint4(0, 0, 0, 0);
#pragma unroll 1
  for (int i = 0; i < prim::kUnit<T>; ++i) {
    bool const lives = unsigned(first + i) < unsigned(table.channels);
    T const element = lives ? row[(first + i) * table.stride_channel] : prim::from_float<T>(0.f);
    if constexpr (sizeof(T) == sizeof(float)) {
      unit = make_uint4(unit.y, unit.z, unit.w, __float_as_uint(prim::to_float(element)));
    } else {
      uint32_t const bits = *reinterpret_cast<unsigned short const*>(&element);
      unit = make_uint4(__funnelshift_r(unit.x, unit.y, 16), __funnelshift_r(unit.y, unit.z, 16),
                        __funnelshift_r(unit.z, unit.w, 16), unit.w >> 16 | bits << 16);
    }
  }
  return unit;
}

__device__ __forceinline__ bool is_wide(Table const& table) {
  return table.is_wide && reinterpret_cast<uint64_t>(table.data) % prim::kUnitBytes == 0;
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

  static constexpr int kPixelBytes = D * int(sizeof(T));

  static __device__ __forceinline__ int pixel_bytes(Frame const&) { return kPixelBytes; }

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

  // Pixels that do not live must be readable all the same.
  static __device__ __forceinline__ Rows load_rows(T const* const (&pixel)[2], bool const (&lives)[2],
                                                   prim::Channels channels) {
    int const first = threadIdx.x % 4 * prim::kUnit<T>;
    Rows rows;
#pragma unroll
    for (int i = 0; i < D / kSpan; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const channel = first + i * kSpan;
        bool const exists = lives[half] && channel < channels.count;
        uint4 const unit = prim::load_unit(pixel[half], exists ? channel : 0, channels);
        rows.unit[i][half] = exists ? unit : make_uint4(0, 0, 0, 0);
      }
    }
    return rows;
  }

  // Sums over channels of the products of two patches' rows: pixels g and g + 8, in every lane of the quad.
  static __device__ __forceinline__ void row_dots(float (&sum)[2], Rows const& a, Rows const& b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = 0.f;
#pragma unroll
      for (int i = 0; i < D / kSpan; ++i) {
        uint32_t const x[4] = {a.unit[i][half].x, a.unit[i][half].y, a.unit[i][half].z, a.unit[i][half].w};
        uint32_t const y[4] = {b.unit[i][half].x, b.unit[i][half].y, b.unit[i][half].z, b.unit[i][half].w};
#pragma unroll
        for (int word = 0; word < 4; ++word) {
          float2 const u = prim::Pair<T>::unpack(x[word]);
          float2 const v = prim::Pair<T>::unpack(y[word]);
          sum[half] = fmaf(u.y, v.y, fmaf(u.x, v.x, sum[half]));
        }
      }
      sum[half] = prim::quad_sum(sum[half]);
    }
  }

  // The 16 pixels of a patch in shared memory, as `load_matrices_transposed` of `staged_units` reads them.
  static constexpr int kStagedBytes = kPatchPixels * kPixelBytes;

  static __device__ __forceinline__ void stage(uint32_t s_patch, Rows const& rows) {
    prim::Lane const lane = prim::lane_of_warp();
#pragma unroll
    for (int i = 0; i < D / kSpan; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const unit = (lane.t + i * 4) ^ (swizzle(lane.g) & (kUnits - 1) & (kPhases - 1));
        prim::store_shared_unit(s_patch + (lane.g + half * kGroup) * kPixelBytes + unit * prim::kUnitBytes, rows.unit[i][half]);
      }
    }
  }

  // 16 channels of all 16 staged pixels, pixels along the product's inner index.
  static __device__ __forceinline__ void staged_units(uint32_t (&b)[4], uint32_t s_patch, int channels16) {
    int const lane = threadIdx.x % prim::kWarp;
    int const unit = (2 * channels16 + lane / kStep) ^ (swizzle(lane % kGroup) & (kUnits - 1) & (kPhases - 1));
    prim::load_matrices_transposed(b, s_patch + lane % kStep * kPixelBytes + unit * prim::kUnitBytes);
  }

  // A pixel of a band as row g or g + 8 of a product's left side; `phase`: of the pixel.
  static __device__ __forceinline__ void load_band_row(Rows& rows, int half, uint32_t s_pixel, int phase) {
    int const t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < D / kSpan; ++i) {
      int const unit = (t + i * 4) ^ (swizzle(phase) & (kUnits - 1) & (kPhases - 1));
      rows.unit[i][half] = prim::load_shared_unit(s_pixel + unit * prim::kUnitBytes);
    }
  }

  // A lane's way through a walk.
  struct Way {
    Cursor dot, sum;

    __device__ __forceinline__ void advance(Walk const& walk) {
      dot.advance(walk);
      sum.advance(walk);
    }
  };

  static __device__ __forceinline__ Way start_way(Walk const& walk, uint32_t s_band) {
    int const lane = threadIdx.x % prim::kWarp;
    constexpr int kMask = (kUnits - 1) & (kPhases - 1);
    int const dot = lane % 4 ^ (swizzle(walk.phase + lane / 4) & kMask);
    int const sum = lane / kStep ^ (swizzle(walk.phase + lane % kGroup) & kMask);
    return Way{Cursor(walk, s_band, lane / 4, dot * prim::kUnitBytes),
               Cursor(walk, s_band, lane % kStep, sum * prim::kUnitBytes)};
  }

  // Of the lane's keys of both groups of a step.
  struct Addresses {
    uint32_t of_group[2];
  };

  static __device__ __forceinline__ Addresses dot_addresses(Way const& way, Walk const& walk) {
    return Addresses{{way.dot.address(walk, 0), way.dot.address(walk, kGroup)}};
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

  // c[j] += rows · keys of group j; the keys' tensor lies `tensor` bytes behind the walk's
  static __device__ __forceinline__ void dots(float (&c)[2][4], Rows const& rows, Addresses const& addresses, int tensor) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t const address = addresses.of_group[j] + tensor;
#pragma unroll
      for (int i = 0; i < D / kSpan; ++i) {
        uint32_t const unit = (address ^ i % 2 * (kLineBytes / 2)) + i / 2 * kLineBytes + j * kGroup * kPixelBytes;
        multiply(c[j], rows, i, prim::load_shared_unit(unit));
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
    prim::mma<T>(total, weights.a, prim::Pair<T>::kOnes, prim::Pair<T>::kOnes);
  }

  // sums[k] += weights[k] · values, for kCount patches that see the same keys
  template <int kCount>
  static __device__ __forceinline__ void weighted_sums(float (*const (&sums)[kCount])[4], Weights const (&weights)[kCount],
                                                       Way const& way, Walk const& walk, int tensor, int) {
    uint32_t const address = way.sum.address(walk, 0) + tensor;
#pragma unroll
    for (int i = 0; i < D / kStep; ++i) {
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
    uint2 quad[D / 16][2];
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t const first = prim::Pair<T>::pack(sum[2 * i][2 * half], sum[2 * i][2 * half + 1]);
        uint32_t const second = prim::Pair<T>::pack(sum[2 * i + 1][2 * half], sum[2 * i + 1][2 * half + 1]);
        uint32_t const other = __shfl_xor_sync(prim::kAllLanes, is_odd ? first : second, 1);
        quad[i][half] = is_odd ? make_uint2(other, second) : make_uint2(first, other);
      }
    }
    int const first = 8 * (t % 2) + 4 * (t / 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      T* const out = pixel[half] + first;
      if (lives[half]) {
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
          if (first + 16 * i < channels.count) {
            prim::store_quad_bits(out + 16 * i, channels.count - first - 16 * i, channels.wide, quad[i][half]);
          }
        }
      }
    }
  }
};

}  // namespace local
