// local_bwd_dq with an additive bias table, on FMA units, for f32; see local_bwd_dq.cuh.
#include "local_bwd_dq.cuh"

LOCAL_BWD_DQ_BIAS(local_bwd_dq_bias_f32, float, 128)
