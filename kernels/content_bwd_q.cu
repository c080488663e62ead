// content_bwd_q — from q and dO: dQ, and the gradient of the summary, dC = weight(Q)ᵀ dO, in partial sums.
//
// Work      one block per split of the positions of a (batch, head). Of a tile of positions, its warps first make dO · Cᵀ, a
//           patch of 16 positions × 32 channels each, and dQ of it; then they sum units of dC, groups of warps taking steps
//           of 16 positions in turn
// Reads     q, dO once; the summary once per block
// Writes    dq once; partial sums once
// Shared    the summary in T, tiles of q and dO, a few numbers per position; then the groups' sums; sized by the plan
// Numerics  products and sums f32; with 16-bit elements the summary (linear forms: times a power of two), the weights (linear
//           forms: divided by the normaliser) and what goes through the normaliser are rounded to T; at most 1024 terms stay
//           in a tensor core
// Mirrors   src/reference/content.rs::backward, launched by src/ops/content/plan.rs::backward
#include "content_rows.cuh"
#include "content_tile.cuh"

struct ContentBwdQParams {
  content::Map q, d_o, dq;         // dq: null if not wanted
  float const* summary;            // [b, h, d, e]
  float const* sum;                // [b, h, d]
  float* partials;                 // [bh, split, d, quads of e]; null: only dq is wanted
  float* totals;                   // [bh, split, d]: of the normaliser's gradient
  content::Positions queries;
  prim::Divisor heads;
  int32_t d, e;
  int32_t form;
  float shrink;                    // what the summary and its sums are multiplied with
  content::Tiling tiling;
  int32_t matrix_bytes;            // of the summary in shared memory
  int32_t numbers_at;              // where the numbers of channels and positions are there
  int32_t patches_log2;            // patches of a tile, one above the other: 1, 2, 4 or 8
};
static_assert(sizeof(ContentBwdQParams) == 288, "ContentBwdQParams: change src/ops/content/plan/params.rs together with this");

