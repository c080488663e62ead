// axial_bwd — gradients of one layer along columns or rows, with S_ij = q_i · r[j − i] and dS_ij = g_i · v_j:
//
//   dq_i = Σ_j dS_ij r[j − i]        dr[δ] = Σ_i dS_{i, i + δ} q_i        dv_j = Σ_i S_ij g_i
//
// Work      a block holds one tile at a time of a few lines of one head, as queries (dq, dr), then as keys (dv); two warps a grain
// Reads     lines of at most 64 pixels (f32: 32): q, v, g once (y too, where batch norm needs it); longer ones: q, g, v again for
//           every tile that the block's tile reaches. The table as often as v
// Writes    dq, dv once (dq may add to what is there); sums for dr, and for weight and bias of batch norm, once per block
// Shared    BwdSmem<T, D>, size exported as <entry>_smem_bytes
// Numerics  sums f32; with 16-bit elements S, dS, the normalised v and a g that went through batch norm are rounded to T
// Mirrors   src/reference/axial.rs::layer_backward, launched by src/ops/axial/backward.rs
#pragma once
#include "axial_tile.cuh"

namespace axial {

// Tensors of a launch.
enum BwdMap : int { kQ, kV, kG, kY, kDq, kDv, kMaps };

}  // namespace axial

struct AxialBwdParams {
  axial::Map maps[axial::kMaps];   // y: batch norm's input, where g comes through it; dq, dv: data null: not wanted
  axial::Table table;
  axial::Norm norm;
  axial::Vector dweight, dbias;   // sums over all pixels, where g comes through batch norm of this batch
  float* table_partials;       // null: none; else [blocks of the launch][partial_rows][partial_pitch]
  float* norm_partials;        // null: none; else [blocks of the launch][2·e]: Σ dv·v̂, Σ dv
  axial::Lines lines;
  float inverse_count;         // 1 / pixels of a statistic
  int32_t norm_of;             // axial::NormOf
  int32_t adds_dq;
  int32_t partial_rows;        // offsets of a block
  int32_t partial_pitch;       // channels, of a row of table_partials
  int32_t partial_begin;       // tile of keys, from that of the queries, whose offsets come first
  int32_t _pad;
};
static_assert(sizeof(AxialBwdParams) == 576, "AxialBwdParams: change src/ops/axial/params.rs together with this");

namespace axial {

// What batch norm lies on.
enum NormOf : int32_t {
  kNothing = 0,
  kValues = 1,          // v is what it made of what is read
  kGradient = 2,        // g is the gradient of what it made, with given statistics
  kGradientOfBatch = 3, // and with those of the batch
};

constexpr int kBwdSplit = 2;                                       // warps that share a grain
constexpr int kGroupsPerSum = prim::kMmaTermsMax / 64;             // of lines, before sums leave the tensor core

template <class T, int D>
constexpr int kBwdThreads = Shape<T, D>::kGrains * kBwdSplit * prim::kWarp;

template <class T, int D>
struct BwdSmem {
  static constexpr int kRows = Shape<T, D>::kRows;
  static constexpr int kPitch = 2 * kRows + prim::kUnit<T>;        // of weights: eight rows lie in different banks
  unsigned char table[2 * Shape<T, D>::kTileBytes];
  unsigned char q[Shape<T, D>::kTileBytes];                        // and then dv
  unsigned char v[Shape<T, D>::kTileBytes];                        // and then dq
  unsigned char g[Shape<T, D>::kTileBytes];
  T weights[kRows][kPitch];     // dS by query and offset, then S by query and key; behind a row, where a line starts
  float norm[4][D];             // kValues: Affine; else NormGradient
};

// How the gradient of batch norm's input follows from that of its output.
template <int D>
struct NormGradient {
  float mean[D], scale[D], shift[D], slope[D];

