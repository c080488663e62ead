// local — what a block and a warp of it work on: places, planes, bands of the halo, and the walk over a warp's keys.
#pragma once
#include "local.cuh"

namespace local {

// ---- Where am I ---------------------------------------------------------------------------------------------------

// One tile of the grid.
struct Tile {
  int y, x;                    // its place among tiles
  int residue_y, residue_x;
  int first_plane, end_plane;  // its planes that exist
};

__device__ __forceinline__ Tile tile_of_grid(Frame const& f, int index) {
  Tile tile;
  int above = f.x.tiles.quotient(index);
  tile.x = f.x.tiles.remainder(index, above);
  index = above;
  above = f.y.tiles.quotient(index);
  tile.y = f.y.tiles.remainder(index, above);
  index = above;
  tile.residue_y = tile.residue_x = 0;
  if (f.y.dilation * f.x.dilation > 1) {
    tile.residue_x = index % f.x.dilation;
    index /= f.x.dilation;
    tile.residue_y = index % f.y.dilation;
    index /= f.y.dilation;
  }
  int const section = f.groups_per_section.quotient(index);
  tile.first_plane = section * f.section + f.groups_per_section.remainder(index, section) * f.planes;
  tile.end_plane = min((section + 1) * f.section, tile.first_plane + f.planes);
  return tile;
}

// A warp's patch in its block's tile.
struct WarpPlace {
  int slot;   // which of the block's planes
  int y, x;   // pixels from the tile's first
};

__device__ __forceinline__ WarpPlace place_of_warp(Frame const& f, int warp, int patch_height) {
  int const x = warp & ((1 << f.x.patches_log2) - 1);
  int const y = warp >> f.x.patches_log2 & ((1 << f.y.patches_log2) - 1);
  return WarpPlace{warp >> (f.x.patches_log2 + f.y.patches_log2), y * patch_height, x * kPatch};
}

// ---- Planes -------------------------------------------------------------------------------------------------------

// Which (head, batch): planes count batches fastest, so that those of a head are together.
struct PlaneIndex {
  int hi, bi;
};

__device__ __forceinline__ PlaneIndex plane_index(Frame const& f, int plane) {
  int const hi = f.batch.quotient(plane);
  return PlaneIndex{hi, f.batch.remainder(plane, hi)};
}

// The pixels of one (batch, head) and residue class in one tensor.
template <class T>
struct Plane {
  T* data;
  int64_t step_y, step_x;

  __device__ __forceinline__ T* pixel(int yi, int xi) const { return data + yi * step_y + xi * step_x; }
};

template <class T>
__device__ __forceinline__ Plane<T> plane_of(Map const& map, Frame const& f, Tile const& tile, PlaneIndex at) {
  auto* data = static_cast<T*>(map.data) + at.bi * map.stride_b + at.hi * map.stride_h;
  if (f.y.dilation * f.x.dilation > 1) {
    data += tile.residue_y * map.stride_y + tile.residue_x * map.stride_x;
  }
  return Plane<T>{data, map.stride_y * f.y.dilation, map.stride_x * f.x.dilation};
}

// The host has seen whether strides and `count` are whole units, the kernel sees the address.
__device__ __forceinline__ prim::Channels channels_of(Map const& map, int32_t count) {
  return prim::Channels{count, map.is_wide && reinterpret_cast<uint64_t>(map.data) % prim::kUnitBytes == 0};
}

// The pixel's place in a contiguous [b, h, y, x].
__device__ __forceinline__ int64_t pixel_index(Frame const& f, Tile const& tile, PlaneIndex at, int yi, int xi) {
  int const y = yi * f.y.dilation + tile.residue_y;
  int const x = xi * f.x.dilation + tile.residue_x;
  return ((int64_t(at.bi) * f.heads + at.hi) * f.y.size + y) * f.x.size + x;
}

// The pixels g and g + 8 of the patch at (y, x).
struct PatchPixels {
  int y[2], x;
  bool lives[2];

  template <class T>
  __device__ __forceinline__ void pointers(T* (&pixel)[2], Plane<T> const& plane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      pixel[half] = lives[half] ? plane.pixel(y[half], x) : plane.data;
    }
  }
};

