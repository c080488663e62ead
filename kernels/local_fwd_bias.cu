// local_fwd with an additive bias table, or without any positions, on tensor cores, for f16 and bf16; see local_fwd.cuh.
#include "local_fwd.cuh"

LOCAL_FWD_BIAS(local_fwd_bias_f16_d32, __half, 32, 1, 2)
LOCAL_FWD_BIAS(local_fwd_bias_f16_d64, __half, 64, 1, 2)
LOCAL_FWD_BIAS(local_fwd_bias_f16_d128, __half, 128, 1, 1)
LOCAL_FWD_BIAS(local_fwd_bias_bf16_d32, __nv_bfloat16, 32, 1, 2)
LOCAL_FWD_BIAS(local_fwd_bias_bf16_d64, __nv_bfloat16, 64, 1, 2)
LOCAL_FWD_BIAS(local_fwd_bias_bf16_d128, __nv_bfloat16, 128, 1, 1)
LOCAL_FWD_BIAS(local_fwd_bias_f16_d32_tall, __half, 32, 2, 1)
LOCAL_FWD_BIAS(local_fwd_bias_f16_d64_tall, __half, 64, 2, 1)
LOCAL_FWD_BIAS(local_fwd_bias_bf16_d32_tall, __nv_bfloat16, 32, 2, 1)
LOCAL_FWD_BIAS(local_fwd_bias_bf16_d64_tall, __nv_bfloat16, 64, 2, 1)
