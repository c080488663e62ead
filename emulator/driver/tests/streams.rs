//! Streams and events.

use crate::common::{Setup, code, elapsed, shape};
use cudarc::driver::sys::{self, CUevent_flags, CUresult};
use cudarc::driver::{PushKernelArg, result};
use std::ffi::c_void;

#[test]
fn a_second_stream_waits_for_an_event() {
    let setup = Setup::on(0);
    let other = setup.context.new_stream().unwrap();
    let kernel = setup.function("add_one");
    let mut x = setup.stream.clone_htod(&[1.0f32; 32]).unwrap();
    for stream in [&setup.stream, &other] {
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut x).arg(&32u32);
        // SAFETY: the arguments are the kernel's, the buffer holds 32 numbers.
        unsafe { launch.launch(shape(1, 32, 0)) }.unwrap();
        let done = stream.record_event(None).unwrap();
        setup.stream.wait(&done).unwrap();
        other.wait(&done).unwrap();
    }
    other.join(&setup.stream).unwrap();
    assert_eq!(other.clone_dtoh(&x).unwrap(), [3.0; 32]);
}

#[test]
fn events_tell_how_long_something_took() {
    let setup = Setup::on(0);
    let timed = || setup.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    let kernel = setup.function("add_one");
    let mut x = setup.stream.alloc_zeros::<f32>(4096).unwrap();
    let start = timed();
    let mut launch = setup.stream.launch_builder(&kernel);
    launch.arg(&mut x).arg(&4096u32);
    // SAFETY: the arguments are the kernel's, the buffer holds 4096 numbers.
    unsafe { launch.launch(shape(32, 128, 0)) }.unwrap();
    let end = timed();
    assert!(start.is_complete() && end.is_complete());
    let (start, end) = (start.cu_event(), end.cu_event());
    let took = elapsed(start, end).unwrap();
    assert!(took > 0.0 && took < 10_000.0, "{took} ms");
    assert_eq!(elapsed(end, start), Ok(-took));

    let untimed = setup.stream.record_event(None).unwrap();
    assert_eq!(
        elapsed(start, untimed.cu_event()),
        Err(CUresult::CUDA_ERROR_INVALID_HANDLE),
        "made without timing"
    );
    let never = setup.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    assert_eq!(elapsed(start, never.cu_event()), Err(CUresult::CUDA_ERROR_INVALID_HANDLE), "never recorded");
}

#[test]
fn an_event_belongs_to_its_context() {
    let (one, other) = (Setup::on(0), Setup::on(1));
    let event = one.context.new_event(None).unwrap();
    // SAFETY: event and stream are alive.
    let recorded = unsafe { result::event::record(event.cu_event(), other.stream.cu_stream()) };
    assert_eq!(code(recorded), CUresult::CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn handles_are_dead_after_their_end() {
    let setup = Setup::on(0);
    setup.context.bind_to_thread().unwrap();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    let event = result::event::create(CUevent_flags::CU_EVENT_DEFAULT).unwrap();
    // SAFETY: the driver finds out that the handles are dead.
    unsafe {
        result::stream::synchronize(stream).unwrap();
        result::stream::destroy(stream).unwrap();
        assert_eq!(code(result::stream::synchronize(stream)), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(code(result::stream::destroy(stream)), CUresult::CUDA_ERROR_INVALID_HANDLE);
        result::event::destroy(event).unwrap();
        assert_eq!(code(result::event::query(event)), CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn priorities_are_kept_in_range() {
    let setup = Setup::on(0);
    setup.context.bind_to_thread().unwrap();
    let (least, greatest) = result::stream::get_priority_range().unwrap();
    assert!(greatest < least);
    let kind = result::stream::StreamKind::Default;
    let stream = result::stream::create_with_priority(kind, greatest - 100).unwrap();
    let mut priority = 0;
    // SAFETY: the stream is alive; the pointer is to a local variable.
    unsafe {
        assert_eq!(sys::cuStreamGetPriority(stream, &mut priority), CUresult::CUDA_SUCCESS);
        result::stream::destroy(stream).unwrap();
    }
    assert_eq!(priority, greatest);
}

#[test]
fn host_functions_run_in_their_turn() {
    let setup = Setup::on(0);
    setup.context.bind_to_thread().unwrap();
    unsafe extern "C" fn count(counter: *mut c_void) {
        // SAFETY: the test passes a pointer to its counter and waits.
        unsafe { *counter.cast::<u32>() += 1 };
    }
    let mut counter = 0u32;
    // SAFETY: the counter lives until the stream is idle.
    unsafe {
        let argument = (&raw mut counter).cast();
        result::stream::launch_host_function(setup.stream.cu_stream(), count, argument).unwrap();
    }
    setup.stream.synchronize().unwrap();
    assert_eq!(counter, 1);
}
