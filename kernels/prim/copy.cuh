// prim/copy — asynchronous copies from global to shared memory (cp.async, sm_80 and later).
#pragma once
#include "element.cuh"

namespace prim {

__device__ __forceinline__ uint32_t shared_address(void const* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes past L1, or 16 zero bytes when `live` is false (then `global` is not read). In flight until copies_landed() and
// a barrier.
__device__ __forceinline__ void copy_unit_async(uint32_t shared, void const* global, bool live) {
  int const bytes = live ? kUnitBytes : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_unit_async(void* shared, void const* global, bool live) {
  copy_unit_async(shared_address(shared), global, live);
}

// 16 bytes of shared memory by address, which a swizzle may have made.
__device__ __forceinline__ uint4 load_shared_unit(uint32_t shared) {
  uint4 u;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(u.x), "=r"(u.y), "=r"(u.z), "=r"(u.w) : "r"(shared) : "memory");
  return u;
}
__device__ __forceinline__ void store_shared_unit(uint32_t shared, uint4 u) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(u.x), "r"(u.y), "r"(u.z), "r"(u.w) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when at most `kPending` of this thread's newest groups are still in flight.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// A unit into shared memory: asynchronously when wide, through registers when not. Dead pixels become zeros.
template <class T>
__device__ __forceinline__ void copy_unit(uint4* shared, T const* pixel, int channel, Channels channels, bool live) {
  if (channels.wide) {
    copy_unit_async(shared, pixel + (live ? channel : 0), live);
  } else {
    *shared = live ? load_unit(pixel, channel, channels) : make_uint4(0, 0, 0, 0);
  }
}

}  // namespace prim
