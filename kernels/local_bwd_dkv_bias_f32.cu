// local_bwd_dkv with an additive bias table, on FMA units, for f32; see local_bwd_dkv.cuh.
#include "local_bwd_dkv.cuh"

LOCAL_BWD_DKV_BIAS(local_bwd_dkv_bias_f32, float, 128, false, 1)
