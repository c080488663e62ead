// gaussian_plane — whole planes in shared memory, shared by the forward and the backward pass over planes.
//
// An *item* is a slice of the channels of one plane: 2^log2_units units of 16 bytes for each pixel. In shared memory each
// unit has a plane of its own, [y][pitch] with an odd pitch: eight neighbours along either axis lie in different banks.
// Small items share a block. An axis has at most kAxisMax positions.
#pragma once
#include "gaussian.cuh"
#include "prim/mma.cuh"
#include "prim/warp.cuh"

namespace gaussian {

constexpr int kAxisMax = 128;
constexpr int kPlaneThreads = 256;
constexpr int kPlaneWarps = kPlaneThreads / prim::kWarp;
constexpr int kRun = 8;                               // consecutive outputs of a thread (f32)
constexpr int kSteps = kAxisMax / prim::kMmaK;        // k16 steps of the longest axis (16 bits)

__host__ __device__ constexpr int padded(int n) { return prim::round_up(n, prim::kQuad); }

// Words of an axis' Toeplitz table: 16 bits: pairs (w(d), w(d − 1)) for d in −16·m.., f32: w(d) for d in −8·m...
template <class T>
__host__ __device__ constexpr int toeplitz_words(int axis) {
  return 2 * prim::round_up(axis, sizeof(T) == 2 ? prim::kMmaM : kRun);
}

// What both axes of an item have in shared memory.
template <class T>
struct AxisTable {
  uint32_t* toeplitz;    // index d + size / 2
  float* w;              // by distance: w, then (f32) unused
  float* norm;           // by position: the prefix sums of w, then 1 / Z
  int axis;

  // Words of one axis.
  static __host__ __device__ constexpr int words(int axis) { return toeplitz_words<T>(axis) + 2 * padded(axis); }

  __device__ __forceinline__ AxisTable(uint32_t* first, int axis) : toeplitz(first), axis(axis) {
    w = reinterpret_cast<float*>(first + toeplitz_words<T>(axis));
    norm = w + padded(axis);
  }
};

// Shared memory of a block: per item the planes of its units, the tables of y and x, and a quad with the scales c_y, c_x;
// at the end of all one unit of zeros, which stands for what lies beyond an axis.
template <class T>
struct Layout {
  unsigned char* bytes;
  int item_bytes, planes_bytes, y, x;

  __device__ __forceinline__ uint4* planes(int item) const {
    return reinterpret_cast<uint4*>(bytes + item * item_bytes);
  }
  __device__ __forceinline__ AxisTable<T> table(int item, bool is_x) const {
    auto* const words = reinterpret_cast<uint32_t*>(bytes + item * item_bytes + planes_bytes);
    return AxisTable<T>(words + (is_x ? AxisTable<T>::words(y) : 0), is_x ? x : y);
  }
  __device__ __forceinline__ float* scales(int item) const {
    return reinterpret_cast<float*>(bytes + (item + 1) * item_bytes) - prim::kQuad;
  }
  __device__ __forceinline__ uint4* zero(int items) const { return planes(items); }
};

// ---- Tables ---------------------------------------------------------------------------------------------------------

// The table of one axis of one head, by one warp: its weights, 1 / Z_i, and a power of two near Z.
template <class T>
__device__ __forceinline__ void fill_table(Head const& head, AxisTable<T> const& table, bool is_row, float* scale) {
  int const lane = threadIdx.x % prim::kWarp;
  int const last = table.axis - 1;
  float below = 0.f;
  for (int first = 0; first < table.axis; first += prim::kWarp) {
    int const distance = first + lane;
    float const w = prim::rounded<T>(head.weight(distance));
    float const sum = below + prim::warp_prefix(w);
    if (distance < table.axis) {
      table.w[distance] = w;
      table.norm[distance] = sum;
    }
    below = __shfl_sync(prim::kAllLanes, sum, prim::kWarp - 1);
  }
  __syncwarp();   // sync: weights and prefix sums written, other lanes read them
  float const centre = table.w[0];
  float const z_min = table.norm[last];
  float const z_max = table.norm[table.axis / 2] + table.norm[last - table.axis / 2] - centre;
  float z[kAxisMax / prim::kWarp];
#pragma unroll
  for (int i = 0; i < kAxisMax / prim::kWarp; ++i) {
    int const position = min(i * prim::kWarp + lane, last);
    z[i] = table.norm[position] + table.norm[last - position] - centre;
  }
  __syncwarp();   // sync: prefix sums read before 1 / Z overwrites them
#pragma unroll
  for (int i = 0; i < kAxisMax / prim::kWarp; ++i) {
    int const position = i * prim::kWarp + lane;
    if (position < table.axis) {
      table.norm[position] = 1.f / z[i];
    }
  }
  int const words = toeplitz_words<T>(table.axis);
  auto const w_at = [&](int distance) { return distance <= last ? table.w[distance] : 0.f; };
  for (int k = lane; k < words; k += prim::kWarp) {
    int const d = k - words / 2;
    if constexpr (sizeof(T) == 2) {
      table.toeplitz[k] = prim::Pair<T>::pack(w_at(abs(d)), w_at(abs(d - 1)));
    } else {
      table.toeplitz[k] = __float_as_uint(w_at(abs(d)));
    }
  }
  if (lane == 0) {
    *scale = sizeof(T) == 4 ? 1.f : power_of_two(is_row ? z_min : z_max, !is_row);
  }
}

// ---- Planes in and out of shared memory ---------------------------------------------------------------------------

// Where a block's items are.
template <class Params>
struct Place {
  int bi, hi, channel;    // of an item: image, head, first channel
  bool live;

