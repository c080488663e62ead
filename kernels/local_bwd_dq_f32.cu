// local_bwd_dq on FMA units, for f32; see local_bwd_dq.cuh.
#include "local_bwd_dq.cuh"

LOCAL_BWD_DQ(local_bwd_dq_f32, float, 128)
