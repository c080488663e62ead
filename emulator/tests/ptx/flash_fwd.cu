// Test kernel of ptx-emulator: attention forward on tensor cores, one block per 64 queries of one head.
//
// Reads   q, k, v: [heads][n][64] f16; every query tile reads all keys and values once.
// Writes  o: [heads][n][64] f16, lse: [heads][n] f32, natural logarithm.
// Uses    cp.async in two stages, swizzled shared memory, ldmatrix, mma.sync m16n8k16, shuffles, ex2.approx.
#include <cuda_fp16.h>
#include <stdint.h>

constexpr int D = 64;            // channels
constexpr int TILE = 64;         // queries of a block, keys of a step
constexpr int CHUNKS = D / 8;    // 16-byte chunks of a row
constexpr int THREADS = 128;

struct Params {
  __half const* q;
  __half const* k;
  __half const* v;
  __half* o;
  float* lse;
  int32_t n;
  int32_t width;        // positions form a map of this width
  int32_t reach;        // a key is seen if it is at most this far away on both axes
  float scale_log2;
};

struct Smem {
  __half q[TILE * D];
  __half k[2][TILE * D];
  __half v[2][TILE * D];
};

__device__ uint32_t address(void const* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// The byte where a chunk of a row lies: rows are 128 bytes, so neighbours would share banks without the exclusive or.
__device__ uint32_t place(int row, int chunk) { return (row * CHUNKS + (chunk ^ (row & 7))) * 16; }

__device__ void copy_tile(uint32_t to, __half const* from, int first, int n) {
#pragma unroll
  for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
    int const row = i / CHUNKS, chunk = i % CHUNKS;
    bool const inside = first + row < n;
    __half const* source = from + int64_t(inside ? first + row : 0) * D + chunk * 8;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + place(row, chunk)), "l"(source),
                 "r"(inside ? 16 : 0)
                 : "memory");
  }
}

__device__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

__device__ void load_transposed(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

__device__ void multiply(float (&c)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ uint32_t pack(float low, float high) {
  __half2 const h = __floats2half2_rn(low, high);
  return *reinterpret_cast<uint32_t const*>(&h);
}

__device__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

extern "C" __global__ void __launch_bounds__(THREADS) flash_fwd(Params const __grid_constant__ p) {
  extern __shared__ __align__(128) unsigned char raw[];
  Smem& s = *reinterpret_cast<Smem*>(raw);
  int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int const first = blockIdx.x * TILE;
  int64_t const head = int64_t(blockIdx.y) * p.n * D;
  __half const *q = p.q + head, *k = p.k + head, *v = p.v + head;
  uint32_t const q_at = address(s.q), k_at = address(s.k), v_at = address(s.v);
  constexpr uint32_t STAGE = TILE * D * sizeof(__half);
  int const steps = (p.n + TILE - 1) / TILE;

  copy_tile(q_at, q, first, p.n);
  copy_tile(k_at, k, 0, p.n);
  copy_tile(v_at, v, 0, p.n);
  asm volatile("cp.async.commit_group;" ::: "memory");

  float o[D / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  uint32_t queries[D / 16][4];
  for (int t = 0; t < steps; ++t) {
    uint32_t const stage = (t & 1) * STAGE;
    if (t + 1 < steps) {
      copy_tile(k_at + STAGE - stage, k, (t + 1) * TILE, p.n);
      copy_tile(v_at + STAGE - stage, v, (t + 1) * TILE, p.n);
      asm volatile("cp.async.commit_group;" ::: "memory");
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();  // sync: the stage's keys and values are there, copied by all warps
    if (t == 0) {
#pragma unroll
      for (int i = 0; i < D / 16; ++i) load_matrices(queries[i], q_at + place(warp * 16 + lane % 16, 2 * i + lane / 16));
    }
    float w[TILE / 8][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
#pragma unroll
      for (int j = 0; j < TILE / 16; ++j) {
        uint32_t r[4];
        load_matrices(r, k_at + stage + place(j * 16 + lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2));
        multiply(w[2 * j], queries[i], r[0], r[1]);
        multiply(w[2 * j + 1], queries[i], r[2], r[3]);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      int const row = first + warp * 16 + lane / 4 + 8 * h;
      int const y = row / p.width, x = row % p.width;
      float high = top[h];
#pragma unroll
      for (int j = 0; j < TILE / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          int const key = t * TILE + j * 8 + lane % 4 * 2 + e;
          int const dy = abs(key / p.width - y), dx = abs(key % p.width - x);
          bool const seen = key < p.n && dy <= p.reach && dx <= p.reach;
          float const score = seen ? w[j][2 * h + e] * p.scale_log2 : -INFINITY;
          w[j][2 * h + e] = score;
          high = fmaxf(high, score);
        }
      }
      high = quad_max(high);
      float const base = high == -INFINITY ? 0.f : high;
      float const shrink = exp2_approx(top[h] - base);
      top[h] = high;
      float part = 0.f;
#pragma unroll
      for (int j = 0; j < TILE / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float const weight = exp2_approx(w[j][2 * h + e] - base);
          w[j][2 * h + e] = weight;
          part += weight;
        }
      }
      sum[h] = sum[h] * shrink + part;
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        o[i][2 * h] *= shrink;
        o[i][2 * h + 1] *= shrink;
      }
    }
#pragma unroll
    for (int j = 0; j < TILE / 16; ++j) {
      uint32_t const weights[4] = {pack(w[2 * j][0], w[2 * j][1]), pack(w[2 * j][2], w[2 * j][3]),
                                   pack(w[2 * j + 1][0], w[2 * j + 1][1]), pack(w[2 * j + 1][2], w[2 * j + 1][3])};
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        uint32_t r[4];
        load_transposed(r, v_at + stage + place(j * 16 + lane % 16, 2 * i + lane / 16));
        multiply(o[2 * i], weights, r[0], r[1]);
        multiply(o[2 * i + 1], weights, r[2], r[3]);
      }
    }
    __syncthreads();  // sync: all warps have read the stage before it is written again
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float const total = quad_sum(sum[h]);
    float const inverse = total > 0.f ? 1.f / total : 0.f;
    int const row = first + warp * 16 + lane / 4 + 8 * h;
    if (row < p.n) {
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        uint32_t* to = reinterpret_cast<uint32_t*>(p.o + head + int64_t(row) * D + i * 8 + lane % 4 * 2);
        *to = pack(o[i][2 * h] * inverse, o[i][2 * h + 1] * inverse);
      }
      if (lane % 4 == 0) p.lse[int64_t(blockIdx.y) * p.n + row] = top[h] * 0.69314718f + logf(total);
    }
  }
}