  __device__ __forceinline__ Place(Params const& p, int unit, int item) {
    int const global = blockIdx.x * p.items_per_block + item;
    live = global < p.items;
    int const bh = (live ? global : 0) / p.slices;
    bi = bh / p.heads;
    hi = bh % p.heads;
    channel = ((live ? global : 0) % p.slices << p.log2_units) * unit;
  }
};

// Calls visit(item place, row pointer of the tensor, unit's index in the item, x, channel) for every unit of a block
// that exists: a warp per row, lanes over neighbouring units.
template <class T, class Params, class Visit>
__device__ __forceinline__ void for_each_unit(Params const& p, GaussianStrides const& at, T* tensor, Visit visit) {
  int const lane = threadIdx.x % prim::kWarp;
  int const warp = threadIdx.x / prim::kWarp;
  int const units = 1 << p.log2_units;
  for (int row = warp; row < p.items_per_block * p.y; row += kPlaneWarps) {
    int const item = row / p.y;
    int const yi = row % p.y;
    Place<Params> const place(p, prim::kUnit<T>, item);
    T* const pixels = tensor + plane_of(at, place.bi, place.hi) + int(at.line) * yi;
    for (int i = lane; i < p.x << p.log2_units; i += prim::kWarp) {
      int const unit = i & (units - 1);
      int const xi = i >> p.log2_units;
      int const channel = place.channel + unit * prim::kUnit<T>;
      if (place.live && channel < p.channels) {
        visit(item, unit * p.unit_stride + yi * p.pitch + xi, pixels + int(at.axis) * xi, channel);
      }
    }
  }
}

// ---- Sums along an axis, in place ---------------------------------------------------------------------------------

// How a pass walks the planes of an item: 2^log2_units units of each of num_lines lines, axis positions each.
struct Walk {
  int num_lines, line_step, axis, axis_step;   // steps in units
  int log2_units, unit_stride;
  int live_units;                              // units of the item that hold channels
  uint4 const* zero;

