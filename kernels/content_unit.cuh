// content_unit — what one warp sums over positions: weightᵀ · value, 16 channels × 64 channels, with a running softmax over
// the positions of each weight channel. Steps of 16 positions; positions that do not exist are zeros in shared memory.
#pragma once
#include "content.cuh"

namespace content {

// Where a warp finds a step of 16 positions in shared memory.
struct Step {
  uint32_t s_keys, s_values;     // of position 0, this warp's first channel
  int key_pitch, value_pitch;    // bytes
  int columns;                   // value channels of this warp, in whole blocks
  int live;                      // positions that exist, at least 1
};

// Partial results of a block in shared memory: sums [group][channel][pitch], tops and totals [group][channel].
struct Parts {
  uint32_t sums;
  float* tops;
  float* totals;
  int pitch;        // floats; 8 more than a multiple of 16: lanes that hold a block meet no bank conflict
};

// ---- 16-bit elements: tensor cores --------------------------------------------------------------------------------
// Lane 4·g + t has channels g and g + 8; of each block of 8 columns 2t and 2t + 1.

template <class T>
struct Unit {
  static constexpr int kScratchBytes = 0;   // of a warp's own, always
  static constexpr int kKeptBytes = (kSlice / prim::kMmaN + 1) * prim::kWarp * prim::kUnitBytes;   // and for long sums
  static constexpr int kTotals = kSlice / prim::kMmaN * prim::kWarp * prim::kUnitBytes;   // where totals are kept
  static constexpr float kSlack = 8.f;      // in base 2: how far a score may exceed the reference before it moves

  float c[kSlice / prim::kMmaN][4];
  float total[4];                           // of the rounded weights; [0] channel g, [2] channel g + 8
  float reference[2], top[2];
  float since[2];                           // what has to scale the sums that left the tensor core
  int terms;
  bool has_kept;

  __device__ __forceinline__ void start(int form) {
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = 0.f;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[2 * half] = total[2 * half + 1] = 0.f;
      reference[half] = top[half] = is_softmax(form) ? kLowest : 0.f;
      since[half] = 1.f;
    }
    terms = 0;
    has_kept = false;
  }

