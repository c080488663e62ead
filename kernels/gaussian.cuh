// gaussian — parameter structs and geometry of explicit-radius attention, o = A^y V A^xᵀ per channel.
//
// A^y and A^x are one-dimensional: A_ij = w(|i − j|) / Z_i, w(δ) = exp(−ψ/2) with ψ = (δ/σ)² (gaussian) or exp(−ψ) with
// ψ = δ/σ (manhattan); Z_i = Σ_j w (norm row) or 1 (norm none). dA/dσ = A_ij (c ψ_ij − mean_i) / σ, mean_i = Σ_j A_ij c ψ_ij,
// c = 1 in both kernels (d/dσ of −(δ/σ)²/2 is (δ/σ)²/σ, of −δ/σ it is (δ/σ)/σ); norm none has mean 0.
// An axis is *y* or *x* as the host wants it: it swaps them freely, for A^y ⊗ A^x is symmetric in the two.
#pragma once
#include "prim/element.cuh"

// ---- Parameters: change src/ops/gaussian/params.rs together with these ----------------------------------------------

// Where element (b, h, line, position on the axis, 0) of a tensor lies, in elements.
struct GaussianStrides {
  int64_t offset, b, h, line, axis;
};
static_assert(sizeof(GaussianStrides) == 40, "change src/ops/gaussian/params.rs together with this");

// How the weights follow from a head's radius.
struct GaussianRadius {
  float const* sigma;              // [h] or [1]
  int64_t stride;                  // elements; 0: one radius for all heads
  int32_t reach;                   // the window: no weight beyond this distance
  int32_t kernel;                  // gaussian::Kernel
};
static_assert(sizeof(GaussianRadius) == 24, "change src/ops/gaussian/params.rs together with this");

// gaussian_fwd_norm: the factors of each head, for one direction.
struct GaussianNormParams {
  GaussianRadius radius;
  float* tables;                   // per radius: first[line], mean_y[y], second[x], mean_x[x], last; see the kernel
  int32_t y, x;
  int32_t is_row;                  // norm row, else none
  int32_t is_backward;
  int32_t rounding;                // gaussian::Rounding of the weights that the passes will use
  int32_t _pad;
};
static_assert(sizeof(GaussianNormParams) == 56, "change src/ops/gaussian/params.rs together with this");

// gaussian_fwd_line_*: one pass along one axis, for a rectangle of the work.
struct GaussianLineParams {
  GaussianRadius radius;
  void const* src;
  void* dst;
  float const* tables;
  GaussianStrides src_at, dst_at;  // of (bh 0, line 0, position 0), whatever part of it the launch touches
  int64_t table_stride;            // floats from one radius to the next
  int64_t pre, post_axis, post_line;   // index of the factors in a table, −1: none
  int32_t post_axis_step;          // 1: a factor per position, 0: one for all
  int32_t heads, first_bh;         // bh counts b · heads + h
  int32_t axis;                    // positions on the axis
  int32_t first_out, num_out;      // output positions of this launch
  int32_t num_lines;
  int32_t channels;                // of this launch
};
static_assert(sizeof(GaussianLineParams) == 192, "change src/ops/gaussian/params.rs together with this");

// gaussian_bwd_row_*, gaussian_bwd_col_*: the two passes of a backward that wants dσ.
struct GaussianBwdLineParams {
  GaussianRadius radius;
  void const* d_o;                 // row: reads
  void* dv;                        // col: writes, may be null
  void const* v;                   // col: reads
  float* ghat;                     // [bh][y][x][c] scratch: row writes, col reads
  float* ehat;                     // the same for the part that only dσ needs
  float* partials;                 // col: writes one sum per block
  float const* tables;
  GaussianStrides in_at;           // row: of d_o; col: of v
  GaussianStrides out_at;          // col: of dv
  GaussianStrides scratch_at;      // line and axis as the pass sees them
  int64_t table_stride;
  int64_t partials_bh;             // partials from one bh to the next
  int64_t first_partial;           // of this launch, within a bh
  int64_t post_line, mean_line;    // row: index of 1/Z_y and of mean_y in a table
  int64_t pre, mean_axis;          // row: index of 1/Z_x and of mean_x
  int32_t heads, first_bh;
  int32_t axis;
  int32_t first_out, num_out;
  int32_t num_lines;
  int32_t channels;
  int32_t _pad;
};
static_assert(sizeof(GaussianBwdLineParams) == 288, "change src/ops/gaussian/params.rs together with this");

// gaussian_bwd_sum_f32: dσ of each radius from its partial sums.
struct GaussianBwdSumParams {
  GaussianRadius radius;
  float const* partials;           // [b][h][per_bh]
  float* dsigma;
  int64_t per_bh;
  int64_t dsigma_stride;
  int32_t b, heads;
};
static_assert(sizeof(GaussianBwdSumParams) == 64, "change src/ops/gaussian/params.rs together with this");

