// local_fwd — o = softmax(α (q·k + q·r) + B) v over the window of every query, fused; B only in the entries of local_fwd_bias.
//
// Work      one warp per patch of 4×4 queries (kPatches 2: two, one above the other, that share their keys), 8 warps a block;
//           keys of the patch's own halo, 16 at a time; softmax with a reference that follows the maximum lazily
// Reads     q once; k, v once per tile whose halo holds them; tables once per warp
// Writes    o, lse, each element once, by one lane
// Shared    k and v of a band of the tile's halo (one or two bands), per warp the two tables of local_table.cuh (with B only if
//           there are relative tables), and B of the planes' heads
// Numerics  scores, softmax and sums f32; with 16-bit elements the weights are rounded to T before they meet v, and the
//           normaliser sums the rounded ones; lse, natural, sums the unrounded ones
// Mirrors   src/reference/local.rs::forward, launched by src/ops/local/plan.rs::forward
#pragma once
#include "local_bias.cuh"
#include "prim/softmax.cuh"

struct LocalFwdParams {
  local::Map q, k, v, o;
  float* lse;                   // null: not wanted
  local::Table rel_h, rel_w;
  local::Frame frame;
  local::TableShape tables;
  float scale;                  // |α|, as Exponent takes it; above 0
  int32_t is_negative;          // α < 0
  int32_t unused;
};
static_assert(sizeof(LocalFwdParams) == 528, "LocalFwdParams: change src/ops/local/plan.rs together with this");

struct LocalFwdBiasParams {
  LocalFwdParams plain;
  local::Bias bias;
};
static_assert(sizeof(LocalFwdBiasParams) == 600, "LocalFwdBiasParams: change src/ops/local/plan/bias.rs together with this");

namespace local {

// What a warp keeps of one patch.
template <class P, int D>
struct FwdPatch {
  typename P::Rows q;
  float o[D / 8][4];
  float total[4];                 // of the rounded weights: [0] pixel g, [2] pixel g + 8
  prim::LazySoftmax<!P::kRounds> softmax[2];   // pixels g and g + 8

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
  __device__ __forceinline__ void weigh(float (&c)[2][4], float scale) {
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = fmaxf(fmaxf(c[0][2 * half], c[0][2 * half + 1]), fmaxf(c[1][2 * half], c[1][2 * half + 1]));
    }
    bool const is_outgrown = softmax[0].is_outgrown(top[0], scale) || softmax[1].is_outgrown(top[1], scale);
    if (__any_sync(prim::kAllLanes, is_outgrown)) {
      float const low = softmax[0].move(top[0], scale);
      float const high = softmax[1].move(top[1], scale);
      if (__any_sync(prim::kAllLanes, low != 1.f || high != 1.f)) {
        total[0] *= low;
        total[2] *= high;
        P::scale(o, low, high);
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = softmax[i / 2].weight(c[j][i], scale);
      }
    }
  }
};

// Kernels without a bias have tables.
template <class B>
__device__ __forceinline__ bool has_tables(LocalFwdParams const& p) {
  return !B::kIsThere || p.rel_h.data != nullptr || p.rel_w.data != nullptr;
}

// The rows first .. end of a band, for those patches that see them. Rows count from the halo's first.
template <class P, int D, class B, int kFirst, int kCount, int kPatches>
__device__ __forceinline__ void see_rows(FwdPatch<P, D> (&patches)[kPatches], Tables const (&tables)[kPatches],
                                         typename B::Patch const (&of_patch)[kPatches], int const (&first_row)[kPatches],
                                         LocalFwdParams const& p, Bias const* bias, uint32_t s_plane, int band_first, int column,
                                         int first, int end) {
  if (first >= end) {
    return;
  }
  Frame const& f = p.frame;
  Walk const walk = walk_rows(f, P::pixel_bytes(f), band_first, column, first, end);
  typename P::Way way = P::start_way(walk, s_plane);
  typename B::Starts starts[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    starts[i] = B::starts_of(tables[kFirst + i], has_tables<B>(p), bias, of_patch[kFirst + i], first - first_row[kFirst + i]);
  }
#pragma unroll 1
  for (int key = 0; key < walk.count; key += kStep) {
    typename P::Addresses const addresses = P::dot_addresses(way, walk);
    typename P::Weights weights[kCount];
    float(*sums[kCount])[4];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      FwdPatch<P, D>& patch = patches[kFirst + i];
      float c[2][4];
      starts[i](c, walk, key);
      starts[i].advance();
      P::dots(c, patch.q, addresses, 0);
      B::add(c, starts[i], bias, walk, key, f.y.window, p.scale);
      mask_tail(c, walk, key);
      patch.weigh(c, B::rest(p.scale));
      weights[i] = P::weights_of(c);
      P::add_totals(patch.total, weights[i]);
      sums[i] = patch.o;
    }
    P::template weighted_sums<kCount>(sums, weights, way, walk, f.plane_bytes, f.e);
    way.advance(walk);
  }
}

