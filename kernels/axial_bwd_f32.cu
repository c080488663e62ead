// axial_bwd in f32; see axial_bwd.cuh.
#include "axial_bwd.cuh"

AXIAL_BWD(axial_bwd_f32_d64, float, 64, 2)
AXIAL_BWD(axial_bwd_f32_d128, float, 128, 2)
