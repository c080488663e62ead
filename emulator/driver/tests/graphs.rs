//! Capture and graphs.

use crate::common::{Setup, code, driver, shape};
use cudarc::driver::sys::{
    self, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, PushKernelArg, result};
use std::ffi::c_void;

const THREAD: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const FLAGS: CUgraphInstantiate_flags = CUgraphInstantiate_flags(0);

/// A setup whose buffers carry no events, as cudarc wants it for captures.
fn setup() -> Setup {
    let setup = Setup::on(0);
    // SAFETY: each test uses its buffers from streams that it orders itself.
    unsafe { setup.context.disable_event_tracking() };
    setup
}

fn add_one(stream: &CudaStream, kernel: &CudaFunction, x: &mut CudaSlice<f32>) -> Result<(), DriverError> {
    let n = x.len() as u32;
    let mut launch = stream.launch_builder(kernel);
    launch.arg(x).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(shape(1, 64, 0)) }.map(|_| ())
}

#[test]
fn a_captured_sequence_replays() {
    let Setup { stream, module, .. } = setup();
    let kernel = module.load_function("add_one").unwrap();
    let mut x = stream.clone_htod(&[5.0f32; 64]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();
    driver().take_launches();

    stream.begin_capture(THREAD).unwrap();
    stream.memset_zeros(&mut x).unwrap();
    add_one(&stream, &kernel, &mut x).unwrap();
    add_one(&stream, &kernel, &mut x).unwrap();
    stream.memcpy_dtod(&x, &mut y).unwrap();
    add_one(&stream, &kernel, &mut y).unwrap();
    let graph = stream.end_capture(FLAGS).unwrap().expect("a graph");

    assert!(driver().launches().is_empty(), "capture executes nothing");
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [5.0; 64]);
    for replay in 1..=3 {
        graph.upload().unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [2.0; 64]);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [3.0; 64]);
        assert_eq!(driver().launches().len(), 3 * replay);
        stream.memcpy_htod(&[9.0f32; 64], &mut x).unwrap();
    }
}

#[test]
fn nodes_have_types() {
    let Setup { stream, module, .. } = setup();
    let kernel = module.load_function("add_one").unwrap();
    let mut x = stream.clone_htod(&[5.0f32; 64]).unwrap();
    stream.begin_capture(THREAD).unwrap();
    stream.memset_zeros(&mut x).unwrap();
    add_one(&stream, &kernel, &mut x).unwrap();
    let graph = stream.end_capture(FLAGS).unwrap().expect("a graph");
    let (mut count, mut nodes) = (0usize, [std::ptr::null_mut(); 4]);
    // SAFETY: the graph is alive, `count` says how long the array is.
    unsafe {
        let first = sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut count);
        assert_eq!((first, count), (CUresult::CUDA_SUCCESS, 2));
        assert_eq!(
            sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &mut count),
            CUresult::CUDA_SUCCESS
        );
        for (node, wanted) in [
            (nodes[0], sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET),
            (nodes[1], sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL),
        ] {
            let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            assert_eq!(sys::cuGraphNodeGetType(node, &mut kind), CUresult::CUDA_SUCCESS);
            assert_eq!(kind, wanted);
        }
    }
}

#[test]
fn a_second_stream_joins_through_events() {
    let Setup { context, stream, module } = setup();
    let other = context.new_stream().unwrap();
    let kernel = module.load_function("add_one").unwrap();
    let mut x = stream.clone_htod(&[0.0f32; 64]).unwrap();
    stream.begin_capture(THREAD).unwrap();
    add_one(&stream, &kernel, &mut x).unwrap();
    other.join(&stream).unwrap();
    add_one(&other, &kernel, &mut x).unwrap();
    stream.join(&other).unwrap();
    let graph = stream.end_capture(FLAGS).unwrap().expect("a graph");
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [4.0; 64]);
}

