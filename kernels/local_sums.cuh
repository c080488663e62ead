// local — sums of score gradients by halo row and by halo column, for the gradients of the relative terms.
//
// They take the tables' form (local_table.cuh). On tensor cores a sum is a product with a matrix of ones and zeros, which is
// exact; in f32 lanes add to shared memory, each entry in the order of keys.
#pragma once
#include "local_table.cuh"

namespace local {

constexpr int kColumnGroups = 5;   // of 8 halo columns: windows up to 33 have 36

template <class P>
struct ScoreSums {
  static constexpr int kRowGroups = P::kPixelBytes > 128 ? 1 : 2;   // groups of 8 halo rows that are summed together
  static constexpr int kSummedRows = kRowGroups * kGroup;

  float rows[kRowGroups][4];
  float columns[kColumnGroups][4];

  static __device__ __forceinline__ void clear(float (&c)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      c[i] = 0.f;
    }
  }

  __device__ __forceinline__ void start(Tables const&, int) {
#pragma unroll
    for (int j = 0; j < kColumnGroups; ++j) {
      clear(columns[j]);
    }
  }
  __device__ __forceinline__ void start_rows() {
#pragma unroll
    for (int j = 0; j < kRowGroups; ++j) {
      clear(rows[j]);
    }
  }

  // One step of at most kSummedRows rows. Keys come in pairs of neighbouring columns.
  __device__ __forceinline__ void add(typename P::Weights const& weights, Walk const& walk, int key, int) {
    using T = typename P::Type;
    constexpr uint32_t kOnes = prim::Pair<T>::kOnes;
    prim::Lane const lane = prim::lane_of_warp();
    uint32_t const one = lane.g % 2 == 0 ? kOnes & 0xffffu : kOnes & 0xffff0000u;
    int row[2], column[2];   // of this lane's pairs
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      int const first = key + j * kGroup + 2 * lane.t;
      int const y = walk.row(first);
      row[j] = y - lane.g;
      column[j] = first - y * walk.packed - (lane.g & ~1);
    }
#pragma unroll
    for (int i = 0; i < kRowGroups; ++i) {
      prim::mma<T>(rows[i], weights.a, row[0] == i * kGroup ? kOnes : 0u, row[1] == i * kGroup ? kOnes : 0u);
    }
#pragma unroll
    for (int i = 0; i < kColumnGroups; ++i) {
      if (i * kGroup < walk.packed) {
        prim::mma<T>(columns[i], weights.a, column[0] == i * kGroup ? one : 0u, column[1] == i * kGroup ? one : 0u);
      }
    }
  }

  // The sums of the last rows replace the tables' entries, which nothing needs any more.
  __device__ __forceinline__ void finish_rows(Tables const& tables, int first_row, int count) {
    int const t = prim::lane_of_warp().t;
    __syncwarp();   // sync: table rows read by all lanes before they are overwritten
#pragma unroll
    for (int j = 0; j < kRowGroups; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int const row = j * kGroup + 2 * t + i;
        if (row < count) {
          uint32_t const to = tables.rows + (first_row + row) * kRowBytes;
          store_shared(to, rows[j][i]);
          store_shared(to + int(sizeof(float)), rows[j][2 + i]);
        }
      }
    }
  }
  // Behind a barrier after the last table columns were read.
  __device__ __forceinline__ void finish(Tables const& tables, int packed) {
    int const t = prim::lane_of_warp().t;
#pragma unroll
    for (int j = 0; j < kColumnGroups; ++j) {
      int const column = j * kGroup + 2 * t;
      if (column < packed) {
        prim::store_shared_unit(tables.columns + column * kColumnBytes,
                                make_uint4(__float_as_uint(columns[j][0]), __float_as_uint(columns[j][1]),
                                           __float_as_uint(columns[j][2]), __float_as_uint(columns[j][3])));
      }
    }
    __syncwarp();   // sync: sums written before other lanes of the warp read them
  }
};

// Where registers are few, the sums live in shared memory of their own, and are of scores that nothing has rounded.
struct SharedSums {
  static constexpr int kSummedRows = 2 * kGroup;

  Tables sums;

  __device__ __forceinline__ void start(Tables const& own, int) { sums = own; }
  __device__ __forceinline__ void start_rows() {}
  __device__ __forceinline__ void finish_rows(Tables const&, int, int) {}
  __device__ __forceinline__ void finish(Tables const&, int) {}

  // `first_row`: the walk's, in the tables.
  __device__ __forceinline__ void add(float const (&scores)[2][4], Walk const& walk, int key, int first_row) {
    int const t = prim::lane_of_warp().t;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      int const first = key + j * kGroup;
      int const row = walk.row(first);
      int const own = first + 2 * t;
      int const own_row = walk.row(own);
      float const(&c)[4] = scores[j];
      __syncwarp();   // sync: entries of the group before written, by whichever lanes
      if (own < walk.count) {
        uint32_t const at = sums.columns + (own - own_row * walk.packed) * kColumnBytes;
        uint4 const u = prim::load_shared_unit(at);
        prim::store_shared_unit(at, make_uint4(__float_as_uint(__uint_as_float(u.x) + c[0]),
                                               __float_as_uint(__uint_as_float(u.y) + c[1]),
                                               __float_as_uint(__uint_as_float(u.z) + c[2]),
                                               __float_as_uint(__uint_as_float(u.w) + c[3])));
      }
      // A group spans two rows at most; lane t = 0 adds to the first, lane t = 1 to the second.
      bool const is_first = own_row == row;
      float sum[2][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float const pair = c[2 * half] + c[2 * half + 1];
        sum[0][half] = prim::quad_sum(is_first ? pair : 0.f);
        sum[1][half] = prim::quad_sum(is_first ? 0.f : pair);
      }
      if (t < 2 && (row + t) * walk.packed < walk.count) {
        uint32_t const at = sums.rows + (first_row + row + t) * kRowBytes;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t const entry = at + half * int(sizeof(float));
          store_shared(entry, load_shared(entry) + (t == 0 ? sum[0][half] : sum[1][half]));
        }
      }
    }
  }
};

// In f32 they always are.
template <int D>
struct ScoreSums<Product<float, D>> : SharedSums {
  __device__ __forceinline__ void add(typename Product<float, D>::Weights const& weights, Walk const& walk, int key, int first_row) {
    SharedSums::add(weights.c, walk, key, first_row);
  }
};

}  // namespace local
