use super::super::params::LineParams;
use super::*;
use crate::config::gaussian::Norm;

fn forward(shape: [usize; 5], dtype: DType, gpu: &Gpu) -> Result<Plan> {
    Gaussian::default().plan_fwd(&ForwardProblem::contiguous(shape, dtype), gpu)
}

fn backward(shape: [usize; 5], dtype: DType, gpu: &Gpu) -> Result<Plan> {
    Gaussian::default().plan_bwd(&BackwardProblem::contiguous(shape, dtype), gpu)
}

/// Maps of every kind: one pixel, one row, one column, thin, small, large, and larger than the scratch.
const SHAPES: [[usize; 5]; 10] = [
    [1, 1, 1, 1, 1],
    [2, 3, 1, 500, 33],
    [2, 3, 500, 1, 33],
    [1, 2, 2, 70_000, 3],
    [32, 8, 7, 7, 64],
    [8, 8, 56, 56, 64],
    [2, 8, 128, 96, 128],
    [1, 2, 224, 224, 64],
    [1, 1, 4096, 4096, 64],
    [1, 1, 2, 1_000_000, 128],
];

#[test]
fn every_shape_has_a_plan_on_every_class() {
    for gpu in &Gpu::CLASSES {
        for (shape, dtype) in SHAPES.into_iter().flat_map(|shape| DType::ALL.map(|dtype| (shape, dtype))) {
            for plan in [forward(shape, dtype, gpu).unwrap(), backward(shape, dtype, gpu).unwrap()] {
                for launch in &plan.launches {
                    assert!(launch.grid >= 1 && launch.shared_bytes <= gpu.shared_optin_bytes, "{launch:?}");
                }
                // Scratch: 16 MiB, or what one row of one sector of channels takes; tables and partials beside it.
                let [b, h, y, x, d] = shape;
                let one_row = y.max(x) * 128;
                let tables = h * (2 * (y + x) + 1) * 4;
                let partials = b * h * y * x * d.next_multiple_of(4) / 16 + (4 << 10) * b * h;
                let most = (16 << 20) + one_row + tables + partials + 4096;
                assert!(plan.workspace_bytes <= most, "{shape:?}: {} bytes", plan.workspace_bytes);
            }
        }
    }
}

#[test]
fn offsets_past_32_bits_are_64_bit_strides() {
    // 2^33 elements in all, 2^21 in each plane, on a map that fits no shared memory.
    let plan = forward([32, 64, 256, 128, 128], DType::F16, &Gpu::SM90).unwrap();
    let first: LineParams = bytemuck::pod_read_unaligned(plan.launches[1].params());
    assert_eq!((first.src_at.b, first.src_at.h), (64 << 22, 1 << 22));
    let last: LineParams = bytemuck::pod_read_unaligned(plan.launches.last().unwrap().params());
    assert_eq!(last.first_bh, 32 * 64 - 2, "the scratch holds two planes of 8 MiB");
    // The scratch begins with the chunk's planes: its strides lead back from (b, h) = (0, 0).
    assert_eq!(last.src_at.offset + 31 * last.src_at.b + 62 * last.src_at.h, 0);
    assert_eq!(31 * last.dst_at.b + 63 * last.dst_at.h, (32 * 64 - 1) << 22);

    let error = forward([1 << 16, 1 << 16, 1, 1, 1], DType::F32, &Gpu::SM90).unwrap_err();
    assert_eq!(error.to_string(), "gaussian: `v` must be of less than 2³¹ planes [b, h], got 4294967296");
}

#[test]
fn a_plane_of_two_to_the_31_elements_is_refused() {
    let error = forward([1, 1, 1 << 16, 1 << 15, 1], DType::F32, &Gpu::SM90).unwrap_err();
    let want =
        "gaussian: `v` must be of planes [y, x, d] that span less than 2³¹ − 255 elements, got 2147483648";
    assert_eq!(error.to_string(), want);
    // A view may span it with fewer elements.
    let mut problem = ForwardProblem::contiguous([1, 1, 2, 1, 8], DType::F32);
    problem.v.strides[2] = 1 << 31;
    assert!(Gaussian::default().plan_fwd(&problem, &Gpu::SM90).is_err());
}

#[test]
fn more_blocks_than_a_launch_has_are_refused() {
    let shape = [1 << 15, 1 << 15, 1, 200, 128];
    let error = forward(shape, DType::F32, &Gpu::SM90).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("more than the 2³¹ − 1 of one launch"), "{error}");
}

#[test]
fn channels_that_are_not_contiguous_are_refused() {
    let mut problem = ForwardProblem::contiguous([1, 1, 4, 4, 8], DType::F32);
    problem.v = Layout::contiguous([1, 1, 8, 4, 4]).permute([0, 1, 3, 4, 2]).unwrap();
    let error = Gaussian::default().plan_fwd(&problem, &Gpu::SM80).unwrap_err();
    let want = "gaussian: `v` with 16 elements from channel to channel; only 1";
    assert_eq!(error.to_string(), want);
}