__device__ __forceinline__ PatchPixels patch_pixels(Span const& y, Span const& x, int patch_y, int patch_x, bool plane_lives) {
  int const g = prim::fresh_lane() / 4;
  PatchPixels p;
  p.x = patch_x + g % kPatch;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    p.y[half] = patch_y + g / kPatch + half * 2;
    p.lives[half] = plane_lives && p.y[half] >= 0 && p.y[half] < y.end && p.x >= 0 && p.x < x.end;
  }
  return p;
}

// ---- The halo in shared memory --------------------------------------------------------------------------------------

// Pixels lie row by row; the units of a pixel are permuted by its phase, which counts pixels as warps number their keys.
// So 8 consecutive keys, even around the end of a row, put one unit into 8 different bank groups (matrix loads), and a
// pair of keys puts units 0–3 of 32 channels into different halves of the 128 bytes (vector loads).
constexpr int kPhases = 8;
__device__ __forceinline__ int swizzle(int phase) { return (phase & 1) << 2 | (phase >> 1 & 3); }

// One unit, from its first channel on: asynchronously if it may be read whole.
template <class T>
__device__ __forceinline__ void copy_unit(uint32_t s_unit, T const* unit, int channel, prim::Channels channels, bool lives) {
  if (channels.wide) {
    prim::copy_unit_async(s_unit, unit, lives);
  } else {
    prim::store_shared_unit(s_unit, lives ? prim::load_unit(unit - channel, channel, channels) : make_uint4(0, 0, 0, 0));
  }
}

// Where a band of the halo lies in its plane.
struct Band {
  int first_y, first_x;   // of its first pixel; they may lie outside the plane
  int rows;
};

// Copies a band of two tensors, `f.x.halo` pixels a row, to `s_band` and `f.plane_bytes` behind; pixels outside the plane and
// channels that do not exist become zeros. Every warp takes whole rows, its lanes neighbouring units. In flight until waited
// for. `kPixelBytes` is 0 when only the host knows it.
template <class T, int kPixelBytes>
__device__ __forceinline__ void copy_bands(uint32_t s_band, Frame const& f, Plane<T const> const& a, prim::Channels a_channels,
                                           Plane<T const> const& b, prim::Channels b_channels, int size_y, int size_x,
                                           Band const& band, int warp) {
  int const lane = prim::fresh_lane();
  int const pixel_bytes = kPixelBytes > 0 ? kPixelBytes : f.pixel_bytes;
  int const units = pixel_bytes / prim::kUnitBytes;
  int const pixels_at_once = prim::kWarp / units;
  int const first = lane / units;
  int const unit = lane - first * units;
  int const channel = unit * prim::kUnit<T>;
  // The permutation repeats after so many copies of a lane.
  constexpr int kPeriod = kPixelBytes > 0 ? kPhases * kPixelBytes / prim::kUnitBytes / prim::kWarp : 1;
  static_assert(kPeriod > 0, "a warp copies at most kPhases pixels at once");
  int const columns = first < pixels_at_once ? f.x.halo - first : 0;   // for this lane; some may be left over
  int const first_x = band.first_x + first;
  bool const a_exists = channel < a_channels.count;
  bool const b_exists = channel < b_channels.count;
#pragma unroll 1
  for (int row = warp; row < band.rows; row += kWarps) {
    int const yi = band.first_y + row;
    unsigned const width = unsigned(yi) < unsigned(size_y) ? size_x : 0;
    int const phase = first + row * f.packed;
    uint32_t const s_pixel = s_band + (row * f.x.halo + first) * pixel_bytes;
    T const* a_pixel = a.data + yi * a.step_y + first_x * a.step_x + channel;
    T const* b_pixel = b.data + yi * b.step_y + first_x * b.step_x + channel;
    if (a_channels.wide && b_channels.wide && kPixelBytes > 0) {
      uint32_t at[kPeriod];
#pragma unroll
      for (int i = 0; i < kPeriod; ++i) {
        at[i] = s_pixel + (unit ^ (swizzle(phase + i * pixels_at_once) & (units - 1))) * prim::kUnitBytes;
      }
#pragma unroll 1
      for (int x = 0; x < f.x.halo; x += kPeriod * pixels_at_once) {
#pragma unroll
        for (int i = 0; i < kPeriod; ++i) {
          int const column = x + i * pixels_at_once;
          if (column < columns) {
            bool const lives = unsigned(first_x + column) < width;
            prim::copy_unit_async(at[i] + i * pixels_at_once * pixel_bytes, a_pixel, lives && a_exists);
            prim::copy_unit_async(at[i] + i * pixels_at_once * pixel_bytes + f.plane_bytes, b_pixel, lives && b_exists);
          }
          a_pixel += pixels_at_once * a.step_x;
          b_pixel += pixels_at_once * b.step_x;
          at[i] += kPeriod * pixels_at_once * pixel_bytes;
        }
      }
    } else {
#pragma unroll 1
      for (int x = 0; x < columns; x += pixels_at_once) {
        bool const lives = unsigned(first_x + x) < width;
        uint32_t const to = s_pixel + x * pixel_bytes + (unit ^ (swizzle(phase + x) & (units - 1))) * prim::kUnitBytes;
        copy_unit(to, a_pixel, channel, a_channels, lives && a_exists);
        copy_unit(to + f.plane_bytes, b_pixel, channel, b_channels, lives && b_exists);
        a_pixel += pixels_at_once * a.step_x;
        b_pixel += pixels_at_once * b.step_x;
      }
    }
  }
}

