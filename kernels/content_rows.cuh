// content_rows — what one warp multiplies: a few positions × a d×e matrix in shared memory. Every warp copies, weighs and
// multiplies positions of its own, so warps wait for nobody.
#pragma once
#include "content.cuh"
#include "prim/summary.cuh"

namespace content {

constexpr int kRowWarps = 8;
constexpr int kRowThreads = kRowWarps * prim::kWarp;

template <class T> using Matrix = prim::Matrix<T>;

// Copies positions first … of a tensor into rows; those from `end` on become zeros.
template <class T, int kRows>
__device__ __forceinline__ void copy_rows(unsigned char* rows, int pitch, prim::Divisor const& units, Plane<T const> const& plane,
                                          prim::Channels channels, int first, int end) {
  for (int i = threadIdx.x % prim::kWarp; i < kRows * int(units.value); i += prim::kWarp) {
    int const row = units.quotient(i);
    int const unit = units.remainder(i, row);
    int const channel = unit * prim::kUnit<T>;
    bool const live = first + row < end && channel < channels.count;
    prim::copy_unit(reinterpret_cast<uint4*>(rows + row * pitch + unit * prim::kUnitBytes),
                    plane.pixel(live ? first + row : 0), channel, channels, live);
  }
}

// What a row's queries need to become weights: linear forms have no `top`, and in `inverse` 1 / normaliser.
using QueryScale = prim::RowSoftmax;

// Of this lane's row, at `s_row`; `s_sums`: the sums of the keys' weights, zeros up to whole blocks. `epsilon` as the sums.
template <class T>
__device__ __forceinline__ QueryScale query_scale(uint32_t s_row, int d, int form, float const* s_sums, float epsilon) {
  auto const unit_of = [=](int unit) { return s_row + unit * prim::kUnitBytes; };
  if (form == kSoftmaxBoth) {
    return QueryScale::of<T>(d, unit_of);
  }
  float sum = 0.f;
  prim::each_of_row<T>(d, unit_of, [&](int ci, float x) { sum = fmaf(feature(form, x), s_sums[ci], sum); });
  return QueryScale{0.f, 1.f / (prim::row_sum(sum) + epsilon)};
}

// Without branches, for it stands in unrolled loops; `top` is 0 for the linear forms.
__device__ __forceinline__ float query_weight(int form, float q, QueryScale scale) {
  float const e = exp_approx(q - scale.top);
  float const above = q + (form == kEluPlusOne ? 1.f : 0.f);
  float const below = form == kEluPlusOne ? e : 0.f;
  return form == kSoftmaxBoth ? e * scale.inverse : q > 0.f ? above : below;
}

// Makes weights of this lane's row of queries, times `by`, in place.
template <class T>
__device__ __forceinline__ void weigh_queries(uint32_t s_row, int d, int form, QueryScale scale, float by) {
  prim::replace_row<T>(d, [=](int unit) { return s_row + unit * prim::kUnitBytes; },
                       [=](float q) { return query_weight(form, q, scale) * by; });
}

// ---- 16-bit elements: tensor cores --------------------------------------------------------------------------------
// 16 rows. Lane 4·g + t has rows g and g + 8; of each block of 8 columns 2t and 2t + 1.

// Four words of each lane of a quad, transposed: word i of lane t becomes word t of lane i.
__device__ __forceinline__ void transpose_quad(uint32_t (&w)[4]) {
  int const t = prim::fresh_lane() % 4;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    uint32_t const got = __shfl_xor_sync(prim::kAllLanes, t % 2 == 0 ? w[i + 1] : w[i], 1);
    (t % 2 == 0 ? w[i + 1] : w[i]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t const got = __shfl_xor_sync(prim::kAllLanes, t < 2 ? w[i + 2] : w[i], 2);
    (t < 2 ? w[i + 2] : w[i]) = got;
  }
}

template <class T, int kColumns>
struct Rows {
  static constexpr int kCount = 16;
  static constexpr int kOfLane = 2;
  static constexpr int kTiles = kColumns / prim::kMmaN;

  float c[kTiles][4];

