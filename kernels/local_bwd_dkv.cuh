// local_bwd_dkv — dk and dv, gathered: every key adds up the queries that see it.
//
// Work      one warp per patch of 4×4 keys; queries of all windows that hold one of them, 16 at a time. kTogether: a warp
//           makes both gradients; else a block makes one of them, and its neighbour in the grid the other
// Reads     k, v once; q, do once per tile whose halo holds them; lse, δ and tables likewise
// Writes    dk, dv, each element once, by one lane
// Shared    q and do of a band of the tile's halo (one or two bands), and per query of the band its lse, δ and the table
//           terms of all its offsets, −inf where its window does not reach; with a bias B of the planes' heads, where a query's
//           window starts, and terms only of tables that there are
// Numerics  scores, their gradients and sums f32; with 16-bit elements the weights and the gradients of scores (before the
//           factor α) are rounded to T before they meet do and q
// Mirrors   src/reference/local.rs::backward, launched by src/ops/local/plan.rs::backward
#pragma once
#include "local_bias.cuh"

// What shared memory holds of a query.
struct LocalQueryTerms {
  int32_t pitch;      // floats: `pad_y`, the row table's terms, `pad_x`, the column table's terms; pads are −inf; 0: no terms
  int32_t pad_y;      // offsets that a patch asks for before the row table's first
  int32_t pad_x;      // likewise; also those after the row table's last
  int32_t offset;     // of the terms behind the stages' end, after the pairs
};

struct LocalBwdDkvParams {
  local::Map q, k, v, d_o, dk, dv;   // dk or dv may be null
  float const* lse;
  float const* delta;                // null if dk is
  local::Table rel_h, rel_w;
  local::Frame frame;
  LocalQueryTerms terms;
  prim::Divisor halo_x;              // frame.x.halo
  float scale;                       // α
  float exponent_scale;              // |α|, as Exponent takes it; above 0
  int32_t is_negative;               // α < 0
  int32_t roles;                     // blocks per tile: 2 when neighbours share the work
  int32_t unused;
};
static_assert(sizeof(LocalBwdDkvParams) == 656, "LocalBwdDkvParams: change src/ops/local/plan.rs together with this");

struct LocalBwdDkvBiasParams {
  LocalBwdDkvParams plain;
  local::Bias bias;
};
static_assert(sizeof(LocalBwdDkvBiasParams) == 728,
              "LocalBwdDkvBiasParams: change src/ops/local/plan/bias.rs together with this");

namespace local {

constexpr int kWantsDv = 1;
constexpr int kWantsDk = 2;

// ---- What a band's queries bring ------------------------------------------------------------------------------------

// The pixels of a band of the query halo.
struct QueryBand {
  int first_y, first_x;
  int rows;
  int size_y, size_x;
};

// Of a query's lse, δ and, with a bias, a third word: where its window starts.
template <class B>
constexpr int kPairBytes = B::kIsThere ? 16 : 8;
constexpr int kStart = 8;   // bytes before that word

// Where a query's window starts, from the first pixel of the tile's halo, in one word: halos and windows are small.
struct WindowStart {
  static constexpr int kBits = 16;
  static constexpr int kNowhere = -(1 << (kBits - 1));   // further from any key than a window reaches

  int y, x;

