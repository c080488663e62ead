// gaussian_sum — sums along one axis of planes in shared memory, in place: a warp reads whole columns before it overwrites
// any of them.
#pragma once
#include "gaussian_plane.cuh"

namespace gaussian {

// How the inputs of a sum (pre) and its outputs are scaled: by position on the axis, by line, by a number. Null: by 1.
struct Scaling {
  float const* pre;
  float pre_by;
  float const* by_position;
  float const* by_line;
  float by;

  static __device__ __forceinline__ Scaling by_table(float const* by_position) {
    return Scaling{nullptr, 1.f, by_position, nullptr, 1.f};
  }
  static __device__ __forceinline__ Scaling by_number(float by) { return Scaling{nullptr, 1.f, nullptr, nullptr, by}; }
};

// ---- f32: lanes share a column by runs of outputs -------------------------------------------------------------------

// Blocks of kOutputs inputs that a run of kOutputs outputs sums: all of the axis, or those around it where that is fewer.
// Their number is the same for every lane.
struct InputBlocks {
  int count;
  int first;       // of this lane's run
  __device__ __forceinline__ InputBlocks(int outputs, int reach, int runs, int run) {
    int const around = prim::ceil_div(reach, outputs);
    bool const is_near = 2 * around + 1 < runs;
    count = is_near ? 2 * around + 1 : runs;
    first = is_near ? run - around : 0;
  }
};

// weights[kOutputs + r − k] belongs to output r of run `run` and input k of block `block`.
template <int kOutputs>
__device__ __forceinline__ void load_weights(float (&weights)[2 * kOutputs], uint32_t const* toeplitz, int run, int block) {
  static_assert(kOutputs % prim::kQuad == 0, "whole quads of weights");
  float4 const* const from = reinterpret_cast<float4 const*>(toeplitz + (run - block - 1) * kOutputs);
#pragma unroll
  for (int k = 0; k < 2 * kOutputs / prim::kQuad; ++k) {
    float4 const four = from[k];
    weights[4 * k] = four.x;
    weights[4 * k + 1] = four.y;
    weights[4 * k + 2] = four.z;
    weights[4 * k + 3] = four.w;
  }
}

__device__ __forceinline__ void multiply_add(float4& acc, float w, float4 x) {
  acc.x = fmaf(w, x.x, acc.x);
  acc.y = fmaf(w, x.y, acc.y);
  acc.z = fmaf(w, x.z, acc.z);
  acc.w = fmaf(w, x.w, acc.w);
}
__device__ __forceinline__ float4 scaled(float4 x, float f) {
  return make_float4(x.x * f, x.y * f, x.z * f, x.w * f);
}

// Columns that a warp sums at once.
template <int kOutputs>
__device__ __forceinline__ int columns_per_warp(int axis) {
  return prim::kWarp / prim::ceil_div(axis, kOutputs);
}

// A lane's part of a task: a run of outputs of a column.
template <int kOutputs>
struct Lane {
  int column, run, runs;
  bool live;
  __device__ __forceinline__ Lane(Walk const& walk, int task) {
    int const lane = threadIdx.x % prim::kWarp;
    int const per_warp = columns_per_warp<kOutputs>(walk.axis);
    runs = prim::ceil_div(walk.axis, kOutputs);
    run = lane / per_warp;
    column = task * per_warp + lane % per_warp;   // neighbouring lanes: other columns, in other banks
    live = run < runs && walk.live(column);
  }
};

// x ← f · W (pre · x)
template <Direction D>
__device__ __forceinline__ void sum_f32(uint4* planes, Walk const& walk, AxisTable<float, D> const& table, int reach,
                                        Scaling const& by, int task) {
  Lane<kRun> const lane(walk, task);
  float4* const x = reinterpret_cast<float4*>(planes) + (lane.live ? walk.first(lane.column) : 0);
  float4 const* const zero = reinterpret_cast<float4 const*>(walk.zero);
  float4 acc[kRun] = {};
  InputBlocks const blocks(kRun, reach, lane.runs, lane.run);
  for (int i = 0; i < blocks.count; ++i) {
    int const block = blocks.first + i;
    if (lane.live && block >= 0 && block < lane.runs) {
      float w[2 * kRun];
      load_weights<kRun>(w, table.toeplitz, lane.run, block);
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        int const position = block * kRun + k;
        float4 in = *(position < walk.axis ? x + position * walk.axis_step : zero);
        if (by.pre != nullptr) {
          in = scaled(in, by.pre[min(position, walk.axis - 1)] * by.pre_by);
        }
#pragma unroll
        for (int r = 0; r < kRun; ++r) {
          multiply_add(acc[r], w[kRun + r - k], in);
        }
      }
    }
  }
  __syncwarp();   // sync: the warp's columns read before it overwrites them
  float const of_line = by.by_line != nullptr && lane.live ? by.by_line[walk.line(lane.column)] : 1.f;
#pragma unroll
  for (int r = 0; r < kRun; ++r) {
    int const position = lane.run * kRun + r;
    if (lane.live && position < walk.axis) {
      float const f = (by.by_position != nullptr ? by.by_position[position] : by.by) * of_line;
      x[position * walk.axis_step] = scaled(acc[r], f);
    }
  }
}