  static __device__ __forceinline__ int row(int i) { return prim::fresh_lane() / 4 + 8 * i; }
  static __device__ __forceinline__ bool is_first_of_row() { return prim::fresh_lane() % 4 == 0; }
  static __device__ __forceinline__ float sum_of_row(float x) { return prim::quad_sum(x); }

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = 0.f;
      }
    }
  }

  // c += rows · matrix, columns from `column` on; or, transposed, c += rows · matrixᵀ, the matrix' rows from `column` on.
  template <bool kTransposed>
  __device__ __forceinline__ void multiply(uint32_t s_rows, int pitch, int depth, Matrix<T> const& matrix, int column, int columns) {
    int const lane = prim::fresh_lane();
    uint32_t const s_a = s_rows + lane % 16 * pitch + lane / 16 * prim::kUnitBytes;
    uint32_t const s_b = kTransposed
                             ? matrix.bytes + (column + lane % 8 + lane / 16 * 8) * matrix.pitch + lane / 8 % 2 * prim::kUnitBytes
                             : matrix.bytes + lane % 16 * matrix.pitch + (column + lane / 16 * 8) * int(sizeof(T));
    int const step = kTransposed ? kBlock * int(sizeof(T)) : kBlock * matrix.pitch;
    int const across = kTransposed ? kBlock * matrix.pitch : kBlock * int(sizeof(T));
#pragma unroll 1
    for (int i = 0; i < depth / kBlock; ++i) {
      uint32_t a[4];
      prim::load_matrices(a, s_a + i * kBlock * int(sizeof(T)));
#pragma unroll
      for (int j = 0; j < kColumns / kBlock; ++j) {
        if (j * kBlock < columns) {
          uint32_t b[4];
          if constexpr (kTransposed) {
            prim::load_matrices(b, s_b + i * step + j * across);
          } else {
            prim::load_matrices_transposed(b, s_b + i * step + j * across);
          }
          prim::mma<T>(c[2 * j], a, b[0], b[1]);
          prim::mma<T>(c[2 * j + 1], a, b[2], b[3]);
        }
      }
    }
  }

  // Calls f(column, value of rows at `s_rows`, result) for every result of this lane's row i.
  template <class F>
  __device__ __forceinline__ void each(int i, uint32_t s_rows, int pitch, int columns, F f) {
    int const first = prim::fresh_lane() % 4 * 2;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      if (j * prim::kMmaN < columns) {
        int const column = j * prim::kMmaN + first;
        uint32_t pair;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pair) : "r"(s_rows + row(i) * pitch + column * int(sizeof(T))) : "memory");
        float2 const x = prim::Pair<T>::unpack(pair);
        f(column, x.x, c[j][2 * i]);
        f(column + 1, x.y, c[j][2 * i + 1]);
      }
    }
  }

  __device__ __forceinline__ void scale(int i, float by) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      c[j][2 * i] *= by;
      c[j][2 * i + 1] *= by;
    }
  }

  // Writes columns `column` … of positions first … end of a tensor, whole units at a time, or adds them to what is there.
  __device__ __forceinline__ void store(Plane<T> const& plane, prim::Channels channels, int column, int, int first, int end,
                                        bool adds) const {
    int const own = column + prim::fresh_lane() % 4 * prim::kUnit<T>;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      int const ni = first + row(i);
#pragma unroll
      for (int j = 0; j < kTiles; j += 4) {
        uint32_t word[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          word[k] = prim::Pair<T>::pack(c[j + k][2 * i], c[j + k][2 * i + 1]);
        }
        transpose_quad(word);
        int const channel = own + j * prim::kMmaN;
        if (ni < end && channel < channels.count) {
          T* const pixel = plane.pixel(ni);
          uint4 unit = make_uint4(word[0], word[1], word[2], word[3]);
          if (adds) {
            unit = prim::sum_of_units<T>(unit, prim::load_written(pixel, channel, channels));
          }
          prim::store_unit(pixel, channel, channels, unit);
        }
      }
    }
  }
};

