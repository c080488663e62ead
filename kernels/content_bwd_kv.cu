// content_bwd_kv — from k and v, and the gradient of the summary: dK = weight'(K) ∘ (V dCᵀ + shift), dV = weight(K) dC.
//
// Work      one block per run of positions of a (batch, head); its warps take 16 (f32: 8) positions at a time, each on its own
// Reads     k, v once; dC once per block
// Writes    dk, dv once; for gsa dv is added to what is there
// Shared    dC in T, and per warp one to three tiles of k and v; at most <entry>_smem_bytes
// Numerics  products, softmax and sums f32; with 16-bit elements dC, divided as the summary was, and the weights, not divided,
//           are rounded to T; a dv that is added is rounded before and after
// Mirrors   src/reference/content.rs::backward, launched by src/ops/content/plan.rs::backward
#include "content_rows.cuh"

struct ContentBwdKvParams {
  content::Map k, v, dk, dv;       // dk, dv: null if not wanted
  float const* dc;                 // [bh, d, e]
  float const* shift;              // [bh, d]
  float const* max;                // [b, h, d]
  content::Positions keys;
  prim::Divisor heads;
  prim::Divisor k_units, v_units;  // of a position in shared memory
  int32_t d, e;
  int32_t form;
  int32_t stages;                  // tiles of a warp in shared memory: 1 to 3
  int32_t tile_bytes;              // of a tile
  int32_t own_bytes;               // of a warp: all its tiles
  int32_t warps;                   // that work: where memory is short not all
  int32_t adds_dv;                 // to what is there
  int32_t _pad;
};
static_assert(sizeof(ContentBwdKvParams) == 320, "ContentBwdKvParams: change src/ops/content/plan/params.rs together with this");

