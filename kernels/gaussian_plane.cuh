// gaussian_plane — whole planes in shared memory: layout, tables and copies, for the forward and the backward pass.
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
constexpr int kRun = 8;                               // the most consecutive outputs of a thread (f32)

enum Direction { kForward, kBackward };

__host__ __device__ constexpr int padded(int n) { return prim::round_up(n, prim::kQuad); }

// Entries of a Toeplitz table: by signed distance, from minus the axis, rounded up to what a warp sums at once, on.
template <class T>
__host__ __device__ constexpr int toeplitz_words(int axis) {
  return 2 * prim::round_up(axis, sizeof(T) == 2 ? prim::kMmaM : kRun);
}

// What an axis of an item has in shared memory. Vectors of the axis' length; the last two only for kBackward.
template <class T, Direction D>
struct AxisTable {
  static constexpr int kToeplitz = D == kBackward && sizeof(T) == 4 ? 2 : 1;
  static constexpr int kVectors = D == kBackward ? 4 : 2;

  uint32_t* toeplitz;    // at signed distance d: w(|d|), 16 bits: the pair (w(|d|), w(|d − 1|)); then f32: w·ψ(|d|)
  float* w;              // by distance: w, rounded to T
  float* norm;           // by position: 1 / Z
  float* pull;           // by distance: w·ψ, of w in f32
  float* mean;           // by position: Σ w ψ / Z, 0 for norm none
  int axis;

  static __host__ __device__ constexpr int words(int axis) {
    return kToeplitz * toeplitz_words<T>(axis) + kVectors * padded(axis);
  }
  __device__ __forceinline__ AxisTable(uint32_t* first, int axis)
      : toeplitz(first + toeplitz_words<T>(axis) / 2), axis(axis) {
    w = reinterpret_cast<float*>(first + kToeplitz * toeplitz_words<T>(axis));
    norm = w + padded(axis);
    pull = norm + padded(axis);
    mean = pull + padded(axis);
  }
};

// Shared memory of a block: per item the planes of its units, the tables of y and x, a quad with the scales c_y and c_x
// and (kBackward) a sum per warp; at the end of all one unit of zeros, which stands for what lies beyond an axis.
template <class T, Direction D>
struct Layout {
  static constexpr int kTail = prim::kQuad + (D == kBackward ? kPlaneWarps : 0);   // floats behind the tables

  unsigned char* bytes;
  int item_bytes, y, x;

  __device__ __forceinline__ explicit Layout(GaussianItems const& p)
      : bytes(prim::shared_memory<unsigned char>()), item_bytes(p.item_bytes), y(p.y), x(p.x) {}

  __device__ __forceinline__ uint4* planes(int item) const {
    return reinterpret_cast<uint4*>(bytes + item * item_bytes);
  }
  __device__ __forceinline__ float* scales(int item) const {
    return reinterpret_cast<float*>(bytes + (item + 1) * item_bytes) - kTail;
  }
  __device__ __forceinline__ float* warp_sums(int item) const { return scales(item) + prim::kQuad; }
  __device__ __forceinline__ AxisTable<T, D> table(int item, bool is_x) const {
    int const words_y = AxisTable<T, D>::words(y);
    int const words_x = AxisTable<T, D>::words(x);
    auto* const first = reinterpret_cast<uint32_t*>(scales(item)) - (words_y + words_x);
    return AxisTable<T, D>(first + (is_x ? words_y : 0), is_x ? x : y);
  }
  __device__ __forceinline__ uint4* zero(GaussianItems const& p) const { return planes(p.items_per_block); }
};

// ---- Tables ---------------------------------------------------------------------------------------------------------

