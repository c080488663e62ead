// local_bwd_dq — dq, δ = Σ do·o, and the gradients of the relative tables and of a bias as partial sums.
//
// Work      one warp per patch of 4×4 queries, as local_fwd; a block makes a run of tiles, one after the other, so that
//           partial sums are few
// Reads     q, do, o once; k, v once per tile whose halo holds them; lse once
// Writes    dq, δ, each element once; one partial of the gradients of tables and bias per block (read back once per further
//           tile)
// Shared    as local_fwd; its tables make room for the sums of local_sums.cuh; the bands for a tile's table gradients; per warp
//           the sums of local_bias_sums.cuh
// Numerics  products f32; the gradient of a score, before the factor α, is rounded to T where it meets k and q; its sums by
//           row and column are f32, and meet the tables and q in two parts, high and low; the bias' gradient sums unrounded ones
// Mirrors   src/reference/local.rs::backward, launched by src/ops/local/plan.rs::backward
#pragma once
#include "local_bias_sums.cuh"
#include "local_sums.cuh"

struct LocalBwdDqParams {
  local::Map q, k, v, o, d_o, dq;   // dq may be null
  float const* lse;
  float* delta;                     // [b, h, y, x]; null: nobody reads it
  float* partials;                  // [blocks][table rows y + x][d]; null: no table gradients
  local::Table rel_h, rel_w;
  local::Frame frame;
  local::TableShape tables;
  int32_t sums_offset;              // of the sums in a warp's memory: 0 where they replace the tables
  int32_t staged_offset;            // of the queries in the stages, behind the skewed sums
  prim::Divisor blocks_per_section;
  int32_t tiles_per_section, tiles_per_block;
  float scale;                      // α
  float exponent_scale;             // |α|, as Exponent takes it; above 0
  int32_t is_negative;              // α < 0
  int32_t unused;
};
static_assert(sizeof(LocalBwdDqParams) == 672, "LocalBwdDqParams: change src/ops/local/plan.rs together with this");

struct LocalBwdDqBiasParams {
  LocalBwdDqParams plain;
  local::Bias bias;
  local::BiasGradient gradient;
};
static_assert(sizeof(LocalBwdDqBiasParams) == 784,
              "LocalBwdDqBiasParams: change src/ops/local/plan/bias.rs together with this");

namespace local {

constexpr int kTableTile = 16;                             // table rows, of both tables in turn, that are summed at a time
constexpr int kSkewPitch = kPatchPixels + 4;               // floats; rows of 16 pixels meet no bank conflict
constexpr int kSkewBytes = kTableTile * kSkewPitch * 4;    // of a warp

// A number as two of T: high + low is it to twice the digits.
template <class T>
struct Split {
  uint32_t high, low;
  __device__ __forceinline__ Split(float a, float b) {
    high = prim::Pair<T>::pack(a, b);
    float2 const h = prim::Pair<T>::unpack(high);
    low = prim::Pair<T>::pack(a - h.x, b - h.y);
  }
};

// One row of either table. Its fields are chosen one by one: a pointer to a parameter would put it on the stack.
template <class T>
struct TableRow {
  T const* data;   // of q's channel 0
  int64_t stride_channel;
  int32_t first, channels;   // none where there is no such row

