//! Runs every form on a device through the CUDA driver.

use super::file::{Recording, Vector};
use super::forms::{BLOCK, Form, Layout, ROWS, forms, module, module_of};
use super::values::{hash, inputs};
use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
};
use cudarc::driver::{CudaContext, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// Kernels that the driver compiles at once: many cost little more than one.
const AT_ONCE: usize = 100;

/// The recording of a device, and the forms that it refused, each with why.
pub fn record(ordinal: usize) -> Result<(Recording, Vec<String>), DriverError> {
    let context = CudaContext::new(ordinal)?;
    let stream = context.new_stream()?;
    let capability = (10 * context.attribute(MAJOR)? + context.attribute(MINOR)?).unsigned_abs();
    let device = context.name()?;
    let mut driver = 0;
    // SAFETY: the pointer is to a local variable.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut driver) }.result()?;
    let is_look_alike = device.starts_with(ptx_emulator_driver::DEVICE_NAME);
    let tensor = if is_look_alike { "exact" } else { "hardware" }.to_owned();
    let (mut vectors, mut refused) = (Vec::new(), Vec::new());
    let mut forms: Vec<Form> = forms().into_iter().filter(|form| form.target <= capability).collect();
    forms.sort_by(|a, b| (a.target, &a.version).cmp(&(b.target, &b.version)));
    for alike in forms.chunk_by(|a, b| (a.target, &a.version) == (b.target, &b.version)) {
        for some in alike.chunks(AT_ONCE) {
            let together: Vec<&Form> = some.iter().collect();
            let text = module(&together, &some[0].version, &format!("sm_{}", some[0].target));
            let loaded = context.load_module(Ptx::from_src(text)).ok();
            for (k, form) in some.iter().enumerate() {
                let module = match &loaded {
                    Some(module) => Ok((module.clone(), format!("v{k}"))),
                    // One of them is refused: which?
                    None => context.load_module(Ptx::from_src(module_of(form))).map(|m| (m, "v0".to_owned())),
                };
                match module.and_then(|(module, name)| run(&module, &name, &stream, form)) {
                    Ok(results) => {
                        vectors.push(Vector { name: form.name.clone(), hash: hash_of(form), results })
                    }
                    Err(error) => refused.push(format!("{}: {error}", form.name)),
                }
            }
        }
    }
    Ok((Recording { device, driver, capability, tensor, vectors }, refused))
}

/// Of everything that a form's results follow from.
pub fn hash_of(form: &Form) -> u64 {
    hash(module_of(form).as_bytes()) ^ hash(&inputs(form)).rotate_left(1)
}

/// Only what was stored as results, without gaps.
pub fn packed(layout: &Layout, rows: &[u8]) -> Vec<u8> {
    rows.chunks_exact(layout.row_out)
        .flat_map(|row| layout.results.iter().map(move |(kind, at, _)| &row[*at..at + kind.bytes()]))
        .flatten()
        .copied()
        .collect()
}

fn run(
    module: &Arc<CudaModule>,
    name: &str,
    stream: &Arc<CudaStream>,
    form: &Form,
) -> Result<Vec<u8>, DriverError> {
    let layout = Layout::of(form);
    let function = module.load_function(name)?;
    let input = stream.clone_htod(&inputs(form))?;
    let mut output = stream.alloc_zeros::<u8>(ROWS * layout.row_out)?;
    let shape = LaunchConfig {
        grid_dim: ((ROWS / BLOCK) as u32, 1, 1),
        block_dim: (BLOCK as u32, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the kernel takes two pointers; the buffers hold a row for every thread.
    unsafe { stream.launch_builder(&function).arg(&input).arg(&mut output).launch(shape) }?;
    let rows = stream.clone_dtoh(&output)?;
    stream.synchronize()?;
    Ok(packed(&layout, &rows))
}