// ---- 16 bits: columns are the right-hand side of Toeplitz products on the tensor core -------------------------------

// Columns of a task, and k16 steps of the longest axis that it takes: what they take in registers is the same.
template <int kSteps> constexpr int kColumnsPerTask = 2 * (kAxisMax / prim::kMmaK) / kSteps;
constexpr int kStepsLong = kAxisMax / prim::kMmaK;
constexpr int kStepsShort = kStepsLong / 2;

template <class T>
__device__ __forceinline__ uint32_t scaled_pair(uint32_t pair, float low, float high) {
  float2 const x = prim::Pair<T>::unpack(pair);
  return prim::Pair<T>::pack(x.x * low, x.y * high);
}

// x ← f · W (pre · x), pre · x rounded to T
template <class T, Direction D, int kSteps>
__device__ __forceinline__ void sum_16(uint4* planes, Walk const& walk, AxisTable<T, D> const& table, int reach,
                                       Scaling const& by, int task) {
  constexpr int kPairs = kColumnsPerTask<kSteps> / 2;
  constexpr int kHalf = prim::kMmaM / 2;         // rows, or diagonals, from one register of a tile to the next
  int const lane = threadIdx.x % prim::kWarp;
  int const g = lane / 4;
  int const t = lane % 4;

  // Every column is in registers, as fragments, before any is overwritten.
  uint32_t b[kPairs][kSteps][4];
  uint32_t* out[2 * kPairs];                     // this lane's two channels of its column
#pragma unroll
  for (int n = 0; n < kPairs; ++n) {
    int const column = (task * kPairs + n) * 2 + lane / prim::kMmaK;   // lanes 0–15: one column, 16–31 its neighbour
    bool const live = walk.live(column);
    int const first = live ? walk.first(column) : 0;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (k * prim::kMmaK < walk.axis) {
        int const position = k * prim::kMmaK + lane % prim::kMmaK;
        bool const exists = live && position < walk.axis;
        prim::load_matrices_transposed(
            b[n][k], prim::shared_address(exists ? planes + first + position * walk.axis_step : walk.zero));
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const other = __shfl_sync(prim::kAllLanes, live ? first : -1, i * prim::kMmaK);
      out[2 * n + i] = other < 0 ? nullptr : reinterpret_cast<uint32_t*>(planes + other) + t;
    }
  }
  if (by.pre != nullptr) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (k * prim::kMmaK < walk.axis) {
        float f[4];                              // of rows 2t, 2t + 1, 2t + 8, 2t + 9
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          f[i] = by.pre[min(k * prim::kMmaK + i / 2 * kHalf + 2 * t + i % 2, walk.axis - 1)] * by.pre_by;
        }
#pragma unroll
        for (int n = 0; n < kPairs; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            b[n][k][i] = scaled_pair<T>(b[n][k][i], f[i % 2 * 2], f[i % 2 * 2 + 1]);
          }
        }
      }
    }
  }
  __syncwarp();   // sync: the warp's columns read before it overwrites them

  float of_line[2 * kPairs];
