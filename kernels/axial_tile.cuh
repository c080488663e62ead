// axial — tiles in shared memory, and their products on tensor cores (16-bit elements) or in f32, with the same fragments:
//
//   rows_by_rows      c[j][0], [1]: row g of a with rows 8j + 2t, + 1 of b;  c[j][2], [3]: row g + 8 of a
//   weights_by_rows   acc[2m], acc[2m + 1]: rows g (and g + 8) of the weights with channels `channel_of(m, ..)` of b
//   rows_by_matrix    the same of rows of a tile, with those of a matrix
#pragma once
#include "axial.cuh"
#include "prim/summary.cuh"

namespace axial {

// ---- Where things lie -----------------------------------------------------------------------------------------------

// Units of 16 bytes of a row are permuted, so that 8 consecutive rows put one unit, and two rows put units 0–3, into 8
// different bank groups.
__device__ __forceinline__ int swizzle(int row) { return (row & 1) << 2 | (row >> 1 & 3); }

// Sizes that follow from the element type and the channels D that a row has room for.
template <class T, int D>
struct Shape {
  static constexpr bool is_16 = sizeof(T) == 2;
  static constexpr int kRows = is_16 ? 64 : 32;                  // of a tile
  static constexpr int kGrains = kRows / kGrain;
  static constexpr int kRowBytes = D * int(sizeof(T));
  static constexpr int kUnits = kRowBytes / prim::kUnitBytes;    // of a row
  static constexpr int kTileBytes = kRows * kRowBytes;
};

constexpr int kLineUnits = 8;                        // units are permuted within a line of all banks
constexpr int kLineBytes = kLineUnits * prim::kUnitBytes;

// Byte address of unit `first` of `row`; tiles begin at whole lines.
template <class T, int D>
__device__ __forceinline__ uint32_t unit_at(uint32_t s_tile, int row, int first) {
  uint32_t const line = s_tile + row * Shape<T, D>::kRowBytes + first / kLineUnits * kLineBytes;
  return line ^ ((first % kLineUnits ^ swizzle(row)) * prim::kUnitBytes);
}

// The address of a unit from that of another one of its row: `units` further, without a carry in any bit.
__device__ __forceinline__ uint32_t further(uint32_t unit, int units) {
  return (unit ^ units % kLineUnits * prim::kUnitBytes) + units / kLineUnits * kLineBytes;
}

// One unit: asynchronously if it may be read whole.
template <class T>
__device__ __forceinline__ void copy_unit(uint32_t s_unit, T const* pixel, int channel, prim::Channels channels, bool lives) {
  if (channels.wide) {
    lives = lives && channel < channels.count;
    prim::copy_unit_async(s_unit, pixel + (lives ? channel : 0), lives);
  } else {
    prim::store_shared_unit(s_unit, lives ? prim::load_unit(pixel, channel, channels) : make_uint4(0, 0, 0, 0));
  }
}

// ---- Loads and stores -----------------------------------------------------------------------------------------------

// Calls `unit(row, channel)` for the units of `rows` rows that products read; a thread stays in one column of units.
template <class T, int D, int kThreads, class Unit>
__device__ __forceinline__ void for_units(int rows, int channels, Unit unit) {
  constexpr int kUnits = Shape<T, D>::kUnits;
  static_assert(kThreads % kUnits == 0, "a thread stays in its column");
  int const channel = int(threadIdx.x) % kUnits * prim::kUnit<T>;
  if (channel < prim::round_up(channels, kGrain)) {
#pragma unroll 1
    for (int row = int(threadIdx.x) / kUnits; row < rows; row += kThreads / kUnits) {
      unit(row, channel);
    }
  }
}

// A tile of lines, zeros where there is no pixel. In flight until waited for.
template <class T, int D, int kThreads>
__device__ __forceinline__ void load_tile(uint32_t s_tile, Map const& map, int count, Lines const& l, int hi, int group,
                                          int first) {
  prim::Channels const channels = channels_of<T>(map, count);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, count, [&](int row, int channel) {
    Row const r = row_of<Shape<T, D>::kRows>(l, group, first, row);
    copy_unit(unit_at<T, D>(s_tile, row, channel / prim::kUnit<T>), pixel_of<T const>(map, hi, r), channel, channels,
              r.lives);
  });
}