// ---- A warp's keys --------------------------------------------------------------------------------------------------

constexpr int kGroup = 8;                     // keys of one tensor core column block
constexpr int kStep = 2 * kGroup;             // keys of one step

// The rows of a band that a warp sees. Their pixels are numbered row by row, `packed` (8 or more) to a row.
struct Walk {
  int packed;
  uint32_t packed_factor;
  int pixel_bytes;
  int first_bytes;   // key 0, from the start of the band
  int wrap_bytes;    // what the end of a row skips
  int last_bytes;    // the last pixel that may be read; keys beyond are masked, whatever is read for them
  int phase;         // of key 0
  int count;         // keys

  __device__ __forceinline__ int row(int key) const { return int(__umulhi(uint32_t(key), packed_factor)); }
};

// Rows first .. end of a band whose row 0 is `band_first`, from `column` on.
__device__ __forceinline__ Walk walk_rows(Frame const& f, int pixel_bytes, int band_first, int column, int first, int end) {
  Walk w;
  w.packed = f.packed;
  w.packed_factor = f.packed_factor;
  w.pixel_bytes = pixel_bytes;
  w.first_bytes = ((first - band_first) * f.x.halo + column) * pixel_bytes;
  w.wrap_bytes = (f.x.halo - f.packed) * pixel_bytes;
  w.last_bytes = ((end - band_first) * f.x.halo - 1) * pixel_bytes;
  w.phase = column + (first - band_first) * f.packed;
  w.count = (end - first) * f.packed;
  return w;
}

// One lane's key of every step: its address in shared memory. Signed: a halo narrower than `packed` wraps backwards.
struct Cursor {
  int key;
  int straight;   // where the key would be if rows had no end
  int last;

  // Key `key` of the first step; `unit_bytes` into its pixel.
  __device__ __forceinline__ Cursor(Walk const& walk, uint32_t s_band, int key, int unit_bytes)
      : key(key),
        straight(int(s_band) + walk.first_bytes + key * walk.pixel_bytes + unit_bytes),
        last(int(s_band) + walk.last_bytes + unit_bytes) {}

  // The address of the key `ahead` further, less that way on a straight row.
  __device__ __forceinline__ uint32_t address(Walk const& walk, int ahead) const {
    return min(straight + walk.row(key + ahead) * walk.wrap_bytes, last - ahead * walk.pixel_bytes);
  }
  __device__ __forceinline__ void advance(Walk const& walk) {
    key += kStep;
    straight += kStep * walk.pixel_bytes;
  }
};

}  // namespace local
