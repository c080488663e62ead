// axial_bwd_sum — gradients of a table, and of weight and bias of batch norm, from what the blocks of axial_bwd left.
//
// Work      a block makes some channels of one row: threads add consecutive runs of partials, then one per channel adds the runs
// Reads     the partials once
// Writes    each gradient once; to what is there, if asked to
// Shared    TableSmem or SumSmem, size exported as <entry>_smem_bytes
// Numerics  f32, in a fixed order
// Mirrors   src/reference/axial.rs::backward, launched by src/ops/axial/backward.rs
#include "axial.cuh"

struct AxialBwdTableParams {
  float const* partials;       // as AxialBwdParams.table_partials
  axial::Table table;          // its reach alone counts
  float* dtable;               // [heads, 2·reach − 1, d]
  int64_t stride_h, stride_row, stride_channel;
  axial::Lines lines;
  int32_t heads;               // of the launch that left the partials
  int32_t partial_rows, partial_pitch;
  int32_t first_head;          // of dtable, 0 when heads share it
  int32_t is_shared;
  int32_t adds;
  int32_t partial_begin;       // as in AxialBwdParams
};
static_assert(sizeof(AxialBwdTableParams) == 160, "AxialBwdTableParams: change src/ops/axial/params.rs together with this");

struct AxialBwdNormParams {
  float const* partials;       // as AxialBwdParams.norm_partials
  axial::Vector dweight, dbias;           // for the next layer
  axial::Vector dweight_out, dbias_out;   // data null: not wanted
  int32_t heads;               // of the launch that left the partials
  int32_t blocks;              // of a head
  int32_t first_head;
  int32_t is_shared;
  int32_t e;
  int32_t adds;
};
static_assert(sizeof(AxialBwdNormParams) == 128, "AxialBwdNormParams: change src/ops/axial/params.rs together with this");

namespace axial {

constexpr int kSumThreads = 256;

// Of a table: threads read quads of channels.
constexpr int kTableChannels = 64;   // of a block; change src/ops/axial/backward.rs together with this
constexpr int kTableRuns = kSumThreads * prim::kQuad / kTableChannels;

struct TableSmem {
  float runs[kTableRuns][kTableChannels];
};

// Of batch norm.
constexpr int kRuns = 8;
static_assert(kRuns * prim::kWarp == kSumThreads, "a thread for every run of a channel");

struct SumSmem {
  float runs[2][kRuns][prim::kWarp];
};

// The sum of `kSums` numbers over the runs of a channel; only run 0 has it.
template <int kSums>
__device__ __forceinline__ void add_runs(float (&sums)[kSums], SumSmem& smem) {
  int const lane = threadIdx.x % prim::kWarp;
  int const run = threadIdx.x / prim::kWarp;
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    smem.runs[k][run][lane] = sums[k];
  }
  __syncthreads();   // sync: the runs' sums are there
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    for (int i = 1; i < kRuns && run == 0; ++i) {
      sums[k] += smem.runs[k][i][lane];
    }
  }
}