  // Adds what was kept before to the sums.
  __device__ __forceinline__ void take(uint32_t s_kept) {
    if (has_kept) {
#pragma unroll
      for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
        float4 const before = quad_at(s_kept + j * prim::kWarp * prim::kUnitBytes);
        c[j][0] = fmaf(before.x, since[0], c[j][0]);
        c[j][1] = fmaf(before.y, since[0], c[j][1]);
        c[j][2] = fmaf(before.z, since[1], c[j][2]);
        c[j][3] = fmaf(before.w, since[1], c[j][3]);
      }
      float4 const before = quad_at(s_kept + kTotals);
      total[0] = fmaf(before.x, since[0], total[0]);
      total[2] = fmaf(before.y, since[1], total[2]);
    }
  }

  // Sums leave the tensor core for the lane's own place in shared memory.
  __device__ __forceinline__ void keep(uint32_t s_kept) {
    take(s_kept);
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
      put_quad(s_kept + j * prim::kWarp * prim::kUnitBytes, make_float4(c[j][0], c[j][1], c[j][2], c[j][3]));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[j][i] = 0.f;
      }
    }
    put_quad(s_kept + kTotals, make_float4(total[0], total[2], 0.f, 0.f));
    total[0] = total[2] = 0.f;
    since[0] = since[1] = 1.f;
    terms = 0;
    has_kept = true;
  }

  __device__ __forceinline__ void scale(float low, float high) {
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
      c[j][0] *= low;
      c[j][1] *= low;
      c[j][2] *= high;
      c[j][3] *= high;
    }
    total[0] *= low;
    total[2] *= high;
    since[0] *= low;
    since[1] *= high;
  }

  // Moves the references if scores have outgrown them. score[i][0..2]: register i of a fragment.
  __device__ __forceinline__ void follow(float2 const (&score)[4]) {
    bool is_outgrown = false;
    float next[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float2 const a = score[half];
      float2 const b = score[half + 2];
      top[half] = fmaxf(top[half], fmaxf(fmaxf(a.x, a.y), fmaxf(b.x, b.y)));
      is_outgrown |= (top[half] - reference[half]) * prim::kLog2E > kSlack;
    }
    if (__any_sync(prim::kAllLanes, is_outgrown)) {
      float factor[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[half] = prim::quad_max(top[half]);
        next[half] = (top[half] - reference[half]) * prim::kLog2E > kSlack ? top[half] : reference[half];
        factor[half] = exp_approx(reference[half] - next[half]);
        reference[half] = next[half];
      }
      scale(factor[0], factor[1]);
    }
  }

  __device__ __forceinline__ void multiply(uint32_t const (&a)[4], Step const& step) {
    int const lane = prim::fresh_lane();
    uint32_t const s_row = step.s_values + lane % 16 * step.value_pitch + lane / 16 * prim::kUnitBytes;
#pragma unroll
    for (int j = 0; j < kSlice / kBlock; ++j) {
      if (j * kBlock < step.columns) {
        uint32_t b[4];
        prim::load_matrices_transposed(b, s_row + j * kBlock * int(sizeof(T)));
        prim::mma<T>(c[2 * j], a, b[0], b[1]);
        prim::mma<T>(c[2 * j + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ __forceinline__ void add(Step const& step, int form, uint32_t s_own) {
    if (terms == prim::kMmaTermsMax) {
      keep(s_own + prim::fresh_lane() * prim::kUnitBytes);
    }
    terms += kBlock;
    int const lane = prim::fresh_lane();
    uint32_t a[4];
    prim::load_matrices_transposed(
        a, step.s_keys + (lane % 8 + lane / 16 * 8) * step.key_pitch + lane / 8 % 2 * prim::kUnitBytes);
    if (form != kDotProduct) {
      float2 w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[i] = prim::Pair<T>::unpack(a[i]);
      }
      int const live = step.live - 2 * (lane % 4);   // of this lane's positions 0, 1, 8, 9
      if (is_softmax(form)) {
        if (step.live < kBlock) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            w[i].x = i / 2 * 8 < live ? w[i].x : kLowest;
            w[i].y = i / 2 * 8 + 1 < live ? w[i].y : kLowest;
          }
        }
        follow(w);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[i].x = exp_approx(w[i].x - reference[i % 2]);
          w[i].y = exp_approx(w[i].y - reference[i % 2]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[i].x = i / 2 * 8 < live ? feature(form, w[i].x) : 0.f;
          w[i].y = i / 2 * 8 + 1 < live ? feature(form, w[i].y) : 0.f;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = prim::Pair<T>::pack(w[i].x, w[i].y);
      }
      prim::mma<T>(total, a, prim::Pair<T>::kOnes, prim::Pair<T>::kOnes);
    }
    multiply(a, step);
  }

  // The same for weights that are ready, without a softmax; totals sum weight times `extra` of the position, unless null.
  __device__ __forceinline__ void add_ready(Step const& step, float const* extra, uint32_t s_own) {
    if (terms == prim::kMmaTermsMax) {
      keep(s_own + prim::fresh_lane() * prim::kUnitBytes);
    }
    terms += kBlock;
    int const lane = prim::fresh_lane();
    uint32_t a[4];
    prim::load_matrices_transposed(
        a, step.s_keys + (lane % 8 + lane / 16 * 8) * step.key_pitch + lane / 8 % 2 * prim::kUnitBytes);
    if (extra != nullptr) {
      float const* const of_lane = extra + 2 * (lane % 4);
      prim::mma<T>(total, a, prim::Pair<T>::pack(of_lane[0], of_lane[1]), prim::Pair<T>::pack(of_lane[8], of_lane[9]));
    }
    multiply(a, step);
  }

  // Before shared memory is used anew.
  __device__ __forceinline__ void end(uint32_t s_own) { take(s_own + prim::fresh_lane() * prim::kUnitBytes); }

  // To shared memory, as weights relative to the true maximum. `row`: of this warp's first channel in its group.
  __device__ __forceinline__ void store(Parts const& parts, int row, int column, int columns) {
    int const lane = prim::fresh_lane();
    int const g = lane / 4;
    int const t = lane % 4;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = prim::quad_max(top[half]);
      factor[half] = exp_approx(reference[half] - top[half]);
    }
#pragma unroll
    for (int j = 0; j < kSlice / prim::kMmaN; ++j) {
      if (j * prim::kMmaN < columns) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t const at =
              parts.sums + ((row + g + 8 * half) * parts.pitch + column + j * prim::kMmaN + 2 * t) * int(sizeof(float));
          float const x = c[j][2 * half] * factor[half];
          float const y = c[j][2 * half + 1] * factor[half];
          asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(x), "f"(y) : "memory");
        }
      }
    }
    if (column == 0 && t == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        parts.tops[row + g + 8 * half] = top[half];
        parts.totals[row + g + 8 * half] = total[2 * half] * factor[half];
      }
    }
  }
};

// ---- f32: FMA units -----------------------------------------------------------------------------------------------
// Lane 8·r + l has channels 4r … 4r + 3, and of each 32 columns 4l … 4l + 3. Weights are made by position l and l + 8, and
// reach the other lanes through the warp's own scratch.

template <>
struct Unit<float> {
  static constexpr int kWeightPitch = (kBlock + prim::kQuad) * int(sizeof(float));   // of a position: no bank conflict
  static constexpr int kScratchBytes = kBlock * kWeightPitch;
  static constexpr int kKeptBytes = 0;
  static constexpr int kHalf = kSlice / 2;

  float4 c[prim::kQuad][2];
  float total[prim::kQuad];       // of this lane's positions
  float reference[prim::kQuad];   // the maximum so far

  __device__ __forceinline__ void start(int form) {
#pragma unroll
    for (int i = 0; i < prim::kQuad; ++i) {
      c[i][0] = c[i][1] = make_float4(0.f, 0.f, 0.f, 0.f);
      total[i] = 0.f;
      reference[i] = is_softmax(form) ? kLowest : 0.f;
    }
  }

