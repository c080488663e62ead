// prim/mma — tensor core products of 16-bit elements and the loads that feed them.
//
// Fragments of m16n8k16 (lane = 4·g + t, g in 0..8, t in 0..4):
//   a[0] rows g,   columns 2t, 2t+1     a[1] rows g+8, columns 2t, 2t+1
//   a[2] rows g,   columns 2t+8, +9     a[3] rows g+8, columns 2t+8, +9
//   b[0] rows 2t, 2t+1, column g        b[1] rows 2t+8, +9, column g
//   c[0], c[1] row g, columns 2t, 2t+1  c[2], c[3] row g+8, columns 2t, 2t+1
#pragma once
#include "copy.cuh"

namespace prim {

constexpr int kMmaM = 16;
constexpr int kMmaN = 8;
constexpr int kMmaK = 16;

// Terms of a sum after which it has to leave the tensor core: its adder truncates, so the error grows with every step.
constexpr int kMmaTermsMax = 1024;

// A lane's place in the fragments above.
struct Lane {
  int g, t;
};

__device__ __forceinline__ Lane lane_of(int thread) {
  int const lane = thread % kWarp;
  return Lane{lane / 4, lane % 4};
}

__device__ __forceinline__ Lane lane_of_warp() { return lane_of(int(threadIdx.x)); }

// c += a · b
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma<__half>(float (&c)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&c)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8×8 matrices of 16-bit elements. Lane l names row l % 8 (16 bytes, 16-byte aligned) of matrix l / 8; r[i] holds of
// matrix i: row g, columns 2t, 2t+1.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}

// The same, each matrix transposed: r[i] holds rows 2t, 2t+1 of column g.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}

}  // namespace prim
