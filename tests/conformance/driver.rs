//! The device layer through the driver: refusals, streams, graphs.

use crate::common::cuda::{devices, look_alike};
use crate::common::random;
use macula::gaussian::Forward;
use macula::{Cpu, Cuda, Gaussian, Tensor, View, ViewMut, Workspace};

const SHAPE: [usize; 5] = [1, 1, 6, 6, 8];

fn tensor() -> Tensor<f32, 5> {
    Tensor::from_vec(random::<f32>(1, SHAPE.iter().product(), 1.0), SHAPE).unwrap()
}

fn radius() -> Tensor<f32, 1> {
    Tensor::from_vec(vec![1.5], [1]).unwrap()
}

#[test]
fn owned_tensors_travel_and_compute() {
    let gpu = &devices()[0];
    let op = Gaussian::default();
    let here = op.forward(&Cpu::new(), &tensor(), &radius()).unwrap().to_vec().unwrap();
    let (v, sigma) = (tensor().to(gpu).unwrap(), radius().to(gpu).unwrap());
    let there = op.forward(gpu, &v, &sigma).unwrap().to(&Cpu::new()).unwrap().to_vec().unwrap();
    for (here, there) in here.iter().zip(&there) {
        approx::assert_relative_eq!(*here, *there, max_relative = 1e-5, epsilon = 1e-6);
    }
}

#[test]
fn no_such_device_is_an_error() {
    look_alike();
    let text = Cuda::new(97).err().unwrap().to_string();
    assert!(text.starts_with("CUDA device: opening device 97: CUDA_ERROR_INVALID_DEVICE"), "{text}");
}

#[test]
fn memory_of_the_wrong_kind_is_refused() {
    let gpus = devices();
    let op = Gaussian::default();
    let (v, sigma) = (tensor(), radius());
    let text = op.forward(&gpus[0], &v, &sigma).err().unwrap().to_string();
    assert_eq!(text, "gaussian: `v` must be device memory of this CUDA context, got host memory");
    let there = v.to(&gpus[0]).unwrap();
    let text = op.forward(&Cpu::new(), &there, &sigma).err().unwrap().to_string();
    assert_eq!(text, "gaussian: `v` must be in host memory for the `Cpu` device, got device memory");
    if let Some(other) = gpus.get(1) {
        let text = op.forward(other, &there, &sigma.to(other).unwrap()).err().unwrap().to_string();
        assert_eq!(
            text,
            "gaussian: `v` must be device memory of this CUDA context, got memory of another CUDA context"
        );
        let text = gpus[0].with_stream(other.stream()).err().unwrap().to_string();
        assert_eq!(text, "CUDA device: the stream belongs to another context than the device");
    }
}

#[test]
fn outputs_over_inputs_are_refused() {
    let gpu = &devices()[0];
    let v = gpu.stream().clone_htod(&tensor().to_vec().unwrap()).unwrap();
    let sigma = gpu.stream().clone_htod(&[1.5f32]).unwrap();
    use macula::cudarc::driver::DevicePtr;
    let (ptr, _guard) = v.device_ptr(gpu.stream());
    let count = SHAPE.iter().product();
    // SAFETY: the memory lives to the end of the test; that both are the same is what is to be refused.
    let args = unsafe {
        Forward {
            v: View::<f32, 5>::from_raw(ptr, count, SHAPE).unwrap(),
            sigma: View::new(&sigma, [1]).unwrap(),
            o: ViewMut::from_raw(ptr, count, SHAPE).unwrap(),
        }
    };
    let text = Gaussian::default().forward_into(gpu, args, Workspace::none()).err().unwrap().to_string();
    assert!(text.contains("`o` must be apart from `v` in memory") || text.contains("workspace"), "{text}");
}

#[test]
fn misaligned_pointers_are_refused() {
    // SAFETY: refused before anything is read.
    let text = unsafe { View::<f32, 1>::from_raw(1026, 8, [8]) }.err().unwrap().to_string();
    assert_eq!(text, "view: `ptr` must be a multiple of 4 (the element's size), got 0x402");
}

#[test]
fn one_set_of_modules_per_context_and_preload_loads_all() {
    let gpu = &devices()[0];
    gpu.preload_matching(|name| name.ends_with("f32")).unwrap();
    let again = Cuda::from_context(gpu.stream().context()).unwrap();
    assert_eq!(again.gpu(), gpu.gpu());
}

#[test]
fn a_captured_graph_replays() {
    use macula::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
    let context = macula::cudarc::driver::CudaContext::new(match look_alike() {
        Some(_) => 2,
        None => 0,
    })
    .unwrap();
    let stream = context.new_stream().unwrap();
    // SAFETY: every slice of this test is used on this one stream.
    unsafe { context.disable_event_tracking() };
    let gpu = Cuda::from_context(&context).unwrap().with_stream(&stream).unwrap();
    gpu.preload_matching(|name| name.starts_with("gaussian_fwd") && name.ends_with("f32")).unwrap();
    let data = tensor().to_vec().unwrap();
    let mut v = stream.clone_htod(&data).unwrap();
    let sigma = stream.clone_htod(&[1.5f32]).unwrap();
    let mut o = stream.alloc_zeros::<f32>(data.len()).unwrap();
    let op = Gaussian::default();
    let bytes = op.forward_workspace_bytes(&gpu, SHAPE, macula::DType::F32).unwrap();
    let mut scratch = stream.alloc_zeros::<u8>(bytes.max(1)).unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    let args = Forward {
        v: View::new(&v, SHAPE).unwrap(),
        sigma: View::new(&sigma, [1]).unwrap(),
        o: ViewMut::new(&mut o, SHAPE).unwrap(),
    };
    op.forward_into(&gpu, args, Workspace::new(&mut scratch)).unwrap();
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert!(stream.clone_dtoh(&o).unwrap().iter().all(|x| *x == 0.0), "capture must not compute");
    graph.launch().unwrap();
    let first = stream.clone_dtoh(&o).unwrap();
    let flipped: Vec<f32> = data.iter().map(|x| -x).collect();
    stream.memcpy_htod(&flipped, &mut v).unwrap();
    graph.launch().unwrap();
    let second = stream.clone_dtoh(&o).unwrap();
    assert!(first.iter().any(|x| *x != 0.0));
    assert!(first.iter().zip(&second).all(|(a, b)| *a == -b));
}
