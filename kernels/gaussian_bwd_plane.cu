// gaussian_bwd_plane — dV and dσ in one launch, with whole planes in shared memory.
//
// f32: with ĝ = A^xᵀ g and ê = ∂A^xᵀ g (∂ = σ d/dσ):  dV = A^yᵀ ĝ,  σ dσ = ⟨v, A^yᵀ ê + ∂A^yᵀ ĝ⟩, for the operators of the
// two axes commute. 16 bits: σ dσ = Σ P^x ∘ ∂A^x + Σ P^y ∘ ∂A^y, P^x = gᵀ t, P^y = ĝ vᵀ (SPEC 1.4) on the tensor core.
//
// Work      one block per items_per_block slices of channels of planes; a warp sums whole columns, or makes tiles of P
// Reads     d_o once; v once (f32), twice (16 bits, the second time from L2)
// Writes    dv once; one partial sum of dσ per item
// Shared    gaussian_plane.cuh, two planes per unit if dσ is wanted, else one; sized by the plan
// Numerics  f32: fma chains. 16 bits: weights, t, g / Z and ĝ rounded to T (t and ĝ divided by Z, or by a power of two);
//           P in f32, exact products, at most kMmaTermsMax terms on the tensor core; ∂A in f32
// Mirrors   src/reference/gaussian.rs::backward_separable, launched by src/ops/gaussian/planes.rs
#include "gaussian_sum.cuh"

namespace gaussian {

// A partial sum of an item by this warp, in its own slot: all tasks of a warp in their order.
template <class T>
__device__ __forceinline__ void add_to_warp_sum(Layout<T, kBackward> const& smem, int item, float x) {
  float const sum = prim::warp_sum(x);
  if (threadIdx.x % prim::kWarp == 0) {
    smem.warp_sums(item)[threadIdx.x / prim::kWarp] += sum;
  }
}

// ---- f32 ------------------------------------------------------------------------------------------------------------

constexpr int kRunBoth = 4;      // consecutive outputs of a thread, of both sums

// Along x: ĝ ← W (g / Z), then / Z_y; e ← (W_ψ (g / Z) − W (mean g / Z)) / Z_y − mean_y ĝ.
// Along y: dv ← W ĝ;                 e ← W e + W_ψ ĝ.
// `planes` holds g or ĝ, `planes + shift` e.
__device__ __forceinline__ void sum_both(uint4* planes, int shift, Walk const& walk, bool is_x,
                                         AxisTable<float, kBackward> const& table,
                                         AxisTable<float, kBackward> const& other, int reach, bool is_row, int task) {
  static_assert(kAxisMax / kRunBoth <= prim::kWarp, "a warp holds a column");
  Lane<kRunBoth> const lane(walk, task);
  float4* const g = reinterpret_cast<float4*>(planes) + (lane.live ? walk.first(lane.column) : 0);
  float4* const e = g + shift;
  float4 sum_g[kRunBoth] = {};
  float4 sum_e[kRunBoth] = {};
  uint32_t const* const toeplitz_psi = table.toeplitz + toeplitz_words<float>(walk.axis);
  InputBlocks const blocks(kRunBoth, reach, lane.runs, lane.run);
  for (int i = 0; i < blocks.count; ++i) {
    int const block = blocks.first + i;
    if (lane.live && block >= 0 && block < lane.runs) {
      float w[2 * kRunBoth];
      float wpsi[2 * kRunBoth];
      load_weights<kRunBoth>(w, table.toeplitz, lane.run, block);
      load_weights<kRunBoth>(wpsi, toeplitz_psi, lane.run, block);
#pragma unroll
      for (int k = 0; k < kRunBoth; ++k) {
        int const position = block * kRunBoth + k;
        if (position < walk.axis) {
          float4 in = g[position * walk.axis_step];
          float4 with_w;               // what w multiplies in the second sum
          if (is_x) {
            in = scaled(in, is_row ? table.norm[position] : 1.f);
            with_w = scaled(in, -table.mean[position]);
          } else {
            with_w = e[position * walk.axis_step];
          }
#pragma unroll
          for (int r = 0; r < kRunBoth; ++r) {
            multiply_add(sum_g[r], w[kRunBoth + r - k], in);
            multiply_add(sum_e[r], wpsi[kRunBoth + r - k], in);
            multiply_add(sum_e[r], w[kRunBoth + r - k], with_w);
          }
        }
      }
    }
  }
  __syncwarp();   // sync: the warp's columns read before it overwrites them
  int const line = lane.live ? walk.line(lane.column) : 0;
  float const by_z = is_x && is_row ? other.norm[line] : 1.f;
  float const mean = is_x ? other.mean[line] : 0.f;
#pragma unroll
  for (int r = 0; r < kRunBoth; ++r) {
    int const position = lane.run * kRunBoth + r;
    if (lane.live && position < walk.axis) {
      float4 const sum = scaled(sum_g[r], by_z);
      float4 both = scaled(sum_e[r], by_z);
      multiply_add(both, -mean, sum);
      g[position * walk.axis_step] = sum;
      e[position * walk.axis_step] = both;
    }
  }
}

__device__ __forceinline__ void both_f32(GaussianBwdPlaneParams const& p, Layout<float, kBackward> const& smem) {
  GaussianItems const& items = p.items;
  bool const is_row = items.is_row != 0;
  int const shift = items.unit_stride << items.log2_units;

  // ---- Main loop: along x, then along y ---------------------------------------------------------
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    bool const is_x = pass == 0;
    Walk const all(items, is_x, nullptr);
    int const tasks = prim::ceil_div(all.columns(), columns_per_warp<kRunBoth>(all.axis));
    for_each_task(p.radius, items, smem, is_x, tasks,
                  [&](int item, Walk const& walk, AxisTable<float, kBackward> const& table, int reach, int task) {
                    sum_both(smem.planes(item), shift, walk, is_x, table, smem.table(item, !is_x), reach, is_row, task);
                  });
    __syncthreads();   // sync: every line summed before the other axis, or v, meets it
  }

