// value_mixture_bwd — dvs of every pixel, and for the tables the products of the output's gradient with the values.
//
// Work      a block has some neighbouring sites of one row of the tables, one quartet of mixtures, and a part of the pixels
//           that fall on these sites; a thread stays with one site and one unit of channels, so that its products are one sum
// Reads     d_o once per quartet; vs once, unless only dvs is wanted
// Writes    dvs once, if wanted; one partial sum per block, site and mixture, if gradients of the tables are wanted
// Shared    Smem, size exported as <entry>_smem_bytes
// Numerics  f32; threads of a site are added by a tree
// Mirrors   src/reference/value_mixture.rs::backward, launched by src/ops/value_mixture/plan.rs::backward
#include "value_mixture.cuh"

struct ValueMixtureBwdParams {
  value_mixture::Map vs, d_o, dvs;   // dvs.data null: not wanted
  float const* p;                    // [m, table rows, table columns]
  float4* partials;                  // [quartets, seen rows, seen columns, splits]; null: not wanted
  prim::Divisor units;               // of a pixel
  prim::Divisor columns;             // sites of a tile
  prim::Divisor quartets, tiles, seen_rows;   // blocks: quartets fastest, then tiles, then rows of the tables, then splits
  prim::Divisor across, down, heads; // the pixels of a site: columns fastest, then rows, then heads, then images
  int32_t table_rows, table_columns;
  int32_t seen_columns;              // table columns that a pixel falls on
  int32_t y, x;
  int32_t pixels;                    // of a site, those beyond the edge of the map counted
  int32_t repeats;                   // of them a block takes side by side
  int32_t pixels_per_block, splits;
  int32_t mixtures;
  int32_t channels;
  int32_t tree;                      // half the power of two that holds the threads of a site
};
static_assert(sizeof(ValueMixtureBwdParams) == 328,
              "ValueMixtureBwdParams: change src/ops/value_mixture/params.rs together with this");

namespace value_mixture {

constexpr int kBwdThreads = 256;

struct Smem {
  float4 sums[kBwdThreads];   // [site][thread of the site]
};

// What is wanted of a pixel, and what a thread holds for it.
struct Quartet {
  int mixtures;
  bool has_dvs, has_sums;
  float w[kQuartet];
  float sum[kQuartet];
};

// 16 bytes at once, spelled out: the compiler takes an assignment apart here.
__device__ __forceinline__ void store_whole(void* to, uint4 u) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(u.x), "r"(u.y), "r"(u.z),
               "r"(u.w)
               : "memory");
}

// A unit of channels of a pixel.
template <class T>
__device__ __forceinline__ void add_unit(ValueMixtureBwdParams const& p, Quartet& quartet, T const* g_at, T const* v_at, T* dv_at) {
  prim::Channels const all{prim::kUnit<T>, true};
  uint4 const g_unit = prim::load_unit(g_at, 0, all);
  uint4 v[kQuartet];
#pragma unroll
  for (int k = 0; k < kQuartet; ++k) {
    bool const live = quartet.has_sums && k < quartet.mixtures;
    v[k] = live ? prim::load_unit(v_at + k * p.vs.stride_m, 0, all) : make_uint4(0, 0, 0, 0);
  }
  float g[prim::kUnit<T>];
  prim::unpack_unit<T>(g, g_unit);
#pragma unroll
  for (int k = 0; k < kQuartet; ++k) {
    if (quartet.has_dvs && k < quartet.mixtures) {
      float dv[prim::kUnit<T>];
#pragma unroll
      for (int i = 0; i < prim::kUnit<T>; ++i) {
        dv[i] = quartet.w[k] * g[i];
      }
      store_whole(dv_at + k * p.dvs.stride_m, prim::pack_unit<T>(dv));
    }
  }
#pragma unroll
  for (int k = 0; k < kQuartet; ++k) {
    float x[prim::kUnit<T>];
    prim::unpack_unit<T>(x, v[k]);
#pragma unroll
    for (int i = 0; i < prim::kUnit<T>; ++i) {
      quartet.sum[k] = fmaf(g[i], x[i], quartet.sum[k]);
    }
  }
}

// One channel of a pixel.
template <class T>
__device__ __forceinline__ void add_channel(ValueMixtureBwdParams const& p, Quartet& quartet, T const* g_at, T const* v_at, T* dv_at) {
  float const g = prim::to_float(*g_at);
#pragma unroll
  for (int k = 0; k < kQuartet; ++k) {
    if (k < quartet.mixtures) {
      if (quartet.has_sums) {
        quartet.sum[k] = fmaf(g, prim::to_float(v_at[k * p.vs.stride_m]), quartet.sum[k]);
      }
      if (quartet.has_dvs) {
        dv_at[k * p.dvs.stride_m] = prim::from_float<T>(quartet.w[k] * g);
      }
    }
  }
}

