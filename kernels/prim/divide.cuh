// prim/divide — division by a number that the host knows, without the two dozen instructions of a real one.
#pragma once
#include "base.cuh"

namespace prim {

// Made by `Divisor::new` in src/plan.rs; exact for 0 ≤ n < 2^31.
struct Divisor {
  uint32_t value;
  uint32_t factor;   // ⌊2^32·(2^shift − value) / value⌋ + 1
  uint32_t shift;    // ⌈log2 value⌉

  __device__ __forceinline__ int quotient(int n) const {
    return int((__umulhi(uint32_t(n), factor) + uint32_t(n)) >> shift);
  }
  __device__ __forceinline__ int remainder(int n, int quotient) const { return n - quotient * int(value); }
};

}  // namespace prim
