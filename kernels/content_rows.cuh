// content_rows — what one warp multiplies: a few positions × a d×e matrix in shared memory. Every warp copies, weighs and
// multiplies positions of its own, so warps wait for nobody.
#pragma once
#include "content.cuh"

namespace content {

constexpr int kRowWarps = 8;
constexpr int kRowThreads = kRowWarps * prim::kWarp;

// A d×e matrix in shared memory, in T. f32: no padding; the units of a row are swapped about by the row's quad, so that
// neither reading along a row nor reading neighbouring quads of rows meets bank conflicts.
template <class T>
struct Matrix {
  uint32_t bytes;   // address
  int pitch;        // of a row

  static constexpr bool kSwaps = sizeof(T) == sizeof(float);

  static __device__ __forceinline__ int pitch_of(int ep) { return kSwaps ? ep * int(sizeof(T)) : content::pitch_of<T>(ep); }

  __device__ __forceinline__ uint32_t unit(int row, int unit) const {
    return bytes + row * pitch + (kSwaps ? unit ^ row / prim::kQuad % 8 : unit) * prim::kUnitBytes;
  }

  // From f32 numbers [d, e], times `by`; zeros up to whole blocks.
  __device__ __forceinline__ void fill(float const* from, int d, int e, int dp, int ep, float by) const {
    prim::Channels const channels = prim::channels_of<float>(from, e, e);
    int const lane = threadIdx.x % prim::kWarp;
    for (int ci = prim::warp_of_block(); ci < dp; ci += kRowWarps) {
      for (int i = lane; i < ep / prim::kUnit<T>; i += prim::kWarp) {
        uint4 u = make_uint4(0, 0, 0, 0);
        int const column = i * prim::kUnit<T>;
        if (ci < d) {
          float4 const a = column < e ? prim::load_quad(from + int64_t(ci) * e, column, channels) : float4{};
          if constexpr (kSwaps) {
            u = make_uint4(__float_as_uint(a.x * by), __float_as_uint(a.y * by), __float_as_uint(a.z * by),
                           __float_as_uint(a.w * by));
          } else {
            int const next = column + prim::kQuad;
            float4 const b = next < e ? prim::load_quad(from + int64_t(ci) * e, next, channels) : float4{};
            u = make_uint4(prim::Pair<T>::pack(a.x * by, a.y * by), prim::Pair<T>::pack(a.z * by, a.w * by),
                           prim::Pair<T>::pack(b.x * by, b.y * by), prim::Pair<T>::pack(b.z * by, b.w * by));
          }
        }
        prim::store_shared_unit(unit(ci, i), u);
      }
    }
  }
};

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

// The numbers of a unit.
template <class T>
__device__ __forceinline__ void unpack_unit(float (&x)[prim::kUnit<T>], uint4 u) {
  uint32_t const word[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == sizeof(float)) {
      x[i] = __uint_as_float(word[i]);
    } else {
      float2 const pair = prim::Pair<T>::unpack(word[i]);
      x[2 * i] = pair.x;
      x[2 * i + 1] = pair.y;
    }
  }
}
template <class T>
__device__ __forceinline__ uint4 pack_unit(float const (&x)[prim::kUnit<T>]) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == sizeof(float)) {
      word[i] = __float_as_uint(x[i]);
    } else {
      word[i] = prim::Pair<T>::pack(x[2 * i], x[2 * i + 1]);
    }
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// Lanes l, l + 8, l + 16 and l + 24 have row l.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(prim::kAllLanes, x, 8);
  return x + __shfl_xor_sync(prim::kAllLanes, x, 16);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(prim::kAllLanes, x, 8));
  return fmaxf(x, __shfl_xor_sync(prim::kAllLanes, x, 16));
}

// What a row's queries need to become weights.
struct QueryScale {
  float top;       // softmax: their maximum
  float inverse;   // softmax: 1 / Σ exp(q − top); linear: 1 / normaliser
};

