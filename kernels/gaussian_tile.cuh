// gaussian_tile — weights that are no product of one along y and one along x, tile by tile: exponential, linear, cauchy.
//
// Tiles are kSide × kSide pixels on a grid. Between a tile of queries and a tile of keys a weight depends on the difference of
// two pixels alone, so 15 × 15 weights stand for 64 × 64 pairs; one key row seen from one query row is a Toeplitz matrix. All
// images and channels share them: a block takes kColumns units of 16 bytes from the channels of all images of a head.
#pragma once
#include "gaussian.cuh"
#include "prim/copy.cuh"
#include "prim/softmax.cuh"

// ---- Parameters: change src/ops/gaussian/params.rs together with these ----------------------------------------------

// How the work is cut into blocks, which count (head, group of columns, tile of queries), the last fastest.
struct GaussianTiles {
  int32_t y, x, channels;
  int32_t units;                   // of a pixel
  int32_t columns;                 // units of all images of a head
  int32_t groups;                  // of columns
  int32_t rows_of_tiles, tiles_of_row;
};
static_assert(sizeof(GaussianTiles) == 32, "change src/ops/gaussian/params.rs together with this");

// gaussian_fwd_tile_norm: Z and the mean slope of every query of each radius.
struct GaussianTileNormParams {
  GaussianRadius radius;
  float* inverse;                  // [radius][y][x], 1 / Z
  float* mean;                     // [radius][y][x], Σ_j ∂w_ij/∂σ / Z_i; may be null
  GaussianTiles tiles;
  int32_t rounding;                // gaussian::Rounding of the weights that Z sums
  int32_t _pad;
};
static_assert(sizeof(GaussianTileNormParams) == 80, "change src/ops/gaussian/params.rs together with this");

// gaussian_fwd_tile_*: dst = W src, inputs or outputs times 1 / Z.
struct GaussianTileParams {
  GaussianRadius radius;
  void const* src;
  void* dst;
  float const* inverse;            // null: norm none
  GaussianStrides src_at, dst_at;  // line: y, axis: x
  GaussianTiles tiles;
  int32_t scales_inputs;           // the transpose of A: 1 / Z belongs to the inputs
  int32_t _pad;
};
static_assert(sizeof(GaussianTileParams) == 168, "change src/ops/gaussian/params.rs together with this");

// gaussian_bwd_tile_*: one partial sum of dσ per block.
struct GaussianBwdTileParams {
  GaussianRadius radius;
  void const* v;
  void const* d_o;
  float* partials;                 // [block]
  float const* inverse;            // null: norm none
  float const* mean;
  GaussianStrides v_at, d_o_at;    // line: y, axis: x
  GaussianTiles tiles;
};
static_assert(sizeof(GaussianBwdTileParams) == 176, "change src/ops/gaussian/params.rs together with this");

namespace gaussian {

constexpr int kSide = 8;                       // of a tile
constexpr int kPixels = kSide * kSide;
constexpr int kTileThreads = 128;
constexpr int kTileWarps = kTileThreads / prim::kWarp;
constexpr int kColumns = 16;                   // units of a block
constexpr int kPitch = kColumns + 1;           // odd: neighbouring pixels lie in different banks
constexpr int kTaps = 2 * kSide;               // of a row of weights: entry c is the difference c − kSide along x; 0 is not used
constexpr int kTapRows = 2 * kSide;            // entry r is the difference r − (kSide − 1) along y; the last is not used

using TileOfUnits = uint4[kPixels][kPitch];

// ---- Weights of one head ------------------------------------------------------------------------------------------

struct Tap {
  float w;
  float slope;       // ∂w/∂σ; 0 where w is 0
};

struct Profile {
  float sigma;
  float inverse;     // 1 / σ, +inf where it overflows
  int32_t kernel;
  int32_t window;    // no weight beyond this distance along either axis

  // NaN for a radius that is not positive.
  __device__ __forceinline__ Tap tap(int dy, int dx) const {
    float const square = float(dy) * float(dy) + float(dx) * float(dx);
    float const distance = sqrt_approx(square);
    float const q = square == 0.f ? 0.f : distance * inverse;
    Tap tap;
    if (kernel == kExponential) {
      tap.w = prim::exp2_approx(-q * prim::kLog2E);
      tap.slope = q * tap.w * inverse;
    } else if (kernel == kLinear) {
      tap.w = fmaxf(1.f - q, 0.f);
      tap.slope = q * inverse;
    } else {
      // 1/(1 + q²) and its slope 2q²/(1 + q²)²/σ, where q > 1 by 1/q, whose square stays in range
      bool const is_far = q > 1.f;
      float const t = is_far ? sigma / distance : q;
      float const share = 1.f / (1.f + t * t);
      tap.w = is_far ? t * t * share : share;
      tap.slope = 2.f * share * share * (is_far ? t / distance : t * t * inverse);
    }
    bool const is_inside = max(abs(dy), abs(dx)) <= window;
    tap.w = is_inside ? tap.w : 0.f;
    // Infinite factors of weights that are 0 count for nothing; neither does the centre, whose weight is always 1.
    bool const moves = square > 0.f && tap.w > 0.f;
    tap.slope = moves ? tap.slope : 0.f;
    if (!(sigma > 0.f)) {
      tap.w = tap.slope = prim::not_a_number();
    }
    return tap;
  }

  static __device__ __forceinline__ float sqrt_approx(float x) {
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }

