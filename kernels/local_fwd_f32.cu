// local_fwd on FMA units, for f32; see local_fwd.cuh.
#include "local_fwd.cuh"

LOCAL_FWD(local_fwd_f32, float, 128, 1, 1)