// Of this lane's row, at `s_row`; `s_sums`: the sums of the keys' weights, zeros up to whole blocks. `epsilon` as the sums.
template <class T>
__device__ __forceinline__ QueryScale query_scale(uint32_t s_row, int d, int form, float const* s_sums, float epsilon) {
  constexpr int kPart = prim::kWarp / 8;   // lanes of a row
  int const first = threadIdx.x % prim::kWarp / 8;
  int const units = prim::ceil_div(d, prim::kUnit<T>);
  float x[prim::kUnit<T>];
  QueryScale scale{0.f, 1.f};
  if (form == kSoftmaxBoth) {
    scale.top = kLowest;
    for (int unit = first; unit < units; unit += kPart) {
      unpack_unit<T>(x, prim::load_shared_unit(s_row + unit * prim::kUnitBytes));
#pragma unroll
      for (int i = 0; i < prim::kUnit<T>; ++i) {
        scale.top = fmaxf(scale.top, unit * prim::kUnit<T> + i < d ? x[i] : kLowest);
      }
    }
    scale.top = row_max(scale.top);
  }
  float sum = 0.f;
  for (int unit = first; unit < units; unit += kPart) {
    unpack_unit<T>(x, prim::load_shared_unit(s_row + unit * prim::kUnitBytes));
#pragma unroll
    for (int i = 0; i < prim::kUnit<T>; ++i) {
      int const ci = unit * prim::kUnit<T> + i;
      if (form == kSoftmaxBoth) {
        sum += ci < d ? exp_approx(x[i] - scale.top) : 0.f;
      } else {
        sum = fmaf(feature(form, x[i]), s_sums[ci], sum);
      }
    }
  }
  sum = row_sum(sum);
  scale.inverse = 1.f / (form == kSoftmaxBoth ? sum : sum + epsilon);
  return scale;
}

__device__ __forceinline__ float query_weight(int form, float q, QueryScale scale) {
  return form == kSoftmaxBoth ? exp_approx(q - scale.top) * scale.inverse : feature(form, q);
}

// Makes weights of this lane's row of queries, in place.
template <class T>
__device__ __forceinline__ void weigh_queries(uint32_t s_row, int d, int form, QueryScale scale) {
  constexpr int kPart = prim::kWarp / 8;
  for (int unit = threadIdx.x % prim::kWarp / 8; unit < prim::ceil_div(d, prim::kUnit<T>); unit += kPart) {
    float x[prim::kUnit<T>];
    uint32_t const at = s_row + unit * prim::kUnitBytes;
    unpack_unit<T>(x, prim::load_shared_unit(at));
#pragma unroll
    for (int i = 0; i < prim::kUnit<T>; ++i) {
      x[i] = unit * prim::kUnit<T> + i < d ? query_weight(form, x[i], scale) : 0.f;
    }
    prim::store_shared_unit(at, pack_unit<T>(x));
  }
}

// ---- 16-bit elements: tensor cores --------------------------------------------------------------------------------
// Lane 4·g + t has rows g and g + 8; of each block of 8 columns 2t and 2t + 1.

template <class T>
struct Rows {
  static constexpr int kCount = 16;
  static constexpr int kHalves = 2;              // rows of this lane when lanes l, l + 8, … have rows l and l + 8
  static constexpr int kOutPitch = kSlice * int(sizeof(T)) + prim::kUnitBytes;
  static constexpr int kOutBytes = kCount * kOutPitch;   // of a warp's own, for results on their way out

  float c[kSlice / prim::kMmaN][4];

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
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
#pragma unroll 2
    for (int i = 0; i < depth / kBlock; ++i) {
      uint32_t a[4];
      prim::load_matrices(a, s_a + i * kBlock * int(sizeof(T)));
#pragma unroll
      for (int j = 0; j < kSlice / kBlock; ++j) {
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

  // Multiplies every row by its own number: of_row[half] is that of row l + 8·half in lanes l, l + 8, …
  __device__ __forceinline__ void scale(float const (&of_row)[kHalves]) {
    int const g = threadIdx.x % prim::kWarp / 4;
    float const low = __shfl_sync(prim::kAllLanes, of_row[0], g);
    float const high = __shfl_sync(prim::kAllLanes, of_row[1], g);
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
      c[j][0] *= low;
      c[j][1] *= low;
      c[j][2] *= high;
      c[j][3] *= high;
    }
  }

  // Writes columns `column` … of positions first … end of a tensor; through shared memory, for whole units.
  __device__ __forceinline__ void store(uint32_t s_out, Plane<T> const& plane, prim::Channels channels, int column, int columns,
                                        int first, int end) const {
    int const lane = prim::fresh_lane();
    __syncwarp();   // sync: results of the slice before read by all lanes before they are overwritten
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t const at = s_out + (lane / 4 + 8 * half) * kOutPitch + (j * prim::kMmaN + lane % 4 * 2) * int(sizeof(T));
        uint32_t const pair = prim::Pair<T>::pack(c[j][2 * half], c[j][2 * half + 1]);
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(pair) : "memory");
      }
    }
    __syncwarp();   // sync: results written before other lanes read them
    constexpr int kUnits = kSlice / prim::kUnit<T>;
