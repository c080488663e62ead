// local_bwd_drel — gradients of the relative tables from the partial sums of local_bwd_dq.
//
// Work      a warp's lane per element (table row, channel of q) of a section; the block's warps take runs of partials
// Reads     every partial once
// Writes    drel_h, drel_w, each element once
// Shared    Smem
// Numerics  f32, partials in the order of their blocks within a run, runs in order
// Mirrors   src/reference/local.rs::backward, launched by src/ops/local/plan.rs::backward
#include "local.cuh"

namespace local {

// A gradient [heads, rows, channels] in f32; null: not wanted.
struct TableGradient {
  float* data;
  int64_t stride_h, stride_row, stride_channel;
  int32_t first, channels, rows;
  int32_t is_shared;   // by the heads: one sum over all sections
};

}  // namespace local

struct LocalBwdDrelParams {
  float const* partials;              // [sections][blocks_per_section][rows of both tables][d]
  local::TableGradient drel_h, drel_w;
  int32_t d;
  int32_t blocks_per_section;
  prim::Divisor elements;             // blocks of the grid per section
  prim::Divisor channels;             // d
  int32_t sections;
  float scale;                        // |α|
};
static_assert(sizeof(LocalBwdDrelParams) == 144, "LocalBwdDrelParams: change src/ops/local/plan.rs together with this");

namespace local {

struct Smem {
  float sum[kWarps][prim::kWarp];
};

__device__ __forceinline__ void bwd_drel(LocalBwdDrelParams const& p) {
  auto& smem = *prim::shared_memory<Smem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const section = p.elements.quotient(blockIdx.x);
  int const element = p.elements.remainder(blockIdx.x, section) * prim::kWarp + threadIdx.x % prim::kWarp;
  int const of_both = p.channels.quotient(element);   // row
  int const channel = p.channels.remainder(element, of_both);
  bool const is_h = of_both < p.drel_h.rows;
  bool const is_shared = is_h ? p.drel_h.is_shared : p.drel_w.is_shared;
  int const count = (p.drel_h.rows + p.drel_w.rows) * p.d;
  bool const lives = element < count && (!is_shared || section == 0);
  int const partials = is_shared ? p.sections * p.blocks_per_section : p.blocks_per_section;
  int const warp = threadIdx.x / prim::kWarp;
  int const run = (partials + kWarps - 1) / kWarps;
  int const first = warp * run;
  int const end = min(first + run, partials);

  // ---- Sum ----------------------------------------------------------------------------------------------------------
  float sum = 0.f;
  if (lives) {
    float const* at = p.partials + (int64_t(section) * p.blocks_per_section + first) * count + element;
#pragma unroll 4
    for (int i = first; i < end; ++i) {
      sum += *at;
      at += count;
    }
  }
  smem.sum[warp][threadIdx.x % prim::kWarp] = sum;
  __syncthreads();   // sync: every run's sum written

  // ---- Store --------------------------------------------------------------------------------------------------------
  if (warp == 0 && lives) {
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      total += smem.sum[i][threadIdx.x];
    }
    float* const data = is_h ? p.drel_h.data : p.drel_w.data;
    int const row = is_h ? of_both : of_both - p.drel_h.rows;
    int const own = channel - (is_h ? p.drel_h.first : p.drel_w.first);
    if (data != nullptr && own >= 0 && own < (is_h ? p.drel_h.channels : p.drel_w.channels)) {
      int64_t const at = section * (is_h ? p.drel_h.stride_h : p.drel_w.stride_h) +
                         row * (is_h ? p.drel_h.stride_row : p.drel_w.stride_row) +
                         own * (is_h ? p.drel_h.stride_channel : p.drel_w.stride_channel);
      data[at] = total * p.scale;
    }
  }
}

}  // namespace local

ENTRY_SMEM(local_bwd_drel_f32, sizeof(local::Smem));
extern "C" __global__ void __launch_bounds__(local::kThreads, 2) local_bwd_drel_f32(__grid_constant__ LocalBwdDrelParams const p) {
  local::bwd_drel(p);
}
