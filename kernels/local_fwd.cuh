// local_fwd — o = softmax(α (q·k + q·r)) v over the window of every query, fused.
//
// Work      one warp per patch of 4×4 queries (kPatches 2: two, one above the other, that share their keys), 8 warps a block;
//           keys of the patch's own halo, 16 at a time; softmax with a reference that follows the maximum lazily
// Reads     q once; k, v once per tile whose halo holds them; tables once per warp
// Writes    o, lse, each element once, by one lane
// Shared    k and v of a band of the tile's halo (one or two bands), and per warp the two tables of local_table.cuh
// Numerics  scores, softmax and sums f32; with 16-bit elements the weights are rounded to T before they meet v, and the
//           normaliser sums the rounded ones; lse, natural, sums the unrounded ones; base-2 exponentials
// Mirrors   src/reference/local.rs::forward, launched by src/ops/local/plan.rs::forward
#pragma once
#include "local_table.cuh"
#include "prim/softmax.cuh"

struct LocalFwdParams {
  local::Map q, k, v, o;
  float* lse;                   // null: not wanted
  local::Table rel_h, rel_w;
  local::Frame frame;
  local::TableShape tables;
  float scale_log2;             // |α|·log2(e), above 0
  int32_t is_negative;          // α < 0
};
static_assert(sizeof(LocalFwdParams) == 440, "LocalFwdParams: change src/ops/local/plan.rs together with this");

namespace local {

// What a warp keeps of one patch.
template <class P, int D>
struct FwdPatch {
  typename P::Rows q;
  float o[D / 8][4];
  float total[4];                 // of the rounded weights: [0] pixel g, [2] pixel g + 8
  prim::LazySoftmax softmax[2];   // pixels g and g + 8

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        o[i][j] = 0.f;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[2 * half] = total[2 * half + 1] = 0.f;
      softmax[half].start();
    }
  }

  // Scores become weights.
  __device__ __forceinline__ void weigh(float (&c)[2][4], float scale_log2) {
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = fmaxf(fmaxf(c[0][2 * half], c[0][2 * half + 1]), fmaxf(c[1][2 * half], c[1][2 * half + 1]));
    }
    bool const is_outgrown = softmax[0].is_outgrown(top[0], scale_log2) || softmax[1].is_outgrown(top[1], scale_log2);
    if (__any_sync(prim::kAllLanes, is_outgrown)) {
      float const low = softmax[0].move(top[0], scale_log2);
      float const high = softmax[1].move(top[1], scale_log2);
      total[0] *= low;
      total[2] *= high;
      P::scale(o, low, high);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = softmax[i / 2].weight(c[j][i], scale_log2);
      }
    }
  }
};

// The rows first .. end of a band, for those patches that see them. Rows count from the halo's first.
template <class P, int D, int kFirst, int kCount, int kPatches>
__device__ __forceinline__ void see_rows(FwdPatch<P, D> (&patches)[kPatches], Starts const (&starts)[kPatches],
                                         int const (&first_row)[kPatches], LocalFwdParams const& p, uint32_t s_k,
                                         uint32_t s_v, int band_first, int column, int first, int end) {
  if (first >= end) {
    return;
  }
  Frame const& f = p.frame;
  Walk walk;
  walk.packed = f.packed;
  walk.pixel_bytes = P::pixel_bytes(f);
  walk.wrap_bytes = (f.x.halo - f.packed) * walk.pixel_bytes;
  walk.last_bytes = ((end - band_first) * f.x.halo - 1) * walk.pixel_bytes;
  int const at = first - band_first;
  auto const units = P::units_of_lane(column + at * f.packed);
  Group groups[2];
  groups[0] = Group{0, first, (at * f.x.halo + column) * walk.pixel_bytes};
  int const no_row = f.y.window + kPatch - 1;
  for (; groups[0].y < end; groups[0] = walk.next(groups[1])) {
    groups[1] = walk.next(groups[0]);
    typename P::Weights weights[kCount];
    float(*sums[kCount])[4];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      FwdPatch<P, D>& patch = patches[kFirst + k];
      int const above = first_row[kFirst + k];
      float c[2][4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        Group const own{groups[j].x, groups[j].y - above, 0};
        starts[kFirst + k](c[j], walk, own, end - above, no_row);
      }
      P::dots(c, patch.q, s_k, walk, groups, units, f);
      patch.weigh(c, p.scale_log2);
      weights[k] = P::weights_of(c);
      P::add_totals(patch.total, weights[k]);
      sums[k] = patch.o;
    }
    P::template weighted_sums<kCount>(sums, weights, s_v, walk, groups, units, f.e);
  }
}

