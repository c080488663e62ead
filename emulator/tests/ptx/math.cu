// Test kernel of ptx-emulator: library functions of one number, one block row per function.
//
// Reads   x: [n] f32. Writes y: [8][n] f32.
// Uses    what the compiler makes of the math library: local arrays, initialised tables, divisions, 16-bit halves.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

extern "C" __global__ void math(float const* x, float* y, int32_t n) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float const a = x[i];
  float r = 0.f;
  switch (blockIdx.y) {
    case 0: r = sinf(a); break;  // large arguments take the slow path through a table and a local array
    case 1: r = expf(a * 0.01f); break;
    case 2: r = logf(fabsf(a) + 1e-3f); break;
    case 3: r = erff(a * 0.1f); break;
    case 4: r = powf(fabsf(a), 0.3f); break;
    case 5: r = tanhf(a * 0.05f); break;
    case 6: r = a / (1.f + a * a) + sqrtf(fabsf(a)) + rsqrtf(1.f + fabsf(a)) + fmodf(a, 7.f); break;
    case 7: {
      __half2 const h = __halves2half2(__float2half(a * 1e-3f), __float2half(0.5f));
      __half2 const s = __hfma2(h, h, __hmax2(h, __float2half2_rn(0.25f)));
      __nv_bfloat16 const b = __float2bfloat16(a);
      r = __low2float(s) + __high2float(s) + __bfloat162float(__hadd(b, b)) + static_cast<float>(i / 7 * 3 % 5);
      break;
    }
  }
  y[int64_t(blockIdx.y) * n + i] = r;
}
