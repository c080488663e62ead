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
#include "gaussian_plane.cuh"

namespace gaussian {

template <class T>
__device__ __forceinline__ void plane(GaussianPlaneParams const& p) {
  constexpr int kUnit = prim::kUnit<T>;
  int const planes_bytes = (p.unit_stride << p.log2_units) * prim::kUnitBytes;
  Layout<T> const smem{prim::shared_memory<unsigned char>(), p.item_bytes, planes_bytes, p.y, p.x};

  // ---- Where am I ---------------------------------------------------------------------------
  int const warp = threadIdx.x / prim::kWarp;
  bool const is_row = p.is_row != 0;
  uint4* const zero = smem.zero(p.items_per_block);

  // ---- Load: planes on their way while the tables are made ---------------------------------------
  auto const in = prim::channels_of<T>(p.v, bits_of(p.v_at), p.channels);
  for_each_unit<T const>(p, p.v_at, static_cast<T const*>(p.v), [&](int item, int at, T const* pixel, int channel) {
    prim::copy_unit(smem.planes(item) + at, pixel, channel, in, true);
  });
  prim::commit_copies();
  if (threadIdx.x == 0) {
    *zero = make_uint4(0, 0, 0, 0);
  }
  for (int job = warp; job < 2 * p.items_per_block; job += kPlaneWarps) {
    AxisTable<T> const table = smem.table(job / 2, job % 2 == 1);
    Head const head = head_of(p.radius, Place<GaussianPlaneParams>(p, kUnit, job / 2).hi, table.axis);
    fill_table(head, table, is_row, smem.scales(job / 2) + job % 2);
  }
  prim::wait_copies<0>();
  __syncthreads();   // sync: planes landed, tables and the unit of zeros filled

  // ---- Main loop: along y, then along x ---------------------------------------------------------
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    Walk walk;
    walk.num_lines = pass == 0 ? p.x : p.y;
    walk.line_step = pass == 0 ? 1 : p.pitch;
    walk.axis = pass == 0 ? p.y : p.x;
    walk.axis_step = pass == 0 ? p.pitch : 1;
    walk.log2_units = p.log2_units;
    walk.unit_stride = p.unit_stride;
    walk.zero = zero;
    int const columns = walk.num_lines << p.log2_units;
    int const per_task = sizeof(T) == 2 ? 2 : prim::kWarp / prim::ceil_div(walk.axis, kRun);
    int const tasks = prim::ceil_div(columns, per_task);
    for (int flat = warp; flat < tasks * p.items_per_block; flat += kPlaneWarps) {
      int const index = flat / tasks;
      Place<GaussianPlaneParams> const place(p, kUnit, index);
      if (!place.live) {
        continue;      // the last block may have fewer items; the same for the whole warp
      }
      walk.live_units = prim::ceil_div(p.channels - place.channel, kUnit);
      AxisTable<T> const table = smem.table(index, pass == 1);
      int const reach = head_of(p.radius, place.hi, walk.axis).reach;
      if constexpr (sizeof(T) == 2) {
        float const c = smem.scales(index)[0];
        sum_16<T>(smem.planes(index), walk, table, reach, is_row, pass == 0 ? 1.f / c : c, flat % tasks);
      } else {
        sum_f32(smem.planes(index), walk, table, reach, is_row, flat % tasks);
      }
    }
    __syncthreads();   // sync: every column summed before rows are read, and every row before the store
  }

  // ---- Store --------------------------------------------------------------------------------
  auto const out = prim::channels_of<T>(p.o, bits_of(p.o_at), p.channels);
  for_each_unit<T>(p, p.o_at, static_cast<T*>(p.o), [&](int item, int at, T* pixel, int channel) {
    prim::store_unit(pixel, channel, out, smem.planes(item)[at]);
  });
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
