// local — what a block and a warp of it work on: places, planes, bands of the halo, and the walk over a warp's keys.
#pragma once
#include "local.cuh"

namespace local {

// ---- Where am I ---------------------------------------------------------------------------------------------------

struct Lane {
  int g, t;   // of a product's fragment: row g (and g + 8), columns 2t and 2t + 1
};

__device__ __forceinline__ Lane lane_of_warp() {
  int const lane = threadIdx.x % prim::kWarp;
  return Lane{lane / 4, lane % 4};
}

// One tile of the grid.
struct Tile {
  int y, x;                    // its place among tiles
  int residue_y, residue_x;
  int first_plane, end_plane;  // planes of its section that exist
};

__device__ __forceinline__ Tile tile_of_grid(Frame const& f, int index) {
  Tile tile;
  tile.x = index % f.x.tiles;
  index /= f.x.tiles;
  tile.y = index % f.y.tiles;
  index /= f.y.tiles;
  tile.residue_y = tile.residue_x = 0;
  if (f.y.dilation * f.x.dilation > 1) {
    tile.residue_x = index % f.x.dilation;
    index /= f.x.dilation;
    tile.residue_y = index % f.y.dilation;
    index /= f.y.dilation;
  }
  int const section = index / f.groups_per_section;
  tile.first_plane = section * f.section + index % f.groups_per_section * f.planes;
  tile.end_plane = min((section + 1) * f.section, tile.first_plane + f.planes);
  return tile;
}

// A warp's patch in its block's tile.
struct WarpPlace {
  int slot;   // which of the block's planes
  int y, x;   // pixels from the tile's first
};

__device__ __forceinline__ WarpPlace place_of_warp(Frame const& f, int patch_height) {
  int const warp = threadIdx.x / prim::kWarp;
  int const per_plane = f.y.patches * f.x.patches;
  WarpPlace place;
  place.slot = warp / per_plane;
  int const patch = warp - place.slot * per_plane;
  int const row = patch / f.x.patches;
  place.y = row * patch_height;
  place.x = (patch - row * f.x.patches) * kPatch;
  return place;
}

// ---- Planes -------------------------------------------------------------------------------------------------------

// The pixels of one (batch, head) and residue class in one tensor.
template <class T>
struct Plane {
  T* data;
  int64_t step_y, step_x;

  __device__ __forceinline__ T* pixel(int yi, int xi) const { return data + yi * step_y + xi * step_x; }
};

template <class T>
__device__ __forceinline__ Plane<T> plane_of(Map const& map, Frame const& f, Tile const& tile, int plane) {
  int const hi = plane / f.batch;
  int const bi = plane - hi * f.batch;
  auto* data = static_cast<T*>(map.data) + bi * map.stride_b + hi * map.stride_h +
               tile.residue_y * map.stride_y + tile.residue_x * map.stride_x;
  return Plane<T>{data, map.stride_y * f.y.dilation, map.stride_x * f.x.dilation};
}

template <class T>
__device__ __forceinline__ prim::Channels channels_of(Map const& map, int32_t count) {
  return prim::channels_of<T>(map.data, map.stride_b | map.stride_h | map.stride_y | map.stride_x, count);
}

// The pixel's place in a contiguous [b, h, y, x].
__device__ __forceinline__ int64_t pixel_index(Frame const& f, Tile const& tile, int plane, int yi, int xi) {
  int const hi = plane / f.batch;
  int const bi = plane - hi * f.batch;
  int const y = yi * f.y.dilation + tile.residue_y;
  int const x = xi * f.x.dilation + tile.residue_x;
  return ((int64_t(bi) * f.heads + hi) * f.y.size + y) * f.x.size + x;
}

// ---- The halo in shared memory --------------------------------------------------------------------------------------

// Pixels lie row by row; the units of a pixel are permuted by its phase, which counts pixels as warps number their keys.
// So 8 consecutive keys, even around the end of a row, put one unit into 8 different bank groups (matrix loads), and a
// pair of keys puts units 0–3 of 32 channels into different halves of the 128 bytes (vector loads).
__device__ __forceinline__ int swizzle(int phase) { return (phase & 1) << 2 | (phase >> 1 & 3); }

// Copies `rows` rows, `f.x.halo` pixels each, of the plane to `s_band`; pixels outside it and channels that do not exist
// become zeros. Every warp takes whole rows, its lanes neighbouring units. In flight until waited for.
template <class T>
__device__ __forceinline__ void copy_band(unsigned char* s_band, Frame const& f, Plane<T const> const& plane,
                                          prim::Channels channels, int size_y, int size_x, int first_y,
                                          int first_x, int rows, int units) {
  int const lane = threadIdx.x % prim::kWarp;
  int const pixels_at_once = prim::kWarp / units;
  int const first = lane / units;
  int const unit = lane - first * units;
  int const channel = unit * prim::kUnit<T>;
  bool const works = first < pixels_at_once;
  for (int row = threadIdx.x / prim::kWarp; row < rows; row += kWarps) {
    int const yi = first_y + row;
    bool const row_lives = yi >= 0 && yi < size_y && channel < channels.count;
    T const* pixel = plane.pixel(row_lives ? yi : 0, first_x + first);
    unsigned char* s_pixel = s_band + (row * f.x.halo + first) * units * prim::kUnitBytes;
    int phase = first + row * f.packed;
    int xi = first_x + first;
    for (int hx = first; hx < f.x.halo; hx += pixels_at_once) {
      bool const lives = row_lives && xi >= 0 && xi < size_x;
      int const at = unit ^ (swizzle(phase) & (units - 1));
      if (works) {
        prim::copy_unit(reinterpret_cast<uint4*>(s_pixel) + at, lives ? pixel : plane.data, channel, channels, lives);
      }
      pixel += pixels_at_once * plane.step_x;
      s_pixel += pixels_at_once * units * prim::kUnitBytes;
      phase += pixels_at_once;
      xi += pixels_at_once;
    }
  }
}

// ---- A warp's keys --------------------------------------------------------------------------------------------------

constexpr int kGroup = 8;                     // keys of one tensor core column block
constexpr int kStep = 2 * kGroup;             // keys of one step

// Eight consecutive keys.
struct Group {
  int x, y;      // column of the first in the warp's halo, and row
  int offset;    // bytes of its pixel from the band's start
};

// The rows of a band that a warp sees, its pixels numbered row by row, `packed` (8 or more) to a row.
struct Walk {
  int packed, pixel_bytes;
  int wrap_bytes;   // what the end of a row skips
  int last_bytes;   // the last pixel that may be read; keys beyond are masked, whatever is read for them

  __device__ __forceinline__ Group next(Group const& group) const {
    Group n{group.x + kGroup, group.y, group.offset + kGroup * pixel_bytes};
    if (n.x >= packed) {
      n.x -= packed;
      n.y += 1;
      n.offset += wrap_bytes;
    }
    return n;
  }

  // Bytes from the band's start to key `i` (0 ≤ i < 8) of the group.
  __device__ __forceinline__ int bytes(Group const& group, int i) const {
    int const straight = group.offset + i * pixel_bytes;
    return min(group.x + i >= packed ? straight + wrap_bytes : straight, last_bytes);
  }

  // Row of key `i` of the group.
  __device__ __forceinline__ int row(Group const& group, int i) const {
    return group.y + (group.x + i >= packed ? 1 : 0);
  }
};

}  // namespace local