// The offsets [tile · size, (tile + 1) · size) of a table, zeros beyond its reach, into half `tile % 2` of s_table.
template <class T, int D, int kThreads>
__device__ __forceinline__ void load_offsets(uint32_t s_table, Table const& table, int d, int hi, int tile, int log2_grains) {
  int const size = kGrain << log2_grains;
  auto const* data = static_cast<T const*>(table.data) + hi * table.stride_h;
  prim::Channels const channels = prim::channels_of<T>(table.data, table.stride_h | table.stride_row, d);
  int const first_row = (tile & 1) * size;
  int64_t const first = int64_t(tile) * size + table.reach - 1;
  for_units<T, D, kThreads>(size, d, [&](int row, int channel) {
    int64_t const of_table = first + row;
    bool const lives = of_table >= 0 && of_table < 2 * table.reach - 1;
    copy_unit(unit_at<T, D>(s_table, first_row + row, channel / prim::kUnit<T>),
              data + (lives ? of_table : 0) * table.stride_row, channel, channels, lives);
  });
}

// Row of s_table where the band lies that begins `offset` (a multiple of a grain) after the first offset of half `tile` − 1.
__device__ __forceinline__ int band_row(int offset, int tile, int log2_grains) {
  int const size = kGrain << log2_grains;
  return (offset + ((tile - 1) & 1) * size) & (2 * size - 1);
}

// ---- Products -------------------------------------------------------------------------------------------------------

// Four consecutive f32 of shared memory.
__device__ __forceinline__ float4 load_shared_quad(uint32_t address) {
  uint4 const u = prim::load_shared_unit(address);
  return make_float4(__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z), __uint_as_float(u.w));
}

__device__ __forceinline__ float dot(float4 a, float4 b, float c) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, c))));
}

// c += rows a_row .. + 16 of one tile · rows b_row .. + 16 of another, over their channels.
template <class T, int D>
__device__ __forceinline__ void rows_by_rows(float (&c)[2][4], uint32_t s_a, int a_row, uint32_t s_b, int b_row, int channels) {
  int const lane = threadIdx.x % prim::kWarp;
  if constexpr (sizeof(T) == 2) {
    uint32_t const a_at = unit_at<T, D>(s_a, a_row + lane % 16, lane / 16);
    uint32_t const b_at = unit_at<T, D>(s_b, b_row + lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < D / prim::kMmaK; ++k) {
      if (k * prim::kMmaK < channels) {
        uint32_t a[4];
        uint32_t b[4];
        prim::load_matrices(a, further(a_at, 2 * k));
        prim::load_matrices(b, further(b_at, 2 * k));
        prim::mma<T>(c[0], a, b[0], b[1]);
        prim::mma<T>(c[1], a, b[2], b[3]);
      }
    }
  } else {
    prim::Lane const at = prim::lane_of_warp();
    uint32_t const a_at = unit_at<T, D>(s_a, a_row + at.g, 0);
    uint32_t const b_at[2] = {unit_at<T, D>(s_b, b_row + 2 * at.t, 0), unit_at<T, D>(s_b, b_row + 2 * at.t + 1, 0)};
#pragma unroll 2
    for (int unit = 0; unit * prim::kQuad < channels; ++unit) {
      float4 const low = load_shared_quad(further(a_at, unit));
      float4 const high = load_shared_quad(further(a_at, unit) + 8 * Shape<T, D>::kRowBytes);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float4 const b = load_shared_quad(further(b_at[i], unit) + 8 * j * Shape<T, D>::kRowBytes);
          c[j][i] = dot(low, b, c[j][i]);
          c[j][2 + i] = dot(high, b, c[j][2 + i]);
        }
      }
    }
  }
}

// Channels of a pair (acc[2m + j][0] and [1]), from channel 16·m on.
template <class T>
__device__ __forceinline__ int channel_of(int j, int t) {
  return sizeof(T) == 2 ? 8 * j + 2 * t : 4 * t + 2 * j;
}

// acc += 16×16 weights `a` · 16 rows of b, in kGroups groups of 16 channels from `first_channel` on, those below `channels`.
// `b_at(m)`: where this lane's row of the m-th group lies.
template <class T, int kGroups, class At>
__device__ __forceinline__ void add_products(float (&acc)[2 * kGroups][4], uint32_t const (&a)[4], int first_channel, int channels,
                                             At b_at) {
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
    if (first_channel + 16 * m < channels) {
      uint32_t b[4];
      prim::load_matrices_transposed(b, b_at(m));
      prim::mma<T>(acc[2 * m], a, b[0], b[1]);
      prim::mma<T>(acc[2 * m + 1], a, b[2], b[3]);
    }
  }
}

