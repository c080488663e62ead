// content — parameters, geometry and weights of global attention by content, the same for forward and backward.
//
//   summary   C[c][e] = Σ over positions of weight(k[c]) · v[e], d×e numbers per (batch, head)
//   split     the positions of one block; partial sums of splits are merged in order
//   unit      16 channels of a weight × 64 channels of a value: what one warp sums
//   group     the warps of a block that together hold the whole summary; groups take steps of 16 positions in turn
#pragma once
#include "prim/divide.cuh"
#include "prim/mma.cuh"
#include "prim/softmax.cuh"

namespace content {

constexpr int kBlock = 16;            // channels and positions of a product come in whole blocks
constexpr int kSlice = 64;            // value channels of a unit, columns of a product by rows
constexpr int kChannelsMax = 128;
constexpr float kLowest = -3.402823466e38f;   // below every score, and yet finite: differences of two are no NaN

// ---- Parameters ---------------------------------------------------------------------------------------------------

using prim::Map;

// The positions of a map, numbered row by row, and how blocks share them. Where rows follow each other without a gap the
// host calls the map one row.
struct Positions {
  int32_t count;
  int32_t per_block;
  prim::Divisor columns;
  prim::Divisor blocks;    // of one (batch, head)
};

// How keys and queries become weights; mirrors `Form` of src/config/content.rs.
enum Form : int32_t {
  kSoftmax,        // keys: softmax over positions; queries: as they are
  kSoftmaxBoth,    // and queries: softmax over channels
  kDotProduct,     // as they are
  kEluPlusOne,
  kRelu,
};
__device__ __forceinline__ bool is_softmax(int form) { return form <= kSoftmaxBoth; }
__device__ __forceinline__ bool is_linear(int form) { return form >= kEluPlusOne; }

constexpr float kEpsilon = 1e-6f;     // of the linear forms' normaliser

// ---- Geometry -----------------------------------------------------------------------------------------------------

// The block, read anew at every call, so that no register holds across a loop what depends on it.
__device__ __forceinline__ int fresh_block() {
  int block;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
  return block;
}

// Which part of the positions a block has.
struct Part {
  int64_t bh;
  int bi, hi, index;
  int first, count;
};
__device__ __forceinline__ Part part_of_block(Positions const& positions, prim::Divisor const& heads) {
  Part part;
  int const block = fresh_block();
  int const bh = positions.blocks.quotient(block);
  part.bh = bh;
  part.index = positions.blocks.remainder(block, bh);
  part.bi = heads.quotient(bh);
  part.hi = heads.remainder(bh, part.bi);
  part.first = part.index * positions.per_block;
  part.count = min(positions.per_block, positions.count - part.first);
  KASSERT(part.count > 0);
  return part;
}

// The pixels of one (batch, head).
template <class T>
struct Plane {
  T* data;
  int64_t stride_y, stride_x;
  prim::Divisor columns;

  __device__ __forceinline__ Plane(Map const& map, Positions const& positions, Part const& part)
      : data(static_cast<T*>(map.data) + part.bi * map.stride_b + part.hi * map.stride_h),
        stride_y(map.stride_y),
        stride_x(map.stride_x),
        columns(positions.columns) {}

  __device__ __forceinline__ T* pixel(int ni) const {
    int const yi = columns.quotient(ni);
    return data + yi * stride_y + columns.remainder(ni, yi) * stride_x;
  }
};

// The host has seen whether strides and `count` are whole units, the kernel sees the address.
__device__ __forceinline__ prim::Channels channels_of(Map const& map, int32_t count) {
  return prim::Channels{count, map.is_wide && reinterpret_cast<uint64_t>(map.data) % prim::kUnitBytes == 0};
}

// Bytes of a position of `count` channels in shared memory: an odd number of units, so that neighbouring positions lie in
// other banks. Mirrors `pitch` in src/ops/content/plan.rs.
template <class T>
__device__ __forceinline__ int pitch_of(int count) {
  return count * int(sizeof(T)) + prim::kUnitBytes;
}

// Value channels in shared memory: whole blocks of what a warp multiplies at once.
template <class T> constexpr int kColumnBlock = sizeof(T) == sizeof(float) ? 32 : kBlock;

// ---- Weights ------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float exp_approx(float x) { return prim::exp2_approx(x * prim::kLog2E); }

// The feature maps of the linear forms; without branches, for they stand in unrolled loops.
__device__ __forceinline__ float feature(int form, float x) {
  bool const is_elu = form == kEluPlusOne;
  float const below = is_elu ? exp_approx(x) : 0.f;
  return x > 0.f ? x + (is_elu ? 1.f : 0.f) : below;
}

// ---- The finished summary -----------------------------------------------------------------------------------------

// What forward saves: summary [b, h, d, e], max and sum [b, h, d], all f32 and contiguous.
struct Saved {
  float* summary;
  float* max;
  float* sum;
};

// Channel ci of a summary, of which this thread has the quad of columns `column`; `total` sums its weights.
__device__ __forceinline__ void finish(Saved const& saved, int64_t bh, int ci, int d, int e, int column, float4 quad,
                                       float top, float total, int form, int positions) {
  float const sum = form == kDotProduct ? float(positions) : total;
  if (!is_linear(form)) {
    quad = make_float4(quad.x / sum, quad.y / sum, quad.z / sum, quad.w / sum);
  }
  int64_t const row = bh * d + ci;
  prim::store_quad(saved.summary + row * e, column, prim::channels_of<float>(saved.summary, e, e), quad);
  if (column == 0) {
    saved.max[row] = top;
    saved.sum[row] = sum;
  }
}

__device__ __forceinline__ void multiply_add(float4& acc, float w, float4 x) {
  acc.x = fmaf(w, x.x, acc.x);
  acc.y = fmaf(w, x.y, acc.y);
  acc.z = fmaf(w, x.z, acc.z);
  acc.w = fmaf(w, x.w, acc.w);
}

__device__ __forceinline__ float4 quad_at(uint32_t shared) {
  uint4 const u = prim::load_shared_unit(shared);
  return make_float4(__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z), __uint_as_float(u.w));
}
__device__ __forceinline__ void put_quad(uint32_t shared, float4 quad) {
  prim::store_shared_unit(shared, make_uint4(__float_as_uint(quad.x), __float_as_uint(quad.y), __float_as_uint(quad.z),
                                             __float_as_uint(quad.w)));
}

}  // namespace content