  __device__ __forceinline__ float word() const { return __int_as_float(y << kBits | (x & 0xffff)); }
  static __device__ __forceinline__ WindowStart of_word(float word) {
    int const both = __float_as_int(word);
    return WindowStart{both >> kBits, static_cast<short>(both)};
  }
};

// lse, as Exponent takes it, and δ of the band's queries; +inf and 0 for pixels that are none, so that their weights vanish.
// With a bias also where their windows start, in a halo whose first row is `halo_y`.
template <class P, class B>
__device__ __forceinline__ void fill_pairs(uint32_t s_pairs, int halo_y, LocalBwdDkvParams const& p, Tile const& tile, PlaneIndex at,
                                           QueryBand const& band) {
  Frame const& f = p.frame;
#pragma unroll 1
  for (int i = threadIdx.x; i < band.rows * f.x.halo; i += kThreads) {
    int const row = p.halo_x.quotient(i);
    int const yi = band.first_y + row;
    int const xi = band.first_x + i - row * f.x.halo;
    float lse = INFINITY;
    float delta = 0.f;
    WindowStart start{0, WindowStart::kNowhere};
    if (unsigned(yi) < unsigned(band.size_y) && unsigned(xi) < unsigned(band.size_x)) {
      int64_t const index = pixel_index(f, tile, at, yi, xi);
      lse = p.lse[index] * prim::Exponent<!P::kRounds>::kOfNatural;
      delta = p.delta == nullptr ? 0.f : p.delta[index];
      if constexpr (B::kIsThere) {
        start = WindowStart{window_start(f.y, band.size_y, yi) - halo_y, window_start(f.x, band.size_x, xi) - band.first_x};
      }
    }
    uint32_t const pair = s_pairs + i * kPairBytes<B>;
    store_shared(pair, lse);
    store_shared(pair + int(sizeof(float)), delta);
    if constexpr (B::kIsThere) {
      store_shared(pair + kStart, start.word());
    }
  }
}

// Terms of one table for 16 queries of the band, pixels `first` and following; `s_terms`: of the table's row 0.
template <class P, class T>
__device__ __forceinline__ void fill_axis_terms(uint32_t const (&s_terms)[2], typename P::Rows const& rows, Table const& table,
                                                T const* data, Axis const& a, int size, int const (&query)[2],
                                                bool const (&lives)[2], float sign) {
  int const t = prim::lane_of_warp().t;
  bool const is_aligned = data != nullptr && is_wide(table);
  Keys keys[2];
  int first[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    keys[half] = Keys{window_start(a, size, query[half]), lives[half] ? a.window : 0};
    first[half] = query[half] + 2 * t - a.table_origin;
  }
#pragma unroll 1
  for (int row = 0; row < a.table_rows; row += kGroup) {
    float c[4] = {};
    if (data != nullptr) {
      P::table_dots(c, rows, table, data, is_aligned, row, a.table_rows);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const half = i / 2;
      int const offset = row + 2 * t + i % 2;
      if (offset < a.table_rows && s_terms[half] != 0) {
        bool const sees = keys[half].contain(first[half] + row + i % 2);
        store_shared(s_terms[half] + offset * int(sizeof(float)), sees ? c[i] * sign : -INFINITY);
      }
    }
  }
}

template <class P, class T>
__device__ __forceinline__ void fill_terms(uint32_t s_terms, uint32_t s_band, LocalBwdDkvParams const& p, Plane<T const> const& q,
                                           prim::Channels channels, T const* rel_h, T const* rel_w, QueryBand const& band,
                                           int warp) {
  Frame const& f = p.frame;
  prim::Lane const lane = prim::lane_of_warp();
  int const count = band.rows * f.x.halo;
#pragma unroll 1
  for (int first = warp * kPatchPixels; first < count; first += kWarps * kPatchPixels) {
    typename P::Rows rows;
    int y[2], x[2];
    bool lives[2];
    uint32_t of_rows[2], of_columns[2];
    T const* pixel[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const i = min(first + lane.g + half * kGroup, count - 1);
      int const row = p.halo_x.quotient(i);
      int const column = i - row * f.x.halo;
      y[half] = band.first_y + row;
      x[half] = band.first_x + column;
      lives[half] = unsigned(y[half]) < unsigned(band.size_y) && unsigned(x[half]) < unsigned(band.size_x);
      pixel[half] = lives[half] ? q.pixel(y[half], x[half]) : q.data;
      bool const is_own = first + lane.g + half * kGroup < count;
      uint32_t const to = s_terms + (i * p.terms.pitch + p.terms.pad_y) * int(sizeof(float));
      of_rows[half] = is_own ? to : 0;
      of_columns[half] = is_own ? to + (f.y.table_rows + p.terms.pad_x) * int(sizeof(float)) : 0;
      if constexpr (P::kRounds) {
        P::load_band_row(rows, half, s_band + i * P::kPixelBytes, column + row * f.packed);
      }
    }
    if constexpr (!P::kRounds) {
      rows = P::load_rows(pixel, lives, channels);
    }
    float const sign = p.is_negative ? -1.f : 1.f;
    fill_axis_terms<P, T>(of_rows, rows, p.rel_h, rel_h, f.y, band.size_y, y, lives, sign);
    fill_axis_terms<P, T>(of_columns, rows, p.rel_w, rel_w, f.x, band.size_x, x, lives, sign);
  }
}

// Where a lane finds the terms of its keys g and g + 8: addresses for query pixel 0 of the walk, if rows had no end.
struct TermWay {
  int pairs;      // (lse, δ)
  int rows;       // of key g's row; key g + 8 is two rows further
  int columns;
  int pixel_bytes;
  int last;       // the last pixel of the walk, from its first

