// axial_fwd_map — both layers in one launch, columns, batch norm with given statistics, rows: the values of a whole map stay in
// shared memory, a slice of channels at a time. For gsa plus the other branch, q̂ · summary.
//
// Work      a block holds one slice of channels of one image and head; two warps a grain of queries; every slice makes the
//           weights anew
// Reads     v once; q twice for every slice, tables twice: from L2 after the first time
// Writes    o once; what lies between the layers, if wanted
// Shared    MapSmem, the map after it, and for gsa the slice of the summary behind that; all that a block of the largest GPU may
//           have, the plan asks for what it needs
// Numerics  as axial_fwd: sums f32; weights, and what lies between the layers before and after batch norm, rounded to T; for gsa
//           the summary and queries after softmax too, and both branches are one f32 sum, rounded once
// Mirrors   src/reference/axial.rs::forward, launched by src/ops/axial/map.rs
#include "axial_tile.cuh"

struct AxialFwdMapParams {
  axial::Map q, v, y, o;             // as columns walk them; y.data null: not wanted
  axial::Table columns, rows;
  axial::Norm norm;                  // weight.data null: none
  axial::Summary summary;
  axial::Lines along_columns, along_rows;   // of one image and head
  int32_t heads;
  int32_t slices;                    // of channels
  int32_t log2_units;                // of 16 bytes, of a slice
  int32_t pitch;                     // pixels from row to row of the map in shared memory: 1 more than a multiple of 8
};
static_assert(sizeof(AxialFwdMapParams) == 520, "AxialFwdMapParams: change src/ops/axial/params.rs together with this");

namespace axial {

constexpr int kMapChannels = 64;     // of q, at most, and of a slice
constexpr int kMapSplit = 2;         // warps that share a grain of queries
constexpr int kMapThreads = Shape<__half, kMapChannels>::kGrains * kMapSplit * prim::kWarp;

template <class T>
struct MapSmem {
  using Of = Shape<T, kMapChannels>;
  static constexpr int kPitch = Of::kRows + prim::kUnit<T>;
  unsigned char table[2 * Of::kTileBytes];
  unsigned char q[Of::kTileBytes];
  T weights[Of::kRows][kPitch];
  Affine<kMapChannels> affine;
};

// Where pixels lie in the block's map. Eight neighbours along either axis put one unit into eight different bank groups.
struct Pixels {
  uint32_t s_map;
  int log2_units, pitch;

  __device__ __forceinline__ uint32_t unit(int yi, int xi, int unit) const {
    int const index = yi * pitch + xi;
    int const phase = index >> (3 - log2_units) & ((1 << log2_units) - 1);
    return s_map + ((index << log2_units) + (unit ^ phase)) * prim::kUnitBytes;
  }
};

// A tensor's pixels of one image and head.
__device__ __forceinline__ Map plane_of(Map const& map, int size, int bi, int hi) {
  Map plane = map;
  // Which tensor it is may have been chosen at run time; without this the compiler does not see that it is global memory.
  auto* const data = __cvta_global_to_generic(__cvta_generic_to_global(map.data));
  plane.data = static_cast<unsigned char*>(data) + (map.offset + bi * map.stride_b + hi * map.stride_h) * size;
  plane.offset = plane.stride_b = plane.stride_h = 0;
  return plane;
}

// prim::store_unit; the compiler takes the whole store apart where the tensor was chosen at run time.
template <class T>
__device__ __forceinline__ void store_to(T* pixel, int channel, prim::Channels channels, uint4 u) {
  if (channels.wide) {
    size_t const to = __cvta_generic_to_global(pixel + channel);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(u.x), "r"(u.y), "r"(u.z), "r"(u.w) : "memory");
  } else {
    prim::store_unit(pixel, channel, channels, u);
  }
}

