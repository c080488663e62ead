// Small kernels for the tests of the look-alike driver. `make.sh` turns them into the PTX beside this file.

extern "C" __global__ void vector_add(float* c, float const* a, float const* b, unsigned n) {
  unsigned const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    c[i] = a[i] + b[i];
  }
}

struct ScaleParams {
  float* out;
  float const* in;
  float scale;
  int n;
  signed char sign;
};

// One structure by value, as macula passes its parameters.
extern "C" __global__ void scale(__grid_constant__ ScaleParams const p) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.n) {
    p.out[i] = p.in[i] * p.scale * float(p.sign);
  }
}

extern "C" __global__ void add_one(float* x, unsigned n) {
  unsigned const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    x[i] += 1.0f;
  }
}

// Reverses n numbers through dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256) reverse(unsigned* x, unsigned n) {
  extern __shared__ unsigned s[];
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
    s[i] = x[i];
  }
  __syncthreads();  // sync: s is full before any of it is read
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
    x[i] = s[n - 1 - i];
  }
}

// Static shared memory of 1 KiB.
extern "C" __global__ void __launch_bounds__(256) rotate(unsigned* x) {
  __shared__ unsigned s[256];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();  // sync: s is full before any of it is read
  x[threadIdx.x] = s[(threadIdx.x + 1) % 256];
}

extern "C" __global__ void store_at(float* x, long long i) {
  x[i] = 1.0f;
}

__device__ unsigned counter = 5;

extern "C" __global__ void count() {
  atomicAdd(&counter, 1u);
}

// d = a · b for 16×16 · 16×8 f16 with f32 sums; every a is `a`, every b is `b`, and c is `c`.
extern "C" __global__ void mma(float* d, unsigned a, unsigned b, float c) {
  float r[4];
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%5,%5}, {%6,%6,%6,%6};"
      : "=f"(r[0]), "=f"(r[1]), "=f"(r[2]), "=f"(r[3])
      : "r"(a), "r"(b), "f"(c));
  for (int i = 0; i < 4; ++i) {
    d[threadIdx.x * 4 + i] = r[i];
  }
}