// The same of 16×4 weights in f32, of which `low` and `high` are this lane's rows; `b_at(m, i)`: where its quad of row i lies.
template <int kGroups, class At>
__device__ __forceinline__ void add_products(float (&acc)[2 * kGroups][4], float const (&low)[4], float const (&high)[4],
                                             int first_channel, int channels, At b_at) {
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
    if (first_channel + 16 * m < channels) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float4 const b = load_shared_quad(b_at(m, i));
        acc[2 * m][0] = fmaf(low[i], b.x, acc[2 * m][0]);
        acc[2 * m][1] = fmaf(low[i], b.y, acc[2 * m][1]);
        acc[2 * m + 1][0] = fmaf(low[i], b.z, acc[2 * m + 1][0]);
        acc[2 * m + 1][1] = fmaf(low[i], b.w, acc[2 * m + 1][1]);
        acc[2 * m][2] = fmaf(high[i], b.x, acc[2 * m][2]);
        acc[2 * m][3] = fmaf(high[i], b.y, acc[2 * m][3]);
        acc[2 * m + 1][2] = fmaf(high[i], b.z, acc[2 * m + 1][2]);
        acc[2 * m + 1][3] = fmaf(high[i], b.w, acc[2 * m + 1][3]);
      }
    }
  }
}

__device__ __forceinline__ void quad_of(float (&x)[4], uint32_t shared) {
  float4 const quad = load_shared_quad(shared);
  x[0] = quad.x, x[1] = quad.y, x[2] = quad.z, x[3] = quad.w;
}

// acc += 16×16 weights · 16 rows of a tile. `s_weights`: the weights' first; kTransposed: they lie the other way round (the sum
// runs over their rows).
template <class T, int D, int kPitch, bool kTransposed, int kGroups>
__device__ __forceinline__ void weights_by_rows(float (&acc)[2 * kGroups][4], uint32_t s_weights, uint32_t s_b, int b_row,
                                                int first_channel, int channels) {
  int const lane = threadIdx.x % prim::kWarp;
  if constexpr (sizeof(T) == 2) {
    uint32_t a[4];
    if constexpr (kTransposed) {
      prim::load_matrices_transposed(a, s_weights + ((lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8) * 2);
    } else {
      prim::load_matrices(a, s_weights + (lane % 16 * kPitch + lane / 16 * 8) * 2);
    }
    uint32_t const b_at = unit_at<T, D>(s_b, b_row + lane % 16, first_channel / 8 + lane / 16);
    add_products<T, kGroups>(acc, a, first_channel, channels, [&](int m) { return further(b_at, 2 * m); });
  } else {
    prim::Lane const at = prim::lane_of_warp();
#pragma unroll 1
    for (int k = 0; k < kGrain; k += prim::kQuad) {
      float low[4];
      float high[4];
      uint32_t b_at[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        b_at[i] = unit_at<T, D>(s_b, b_row + k + i, first_channel / 4 + at.t);
      }
      if constexpr (kTransposed) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          uint32_t const word = s_weights + ((k + i) * kPitch + at.g) * 4;
          asm volatile("ld.shared.f32 %0, [%1];" : "=f"(low[i]) : "r"(word) : "memory");
          asm volatile("ld.shared.f32 %0, [%1];" : "=f"(high[i]) : "r"(word + 8 * 4) : "memory");
        }
      } else {
        quad_of(low, s_weights + (at.g * kPitch + k) * 4);
        quad_of(high, s_weights + ((at.g + 8) * kPitch + k) * 4);
      }
      add_products<kGroups>(acc, low, high, first_channel, channels, [&](int m, int i) { return further(b_at[i], 4 * m); });
    }
  }
}

// acc += `depth` channels of rows `row` .. + 16 of a tile, from `first_of_depth` on, · a matrix of as many rows.
template <class T, int D, int kGroups>
__device__ __forceinline__ void rows_by_matrix(float (&acc)[2 * kGroups][4], uint32_t s_a, int row, int first_of_depth, int depth,
                                               prim::Matrix<T> const& matrix, int first_channel, int channels) {
  constexpr int kUnit = prim::kUnit<T>;
  if constexpr (sizeof(T) == 2) {
    int const lane = threadIdx.x % prim::kWarp;
    uint32_t b_at = matrix.unit(lane % 16, first_channel / kUnit + lane / 16);
#pragma unroll 1
    for (int k = 0; k < depth; k += kGrain) {
      uint32_t a[4];
      prim::load_matrices(a, unit_at<T, D>(s_a, row + lane % 16, (first_of_depth + k) / kUnit + lane / 16));
      add_products<T, kGroups>(acc, a, first_channel, channels, [&](int m) { return b_at + 2 * m * prim::kUnitBytes; });
      b_at += kGrain * matrix.pitch;
    }
  } else {
    prim::Lane const at = prim::lane_of_warp();
#pragma unroll 1
    for (int k = 0; k < depth; k += prim::kQuad) {
      float low[4];
      float high[4];
      uint32_t const a_at = unit_at<T, D>(s_a, row + at.g, (first_of_depth + k) / kUnit);
      quad_of(low, a_at);
      quad_of(high, a_at + 8 * Shape<T, D>::kRowBytes);
      add_products<kGroups>(acc, low, high, first_channel, channels,
                            [&](int m, int i) { return matrix.unit(k + i, first_channel / kUnit + at.t + 4 * m); });
    }
  }
}