  __device__ __forceinline__ float element(int channel) const {
    return unsigned(channel - first) < unsigned(channels) ? prim::to_float(data[channel * stride_channel]) : 0.f;
  }
};

template <class T>
__device__ __forceinline__ TableRow<T> table_row(LocalBwdDqParams const& p, T const* rel_h, T const* rel_w, int row) {
  int const rows = p.frame.y.table_rows;
  bool const is_h = row < rows;
  T const* const table = is_h ? rel_h : rel_w;
  bool const lives = table != nullptr && row < rows + p.frame.x.table_rows;
  TableRow<T> r;
  r.stride_channel = is_h ? p.rel_h.stride_channel : p.rel_w.stride_channel;
  r.first = is_h ? p.rel_h.first : p.rel_w.first;
  r.channels = lives ? is_h ? p.rel_h.channels : p.rel_w.channels : 0;
  int64_t const stride_row = is_h ? p.rel_h.stride_row : p.rel_w.stride_row;
  r.data = table + (is_h ? row : row - rows) * stride_row - r.first * r.stride_channel;
  return r;
}

// Where a patch's sums lie along one axis.
struct PatchAxis {
  int first;        // query
  int halo_first;   // key of the sums' entry 0
};

// The entry of `query` for a row of its axis' table: of halo row or column `entry`, if the query sees that key.
__device__ __forceinline__ int entry_of(Axis const& a, Span const& s, PatchAxis const& patch, int query, int offset) {
  int const key = query + offset - a.table_origin;
  bool const lives = query >= 0 && query < s.end && keys_of(a, s.size, window_start(a, s, query)).contain(key);
  return lives ? key - patch.halo_first : -1;
}

// The sum of a pixel of the patch for a row of both tables in turn.
__device__ __forceinline__ float sum_of(Frame const& f, uint32_t s_sums, TableShape const& shape, Span const& y, Span const& x,
                                        PatchAxis const& patch_y, PatchAxis const& patch_x, int pixel, int row) {
  int const g = pixel % kGroup;
  int const half = pixel / kGroup;
  int const in_x = row - f.y.table_rows;
  int at = -1;   // floats
  if (in_x < 0) {
    int const entry = entry_of(f.y, y, patch_y, patch_y.first + pixel / kPatch, row);
    at = entry < 0 ? -1 : kGroup * shape.pair_pitch * 4 + (g * shape.row_pitch + entry) * 2 + half;
  } else if (in_x < f.x.table_rows) {
    int const entry = entry_of(f.x, x, patch_x, patch_x.first + pixel % kPatch, in_x);
    at = entry < 0 ? -1 : (g * shape.pair_pitch + entry / 2) * 4 + half * 2 + entry % 2;
  }
  return at < 0 ? 0.f : load_shared(s_sums + at * int(sizeof(float)));
}

// dq += Σ sums of a table tile · its rows, on tensor cores.
template <class P, class T, int D>
__device__ __forceinline__ void add_table_rows(float (&dq)[D / 8][4], uint32_t s_skew, LocalBwdDqParams const& p, T const* rel_h,
                                               T const* rel_w, int first_row) {
  prim::Lane const lane = prim::lane_of_warp();
  if constexpr (P::kRounds) {
    uint32_t high[4], low[4];
    TableRow<T> row[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {   // columns 2t and 2t + 8 of the left side
      uint32_t const at = s_skew + ((i * kGroup + 2 * lane.t) * kSkewPitch + lane.g) * int(sizeof(float));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t const entry = at + half * kGroup * int(sizeof(float));
        Split<T> const split(load_shared(entry), load_shared(entry + kSkewPitch * int(sizeof(float))));
        high[2 * i + half] = split.high;
        low[2 * i + half] = split.low;
      }
      row[2 * i] = table_row(p, rel_h, rel_w, first_row + i * kGroup + 2 * lane.t);
      row[2 * i + 1] = table_row(p, rel_h, rel_w, first_row + i * kGroup + 2 * lane.t + 1);
    }
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      if (j * 8 < p.frame.d) {
        int const channel = j * 8 + lane.g;
        uint32_t const b0 = prim::Pair<T>::pack(row[0].element(channel), row[1].element(channel));
        uint32_t const b1 = prim::Pair<T>::pack(row[2].element(channel), row[3].element(channel));
        prim::mma<T>(dq[j], high, b0, b1);
        prim::mma<T>(dq[j], low, b0, b1);
      }
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < kTableTile; ++i) {
      TableRow<T> const row = table_row(p, rel_h, rel_w, first_row + i);
      uint32_t const at = s_skew + (i * kSkewPitch + lane.g) * int(sizeof(float));
      float const low = load_shared(at);
      float const high = load_shared(at + kGroup * int(sizeof(float)));
#pragma unroll
      for (int j = 0; j < D / 8; j += 2) {
        if (j * 8 < p.frame.d) {
#pragma unroll
          for (int channel = 0; channel < 4; ++channel) {
            float const r = row.element(j * 8 + lane.t * 4 + channel);
            dq[j][channel] = fmaf(low, r, dq[j][channel]);
            dq[j + 1][channel] = fmaf(high, r, dq[j + 1][channel]);
          }
        }
      }
    }
  }
}

