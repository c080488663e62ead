//! Whole programs over cudarc's safe interface.

use crate::common::{Setup, driver, shape};
use cudarc::driver::{CudaContext, DeviceRepr, PushKernelArg};
use ptx_emulator_driver::ptx_emulator::Arch;

/// Mirrors `ScaleParams` in kernels.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct ScaleParams {
    out: u64,
    input: u64,
    scale: f32,
    n: i32,
    sign: i8,
}

// SAFETY: plain data of the kernel's layout.
unsafe impl DeviceRepr for ScaleParams {}

#[test]
fn vector_add() {
    let setup = Setup::on(0);
    let n = 1000;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let a_dev = setup.stream.clone_htod(&a).unwrap();
    let b_dev = setup.stream.clone_htod(&b).unwrap();
    let mut c_dev = setup.stream.alloc_zeros::<f32>(n).unwrap();
    let kernel = setup.function("vector_add");
    let count = n as u32;
    let mut launch = setup.stream.launch_builder(&kernel);
    launch.arg(&mut c_dev).arg(&a_dev).arg(&b_dev).arg(&count);
    // SAFETY: the arguments are the kernel's, the buffers hold `n` numbers.
    unsafe { launch.launch(shape(4, 256, 0)) }.unwrap();
    let c = setup.stream.clone_dtoh(&c_dev).unwrap();
    assert!((0..n).all(|i| c[i] == a[i] + b[i]));
}

#[test]
fn a_struct_by_value() {
    use cudarc::driver::{DevicePtr, DevicePtrMut};
    let setup = Setup::on(0);
    let input = setup.stream.clone_htod(&[1.0f32, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let mut out = setup.stream.alloc_zeros::<f32>(5).unwrap();
    {
        let (out, _wrote) = out.device_ptr_mut(&setup.stream);
        let (input, _read) = input.device_ptr(&setup.stream);
        let params = ScaleParams { out, input, scale: 2.0, n: 4, sign: -1 };
        let kernel = setup.function("scale");
        // SAFETY: the struct mirrors the kernel's, the buffers hold 5 numbers.
        unsafe { setup.stream.launch_builder(&kernel).arg(&params).launch(shape(1, 32, 0)) }.unwrap();
    }
    assert_eq!(setup.stream.clone_dtoh(&out).unwrap(), [-2.0, -4.0, -6.0, -8.0, 0.0]);
}

#[test]
fn more_than_48_kib_of_shared_memory_on_every_device() {
    use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_SHARED;
    for (ordinal, arch) in [Arch::Sm80, Arch::Sm86, Arch::Sm90].into_iter().enumerate() {
        let setup = Setup::on(ordinal);
        let most = arch.shared_per_block_optin();
        let kernel = setup.function("reverse");
        kernel.set_attribute(MAX_SHARED, most as i32).unwrap();
        let n = most / 4;
        let x: Vec<u32> = (0..n).collect();
        let mut x_dev = setup.stream.clone_htod(&x).unwrap();
        let mut launch = setup.stream.launch_builder(&kernel);
        launch.arg(&mut x_dev).arg(&n);
        // SAFETY: the arguments are the kernel's, shared memory holds `n` numbers.
        unsafe { launch.launch(shape(1, 256, most)) }.unwrap();
        assert!(setup.stream.clone_dtoh(&x_dev).unwrap().into_iter().eq((0..n).rev()), "{arch:?}");
    }
}

#[test]
fn three_devices_say_what_they_are() {
    driver();
    assert_eq!(CudaContext::device_count().unwrap(), 3);
    for (ordinal, name, capability) in [(0, "sm_80", (8, 0)), (1, "sm_86", (8, 6)), (2, "sm_90", (9, 0))] {
        let context = CudaContext::new(ordinal).unwrap();
        assert_eq!(context.name().unwrap(), format!("PTX emulator ({name})"));
        assert_eq!(context.compute_capability().unwrap(), capability);
        assert_eq!(context.total_mem().unwrap(), 4 << 30);
        assert_eq!(context.uuid().unwrap().bytes[15] as usize, ordinal);
    }
    assert_eq!(driver().devices(), [Arch::Sm80, Arch::Sm86, Arch::Sm90]);
}

#[test]
fn many_threads_share_a_device() {
    let setup = Setup::on(1);
    std::thread::scope(|scope| {
        for t in 0..8u32 {
            let setup = &setup;
            scope.spawn(move || {
                let stream = setup.context.new_stream().unwrap();
                let kernel = setup.function("add_one");
                let n = 100 + t;
                let mut x = stream.clone_htod(&vec![t as f32; n as usize]).unwrap();
                for _ in 0..5 {
                    let mut launch = stream.launch_builder(&kernel);
                    launch.arg(&mut x).arg(&n);
                    // SAFETY: the arguments are the kernel's, the buffer holds `n` numbers.
                    unsafe { launch.launch(shape(4, 32, 0)) }.unwrap();
                }
                assert_eq!(stream.clone_dtoh(&x).unwrap(), vec![t as f32 + 5.0; n as usize]);
                assert_eq!(driver().launches().len(), 5, "a thread sees its own launches");
            });
        }
    });
}

/// What cudarc does when several streams are alive: events around every use of a buffer.
#[test]
fn the_default_streams_work_beside_others() {
    let setup = Setup::on(0);
    for stream in
        [setup.context.default_stream(), setup.context.per_thread_stream(), setup.stream.fork().unwrap()]
    {
        let mut x = stream.clone_htod(&[1.0f32; 64]).unwrap();
        let kernel = setup.function("add_one");
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut x).arg(&64u32);
        // SAFETY: the arguments are the kernel's, the buffer holds 64 numbers.
        unsafe { launch.launch(shape(1, 64, 0)) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(setup.stream.clone_dtoh(&x).unwrap(), [2.0; 64]);
    }
}