  static __device__ __forceinline__ void scale(float4& x, float by) { x = make_float4(x.x * by, x.y * by, x.z * by, x.w * by); }

  // score[half][i]: channel i of position l + 8·half.
  __device__ __forceinline__ void follow(float const (&score)[2][prim::kQuad]) {
    float next[prim::kQuad];
    bool has_grown = false;
#pragma unroll
    for (int i = 0; i < prim::kQuad; ++i) {
      float top = fmaxf(score[0][i], score[1][i]);
#pragma unroll
      for (int distance = 1; distance < 8; distance *= 2) {
        top = fmaxf(top, __shfl_xor_sync(prim::kAllLanes, top, distance));
      }
      next[i] = fmaxf(reference[i], top);
      has_grown |= next[i] > reference[i];
    }
    if (__any_sync(prim::kAllLanes, has_grown)) {
#pragma unroll
      for (int i = 0; i < prim::kQuad; ++i) {
        float const factor = exp_approx(reference[i] - next[i]);
        scale(c[i][0], factor);
        scale(c[i][1], factor);
        total[i] *= factor;
        reference[i] = next[i];
      }
    }
  }

  // `s_weight`: of this lane's channels at position 0.
  __device__ __forceinline__ void multiply(uint32_t s_weight, int pitch, Step const& step) {
    int const l = prim::fresh_lane() % 8;
#pragma unroll 4
    for (int j = 0; j < kBlock; ++j) {
      float4 const weight = quad_at(s_weight + j * pitch);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half * kHalf < step.columns) {
          float4 const v =
              quad_at(step.s_values + j * step.value_pitch + (half * kHalf + l * prim::kQuad) * int(sizeof(float)));
          multiply_add(c[0][half], weight.x, v);
          multiply_add(c[1][half], weight.y, v);
          multiply_add(c[2][half], weight.z, v);
          multiply_add(c[3][half], weight.w, v);
        }
      }
    }
  }

  __device__ __forceinline__ void add(Step const& step, int form, uint32_t s_scratch) {
    int const lane = prim::fresh_lane();
    int const l = lane % 8;
    int const r = lane / 8;
    float w[2][prim::kQuad];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float4 const k = quad_at(step.s_keys + (l + 8 * half) * step.key_pitch + r * prim::kUnitBytes);
      w[half][0] = k.x;
      w[half][1] = k.y;
      w[half][2] = k.z;
      w[half][3] = k.w;
    }
    if (is_softmax(form)) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < prim::kQuad; ++i) {
          w[half][i] = l + 8 * half < step.live ? w[half][i] : kLowest;
        }
      }
      follow(w);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < prim::kQuad; ++i) {
        if (is_softmax(form)) {
          w[half][i] = exp_approx(w[half][i] - reference[i]);
        } else if (is_linear(form)) {
          w[half][i] = l + 8 * half < step.live ? feature(form, w[half][i]) : 0.f;
        }
        total[i] += w[half][i];
      }
      put_quad(s_scratch + (l + 8 * half) * kWeightPitch + r * prim::kUnitBytes,
               make_float4(w[half][0], w[half][1], w[half][2], w[half][3]));
    }
    __syncwarp();   // sync: the weights of all positions written before other lanes read them
    multiply(s_scratch + r * prim::kUnitBytes, kWeightPitch, step);
    __syncwarp();   // sync: the weights read before the next step overwrites them
  }

  __device__ __forceinline__ void add_ready(Step const& step, float const* extra, uint32_t) {
    int const lane = prim::fresh_lane();
    int const l = lane % 8;
    uint32_t const s_weight = step.s_keys + lane / 8 * prim::kUnitBytes;
    if (extra != nullptr) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float4 const weight = quad_at(s_weight + (l + 8 * half) * step.key_pitch);
        float const of_position = extra[l + 8 * half];
        total[0] = fmaf(weight.x, of_position, total[0]);
        total[1] = fmaf(weight.y, of_position, total[1]);
        total[2] = fmaf(weight.z, of_position, total[2]);
        total[3] = fmaf(weight.w, of_position, total[3]);
      }
    }
    multiply(s_weight, step.key_pitch, step);
  }

  __device__ __forceinline__ void end(uint32_t) {}

  __device__ __forceinline__ void store(Parts const& parts, int row, int column, int columns) {
    int const lane = prim::fresh_lane();
    int const l = lane % 8;
    int const first = row + lane / 8 * prim::kQuad;
#pragma unroll
    for (int i = 0; i < prim::kQuad; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half * kHalf < columns) {
          put_quad(parts.sums + ((first + i) * parts.pitch + column + half * kHalf + l * prim::kQuad) * int(sizeof(float)),
                   c[i][half]);
        }
      }
#pragma unroll
      for (int distance = 1; distance < 8; distance *= 2) {
        total[i] += __shfl_xor_sync(prim::kAllLanes, total[i], distance);
      }
      if (column == 0 && l == 0) {
        parts.tops[first + i] = reference[i];
        parts.totals[first + i] = total[i];
      }
    }
  }
};

}  // namespace content
