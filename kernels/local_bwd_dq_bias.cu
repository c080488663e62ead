// local_bwd_dq with an additive bias table, on tensor cores, for f16 and bf16; see local_bwd_dq.cuh.
#include "local_bwd_dq.cuh"

LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_f16_d32, __half, 32)
LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_f16_d64, __half, 64)
LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_f16_d128, __half, 128)
LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_bf16_d32, __nv_bfloat16, 32)
LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_bf16_d64, __nv_bfloat16, 64)
LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_bf16_d128, __nv_bfloat16, 128)