// ---- f32: FMA units -----------------------------------------------------------------------------------------------
// 8 rows of 64 columns, or 16 of 32. Lane 8·r + l has neighbouring rows from r · kOfLane on; of each 32 columns 4l … 4l + 3.

template <int kColumns>
struct Rows<float, kColumns> {
  static constexpr int kOfLane = 2 * kSlice / kColumns;
  static constexpr int kCount = 4 * kOfLane;
  static constexpr int kHalf = kSlice / 2;
  static constexpr int kHalves = kColumns / kHalf;

  float4 c[kOfLane][kHalves];

  static __device__ __forceinline__ int row(int i) { return prim::fresh_lane() / 8 * kOfLane + i; }
  static __device__ __forceinline__ bool is_first_of_row() { return prim::fresh_lane() % 8 == 0; }
  static __device__ __forceinline__ float sum_of_row(float x) {
    x = prim::quad_sum(x);
    return x + __shfl_xor_sync(prim::kAllLanes, x, 4);
  }

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        c[i][half] = make_float4(0.f, 0.f, 0.f, 0.f);
      }
    }
  }

  static __device__ __forceinline__ float dot(float4 a, float4 b, float x) {
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, x))));
  }

  template <bool kTransposed>
  __device__ __forceinline__ void multiply(uint32_t s_rows, int pitch, int depth, Matrix<float> const& matrix, int column,
                                           int columns) {
    int const l = prim::fresh_lane() % 8;
    uint32_t const s_a = s_rows + row(0) * pitch;
#pragma unroll 1
    for (int k = 0; k < depth; k += prim::kQuad) {
      float4 a[kOfLane];
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        a[i] = quad_at(s_a + i * pitch + k * int(sizeof(float)));
      }
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        int const first = column + half * kHalf + l * prim::kQuad;
        if (half * kHalf < columns) {
          float4 b[prim::kQuad];
#pragma unroll
          for (int i = 0; i < prim::kQuad; ++i) {
            b[i] = kTransposed ? quad_at(matrix.unit(first + i, k / prim::kQuad))
                               : quad_at(matrix.unit(k + i, first / prim::kQuad));
          }
#pragma unroll
          for (int i = 0; i < kOfLane; ++i) {
            float4& x = c[i][half];
            if constexpr (kTransposed) {
              x = make_float4(dot(a[i], b[0], x.x), dot(a[i], b[1], x.y), dot(a[i], b[2], x.z), dot(a[i], b[3], x.w));
            } else {
              multiply_add(x, a[i].x, b[0]);
              multiply_add(x, a[i].y, b[1]);
              multiply_add(x, a[i].z, b[2]);
              multiply_add(x, a[i].w, b[3]);
            }
          }
        }
      }
    }
  }

  template <class F>
  __device__ __forceinline__ void each(int i, uint32_t s_rows, int pitch, int columns, F f) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      int const column = half * kHalf + prim::fresh_lane() % 8 * prim::kQuad;
      if (column < columns) {
        float4 const x = quad_at(s_rows + row(i) * pitch + column * int(sizeof(float)));
        f(column, x.x, c[i][half].x);
        f(column + 1, x.y, c[i][half].y);
        f(column + 2, x.z, c[i][half].z);
        f(column + 3, x.w, c[i][half].w);
      }
    }
  }

  __device__ __forceinline__ void scale(int i, float by) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      float4& x = c[i][half];
      x = make_float4(x.x * by, x.y * by, x.z * by, x.w * by);
    }
  }

  __device__ __forceinline__ void store(Plane<float> const& plane, prim::Channels channels, int column, int columns, int first,
                                        int end, bool adds) const {
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      int const ni = first + row(i);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        int const channel = column + half * kHalf + prim::fresh_lane() % 8 * prim::kQuad;
        if (ni < end && half * kHalf < columns && channel < channels.count) {
          float* const pixel = plane.pixel(ni);
          float4 const x = c[i][half];
          uint4 unit = make_uint4(__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w));
          if (adds) {
            unit = prim::sum_of_units<float>(unit, prim::load_written(pixel, channel, channels));
          }
          prim::store_unit(pixel, channel, channels, unit);
        }
      }
    }
  }
};

}  // namespace content