// The table of one axis of one head, by one warp, and the power of two that its intermediates are scaled by.
template <class T, Direction D>
__device__ __forceinline__ void fill_table(Head const& head, AxisTable<T, D> const& table, bool is_row, float* scale) {
  constexpr int kRounds = kAxisMax / prim::kWarp;
  int const lane = threadIdx.x % prim::kWarp;
  int const last = table.axis - 1;
  float w_below = 0.f;
  float pull_below = 0.f;
  for (int first = 0; first <= last; first += prim::kWarp) {
    int const distance = first + lane;
    float const w = prim::rounded<T>(head.weight(distance));
    float const w_sum = w_below + prim::warp_prefix(w);
    w_below = __shfl_sync(prim::kAllLanes, w_sum, prim::kWarp - 1);
    if (distance <= last) {
      table.w[distance] = w;
      table.norm[distance] = w_sum;
    }
    if constexpr (D == kBackward) {
      float const pull = head.weight_psi(distance);
      float const pull_sum = pull_below + prim::warp_prefix(pull);
      pull_below = __shfl_sync(prim::kAllLanes, pull_sum, prim::kWarp - 1);
      if (distance <= last) {
        table.pull[distance] = pull;
        table.mean[distance] = pull_sum;
      }
    }
  }
  __syncwarp();   // sync: weights and prefix sums written, other lanes read them
  float const centre = table.w[0];
  float const z_min = table.norm[last];
  float const z_max = table.norm[table.axis / 2] + table.norm[last - table.axis / 2] - centre;
  float norm[kRounds];
  float mean[kRounds];
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    int const position = min(i * prim::kWarp + lane, last);
    norm[i] = 1.f / (table.norm[position] + table.norm[last - position] - centre);
    mean[i] = D == kBackward && is_row ? (table.mean[position] + table.mean[last - position]) * norm[i] : 0.f;
  }
  __syncwarp();   // sync: prefix sums read before Z and mean overwrite them
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    int const position = i * prim::kWarp + lane;
    if (position <= last) {
      table.norm[position] = norm[i];
      if constexpr (D == kBackward) {
        table.mean[position] = mean[i];
      }
    }
  }
  int const half = toeplitz_words<T>(table.axis) / 2;
  auto const at = [&](float const* by_distance, int d) { return abs(d) <= last ? by_distance[abs(d)] : 0.f; };
  for (int d = lane - half; d < half; d += prim::kWarp) {
    if constexpr (sizeof(T) == 2) {
      table.toeplitz[d] = prim::Pair<T>::pack(at(table.w, d), at(table.w, d - 1));
    } else {
      table.toeplitz[d] = __float_as_uint(at(table.w, d));
      if constexpr (D == kBackward) {
        table.toeplitz[d + 2 * half] = __float_as_uint(at(table.pull, d));
      }
    }
  }
  if (lane == 0) {
    *scale = sizeof(T) == 4 ? 1.f : power_of_two(is_row ? z_min : z_max, !is_row);
  }
}

// ---- Items of a block ---------------------------------------------------------------------------------------------

// Which plane and channels an item of this block is.
template <class T>
struct Place {
  int bi, hi, channel;   // image, head, first channel
  bool live;             // the last block may have fewer items

  __device__ __forceinline__ Place(GaussianItems const& p, int item) {
    int const index = blockIdx.x * p.items_per_block + item;
    live = index < p.items;
    int const bh = (live ? index : 0) / p.slices;
    bi = bh / p.heads;
    hi = bh - bi * p.heads;
    channel = ((live ? index : 0) - bh * p.slices << p.log2_units) * prim::kUnit<T>;
  }
};

// The tables of every item of the block, a warp per axis.
template <class T, Direction D>
__device__ __forceinline__ void fill_tables(GaussianRadius const& radius, GaussianItems const& p,
                                            Layout<T, D> const& smem) {
  for (int job = threadIdx.x / prim::kWarp; job < 2 * p.items_per_block; job += kPlaneWarps) {
    AxisTable<T, D> const table = smem.table(job / 2, job % 2 == 1);
    Head const head = head_of(radius, Place<T>(p, job / 2).hi, table.axis);
    fill_table(head, table, p.is_row != 0, smem.scales(job / 2) + job % 2);
  }
}

