// gaussian_fwd_line — one pass of the separable sum along one axis, for maps that do not fit in shared memory.
//
// Work      f32: a block makes kTile outputs × kColumns quads of channels, a thread kOutputs of one column;
//           16 bits: kTile outputs × kColumns16 units of 8 channels, a warp two units with m16n8k16
// Reads     src (kTile + 2·reach) / kTile times: tiles share halos through L2; tables once per block
// Writes    dst once
// Shared    Smem, Smem16, sizes exported as <entry>_smem_bytes
// Numerics  f32: fma chains. 16 bits: weights rounded to T (the centre is exactly 1), sums on the tensor core in f32,
//           which leave it every kMmaTermsMax terms; pre-scaled inputs are rounded to T; outputs scaled in f32, then T
// Mirrors   src/reference/gaussian.rs, launched by src/ops/gaussian/plan.rs
#include "gaussian_line.cuh"
#include "prim/mma.cuh"

namespace gaussian {

// The factor of a table, 1 where there is none.
__device__ __forceinline__ float factor(float const* table, int64_t first, int64_t i) {
  return first < 0 ? 1.f : __ldg(table + first + i);
}

// ---- f32 --------------------------------------------------------------------------------------------------------

constexpr int kOutputs = 8;                                      // consecutive outputs of a thread
constexpr int kColumns = kLineThreads / (kTile / kOutputs);      // quads of channels of a block: one per lane

struct Smem {
  float4 x[kTile][kColumns];      // a chunk of inputs
  float w[2 * kTile];             // weights of (tile, chunk)
};

__device__ __forceinline__ void line_f32(GaussianLineParams const& p) {
  static_assert(kColumns == prim::kWarp, "a warp has one run of outputs, so its band is uniform");
  static_assert(kTile % kOutputs == 0 && kOutputs % prim::kQuad == 0, "whole blocks of weights");
  Smem& smem = *prim::shared_memory<Smem>();

  // ---- Where am I ---------------------------------------------------------------------------
  int const quads = prim::ceil_div(p.channels, prim::kQuad);
  LineBlock const block = line_block(p.num_lines * quads, kColumns, p.first_bh, p.heads, p.first_out, p.num_out);
  Head const head = head_of(p.radius, block.hi, p.axis);
  float const* const table = p.tables + (p.radius.stride == 0 ? 0 : block.hi) * p.table_stride;
  int const column = threadIdx.x % kColumns;
  int const row = threadIdx.x / kColumns;                         // input row of the load, run of outputs of the sum
  int const flat = block.first_column + column;
  bool const live = flat < p.num_lines * quads;
  int const line = live ? flat / quads : 0;
  int const channel = (flat - line * quads) * prim::kQuad;
  int const o_first = row * kOutputs;                             // within the tile
  auto const in = prim::channels_of<float>(p.src, bits_of(p.src_at), p.channels);
  float const* const src = static_cast<float const*>(p.src) + plane_of(p.src_at, block.bi, block.hi) +
                           int(p.src_at.line) * line;

  // ---- Main loop: chunks of the axis that the tile can reach ------------------------------------
  float4 acc[kOutputs] = {};
  Reached const span = reached(block.tile_begin, head.reach, p.axis);
  for (int chunk = span.begin; chunk < span.end; chunk += kTile) {
    int const inputs = min(kTile, span.end - chunk);
    for (int i = row; i < kTile; i += kLineThreads / kColumns) {
      float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
      if (live && i < inputs) {
        x = scaled(prim::load_quad(src + int(p.src_at.axis) * (chunk + i), channel, in),
                   factor(table, p.pre, chunk + i));
      }
      smem.x[i][column] = x;
    }
    fill_toeplitz(head, block.tile_begin, chunk, smem.w, nullptr);
    __syncthreads();   // sync: smem.x and smem.w filled
    for (int i = 0; i < inputs; i += kOutputs) {
      int const offset = block.tile_begin + o_first - chunk - i;
      if (abs(offset) - (kOutputs - 1) > head.reach) {
        continue;      // no tap between these outputs and inputs; the same for the whole warp
      }
      float w[2 * kOutputs];
      load_weights<kOutputs>(w, smem.w, o_first, i);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        float4 const x = smem.x[i + k][column];
#pragma unroll
        for (int r = 0; r < kOutputs; ++r) {
          multiply_add(acc[r], w[kOutputs + r - k], x);
        }
      }
    }
    __syncthreads();   // sync: smem read before the next chunk overwrites it
  }

  // ---- Store --------------------------------------------------------------------------------
  auto const out = prim::channels_of<float>(p.dst, bits_of(p.dst_at), p.channels);
  float* const dst = static_cast<float*>(p.dst) + plane_of(p.dst_at, block.bi, block.hi) + int(p.dst_at.line) * line;
  float const of_line = factor(table, p.post_line, line);
#pragma unroll
  for (int r = 0; r < kOutputs; ++r) {
    int const o = block.tile_begin + o_first + r;
    if (live && o < p.first_out + p.num_out) {
      float const f = factor(table, p.post_axis, int64_t(o) * p.post_axis_step) * of_line;
      prim::store_quad(dst + int(p.dst_at.axis) * o, channel, out, scaled(acc[r], f));
    }
  }
}

