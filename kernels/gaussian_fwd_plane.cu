// gaussian_fwd_plane — o = A^y V A^xᵀ in one launch, with whole planes in shared memory.
//
// Work      one block per items_per_block slices of channels of planes; a warp sums whole columns, then whole rows, in place
// Reads     v once
// Writes    o once
// Shared    gaussian_plane.cuh; the plan sizes it, <entry>_smem_bytes is the most that any class allows
// Numerics  f32: fma chains, t = A^y v in f32. 16 bits: weights rounded to T (the centre is exactly 1), at most kAxisMax
//           terms on the tensor core, Z of the rounded weights; t is stored as T, divided by Z_y (row) or by a power of
//           two (none)
// Mirrors   src/reference/gaussian.rs::forward_separable, launched by src/ops/gaussian/planes.rs
#include "gaussian_sum.cuh"

namespace gaussian {

template <class T>
__device__ __forceinline__ void plane(GaussianPlaneParams const& p) {
  Layout<T, kForward> const smem(p.items);
  bool const is_row = p.items.is_row != 0;

  // ---- Load: planes on their way while the tables are made ---------------------------------------
  load_planes(p.items, p.v_at, p.v, smem, 0);
  if (threadIdx.x == 0) {
    *smem.zero(p.items) = make_uint4(0, 0, 0, 0);
  }
  fill_tables(p.radius, p.items, smem);
  prim::wait_copies<0>();
  __syncthreads();   // sync: planes landed, tables and the unit of zeros filled

  // ---- Main loop: along y, then along x ---------------------------------------------------------
  sum_axis(p.radius, p.items, smem, false, 0, [&](int item) {
    float const c = smem.scales(item)[0];
    return is_row ? Scaling::by_table(smem.table(item, false).norm) : Scaling::by_number(1.f / c);
  });
  __syncthreads();   // sync: every column summed before rows are read
  sum_axis(p.radius, p.items, smem, true, 0, [&](int item) {
    float const c = smem.scales(item)[0];
    return is_row ? Scaling::by_table(smem.table(item, true).norm) : Scaling::by_number(c);
  });
  __syncthreads();   // sync: every row summed before the store

  // ---- Store --------------------------------------------------------------------------------
  store_planes(p.items, p.o_at, p.o, smem);
}

}  // namespace gaussian

#define VARIANT(name, T)                                                                                    \
  ENTRY_SMEM(name, prim::kSharedSm90);                                                                      \
  extern "C" __global__ void __launch_bounds__(gaussian::kPlaneThreads, 2)                                  \
      name(__grid_constant__ GaussianPlaneParams const p) {                                                 \
    gaussian::plane<T>(p);                                                                                  \
  }
VARIANT(gaussian_fwd_plane_f32, float)
VARIANT(gaussian_fwd_plane_f16, __half)
VARIANT(gaussian_fwd_plane_bf16, __nv_bfloat16)
