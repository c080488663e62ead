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
#include "content_unit.cuh"

struct ContentFwdKvParams {
  content::Map k, v;
  content::Saved saved;            // when there is one split
  float* partials;                 // [bh, split, d, quads of e]; null: one split
  float* stats;                    // [bh, split, 2, d]: max, sum
  content::Positions keys;
  prim::Divisor heads;
  prim::Divisor units_per_position;   // of k and v in shared memory
  int32_t positions_per_pass;         // that the block's threads copy at once
  int32_t d, e;
  int32_t form;
  int32_t slices, groups;          // units side by side along e; groups of warps
  int32_t tile, stages;            // positions per tile, a multiple of 16; tiles in shared memory, 2 or 3
  int32_t stage_bytes;             // of a tile
  int32_t own_bytes;               // of a warp, behind the tiles: scratch, and room for sums that leave the tensor core
};
static_assert(sizeof(ContentFwdKvParams) == 232, "ContentFwdKvParams: change src/ops/content/params.rs together with this");

namespace content {

template <class T, int kWarps>
__device__ __forceinline__ void fwd_kv(ContentFwdKvParams const& p) {
  auto* const smem = prim::shared_memory<unsigned char>();
  uint32_t const s_bytes = prim::shared_address(smem);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Part const part = part_of_block(p.keys, p.heads);
  int const dp = prim::round_up(p.d, kBlock);
  int const ep = prim::round_up(p.e, kColumnBlock<T>);
  int const warp = prim::warp_of_block();
  int const units = dp / kBlock * p.slices;
  int const group = warp / units;
  int const unit = warp % units;
  int const channel = unit / p.slices * kBlock;
  int const column = unit % p.slices * kSlice;
  int const columns = min(ep - column, kSlice);
  bool const works = group < p.groups;

  Step step;
  step.key_pitch = pitch_of<T>(dp);
  step.value_pitch = pitch_of<T>(ep);
  step.columns = columns;
  int const keys_bytes = p.tile * step.key_pitch;
  uint32_t const s_own = s_bytes + p.stages * p.stage_bytes + warp * p.own_bytes;

  // ---- Load: every thread has one unit of channels, of every few positions ------------------------------------------
  int const first_row = p.units_per_position.quotient(threadIdx.x);
  int const in_row = p.units_per_position.remainder(threadIdx.x, first_row);
  bool const is_key = in_row < dp / prim::kUnit<T>;
  int const copied = (is_key ? in_row : in_row - dp / prim::kUnit<T>) * prim::kUnit<T>;
  int const copied_at = (is_key ? 0 : keys_bytes) + copied * int(sizeof(T));
  int const copied_pitch = is_key ? step.key_pitch : step.value_pitch;
  Map const& source = is_key ? p.k : p.v;
  Plane<T const> const plane(source, p.keys, part);
  prim::Channels const source_channels = channels_of(source, is_key ? p.d : p.e);
  int const end = first_row < p.positions_per_pass ? p.tile : 0;
  auto copy = [&](int tile, int stage) {
    int const first = tile * p.tile;
    if (first < part.count) {
      unsigned char* const to = smem + stage * p.stage_bytes + copied_at;
      for (int row = first_row; row < end; row += p.positions_per_pass) {
        bool const live = first + row < part.count && copied < source_channels.count;
        T const* const pixel = plane.pixel(part.first + (live ? first + row : 0));
        prim::copy_unit(reinterpret_cast<uint4*>(to + row * copied_pitch), pixel, copied, source_channels, live);
      }
    }
    prim::commit_copies();
  };
  for (int stage = 0; stage < p.stages - 1; ++stage) {
    copy(stage, stage);
  }

  // ---- Main loop ------------------------------------------------------------------------------------------------------
  Unit<T> sums;
  sums.start(p.form);
  int stage = 0;
  for (int tile = 0; tile * p.tile < part.count; ++tile) {
    if (p.stages > 2) {
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<0>();
    }
    __syncthreads();   // sync: the tile landed for all warps, and all are done with the one before, which the next copy overwrites
    int const behind = stage == 0 ? p.stages - 1 : stage - 1;
    copy(tile + p.stages - 1, behind);
    if (works) {
      uint32_t const s_tile = s_bytes + stage * p.stage_bytes;
      for (int row = group * kBlock; row < p.tile; row += p.groups * kBlock) {
        step.live = min(part.count - tile * p.tile - row, kBlock);
        if (step.live <= 0) {
          break;
        }
        step.s_keys = s_tile + row * step.key_pitch + channel * int(sizeof(T));
        step.s_values = s_tile + keys_bytes + row * step.value_pitch + column * int(sizeof(T));
        sums.add(step, p.form, s_own);
      }
    }
    stage = stage + 1 == p.stages ? 0 : stage + 1;
  }
  if (works) {
    sums.end(s_own);
  }
  prim::wait_copies<0>();
  __syncthreads();     // sync: tiles read before sums overwrite them

  // ---- Store: the groups' sums, merged in order ------------------------------------------------------------------------
  Parts parts;
  parts.pitch = ep + prim::kMmaN;
  parts.sums = s_bytes;
  parts.tops = reinterpret_cast<float*>(smem + p.groups * dp * parts.pitch * int(sizeof(float)));
  parts.totals = parts.tops + p.groups * dp;
  if (works) {
    sums.store(parts, group * dp + channel, column, columns);
  }
  __syncthreads();     // sync: sums of all groups written before any thread merges them
  int const lane = threadIdx.x % prim::kWarp;
  int const quads = prim::ceil_div(p.e, prim::kQuad);
  for (int ci = warp; ci < p.d; ci += kWarps) {
    if (lane < quads) {
      float top = parts.tops[ci];
      for (int i = 1; i < p.groups; ++i) {
        top = fmaxf(top, parts.tops[i * dp + ci]);
      }
      float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
      float total = 0.f;
      for (int i = 0; i < p.groups; ++i) {
        float const factor = exp_approx(parts.tops[i * dp + ci] - top);
        multiply_add(sum, factor, quad_at(parts.sums + ((i * dp + ci) * parts.pitch + lane * prim::kQuad) * int(sizeof(float))));
        total = fmaf(factor, parts.totals[i * dp + ci], total);
      }
      if (p.partials == nullptr) {
        finish(p.saved, part.bh, ci, p.d, p.e, lane * prim::kQuad, sum, top, total, p.form, p.keys.count);
      } else {
        int64_t const split = part.bh * p.keys.blocks.value + part.index;
        reinterpret_cast<float4*>(p.partials)[(split * p.d + ci) * quads + lane] = sum;
        if (lane == 0) {
          p.stats[split * 2 * p.d + ci] = top;
          p.stats[(split * 2 + 1) * p.d + ci] = total;
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
