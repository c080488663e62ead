// axial_bwd on tensor cores, for f16 and bf16; see axial_bwd.cuh.
#include "axial_bwd.cuh"

AXIAL_BWD(axial_bwd_f16_d64, __half, 64, 2)
AXIAL_BWD(axial_bwd_f16_d128, __half, 128, 1)
AXIAL_BWD(axial_bwd_bf16_d64, __nv_bfloat16, 64, 2)
AXIAL_BWD(axial_bwd_bf16_d128, __nv_bfloat16, 128, 1)