namespace content {

constexpr int kPatchColumns = 32;

// dφ/dx of the linear forms.
__device__ __forceinline__ float slope(int form, float x) {
  return x > 0.f ? 1.f : form == kRelu ? 0.f : exp_approx(x);
}

template <class T, int kWarps>
__device__ __forceinline__ void bwd_q(ContentBwdQParams const& p) {
  using Patch = Rows<T, kPatchColumns>;
  static_assert(Patch::kCount == kBlock, "a patch is a block of positions");
  Tiling const& tiling = p.tiling;
  auto* const smem = prim::shared_memory<unsigned char>();
  uint32_t const s_bytes = prim::shared_address(smem);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Part const part = part_of_block(p.queries, p.heads);
  int const dp = prim::round_up(p.d, kBlock);
  int const ep = prim::round_up(p.e, kColumnBlock<T>);
  int const warp = prim::warp_of_block();
  bool const weighs = p.form == kSoftmaxBoth || is_linear(p.form);
  bool const sums_up = p.partials != nullptr;
  unsigned char* const tiles = smem + p.matrix_bytes;
  Matrix<T> const matrix{s_bytes, Matrix<T>::pitch_of(ep)};
  auto* const sums = reinterpret_cast<float*>(smem + p.numbers_at);       // [dp]
  auto* const scales = reinterpret_cast<QueryScale*>(sums + dp);          // [tile]
  auto* const through = reinterpret_cast<float*>(scales + tiling.tile);   // [tile]
  float* const row_sums = through + tiling.tile;                          // [patches side by side][tile]

  int const q_pitch = pitch_of<T>(dp);
  int const g_pitch = pitch_of<T>(ep);
  auto own = [&](int of_warp) {
    return s_bytes + p.matrix_bytes + tiling.stages * tiling.stage_bytes + of_warp * tiling.own_bytes;
  };

  // ---- Load: the first tile, the summary --------------------------------------------------------------------------------
  TileCopy<T> const copy{p.q, p.d, dp, p.d_o, p.e, ep};
  for (int stage = 0; stage < tiling.stages - 1; ++stage) {
    copy(tiling, p.queries, p.heads, tiles, stage, stage);
  }
  matrix.fill(p.summary + part.bh * p.d * p.e, p.e, p.d, p.e, prim::round_up(p.d, kColumnBlock<T>), ep, p.shrink);
  for (int ci = threadIdx.x; ci < dp; ci += kWarps * prim::kWarp) {
    sums[ci] = ci < p.d ? __ldg(p.sum + part.bh * p.d + ci) * p.shrink : 0.f;
  }

  // ---- Main loop ------------------------------------------------------------------------------------------------------
  Unit<T> grads;
  grads.start(kDotProduct);
  int stage = 0;
  for (int tile = 0; tile * tiling.tile < part.count; ++tile) {
    if (tiling.stages == 1) {
      __syncthreads();   // sync: the one stage read by all warps before it is overwritten
      copy(tiling, p.queries, p.heads, tiles, tile, 0);
    }
    prim::wait_copies<0>();
    __syncthreads();     // sync: tile and summary landed for all warps, and all are done with the stage that is copied to next
    if (tiling.stages > 1) {
      copy(tiling, p.queries, p.heads, tiles, tile + 1, 1 - stage);
    }
    uint32_t const s_q = s_bytes + p.matrix_bytes + stage * tiling.stage_bytes;
    uint32_t const s_g = s_q + tiling.tile * q_pitch;

    if (weighs) {
      for (int row = fresh_thread() / prim::kWarp * 8 + prim::fresh_lane() % 8; row < tiling.tile; row += kWarps * 8) {
        QueryScale const scale = query_scale<T>(s_q + row * q_pitch, p.d, p.form, sums, kEpsilon * p.shrink);
        if (prim::fresh_lane() < 8) {
          scales[row] = scale;
        }
      }
      __syncthreads();   // sync: scales written before any warp reads them
    }
    Patch direct;
    int const patch = fresh_thread() / prim::kWarp;
    int const patch_row = (patch & ((1 << p.patches_log2) - 1)) * kBlock;
    int const patch_side = patch >> p.patches_log2;
    int const patch_column = patch_side * kPatchColumns;
    int const patch_columns = min(dp - patch_column, kPatchColumns);
    bool const has_patch = patch_columns > 0 && (p.dq.data != nullptr || is_linear(p.form));
    uint32_t const s_patch = s_q + patch_row * q_pitch + patch_column * int(sizeof(T));
    if (has_patch) {
      direct.start();
      direct.template multiply<true>(s_g + patch_row * g_pitch, g_pitch, ep, matrix, patch_column, patch_columns);
      if (weighs) {
#pragma unroll
        for (int i = 0; i < Patch::kOfLane; ++i) {
          int const row = patch_row + Patch::row(i);
          QueryScale const scale = scales[row];
          float sum = 0.f;
          direct.each(i, s_patch, q_pitch, patch_columns, [&](int column, float q, float& x) {
            float const w = patch_column + column < p.d ? query_weight(p.form, q, scale) : 0.f;
            sum = fmaf(is_linear(p.form) ? prim::rounded<T>(w) : w, x, sum);
          });
          sum = Patch::sum_of_row(sum);
          if (Patch::is_first_of_row()) {
            row_sums[patch_side * tiling.tile + row] = sum;
          }
        }
      }
    }
    if (weighs) {
      __syncthreads();   // sync: sums of all patches of a row written before they are added
    }
    if (has_patch && p.dq.data != nullptr) {
      if (weighs) {
#pragma unroll
        for (int i = 0; i < Patch::kOfLane; ++i) {
          int const row = patch_row + Patch::row(i);
          QueryScale const scale = scales[row];
          float sum = 0.f;
          for (int side = 0; side * kPatchColumns < dp; ++side) {
            sum += row_sums[side * tiling.tile + row];
          }
          float const by_normaliser = sum * scale.inverse;
          direct.each(i, s_patch, q_pitch, patch_columns, [&](int column, float q, float& x) {
            if (is_linear(p.form)) {
              x = fmaf(-sums[patch_column + column], by_normaliser, x) * (scale.inverse * slope(p.form, q));
            } else {
              x = query_weight(p.form, q, scale) * (x - sum);
            }
          });
        }
      }
      Part const here = part_of_block(p.queries, p.heads);
      Plane<T> const dq(p.dq, p.queries, here);
      direct.store(dq, channels_of(p.dq, p.d), patch_column, patch_columns, here.first + tile * tiling.tile + patch_row,
                   here.first + here.count, false);
    }
    if (weighs && sums_up) {
      __syncthreads();   // sync: queries read before weights overwrite them
      for (int row = fresh_thread() / prim::kWarp * 8 + prim::fresh_lane() % 8; row < tiling.tile; row += kWarps * 8) {
        QueryScale const scale = scales[row];
        weigh_queries<T>(s_q + row * q_pitch, p.d, p.form, scale, is_linear(p.form) ? scale.inverse : 1.f);
        if (is_linear(p.form) && prim::fresh_lane() < 8) {
          float sum = 0.f;
          for (int side = 0; side * kPatchColumns < dp; ++side) {
            sum += row_sums[side * tiling.tile + row];
          }
          through[row] = sum * scale.inverse;
        }
      }
      __syncthreads();   // sync: weights and the normaliser's gradients written before any warp sums them
    }
    if (sums_up) {
      int const of_warp = fresh_thread() / prim::kWarp;
      WarpUnit const unit = WarpUnit::of<T>(tiling, of_warp, dp, ep);
      if (unit.works) {
        int const live = min(tiling.tile, part.count - tile * tiling.tile);
        for (int row = unit.group * kBlock; row < live; row += tiling.groups * kBlock) {
          Step const step{s_q + row * q_pitch + unit.channel * int(sizeof(T)),
                          s_g + row * g_pitch + unit.column * int(sizeof(T)), q_pitch, g_pitch, unit.columns, kBlock};
          grads.add_ready(step, is_linear(p.form) ? through + row : nullptr, own(of_warp));
        }
      }
    }
    if (tiling.stages > 1) {
      stage = 1 - stage;
    }
  }
  grads.end(own(warp));
  __syncthreads();       // sync: tiles read before sums overwrite them

  // ---- Store: the groups' sums, merged in order ------------------------------------------------------------------------
  if (sums_up) {         // the same for the whole launch
    Part const here = part_of_block(p.queries, p.heads);
    Parts const parts = parts_of_block(smem, tiling.groups, dp, ep);
    WarpUnit const unit = WarpUnit::of<T>(tiling, warp, dp, ep);
    if (unit.works) {
      grads.store(parts, unit.group * dp + unit.channel, unit.column, unit.columns);
    }
    __syncthreads();     // sync: sums of all groups written before any thread merges them
    int const lane = threadIdx.x % prim::kWarp;
    int const column = lane * prim::kQuad;
    int const quads = prim::ceil_div(p.e, prim::kQuad);
    int64_t const split = here.bh * p.queries.blocks.value + here.index;
    for (int ci = warp; ci < p.d; ci += kWarps) {
      if (column < p.e) {
        Merged const merged(parts, tiling.groups, dp, ci, column);
        reinterpret_cast<float4*>(p.partials)[(split * p.d + ci) * quads + lane] = merged.sum;
        if (column == 0) {
          p.totals[split * p.d + ci] = merged.total;
        }
      }
    }
  }
}

}  // namespace content

// At most 64 channels d, two blocks per multiprocessor; and all others.
#define VARIANT(dtype, T)                                                                                          \
  ENTRY_SMEM(content_bwd_q_##dtype, prim::kSharedSm90);                                                            \
  extern "C" __global__ void __launch_bounds__(8 * prim::kWarp, 2)                                                 \
      content_bwd_q_##dtype(__grid_constant__ ContentBwdQParams const p) {                                         \
    content::bwd_q<T, 8>(p);                                                                                       \
  }                                                                                                                \
  ENTRY_SMEM(content_bwd_q_##dtype##_wide, prim::kSharedSm90);                                                     \
  extern "C" __global__ void __launch_bounds__(16 * prim::kWarp, 1)                                                \
      content_bwd_q_##dtype##_wide(__grid_constant__ ContentBwdQParams const p) {                                  \
    content::bwd_q<T, 16>(p);                                                                                      \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