  __device__ __forceinline__ void fill(AxialBwdParams const& p, int hi, int e) {
    for (int channel = threadIdx.x; channel < D; channel += blockDim.x) {
      bool const lives = channel < e;
      bool const of_batch = lives && p.norm_of == kGradientOfBatch;
      float const inverse = lives ? p.norm.inverse_deviation(hi, channel) : 0.f;
      mean[channel] = lives ? __ldg(p.norm.mean.at(hi, channel)) : 0.f;
      scale[channel] = lives ? __ldg(p.norm.weight.at(hi, channel)) * inverse : 0.f;
      shift[channel] = of_batch ? __ldg(p.dbias.at(hi, channel)) * p.inverse_count : 0.f;
      slope[channel] = of_batch ? __ldg(p.dweight.at(hi, channel)) * p.inverse_count * inverse : 0.f;
    }
  }
};

// Where lines start lies in what makes the rows of weights so long that they meet no bank conflicts: small GPUs have no more room.
template <class T, int D>
using BwdStarts = Starts<T, Shape<T, D>::kGrains, BwdSmem<T, D>::kPitch * int(sizeof(T))>;

// Gradients that went through batch norm: scale · (g − shift − (y − mean) · slope), rounded to T.
template <class T, int D, int kThreads, class At>
__device__ __forceinline__ void load_gradient(uint32_t s_tile, AxialBwdParams const& p, NormGradient<D> const& norm, At g_rows,
                                              At y_rows) {
  Lines const& l = p.lines;
  prim::Channels const g_channels = channels_of<T>(p.maps[kG], l.e);
  prim::Channels const y_channels = channels_of<T>(p.maps[kY], l.e);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, l.e, [&](int row, int channel) {
    Pixel<T> const pixel = g_rows(row);
    uint4 unit = make_uint4(0, 0, 0, 0);
    if (pixel.lives && channel < l.e) {
      float g[prim::kUnit<T>];
      prim::unpack_unit<T>(g, prim::load_unit<T>(pixel.data, channel, g_channels));
      if (p.norm_of == kGradientOfBatch) {
        float y[prim::kUnit<T>];
        prim::unpack_unit<T>(y, prim::load_unit<T>(y_rows(row).data, channel, y_channels));
#pragma unroll
        for (int i = 0; i < prim::kUnit<T>; ++i) {
          g[i] = g[i] - norm.shift[channel + i] - (y[i] - norm.mean[channel + i]) * norm.slope[channel + i];
        }
      }
#pragma unroll
      for (int i = 0; i < prim::kUnit<T>; ++i) {
        g[i] *= norm.scale[channel + i];
      }
      unit = prim::pack_unit<T>(g);
    }
    prim::store_shared_unit(unit_at<T, D>(s_tile, row, channel / prim::kUnit<T>), unit);
  });
}

// What a thread of a block is, in every part of the kernel.
template <class T, int D>
struct BwdPlace {
  static constexpr int kThreads = kBwdThreads<T, D>;
  static constexpr int kGroups = D / 16 / kBwdSplit;   // of 16 channels, of a warp that shares a grain
  static constexpr int kPitch = BwdSmem<T, D>::kPitch;

  uint32_t s_table, s_q, s_v, s_g, s_weights;
  LaneOffsets<T, D, kPitch> of_lane;
  int log2_grains, grains, size;   // of a tile
  int warp, grain, of_line, first_channel;

  __device__ __forceinline__ BwdPlace(BwdSmem<T, D>& smem, Lines const& l)
      : s_table(prim::shared_address(smem.table)),
        s_q(prim::shared_address(smem.q)),
        s_v(prim::shared_address(smem.v)),
        s_g(prim::shared_address(smem.g)),
        s_weights(prim::shared_address(smem.weights)),
        log2_grains(l.log2_grains),
        grains(1 << l.log2_grains),
        size(kGrain << l.log2_grains),
        warp(prim::warp_of_block()) {
    find_share();
  }