  // A query of the walk.
  struct Query {
    int row, column;
    int pixel;   // from the walk's first
  };
  __device__ __forceinline__ Query query(Walk const& walk, int halo_x, int number) const {
    int const i = min(number, walk.count - 1);   // those beyond are masked
    int const row = walk.row(i);
    int const column = i - row * walk.packed;
    return Query{row, column, min(row * halo_x + column, last)};
  }
  // lse and δ.
  template <class B>
  __device__ __forceinline__ float2 pair(Query const& query) const {
    float2 pair;
    int const from = pairs + query.pixel * kPairBytes<B>;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(from) : "memory");
    return pair;
  }
  // Starts of the scores of keys g and g + 8.
  __device__ __forceinline__ float2 scores(Query const& query) const {
    int const at_row = rows + query.pixel * pixel_bytes - query.row * int(sizeof(float));
    int const at_column = columns + query.pixel * pixel_bytes - query.column * int(sizeof(float));
    float const low = load_shared(at_row);
    float const high = load_shared(at_row + 2 * int(sizeof(float)));
    float const column = load_shared(at_column);
    return make_float2(low + column, high + column);
  }
  template <class B>
  __device__ __forceinline__ WindowStart start(Query const& query) const {
    return WindowStart::of_word(load_shared(pairs + query.pixel * kPairBytes<B> + kStart));
  }
};

// Columns outside the map are kept, dead, so that every patch has the same place in its row; but where windows are shifted,
// a row reaches so far that the map is the bound.
__device__ __forceinline__ Range columns_of(Axis const& a, int size, int first, int last) {
  Range const r = queries_of(a, size, first, last);
  return a.is_shifted ? r.inside(size) : r;
}

// What a lane's keys g and g + 8 need to know of their bias.
struct KeyBias {
  static constexpr int kByPads = INT_MIN;   // further up than any key

  int at;      // of key g and query pixel 0 of the walk, if rows had no end; queries that follow are closer to the table's start
  int place;   // of key g in the tile's halo, as of a window's start; `kByPads`, for all lanes alike: pads say all that is not seen
};

// Whether the keys of a patch see just those queries of a walk whose offsets the bias table has, along one axis: a window that
// is as large as the table; or a block, without a halo, whose queries (but along y) fill the walk's rows.
__device__ __forceinline__ bool says_all(Axis const& a, int packed) {
  return a.block == 0 ? !a.is_shifted : a.before == 0 && (packed == 0 || packed == a.block);
}

// The scores of 16 queries of a walk, as Exponent takes them.
__device__ __forceinline__ void add_bias(float (&c)[2][4], Bias const& bias, KeyBias const& of_key, TermWay const& terms,
                                         Frame const& f, Walk const& walk, int number, float scale) {
  int const t = prim::lane_of_warp().t;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    int const i = min(number + j * kGroup + 2 * t, walk.count - 1);   // those beyond are masked
    int const low = of_key.at - i * int(sizeof(float)) - walk.row(i) * (bias.row_bytes - walk.packed * int(sizeof(float)));
    int const high = low + 2 * bias.row_bytes;   // key g + 8 is two rows further
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      c[j][k] = fmaf(c[j][k], scale, load_shared((k < 2 ? low : high) - k % 2 * int(sizeof(float))));
    }
    if (of_key.place != KeyBias::kByPads) {
      WindowStart const place = WindowStart::of_word(__int_as_float(of_key.place));
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        WindowStart const start = terms.start<WithBias>(terms.query(walk, f.x.halo, number + j * kGroup + 2 * t + k));
        bool const sees = unsigned(place.x - start.x) < unsigned(f.x.window);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          bool const sees_row = unsigned(place.y + 2 * half - start.y) < unsigned(f.y.window);
          c[j][2 * half + k] = sees && sees_row ? c[j][2 * half + k] : -INFINITY;
        }
      }
    }
  }
}

// ---- The kernel -------------------------------------------------------------------------------------------------------

