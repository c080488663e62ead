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
  int const thread = prim::fresh_thread();
  int const channel = thread % kUnits * prim::kUnit<T>;
  if (channel < prim::round_up(channels, kGrain)) {
#pragma unroll 1
    for (int row = thread / kUnits; row < rows; row += kThreads / kUnits) {
      unit(row, channel);
    }
  }
}

// The pixel of a tile's row, in one tensor.
template <class T>
struct Pixel {
  T* data;       // of another pixel, where there is none
  bool lives;
};

// Where lines begin in each of some tensors, in shared memory: found once per group of lines, for which image a line is of takes
// a division. Two groups at a time, so that those of the next one are there when it begins. An entry is a pair of pointers, and
// entries are kPitch bytes apart.
template <class T, int kLines, int kPitch>
struct Starts {
  unsigned char* first;

  __device__ __forceinline__ T*& at(int parity, int map, int line) const {
    return reinterpret_cast<T**>(first + (map * kLines + line) * kPitch)[parity];
  }

  // Those of the lines of a group, each by one of the first threads of the block.
  template <int kMaps>
  __device__ __forceinline__ void fill(int parity, Lines const& l, int hi, int group, Map const (&maps)[kMaps]) const {
    int const own = threadIdx.x;
    if (own < kMaps * kLines) {
      int const map = own / kLines;
      int const line = own % kLines;
      int const of_head = group * (kLines >> l.log2_grains) + line;
      bool const lives = line < kLines >> l.log2_grains && of_head < l.lines;
      int const image = l.per_image.quotient(lives ? of_head : 0);
      int const of_image = l.per_image.remainder(lives ? of_head : 0, image);
      at(parity, map, line) = start_of_line<T>(maps[map], l.first_image + image, hi, of_image);
    }
  }
};

// The rows of a tile of a group's lines that begins at pixel `first` (which may be negative), in one tensor.
template <class T, int kLines, int kPitch>
struct Rows {
  Starts<T, kLines, kPitch> starts;
  int parity, map;
  int64_t stride_axis;
  int first, lines, axis, shift;   // the tile has 1 << shift pixels

  __device__ __forceinline__ Rows(Starts<T, kLines, kPitch> const& starts, int parity, int map, Map const& tensor, Lines const& l,
                                  int group, int first)
      : starts(starts),
        parity(parity),
        map(map),
        stride_axis(tensor.stride_axis),
        first(first),
        lines(l.lines - group * (kLines >> l.log2_grains)),
        axis(l.axis),
        shift(l.log2_grains + 4) {}

  __device__ __forceinline__ Pixel<T> operator()(int row) const {
    int const line = row >> shift;
    int const pixel = first + row - (line << shift);
    bool const lives = line < lines && unsigned(pixel) < unsigned(axis);
    T* const start = prim::as_base(starts.at(parity, map, line));
    return {start + (lives ? pixel : 0) * stride_axis, lives};
  }
};

// A tile of lines, zeros where there is no pixel: `at(row)` says which. In flight until waited for.
template <class T, int D, int kThreads, class At>
__device__ __forceinline__ void load_tile(uint32_t s_tile, Map const& map, int count, At at) {
  prim::Channels const channels = channels_of<T>(map, count);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, count, [&](int row, int channel) {
    auto const pixel = at(row);
    copy_unit<T>(unit_at<T, D>(s_tile, row, channel / prim::kUnit<T>), pixel.data, channel, channels, pixel.lives);
  });
}