template <class T, int D, int kPatches>
__device__ __forceinline__ void fwd(LocalFwdParams const& p) {
  using P = Product<T, D>;
  Frame const& f = p.frame;
  auto* s_bytes = prim::shared_memory<unsigned char>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const warp = threadIdx.x / prim::kWarp;
  constexpr int kPatchHeight = kPatch * kPatches;
  Lane const lane = lane_of_warp();
  Tile const tile = tile_of_grid(f, blockIdx.x);
  Span const y = query_span(f.y, tile.residue_y, tile.y, f.y.patches * kPatchHeight);
  Span const x = query_span(f.x, tile.residue_x, tile.x, f.x.patches * kPatch);
  int const halo_y = window_start(f.y, y, y.first);
  int const halo_x = window_start(f.x, x, x.first);
  int const halo_rows = min(f.y.halo, window_start(f.y, y, y.first + f.y.patches * kPatchHeight - 1) + f.y.window - halo_y);
  WarpPlace const place = place_of_warp(f, kPatchHeight);
  int const plane = tile.first_plane + place.slot;
  bool const plane_lives = plane < tile.end_plane;
  int const my_plane = plane_lives ? plane : tile.first_plane;
  int const patch_y = y.first + place.y;
  int const patch_x = x.first + place.x;

  // ---- Load: the first band, q, the tables ----------------------------------------------------------------------------
  prim::Channels const k_channels = channels_of<T>(p.k, f.d);
  prim::Channels const v_channels = channels_of<T>(p.v, f.e);
  auto copy = [&](int band) {
    int const first = band * f.band_rows;
    int const rows = min(f.band_rows, halo_rows - first);
    unsigned char* s_stage = s_bytes + (f.stages == 2 ? band % 2 : 0) * f.stage_bytes;
    for (int i = 0; i < tile.end_plane - tile.first_plane; ++i) {
      Plane<T const> const k = plane_of<T const>(p.k, f, tile, tile.first_plane + i);
      Plane<T const> const v = plane_of<T const>(p.v, f, tile, tile.first_plane + i);
      unsigned char* s_plane = s_stage + 2 * i * f.plane_bytes;
      copy_band<T>(s_plane, f, k, k_channels, y.size, x.size, halo_y + first, halo_x, rows, P::pixel_bytes(f) / prim::kUnitBytes);
      copy_band<T>(s_plane + f.plane_bytes, f, v, v_channels, y.size, x.size, halo_y + first, halo_x, rows, P::pixel_bytes(f) / prim::kUnitBytes);
    }
    prim::commit_copies();
  };
  copy(0);

  FwdPatch<P, D> patches[kPatches];
  Starts starts[kPatches];
  int first_row[kPatches];
  bool lives[kPatches][2];
  Plane<T const> const q = plane_of<T const>(p.q, f, tile, my_plane);
  prim::Channels const q_channels = channels_of<T>(p.q, f.d);
  int const hi = my_plane / f.batch;
  T const* const rel_h = table_of_head<T>(p.rel_h, hi);
  T const* const rel_w = table_of_head<T>(p.rel_w, hi);
#pragma unroll
  for (int i = 0; i < kPatches; ++i) {
    int const own_y = patch_y + i * kPatch;
    T const* pixel[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const m = lane.g + half * kGroup;
      int const yi = own_y + m / kPatch;
      int const xi = patch_x + m % kPatch;
      lives[i][half] = plane_lives && yi >= 0 && yi < y.end && xi >= 0 && xi < x.end;
      pixel[half] = lives[i][half] ? q.pixel(yi, xi) : q.data;
    }
    FwdPatch<P, D>& patch = patches[i];
    patch.start();
    patch.q = P::load_rows(pixel, lives[i], q_channels);
    if (p.is_negative) {
      patch.q.flip_signs();
    }
    Tables const tables =
        tables_at(s_bytes + f.stages * f.stage_bytes + warp * f.warp_bytes + i * p.tables.bytes, p.tables, f);
    clear_tables(tables, p.tables);
    __syncwarp();   // sync: tables cleared before other lanes fill them
    fill_axis<true, P, T>(tables, patch.q, p.rel_h, rel_h, f.y, y, own_y, f.packed);
    fill_axis<false, P, T>(tables, patch.q, p.rel_w, rel_w, f.x, x, patch_x, f.packed);
    starts[i] = starts_of(tables);
    first_row[i] = window_start(f.y, y, own_y) - halo_y;
  }
  __syncwarp();   // sync: tables filled before other lanes of the warp read them

  // ---- Main loop: bands of the halo -------------------------------------------------------------------------------------
  int const column = window_start(f.x, x, patch_x) - halo_x;
  int const last_row = first_row[kPatches - 1] + f.y.window + kPatch - 1;   // one past the last that the warp sees
  int const bands = (halo_rows + f.band_rows - 1) / f.band_rows;
  for (int band = 0; band < bands; ++band) {
    bool const is_ahead = f.stages == 2 && band + 1 < bands;
    if (is_ahead) {
      copy(band + 1);
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: this band has landed, from every thread
    unsigned char* s_plane = s_bytes + (f.stages == 2 ? band % 2 : 0) * f.stage_bytes + 2 * place.slot * f.plane_bytes;
    uint32_t const s_k = prim::shared_address(s_plane);
    uint32_t const s_v = s_k + f.plane_bytes;
    int const band_first = band * f.band_rows;
    int const first = max(band_first, first_row[0]);
    int const end = min(min(band_first + f.band_rows, halo_rows), last_row);
    if (plane_lives) {
      if constexpr (kPatches == 1) {
        see_rows<P, D, 0, 1>(patches, starts, first_row, p, s_k, s_v, band_first, column, first, end);
      } else {
        int const second = first_row[1];                               // rows of the upper patch, of both, of the lower
        int const third = first_row[0] + f.y.window + kPatch - 1;
        see_rows<P, D, 0, 1>(patches, starts, first_row, p, s_k, s_v, band_first, column, first, min(end, second));
        see_rows<P, D, 0, 2>(patches, starts, first_row, p, s_k, s_v, band_first, column, max(first, second), min(end, third));
        see_rows<P, D, 1, 1>(patches, starts, first_row, p, s_k, s_v, band_first, column, max(first, third), end);
      }
    }
    if (band + 1 < bands) {
      __syncthreads();   // sync: this band has been read before the next one but one, or the next, overwrites it
      if (f.stages == 1) {
        copy(band + 1);
      }
    }
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  Plane<T> const o = plane_of<T>(p.o, f, tile, my_plane);
  prim::Channels const o_channels = channels_of<T>(p.o, f.e);
#pragma unroll
  for (int i = 0; i < kPatches; ++i) {
    FwdPatch<P, D>& patch = patches[i];
    T* pixel[2];
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const m = lane.g + half * kGroup;
      int const yi = patch_y + i * kPatch + m / kPatch;
      int const xi = patch_x + m % kPatch;
      float const sum = prim::quad_sum(patch.softmax[half].sum);
      inverse[half] = 1.f / (P::kRounds ? patch.total[2 * half] : sum);
      pixel[half] = lives[i][half] ? o.pixel(yi, xi) : o.data;
      if (p.lse != nullptr && lives[i][half] && lane.t == 0) {
        p.lse[pixel_index(f, tile, my_plane, yi, xi)] = (patch.softmax[half].reference + prim::log2_approx(sum)) * prim::kLn2;
      }
    }
    P::scale(patch.o, inverse[0], inverse[1]);
    P::store(patch.o, pixel, lives[i], o_channels);
  }
}

}  // namespace local

#define LOCAL_FWD(name, T, D, kPatches, kMinBlocks, smem)                                                             \
  ENTRY_SMEM(name, smem);                                                                                             \
  extern "C" __global__ void __launch_bounds__(local::kThreads, kMinBlocks)                                           \
      name(__grid_constant__ LocalFwdParams const p) {                                                                \
    local::fwd<T, D, kPatches>(p);                                                                                    \
  }