#pragma unroll
    for (int i = 0; i < kCount * kUnits / prim::kWarp; ++i) {
      int const row = lane / kUnits + i * (prim::kWarp / kUnits);
      int const channel = column + lane % kUnits * prim::kUnit<T>;
      if (first + row < end && channel < channels.count) {
        uint4 const u = prim::load_shared_unit(s_out + row * kOutPitch + lane % kUnits * prim::kUnitBytes);
        prim::store_unit(plane.pixel(first + row), channel, channels, u);
      }
    }
  }
};

// ---- f32: FMA units -----------------------------------------------------------------------------------------------
// Lane 8·r + l has rows 2r and 2r + 1; of each 32 columns 4l … 4l + 3.

template <>
struct Rows<float> {
  static constexpr int kCount = 8;
  static constexpr int kHalves = 1;
  static constexpr int kOutBytes = 0;
  static constexpr int kHalf = kSlice / 2;

  float4 c[2][2];   // [row][half of the slice]

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      c[i][0] = c[i][1] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
  }

  template <bool kTransposed>
  __device__ __forceinline__ void multiply(uint32_t s_rows, int pitch, int depth, Matrix<float> const& matrix, int column,
                                           int columns) {
    int const lane = prim::fresh_lane();
    int const l = lane % 8;
    uint32_t const s_a = s_rows + lane / 8 * 2 * pitch;
#pragma unroll 1
    for (int k = 0; k < depth; k += prim::kQuad) {
      float4 const a0 = quad_at(s_a + k * int(sizeof(float)));
      float4 const a1 = quad_at(s_a + pitch + k * int(sizeof(float)));
      float const w[2][prim::kQuad] = {{a0.x, a0.y, a0.z, a0.w}, {a1.x, a1.y, a1.z, a1.w}};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half * kHalf < columns) {
          int const first = column + half * kHalf + l * prim::kQuad;
#pragma unroll
          for (int i = 0; i < prim::kQuad; ++i) {
            if constexpr (kTransposed) {
              float4 const b = quad_at(matrix.unit(first + i, k / prim::kQuad));
#pragma unroll
              for (int row = 0; row < 2; ++row) {
                float& x = i == 0 ? c[row][half].x : i == 1 ? c[row][half].y : i == 2 ? c[row][half].z : c[row][half].w;
                x = fmaf(w[row][0], b.x, fmaf(w[row][1], b.y, fmaf(w[row][2], b.z, fmaf(w[row][3], b.w, x))));
              }
            } else {
              float4 const b = quad_at(matrix.unit(k + i, first / prim::kQuad));
              multiply_add(c[0][half], w[0][i], b);
              multiply_add(c[1][half], w[1][i], b);
            }
          }
        }
      }
    }
  }

  __device__ __forceinline__ void scale(float const (&of_row)[kHalves]) {
    int const r = threadIdx.x % prim::kWarp / 8;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float const by = __shfl_sync(prim::kAllLanes, of_row[0], 2 * r + row);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float4& x = c[row][half];
        x = make_float4(x.x * by, x.y * by, x.z * by, x.w * by);
      }
    }
  }

  __device__ __forceinline__ void store(uint32_t, Plane<float> const& plane, prim::Channels channels, int column, int columns,
                                        int first, int end) const {
    int const lane = prim::fresh_lane();
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      int const ni = first + lane / 8 * 2 + row;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const channel = column + half * kHalf + lane % 8 * prim::kQuad;
        if (ni < end && half * kHalf < columns && channel < channels.count) {
          prim::store_quad(plane.pixel(ni), channel, channels, c[row][half]);
        }
      }
    }
  }
};

}  // namespace content
