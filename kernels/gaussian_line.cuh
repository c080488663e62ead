// gaussian_line — sums along one axis in f32 registers, shared by the forward and the backward pass over lines.
//
// A block makes kTile consecutive outputs of num_columns columns; a column is one quad of channels of one line. Inputs come
// kTile positions at a time into shared memory; a thread keeps kOutputs consecutive outputs of its column. Weights of a
// (tile, chunk) pair are a Toeplitz table of 2·kTile values.
#pragma once
#include "gaussian.cuh"

namespace gaussian {

constexpr int kTile = 64;          // outputs of a block along the axis, and inputs per chunk
constexpr int kLineThreads = 256;

__device__ __forceinline__ void multiply_add(float4& acc, float w, float4 x) {
  acc.x = fmaf(w, x.x, acc.x);
  acc.y = fmaf(w, x.y, acc.y);
  acc.z = fmaf(w, x.z, acc.z);
  acc.w = fmaf(w, x.w, acc.w);
}
__device__ __forceinline__ float4 scaled(float4 x, float f) {
  return make_float4(x.x * f, x.y * f, x.z * f, x.w * f);
}
__device__ __forceinline__ float dot(float4 a, float4 b) {
  return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, a.w * b.w)));
}

// Which part of the work a block has: blocks count (bh, group of columns, tile), tile fastest.
struct LineBlock {
  int bi, hi, tile_begin, first_column;
  int64_t index;     // of the block within its bh
};
__device__ __forceinline__ LineBlock line_block(int num_columns, int columns_per_block, int first_bh, int heads,
                                                int first_out, int num_out) {
  int const tiles = prim::ceil_div(num_out, kTile);
  int const groups = prim::ceil_div(num_columns, columns_per_block);
  int const within = blockIdx.x % (tiles * groups);
  int const bh = first_bh + blockIdx.x / (tiles * groups);
  LineBlock block;
  block.bi = bh / heads;
  block.hi = bh % heads;
  block.tile_begin = first_out + within % tiles * kTile;
  block.first_column = within / tiles * columns_per_block;
  block.index = within;
  return block;
}

// Positions [begin, end) of the axis that a tile's outputs can reach.
struct Reached {
  int begin, end;
};
__device__ __forceinline__ Reached reached(int tile_begin, int reach, int axis) {
  int const beyond = axis - tile_begin;   // > 0; the sum below may pass 2^31, the difference does not
  return Reached{max(0, tile_begin - reach), beyond - kTile <= reach ? axis : tile_begin + kTile + reach};
}

// s_w[k] = w(|d|), s_wpsi[k] = w·ψ(|d|) at d = first output − first input + k − kTile, k in 0..2·kTile. (output − input)
__device__ __forceinline__ void fill_toeplitz(Head const& head, int tile_begin, int chunk_begin, float* s_w,
                                              float* s_wpsi) {
  for (int k = threadIdx.x; k < 2 * kTile; k += kLineThreads) {
    int const distance = abs(tile_begin - chunk_begin + k - kTile);
    s_w[k] = head.weight(distance);
    if (s_wpsi != nullptr) {
      s_wpsi[k] = head.weight_psi(distance);
    }
  }
}

// The 2·kOutputs weights between outputs [o, o + kOutputs) and inputs [i, i + kOutputs) of a (tile, chunk) pair: output
// o + r and input i + k have weights[kOutputs + r − k].
template <int kOutputs>
__device__ __forceinline__ void load_weights(float (&weights)[2 * kOutputs], float const* s_w, int o, int i) {
  float4 const* const from = reinterpret_cast<float4 const*>(s_w + (kTile + o - i - kOutputs));
#pragma unroll
  for (int k = 0; k < 2 * kOutputs / prim::kQuad; ++k) {
    float4 const four = from[k];
    weights[4 * k] = four.x;
    weights[4 * k + 1] = four.y;
    weights[4 * k + 2] = four.z;
    weights[4 * k + 3] = four.w;
  }
}

}  // namespace gaussian