template <class P, int D, bool kTogether, class B>
__device__ __forceinline__ void see_queries(float (&dk)[D / 8][4], float (&dv)[D / 8][4], typename P::Rows const& k,
                                            typename P::Rows const& v, LocalBwdDkvParams const& p, Walk const& walk,
                                            TermWay const& terms, Bias const* bias, KeyBias const& of_key, uint32_t s_plane,
                                            int wanted) {
  Frame const& f = p.frame;
  int const t = prim::lane_of_warp().t;
  bool const has_terms = p.terms.pitch > 0;
  typename P::Way way = P::start_way(walk, s_plane);
#pragma unroll 1
  for (int key = 0; key < walk.count; key += kStep) {
    typename P::Addresses const addresses = P::dot_addresses(way, walk);
    float c[2][4], dp[2][4], lse[2][2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        TermWay::Query const query = terms.query(walk, f.x.halo, key + j * kGroup + 2 * t + i);
        float2 start = make_float2(0.f, 0.f);
        if (!B::kIsThere || has_terms) {
          start = terms.scores(query);
        }
        c[j][i] = start.x;
        c[j][2 + i] = start.y;
        float2 const pair = terms.template pair<B>(query);
        lse[j][i] = pair.x;
        dp[j][i] = dp[j][2 + i] = -pair.y;
      }
    }
    P::dots(c, k, addresses, 0);
    if constexpr (B::kIsThere) {
      add_bias(c, *bias, of_key, terms, f, walk, key, p.exponent_scale);
    }
    mask_tail(c, walk, key);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = prim::Exponent<!P::kRounds>::weight(c[j][i], B::rest(p.exponent_scale), lse[j][i % 2]);
      }
    }
    if (wanted & kWantsDv) {
      typename P::Weights const weights[1] = {P::weights_of(c)};
      float(*const out[1])[4] = {dv};
      P::template weighted_sums<1>(out, weights, way, walk, f.plane_bytes, f.e);
    }
    if (wanted & kWantsDk) {
      P::dots(dp, v, addresses, f.plane_bytes);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          c[j][i] *= dp[j][i];
        }
      }
      typename P::Weights const weights[1] = {P::weights_of(c)};
      float(*const out[1])[4] = {kTogether ? dk : dv};
      P::template weighted_sums<1>(out, weights, way, walk, 0, f.d);
    }
    way.advance(walk);
  }
}

constexpr int kTwoBlocksChannels = 32;   // of 16 bits, up to which two blocks have registers on a multiprocessor

