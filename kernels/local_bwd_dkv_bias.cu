// local_bwd_dkv with an additive bias table, on tensor cores, for f16 and bf16; see local_bwd_dkv.cuh.
#include "local_bwd_dkv.cuh"

LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_f16_d32, __half, 32, true, 2)
LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_f16_d64, __half, 64, true, 1)
LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_f16_d128, __half, 128, false, 1)
LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_bf16_d32, __nv_bfloat16, 32, true, 2)
LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_bf16_d64, __nv_bfloat16, 64, true, 1)
LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_bf16_d128, __nv_bfloat16, 128, false, 1)