  // ---- ⟨v, e⟩ -----------------------------------------------------------------------------------
  auto const in = prim::channels_of<float>(p.v, bits_of(p.v_at), items.channels);
  float sum = 0.f;
  for_each_unit<float const>(
      items, p.v_at, static_cast<float const*>(p.v),
      [&](int item, int index, float const* pixel, int channel) {
        float4 const v = prim::load_quad(pixel, channel, in);
        float4 const e = *reinterpret_cast<float4 const*>(smem.planes(item) + shift + index);
        sum = fmaf(v.x, e.x, fmaf(v.y, e.y, fmaf(v.z, e.z, fmaf(v.w, e.w, sum))));
      },
      [&](int item) {
        add_to_warp_sum(smem, item, sum);
        sum = 0.f;
      });
}

// ---- 16 bits --------------------------------------------------------------------------------------------------------

constexpr int kTile = 32;        // rows and columns of P that a warp makes at once
constexpr int kTileM = kTile / prim::kMmaM;
constexpr int kTileN = kTile / prim::kMmaN;
constexpr int kStepsMax = prim::kMmaTermsMax / prim::kMmaK;   // k16 steps before P leaves the tensor core

// ⟨P, ∂A⟩ over one tile, P_ij = Σ a_i · b_j over the columns [2·first_step, 2·last_step) of the walk: a k16 step takes 8
// channels of two of them.
template <class T>
__device__ __forceinline__ float gram(uint4 const* a, uint4 const* b, Walk const& walk,
                                      AxisTable<T, kBackward> const& table, bool by_norm, int row_tile, int column_tile,
                                      int first_step, int last_step) {
  int const lane = threadIdx.x % prim::kWarp;
  int const g = lane / 4;
  int const t = lane % 4;
  int const in_matrix = lane % 8;      // the row of a matrix that this lane names
  bool const is_odd = lane / 8 % 2 == 1;
  bool const is_upper = lane / 16 == 1;
  // a: matrices (rows 0–7, first column), (rows 8–15, first), (0–7, second), (8–15, second); b: columns before rows.
  int const a_row = row_tile * kTile + is_odd * 8 + in_matrix;
  int const b_row = column_tile * kTile + is_upper * 8 + in_matrix;
  float acc[kTileM][kTileN][4] = {};
  for (int step = first_step; step < last_step; ++step) {
    int const a_column = 2 * step + is_upper;
    int const b_column = 2 * step + is_odd;
    uint4 const* const a_first = walk.live(a_column) ? a + walk.first(a_column) : nullptr;
    uint4 const* const b_first = walk.live(b_column) ? b + walk.first(b_column) : nullptr;
    uint32_t a_part[kTileM][4];
    uint32_t b_part[kTileN / 2][4];
#pragma unroll
    for (int i = 0; i < kTileM; ++i) {
      int const row = a_row + i * prim::kMmaM;
      bool const exists = a_first != nullptr && row < walk.axis;
      prim::load_matrices(a_part[i], prim::shared_address(exists ? a_first + row * walk.axis_step : walk.zero));
    }
#pragma unroll
    for (int j = 0; j < kTileN / 2; ++j) {
      int const row = b_row + j * 2 * prim::kMmaN;
      bool const exists = b_first != nullptr && row < walk.axis;
      prim::load_matrices(b_part[j], prim::shared_address(exists ? b_first + row * walk.axis_step : walk.zero));
    }
#pragma unroll
    for (int i = 0; i < kTileM; ++i) {
#pragma unroll
      for (int j = 0; j < kTileN; ++j) {
        prim::mma<T>(acc[i][j], a_part[i], b_part[j / 2][j % 2 * 2], b_part[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kTileM; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const row = row_tile * kTile + i * prim::kMmaM + half * 8 + g;
      if (row < walk.axis) {
        float const mean = table.mean[row];
        float of_row = 0.f;
#pragma unroll
        for (int j = 0; j < 2 * kTileN; ++j) {
          int const column = column_tile * kTile + j / 2 * prim::kMmaN + 2 * t + j % 2;
          if (column < walk.axis) {
            int const distance = abs(row - column);
            float const lean = fmaf(-mean, table.w[distance], table.pull[distance]);
            of_row = fmaf(acc[i][j / 2][2 * half + j % 2], lean, of_row);
          }
        }
        sum = fmaf(of_row, by_norm ? table.norm[row] : 1.f, sum);
      }
    }
  }
  return sum;
}

// Adds by(item) · ⟨P, ∂A⟩ of one axis to the warps' sums of every item; `a` and `b` begin that many units into an item.
template <class T, class By>
__device__ __forceinline__ void gram_axis(GaussianBwdPlaneParams const& p, Layout<T, kBackward> const& smem, bool is_x,
                                          int a, int b, bool by_norm, By by) {
  Walk const all(p.items, is_x, nullptr);
  int const tiles = prim::ceil_div(all.axis, kTile);
  int const steps = prim::ceil_div(all.columns(), 2);
  int const spread = prim::ceil_div(kPlaneWarps, tiles * tiles * p.items.items_per_block);   // so that no warp idles
  int const parts = max(prim::ceil_div(steps, kStepsMax), min(spread, steps));
  int const per_part = prim::ceil_div(steps, parts);
  for_each_task(p.radius, p.items, smem, is_x, tiles * tiles * parts,
                [&](int item, Walk const& walk, AxisTable<T, kBackward> const& table, int reach, int task) {
                  int const tile = task / parts;
                  int const first = task % parts * per_part;
                  int const row = tile / tiles;
                  int const column = tile % tiles;
                  if (abs(row - column) * kTile - (kTile - 1) <= reach) {   // the same for the whole warp
                    uint4 const* const planes = smem.planes(item);
                    float const sum = gram<T>(planes + a, planes + b, walk, table, by_norm, row, column, first,
                                              min(first + per_part, steps));
                    add_to_warp_sum(smem, item, sum * by(item));
                  }
                });
}

// ---- Either ---------------------------------------------------------------------------------------------------------

// What the sums make, in this order; t only for dσ.
enum Stage { kT, kGhat, kDv };

template <class T>
__device__ __forceinline__ void plane(GaussianBwdPlaneParams const& p) {
  constexpr bool kIs16 = sizeof(T) == 2;
  Layout<T, kBackward> const smem(p.items);
  GaussianItems const& items = p.items;
  bool const is_row = items.is_row != 0;
  bool const has_dsigma = p.partials != nullptr;
  int const second = items.unit_stride << items.log2_units;   // where the second plane of each unit begins

  // ---- Load: planes on their way while the tables are made ---------------------------------------
  load_planes(items, p.d_o_at, p.d_o, smem, 0);
  if (kIs16 && has_dsigma) {
    load_planes(items, p.v_at, p.v, smem, second);
  }
  if (threadIdx.x == 0) {
    *smem.zero(items) = make_uint4(0, 0, 0, 0);
  }
  for (int i = threadIdx.x; i < items.items_per_block * kPlaneWarps; i += kPlaneThreads) {
    smem.warp_sums(i / kPlaneWarps)[i % kPlaneWarps] = 0.f;
  }
  fill_tables(p.radius, items, smem);
  prim::wait_copies<0>();
  __syncthreads();     // sync: planes landed; tables, sums and the unit of zeros filled

  // ---- Main loop --------------------------------------------------------------------------------
  if (!kIs16 && has_dsigma) {
    if constexpr (!kIs16) {
      both_f32(p, smem);
    }
  } else {
    // t = A^y v where v lies, then P^x; ĝ = A^xᵀ g where g lies, then P^y; dv = A^yᵀ ĝ.
#pragma unroll 1
    for (int stage = has_dsigma ? kT : kGhat; stage <= kDv; ++stage) {
      bool const is_x = stage == kGhat;
      sum_axis(p.radius, items, smem, is_x, stage == kT ? second : 0, [&](int item) {
        float const* const c = smem.scales(item);
        float const* const by_z = smem.table(item, is_x).norm;
        if (stage == kT) {
          return is_row ? Scaling::by_table(by_z) : Scaling::by_number(1.f / c[0]);
        }
        if (stage == kDv) {
          return Scaling::by_number(is_row ? 1.f / c[0] : c[1]);
        }
        return is_row ? Scaling{by_z, c[1], nullptr, smem.table(item, false).norm, c[0] / c[1]}
                      : Scaling::by_number(1.f / c[1]);
      });
      if constexpr (kIs16) {
        prim::wait_copies<0>();
      }
      __syncthreads();     // sync: sums made, and v landed again, before P, the other axis or the store reads them
      if constexpr (kIs16) {
        if (has_dsigma && stage != kDv) {
          bool const is_px = stage == kT;
          // ĝ is divided by Z_y already.
          gram_axis(p, smem, is_px, 0, second, is_px && is_row, [&](int item) {
            float const* const c = smem.scales(item);
            return is_px ? (is_row ? 1.f : c[0]) : (is_row ? 1.f / c[0] : c[1]);
          });
          __syncthreads();   // sync: t, g and ĝ read by all before v, ĝ and dv overwrite them
          if (is_px) {
            load_planes(items, p.v_at, p.v, smem, second);
          }
        }
      }
    }
  }

  // ---- Store --------------------------------------------------------------------------------
  if (p.dv != nullptr) {
    store_planes(items, p.dv_at, p.dv, smem);
  }
  if (has_dsigma) {
    if constexpr (!kIs16) {
      __syncthreads();     // sync: every warp's sums are in; with 16 bits they are since dv's stage
    }
    int const item = threadIdx.x;
    int const index = blockIdx.x * items.items_per_block + item;
    if (item < items.items_per_block && index < items.items) {
      float sum = 0.f;
      for (int i = 0; i < kPlaneWarps; ++i) {
        sum += smem.warp_sums(item)[i];
      }
      p.partials[index] = sum;
    }
  }
}

}  // namespace gaussian

#define VARIANT(name, T)                                                                                    \
  ENTRY_SMEM(name, prim::kSharedSm90);                                                                      \
  extern "C" __global__ void __launch_bounds__(gaussian::kPlaneThreads, 1)                                  \
      name(__grid_constant__ GaussianBwdPlaneParams const p) {                                              \
    gaussian::plane<T>(p);                                                                                  \
  }
VARIANT(gaussian_bwd_plane_f32, float)
VARIANT(gaussian_bwd_plane_f16, __half)
VARIANT(gaussian_bwd_plane_bf16, __nv_bfloat16)
