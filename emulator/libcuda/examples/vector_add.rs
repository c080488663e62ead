//! A CUDA program that knows nothing of emulators: it adds two vectors on whatever driver it finds.
//!
//! ```sh
//! cargo build -p ptx-emulator-libcuda --example vector_add
//! emulator/libcuda/run.sh target/debug/examples/vector_add
//! ```

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::error::Error;

/// `c[i] = a[i] + b[i]` for `i < n`, as nvcc would compile it.
const PTX: &str = "
.version 7.8
.target sm_80
.address_size 64

.visible .entry vector_add(.param .u64 c, .param .u64 a, .param .u64 b, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .f32 %f<4>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<11>;

    ld.param.u64 %rd1, [c];
    ld.param.u64 %rd2, [a];
    ld.param.u64 %rd3, [b];
    ld.param.u32 %r2, [n];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r1, 4;
    add.s64 %rd6, %rd4, %rd5;
    ld.global.f32 %f1, [%rd6];
    cvta.to.global.u64 %rd7, %rd3;
    add.s64 %rd8, %rd7, %rd5;
    ld.global.f32 %f2, [%rd8];
    add.f32 %f3, %f1, %f2;
    cvta.to.global.u64 %rd9, %rd1;
    add.s64 %rd10, %rd9, %rd5;
    st.global.f32 [%rd10], %f3;
DONE:
    ret;
}
";

/// Runs the program.
pub fn main() -> Result<(), Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = context.load_module(Ptx::from_src(PTX))?.load_function("vector_add")?;

    let n = 1000u32;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 1000.0 - i as f32).collect();
    let (a, b) = (stream.clone_htod(&a)?, stream.clone_htod(&b)?);
    let mut c = stream.alloc_zeros::<f32>(n as usize)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut c).arg(&a).arg(&b).arg(&n);
    let shape =
        LaunchConfig { grid_dim: (n.div_ceil(256), 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are the kernel's, in its order, and every buffer holds `n` numbers.
    unsafe { launch.launch(shape) }?;
    let c = stream.clone_dtoh(&c)?;

    let right = c.iter().filter(|c| **c == 1000.0).count();
    println!("{} of {n} sums are right on {}", right, context.name()?);
    if right == n as usize { Ok(()) } else { Err("wrong sums".into()) }
}
