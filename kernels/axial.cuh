// axial — parameters and geometry of one layer of axial attention, the same for forward and backward, columns and rows.
//
//   S_ij = q_i · r[j − i + L − 1]        o_i = Σ_j S_ij v_j        |j − i| < L, i and j on one line
//
//   line      the pixels of a column (or a row) of one image and head; lines of a head are numbered over all images
//   grain     16 pixels of a line: the rows of one product
//   tile      1, 2 or 4 grains of one line; a block holds the same tile of as many lines as fill its rows
//   band      16 neighbouring offsets j − i; a tile of queries meets a tile of keys in twice as many bands as grains
#pragma once
#include "prim/divide.cuh"
#include "prim/mma.cuh"
#include "prim/warp.cuh"

// ---- Parameters: change src/ops/axial/params.rs together with these -------------------------------------------------

namespace axial {

// A tensor [b, h, line, axis, channels], channels contiguous; offset and strides in elements.
struct Map {
  void* data;
  int64_t offset, stride_b, stride_h, stride_line, stride_axis;
};
static_assert(sizeof(Map) == 48, "change src/ops/axial/params.rs together with this");

// A table [1 or h, 2·reach − 1, d] of offsets, channels contiguous; stride_h is 0 when heads share it.
struct Table {
  void const* data;
  int64_t stride_h, stride_row;
  int64_t reach;
};
static_assert(sizeof(Table) == 32, "change src/ops/axial/params.rs together with this");

// A vector [1 or h, e]; stride_h is 0 when heads share it.
struct Vector {
  float* data;
  int64_t stride_h, stride_channel;

  __device__ __forceinline__ float* at(int hi, int channel) const {
    return data + hi * stride_h + channel * stride_channel;
  }
};
static_assert(sizeof(Vector) == 24, "change src/ops/axial/params.rs together with this");

// Batch norm; weight.data null: none.
struct Norm {
  Vector weight, bias, mean, var;
  float epsilon;
  int32_t _pad;

  // 1 / √(var + ε)
  __device__ __forceinline__ float inverse_deviation(int hi, int channel) const {
    return rsqrtf(__ldg(var.at(hi, channel)) + epsilon);
  }
};
static_assert(sizeof(Norm) == 104, "change src/ops/axial/params.rs together with this");

// What gsa adds: queries · summary, where the summary [b, h, d, e] of keys and values is f32 and contiguous; null: nothing.
struct Summary {
  float const* data;
  int32_t heads;
  int32_t rows;               // in shared memory at a time: d up to a whole grain, or fewer grains
  int32_t norms_queries;      // whether queries are first their softmax over channels
  int32_t _pad;
};
static_assert(sizeof(Summary) == 24, "change src/ops/axial/params.rs together with this");

// The work of a launch: blocks count (head, groups of lines, tiles), tiles fastest.
struct Lines {
  int32_t axis;               // pixels of a line
  int32_t lines;              // of a head
  prim::Divisor per_image;    // lines of one image and head
  int32_t first_image, first_head;
  int32_t tiles;              // of a line
  int32_t log2_grains;        // of a tile
  int32_t groups;             // of lines, of a head: each fills the rows of a block once
  int32_t groups_per_block;
  int32_t blocks;             // of a head and the same tiles
  int32_t d, e;
  int32_t tiles_per_block;
};
static_assert(sizeof(Lines) == 60, "change src/ops/axial/params.rs together with this");

constexpr int kGrain = 16;

// ---- Geometry -------------------------------------------------------------------------------------------------------

// What a block works on.
struct Block {
  int64_t index;              // within the launch
  int hi;
  int first_group, end_group;
  int first_tile, end_tile;
};

__device__ __forceinline__ Block block_of_grid(Lines const& l, int index) {
  int const of_line = prim::ceil_div(l.tiles, l.tiles_per_block);
  int const lines = index / of_line;
  int const head = lines / l.blocks;
  Block b;
  b.index = index;
  b.hi = l.first_head + head;
  b.first_group = (lines - head * l.blocks) * l.groups_per_block;
  b.end_group = min(b.first_group + l.groups_per_block, l.groups);
  b.first_tile = (index - lines * of_line) * l.tiles_per_block;
  b.end_tile = min(b.first_tile + l.tiles_per_block, l.tiles);
  return b;
}

// The first pixel of a line of image `bi`.
template <class T>
__device__ __forceinline__ T* start_of_line(Map const& map, int bi, int hi, int line) {
  return static_cast<T*>(map.data) + map.offset + bi * map.stride_b + hi * map.stride_h + line * map.stride_line;
}

template <class T>
__device__ __forceinline__ prim::Channels channels_of(Map const& map, int32_t count) {
  int64_t const steps = map.offset | map.stride_b | map.stride_h | map.stride_line | map.stride_axis;
  return prim::channels_of<T>(map.data, steps, count);
}

// Tiles of keys that a tile of queries reaches (and the other way round), counted from it.
struct Reached {
  int begin, end;
};

__device__ __forceinline__ Reached reached(Lines const& l, Table const& table, int first) {
  int const size = kGrain << l.log2_grains;
  int const shift = l.log2_grains + 4;
  int const reach = int(min(table.reach, int64_t(l.axis)));
  int const low = max(first - reach + 1, 0);
  int const high = min(first + size + reach - 1, l.axis);
  return Reached{-((first - low + size - 1) >> shift), (high - first + size - 1) >> shift};
}

// ---- Statistics -----------------------------------------------------------------------------------------------------

// Count, mean and squared deviation of a channel, of two parts (Chan).
struct Moments {
  float count, mean, deviation;

  __device__ __forceinline__ void add(float n, float m, float d) {
    float const both = count + n;
    if (n > 0.f) {
      float const apart = m - mean;
      float const part = n / both;
      mean = fmaf(apart, part, mean);
      deviation += fmaf(apart * apart, count * part, d);
      count = both;
    }
  }
};

}  // namespace axial