// visit(item, index of the unit in the item's planes, first channel of the unit's pixel, channel) for every unit of the
// block that holds channels: a warp per row, lanes over neighbouring units. leave(item) by the whole warp, after it has
// visited all of its units of an item.
template <class T, class Visit, class Leave>
__device__ __forceinline__ void for_each_unit(GaussianItems const& p, GaussianStrides const& at, T* tensor, Visit visit,
                                              Leave leave) {
  using Element = prim::Plain<T>;
  int const lane = threadIdx.x % prim::kWarp;
  int const unit_mask = (1 << p.log2_units) - 1;
  int item = -1;
  Place<Element> place(p, 0);
  T* plane = tensor;
  for (int row = threadIdx.x / prim::kWarp; row < p.items_per_block * p.y; row += kPlaneWarps) {
    if (row / p.y != item) {      // the same for the whole warp
      if (item >= 0) {
        leave(item);
      }
      item = row / p.y;
      place = Place<Element>(p, item);
      plane = tensor + plane_of(at, place.bi, place.hi);
    }
    if (!place.live) {
      return;
    }
    int const yi = row - item * p.y;
    T* const pixels = plane + int(at.line) * yi;
    int const first = yi * p.pitch;
    for (int i = lane; i < p.x << p.log2_units; i += prim::kWarp) {
      int const unit = i & unit_mask;
      int const xi = i >> p.log2_units;
      int const channel = place.channel + unit * prim::kUnit<Element>;
      if (channel < p.channels) {
        visit(item, unit * p.unit_stride + first + xi, pixels + int(at.axis) * xi, channel);
      }
    }
  }
  if (item >= 0) {
    leave(item);
  }
}
template <class T, class Visit>
__device__ __forceinline__ void for_each_unit(GaussianItems const& p, GaussianStrides const& at, T* tensor, Visit visit) {
  for_each_unit(p, at, tensor, visit, [](int) {});
}

// Starts copying a tensor's items to the planes that begin `shift` units into each; the caller waits for the copies.
template <class T, Direction D>
__device__ __forceinline__ void load_planes(GaussianItems const& p, GaussianStrides const& at, void const* tensor,
                                            Layout<T, D> const& smem, int shift) {
  auto const in = prim::channels_of<T>(tensor, bits_of(at), p.channels);
  for_each_unit<T const>(p, at, static_cast<T const*>(tensor), [&](int item, int index, T const* pixel, int channel) {
    prim::copy_unit(smem.planes(item) + shift + index, pixel, channel, in, true);
  });
  prim::commit_copies();
}

template <class T, Direction D>
__device__ __forceinline__ void store_planes(GaussianItems const& p, GaussianStrides const& at, void* tensor,
                                             Layout<T, D> const& smem) {
  auto const out = prim::channels_of<T>(tensor, bits_of(at), p.channels);
  for_each_unit<T>(p, at, static_cast<T*>(tensor), [&](int item, int index, T* pixel, int channel) {
    prim::store_unit(pixel, channel, out, smem.planes(item)[index]);
  });
}

// How a pass walks the planes of an item: lines of 2^log2_units columns (units), axis positions each. Steps in units.
struct Walk {
  int num_lines, line_step, axis, axis_step;
  int log2_units, unit_stride;
  int live_units;        // units of the item that hold channels
  uint4 const* zero;

  __device__ __forceinline__ Walk(GaussianItems const& p, bool is_x, uint4 const* zero)
      : num_lines(is_x ? p.y : p.x), line_step(is_x ? p.pitch : 1), axis(is_x ? p.x : p.y),
        axis_step(is_x ? 1 : p.pitch), log2_units(p.log2_units), unit_stride(p.unit_stride), live_units(0), zero(zero) {}

  __device__ __forceinline__ int columns() const { return num_lines << log2_units; }
  __device__ __forceinline__ int unit(int column) const { return column & ((1 << log2_units) - 1); }
  __device__ __forceinline__ int line(int column) const { return column >> log2_units; }
  __device__ __forceinline__ bool live(int column) const { return column < columns() && unit(column) < live_units; }
  __device__ __forceinline__ int first(int column) const {
    return unit(column) * unit_stride + line(column) * line_step;
  }
};

// visit(item, its place, its walk, its table, its reach, task) for `tasks` tasks of every item, spread over the warps.
template <class T, Direction D, class Visit>
__device__ __forceinline__ void for_each_task(GaussianRadius const& radius, GaussianItems const& p,
                                              Layout<T, D> const& smem, bool is_x, int tasks, Visit visit) {
  Walk walk(p, is_x, smem.zero(p));
  for (int flat = threadIdx.x / prim::kWarp; flat < tasks * p.items_per_block; flat += kPlaneWarps) {
    int const item = flat / tasks;
    Place<T> const place(p, item);
    if (!place.live) {
      break;             // the same for the whole warp
    }
    walk.live_units = prim::ceil_div(p.channels - place.channel, prim::kUnit<T>);
    visit(item, walk, smem.table(item, is_x), head_of(radius, place.hi, walk.axis).reach, flat - item * tasks);
  }
}

}  // namespace gaussian