  // The distance from which on weights are 0, or below the last bit of an f32 sum.
  __device__ __forceinline__ float reach() const {
    if (kernel == kLinear) {
      return sigma;
    }
    return kernel == kExponential ? fmaxf(sigma * kReachManhattan, float(kReachLeast)) : INFINITY;
  }
};

__device__ __forceinline__ Profile profile_of(GaussianRadius const& r, int hi) {
  float const sigma = __ldg(r.sigma + int64_t(hi) * r.stride);
  return Profile{sigma, 1.f / sigma, r.kernel, r.reach};
}

// ---- Walk: the tiles of keys with a weight for a tile of queries ----------------------------------------------------

struct Walk {
  float reach, window;
  int row, column;             // of the tile of queries, in tiles
  int rows, columns;           // of the map, in tiles
  int last_row;
  int key_row, key_column;     // of the tile of keys
  int last_column;

  __device__ __forceinline__ Walk(Profile const& profile, GaussianTiles const& tiles, int tile) {
    // A little more: tiles on the brink are taken, and a weight that rounding made is not lost.
    reach = fmaxf(profile.reach() * 1.00001f, 0.f);
    window = float(profile.window);
    rows = tiles.rows_of_tiles;
    columns = tiles.tiles_of_row;
    row = tile / columns;
    column = tile - row * columns;
    int const around = extent(fminf(reach, window), rows);
    last_row = min(row + around, rows - 1);
    start(max(row - around, 0));
  }

  __device__ __forceinline__ bool done() const { return key_row > last_row; }

  __device__ __forceinline__ void next() {
    if (++key_column > last_column) {
      start(key_row + 1);
    }
  }

  // Pixels from the tile of keys to the tile of queries.
  __device__ __forceinline__ int dy() const { return (row - key_row) * kSide; }
  __device__ __forceinline__ int dx() const { return (column - key_column) * kSide; }

private:
  // Tiles to either side with a pixel so near, at most `most`.
  static __device__ __forceinline__ int extent(float distance, int most) {
    return int(fminf((distance + float(kSide - 1)) * (1.f / kSide), float(most)));
  }

  __device__ __forceinline__ void start(int of_row) {
    key_row = of_row;
    float const nearest = fmaxf(float(abs(of_row - row) * kSide - (kSide - 1)), 0.f);
    float const left = sqrtf(fmaxf(reach * reach - nearest * nearest, 0.f));
    int const around = extent(fminf(left, window), columns);
    last_column = min(column + around, columns - 1);
    key_column = max(column - around, 0);
  }
};

// ---- Tiles of pixels ------------------------------------------------------------------------------------------------

// Which part of the work a block has.
struct TileBlock {
  int hi, tile, first_column;
};
__device__ __forceinline__ TileBlock tile_block(GaussianTiles const& tiles) {
  int const per_group = tiles.rows_of_tiles * tiles.tiles_of_row;
  int const group = blockIdx.x / per_group;
  TileBlock block;
  block.tile = blockIdx.x - group * per_group;
  block.hi = group / tiles.groups;
  block.first_column = (group - block.hi * tiles.groups) * kColumns;
  return block;
}

// A thread's column of a tensor: one unit of channels of one image, at pixels (0 to kSide − 1, own) of a tile.
template <class T>
struct Column {
  GaussianTiles const& tiles;
  int64_t origin;            // of the unit's image
  prim::Channels channels;
  int line, axis;
  int channel;
  int own;                   // position along x within a tile
  int index;                 // within the block
  bool live;

  __device__ __forceinline__ Column(GaussianTiles const& tiles, void const* base, GaussianStrides const& at,
                                    TileBlock const& block)
      : tiles(tiles) {
    index = threadIdx.x % kColumns;
    own = threadIdx.x / kColumns;
    int const flat = block.first_column + index;
    live = flat < tiles.columns;
    int const bi = live ? flat / tiles.units : 0;
    channel = (flat - bi * tiles.units) * prim::kUnit<T>;
    origin = plane_of(at, bi, block.hi);
    channels = prim::channels_of<T>(base, bits_of(at), tiles.channels);
    line = int(at.line);
    axis = int(at.axis);
  }

  __device__ __forceinline__ bool exists(int yi, int xi) const { return live && yi < tiles.y && xi < tiles.x; }

  // The tile (row, column) into shared memory, zeros outside the map; in flight until it is waited for.
  __device__ __forceinline__ void copy(TileOfUnits& to, void const* base, int row, int column) const {
    int const xi = column * kSide + own;
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      int const yi = row * kSide + i;
      bool const here = exists(yi, xi);
      T const* const pixel = static_cast<T const*>(base) + origin + (here ? line * yi + axis * xi : 0);
      prim::copy_unit(&to[i * kSide + own][index], pixel, channel, channels, here);
    }
  }

  // What `copy` brought, and has landed, times a factor of the pixel.
  __device__ __forceinline__ void scale(TileOfUnits& x, float const* factors, int row, int column) const {
    int const xi = column * kSide + own;
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      int const yi = row * kSide + i;
      if (exists(yi, xi)) {
        float const f = __ldg(factors + yi * tiles.x + xi);
        uint4& unit = x[i * kSide + own][index];
        float numbers[prim::kUnit<T>];
        prim::unpack_unit<T>(numbers, unit);
#pragma unroll
        for (float& number : numbers) {
          number *= f;
        }
        unit = prim::pack_unit<T>(numbers);
      }
    }
  }
};

}  // namespace gaussian