// `bias`: null without one.
template <class T, int D, int kPatches, class B>
__device__ __forceinline__ void fwd(LocalFwdParams const& p, Bias const* bias) {
  using P = Product<T, D>;
  Frame const& f = p.frame;
  uint32_t const s_bytes = prim::shared_address(prim::shared_memory<unsigned char>());

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  constexpr int kPatchHeight = kPatch * kPatches;
  int const warp = prim::warp_of_block();
  Tile const tile = tile_of_grid(f, blockIdx.x);
  int const height = kPatchHeight << f.y.patches_log2;
  Span const y = query_span(f.y, tile.residue_y, tile.y, height);
  Span const x = query_span(f.x, tile.residue_x, tile.x, kPatch << f.x.patches_log2);
  Keys const rows = halo_of(f.y, y, y.first, y.first + height - 1);
  int const halo_x = window_start(f.x, x, x.first);
  WarpPlace const place = place_of_warp(f, warp, kPatchHeight);
  bool const plane_lives = tile.first_plane + place.slot < tile.end_plane;
  PlaneIndex const plane = plane_index(f, tile.first_plane + (plane_lives ? place.slot : 0));

  // ---- Load: the first band, q, the tables ----------------------------------------------------------------------------
  prim::Channels const k_channels = channels_of(p.k, f.d);
  prim::Channels const v_channels = channels_of(p.v, f.e);
  auto copy = [&](int first, uint32_t s_stage) {
    Band const band{rows.first + first, halo_x, min(f.band_rows, rows.count - first)};
#pragma unroll 1
    for (int i = tile.first_plane; i < tile.end_plane; ++i) {
      PlaneIndex const at = plane_index(f, i);
      auto const k = plane_of<T const>(p.k, f, tile, at);
      auto const v = plane_of<T const>(p.v, f, tile, at);
      copy_bands<T, P::kPixelBytes>(s_stage, f, k, k_channels, v, v_channels, y.size, x.size, band, warp);
      s_stage += 2 * f.plane_bytes;
    }
    prim::commit_copies();
  };
  copy(0, s_bytes);
  if constexpr (B::kIsThere) {
    copy_bias<P>(s_bytes, *bias, f, tile);
  }

  FwdPatch<P, D> patches[kPatches];
  Tables tables[kPatches];
  typename B::Patch of_patch[kPatches];
  int first_row[kPatches];   // that it sees, from the halo's first; before it where that is outside the map
  int const patch_x = x.first + place.x;
  int const column = window_start(f.x, x, patch_x) - halo_x;
  auto const q = plane_of<T const>(p.q, f, tile, plane);
  prim::Channels const q_channels = channels_of(p.q, f.d);
  T const* const rel_h = table_of_head<T>(p.rel_h, plane.hi);
  T const* const rel_w = table_of_head<T>(p.rel_w, plane.hi);
#pragma unroll
  for (int i = 0; i < kPatches; ++i) {
    int const patch_y = y.first + place.y + i * kPatch;
    PatchPixels const pixels = patch_pixels(y, x, patch_y, patch_x, plane_lives);
    T const* pixel[2];
    pixels.pointers(pixel, q);
    FwdPatch<P, D>& patch = patches[i];
    patch.start();
    patch.q = P::load_rows(pixel, pixels.lives, q_channels);
    if (p.is_negative) {
      patch.q.flip_signs();
    }
    uint32_t const s_tables = s_bytes + f.warp_offset + (plane_lives ? warp : 0) * f.warp_bytes + i * p.tables.bytes;
    tables[i] = tables_at(s_tables, p.tables);
    first_row[i] = window_start(f.y, y, patch_y) - rows.first;
    if constexpr (B::kIsThere) {
      uint32_t const s_copy = bias_of_slot(*bias, s_bytes, place.slot);
      of_patch[i] = bias_of_patch<false>(*bias, s_copy, f, y, x, patch_y, patch_x, pixels.lives);
    }
    if (plane_lives && has_tables<B>(p)) {
      clear_tables(s_tables, p.tables, -INFINITY);
      __syncwarp();   // sync: tables cleared before other lanes fill them
      int const both[2] = {pixels.x, pixels.x};
      fill_tables<true, P, T>(tables[i], patch.q, p.rel_h, rel_h, f.y, y, pixels.y, rows.first + first_row[i], f.packed);
      fill_tables<false, P, T>(tables[i], patch.q, p.rel_w, rel_w, f.x, x, both, halo_x + column, f.packed);
    }
  }

  // ---- Main loop: bands of the halo -------------------------------------------------------------------------------------
  int const own_rows = f.y.window + kPatch - 1;   // that a patch sees
  uint32_t s_stage = s_bytes;
#pragma unroll 1
  for (int band = 0; band < rows.count; band += f.band_rows) {
    uint32_t const s_other = f.stages == 1 ? s_bytes : s_bytes + (s_stage == s_bytes ? f.stage_bytes : 0);
    bool const is_last = band + f.band_rows >= rows.count;
    if (f.stages == 2 && !is_last) {
      copy(band + f.band_rows, s_other);
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: this band has landed, from every thread; tables filled
    uint32_t const s_plane = s_stage + 2 * place.slot * f.plane_bytes;
    int const first = max(band, first_row[0]);
    int const end = plane_lives ? min(min(band + f.band_rows, rows.count), first_row[kPatches - 1] + own_rows) : 0;
    if constexpr (kPatches == 1) {
      see_rows<P, D, B, 0, 1>(patches, tables, of_patch, first_row, p, bias, s_plane, band, column, first, end);
    } else {
      // Rows of the upper patch alone, of both, of the lower alone.
      int const second = first_row[1];
      int const third = first_row[0] + own_rows;
      see_rows<P, D, B, 0, 1>(patches, tables, of_patch, first_row, p, bias, s_plane, band, column, first, min(end, second));
      see_rows<P, D, B, 0, 2>(patches, tables, of_patch, first_row, p, bias, s_plane, band, column, max(first, second), min(end, third));
      see_rows<P, D, B, 1, 1>(patches, tables, of_patch, first_row, p, bias, s_plane, band, column, max(first, third), end);
    }
    if (!is_last) {
      __syncthreads();   // sync: this band has been read before another one overwrites it
      if (f.stages == 1) {
        copy(band + f.band_rows, s_bytes);
      }
    }
    s_stage = s_other;
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  auto const o = plane_of<T>(p.o, f, tile, plane);
  prim::Channels const o_channels = channels_of(p.o, f.e);
#pragma unroll
  for (int i = 0; i < kPatches; ++i) {
    FwdPatch<P, D>& patch = patches[i];
    PatchPixels const pixels = patch_pixels(y, x, y.first + place.y + i * kPatch, patch_x, plane_lives);
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float const sum = prim::quad_sum(patch.softmax[half].sum);
      inverse[half] = prim::reciprocal_approx(P::kRounds ? patch.total[2 * half] : sum);
      if (p.lse != nullptr && pixels.lives[half] && prim::lane_of_warp().t == 0) {
        using E = prim::Exponent<!P::kRounds>;
        float const lse = patch.softmax[half].reference + E::logarithm(sum);
        p.lse[pixel_index(f, tile, plane, pixels.y[half], pixels.x)] = P::kRounds ? lse * prim::kLn2 : lse;
      }
    }
    T* pixel[2];
    pixels.pointers(pixel, o);
    P::scale(patch.o, inverse[0], inverse[1]);
    P::store(patch.o, pixel, pixels.lives, o_channels);
  }
}

}  // namespace local

#define LOCAL_FWD(name, T, D, kPatches, kMinBlocks)                                  \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, kMinBlocks)          \
      name(__grid_constant__ LocalFwdParams const p) {                               \
    local::fwd<T, D, kPatches, local::WithoutBias>(p, nullptr);                      \
  }

#define LOCAL_FWD_BIAS(name, T, D, kPatches, kMinBlocks)                             \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, kMinBlocks)          \
      name(__grid_constant__ LocalFwdBiasParams const p) {                           \
    local::fwd<T, D, kPatches, local::WithBias>(p.plain, &p.bias);                   \
  }