  // A column: one unit of one line.
  __device__ __forceinline__ bool live(int column) const {
    return column < num_lines << log2_units && (column & ((1 << log2_units) - 1)) < live_units;
  }
  __device__ __forceinline__ int first(int column) const {
    return (column & ((1 << log2_units) - 1)) * unit_stride + (column >> log2_units) * line_step;
  }
};

// f32: columns [task·per_warp, ..) of an item: x ← f · W x, where lanes share a column by runs of kRun outputs. A whole
// column is summed before any of it is overwritten, by the warp alone.
__device__ __forceinline__ void sum_f32(uint4* planes, Walk const& walk, AxisTable<float> const& table, int reach,
                                        bool by_norm, int task) {
  int const lane = threadIdx.x % prim::kWarp;
  int const runs = prim::ceil_div(walk.axis, kRun);
  int const per_warp = prim::kWarp / runs;
  int const column = task * per_warp + lane % per_warp;   // neighbouring lanes: other columns, in other banks
  int const run = lane / per_warp;
  bool const live = run < runs && walk.live(column);
  float4* const x = reinterpret_cast<float4*>(planes) + (live ? walk.first(column) : 0);
  float4 const* const zero = reinterpret_cast<float4 const*>(walk.zero);

  // Blocks of kRun inputs: all of the axis, or those around a run when that is fewer. Either is uniform for the warp.
  int const around = prim::ceil_div(reach, kRun);
  bool const is_near = 2 * around + 1 < runs;
  int const blocks = is_near ? 2 * around + 1 : runs;
  int const first_block = is_near ? run - around : 0;
  float acc[kRun][prim::kQuad] = {};
  for (int i = 0; i < blocks; ++i) {
    int const block = first_block + i;
    if (live && block >= 0 && block < runs) {
      float w[2 * kRun];       // output r and input k of this block: w[kRun + r − k]
      float4 const* const from =
          reinterpret_cast<float4 const*>(table.toeplitz + toeplitz_words<float>(walk.axis) / 2 + (run - block - 1) * kRun);
#pragma unroll
      for (int k = 0; k < 2 * kRun / prim::kQuad; ++k) {
        float4 const four = from[k];
        w[4 * k] = four.x;
        w[4 * k + 1] = four.y;
        w[4 * k + 2] = four.z;
        w[4 * k + 3] = four.w;
      }
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        int const position = block * kRun + k;
        float4 const in = *(position < walk.axis ? x + position * walk.axis_step : zero);
#pragma unroll
        for (int r = 0; r < kRun; ++r) {
          acc[r][0] = fmaf(w[kRun + r - k], in.x, acc[r][0]);
          acc[r][1] = fmaf(w[kRun + r - k], in.y, acc[r][1]);
          acc[r][2] = fmaf(w[kRun + r - k], in.z, acc[r][2]);
          acc[r][3] = fmaf(w[kRun + r - k], in.w, acc[r][3]);
        }
      }
    }
  }
  __syncwarp();   // sync: the warp's columns read before it overwrites them
#pragma unroll
  for (int r = 0; r < kRun; ++r) {
    int const position = run * kRun + r;
    if (live && position < walk.axis) {
      float const f = by_norm ? table.norm[position] : 1.f;
      x[position * walk.axis_step] = make_float4(acc[r][0] * f, acc[r][1] * f, acc[r][2] * f, acc[r][3] * f);
    }
  }
}

// 16 bits: columns 2·pair and 2·pair + 1 of an item: x ← f · W x, f = 1 / Z by position, or `scale`. The columns are in
// registers, as the right-hand fragments of every product, before any of them is overwritten.
template <class T>
__device__ __forceinline__ void sum_16(uint4* planes, Walk const& walk, AxisTable<T> const& table, int reach,
                                       bool by_norm, float scale, int pair) {
  int const lane = threadIdx.x % prim::kWarp;
  int const g = lane / 4;
  int const t = lane % 4;

  // Lanes 0–15 name the rows of the first column, 16–31 those of the second.
  int const mine = 2 * pair + lane / prim::kMmaK;
  bool const mine_live = walk.live(mine);
  uint4 const* const rows = planes + (mine_live ? walk.first(mine) : 0);
  uint32_t b[kSteps][4];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    if (k * prim::kMmaK < walk.axis) {
      int const position = k * prim::kMmaK + lane % prim::kMmaK;
      bool const exists = mine_live && position < walk.axis;
      prim::load_matrices_transposed(b[k], prim::shared_address(exists ? rows + position * walk.axis_step : walk.zero));
    }
  }
  __syncwarp();   // sync: the warp's columns read before it overwrites them

  constexpr int kDiagonals = prim::kMmaM / 2;    // from one register of a Toeplitz tile to the next
  uint32_t const* const middle = table.toeplitz + toeplitz_words<T>(walk.axis) / 2 + g - 2 * t;
  for (int m = 0; m * prim::kMmaM < walk.axis; ++m) {
    float acc[2][4] = {};
    uint32_t above = middle[m * prim::kMmaM + kDiagonals];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (k * prim::kMmaK < walk.axis) {
        uint32_t const* const run = middle + (m - k) * prim::kMmaM;
        uint32_t const below = run[-kDiagonals];
        if (abs(m - k) * prim::kMmaM - (prim::kMmaM - 1) <= reach) {   // the same for the whole warp
          uint32_t const a[4] = {run[0], above, below, run[0]};
          prim::mma<T>(acc[0], a, b[k][0], b[k][1]);
          prim::mma<T>(acc[1], a, b[k][2], b[k][3]);
        }
        above = below;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const position = m * prim::kMmaM + half * kDiagonals + g;
      float const f = by_norm ? table.norm[min(position, walk.axis - 1)] : scale;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (position < walk.axis && walk.live(2 * pair + n)) {
          uint4* const unit = planes + walk.first(2 * pair + n) + position * walk.axis_step;
          reinterpret_cast<uint32_t*>(unit)[t] =
              prim::Pair<T>::pack(acc[n][2 * half] * f, acc[n][2 * half + 1] * f);
        }
      }
    }
  }
}

}  // namespace gaussian