// `bias`: null without one.
template <class T, int D, bool kTogether, class B>
__device__ __forceinline__ void bwd_dkv(LocalBwdDkvParams const& p, Bias const* bias) {
  using P = Product<T, D>;
  Frame const& f = p.frame;
  uint32_t const s_bytes = prim::shared_address(prim::shared_memory<unsigned char>());

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const warp = prim::warp_of_block();
  int wanted = (p.dv.data == nullptr ? 0 : kWantsDv) | (p.dk.data == nullptr ? 0 : kWantsDk);
  int index = blockIdx.x;
  if (p.roles == 2) {
    wanted = index % 2 == 0 ? kWantsDv : kWantsDk;
    index /= 2;
  }
  Tile const tile = tile_of_grid(f, index);
  int const height = kPatch << f.y.patches_log2;
  int const width = kPatch << f.x.patches_log2;
  Span const y = query_span(f.y, tile.residue_y, tile.y, height);   // of keys: they lie in tiles as queries do
  Span const x = query_span(f.x, tile.residue_x, tile.x, width);
  Range const halo_y = queries_of(f.y, y.size, y.first, min(y.first + height, y.end) - 1).inside(y.size);
  Range const halo_x = columns_of(f.x, x.size, x.first, min(x.first + width, x.end) - 1);
  int const halo_rows = halo_y.last + 1 - halo_y.first;
  WarpPlace const place = place_of_warp(f, warp, kPatch);
  int const patch_y = y.first + place.y;
  int const patch_x = x.first + place.x;
  bool const plane_lives = place.slot < f.planes && tile.first_plane + place.slot < tile.end_plane && patch_y < y.end && patch_x < x.end;
  PlaneIndex const plane = plane_index(f, tile.first_plane + (plane_lives ? place.slot : 0));

  // ---- Load: the first band, k, v ---------------------------------------------------------------------------------------
  prim::Channels const q_channels = channels_of(p.q, f.d);
  prim::Channels const o_channels = channels_of(p.d_o, f.e);
  auto copy = [&](int first, uint32_t s_stage) {
    Band const band{halo_y.first + first, halo_x.first, min(f.band_rows, halo_rows - first)};
#pragma unroll 1
    for (int i = tile.first_plane; i < tile.end_plane; ++i) {
      PlaneIndex const at = plane_index(f, i);
      auto const q = plane_of<T const>(p.q, f, tile, at);
      auto const d_o = plane_of<T const>(p.d_o, f, tile, at);
      copy_bands<T, P::kPixelBytes>(s_stage, f, q, q_channels, d_o, o_channels, y.size, x.size, band, warp);
      s_stage += 2 * f.plane_bytes;
    }
    prim::commit_copies();
  };
  copy(0, s_bytes);
  if constexpr (B::kIsThere) {
    copy_bias<P>(s_bytes, *bias, f, tile);
  }
  PatchPixels const pixels = patch_pixels(y, x, patch_y, patch_x, plane_lives);
  auto load = [&](Map const& map, int channels) {
    auto const from = plane_of<T const>(map, f, tile, plane);
    T const* pixel[2];
    pixels.pointers(pixel, from);
    return P::load_rows(pixel, pixels.lives, channels_of(map, channels));
  };
  typename P::Rows k = load(p.k, f.d);
  typename P::Rows const v = load(p.v, f.e);
  if (p.is_negative) {
    k.flip_signs();
  }
  // The queries of this patch, in the tile's halo. A row is as wide as it must be, in whole groups: phases stay in step.
  Range const rows = queries_of(f.y, y.size, patch_y, min(patch_y + kPatch, y.end) - 1).inside(y.size);
  Range const columns = columns_of(f.x, x.size, patch_x, min(patch_x + kPatch, x.end) - 1);
  int const needed = columns.last + 1 - columns.first;
  int const packed = needed <= f.packed ? f.packed : f.packed + (needed - f.packed + kGroup - 1) / kGroup * kGroup;
  uint32_t const packed_factor = packed == f.packed ? f.packed_factor : 0xffffffffu / uint32_t(packed) + 1;
  int const terms_bytes = p.terms.pitch * int(sizeof(float));
  int const band_pixels = f.band_rows * f.x.halo;
  uint32_t const s_pairs = s_bytes + f.warp_offset;
  uint32_t const s_terms = s_pairs + p.terms.offset;
  // Pads stay −inf; what lies between is written for every band.
#pragma unroll 1
  for (int i = threadIdx.x; i < (f.planes * band_pixels + 1) * p.terms.pitch; i += kThreads) {
    store_shared(s_terms + i * int(sizeof(float)), -INFINITY);
  }

  // ---- Main loop: bands of the halo -------------------------------------------------------------------------------------
  float dv[D / 8][4];
  float dk[D / 8][4];
#pragma unroll
  for (int i = 0; i < D / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      dv[i][j] = dk[i][j] = 0.f;
    }
  }
  uint32_t s_stage = s_bytes;