  // What is the warp's; anew for each group of lines, so that loading one does not have to keep it.
  __device__ __forceinline__ void find_share() {
    asm volatile("" : "+r"(warp));
    __builtin_assume(warp >= 0);
    grain = warp / kBwdSplit;
    of_line = grain & (grains - 1);
    first_channel = warp % kBwdSplit * (kGroups * 16);
  }

  // First row of the lines' tile that a grain lies in.
  __device__ __forceinline__ int line_row(int of_grain) const { return (of_grain & -grains) * kGrain; }

  // Of dr.
  __device__ __forceinline__ int band() const { return warp & (2 * grains - 1); }
  __device__ __forceinline__ int first_of_dr() const { return (warp >> (log2_grains + 1)) * (D / Shape<T, D>::kGrains << log2_grains); }
  __device__ __forceinline__ int end_of_dr(int d) const {
    return min(d, first_of_dr() + (D / Shape<T, D>::kGrains << log2_grains));
  }

  __device__ __forceinline__ uint32_t weight_at(int row, int column) const {
    return s_weights + (row * kPitch + column) * int(sizeof(T));
  }

  // dS, by query and offset: what a row does not reach in a band that it shares is 0.
  __device__ __forceinline__ void weigh_gradients(int e) const {
    prim::Lane const at = prim::lane_of(prim::fresh_thread());
#pragma unroll 1
    for (int task = warp; task < Shape<T, D>::kGrains << log2_grains; task += kThreads / prim::kWarp) {
      int const queries = task >> log2_grains;
      int const keys = task & (grains - 1);
      float c[2][4] = {};
      rows_by_rows(c, s_g, queries * kGrain, s_v, line_row(queries) + keys * kGrain, e, of_lane);
      int const first = (keys - (queries & (grains - 1)) + grains) * kGrain;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          int const row = at.g + i / 2 * 8;
          int const apart = 8 * j + 2 * at.t + i % 2 - row;
          uint32_t const line = weight_at(queries * kGrain + row, first + apart);
          store_weight<T>(line, 0, c[j][i]);
          if (keys == 0) {
            store_weight<T>(line, apart >= 0 ? -kGrain : size, 0.f);
          }
        }
      }
    }
  }

  // S, by query and key: a band at a time, each row one further to the left than the one above.
  __device__ __forceinline__ void weigh(int tile, int d) const {
    prim::Lane const at = prim::lane_of(prim::fresh_thread());
#pragma unroll 1
    for (int band = grains - of_line - 1 + warp % kBwdSplit; band < 2 * grains - of_line; band += kBwdSplit) {
      float c[2][4] = {};
      rows_by_rows(c, s_q, grain * kGrain, s_table, band_row(band * kGrain, tile, log2_grains), d, of_lane);
      int const first = (of_line + band - grains) * kGrain;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          int const row = at.g + i / 2 * 8;
          int const key = first + row + 8 * j + 2 * at.t + i % 2;
          if (unsigned(key) < unsigned(size)) {
            store_weight<T>(weight_at(grain * kGrain + row, key), 0, c[j][i]);
          }
        }
      }
    }
  }

  // dq of the warp's grain and channels
  __device__ __forceinline__ void add_dq(float (&acc)[2 * kGroups][4], int tile, int d) const {
#pragma unroll 1
    for (int band = grains - of_line - 1; band < 2 * grains - of_line; ++band) {
      weights_by_rows<false, kGroups>(acc, weight_at(grain * kGrain, band * kGrain), s_table,
                                      band_row(band * kGrain, tile, log2_grains), first_channel, d, of_lane);
    }
  }

  // dr of the warp's band and channels. With lines shorter than the block's rows there are more warps than bands: each band is then
  // of several, a part of the channels each.
  __device__ __forceinline__ void add_dr(float (&acc)[D / 8][4], int d) const {
#pragma unroll 1
    for (int queries = 0; queries < Shape<T, D>::kGrains; ++queries) {
      int const nearest = grains - (queries & (grains - 1)) - 1;   // band of the first key
      if (band() >= nearest && band() <= nearest + grains) {
        weights_by_rows<true, D / 16>(acc, weight_at(queries * kGrain, band() * kGrain), s_q, queries * kGrain, first_of_dr(),
                                      end_of_dr(d), of_lane);
      }
    }
  }

  // dv of the warp's grain of keys and channels
  __device__ __forceinline__ void add_dv(float (&acc)[2 * kGroups][4], int e) const {
    int const first_row = line_row(grain);
#pragma unroll 1
    for (int row = first_row; row < first_row + size; row += kGrain) {
      weights_by_rows<true, kGroups>(acc, weight_at(row, of_line * kGrain), s_g, row, first_channel, e, of_lane);
    }
  }

  // The band's sums to the block's offsets, of which the band's tile begins at `first_offset`; to what is there, if asked to.
  __device__ __forceinline__ void flush_dr(float (&acc)[D / 8][4], AxialBwdParams const& p, int first_offset, bool adds) const {
    prim::Lane const at = prim::lane_of(prim::fresh_thread());
    int const pitch = p.partial_pitch;
    int64_t const row = int64_t(prim::fresh_block()) * p.partial_rows + first_offset + band() * kGrain + at.g;
    float* const low = p.table_partials + row * pitch + first_of_dr() + channel_of<T>(0, at.t);
    float* const high = low + 8 * pitch;
    int const channels = end_of_dr(p.lines.d) - first_of_dr();
    auto for_pairs = [&](auto pair) {
#pragma unroll
      for (int m = 0; m < D / 16; ++m) {
        if (16 * m < channels) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float* const there = (i < 2 ? low : high) + 16 * m + channel_of<T>(i % 2, 0);
            pair(reinterpret_cast<float2*>(there), &acc[2 * m + i % 2][i / 2 * 2]);
          }
        }
      }
    };
    if (adds) {
      for_pairs([](float2 const* there, float* sums) {
        float2 const old = *there;
        sums[0] += old.x;
        sums[1] += old.y;
      });
    }
    for_pairs([](float2* there, float const* sums) {
      // In PTX, for the compiler takes some of these pairs apart.
      size_t const to = __cvta_generic_to_global(there);
      asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(sums[0]), "f"(sums[1]) : "memory");
    });
    clear(acc);
  }
};

