// local_bwd_dkv on FMA units, for f32; see local_bwd_dkv.cuh.
#include "local_bwd_dkv.cuh"

LOCAL_BWD_DKV(local_bwd_dkv_f32, float, 128, false, 1)