#pragma unroll
  for (int n = 0; n < 2 * kPairs; ++n) {
    int const line = min(walk.line(task * 2 * kPairs + n), walk.num_lines - 1);
    of_line[n] = by.by_line != nullptr ? by.by * by.by_line[line] : by.by;
  }
  uint32_t const* const middle = table.toeplitz + g - 2 * t;
  int const words = walk.axis_step * (prim::kUnitBytes / int(sizeof(uint32_t)));   // from one position to the next
  for (int m = 0; m * prim::kMmaM < walk.axis; ++m) {
    float acc[2 * kPairs][4] = {};
    uint32_t above = middle[m * prim::kMmaM + kHalf];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (k * prim::kMmaK < walk.axis) {
        uint32_t const* const run = middle + (m - k) * prim::kMmaM;
        uint32_t const below = run[-kHalf];
        if (abs(m - k) * prim::kMmaM - (prim::kMmaM - 1) <= reach) {   // the same for the whole warp
          uint32_t const a[4] = {run[0], above, below, run[0]};
#pragma unroll
          for (int n = 0; n < 2 * kPairs; ++n) {
            prim::mma<T>(acc[n], a, b[n / 2][k][n % 2 * 2], b[n / 2][k][n % 2 * 2 + 1]);
          }
        }
        above = below;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const position = m * prim::kMmaM + half * kHalf + g;
      if (position < walk.axis) {
        float const f = by.by_position != nullptr ? by.by_position[position] : 1.f;
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n) {
          if (out[n] != nullptr) {
            out[n][position * words] =
                prim::Pair<T>::pack(acc[n][2 * half] * (f * of_line[n]), acc[n][2 * half + 1] * (f * of_line[n]));
          }
        }
      }
    }
  }
}

// ---- Either ---------------------------------------------------------------------------------------------------------

// Sums along one axis of every item: x ← f · W (pre · x). `scaling(item)` says how. No barrier before or after.
template <class T, Direction D, class Scale>
__device__ __forceinline__ void sum_axis(GaussianRadius const& radius, GaussianItems const& p, Layout<T, D> const& smem,
                                         bool is_x, int shift, Scale scaling) {
  Walk const all(p, is_x, nullptr);
  if constexpr (sizeof(T) == 4) {
    int const tasks = prim::ceil_div(all.columns(), columns_per_warp<kRun>(all.axis));
    for_each_task(radius, p, smem, is_x, tasks, [&](int item, auto const& walk, auto const& table, int reach, int task) {
      sum_f32(smem.planes(item) + shift, walk, table, reach, scaling(item), task);
    });
  } else if (all.axis <= kStepsShort * prim::kMmaK) {
    int const tasks = prim::ceil_div(all.columns(), kColumnsPerTask<kStepsShort>);
    for_each_task(radius, p, smem, is_x, tasks, [&](int item, auto const& walk, auto const& table, int reach, int task) {
      sum_16<T, D, kStepsShort>(smem.planes(item) + shift, walk, table, reach, scaling(item), task);
    });
  } else {
    int const tasks = prim::ceil_div(all.columns(), kColumnsPerTask<kStepsLong>);
    for_each_task(radius, p, smem, is_x, tasks, [&](int item, auto const& walk, auto const& table, int reach, int task) {
      sum_16<T, D, kStepsLong>(smem.planes(item) + shift, walk, table, reach, scaling(item), task);
    });
  }
}

}  // namespace gaussian