template <class T, int D>
__device__ __forceinline__ void bwd(AxialBwdParams const& p) {
  using Smem = BwdSmem<T, D>;
  using Place = BwdPlace<T, D>;
  constexpr int kRows = Shape<T, D>::kRows;
  constexpr int kThreads = Place::kThreads;
  constexpr int kGroups = Place::kGroups;
  static_assert(D <= kThreads && 2 * Shape<T, D>::kGrains == kThreads / prim::kWarp, "a warp for every band of two tiles");
  static_assert(sizeof(Affine<D>) <= sizeof(Smem::norm) && sizeof(NormGradient<D>) <= sizeof(Smem::norm), "one of the two");
  Smem& smem = *prim::shared_memory<Smem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Lines const& l = p.lines;
  Block const block = block_of_grid(l, blockIdx.x);
  Place place(smem, l);
  bool const wants_queries = p.maps[kDq].data != nullptr || p.table_partials != nullptr;
  bool const wants_keys = p.maps[kDv].data != nullptr || p.norm_partials != nullptr;
  auto& affine = reinterpret_cast<Affine<D>&>(smem.norm);
  auto& gradient = reinterpret_cast<NormGradient<D>&>(smem.norm);
  if (p.norm_of == kValues) {
    affine.fill(p.norm, block.hi, 0, l.e);
  } else if (p.norm_of != kNothing) {
    gradient.fill(p, block.hi, l.e);
  }
  bool adds_dr = l.tiles > 1;   // lines of one tile: the first sums are of all offsets, and are stored
  if (p.table_partials != nullptr && adds_dr) {
    int64_t const size = int64_t(p.partial_rows) * p.partial_pitch;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      p.table_partials[block.index * size + i] = 0.f;
    }
  }
  static_assert(kMaps * Shape<T, D>::kGrains <= kRows && (Smem::kPitch - 2 * kRows) * sizeof(T) >= 2 * sizeof(T*), "room for them");
  BwdStarts<T, D> const starts{reinterpret_cast<unsigned char*>(&smem.weights[0][2 * kRows])};
  auto find_lines = [&](int parity, int group) {
    starts.fill(parity, l, block.hi, group, p.maps);
  };
  find_lines(0, block.first_group);
  __syncthreads();   // sync: batch norm's numbers and the first lines' starts filled, the block's offsets cleared

  int group = block.first_group;
  int parity = 0;    // of the group
  auto rows = [&](BwdMap map, int first) { return Rows(starts, parity, map, p.maps[map], l, group, first); };
  auto load_q_and_g = [&](int first) {
    load_tile<T, D, kThreads>(place.s_q, p.maps[kQ], l.d, rows(kQ, first));
    if (p.norm_of >= kGradient) {
      load_gradient<T, D, kThreads>(place.s_g, p, gradient, rows(kG, first), rows(kY, first));
    } else {
      load_tile<T, D, kThreads>(place.s_g, p.maps[kG], l.e, rows(kG, first));
    }
  };
  auto load_both_offsets = [&](int tile) {
    load_offsets<T, D, kThreads>(place.s_table, p.table, l.d, block.hi, tile - 1, l.log2_grains);
    load_offsets<T, D, kThreads>(place.s_table, p.table, l.d, block.hi, tile, l.log2_grains);
  };
  auto land = [&]() {
    prim::commit_copies();
    prim::wait_copies<0>();
    __syncthreads();   // sync: tiles are there
  };

  // ---- Main loop: tiles, groups of lines ------------------------------------------------------------------------------
  float dr[D / 8][4];
  float by_weight = 0.f;   // of channel threadIdx.x % D, over some of the rows
  float by_bias = 0.f;
  clear(dr);
  int held = 0;   // groups whose dr is on the tensor core
  int own = block.first_tile;      // tile
