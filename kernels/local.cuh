// local — parameters and geometry of windowed attention, the same for forward and backward.
//
// A query attends to a rectangle of keys, so everything about windows and borders is said per axis: which keys a query
// sees, and which row of the axis' relative table a pair of pixels reads. Borders, dilation and blocks differ only in these
// functions; kernels see keys, tables and −inf.
//
//   map       the pixels of one (batch, head); with dilation, of one residue class of it (rows r, r + dilation, …)
//   patch     4×4 queries (or keys, in the gather of dk and dv): the 16 rows of one warp's products
//   tile      the patches of a block's warps, side by side
//   halo      the pixels that a tile can see: what a block holds in shared memory, in bands of rows
#pragma once
#include "prim/divide.cuh"
#include "prim/mma.cuh"
#include "prim/warp.cuh"

namespace local {

constexpr int kWarps = 8;                            // per block, one patch (or two, one above the other) each
constexpr int kThreads = kWarps * prim::kWarp;
constexpr int kPatch = 4;                            // pixels of a patch along each axis
constexpr int kPatchPixels = kPatch * kPatch;
constexpr int kFar = 1 << 29;                        // further than any pixel of any map, and safe to add

// ---- Parameters ---------------------------------------------------------------------------------------------------

using prim::Map;

// A relative table [heads, rows, channels], which holds channels first .. first + channels of q's; null: none.
struct Table {
  void const* data;
  int64_t stride_h, stride_row, stride_channel;   // stride_h is 0 when the heads share the table
  int32_t first, channels;
  int64_t is_wide;   // as of a map; `first` too
};

// One axis of the problem and of its tiling.
struct Axis {
  int32_t size;              // pixels of the tensor along this axis
  int32_t dilation;          // pixels between neighbouring keys; below, one residue class is a map of its own
  int32_t window;            // keys that a query sees, if all exist
  int32_t before;            // how far before the query (before its block, with blocks) the window starts
  int32_t is_shifted;        // the window is moved inwards until it fits
  int32_t has_outside;       // keys outside the map take part, as zeros
  int32_t block;             // queries that share one window; 0: each query has its own
  int32_t block_start;       // first pixel of block 0, at most 0
  int32_t table_rows;        // offsets that the relative table knows
  int32_t table_origin;      // its row of offset 0: row = key − query + origin
  int32_t patches_log2;      // patches of a tile along this axis: 1, 2, 4 or 8
  prim::Divisor tiles;       // along this axis
  int32_t tiles_per_block;   // with blocks
  int32_t halo;              // pixels of a tile's halo, at most
};

// The whole launch: a grid of (plane groups, residue classes, tiles), and shared memory cut as the host planned it.
struct Frame {
  Axis y, x;
  prim::Divisor batch;
  prim::Divisor groups_per_section;
  int32_t heads;
  int32_t d, e;                  // channels of q and k, of v and o
  int32_t planes;                // (head, batch) planes of a block, `kWarps / planes` warps each
  int32_t section;               // planes that may share a block: all, or one head's
  int32_t packed;                // pixels of a warp's halo row, as its keys are numbered: even, 8 or more
  uint32_t packed_factor;        // ⌈2^32 / packed⌉: a multiplication high by it divides a key's number
  int32_t band_rows;             // halo rows in shared memory at a time
  int32_t stages;                // bands in shared memory: 1, or 2 with the next one in flight
  int32_t pixel_bytes;           // of a pixel in shared memory, d and e alike
  int32_t plane_bytes;           // of one tensor's band of one plane
  int32_t stage_bytes;           // of all planes' bands of both tensors
  int32_t warp_offset;           // where the memory behind the stages begins
  int32_t warp_bytes;            // of a warp's own memory there
};

// ---- Geometry of one axis -----------------------------------------------------------------------------------------

__device__ __forceinline__ int floor_div(int a, int b) {
  int const quotient = a / b;
  return quotient - (quotient * b > a ? 1 : 0);
}

__device__ __forceinline__ int clamped(int x, int low, int high) { return min(max(x, low), high); }

// A tile along one axis, in coordinates of its residue class.
struct Span {
  int size;              // pixels of the residue class
  int first, end;        // the tile's first pixel; one past the last that may belong to it
  int low, high;         // where windows may start
};

__device__ __forceinline__ int class_size(Axis const& a, int residue) {
  return a.dilation == 1 ? a.size : (a.size - residue + a.dilation - 1) / a.dilation;
}

// The tile of queries `tile`, `extent` pixels long.
__device__ __forceinline__ Span query_span(Axis const& a, int residue, int tile, int extent) {
  Span s;
  s.size = class_size(a, residue);
  if (a.block == 0) {
    s.first = tile * extent;
    s.end = s.size;
    s.low = a.is_shifted ? 0 : -kFar;
    s.high = a.is_shifted ? s.size - a.window : kFar;
  } else {
    int const start = a.block_start + tile / a.tiles_per_block * a.block;
    s.first = start + tile % a.tiles_per_block * extent;
    s.end = min(s.size, start + a.block);
    s.low = s.high = start - a.before;
  }
  return s;
}

// The first key of query q's window; it never decreases with q.
__device__ __forceinline__ int window_start(Axis const& a, Span const& s, int q) {
  return clamped(q - a.before, s.low, s.high);
}

// As window_start, of any query of the map.
__device__ __forceinline__ int window_start(Axis const& a, int size, int q) {
  if (a.block == 0) {
    return a.is_shifted ? clamped(q - a.before, 0, size - a.window) : q - a.before;
  }
  return a.block_start + floor_div(q - a.block_start, a.block) * a.block - a.before;
}

// The queries that see any of the keys first .. last; some may lie outside the map.
struct Range {
  int first, last;

  __device__ __forceinline__ Range inside(int size) const { return Range{max(first, 0), min(last, size - 1)}; }
};

__device__ __forceinline__ Range queries_of(Axis const& a, int size, int first, int last) {
  Range r;
  if (a.block == 0) {
    // A shifted window starts at 0 for all queries before the map's first whole window, and likewise at the end.
    r.first = a.is_shifted && first < a.window ? 0 : first - a.window + 1 + a.before;
    r.last = a.is_shifted && last >= size - a.window ? size - 1 : last + a.before;
  } else {
    r.first = a.block_start + floor_div(first - a.before - a.block_start, a.block) * a.block;
    r.last = a.block_start + (floor_div(last + a.before - a.block_start, a.block) + 1) * a.block - 1;
  }
  return r;
}

// Keys [first, first + count) along one axis.
struct Keys {
  int first, count;

  __device__ __forceinline__ bool contain(int key) const { return unsigned(key - first) < unsigned(count); }
};

// What the query whose window starts at `start` sees.
__device__ __forceinline__ Keys keys_of(Axis const& a, int size, int start) {
  int const first = a.has_outside ? start : max(start, 0);
  int const end = a.has_outside ? start + a.window : min(start + a.window, size);
  return Keys{first, max(end - first, 0)};
}

// The keys of a tile whose queries are `first` .. `last`; the map's own, unless others take part. At least one, even where no query
// lives: blocks do not skip their barriers.
__device__ __forceinline__ Keys halo_of(Axis const& a, Span const& s, int first, int last) {
  Keys const keys = keys_of(a, s.size, window_start(a, s, first));
  int const end = window_start(a, s, last) + a.window;
  return Keys{keys.first, max((a.has_outside ? end : min(end, s.size)) - keys.first, 1)};
}

}  // namespace local