// ---- 16 bits ------------------------------------------------------------------------------------------------------

constexpr int kThreads16 = 128;                // with three blocks of a multiprocessor, 168 registers each
constexpr int kUnitsPerWarp = 2;
constexpr int kColumns16 = kThreads16 / prim::kWarp * kUnitsPerWarp;   // units of 8 channels of a block
constexpr int kPitch16 = kColumns16 + 1;       // odd: eight rows of a matrix lie in different banks
constexpr int kSteps = kTile / prim::kMmaM;    // m16 tiles of outputs, k16 tiles of inputs
constexpr int kDiagonals = prim::kMmaM / 2;      // from one register of a Toeplitz tile of weights to the next
constexpr int kChunksPerSum = prim::kMmaTermsMax / kTile;

struct Smem16 {
  uint4 x[kTile][kPitch16];       // a chunk of inputs, 8 channels each
  uint32_t w[2 * kTile];          // pairs (w(d), w(d − 1)), d = first output − first input + k − kTile
  float of_output[kTile];         // factors of the outputs, by position
  float of_column[kColumns16];    // and by line
};

template <class T>
__device__ __forceinline__ uint4 scaled_unit(uint4 unit, float f) {
  uint32_t word[4] = {unit.x, unit.y, unit.z, unit.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float2 const pair = prim::Pair<T>::unpack(word[i]);
    word[i] = prim::Pair<T>::pack(pair.x * f, pair.y * f);
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

template <class T>
__device__ __forceinline__ void line_16(GaussianLineParams const& p) {
  static_assert(sizeof(T) == 2, "the tensor core takes 16-bit elements");
  Smem16& smem = *prim::shared_memory<Smem16>();

  // ---- Where am I ---------------------------------------------------------------------------
  constexpr int kUnit = prim::kUnit<T>;
  int const units = prim::ceil_div(p.channels, kUnit);
  int const columns = p.num_lines * units;
  LineBlock const block = line_block(columns, kColumns16, p.first_bh, p.heads, p.first_out, p.num_out);
  Head const head = head_of(p.radius, block.hi, p.axis);
  float const* const table = p.tables + (p.radius.stride == 0 ? 0 : block.hi) * p.table_stride;
  int const lane = threadIdx.x % prim::kWarp;
  int const warp = threadIdx.x / prim::kWarp;
  int const g = lane / 4;
  int const t = lane % 4;

  int const load_column = threadIdx.x % kColumns16;
  int const load_row = threadIdx.x / kColumns16;
  int const load_flat = block.first_column + load_column;
  bool const load_live = load_flat < columns;
  int const load_line = load_live ? load_flat / units : 0;
  int const load_channel = (load_flat - load_line * units) * kUnit;
  auto const in = prim::channels_of<T>(p.src, bits_of(p.src_at), p.channels);
  T const* const src =
      static_cast<T const*>(p.src) + plane_of(p.src_at, block.bi, block.hi) + int(p.src_at.line) * load_line;

  for (int i = threadIdx.x; i < kTile; i += kThreads16) {
    int const position = min(block.tile_begin + i, p.axis - 1);
    smem.of_output[i] = factor(table, p.post_axis, int64_t(position) * p.post_axis_step);
  }
  if (load_row == 0) {
    smem.of_column[load_column] = factor(table, p.post_line, load_line);
  }

  // ---- Main loop: chunks of the axis that the tile can reach ------------------------------------
  float sum[kSteps][kUnitsPerWarp][4] = {};       // what has left the tensor core
  float acc[kSteps][kUnitsPerWarp][4] = {};       // what is on it
  Reached const span = reached(block.tile_begin, head.reach, p.axis);
  int chunks = 0;
  for (int chunk = span.begin; chunk < span.end; chunk += kTile) {
    int const inputs = min(kTile, span.end - chunk);
#pragma unroll 2
    for (int i = load_row; i < kTile; i += kThreads16 / kColumns16) {
      uint4 unit = make_uint4(0, 0, 0, 0);
      if (load_live && i < inputs) {
        unit = prim::load_unit(src + int(p.src_at.axis) * (chunk + i), load_channel, in);
        if (p.pre >= 0) {
          unit = scaled_unit<T>(unit, __ldg(table + p.pre + chunk + i));
        }
      }
      smem.x[i][load_column] = unit;
    }
    int const diagonal = block.tile_begin - chunk;      // output − input of the pair's first row and column
    for (int k = threadIdx.x; k < 2 * kTile; k += kThreads16) {
      smem.w[k] = prim::Pair<T>::pack(head.weight(abs(diagonal + k - kTile)), head.weight(abs(diagonal + k - kTile - 1)));
    }
    __syncthreads();   // sync: smem.x and smem.w filled

#pragma unroll 1
    for (int k = 0; k * prim::kMmaK < inputs; ++k) {
      // lanes 0–15: rows of the two k8 halves of the warp's first unit, 16–31: of its second
      uint32_t b[4];
      uint4 const* const rows = &smem.x[k * prim::kMmaK + lane % prim::kMmaK][warp * kUnitsPerWarp + lane / prim::kMmaK];
      prim::load_matrices_transposed(b, prim::shared_address(rows));
      // The weights between outputs 16m.. and inputs 16k.. are three runs of diagonals; tile m + 1 shares one of them.
      uint32_t const* const run = smem.w + kTile - k * prim::kMmaK + g - 2 * t;
      uint32_t below = run[-kDiagonals];
#pragma unroll
      for (int m = 0; m < kSteps; ++m) {
        uint32_t const middle = run[m * prim::kMmaM];
        uint32_t const above = run[m * prim::kMmaM + kDiagonals];
        uint32_t const a[4] = {middle, above, below, middle};
        below = above;
        if (abs(diagonal + (m - k) * prim::kMmaM) - (prim::kMmaM - 1) > head.reach) {
          continue;    // no tap in this tile of weights; the same for the whole block
        }
        prim::mma<T>(acc[m][0], a, b[0], b[1]);
        prim::mma<T>(acc[m][1], a, b[2], b[3]);
      }
    }
    if (++chunks % kChunksPerSum == 0) {
#pragma unroll
      for (int i = 0; i < kSteps * kUnitsPerWarp * 4; ++i) {
        float& from = acc[i / (kUnitsPerWarp * 4)][i / 4 % kUnitsPerWarp][i % 4];
        sum[i / (kUnitsPerWarp * 4)][i / 4 % kUnitsPerWarp][i % 4] += from;
        from = 0.f;
      }
    }
    __syncthreads();   // sync: smem read before the next chunk, or the outputs, overwrite it
  }

#pragma unroll
  for (int i = 0; i < kSteps * kUnitsPerWarp * 4; ++i) {
    sum[i / (kUnitsPerWarp * 4)][i / 4 % kUnitsPerWarp][i % 4] += acc[i / (kUnitsPerWarp * 4)][i / 4 % kUnitsPerWarp][i % 4];
  }

  // ---- Store: through shared memory, so that a thread writes whole units --------------------------
  float const of_column[kUnitsPerWarp] = {smem.of_column[warp * kUnitsPerWarp], smem.of_column[warp * kUnitsPerWarp + 1]};
#pragma unroll
  for (int m = 0; m < kSteps; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const o = m * prim::kMmaM + half * (prim::kMmaM / 2) + g;
      float const of_output = smem.of_output[o];
#pragma unroll
      for (int n = 0; n < kUnitsPerWarp; ++n) {
        int const unit = warp * kUnitsPerWarp + n;
        float const f = of_output * of_column[n];
        float const low = sum[m][n][2 * half] * f;
        float const high = sum[m][n][2 * half + 1] * f;
        reinterpret_cast<uint32_t*>(&smem.x[o][unit])[t] = prim::Pair<T>::pack(low, high);
      }
    }
  }
  __syncthreads();   // sync: outputs in smem.x before other threads store them
  auto const out = prim::channels_of<T>(p.dst, bits_of(p.dst_at), p.channels);
  T* const dst = static_cast<T*>(p.dst) + plane_of(p.dst_at, block.bi, block.hi) + int(p.dst_at.line) * load_line;
  for (int i = load_row; i < kTile; i += kThreads16 / kColumns16) {
    int const o = block.tile_begin + i;
    if (load_live && o < p.first_out + p.num_out) {
      prim::store_unit(dst + int(p.dst_at.axis) * o, load_channel, out, smem.x[i][load_column]);
    }
  }
}

}  // namespace gaussian

ENTRY_SMEM(gaussian_fwd_line_f32, sizeof(gaussian::Smem));
extern "C" __global__ void __launch_bounds__(gaussian::kLineThreads, 2)
    gaussian_fwd_line_f32(__grid_constant__ GaussianLineParams const p) {
  gaussian::line_f32(p);
}

#define VARIANT(name, T)                                                                                    \
  ENTRY_SMEM(name, sizeof(gaussian::Smem16));                                                               \
  extern "C" __global__ void __launch_bounds__(gaussian::kThreads16, 3)                                     \
      name(__grid_constant__ GaussianLineParams const p) {                                                  \
    gaussian::line_16<T>(p);                                                                                \
  }
VARIANT(gaussian_fwd_line_f16, __half)
VARIANT(gaussian_fwd_line_bf16, __nv_bfloat16)
