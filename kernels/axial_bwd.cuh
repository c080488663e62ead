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

struct AxialBwdParams {
  axial::Map q, v, g;
  axial::Map y;                // of batch norm's input, where g comes through it
  axial::Map dq, dv;           // data null: not wanted
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
  T weights[kRows][kPitch];     // dS by query and offset, then S by query and key
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

// Gradients that went through batch norm: scale · (g − shift − (y − mean) · slope), rounded to T.
template <class T, int D, int kThreads>
__device__ __forceinline__ void load_gradient(uint32_t s_tile, AxialBwdParams const& p, int hi, int group, int first,
                                              NormGradient<D> const& norm) {
  Lines const& l = p.lines;
  prim::Channels const g_channels = channels_of<T>(p.g, l.e);
  prim::Channels const y_channels = channels_of<T>(p.y, l.e);
  for_units<T, D, kThreads>(Shape<T, D>::kRows, l.e, [&](int row, int channel) {
    Row const r = row_of<Shape<T, D>::kRows>(l, group, first, row);
    uint4 unit = make_uint4(0, 0, 0, 0);
    if (r.lives && channel < l.e) {
      float g[prim::kUnit<T>];
      prim::unpack_unit<T>(g, prim::load_unit(pixel_of<T const>(p.g, hi, r), channel, g_channels));
      if (p.norm_of == kGradientOfBatch) {
        float y[prim::kUnit<T>];
        prim::unpack_unit<T>(y, prim::load_unit(pixel_of<T const>(p.y, hi, r), channel, y_channels));
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
        warp(prim::warp_of_block()),
        grain(warp / kBwdSplit),
        of_line(grain & (grains - 1)),
        first_channel(warp % kBwdSplit * (kGroups * 16)) {}

  // First row of the lines' tile that a grain lies in.
  __device__ __forceinline__ int line_row(int of_grain) const { return (of_grain & -grains) * kGrain; }

  __device__ __forceinline__ uint32_t weight_at(int row, int column) const {
    return s_weights + (row * kPitch + column) * int(sizeof(T));
  }

  // dS, by query and offset: what a row does not reach in a band that it shares is 0.
  __device__ __forceinline__ void weigh_gradients(int e) const {
    prim::Lane const at = prim::lane_of_warp();
#pragma unroll 1
    for (int task = warp; task < Shape<T, D>::kGrains << log2_grains; task += kThreads / prim::kWarp) {
      int const queries = task >> log2_grains;
      int const keys = task & (grains - 1);
      float c[2][4] = {};
      rows_by_rows<T, D>(c, s_g, queries * kGrain, s_v, line_row(queries) + keys * kGrain, e);
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
    prim::Lane const at = prim::lane_of_warp();
#pragma unroll 1
    for (int band = grains - of_line - 1 + warp % kBwdSplit; band < 2 * grains - of_line; band += kBwdSplit) {
      float c[2][4] = {};
      rows_by_rows<T, D>(c, s_q, grain * kGrain, s_table, band_row(band * kGrain, tile, log2_grains), d);
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
      weights_by_rows<T, D, kPitch, false, kGroups>(acc, weight_at(grain * kGrain, band * kGrain), s_table,
                                                    band_row(band * kGrain, tile, log2_grains), first_channel, d);
    }
  }

  // dr of the warp's band, all channels
  __device__ __forceinline__ void add_dr(float (&acc)[D / 8][4], int d) const {
    if (warp < 2 * grains) {
#pragma unroll 1
      for (int queries = 0; queries < Shape<T, D>::kGrains; ++queries) {
        int const nearest = grains - (queries & (grains - 1)) - 1;   // band of the first key
        if (warp >= nearest && warp <= nearest + grains) {
          weights_by_rows<T, D, kPitch, true, D / 16>(acc, weight_at(queries * kGrain, warp * kGrain), s_q, queries * kGrain, 0, d);
        }
      }
    }
  }

  // dv of the warp's grain of keys and channels
  __device__ __forceinline__ void add_dv(float (&acc)[2 * kGroups][4], int e) const {
    int const first_row = line_row(grain);
#pragma unroll 1
    for (int row = first_row; row < first_row + size; row += kGrain) {
      weights_by_rows<T, D, kPitch, true, kGroups>(acc, weight_at(row, of_line * kGrain), s_g, row, first_channel, e);
    }
  }

  // Adds the band's sums to the block's offsets, of which the band's tile begins at `first_offset`.
  __device__ __forceinline__ void flush_dr(float (&acc)[D / 8][4], float* partial, int first_offset, int pitch, int d) const {
    if (warp < 2 * grains) {
      prim::Lane const at = prim::lane_of_warp();
#pragma unroll
      for (int m = 0; m < D / 16; ++m) {
        if (16 * m < d) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float* const row = partial + int64_t(first_offset + warp * kGrain + at.g + 8 * half) * pitch + 16 * m;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
              auto* const pair = reinterpret_cast<float2*>(row + channel_of<T>(j, at.t));
              float2 const old = *pair;
              *pair = make_float2(old.x + acc[2 * m + j][2 * half], old.y + acc[2 * m + j][2 * half + 1]);
            }
          }
        }
      }
    }
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
  Block const block = block_of_grid(l);
  Place const place(smem, l);
  bool const wants_queries = p.dq.data != nullptr || p.table_partials != nullptr;
  bool const wants_keys = p.dv.data != nullptr || p.norm_partials != nullptr;
  auto& affine = reinterpret_cast<Affine<D>&>(smem.norm);
  auto& gradient = reinterpret_cast<NormGradient<D>&>(smem.norm);
  if (p.norm_of == kValues) {
    affine.fill(p.norm, block.hi, 0, l.e);
  } else if (p.norm_of != kNothing) {
    gradient.fill(p, block.hi, l.e);
  }
  int const pitch = p.partial_pitch;
  float* const table_partial = p.table_partials + (p.table_partials == nullptr ? 0 : block.index * p.partial_rows * pitch);
  if (p.table_partials != nullptr) {
    for (int64_t i = threadIdx.x; i < int64_t(p.partial_rows) * pitch; i += kThreads) {
      table_partial[i] = 0.f;
    }
  }
  __syncthreads();   // sync: batch norm's numbers filled, the block's offsets cleared

  auto load_q_and_g = [&](int group, int first) {
    load_tile<T, D, kThreads>(place.s_q, p.q, l.d, l, block.hi, group, first);
    if (p.norm_of >= kGradient) {
      load_gradient<T, D, kThreads>(place.s_g, p, block.hi, group, first, gradient);
    } else {
      load_tile<T, D, kThreads>(place.s_g, p.g, l.e, l, block.hi, group, first);
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
  int group = block.first_group;
#pragma unroll 1
  while (own < block.end_tile) {
    int const first = own * place.size;
    Reached const span = reached(l, p.table, first);
    bool const is_one = span.begin == 0 && span.end == 1;   // tile: what is loaded for queries serves keys
    bool const is_last = group + 1 == block.end_group;
    // The tile's pixels as queries
    if (wants_queries) {
      load_q_and_g(group, first);
      float dq[2 * kGroups][4];
      clear(dq);
#pragma unroll 1
      for (int tile = span.begin; tile < span.end; ++tile) {
        int const first_key = first + tile * place.size;
        if (p.norm_of == kValues) {
          load_normalised<T, D, kThreads>(place.s_v, p.v, l.e, l, block.hi, group, first_key, affine);
        } else {
          load_tile<T, D, kThreads>(place.s_v, p.v, l.e, l, block.hi, group, first_key);
        }
        if (!is_one || group == block.first_group) {
          load_both_offsets(tile);
        }
        land();
        place.weigh_gradients(l.e);
        __syncthreads();   // sync: dS is there
        place.add_dq(dq, tile, l.d);
        if (p.table_partials != nullptr) {
          place.add_dr(dr, l.d);
          if (!is_one || is_last || ++held == kGroupsPerSum) {
            place.flush_dr(dr, table_partial, (tile - p.partial_begin) * place.size, pitch, l.d);
            held = 0;
          }
        }
        if (tile + 1 == span.end && p.dq.data != nullptr) {
          stage<T, D, kGroups>(dq, place.s_v, place.grain * kGrain, place.first_channel, l.d);
        }
        __syncthreads();   // sync: dS, and tiles that will be loaded again, read; dq is in smem.v
      }
      if (p.dq.data != nullptr) {
        prim::Channels const channels = channels_of<T>(p.dq, l.d);
        for_units<T, D, kThreads>(kRows, l.d, [&](int row, int channel) {
          Row const r = row_of<kRows>(l, group, first, row);
          if (r.lives && channel < l.d) {
            T* const pixel = pixel_of<T>(p.dq, block.hi, r);
            uint4 unit = prim::load_shared_unit(unit_at<T, D>(place.s_v, row, channel / prim::kUnit<T>));
            if (p.adds_dq) {
              unit = prim::sum_of_units<T>(unit, prim::load_written(pixel, channel, channels));
            }
            prim::store_unit(pixel, channel, channels, unit);
          }
        });
      }
    }
    // The tile's pixels as keys
    if (wants_keys) {
      float dv[2 * kGroups][4];
      clear(dv);
#pragma unroll 1
      for (int tile = span.begin; tile < span.end; ++tile) {
        if (!is_one || !wants_queries) {
          load_q_and_g(group, first + tile * place.size);
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
      if (p.dv.data != nullptr) {
        prim::Channels const channels = channels_of<T>(p.dv, l.e);
        for_units<T, D, kThreads>(kRows, l.e, [&](int row, int channel) {
          Row const r = row_of<kRows>(l, group, first, row);
          if (r.lives && channel < l.e) {
            uint4 const unit = prim::load_shared_unit(unit_at<T, D>(place.s_q, row, channel / prim::kUnit<T>));
            prim::store_unit(pixel_of<T>(p.dv, block.hi, r), channel, channels, unit);
          }
        });
      }
      if (p.norm_partials != nullptr) {
        int const channel = threadIdx.x % D;
        if (channel < l.e) {
#pragma unroll 1
          for (int row = threadIdx.x / D; row < kRows; row += kThreads / D) {
            Row const r = row_of<kRows>(l, group, first, row);
            if (r.lives) {
              uint32_t const unit = unit_at<T, D>(0, row, channel / prim::kUnit<T>);
              auto const* const element = reinterpret_cast<T const*>(smem.q + unit) + channel % prim::kUnit<T>;
              float const x = prim::to_float(*element);
              float const v = prim::to_float(pixel_of<T const>(p.v, block.hi, r)[channel]);
              by_weight = fmaf(x, v - affine.mean[channel], by_weight);
              by_bias += x;
            }
          }
        }
      }
    }
    __syncthreads();   // sync: dq and dv stored before the next group's tiles overwrite them
    own += is_last ? 1 : 0;
    group = is_last ? block.first_group : group + 1;
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
      float sums[2] = {0.f, 0.f};
      for (int i = 0; i < kParts; ++i) {
        sums[0] += parts[i][0][threadIdx.x];
        sums[1] += parts[i][1][threadIdx.x];
      }
      float* const partial = p.norm_partials + block.index * (2 * l.e);
      partial[threadIdx.x] = sums[0] * p.norm.inverse_deviation(block.hi, threadIdx.x);
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
