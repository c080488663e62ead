// content_fwd_q — o = weight(q) · C, divided by the normaliser of the linear forms.
//
// Work      one block per run of positions of a (batch, head); its warps take 16 (f32: 8) positions at a time, each on its own
// Reads     q once; the summary once per block
// Writes    o once
// Shared    the summary in T, and per warp one to three tiles of q; at most <entry>_smem_bytes
// Numerics  softmax over channels, normaliser and sums f32; with 16-bit elements the summary (times a power of two in the
//           linear forms, so that it stays in range) and the weights are rounded to T
// Mirrors   src/reference/content.rs::forward, launched by src/ops/content/plan.rs::forward
#include "content_rows.cuh"

struct ContentFwdQParams {
  content::Map q, o;
  float const* summary;            // [b, h, d, e]
  float const* sum;                // [b, h, d]
  content::Positions queries;
  prim::Divisor heads;
  prim::Divisor units;             // of a query in shared memory
  int32_t d, e;
  int32_t form;
  int32_t stages;                  // tiles of a warp in shared memory: 1 to 3
  float shrink;                    // what the summary and its sums are multiplied with
  int32_t tile_bytes;              // of a tile
};
static_assert(sizeof(ContentFwdQParams) == 192, "ContentFwdQParams: change src/ops/content/params.rs together with this");

namespace content {

template <class T>
__device__ __forceinline__ void fwd_q(ContentFwdQParams const& p) {
  using R = Rows<T, kSlice>;
  auto* const smem = prim::shared_memory<unsigned char>();
  uint32_t const s_bytes = prim::shared_address(smem);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Part const part = part_of_block(p.queries, p.heads);
  int const dp = prim::round_up(p.d, kBlock);
  int const ep = prim::round_up(p.e, kColumnBlock<T>);
  int const lane = threadIdx.x % prim::kWarp;
  int const warp = prim::warp_of_block();
  Matrix<T> const matrix{s_bytes, Matrix<T>::pitch_of(ep)};
  int const sums_at = dp * matrix.pitch;
  float* const sums = reinterpret_cast<float*>(smem + sums_at);
  int const own_at = sums_at + dp * int(sizeof(float)) + warp * p.stages * p.tile_bytes;
  int const pitch = pitch_of<T>(dp);

  // ---- Load: first tiles, the summary ---------------------------------------------------------------------------------
  Plane<T const> const q(p.q, p.queries, part);
  Plane<T> const o(p.o, p.queries, part);
  prim::Channels const q_channels = channels_of(p.q, p.d);
  prim::Channels const o_channels = channels_of(p.o, p.e);
  int const end = part.first + part.count;
  auto copy = [&](int first, int stage) {
    if (first < end) {
      copy_rows<T, R::kCount>(smem + own_at + stage * p.tile_bytes, pitch, p.units, q, q_channels, first, end);
    }
    prim::commit_copies();
  };
  int const stride = kRowWarps * R::kCount;
  int const begin = part.first + warp * R::kCount;
  for (int stage = 0; stage < p.stages - 1; ++stage) {
    copy(begin + stage * stride, stage);
  }
  matrix.fill(p.summary + part.bh * p.d * p.e, p.e, p.d, p.e, dp, ep, p.shrink);
  for (int ci = threadIdx.x; ci < dp; ci += kRowThreads) {
    sums[ci] = ci < p.d ? __ldg(p.sum + part.bh * p.d + ci) * p.shrink : 0.f;
  }
  __syncthreads();   // sync: the summary and its sums filled

  // ---- Main loop ------------------------------------------------------------------------------------------------------
  int stage = 0;
  for (int first = begin; first < end; first += stride) {
    int const behind = stage == 0 ? p.stages - 1 : stage - 1;
    copy(first + (p.stages - 1) * stride, behind);
    if (p.stages == 1) {
      prim::wait_copies<0>();
    } else if (p.stages == 2) {
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<2>();
    }
    __syncwarp();    // sync: the tile landed for all lanes of its warp
    uint32_t const s_rows = s_bytes + own_at + stage * p.tile_bytes;
    float of_lane[R::kOfLane];   // what multiplies this lane's rows
#pragma unroll
    for (int i = 0; i < R::kOfLane; ++i) {
      of_lane[i] = 1.f;
    }
    if (p.form == kSoftmaxBoth || is_linear(p.form)) {
#pragma unroll
      for (int rows = 0; rows < R::kCount; rows += 8) {
        uint32_t const s_row = s_rows + (rows + lane % 8) * pitch;
        QueryScale const scale = query_scale<T>(s_row, p.d, p.form, sums, kEpsilon * p.shrink);
        weigh_queries<T>(s_row, p.d, p.form, scale, 1.f);
#pragma unroll
        for (int i = 0; i < R::kOfLane; ++i) {
          float const of_row = __shfl_sync(prim::kAllLanes, scale.inverse, R::row(i) % 8);
          of_lane[i] = R::row(i) / 8 * 8 == rows ? of_row : of_lane[i];
        }
      }
      __syncwarp();  // sync: weights written before other lanes read them
    }
    for (int column = 0; column < p.e; column += kSlice) {
      int const columns = min(ep - column, kSlice);
      R sum;
      sum.start();
      sum.template multiply<false>(s_rows, pitch, dp, matrix, column, columns);
      if (is_linear(p.form)) {
#pragma unroll
        for (int i = 0; i < R::kOfLane; ++i) {
          sum.scale(i, of_lane[i]);
        }
      }
      sum.store(o, o_channels, column, columns, first, end, false);
    }
    __syncwarp();    // sync: the tile read by all lanes before the next copy overwrites it
    stage = stage + 1 == p.stages ? 0 : stage + 1;
  }
}

}  // namespace content

#define VARIANT(dtype, T)                                                                                          \
  ENTRY_SMEM(content_fwd_q_##dtype, prim::kSharedSm90);                                                            \
  extern "C" __global__ void __launch_bounds__(content::kRowThreads, 2)                                            \
      content_fwd_q_##dtype(__grid_constant__ ContentFwdQParams const p) {                                         \
    content::fwd_q<T>(p);                                                                                          \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