// Adds to (or starts) the block's partial: one element.
__device__ __forceinline__ void accumulate(float* element, float x, bool is_first) {
  *element = is_first ? x : *element + x;
}

// The block's partial of a table tile: Σ over all its queries of skewed sum · q. Every warp has its own channels.
template <class P, class T, int D>
__device__ __forceinline__ void sum_table_rows(float* partial, LocalBwdDqParams const& p, uint32_t s_stages, int warp, int first_row,
                                               int warps, bool is_first) {
  Frame const& f = p.frame;
  prim::Lane const lane = prim::lane_of_warp();
  int const rows = f.y.table_rows + f.x.table_rows;
  constexpr int kSlice = 16;   // channels
  if (warp * kSlice < f.d) {
    float c[2][4] = {};
#pragma unroll 1
    for (int w = 0; w < warps; ++w) {
      uint32_t high[4], low[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {   // pixels 2t and 2t + 8
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t const at = s_stages + w * kSkewBytes +
                              ((lane.g + half * kGroup) * kSkewPitch + i * kGroup + 2 * lane.t) * int(sizeof(float));
          Split<T> const split(load_shared(at), load_shared(at + int(sizeof(float))));
          high[2 * i + half] = split.high;
          low[2 * i + half] = split.low;
        }
      }
      uint32_t b[4];
      P::staged_units(b, s_stages + p.staged_offset + w * P::kStagedBytes, warp);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        prim::mma<T>(c[n], high, b[2 * n], b[2 * n + 1]);
        prim::mma<T>(c[n], low, b[2 * n], b[2 * n + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int const row = first_row + lane.g + i / 2 * kGroup;
        int const channel = warp * kSlice + n * kGroup + 2 * lane.t + i % 2;
        if (row < rows && channel < f.d) {
          accumulate(partial + int64_t(row) * f.d + channel, c[n][i], is_first);
        }
      }
    }
  }
}

// The same in f32, with q from global memory: a thread has one channel of 8 table rows.
template <class T>
__device__ __forceinline__ void sum_table_rows_f32(float* partial, LocalBwdDqParams const& p, uint32_t s_stages, Tile const& tile,
                                                   Span const& y, Span const& x, int first_row, int warps, bool is_first) {
  Frame const& f = p.frame;
  constexpr int kRows = kTableTile / 2;   // of a thread
  int const channel = threadIdx.x % (kThreads / 2);
  int const half = threadIdx.x / (kThreads / 2);
  if (channel >= f.d) {
    return;   // no barrier below
  }
  float c[kRows] = {};
#pragma unroll 1
  for (int w = 0; w < warps; ++w) {
    WarpPlace const place = place_of_warp(f, w, kPatch);
    if (tile.first_plane + place.slot < tile.end_plane) {
      auto const q = plane_of<T const>(p.q, f, tile, plane_index(f, tile.first_plane + place.slot));
#pragma unroll 1
      for (int m = 0; m < kPatchPixels; ++m) {
        int const yi = y.first + place.y + m / kPatch;
        int const xi = x.first + place.x + m % kPatch;
        if (yi >= 0 && yi < y.end && xi >= 0 && xi < x.end) {
          float const element = prim::to_float(q.pixel(yi, xi)[channel]);
          float const value = p.is_negative ? -element : element;   // as tensor cores see q
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            uint32_t const at = s_stages + w * kSkewBytes + ((half * kRows + i) * kSkewPitch + m) * int(sizeof(float));
            c[i] = fmaf(load_shared(at), value, c[i]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    int const row = first_row + half * kRows + i;
    if (row < f.y.table_rows + f.x.table_rows) {
      accumulate(partial + int64_t(row) * f.d + channel, c[i], is_first);
    }
  }
}

// What the kernel knows of a bias; null pointers without one.
struct DqBias {
  Bias const* bias;
  BiasGradient const* gradient;
};

// Where a bias takes registers too, pixels of two lines leave none for sums of scores.
template <class P, class B>
constexpr bool kSumsAreShared = B::kIsThere && P::kPixelBytes > kLineBytes;

template <bool kShared, class P>
struct SumsOf {
  using Type = ScoreSums<P>;
};
template <class P>
struct SumsOf<true, P> {
  using Type = SharedSums;
};
template <class P, class B>
using DqSums = typename SumsOf<kSumsAreShared<P, B>, P>::Type;

// Kernels without a bias have tables.
template <class B>
__device__ __forceinline__ bool has_tables(LocalBwdDqParams const& p) {
  return !B::kIsThere || p.rel_h.data != nullptr || p.rel_w.data != nullptr;
}

// The rows first .. end of a band. Rows count from the halo's first.
template <class P, int D, class B>
__device__ __forceinline__ void see_rows(float (&dq)[D / 8][4], DqSums<P, B>& sums, typename P::Rows const& q,
                                         typename P::Rows const& d_o, float const (&delta)[2], float const (&lse)[2],
                                         Tables const& tables, typename B::Patch const& of_patch, uint32_t s_own,
                                         LocalBwdDqParams const& p, DqBias const& with, uint32_t s_plane, int band_first,
                                         int column, int first_row, int first, int end) {
  Frame const& f = p.frame;
  Walk const walk = walk_rows(f, P::pixel_bytes(f), band_first, column, first, end);
  typename P::Way way = P::start_way(walk, s_plane);
  typename B::Starts starts = B::starts_of(tables, has_tables<B>(p), with.bias, of_patch, first - first_row);
  [[maybe_unused]] BiasSums bias_sums;
  if constexpr (B::kIsThere) {
    bias_sums = BiasSums(s_own, *with.gradient, first - first_row);
  }
  sums.start_rows();
#pragma unroll 1
  for (int key = 0; key < walk.count; key += kStep) {
    typename P::Addresses const addresses = P::dot_addresses(way, walk);
    float c[2][4], dp[2][4];
    starts(c, walk, key);
    starts.advance();
    P::dots(c, q, addresses, 0);
    B::add(c, starts, with.bias, walk, key, f.y.window, p.exponent_scale);
    mask_tail(c, walk, key);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        dp[j][i] = -delta[i / 2];
      }
    }
    P::dots(dp, d_o, addresses, f.plane_bytes);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = prim::Exponent<!P::kRounds>::weight(c[j][i], B::rest(p.exponent_scale), lse[i / 2]) * dp[j][i];
      }
    }
    if constexpr (B::kIsThere) {
      if (with.gradient->partials != nullptr) {
        bias_sums.add(c, *with.gradient, walk, key);
      }
    }
    typename P::Weights const weights[1] = {P::weights_of(c)};
    float(*const out[1])[4] = {dq};
    P::template weighted_sums<1>(out, weights, way, walk, 0, f.d);
    if (has_tables<B>(p)) {
      if constexpr (kSumsAreShared<P, B>) {
        sums.add(c, walk, key, first - first_row);
      } else {
        sums.add(weights[0], walk, key, first - first_row);
      }
    }
    way.advance(walk);
  }
  if (has_tables<B>(p)) {
    sums.finish_rows(tables, first - first_row, end - first);
  }
}

// What a warp of a tile works on.
struct DqPlace {
  Tile tile;
  Span y, x;
  int halo_y, halo_x, halo_rows;
  WarpPlace warp;
  bool lives;                // its plane exists
  PlaneIndex plane;
  int patch_y, patch_x;
  int first_row, column;     // of the patch's keys in the halo

  __device__ __forceinline__ DqPlace(Frame const& f, int index, int warp_index) {
    tile = tile_of_grid(f, index);
    int const height = kPatch << f.y.patches_log2;
    y = query_span(f.y, tile.residue_y, tile.y, height);
    x = query_span(f.x, tile.residue_x, tile.x, kPatch << f.x.patches_log2);
    Keys const rows = halo_of(f.y, y, y.first, y.first + height - 1);
    halo_y = rows.first;
    halo_rows = rows.count;
    halo_x = window_start(f.x, x, x.first);
    warp = place_of_warp(f, warp_index, kPatch);
    lives = warp.slot < f.planes && tile.first_plane + warp.slot < tile.end_plane;
    plane = plane_index(f, tile.first_plane + (lives ? warp.slot : 0));
    patch_y = y.first + warp.y;
    patch_x = x.first + warp.x;
    first_row = window_start(f.y, y, patch_y) - halo_y;
    column = window_start(f.x, x, patch_x) - halo_x;
  }
};

template <class T, int D, class B>
__device__ __forceinline__ void bwd_dq_tile(LocalBwdDqParams const& p, DqBias const& with, int index, float* partial,
                                            float* bias_partial, bool is_first) {
  using P = Product<T, D>;
  Frame const& f = p.frame;
  uint32_t const s_bytes = prim::shared_address(prim::shared_memory<unsigned char>());

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const warp = prim::warp_of_block();
  DqPlace const at(f, index, warp);
  bool wants_scores = p.dq.data != nullptr || p.partials != nullptr;
  if constexpr (B::kIsThere) {
    wants_scores = wants_scores || with.gradient->partials != nullptr;
  }

  // ---- Load: the first band, q, do, o, the tables ---------------------------------------------------------------------
  prim::Channels const k_channels = channels_of(p.k, f.d);
  prim::Channels const v_channels = channels_of(p.v, f.e);
  auto copy = [&](int first, uint32_t s_stage) {
    Band const band{at.halo_y + first, at.halo_x, min(f.band_rows, at.halo_rows - first)};
#pragma unroll 1
    for (int i = at.tile.first_plane; i < at.tile.end_plane; ++i) {
      PlaneIndex const plane = plane_index(f, i);
      auto const k = plane_of<T const>(p.k, f, at.tile, plane);
      auto const v = plane_of<T const>(p.v, f, at.tile, plane);
      copy_bands<T, P::kPixelBytes>(s_stage, f, k, k_channels, v, v_channels, at.y.size, at.x.size, band, warp);
      s_stage += 2 * f.plane_bytes;
    }
    prim::commit_copies();
  };
  if (wants_scores) {
    copy(0, s_bytes);
    if constexpr (B::kIsThere) {
      copy_bias<P>(s_bytes, *with.bias, f, at.tile);
    }
  }
  PatchPixels const pixels = patch_pixels(at.y, at.x, at.patch_y, at.patch_x, at.lives);
  auto load = [&](Map const& map, int channels) {
    auto const from = plane_of<T const>(map, f, at.tile, at.plane);
    T const* pixel[2];
    pixels.pointers(pixel, from);
    return P::load_rows(pixel, pixels.lives, channels_of(map, channels));
  };
  typename P::Rows const d_o = load(p.d_o, f.e);
  float delta[2], lse[2];
  P::row_dots(delta, d_o, load(p.o, f.e));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    lse[half] = INFINITY;   // a pixel that does not live has no weights
    if (pixels.lives[half]) {
      int64_t const index = pixel_index(f, at.tile, at.plane, pixels.y[half], pixels.x);
      lse[half] = p.lse[index] * prim::Exponent<!P::kRounds>::kOfNatural;
      if (p.delta != nullptr && prim::lane_of_warp().t == 0) {
        p.delta[index] = delta[half];
      }
    }
  }
  if (!wants_scores) {
    return;   // for all threads of the grid alike
  }
  typename P::Rows q = load(p.q, f.d);
  if (p.is_negative) {
    q.flip_signs();
  }
  T const* const rel_h = table_of_head<T>(p.rel_h, at.plane.hi);
  T const* const rel_w = table_of_head<T>(p.rel_w, at.plane.hi);
  uint32_t const s_own = s_bytes + f.warp_offset + (at.lives ? warp : 0) * f.warp_bytes;
  Tables const tables = tables_at(s_own, p.tables);
  Tables const own_sums = tables_at(s_own + p.sums_offset, p.tables);
  if (at.lives && has_tables<B>(p)) {
    clear_tables(s_own, p.tables, -INFINITY);
    if (p.sums_offset > 0) {
      clear_tables(s_own + p.sums_offset, p.tables, 0.f);
    }
    __syncwarp();   // sync: tables cleared before other lanes fill them
    int const both[2] = {pixels.x, pixels.x};
    fill_tables<true, P, T>(tables, q, p.rel_h, rel_h, f.y, at.y, pixels.y, at.halo_y + at.first_row, f.packed);
    fill_tables<false, P, T>(tables, q, p.rel_w, rel_w, f.x, at.x, both, at.halo_x + at.column, f.packed);
  }
  if constexpr (B::kIsThere) {
    if (at.lives && with.gradient->partials != nullptr) {
      clear_bias_sums(s_own, *with.gradient, f, at.y, at.x, at.patch_y, at.patch_x);
    }
  }

  // ---- Main loop: bands of the halo -------------------------------------------------------------------------------------
  float dq[D / 8][4];
#pragma unroll
  for (int i = 0; i < D / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      dq[i][j] = 0.f;
    }
  }
  DqSums<P, B> sums;
  sums.start(own_sums, 0);
  typename B::Patch of_patch;
  if constexpr (B::kIsThere) {
    uint32_t const s_copy = bias_of_slot(*with.bias, s_bytes, at.warp.slot);
    of_patch = bias_of_patch<true>(*with.bias, s_copy, f, at.y, at.x, at.patch_y, at.patch_x, pixels.lives);
  }
  uint32_t s_stage = s_bytes;
