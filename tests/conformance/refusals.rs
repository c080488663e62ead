//! Ops of several inputs refuse memory that is not what they need: outputs over inputs, memory of another device.

use crate::common::cuda::{devices, with_scratch};
use macula::cudarc::driver::{CudaSlice, DevicePtr};
use macula::{Axial, AxialConfig, Content, Cpu, Cuda, Gsa, Tensor, View, ViewMut, axial, content, gsa};

const SHAPE: [usize; 5] = [1, 1, 4, 4, 8];
const TABLE: [usize; 3] = [1, 7, 8];
const AXES: axial::Axes = axial::Axes::Columns;

fn ones(gpu: &Cuda, count: usize) -> CudaSlice<f32> {
    gpu.stream().clone_htod(&vec![1.0; count]).unwrap()
}

/// An output where the values are.
fn over<'a>(gpu: &Cuda, values: &CudaSlice<f32>) -> ViewMut<'a, f32, 5> {
    let (ptr, _guard) = values.device_ptr(gpu.stream());
    // SAFETY: the memory lives to the end of the test; that both are the same is what is to be refused.
    unsafe { ViewMut::from_raw(ptr, values.len(), SHAPE).unwrap() }
}

#[test]
fn outputs_over_inputs() {
    let gpu = &devices()[0];
    let (q, k, v) = (ones(gpu, 128), ones(gpu, 128), ones(gpu, 128));
    let table = ones(gpu, 56);
    let map = |memory| View::new(memory, SHAPE).unwrap();
    let table = || View::new(&table, TABLE).unwrap();
    let refused = |text: Result<(), String>| {
        let text = text.unwrap_err();
        assert!(text.contains("`o` must be apart from `v` in memory"), "{text}");
    };

    let args = content::Forward { q: map(&q), k: map(&k), v: map(&v), o: over(gpu, &v), saved: None };
    let op = Content::default();
    let bytes = op.plan_fwd(&args.problem(), gpu.gpu()).unwrap().workspace_bytes;
    refused(with_scratch(gpu, bytes, |w| op.forward_into(gpu, args, w).map_err(|e| e.to_string())));

    let args = axial::Forward {
        q: map(&q),
        v: map(&v),
        columns: Some(table()),
        rows: None,
        affine: None,
        given: None,
        o: over(gpu, &v),
        y: None,
        batch: None,
    };
    let op = Axial::new(AxialConfig { axes: AXES, ..AxialConfig::default() }).unwrap();
    let bytes = op.plan_fwd(&args.problem(), gpu.gpu()).unwrap().workspace_bytes;
    refused(with_scratch(gpu, bytes, |w| op.forward_into(gpu, args, w).map_err(|e| e.to_string())));

    let args = gsa::Forward {
        q: map(&q),
        k: map(&k),
        v: map(&v),
        columns: table(),
        rows: table(),
        affine: None,
        given: None,
        o: over(gpu, &v),
        content: None,
        y: None,
        batch: None,
    };
    let op = Gsa::default();
    let bytes = op.plan_fwd(&args.problem(), gpu.gpu()).unwrap().workspace_bytes;
    refused(with_scratch(gpu, bytes, |w| op.forward_into(gpu, args, w).map_err(|e| e.to_string())));
}

/// Each input in turn is left on the host.
#[test]
fn memory_of_another_device() {
    let gpu = &devices()[0];
    let tensor = |is_there: bool| {
        let host = Tensor::from_vec(vec![1.0f32; 128], SHAPE).unwrap();
        if is_there { host.to(gpu).unwrap() } else { host }
    };
    let table = |is_there: bool| {
        let host = Tensor::from_vec(vec![1.0f32; 56], TABLE).unwrap();
        if is_there { host.to(gpu).unwrap() } else { host }
    };
    for (i, arg) in ["q", "k", "v", "columns", "rows"].into_iter().enumerate() {
        let (columns, rows) = (table(i != 3), table(i != 4));
        let parameters = gsa::Parameters { columns: &columns, rows: &rows, affine: None, given: None };
        let (q, k, v) = (tensor(i != 0), tensor(i != 1), tensor(i != 2));
        let text = Gsa::default().forward(gpu, &q, &k, &v, parameters).err().unwrap().to_string();
        assert_eq!(text, format!("gsa: `{arg}` must be device memory of this CUDA context, got host memory"));
    }
    for (i, arg) in ["q", "k", "v"].into_iter().enumerate() {
        let (q, k, v) = (tensor(i != 0), tensor(i != 1), tensor(i != 2));
        let text = Content::default().forward(gpu, &q, &k, &v).err().unwrap().to_string();
        assert_eq!(
            text,
            format!("content: `{arg}` must be device memory of this CUDA context, got host memory")
        );
    }
    for (i, arg) in ["q", "v", "columns", "rows"].into_iter().enumerate() {
        let (columns, rows) = (table(i != 2), table(i != 3));
        let parameters =
            axial::Parameters { columns: Some(&columns), rows: Some(&rows), affine: None, given: None };
        let text = Axial::default().forward(gpu, &tensor(i != 0), &tensor(i != 1), &parameters);
        let text = text.err().unwrap().to_string();
        assert_eq!(
            text,
            format!("axial: `{arg}` must be device memory of this CUDA context, got host memory")
        );
    }
    let there = tensor(true);
    let text = Content::default().forward(&Cpu::new(), &there, &there, &there).err().unwrap().to_string();
    assert_eq!(text, "content: `q` must be in host memory for the `Cpu` device, got device memory");
}