namespace content {

// Makes weights of this lane's row of keys, in place; lanes l, l + 8, … have row l.
template <class T>
__device__ __forceinline__ void weigh_keys(uint32_t s_row, int count, int form, float const* tops) {
#pragma unroll 1
  for (int unit = threadIdx.x % prim::kWarp / 8; unit < count / prim::kUnit<T>; unit += prim::kWarp / 8) {
    float x[prim::kUnit<T>];
    uint32_t const at = s_row + unit * prim::kUnitBytes;
    prim::unpack_unit<T>(x, prim::load_shared_unit(at));
#pragma unroll
    for (int i = 0; i < prim::kUnit<T>; ++i) {
      x[i] = is_softmax(form) ? exp_approx(x[i] - tops[unit * prim::kUnit<T> + i]) : feature(form, x[i]);
    }
    prim::store_shared_unit(at, prim::pack_unit<T>(x));
  }
}

template <class T>
__device__ __forceinline__ void bwd_kv(ContentBwdKvParams const& p) {
  using R = Rows<T, kSlice>;
  auto* const smem = prim::shared_memory<unsigned char>();
  uint32_t const s_bytes = prim::shared_address(smem);

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Part const part = part_of_block(p.keys, p.heads);
  int const dp = prim::round_up(p.d, kBlock);
  int const ep = prim::round_up(p.e, kColumnBlock<T>);
  int const matrix_rows = prim::round_up(p.d, kColumnBlock<T>);
  int const lane = threadIdx.x % prim::kWarp;
  int const warp = prim::warp_of_block();
  Matrix<T> const matrix{s_bytes, Matrix<T>::pitch_of(ep)};
  int const numbers_at = matrix_rows * matrix.pitch;
  float* const tops = reinterpret_cast<float*>(smem + numbers_at);
  float* const shifts = tops + dp;
  int const own_at = numbers_at + 2 * dp * int(sizeof(float)) + warp * p.own_bytes;
  int const k_pitch = pitch_of<T>(dp);
  int const v_pitch = pitch_of<T>(ep);

  // ---- Load: first tiles, the gradient of the summary -----------------------------------------------------------------
  Plane<T const> const k(p.k, p.keys, part);
  Plane<T const> const v(p.v, p.keys, part);
  prim::Channels const k_channels = channels_of(p.k, p.d);
  prim::Channels const v_channels = channels_of(p.v, p.e);
  int const end = part.first + part.count;
  auto copy = [&](int first, int stage) {
    if (first < end) {
      unsigned char* const to = smem + own_at + stage * p.tile_bytes;
      copy_rows<T, R::kCount>(to, k_pitch, p.k_units, k, k_channels, first, end);
      copy_rows<T, R::kCount>(to + R::kCount * k_pitch, v_pitch, p.v_units, v, v_channels, first, end);
    }
    prim::commit_copies();
  };
  int const stride = p.warps * R::kCount;
  int const begin = warp < p.warps ? part.first + warp * R::kCount : end;
  for (int stage = 0; stage < p.stages - 1; ++stage) {
    copy(begin + stage * stride, stage);
  }
  matrix.fill(p.dc + part.bh * p.d * p.e, p.e, p.d, p.e, matrix_rows, ep, 1.f);
  for (int ci = threadIdx.x; ci < dp; ci += kRowThreads) {
    tops[ci] = ci < p.d ? __ldg(p.max + part.bh * p.d + ci) : 0.f;
    shifts[ci] = ci < p.d ? __ldg(p.shift + part.bh * p.d + ci) : 0.f;
  }
  __syncthreads();   // sync: the gradient of the summary and the numbers of channels filled

  // ---- Main loop ------------------------------------------------------------------------------------------------------
  int stage = 0;
  for (int first = begin; first < end; first += stride) {
    copy(first + (p.stages - 1) * stride, stage == 0 ? p.stages - 1 : stage - 1);
    if (p.stages == 1) {
      prim::wait_copies<0>();
    } else if (p.stages == 2) {
      prim::wait_copies<1>();
    } else {
      prim::wait_copies<2>();
    }
    __syncwarp();    // sync: the tile landed for all lanes of its warp
    uint32_t const s_k = s_bytes + own_at + stage * p.tile_bytes;
    uint32_t const s_v = s_k + R::kCount * k_pitch;
    if (p.dk.data != nullptr) {
      Plane<T> const dk(p.dk, p.keys, part);
      for (int column = 0; column < p.d; column += kSlice) {
        int const columns = min(dp - column, kSlice);
        R direct;
        direct.start();
        direct.template multiply<true>(s_v, v_pitch, ep, matrix, column, columns);
        if (p.form != kDotProduct) {
#pragma unroll
          for (int i = 0; i < R::kOfLane; ++i) {
            direct.each(i, s_k + column * int(sizeof(T)), k_pitch, columns, [&](int ci, float key, float& x) {
              x += shifts[column + ci];
              if (is_softmax(p.form)) {
                x *= exp_approx(key - tops[column + ci]);
              } else if (p.form == kRelu) {
                x = key > 0.f ? x : 0.f;
              } else {
                x *= key > 0.f ? 1.f : exp_approx(key);
              }
            });
          }
        }
        direct.store(dk, channels_of(p.dk, p.d), column, columns, first, end, false);
      }
    }
    if (p.dv.data != nullptr) {
      if (p.form != kDotProduct) {
        __syncwarp();  // sync: keys read by all lanes before weights overwrite them
#pragma unroll
        for (int rows = 0; rows < R::kCount; rows += 8) {
          weigh_keys<T>(s_k + (rows + lane % 8) * k_pitch, dp, p.form, tops);
        }
        __syncwarp();  // sync: weights written before other lanes read them
      }
      Plane<T> const dv(p.dv, p.keys, part);
      for (int column = 0; column < p.e; column += kSlice) {
        int const columns = min(ep - column, kSlice);
        R sum;
        sum.start();
        sum.template multiply<false>(s_k, k_pitch, dp, matrix, column, columns);
        sum.store(dv, channels_of(p.dv, p.e), column, columns, first, end, p.adds_dv);
      }
    }
    __syncwarp();    // sync: the tile read by all lanes before the next copy overwrites it
    stage = stage + 1 == p.stages ? 0 : stage + 1;
  }
}

}  // namespace content

#define VARIANT(dtype, T)                                                                                          \
  ENTRY_SMEM(content_bwd_kv_##dtype, prim::kSharedSm90);                                                           \
  extern "C" __global__ void __launch_bounds__(content::kRowThreads, 2)                                            \
      content_bwd_kv_##dtype(__grid_constant__ ContentBwdKvParams const p) {                                       \
    content::bwd_kv<T>(p);                                                                                         \
  }
VARIANT(f32, float)
VARIANT(f16, __half)
VARIANT(bf16, __nv_bfloat16)
