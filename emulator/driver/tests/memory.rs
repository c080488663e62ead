//! Memory.

use crate::common::{Setup, code, driver, shape};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, DevicePtr, PushKernelArg, result};
use std::mem::MaybeUninit;

#[test]
fn copies_go_round() {
    let setup = Setup::on(0);
    let stream = &setup.stream;
    let x: Vec<u16> = (0..777).collect();
    let a = stream.clone_htod(&x).unwrap();
    let mut b = stream.alloc_zeros::<u16>(777).unwrap();
    stream.memcpy_dtod(&a, &mut b).unwrap();
    assert_eq!(stream.clone_dtoh(&b).unwrap(), x);
    let mut back = vec![0u16; 10];
    stream.memcpy_dtoh(&b.slice(700..710), &mut back).unwrap();
    assert_eq!(back, x[700..710]);
}

#[test]
fn copies_go_from_device_to_device() {
    let (one, other) = (Setup::on(0), Setup::on(2));
    let a = one.stream.clone_htod(&[1u8, 2, 3]).unwrap();
    let b = other.stream.clone_dtod(&a).unwrap();
    assert_eq!(other.stream.clone_dtoh(&b).unwrap(), [1, 2, 3]);
}

#[test]
fn fills_of_every_width() {
    let setup = Setup::on(0);
    setup.context.bind_to_thread().unwrap();
    let x = setup.stream.alloc_zeros::<u8>(16).unwrap();
    let (at, _guard) = x.device_ptr(&setup.stream);
    // SAFETY: 16 bytes are there.
    unsafe {
        assert_eq!(sys::cuMemsetD8_v2(at, 1, 4), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemsetD16_v2(at + 4, 0x0302, 2), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemsetD32_v2(at + 8, 0x0706_0504, 2), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemsetD32_v2(at + 2, 0, 1), CUresult::CUDA_ERROR_INVALID_VALUE, "alignment");
        assert_eq!(sys::cuMemsetD8_v2(at, 0, 17), CUresult::CUDA_ERROR_INVALID_VALUE, "length");
        assert_eq!(sys::cuMemsetD8_v2(at, 0, 0), CUresult::CUDA_SUCCESS, "nothing");
    }
    assert_eq!(setup.stream.clone_dtoh(&x).unwrap(), [1, 1, 1, 1, 2, 3, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]);
}

