// prim/base — words that every kernel uses: sizes of the machine, small integer helpers, KASSERT.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// A fact that the host has checked, repeated where the kernel relies on it. Compiled in with -DKERNEL_ASSERTS: a false
// one traps, and the PTX carries its text beside the trap.
#ifdef KERNEL_ASSERTS
#define KASSERT(condition)                                        \
  do {                                                            \
    if (!(condition)) {                                           \
      asm volatile("// KASSERT " #condition "\n\ttrap;" ::: "memory"); \
    }                                                             \
  } while (0)
#else
#define KASSERT(condition) ((void)0)
#endif

// One compiled entry, and the bytes of dynamic shared memory that a launch of it may ask for at most.
#define ENTRY_SMEM(name, bytes) extern "C" __constant__ unsigned const name##_smem_bytes = (bytes)

namespace prim {

constexpr int kWarp = 32;                     // lanes
constexpr unsigned kAllLanes = 0xffffffffu;   // member mask of a whole warp
constexpr int kUnitBytes = 16;                // the widest access of a thread, and the grain of every copy
constexpr int kBlocksPerLaunchMax = 0x7fffffff;

// Dynamic shared memory limits, in bytes, of the three classes of machine (DESIGN "Plan, then launch").
constexpr unsigned kSharedSm86 = 99u * 1024;    // sm_86, sm_89, sm_120
constexpr unsigned kSharedSm80 = 163u * 1024;   // sm_80, sm_87
constexpr unsigned kSharedSm90 = 227u * 1024;   // sm_90, sm_100

__host__ __device__ constexpr int ceil_div(int a, int b) { return a / b + (a % b != 0); }
__host__ __device__ constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }

// T without const.
template <class T> struct PlainOf { using type = T; };
template <class T> struct PlainOf<T const> { using type = T; };
template <class T> using Plain = typename PlainOf<T>::type;

__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

// The dynamic shared memory of the block, as the kernel's own struct or element type.
template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char s_bytes[];
  return reinterpret_cast<T*>(s_bytes);
}

}  // namespace prim