// kAdds: whether there is a summary.
template <class T, bool kAdds>
__device__ __forceinline__ void fwd_map(AxialFwdMapParams const& p) {
  constexpr int D = kMapChannels;
  using Smem = MapSmem<T>;
  constexpr int kRows = Shape<T, D>::kRows;
  constexpr int kThreads = kMapThreads;
  constexpr int kGroups = D / 16 / kMapSplit;
  constexpr int kUnit = prim::kUnit<T>;
  static_assert(sizeof(T) == 2, "f32 maps take two launches");
  static_assert(sizeof(Smem) == 34560, "change src/ops/axial/map.rs together with this");
  Smem& smem = *prim::shared_memory<Smem>();
  uint32_t const s_table = prim::shared_address(smem.table);
  uint32_t const s_q = prim::shared_address(smem.q);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const plane = blockIdx.x / p.slices;
  int const slice = blockIdx.x - plane * p.slices;
  int const bi = plane / p.heads;
  int const hi = plane - bi * p.heads;
  int const first_of_slice = slice << p.log2_units << 3;
  int const size_y = p.along_columns.axis;
  int const size_x = p.along_rows.axis;
  int const e = min(p.along_columns.e - first_of_slice, kUnit << p.log2_units);   // channels of the slice
  Pixels const pixels{prim::shared_address(&smem) + uint32_t(sizeof(Smem)), p.log2_units, p.pitch};
  int const warp = prim::warp_of_block();
  int const grain = warp / kMapSplit;
  int const first_channel = warp % kMapSplit * (kGroups * 16);
  prim::Lane const at = prim::lane_of_warp();
  LaneOffsets<T, D, Smem::kPitch> const of_lane;
  uint32_t const s_weights = prim::shared_address(&smem.weights[grain * kGrain][0]);
  bool const has_norm = p.norm.weight.data != nullptr;
  Map const q = plane_of(p.q, sizeof(T), bi, hi);

  // Calls `unit(yi, xi, channel, address)` for the units of the map; a thread stays in one column of units.
  auto for_map = [&](auto unit) {
    int const own = threadIdx.x & ((1 << p.log2_units) - 1);
    int const step = kThreads >> p.log2_units;
    int xi = threadIdx.x >> p.log2_units;
    int yi = xi / size_x;
    xi -= yi * size_x;
#pragma unroll 1
    while (yi < size_y) {
      unit(yi, xi, own * kUnit, pixels.unit(yi, xi, own));
      int const down = (xi + step) / size_x;
      yi += down;
      xi += step - down * size_x;
    }
  };
  auto pixel = [&](Map const& map, int yi, int xi) {
    return static_cast<T*>(map.data) + yi * map.stride_axis + xi * map.stride_line + first_of_slice;
  };

  // ---- Load: the map ------------------------------------------------------------------------------------------------
  {
    Map const v = plane_of(p.v, sizeof(T), bi, hi);
    prim::Channels channels = channels_of<T>(p.v, p.along_columns.e);
    channels.count = e;
    for_map([&](int yi, int xi, int channel, uint32_t to) {
      copy_unit<T>(to, pixel(v, yi, xi), channel, channels, true);
    });
  }
  if (has_norm) {
    smem.affine.fill(p.norm, hi, first_of_slice, e);
  }
  int const of_slice = kUnit << p.log2_units;
  prim::Matrix<T> const summary{pixels.s_map + (size_y * p.pitch << p.log2_units) * prim::kUnitBytes,
                                prim::Matrix<T>::pitch_of(of_slice)};
  if constexpr (kAdds) {
    int const total = p.along_columns.e;
    int const d = p.along_columns.d;
    summary.fill(p.summary.data + int64_t(plane) * d * total + first_of_slice, total, d, e, prim::round_up(d, kGrain), of_slice, 1.f);
  }

  // ---- Main loop: layers, groups of lines -----------------------------------------------------------------------------
#pragma unroll 1
  for (int layer = 0; layer < 2; ++layer) {
    bool const is_first = layer == 0;
    Lines const& l = is_first ? p.along_columns : p.along_rows;
    Table const& table = is_first ? p.columns : p.rows;
    int const log2_grains = l.log2_grains;
    int const grains = 1 << log2_grains;
    int const size = kGrain << log2_grains;
    int const of_line = grain & (grains - 1);
    load_offsets<T, D, kThreads>(s_table, table, l.d, hi, -1, log2_grains);
    load_offsets<T, D, kThreads>(s_table, table, l.d, hi, 0, log2_grains);
    Map walk = q;
    walk.stride_line = is_first ? q.stride_line : q.stride_axis;
    walk.stride_axis = is_first ? q.stride_axis : q.stride_line;
#pragma unroll 1
    for (int group = 0; group < l.groups; ++group) {
      // A row of the tile; line 0 and pixel 0 where there is none.
      struct Place {
        int line, pixel;
        bool lives;
      };
      auto place_of = [&](int row) {
        int const of_tile = row >> (log2_grains + 4);
        int const line = group * (kRows / kGrain >> log2_grains) + of_tile;
        int const pixel = row - of_tile * size;
        bool const lives = line < l.lines && pixel < l.axis;
        return lives ? Place{line, pixel, true} : Place{0, 0, false};
      };
      load_tile<T, D, kThreads>(s_q, walk, l.d, [&](int row) {
        Place const r = place_of(row);
        return Pixel<T const>{start_of_line<T const>(walk, 0, 0, r.line) + r.pixel * walk.stride_axis, r.lives};
      });
      prim::commit_copies();
      prim::wait_copies<0>();
      __syncthreads();   // sync: q, the offsets and the map are there; the last group's results are in the map

#pragma unroll 1
      for (int band = grains - of_line - 1 + warp % kMapSplit; band < 2 * grains - of_line; band += kMapSplit) {
        float c[2][4] = {};
        rows_by_rows(c, s_q, grain * kGrain, s_table, band_row(band * kGrain, 0, log2_grains), l.d, of_lane);
        int const first = (of_line + band - grains) * kGrain;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            int const row = at.g + i / 2 * 8;
            int const key = first + row + 8 * j + 2 * at.t + i % 2;
            if (unsigned(key) < unsigned(size)) {
              store_weight<T>(s_weights, row * Smem::kPitch + key, key < l.axis ? c[j][i] : 0.f);
            }
          }
        }
      }
      __syncthreads();   // sync: the weights of the warps that share a grain are there
      bool const adds = kAdds && !is_first;
      if (adds && p.summary.norms_queries) {
        normalise_rows<T, D>(s_q, warp * 8, l.d);
        __syncthreads();   // sync: the queries of the warps that share a grain are normalised
      }

      float acc[2 * kGroups][4];
      clear(acc);
      int const line = min((group * (kRows / kGrain >> log2_grains)) + (grain >> log2_grains), l.lines - 1);
      int const lane = threadIdx.x % prim::kWarp;
#pragma unroll 1
      for (int first = 0; first < l.axis; first += kGrain) {
        int const key = min(first + lane % 16, l.axis - 1);
        uint32_t a[4];
        prim::load_matrices(a, s_weights + first * int(sizeof(T)) + of_lane.weights);
        add_products<T, kGroups>(acc, a, first_channel, e, [&](int m) {
          int const unit = first_channel / 8 + 2 * m + lane / 16;
          return is_first ? pixels.unit(key, line, unit) : pixels.unit(line, key, unit);
        });
      }
      if (adds) {
        rows_by_matrix<kGroups>(acc, s_q, grain * kGrain, 0, l.d, summary, first_channel, e, of_lane);
      }
      __syncthreads();   // sync: the lines read before their results take their places

      // ---- Store: into the map ------------------------------------------------------------------------------------------
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Place const r = place_of(grain * kGrain + at.g + 8 * half);
#pragma unroll
        for (int m = 0; m < 2 * kGroups; ++m) {
          int const channel = first_channel + 8 * m;
          if (r.lives && channel < prim::round_up(e, kGrain)) {
            uint32_t const unit =
                is_first ? pixels.unit(r.pixel, r.line, channel / kUnit) : pixels.unit(r.line, r.pixel, channel / kUnit);
            uint32_t const pair = prim::Pair<T>::pack(acc[m][2 * half], acc[m][2 * half + 1]);
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(unit + 4 * at.t), "r"(pair) : "memory");
          }
        }
      }
    }
    __syncthreads();   // sync: all results of the layer are in the map

    // ---- Store: the map -----------------------------------------------------------------------------------------------
    Map const& to = is_first ? p.y : p.o;
    bool const is_normalised = is_first && has_norm;
    if (to.data != nullptr || is_normalised) {
      Map const out = plane_of(to, sizeof(T), bi, hi);
      prim::Channels channels = channels_of<T>(to, p.along_columns.e);
      channels.count = e;
      for_map([&](int yi, int xi, int channel, uint32_t from) {
        uint4 const unit = prim::load_shared_unit(from);
        if (to.data != nullptr && channel < e) {
          store_to(pixel(out, yi, xi), channel, channels, unit);
        }
        if (is_normalised) {
          float x[kUnit];
          prim::unpack_unit<T>(x, unit);
#pragma unroll
          for (int i = 0; i < kUnit; ++i) {
            Affine<D> const& a = smem.affine;
            x[i] = fmaf(x[i] - a.mean[channel + i], a.scale[channel + i], a.bias[channel + i]);
          }
          prim::store_shared_unit(from, prim::pack_unit<T>(x));
        }
      });
    }
  }
}

}  // namespace axial

#define AXIAL_FWD_MAP(name, T, kAdds)                                                   \
  ENTRY_SMEM(name, prim::kSharedSm90);                                                  \
  extern "C" __global__ void __launch_bounds__(axial::kMapThreads, 2)                                  \
      name(__grid_constant__ AxialFwdMapParams const p) {                               \
    axial::fwd_map<T, kAdds>(p);                                                        \
  }
AXIAL_FWD_MAP(axial_fwd_map_f16, __half, false)
AXIAL_FWD_MAP(axial_fwd_map_bf16, __nv_bfloat16, false)
AXIAL_FWD_MAP(axial_fwd_map_gsa_f16, __half, true)
AXIAL_FWD_MAP(axial_fwd_map_gsa_bf16, __nv_bfloat16, true)
