// local_fwd with an additive bias table, on FMA units, for f32; see local_fwd.cuh.
#include "local_fwd.cuh"

LOCAL_FWD_BIAS(local_fwd_bias_f32, float, 128, 1, 1)