template <class T, bool kWide>
__device__ __forceinline__ void bwd(ValueMixtureBwdParams const& p, Smem& smem) {
  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const in_quartets = p.quartets.quotient(blockIdx.x);
  int64_t const first = int64_t(p.quartets.remainder(blockIdx.x, in_quartets)) * kQuartet;
  int const in_tiles = p.tiles.quotient(in_quartets);
  int const tile = p.tiles.remainder(in_quartets, in_tiles);
  int const split = p.seen_rows.quotient(in_tiles);
  int const row = p.seen_rows.remainder(in_tiles, split);

  int const place = p.units.quotient(threadIdx.x);
  int const unit = p.units.remainder(threadIdx.x, place);
  int const repeat = p.columns.quotient(place);
  int const site = p.columns.remainder(place, repeat);          // of the tile
  int const column = tile * int(p.columns.value) + site;
  bool const is_mine = repeat < p.repeats;                      // the last threads may have none
  bool const lives = is_mine && column < p.seen_columns;

  Quartet quartet;
  quartet.mixtures = min(p.mixtures - int(first), kQuartet);
  quartet.has_dvs = p.dvs.data != nullptr;
  quartet.has_sums = p.partials != nullptr;
  int64_t const sites = int64_t(p.table_rows) * p.table_columns;
#pragma unroll
  for (int k = 0; k < kQuartet; ++k) {
    bool const is_needed = lives && k < quartet.mixtures;
    quartet.w[k] = is_needed ? __ldg(p.p + (first + k) * sites + int64_t(row) * p.table_columns + column) : 0.f;
    quartet.sum[k] = 0.f;
  }

  // ---- Main loop: the pixels of the sites, some side by side ------------------------------------------------------------
  int const channel = unit * prim::kUnit<T>;
  int64_t const v_first = first * p.vs.stride_m + channel;
  int64_t const dv_first = first * p.dvs.stride_m + channel;
  int const begin = split * p.pixels_per_block;
  int const end = lives ? min(begin + p.pixels_per_block, p.pixels) : begin;
#pragma unroll 1
  for (int pixel = begin + repeat; pixel < end; pixel += p.repeats) {
    int const line = p.across.quotient(pixel);
    int const plane = p.down.quotient(line);
    int const bi = p.heads.quotient(plane);
    int const hi = p.heads.remainder(plane, bi);
    int const yi = row + p.down.remainder(line, plane) * p.table_rows;
    int const xi = column + p.across.remainder(pixel, line) * p.table_columns;
    if (yi < p.y && xi < p.x) {
      T const* const g_at = pixel_of<T const>(p.d_o, bi, hi, yi, xi) + channel;
      T const* const v_at = pixel_of<T const>(p.vs, bi, hi, yi, xi) + v_first;
      T* const dv_at = pixel_of<T>(p.dvs, bi, hi, yi, xi) + dv_first;
      if constexpr (kWide) {
        add_unit(p, quartet, g_at, v_at, dv_at);
      } else {
#pragma unroll 1
        for (int i = 0; i < prim::kUnit<T> && channel + i < p.channels; ++i) {
          add_channel(p, quartet, g_at + i, v_at + i, dv_at + i);
        }
      }
    }
  }

  // ---- Store: the sums of all threads of a site -------------------------------------------------------------------------
  if (quartet.has_sums) {
    int const count = p.repeats * int(p.units.value);
    int const index = repeat * int(p.units.value) + unit;       // among the threads of its site
    float4* const own = smem.sums + site * count + index;
    float4 total = make_float4(quartet.sum[0], quartet.sum[1], quartet.sum[2], quartet.sum[3]);
    if (is_mine) {
      *own = total;
    }
    __syncthreads();     // sync: the sums of all threads written before others read them
    for (int half = p.tree; half > 0; half /= 2) {
      if (is_mine && index < half && index + half < count) {
        float4 const other = own[half];
        total = make_float4(total.x + other.x, total.y + other.y, total.z + other.z, total.w + other.w);
        *own = total;
      }
      __syncthreads();   // sync: the sums of the lower half written before they are read
    }
    if (lives && index == 0) {
      int64_t const of_table = (first / kQuartet * p.seen_rows.value + row) * p.seen_columns + column;
      p.partials[of_table * p.splits + split] = total;
    }
  }
}

}  // namespace value_mixture

#define VARIANT(dtype, T)                                                                                   \
  ENTRY_SMEM(value_mixture_bwd_##dtype, sizeof(value_mixture::Smem));                                       \
  extern "C" __global__ void __launch_bounds__(value_mixture::kBwdThreads, 2)                               \
      value_mixture_bwd_##dtype(__grid_constant__ ValueMixtureBwdParams const p) {                          \
    value_mixture::Smem& smem = *prim::shared_memory<value_mixture::Smem>();                                \
    bool const is_wide = value_mixture::is_wide(p.vs) && value_mixture::is_wide(p.d_o) &&                   \
                         (p.dvs.data == nullptr || value_mixture::is_wide(p.dvs));                          \
    if (is_wide) {                                                                                          \
      value_mixture::bwd<T, true>(p, smem);                                                                 \
    } else {                                                                                                \
      value_mixture::bwd<T, false>(p, smem);                                                                \
    }                                                                                                       \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