#pragma unroll 1
  while (own < block.end_tile) {
    int const first = own * place.size;
    Reached const span = reached(l, p.table, first);
    bool const is_one = span.begin == 0 && span.end == 1;   // tile: what is loaded for queries serves keys
    bool const is_last = group + 1 == block.end_group;
    int const next = is_last ? block.first_group : group + 1;
    find_lines(parity ^ 1, next);
    place.find_share();
    // The tile's pixels as queries
    if (wants_queries) {
      load_q_and_g(first);
      float dq[2 * kGroups][4];
      clear(dq);
#pragma unroll 1
      for (int tile = span.begin; tile < span.end; ++tile) {
        int const first_key = first + tile * place.size;
        if (p.norm_of == kValues) {
          load_normalised<T, D, kThreads>(place.s_v, p.maps[kV], l.e, affine, rows(kV, first_key));
        } else {
          load_tile<T, D, kThreads>(place.s_v, p.maps[kV], l.e, rows(kV, first_key));
        }
        if (!is_one || group == block.first_group) {
          load_both_offsets(tile);
        }
        land();
        place.weigh_gradients(l.e);
        __syncthreads();   // sync: dS is there
        place.add_dq(dq, tile, l.d);
        if (tile + 1 == span.end && p.maps[kDq].data != nullptr) {
          stage<T, D, kGroups>(dq, place.s_v, place.grain * kGrain, place.first_channel, l.d);
        }
        if (p.table_partials != nullptr) {
          place.add_dr(dr, l.d);
          if (!is_one || is_last || ++held == kGroupsPerSum) {
            place.flush_dr(dr, p, (tile - p.partial_begin) * place.size, adds_dr);
            adds_dr = true;
            held = 0;
          }
        }
        __syncthreads();   // sync: dS, and tiles that will be loaded again, read; dq is in smem.v
      }
      if (p.maps[kDq].data != nullptr) {
        store_tile<T, D, kThreads>(place.s_v, p.maps[kDq], l.d, p.adds_dq, rows(kDq, first));
      }
    }
    // The tile's pixels as keys
    if (wants_keys) {
      float dv[2 * kGroups][4];
      clear(dv);
#pragma unroll 1
      for (int tile = span.begin; tile < span.end; ++tile) {
        if (!is_one || !wants_queries) {
          load_q_and_g(first + tile * place.size);
          if (!is_one || group == block.first_group) {
            load_both_offsets(-tile);
          }
          land();
        }
        place.weigh(-tile, l.d);
        __syncthreads();   // sync: S is there
        place.add_dv(dv, l.e);
        if (tile + 1 == span.end) {
          stage<T, D, kGroups>(dv, place.s_q, place.grain * kGrain, place.first_channel, l.e);
        }
        __syncthreads();   // sync: S, and tiles that will be loaded again, read; dv is in smem.q
      }
      if (p.maps[kDv].data != nullptr) {
        store_tile<T, D, kThreads>(place.s_q, p.maps[kDv], l.e, false, rows(kDv, first));
      }
      if (p.norm_partials != nullptr) {
        int const thread = prim::fresh_thread();
        int const channel = thread % D;
        if (channel < l.e) {
          auto const values = rows(kV, first);
#pragma unroll 1
          for (int row = thread / D; row < kRows; row += kThreads / D) {
            Pixel<T> const pixel = values(row);
            if (pixel.lives) {
              uint32_t const unit = unit_at<T, D>(0, row, channel / prim::kUnit<T>);
              auto const* const element = reinterpret_cast<T const*>(smem.q + unit) + channel % prim::kUnit<T>;
              float const x = prim::to_float(*element);
              float const v = prim::to_float(pixel.data[channel]);
              by_weight = fmaf(x, v - affine.mean[channel], by_weight);
              by_bias += x;
            }
          }
        }
      }
    }
    __syncthreads();   // sync: dq and dv stored before the next group's tiles overwrite them
    own += is_last ? 1 : 0;
    group = next;
    parity ^= 1;
  }

  // ---- Store --------------------------------------------------------------------------------------------------------
  if (p.norm_partials != nullptr) {
    constexpr int kParts = kThreads / D;
    auto* const parts = reinterpret_cast<float(*)[2][D]>(smem.table);
    parts[threadIdx.x / D][0][threadIdx.x % D] = by_weight;
    parts[threadIdx.x / D][1][threadIdx.x % D] = by_bias;
    if constexpr (kParts > 1) {
      __syncthreads();   // sync: parts are there
    }
    if (int(threadIdx.x) < l.e) {
      Block const own_block = block_of_grid(l, prim::fresh_block());   // found again: the main loop needs the registers
      float sums[2] = {0.f, 0.f};
      for (int i = 0; i < kParts; ++i) {
        sums[0] += parts[i][0][threadIdx.x];
        sums[1] += parts[i][1][threadIdx.x];
      }
      float* const partial = p.norm_partials + own_block.index * (2 * l.e);
      partial[threadIdx.x] = sums[0] * p.norm.inverse_deviation(own_block.hi, threadIdx.x);
      partial[l.e + threadIdx.x] = sums[1];
    }
  }
}

}  // namespace axial

#define AXIAL_BWD(name, T, D, kMinBlocks)                                             \
  ENTRY_SMEM(name, sizeof(axial::BwdSmem<T, D>));                                     \
  extern "C" __global__ void __launch_bounds__((axial::kBwdThreads<T, D>), kMinBlocks) \
      name(__grid_constant__ AxialBwdParams const p) {                                \
    axial::bwd<T, D>(p);                                                              \
  }
