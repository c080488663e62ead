// content_fwd_kv — the summary of keys and values: C = weight(K)ᵀ V, with maximum and sum of each key channel.
//
// Work      one block per split of the positions of a (batch, head); a warp per unit of the summary, groups of warps take
//           steps of 16 positions in turn; tiles of positions in shared memory, up to two in flight
// Reads     k, v once
// Writes    the finished summary, max and sum; or, with more than one split, d×e partial sums, max and sum per split
// Shared    tiles of k and v, then the groups' sums; sized by the plan, at most what <entry>_smem_bytes says
// Numerics  scores, maximum and sums f32; with 16-bit elements weights are rounded to T before they meet v, and `sum` sums
//           the rounded ones; at most 1024 terms stay in a tensor core
// Mirrors   src/reference/content.rs::forward, launched by src/ops/content/plan.rs::forward
#include "content_tile.cuh"

struct ContentFwdKvParams {
  content::Map k, v;
  content::Saved saved;            // when there is one split
  float* partials;                 // [bh, split, d, quads of e]; null: one split
  float* stats;                    // [bh, split, 2, d]: max, sum
  content::Positions keys;
  prim::Divisor heads;
  int32_t d, e;
  int32_t form;
  content::Tiling tiling;
};
static_assert(sizeof(ContentFwdKvParams) == 232, "ContentFwdKvParams: change src/ops/content/plan/params.rs together with this");

namespace content {

template <class T, int kWarps>
__device__ __forceinline__ void fwd_kv(ContentFwdKvParams const& p) {
  Tiling const& tiling = p.tiling;
  auto* const smem = prim::shared_memory<unsigned char>();
  uint32_t const s_bytes = prim::shared_address(smem);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Part const part = part_of_block(p.keys, p.heads);
  int const dp = prim::round_up(p.d, kBlock);
  int const ep = prim::round_up(p.e, kColumnBlock<T>);
  int const warp = prim::warp_of_block();
  WarpUnit const unit = WarpUnit::of<T>(tiling, warp, dp, ep);
  Step step;
  step.key_pitch = pitch_of<T>(dp);
  step.value_pitch = pitch_of<T>(ep);
  step.columns = unit.columns;
  uint32_t const s_own = s_bytes + tiling.stages * tiling.stage_bytes + warp * tiling.own_bytes;

  // ---- Load: the first tiles ------------------------------------------------------------------------------------------
  TileCopy<T> const copy{p.k, p.d, dp, p.v, p.e, ep};
  for (int stage = 0; stage < tiling.stages - 1; ++stage) {
    copy(tiling, p.keys, p.heads, smem, stage, stage);
  }

  // ---- Main loop ------------------------------------------------------------------------------------------------------
  Unit<T> sums;
  sums.start(p.form);
  int stage = 0;
  for (int tile = 0; tile * tiling.tile < part.count; ++tile) {
    if (tiling.stages > 2) {
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: the tile landed for all warps, and all are done with the one before, which the next copy overwrites
    copy(tiling, p.keys, p.heads, smem, tile + tiling.stages - 1, stage == 0 ? tiling.stages - 1 : stage - 1);
    if (unit.works) {
      uint32_t const s_keys = s_bytes + stage * tiling.stage_bytes;
      uint32_t const s_values = s_keys + tiling.tile * step.key_pitch;
      for (int row = unit.group * kBlock; row < tiling.tile; row += tiling.groups * kBlock) {
        step.live = min(part.count - tile * tiling.tile - row, kBlock);
        if (step.live <= 0) {
          break;
        }
        step.s_keys = s_keys + row * step.key_pitch + unit.channel * int(sizeof(T));
        step.s_values = s_values + row * step.value_pitch + unit.column * int(sizeof(T));
        sums.add(step, p.form, s_own);
      }
    }
    stage = stage + 1 == tiling.stages ? 0 : stage + 1;
  }
  if (unit.works) {
    sums.end(s_own);
  }
  __syncthreads();     // sync: tiles read before sums overwrite them

  // ---- Store: the groups' sums, merged in order ------------------------------------------------------------------------
  Parts const parts = parts_of_block(smem, tiling.groups, dp, ep);
  if (unit.works) {
    sums.store(parts, unit.group * dp + unit.channel, unit.column, unit.columns);
  }
  __syncthreads();     // sync: sums of all groups written before any thread merges them
  int const column = threadIdx.x % prim::kWarp * prim::kQuad;
  int const quads = prim::ceil_div(p.e, prim::kQuad);
  for (int ci = warp; ci < p.d; ci += kWarps) {
    if (column < p.e) {
      Merged const merged(parts, tiling.groups, dp, ci, column);
      if (p.partials == nullptr) {
        finish(p.saved, part.bh, ci, p.d, p.e, column, merged.sum, merged.top, merged.total, p.form, p.keys.count);
      } else {
        int64_t const split = part.bh * p.keys.blocks.value + part.index;
        reinterpret_cast<float4*>(p.partials)[(split * p.d + ci) * quads + column / prim::kQuad] = merged.sum;
        if (column == 0) {
          p.stats[split * 2 * p.d + ci] = merged.top;
          p.stats[(split * 2 + 1) * p.d + ci] = merged.total;
        }
      }
    }
  }
}

}  // namespace content

// At most 8 units, two blocks per multiprocessor; and all others.
#define VARIANT(dtype, T)                                                                                          \
  ENTRY_SMEM(content_fwd_kv_##dtype, prim::kSharedSm90 / 2);                                                       \
  extern "C" __global__ void __launch_bounds__(8 * prim::kWarp, 2)                                                 \
      content_fwd_kv_##dtype(__grid_constant__ ContentFwdKvParams const p) {                                       \
    content::fwd_kv<T, 8>(p);                                                                                      \
  }                                                                                                                \
  ENTRY_SMEM(content_fwd_kv_##dtype##_wide, prim::kSharedSm90);                                                    \
  extern "C" __global__ void __launch_bounds__(16 * prim::kWarp, 1)                                                \
      content_fwd_kv_##dtype##_wide(__grid_constant__ ContentFwdKvParams const p) {                                \
    content::fwd_kv<T, 16>(p);                                                                                     \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