/// Tile by tile: 1/Z of every query of each radius, backward the mean slope too, and one partial sum per block.
#[test]
fn kernels_that_are_not_separable_have_a_plan_for_every_shape_on_every_class() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| !kernel.is_separable()) {
        for (shape, dtype) in SHAPES.into_iter().flat_map(|shape| DType::ALL.map(|dtype| (shape, dtype))) {
            for (gpu, norm) in Gpu::CLASSES.iter().flat_map(|gpu| [(gpu, Norm::Row), (gpu, Norm::None)]) {
                let op = Gaussian::new(GaussianConfig { kernel, norm, ..Default::default() }).unwrap();
                let [b, h, y, x, d] = shape;
                let columns = b * (d * dtype.bytes()).div_ceil(16);
                let blocks = h * columns.div_ceil(16) * y.div_ceil(8) * x.div_ceil(8);
                let queries = if norm == Norm::Row { h * y * x * 4 } else { 0 };
                let forward = op.plan_fwd(&ForwardProblem::contiguous(shape, dtype), gpu).unwrap();
                assert_eq!(forward.workspace_bytes, queries.next_multiple_of(256));
                let backward = op.plan_bwd(&BackwardProblem::contiguous(shape, dtype), gpu).unwrap();
                // A map of one column is a map of one row.
                let most = 2 * queries.next_multiple_of(256) + (blocks * 4).next_multiple_of(256);
                assert_eq!(backward.workspace_bytes, most, "{shape:?} {dtype}");
                for launch in forward.launches.iter().chain(&backward.launches) {
                    assert!(launch.grid >= 1 && launch.shared_bytes <= gpu.shared_optin_bytes, "{launch:?}");
                }
            }
        }
    }
}

/// One radius for all heads needs one table; what is not wanted is not launched.
#[test]
fn tiles_compute_only_what_is_wanted() {
    let op = Gaussian::new(GaussianConfig { kernel: Kernel::Linear, ..Default::default() }).unwrap();
    let shape = [2, 3, 8, 8, 8];
    let shared = ForwardProblem { sigma: [1].into(), ..ForwardProblem::contiguous(shape, DType::F16) };
    assert_eq!(op.plan_fwd(&shared, &Gpu::SM80).unwrap().workspace_bytes, 8 * 8 * 4);
    let both = BackwardProblem::contiguous(shape, DType::F16);
    for (dv, dsigma, want) in [
        (both.dv, None, &["gaussian_fwd_tile_norm_f32", "gaussian_fwd_tile_f16"][..]),
        (
            None,
            both.dsigma,
            &["gaussian_fwd_tile_norm_f32", "gaussian_bwd_tile_f16", "gaussian_bwd_sum_f32"][..],
        ),
        (None, None, &[][..]),
    ] {
        let plan = op.plan_bwd(&BackwardProblem { dv, dsigma, ..both }, &Gpu::SM80).unwrap();
        assert_eq!(plan.launches.iter().map(|launch| launch.kernel).collect::<Vec<_>>(), want);
    }
}

#[test]
fn nothing_to_do_launches_nothing_and_an_empty_map_has_a_gradient_of_zero() {
    let shape = [2, 3, 0, 4, 8];
    assert!(forward(shape, DType::F16, &Gpu::SM90).unwrap().launches.is_empty());
    let plan = backward(shape, DType::F16, &Gpu::SM90).unwrap();
    assert_eq!(plan.launches.len(), 1);
    assert_eq!(plan.launches[0].kernel, "gaussian_bwd_sum_f32");
    let mut problem = BackwardProblem::contiguous([2, 3, 4, 4, 8], DType::F32);
    (problem.dv, problem.dsigma) = (None, None);
    assert!(Gaussian::default().plan_bwd(&problem, &Gpu::SM90).unwrap().launches.is_empty());
}

#[test]
fn cost_counts_what_the_mathematics_needs() {
    let (op, shape) = (Gaussian::default(), [2, 3, 5, 7, 11]);
    let elements = 2 * 3 * 5 * 7 * 11;
    let cost = op.forward_cost(shape, DType::F16);
    assert_eq!(cost.flops, 2 * elements * (5 + 7));
    assert_eq!(cost.min_bytes, 2 * elements * 2 + 3 * 4);
    assert_eq!(cost.exps, 3 * (5 + 7));
    let cost = op.backward_cost(shape, DType::F32);
    assert_eq!(cost.flops, 2 * elements * (3 * 5 + 2 * 7));
    assert_eq!(cost.min_bytes, 3 * elements * 4 + 2 * 3 * 4);

    let windowed = GaussianConfig { window: Some(3), norm: Norm::None, ..Default::default() };
    let cost = Gaussian::new(windowed).unwrap().forward_cost(shape, DType::F16);
    assert_eq!(cost.flops, 2 * elements * (3 + 3));
    assert_eq!(cost.exps, 3 * (2 + 2));
    let dense = GaussianConfig { kernel: Kernel::Cauchy, ..Default::default() };
    let cost = Gaussian::new(dense).unwrap().forward_cost(shape, DType::F16);
    assert_eq!((cost.flops, cost.exps), (2 * elements * 5 * 7, 0));
    let cost = Gaussian::new(dense).unwrap().backward_cost(shape, DType::F16);
    assert_eq!(cost.flops, 2 * 2 * elements * 5 * 7);
}