__device__ __forceinline__ void table_sum(AxialBwdTableParams const& p) {
  TableSmem& smem = *prim::shared_memory<TableSmem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  Lines const& l = p.lines;
  int const groups = prim::ceil_div(l.d, kTableChannels);
  int const rows = int(2 * p.table.reach - 1);
  int const row_of_all = blockIdx.x / groups;
  int const first_channel = (blockIdx.x - row_of_all * groups) * kTableChannels;
  int const hi = row_of_all / rows;                       // 0 when shared
  int const row = row_of_all - hi * rows;
  int const offset = row + 1 - int(p.table.reach);
  int const in_block = int(threadIdx.x) % (kTableChannels / prim::kQuad) * prim::kQuad;   // channel
  int const run = int(threadIdx.x) / (kTableChannels / prim::kQuad);
  int const size = kGrain << l.log2_grains;

  // ---- Main loop: a run of blocks -------------------------------------------------------------------------------------
  int const of_head = l.blocks * prim::ceil_div(l.tiles, l.tiles_per_block);
  int const first_block = p.is_shared ? 0 : hi * of_head;
  int const count = (p.is_shared ? p.heads : 1) * of_head;
  int const of_run = prim::ceil_div(count, kTableRuns);
  int const begin = run * of_run;
  int const end = min(begin + of_run, count);
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
  int const partial_row = offset - (p.partial_begin - 1) * size;
  if (partial_row >= 0 && partial_row < p.partial_rows && first_channel + in_block < l.d) {
    int64_t const of_block = int64_t(p.partial_rows) * p.partial_pitch;
    float const* from = p.partials + (first_block + begin) * of_block + int64_t(partial_row) * p.partial_pitch + first_channel + in_block;
#pragma unroll 4
    for (int i = begin; i < end; ++i) {
      float4 const x = __ldg(reinterpret_cast<float4 const*>(from));
      sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
      from += of_block;
    }
  }
  *reinterpret_cast<float4*>(&smem.runs[run][in_block]) = sum;
  __syncthreads();   // sync: the runs' sums are there

  // ---- Store --------------------------------------------------------------------------------------------------------
  int const channel = first_channel + int(threadIdx.x);
  if (int(threadIdx.x) < kTableChannels && channel < l.d) {
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < kTableRuns; ++i) {
      total += smem.runs[i][threadIdx.x];
    }
    float* const out = p.dtable + (p.first_head + hi) * p.stride_h + row * p.stride_row + channel * p.stride_channel;
    *out = p.adds ? *out + total : total;
  }
}

__device__ __forceinline__ void norm_sum(AxialBwdNormParams const& p) {
  SumSmem& smem = *prim::shared_memory<SumSmem>();

  // ---- Where am I ---------------------------------------------------------------------------------------------------
  int const groups = prim::ceil_div(p.e, prim::kWarp);
  int const hi = blockIdx.x / groups;                     // 0 when shared
  int const channel = (blockIdx.x - hi * groups) * prim::kWarp + threadIdx.x % prim::kWarp;
  int const run = threadIdx.x / prim::kWarp;
  bool const lives = channel < p.e;

  // ---- Main loop: a run of partials -----------------------------------------------------------------------------------
  int const count = (p.is_shared ? p.heads : 1) * p.blocks;
  float const* const partials = p.partials + (p.is_shared ? 0 : int64_t(hi) * count * 2 * p.e);
  int const of_run = prim::ceil_div(count, kRuns);
  int const end = min((run + 1) * of_run, count);
  float sums[2] = {0.f, 0.f};
  for (int i = run * of_run; i < end; ++i) {
    if (lives) {
      sums[0] += __ldg(partials + int64_t(i) * 2 * p.e + channel);
      sums[1] += __ldg(partials + int64_t(i) * 2 * p.e + p.e + channel);
    }
  }
  add_runs(sums, smem);

  // ---- Store --------------------------------------------------------------------------------------------------------
  if (run == 0 && lives) {
    float* const by_weight = p.dweight.at(p.first_head + hi, channel);
    float* const by_bias = p.dbias.at(p.first_head + hi, channel);
    sums[0] += p.adds ? *by_weight : 0.f;
    sums[1] += p.adds ? *by_bias : 0.f;
    *by_weight = sums[0];
    *by_bias = sums[1];
    if (p.dweight_out.data != nullptr) {
      *p.dweight_out.at(p.first_head + hi, channel) = sums[0];
    }
    if (p.dbias_out.data != nullptr) {
      *p.dbias_out.at(p.first_head + hi, channel) = sums[1];
    }
  }
}

}  // namespace axial

ENTRY_SMEM(axial_bwd_table_f32, sizeof(axial::TableSmem));
extern "C" __global__ void __launch_bounds__(axial::kSumThreads, 2)
    axial_bwd_table_f32(__grid_constant__ AxialBwdTableParams const p) {
  axial::table_sum(p);
}

ENTRY_SMEM(axial_bwd_norm_f32, sizeof(axial::SumSmem));
extern "C" __global__ void __launch_bounds__(axial::kSumThreads, 2)
    axial_bwd_norm_f32(__grid_constant__ AxialBwdNormParams const p) {
  axial::norm_sum(p);
}