// The rows of a tile in shared memory to `map`.
template <class T, int D, int kThreads, class At>
__device__ __forceinline__ void store_tile(uint32_t s_tile, Map const& map, int count, bool adds, At at) {
  prim::Channels const channels = channels_of<T>(map, count);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, count, [&](int row, int channel) {
    Pixel<T> const pixel = at(row);
    if (pixel.lives && channel < count) {
      uint4 unit = prim::load_shared_unit(unit_at<T, D>(s_tile, row, channel / prim::kUnit<T>));
      if (adds) {
        unit = prim::sum_of_units<T>(unit, prim::load_written(pixel.data, channel, channels));
      }
      prim::store_unit(pixel.data, channel, channels, unit);
    }
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

// What a lane adds to where 16 rows begin, to load their 16-bit elements: worked out once, for how units are permuted is the same
// in all grains. Weights have rows of kPitch elements.
template <class T, int D, int kPitch>
struct LaneOffsets {
  uint32_t rows = 0;           // of a tile, as rows of a, or turned into columns of b
  uint32_t columns = 0;        // of a tile, as columns of b
  uint32_t weights = 0;        // as rows of a
  uint32_t turned = 0;         // weights as columns of a

  __device__ __forceinline__ LaneOffsets() {
    if constexpr (sizeof(T) == 2) {
      int const lane = threadIdx.x % prim::kWarp;
      rows = unit_at<T, D>(0, lane % 16, lane / 16);
      columns = unit_at<T, D>(0, lane % 8 + lane / 16 * 8, lane / 8 % 2);
      weights = (lane % 16 * kPitch + lane / 16 * 8) * int(sizeof(T));
      turned = ((lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8) * int(sizeof(T));
    }
  }
};

// c += rows a_row .. + 16 of one tile · rows b_row .. + 16 of another, over their channels. Rows begin at whole grains.
template <class T, int D, int kPitch>
__device__ __forceinline__ void rows_by_rows(float (&c)[2][4], uint32_t s_a, int a_row, uint32_t s_b, int b_row, int channels,
                                             LaneOffsets<T, D, kPitch> const& of_lane) {
  if constexpr (sizeof(T) == 2) {
    uint32_t const a_at = s_a + a_row * Shape<T, D>::kRowBytes + of_lane.rows;
    uint32_t const b_at = s_b + b_row * Shape<T, D>::kRowBytes + of_lane.columns;
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
template <bool kTransposed, int kGroups, class T, int D, int kPitch>
__device__ __forceinline__ void weights_by_rows(float (&acc)[2 * kGroups][4], uint32_t s_weights, uint32_t s_b, int b_row,
                                                int first_channel, int channels, LaneOffsets<T, D, kPitch> const& of_lane) {
  if constexpr (sizeof(T) == 2) {
    uint32_t a[4];
    if constexpr (kTransposed) {
      prim::load_matrices_transposed(a, s_weights + of_lane.turned);
    } else {
      prim::load_matrices(a, s_weights + of_lane.weights);
    }
    uint32_t const b_at = further(s_b + b_row * Shape<T, D>::kRowBytes + of_lane.rows, first_channel / prim::kUnit<T>);
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
template <int kGroups, class T, int D, int kPitch>
__device__ __forceinline__ void rows_by_matrix(float (&acc)[2 * kGroups][4], uint32_t s_a, int row, int first_of_depth, int depth,
                                               prim::Matrix<T> const& matrix, int first_channel, int channels,
                                               LaneOffsets<T, D, kPitch> const& of_lane) {
  constexpr int kUnit = prim::kUnit<T>;
  if constexpr (sizeof(T) == 2) {
    int const lane = threadIdx.x % prim::kWarp;
    uint32_t b_at = matrix.unit(lane % 16, first_channel / kUnit + lane / 16);
#pragma unroll 1
    for (int k = 0; k < depth; k += kGrain) {
      uint32_t a[4];
      prim::load_matrices(a, further(s_a + row * Shape<T, D>::kRowBytes + of_lane.rows, (first_of_depth + k) / kUnit));
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
  prim::Lane const at = prim::lane_of(prim::fresh_thread());
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
template <class T, int D, int kThreads, class At>
__device__ __forceinline__ void load_normalised(uint32_t s_tile, Map const& map, int count, Affine<D> const& affine, At at) {
  prim::Channels const channels = channels_of<T>(map, count);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, count, [&](int row, int channel) {
    auto const pixel = at(row);
    uint4 unit = make_uint4(0, 0, 0, 0);
    if (pixel.lives && channel < count) {
      float x[prim::kUnit<T>];
      prim::unpack_unit<T>(x, prim::load_unit<T>(pixel.data, channel, channels));
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