// How planes lie in the shared memory of a block. An item is a slice of the channels of one plane [y, x].
struct GaussianItems {
  int32_t heads;
  int32_t items, items_per_block;  // slices of a plane count fastest
  int32_t slices;                  // of a plane
  int32_t log2_units;              // units of 16 bytes of a slice
  int32_t y, x, channels;
  int32_t pitch, unit_stride;      // shared memory: units from row to row, and from one unit's plane to the next
  int32_t item_bytes;              // shared memory of an item, its tables included
  int32_t is_row;
};
static_assert(sizeof(GaussianItems) == 48, "change src/ops/gaussian/params.rs together with this");

// gaussian_fwd_plane_*: both passes with whole planes in shared memory.
struct GaussianPlaneParams {
  GaussianRadius radius;
  void const* v;
  void* o;
  GaussianStrides v_at, o_at;      // line: y, axis: x
  GaussianItems items;
};
static_assert(sizeof(GaussianPlaneParams) == 168, "change src/ops/gaussian/params.rs together with this");

// gaussian_bwd_plane_*: dv and dσ with whole planes in shared memory.
struct GaussianBwdPlaneParams {
  GaussianRadius radius;
  void const* v;                   // read only for dσ
  void const* d_o;
  void* dv;                        // may be null
  float* partials;                 // [item], may be null: then no dσ
  GaussianStrides v_at, d_o_at, dv_at;
  GaussianItems items;
};
static_assert(sizeof(GaussianBwdPlaneParams) == 224, "change src/ops/gaussian/params.rs together with this");

namespace gaussian {

// Those after manhattan are not separable: gaussian_tile.cuh.
enum Kernel : int32_t { kGaussian = 0, kManhattan = 1, kExponential = 2, kLinear = 3, kCauchy = 4 };
enum Rounding : int32_t { kToF32 = 0, kToF16 = 1, kToBf16 = 2 };

// A tap counts while its weight is at least 2^-24 of the centre's, the last bit of an f32 sum (DROPPABLE in the reference).
constexpr float kReachGaussian = 5.7682f;    // sqrt(2 · 24 · ln 2), in radii
constexpr float kReachManhattan = 16.6356f;  // 24 · ln 2
// Nearer taps always count: they cost next to nothing, and of a tiny radius they are all that its gradient has.
constexpr int kReachLeast = 8;

// ---- Weights of one head ------------------------------------------------------------------------------------------

struct Head {
  float sigma;
  int32_t kernel;
  int32_t reach;     // largest distance with a tap; uniform for the head

  // (δ/σ)² or δ/σ; +inf where it overflows
  __device__ __forceinline__ float psi(int distance) const {
    float const q = float(distance) / sigma;
    return kernel == kManhattan ? q : q * q;
  }
  // The weight at a distance ≥ 0. NaN for a radius that is not positive.
  __device__ __forceinline__ float weight(int distance) const {
    float const exponent = kernel == kManhattan ? psi(distance) : 0.5f * psi(distance);
    float const w = distance <= reach ? expf(-exponent) : 0.f;
    return sigma > 0.f ? w : prim::not_a_number();
  }
  // w·ψ; 0 where w is 0, whatever ψ is.
  __device__ __forceinline__ float weight_psi(int distance) const {
    float const w = weight(distance);
    return w == 0.f ? 0.f : w * psi(distance);
  }
};

__device__ __forceinline__ Head head_of(GaussianRadius const& r, int hi, int axis) {
  Head head;
  head.sigma = __ldg(r.sigma + int64_t(hi) * r.stride);
  head.kernel = r.kernel;
  int const limit = min(r.reach, axis - 1);
  float const reach = head.sigma * (r.kernel == kManhattan ? kReachManhattan : kReachGaussian);
  // NaN: the whole axis, all of it NaN.
  head.reach = reach < float(limit) ? min(max(int(fmaxf(reach, 0.f)), kReachLeast), limit) : limit;
  return head;
}

__device__ __forceinline__ float rounded_as(float w, int rounding) {
  return rounding == kToF16 ? prim::rounded<__half>(w) : rounding == kToBf16 ? prim::rounded<__nv_bfloat16>(w) : w;
}

// The power of two at or below (above) x: intermediates of 16 bits are scaled by it, exactly.
__device__ __forceinline__ float power_of_two(float x, bool above) {
  float const low = ldexpf(1.f, ilogbf(x));
  return above && low < x ? 2.f * low : low;
}

// ---- Offsets ------------------------------------------------------------------------------------------------------

// One 64-bit base per (b, h); offsets inside its plane fit 32 bits, the host has checked.
__device__ __forceinline__ int64_t plane_of(GaussianStrides const& at, int bi, int hi) {
  return at.offset + at.b * bi + at.h * hi;
}
__device__ __forceinline__ int64_t bits_of(GaussianStrides const& at) {
  return at.offset | at.b | at.h | at.line | at.axis;
}

}  // namespace gaussian
