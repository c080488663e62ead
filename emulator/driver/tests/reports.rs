//! What a test can ask the look-alike, and what the emulator's findings become.

use crate::common::{KERNELS, KERNELS_WITH_LINES, Setup, code, driver, shape};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{DriverError, PushKernelArg};
use cudarc::nvrtc::Ptx;
use ptx_emulator_driver::ptx_emulator::{StopKind, TensorMode};

/// A launch that stores outside of its buffer.
fn stray(setup: &Setup) -> Result<(), DriverError> {
    let mut x = setup.stream.alloc_zeros::<f32>(16)?;
    let kernel = setup.function("store_at");
    let mut launch = setup.stream.launch_builder(&kernel);
    launch.arg(&mut x).arg(&16i64);
    // SAFETY: the arguments are the kernel's; that the index is off is what is tested.
    unsafe { launch.launch(shape(1, 1, 0)) }.map(|_| ())
}

fn count(setup: &Setup) -> Result<(), DriverError> {
    let kernel = setup.function("count");
    // SAFETY: the kernel has no parameters.
    unsafe { setup.stream.launch_builder(&kernel).launch(shape(2, 32, 0)) }.map(|_| ())
}

#[test]
fn a_launch_is_in_the_journal() {
    let setup = Setup::on(1);
    driver().take_launches();
    count(&setup).unwrap();
    let launches = driver().take_launches();
    let [launch] = &launches[..] else { panic!("{launches:?}") };
    assert_eq!(
        (launch.entry.as_str(), launch.device, launch.dims.grid, launch.dims.block),
        ("count", 1, [2, 1, 1], [32, 1, 1])
    );
    assert!(launch.report.warp_instructions > 0);
    assert!(driver().executed_entries().contains("count"));
    assert!(driver().launches().is_empty());
}

#[test]
fn a_finding_fails_the_launch_and_is_there_to_read() {
    let setup = Setup::on(0);
    let launched = driver().with(|s| s.print = false, || stray(&setup));
    assert_eq!(code(launched), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    let last = driver().last_stop().expect("a stop");
    assert_eq!((last.entry.as_str(), last.stop.kind()), ("store_at", StopKind::OutOfBounds));
    assert!(last.stop.to_string().contains("store_at"), "{}", last.stop);
    assert_eq!(driver().take_stops().len(), 1);
    assert!(driver().last_stop().is_none());
    count(&setup).expect("the context works on");
}

#[test]
fn a_finding_can_break_the_context_as_on_hardware() {
    crate::process::in_child("reports::a_finding_can_break_the_context_as_on_hardware", &[], || {
        let setup = Setup::on(0);
        driver().with(
            |s| (s.sticky, s.print) = (true, false),
            || {
                assert_eq!(code(stray(&setup)), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
                assert_eq!(code(setup.stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
                let found = setup.module.load_function("count");
                assert_eq!(code(found), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
            },
        );
        driver().take_stops();
        count(&setup).expect("the context is mended");
    });
}

#[test]
fn reports_name_the_source_through_a_twin_with_line_tables() {
    let setup = Setup::on(0);
    // A text of its own, so that other tests load the plain one.
    let mark = |text: &str| format!("// for reports_name_the_source\n{text}");
    driver().register_line_info(mark(KERNELS), mark(KERNELS_WITH_LINES));
    let module = setup.context.load_module(Ptx::from_src(mark(KERNELS))).unwrap();
    let setup = Setup { module, ..setup };
    assert!(driver().with(|s| s.print = false, || stray(&setup)).is_err());
    let stop = driver().take_stops().remove(0).stop;
    let source = include_str!("kernels/kernels.cu");
    let line = source.lines().position(|l| l.contains("x[i] = 1.0f")).unwrap() as u32 + 1;
    assert_eq!(stop.source(), Some(("kernels.cu", line)), "{stop}");
}

/// 16384 plus 16 products of 2^-12 is 16384 + 2^-8 in exact arithmetic, and a number of f32. An A100 keeps bits down to
/// 2^-10 when it aligns the products with the sum, so they vanish.
#[test]
fn a_thread_chooses_its_tensor_mode() {
    let setup = Setup::on(0);
    let kernel = setup.function("mma");
    let sum = |mode: TensorMode| {
        driver().with(
            |s| s.tensor = mode,
            || {
                let mut d = setup.stream.alloc_zeros::<f32>(128).unwrap();
                // Both halves 2^-12, both halves 1.
                let (a, b, c) = (0x0c00_0c00u32, 0x3c00_3c00u32, 16384.0f32);
                let mut launch = setup.stream.launch_builder(&kernel);
                launch.arg(&mut d).arg(&a).arg(&b).arg(&c);
                // SAFETY: the arguments are the kernel's, the buffer holds the 128 numbers that a warp writes.
                unsafe { launch.launch(shape(1, 32, 0)) }.unwrap();
                setup.stream.clone_dtoh(&d).unwrap()[0]
            },
        )
    };
    assert_eq!(sum(TensorMode::Exact), 16384.0 + 1.0 / 256.0);
    assert_eq!(sum(TensorMode::Sm80), 16384.0);
}

#[test]
fn seeds_are_per_thread() {
    driver();
    driver().with(
        |s| s.seed = 77,
        || {
            assert_eq!(driver().settings().seed, 77);
            std::thread::scope(|scope| {
                scope.spawn(|| assert_ne!(driver().settings().seed, 77));
            });
        },
    );
    assert_ne!(driver().settings().seed, 77);
}

#[test]
fn counters_are_in_the_report_when_wanted() {
    let setup = Setup::on(0);
    driver().take_launches();
    count(&setup).unwrap();
    driver().with(|s| s.counters = true, || count(&setup)).unwrap();
    let lines: Vec<_> = driver().take_launches().iter().map(|l| l.report.lines.len()).collect();
    assert_eq!(lines[0], 0);
    assert!(lines[1] > 0);
}

#[test]
fn launches_can_be_counted() {
    let setup = Setup::on(0);
    count(&setup).unwrap();
    let (result, launches) = driver().counted(|| count(&setup));
    result.unwrap();
    count(&setup).unwrap();
    let [launch] = &launches[..] else { panic!("{launches:?}") };
    assert_eq!((launch.entry.as_str(), launch.report.blocks), ("count", 2));
    // Two warps execute every instruction once.
    let executed: Vec<u64> = launch.report.lines.iter().map(|line| line.counts.executions).collect();
    assert!(executed.iter().all(|times| matches!(times, 0 | 2)) && executed.contains(&2), "{executed:?}");
    assert!(!driver().settings().counters);
}