// Softmax over the channels of rows `row` .. + 8 of a tile, in place, rounded to T.
template <class T, int D>
__device__ __forceinline__ void normalise_rows(uint32_t s_tile, int row, int count) {
  auto const unit_of = [&](int unit) { return unit_at<T, D>(s_tile, row + int(threadIdx.x) % 8, unit); };
  auto const softmax = prim::RowSoftmax::of<T>(count, unit_of);
  prim::replace_row<T>(count, unit_of, [&](float x) { return softmax.weight(x); });
}

template <int kSize>
__device__ __forceinline__ void clear(float (&acc)[kSize][4]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.f;
  }
}

// The 16 rows of an accumulator into rows `row` .. of a tile, rounded to T.
template <class T, int D, int kGroups>
__device__ __forceinline__ void stage(float const (&acc)[2 * kGroups][4], uint32_t s_tile, int row, int first_channel,
                                      int channels) {
  prim::Lane const at = prim::lane_of_warp();
  constexpr int kUnit = prim::kUnit<T>;
  int const own = channel_of<T>(0, at.t);
  uint32_t const first = unit_at<T, D>(s_tile, row + at.g, (first_channel + own) / kUnit) + own % kUnit * int(sizeof(T));
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
    if (first_channel + 16 * m < channels) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          // The second pair lies a unit further, with 16 bits, or in the same one.
          constexpr int kUnits = sizeof(T) == 2 ? 1 : 0;
          constexpr int kBytes = sizeof(T) == 2 ? 0 : 2 * int(sizeof(T));
          uint32_t const to = further(first, 16 / kUnit * m + kUnits * j) + kBytes * j + 8 * half * Shape<T, D>::kRowBytes;
          float const x = acc[2 * m + j][2 * half];
          float const y = acc[2 * m + j][2 * half + 1];
          if constexpr (sizeof(T) == 2) {
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(prim::Pair<T>::pack(x, y)) : "memory");
          } else {
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
          }
        }
      }
    }
  }
}

// A weight into shared memory, rounded to T.
template <class T>
__device__ __forceinline__ void store_weight(uint32_t s_weights, int index, float weight) {
  uint32_t const to = s_weights + index * int(sizeof(T));
  if constexpr (sizeof(T) == 2) {
    T const rounded = prim::from_float<T>(weight);
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(*reinterpret_cast<unsigned short const*>(&rounded)) : "memory");
  } else {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(weight) : "memory");
  }
}

// ---- Batch norm -----------------------------------------------------------------------------------------------------

// What a block's head multiplies and adds; 0 for channels that do not exist.
template <int D>
struct Affine {
  float mean[D], scale[D], bias[D];

  // Of `count` channels from `first` on.
  __device__ __forceinline__ void fill(Norm const& norm, int hi, int first, int count) {
    for (int i = threadIdx.x; i < D; i += blockDim.x) {
      bool const lives = i < count;
      int const channel = first + i;
      mean[i] = lives ? __ldg(norm.mean.at(hi, channel)) : 0.f;
      scale[i] = lives ? __ldg(norm.weight.at(hi, channel)) * norm.inverse_deviation(hi, channel) : 0.f;
      bias[i] = lives ? __ldg(norm.bias.at(hi, channel)) : 0.f;
    }
  }
};

// load_tile of (x − mean) · scale + bias, rounded to T.
template <class T, int D, int kThreads>
__device__ __forceinline__ void load_normalised(uint32_t s_tile, Map const& map, int count, Lines const& l, int hi, int group,
                                                int first, Affine<D> const& affine) {
  prim::Channels const channels = channels_of<T>(map, count);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, count, [&](int row, int channel) {
    Row const r = row_of<Shape<T, D>::kRows>(l, group, first, row);
    uint4 unit = make_uint4(0, 0, 0, 0);
    if (r.lives && channel < count) {
      float x[prim::kUnit<T>];
      prim::unpack_unit<T>(x, prim::load_unit(pixel_of<T const>(map, hi, r), channel, channels));
#pragma unroll
      for (int i = 0; i < prim::kUnit<T>; ++i) {
        x[i] = fmaf(x[i] - affine.mean[channel + i], affine.scale[channel + i], affine.bias[channel + i]);
      }
      unit = prim::pack_unit<T>(x);
    }
    prim::store_shared_unit(unit_at<T, D>(s_tile, row, channel / prim::kUnit<T>), unit);
  });
}

}  // namespace axial