#[test]
fn freed_memory_is_not_used_again() {
    let setup = Setup::on(0);
    let kernel = setup.function("add_one");
    let x = setup.stream.alloc_zeros::<f32>(32).unwrap();
    let (at, _) = x.device_ptr(&setup.stream);
    drop(x);
    let mut back = [0.0f32; 32];
    setup.context.bind_to_thread().unwrap();
    // SAFETY: the host buffer is as long as the copy; that the device's is gone is what is tested.
    let copied = unsafe { result::memcpy_dtoh_sync(&mut back, at) };
    assert_eq!(code(copied), CUresult::CUDA_ERROR_INVALID_VALUE);
    let mut launch = setup.stream.launch_builder(&kernel);
    launch.arg(&at).arg(&32u32);
    // SAFETY: the arguments are the kernel's; that the buffer is gone is what is tested.
    let launched = unsafe { launch.launch(shape(1, 32, 0)) };
    assert_eq!(code(launched), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(driver().take_stops().len(), 1);
    // SAFETY: the driver finds out that the memory is freed already.
    assert_eq!(code(unsafe { result::free_sync(at) }), CUresult::CUDA_ERROR_INVALID_VALUE, "twice");
}

#[test]
fn the_first_byte_behind_an_allocation_is_no_ones() {
    let setup = Setup::on(0);
    let x = setup.stream.alloc_zeros::<u8>(10).unwrap();
    let (at, _guard) = x.device_ptr(&setup.stream);
    let mut back = [0u8; 11];
    setup.context.bind_to_thread().unwrap();
    // SAFETY: the host buffer is as long as the copy; that the device's is shorter is what is tested.
    assert_eq!(code(unsafe { result::memcpy_dtoh_sync(&mut back, at) }), CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_kernel_cannot_reach_another_devices_memory() {
    let (one, other) = (Setup::on(0), Setup::on(1));
    let x = other.stream.alloc_zeros::<f32>(32).unwrap();
    let (at, _guard) = x.device_ptr(&other.stream);
    let kernel = one.function("add_one");
    let mut launch = one.stream.launch_builder(&kernel);
    launch.arg(&at).arg(&32u32);
    // SAFETY: the arguments are the kernel's; that the buffer is of another device is what is tested.
    let launched = driver().with(|s| s.print = false, || unsafe { launch.launch(shape(1, 32, 0)) });
    assert_eq!(code(launched), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn memory_runs_out() {
    driver();
    let context = CudaContext::new(1).unwrap();
    let (free, total) = context.mem_get_info().unwrap();
    assert!(free <= total && total == 4 << 30);
    // SAFETY: nothing is read.
    let too_much = unsafe { context.default_stream().alloc::<u8>(total + 1) };
    assert_eq!(code(too_much), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    // SAFETY: nothing is read.
    assert_eq!(code(unsafe { result::malloc_sync(0) }), CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn pinned_host_memory() {
    let setup = Setup::on(0);
    // SAFETY: the memory is written before it is read.
    let mut pinned = unsafe { setup.context.alloc_pinned::<u32>(64) }.unwrap();
    pinned.as_mut_slice().unwrap().iter_mut().enumerate().for_each(|(i, x)| *x = i as u32);
    let x = setup.stream.clone_htod(&pinned).unwrap();
    assert!(setup.stream.clone_dtoh(&x).unwrap().into_iter().eq(0..64));

    setup.context.bind_to_thread().unwrap();
    let mut own = vec![0u8; 100];
    let at = own.as_mut_ptr().cast();
    // SAFETY: the memory outlives its registration.
    unsafe {
        assert_eq!(sys::cuMemHostRegister_v2(at, 100, 0), CUresult::CUDA_SUCCESS);
        let again = sys::cuMemHostRegister_v2(at, 10, 0);
        assert_eq!(again, CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        assert_eq!(sys::cuMemHostUnregister(at), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemHostUnregister(at), CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    }
}

#[test]
fn an_address_tells_what_it_is() {
    use sys::CUpointer_attribute as Attribute;
    let setup = Setup::on(1);
    setup.context.bind_to_thread().unwrap();
    let x = setup.stream.alloc_zeros::<u8>(100).unwrap();
    let (at, _guard) = x.device_ptr(&setup.stream);
    fn ask<T>(attribute: sys::CUpointer_attribute, at: u64) -> Result<T, CUresult> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: each caller names the attribute's type, and success means that it was written.
        match unsafe { sys::cuPointerGetAttribute(value.as_mut_ptr().cast(), attribute, at) } {
            CUresult::CUDA_SUCCESS => Ok(unsafe { value.assume_init() }),
            error => Err(error),
        }
    }
    let start = ask::<u64>(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, at + 7);
    assert_eq!(start, Ok(at));
    assert_eq!(ask::<usize>(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE, at), Ok(100));
    assert_eq!(ask::<i32>(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at), Ok(1));
    assert_eq!(ask::<u32>(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at), Ok(2));
    let context = ask::<sys::CUcontext>(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT, at);
    assert_eq!(context, Ok(setup.context.cu_ctx()));
    let nobodys = &raw const start as u64;
    let unknown = ask::<u32>(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, nobodys);
    assert_eq!(unknown, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
}

/// The last release of a primary context ends all that is in it. No other test may use this one's device meanwhile, so
/// it runs in a process of its own.
#[test]
fn a_released_context_leaves_nothing_behind() {
    crate::process::in_child("memory::a_released_context_leaves_nothing_behind", &[], || {
        let setup = Setup::on(2);
        let x = setup.stream.alloc_zeros::<u8>(1000).unwrap();
        let leaked = x.leak();
        let stream = result::stream::create(result::stream::StreamKind::Default).unwrap();
        assert_eq!(driver().used_bytes(2), 1000);
        drop(setup);
        assert_eq!(driver().used_bytes(2), 0);
        // SAFETY: the driver finds out that context and memory are gone.
        assert_eq!(code(unsafe { result::free_sync(leaked) }), CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED);
        let again = Setup::on(2);
        again.context.bind_to_thread().unwrap();
        // SAFETY: the driver finds out that the stream ended with its context.
        assert_eq!(code(unsafe { result::stream::synchronize(stream) }), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(again.stream.clone_dtoh(&again.stream.clone_htod(&[5u8]).unwrap()).unwrap(), [5]);
    });
}