#[test]
fn work_that_nobody_joins_is_an_error() {
    let Setup { context, stream, module } = setup();
    let other = context.new_stream().unwrap();
    let kernel = module.load_function("add_one").unwrap();
    let mut x = stream.clone_htod(&[0.0f32; 64]).unwrap();
    stream.begin_capture(THREAD).unwrap();
    add_one(&stream, &kernel, &mut x).unwrap();
    other.join(&stream).unwrap();
    add_one(&other, &kernel, &mut x).unwrap();
    assert_eq!(code(stream.end_capture(FLAGS)), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    add_one(&other, &kernel, &mut x).expect("the capture is over for the other stream too");
}

/// What a capture forbids breaks it, and the stream works again after its end.
fn breaks(forbidden: impl FnOnce(&Setup) -> CUresult, wanted: CUresult) {
    let setup = setup();
    setup.stream.begin_capture(THREAD).unwrap();
    let status = || setup.stream.capture_status().unwrap();
    assert_eq!(status(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_eq!(forbidden(&setup), wanted);
    assert_eq!(status(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    // SAFETY: nothing is called.
    let work = unsafe {
        result::stream::launch_host_function(setup.stream.cu_stream(), never, std::ptr::null_mut())
    };
    assert_eq!(code(work), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    let end = code(setup.stream.end_capture(FLAGS));
    assert_eq!(end, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(status(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
    setup.stream.synchronize().unwrap();
}

unsafe extern "C" fn never(_: *mut c_void) {
    unreachable!("a broken capture executes nothing");
}

#[test]
fn an_impossible_launch_is_refused_when_it_is_captured() {
    let Setup { stream, module, .. } = setup();
    let kernel = module.load_function("rotate").unwrap();
    let mut x = stream.alloc_zeros::<u32>(256).unwrap();
    stream.begin_capture(THREAD).unwrap();
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut x);
    // SAFETY: the argument is the kernel's.
    assert_eq!(code(unsafe { launch.launch(shape(1, 257, 0)) }), CUresult::CUDA_ERROR_INVALID_VALUE);
    stream.end_capture(FLAGS).unwrap();
}

#[test]
fn waiting_for_a_capturing_stream_is_an_error() {
    breaks(|s| code(s.stream.synchronize()), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

#[test]
fn allocating_during_a_capture_is_an_error() {
    let unsupported = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    breaks(|s| code(s.stream.alloc_zeros::<u8>(1)), unsupported);
    // SAFETY: nothing is allocated.
    breaks(|_| code(unsafe { cudarc::driver::result::malloc_sync(1) }), unsupported);
}

#[test]
fn work_from_before_a_capture_cannot_be_waited_for_in_it() {
    let Setup { context, stream, .. } = setup();
    let other = context.new_stream().unwrap();
    let before = other.record_event(None).unwrap();
    stream.begin_capture(THREAD).unwrap();
    assert_eq!(code(stream.wait(&before)), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_eq!(code(stream.end_capture(FLAGS)), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

#[test]
fn an_event_of_a_capture_cannot_be_asked() {
    let Setup { stream, .. } = setup();
    stream.begin_capture(THREAD).unwrap();
    let inside = stream.record_event(None).unwrap();
    assert_eq!(code(inside.synchronize()), CUresult::CUDA_ERROR_CAPTURED_EVENT);
    stream.end_capture(FLAGS).unwrap();
}

#[test]
fn the_legacy_stream_cannot_be_captured_nor_used_beside_a_blocking_capture() {
    crate::process::in_child(
        "graphs::the_legacy_stream_cannot_be_captured_nor_used_beside_a_blocking_capture",
        &[],
        || {
            driver();
            let context = CudaContext::new(0).unwrap();
            let legacy = context.default_stream();
            assert_eq!(code(legacy.begin_capture(THREAD)), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            let own = context.per_thread_stream();
            let mut x = own.alloc_zeros::<u8>(4).unwrap();
            own.begin_capture(THREAD).unwrap();
            let used = legacy.memset_zeros(&mut x);
            assert_eq!(code(used), CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
            assert_eq!(code(own.end_capture(FLAGS)), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        },
    );
}

#[test]
fn captures_do_not_nest_and_end_where_they_began() {
    let Setup { context, stream, .. } = setup();
    assert_eq!(code(stream.end_capture(FLAGS)), CUresult::CUDA_ERROR_ILLEGAL_STATE);
    stream.begin_capture(THREAD).unwrap();
    assert_eq!(code(stream.begin_capture(THREAD)), CUresult::CUDA_ERROR_ILLEGAL_STATE);
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| code(stream.end_capture(FLAGS)));
        assert_eq!(elsewhere.join().unwrap(), CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    });
    let other = context.new_stream().unwrap();
    other.join(&stream).unwrap();
    assert_eq!(code(other.end_capture(FLAGS)), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    assert_eq!(code(stream.end_capture(FLAGS)), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

#[test]
fn a_graph_reads_host_memory_when_it_is_launched() {
    let Setup { stream, .. } = setup();
    let mut x = stream.alloc_zeros::<u32>(4).unwrap();
    let source = Box::leak(Box::new([1u32; 4]));
    let at: *mut [u32; 4] = source;
    stream.begin_capture(THREAD).unwrap();
    stream.memcpy_htod(&source[..], &mut x).unwrap();
    let graph = stream.end_capture(FLAGS).unwrap().expect("a graph");
    // SAFETY: the memory was leaked for this test, and nothing else uses it now.
    unsafe { at.write([2; 4]) };
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [2; 4]);
}