#pragma unroll 1
  for (int band = 0; band < at.halo_rows; band += f.band_rows) {
    uint32_t const s_other = f.stages == 1 ? s_bytes : s_bytes + (s_stage == s_bytes ? f.stage_bytes : 0);
    bool const is_last = band + f.band_rows >= at.halo_rows;
    if (f.stages == 2 && !is_last) {
      copy(band + f.band_rows, s_other);
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: this band has landed, from every thread; tables filled
    uint32_t const s_plane = s_stage + 2 * at.warp.slot * f.plane_bytes;
    int const own_end = at.first_row + f.y.window + kPatch - 1;
    int const end = at.lives ? min(min(band + f.band_rows, at.halo_rows), own_end) : 0;
#pragma unroll 1
    for (int row = max(band, at.first_row); row < end; row += sums.kSummedRows) {
      see_rows<P, D, B>(dq, sums, q, d_o, delta, lse, tables, of_patch, s_own, p, with, s_plane, band, at.column, at.first_row, row,
                        min(row + sums.kSummedRows, end));
    }
    __syncthreads();   // sync: this band, and tables, read before another one, or the next phase, overwrites them; sums written
    if (!is_last && f.stages == 1) {
      copy(band + f.band_rows, s_bytes);
    }
    s_stage = s_other;
  }

  // ---- The same place, found again: it would take registers that the main loop needs ------------------------------------
  asm volatile("" : "+r"(index));
  DqPlace const own(f, index, warp);

  // ---- The bias: sums by offset -----------------------------------------------------------------------------------------
  if constexpr (B::kIsThere) {
    if (with.gradient->partials != nullptr) {
      add_bias_partial(bias_partial, s_bytes, *with.gradient, f, own.tile, is_first);
      if (!has_tables<B>(p)) {
        __syncthreads();   // sync: the warps' sums read before the next tile clears them
      }
    }
  }

  // ---- The relative terms: sums by table row, 16 rows at a time ---------------------------------------------------------
  if (has_tables<B>(p)) {
    T const* const rel_h = table_of_head<T>(p.rel_h, own.plane.hi);
    T const* const rel_w = table_of_head<T>(p.rel_w, own.plane.hi);
    int const warps = f.planes << (f.y.patches_log2 + f.x.patches_log2);
    if (own.lives) {
      sums.finish(tables, f.packed);
    }
    if constexpr (P::kRounds) {
      if (p.partials != nullptr) {
        P::stage(s_bytes + p.staged_offset + warp * P::kStagedBytes, q);
      }
    }
    PatchAxis const along_y{own.patch_y, own.halo_y + own.first_row};
    PatchAxis const along_x{own.patch_x, own.halo_x + own.column};
    uint32_t const s_skew = s_bytes + warp * kSkewBytes;
#pragma unroll 1
    for (int row = 0; row < f.y.table_rows + f.x.table_rows; row += kTableTile) {
#pragma unroll 1
      for (int i = threadIdx.x % prim::kWarp; i < kTableTile * kPatchPixels; i += prim::kWarp) {
        float sum = 0.f;
        if (own.lives) {
          sum = sum_of(f, s_own + p.sums_offset, p.tables, own.y, own.x, along_y, along_x, i % kPatchPixels, row + i / kPatchPixels);
        }
        store_shared(s_skew + (i / kPatchPixels * kSkewPitch + i % kPatchPixels) * int(sizeof(float)), sum);
      }
      __syncwarp();   // sync: skewed sums written before other lanes of the warp read them
      add_table_rows<P, T, D>(dq, s_skew, p, rel_h, rel_w, row);
      if (p.partials != nullptr) {
        __syncthreads();   // sync: all warps' skewed sums and queries written
        if constexpr (P::kRounds) {
          sum_table_rows<P, T, D>(partial, p, s_bytes, warp, row, warps, is_first);
        } else {
          sum_table_rows_f32<T>(partial, p, s_bytes, own.tile, own.y, own.x, row, warps, is_first);
        }
      }
      __syncthreads();   // sync: skewed sums read before the next ones, or the next tile's bands, overwrite them
    }
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  if (p.dq.data != nullptr) {
    auto const to = plane_of<T>(p.dq, f, own.tile, own.plane);
    PatchPixels const out = patch_pixels(own.y, own.x, own.patch_y, own.patch_x, own.lives);
    T* pixel[2];
    out.pointers(pixel, to);
    P::scale(dq, p.scale, p.scale);
    P::store(dq, pixel, out.lives, channels_of(p.dq, f.d));
  }
}

template <class T, int D, class B>
__device__ __forceinline__ void bwd_dq(LocalBwdDqParams const& p, DqBias const& with) {
  int const section = p.blocks_per_section.quotient(blockIdx.x);
  int const block = p.blocks_per_section.remainder(blockIdx.x, section);
  int const first = block * p.tiles_per_block;
  int const end = min(first + p.tiles_per_block, p.tiles_per_section);
  int const rows = p.frame.y.table_rows + p.frame.x.table_rows;
  float* const partial = p.partials == nullptr ? nullptr : p.partials + int64_t(blockIdx.x) * rows * p.frame.d;
  float* bias_partial = nullptr;
  if constexpr (B::kIsThere) {
    if (with.gradient->partials != nullptr) {
      bias_partial = with.gradient->partials + int64_t(blockIdx.x) * p.frame.y.table_rows * p.frame.x.table_rows;
    }
  }
#pragma unroll 1
  for (int i = first; i < end; ++i) {
    bwd_dq_tile<T, D, B>(p, with, section * p.tiles_per_section + i, partial, bias_partial, i == first);
  }
}

}  // namespace local

#define LOCAL_BWD_DQ(name, T, D)                                                     \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, 1)                   \
      name(__grid_constant__ LocalBwdDqParams const p) {                             \
    local::bwd_dq<T, D, local::WithoutBias>(p, local::DqBias{nullptr, nullptr});     \
  }

#define LOCAL_BWD_DQ_BIAS(name, T, D)                                                \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, 1)                   \
      name(__grid_constant__ LocalBwdDqBiasParams const p) {                         \
    local::bwd_dq<T, D, local::WithBias>(p.plain, local::DqBias{&p.bias, &p.gradient}); \
  }