#pragma unroll 1
  for (int band = 0; band < halo_rows; band += f.band_rows) {
    uint32_t const s_other = f.stages == 1 ? s_bytes : s_bytes + (s_stage == s_bytes ? f.stage_bytes : 0);
    bool const is_last = band + f.band_rows >= halo_rows;
    if (f.stages == 2 && !is_last) {
      copy(band + f.band_rows, s_other);
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: this band has landed, from every thread; pads written
    int const band_rows = min(f.band_rows, halo_rows - band);
    QueryBand const queries{halo_y.first + band, halo_x.first, band_rows, y.size, x.size};
#pragma unroll 1
    for (int i = tile.first_plane; i < tile.end_plane; ++i) {
      PlaneIndex const at = plane_index(f, i);
      int const slot = i - tile.first_plane;
      fill_pairs<P, B>(s_pairs + slot * band_pixels * kPairBytes<B>, halo_y.first, p, tile, at, queries);
      if (!B::kIsThere || p.terms.pitch > 0) {
        fill_terms<P, T>(s_terms + slot * band_pixels * terms_bytes, s_stage + 2 * slot * f.plane_bytes, p,
                         plane_of<T const>(p.q, f, tile, at), q_channels, table_of_head<T>(p.rel_h, at.hi),
                         table_of_head<T>(p.rel_w, at.hi), queries, warp);
      }
    }
    __syncthreads();   // sync: terms of the band's queries written, from every warp
    int const first = max(band, rows.first - halo_y.first);
    int const end = plane_lives ? min(band + band_rows, rows.last + 1 - halo_y.first) : 0;
    if (first < end) {
      int const column = columns.first - halo_x.first;
      Walk walk = walk_rows(f, P::pixel_bytes(f), band, column, first, end);
      walk.packed = packed;
      walk.packed_factor = packed_factor;
      walk.wrap_bytes = (f.x.halo - packed) * walk.pixel_bytes;
      walk.count = (end - first) * packed;
      int const pixel = (first - band) * f.x.halo + column;
      int const of_pixel = s_terms + (place.slot * band_pixels + pixel) * terms_bytes;
      prim::Lane const lane = prim::lane_of_warp();
      int const in_rows = patch_y + lane.g / kPatch - (halo_y.first + first) + f.y.table_origin + p.terms.pad_y;
      int const in_columns = patch_x + lane.g % kPatch - columns.first + f.x.table_origin + p.terms.pad_y + f.y.table_rows + p.terms.pad_x;
      TermWay const terms{int(s_pairs) + (place.slot * band_pixels + pixel) * kPairBytes<B>, of_pixel + in_rows * int(sizeof(float)),
                          of_pixel + in_columns * int(sizeof(float)), terms_bytes, (end - band) * f.x.halo - 1 - pixel};
      uint32_t const s_plane = s_stage + 2 * place.slot * f.plane_bytes;
      KeyBias of_key{};
      if constexpr (B::kIsThere) {
        int const row = in_rows - p.terms.pad_y + bias->pad_y;
        int const column = patch_x + lane.g % kPatch - columns.first + f.x.table_origin + bias->pad_x;
        of_key.at = int(bias_of_slot(*bias, s_bytes, place.slot)) + row * bias->row_bytes + column * int(sizeof(float));
        WindowStart const at{patch_y + lane.g / kPatch - halo_y.first, patch_x + lane.g % kPatch - halo_x.first};
        bool const all_exist = columns.first >= 0 && columns.first + packed <= x.size;
        of_key.place = all_exist && says_all(f.y, 0) && says_all(f.x, packed) ? KeyBias::kByPads : __float_as_int(at.word());
      }
      see_queries<P, D, kTogether, B>(dk, dv, k, v, p, walk, terms, bias, of_key, s_plane, wanted);
    }
    if (!is_last) {
      __syncthreads();   // sync: this band and its terms have been read before others overwrite them
      if (f.stages == 1) {
        copy(band + f.band_rows, s_bytes);
      }
    }
    s_stage = s_other;
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  struct Where {
    Tile tile;
    Span y, x;
  };
  auto find = [&]() -> Where {
    if constexpr (D <= kTwoBlocksChannels) {
      // The same place, found again: it would take registers that the main loop needs for two blocks on a multiprocessor.
      asm volatile("" : "+r"(index));
      Tile const own = tile_of_grid(f, index);
      return {own, query_span(f.y, own.residue_y, own.y, height), query_span(f.x, own.residue_x, own.x, width)};
    } else {
      return {tile, y, x};
    }
  };
  Where const own = find();
  PatchPixels const out = patch_pixels(own.y, own.x, patch_y, patch_x, plane_lives);
  T* pixel[2];
  if (wanted & kWantsDv) {
    out.pointers(pixel, plane_of<T>(p.dv, f, own.tile, plane));
    P::store(dv, pixel, out.lives, channels_of(p.dv, f.e));
  }
  if (wanted & kWantsDk) {
    out.pointers(pixel, plane_of<T>(p.dk, f, own.tile, plane));
    float(&sum)[D / 8][4] = kTogether ? dk : dv;
    P::scale(sum, p.scale, p.scale);
    P::store(sum, pixel, out.lives, channels_of(p.dk, f.d));
  }
}

}  // namespace local

#define LOCAL_BWD_DKV(name, T, D, kTogether, kMinBlocks)                             \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, kMinBlocks)          \
      name(__grid_constant__ LocalBwdDkvParams const p) {                            \
    local::bwd_dkv<T, D, kTogether, local::WithoutBias>(p, nullptr);                 \
  }

#define LOCAL_BWD_DKV_BIAS(name, T, D, kTogether, kMinBlocks)                        \
  ENTRY_SMEM(name, prim::kSharedSm90);                                               \
  extern "C" __global__ void __launch_bounds__(local::kThreads, kMinBlocks)          \
      name(__grid_constant__ LocalBwdDkvBiasParams const p) {                        \
    local::bwd_dkv<T, D, kTogether, local::WithBias>(p.plain, &p.bias);              \
  }
