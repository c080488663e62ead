//! Every image through every assembler that a user's driver may hold.

use macula::kernel::{self, Kernel};

use crate::tools::{self, PTXAS_11_8, PTXAS_12_0, Run, Tool, Toolchain, Writes};
use crate::usage::Usage;

/// One GPU of each generation that the kernels have to fit: A100, RTX 30, RTX 40, H100, B200, RTX 50.
const GPUS: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

/// Registers that a kernel could do without below the bound of `__launch_bounds__`: other assembler versions than ours
/// compile these images on users' machines, and differ by a few.
const SPARE_REGISTERS: u32 = 12;

/// The most registers of a thread, if `min_blocks` blocks are to fit a multiprocessor.
fn register_cap(kernel: &Kernel) -> u32 {
    (65536 / (kernel.threads * kernel.min_blocks) / 8 * 8).min(255)
}

pub fn gpus(kernel: &Kernel) -> Vec<&'static str> {
    if kernel.exact { vec!["sm_90a"] } else { GPUS.to_vec() }
}

/// `fits_in(n)`: whether the kernel needs no stack when it is bounded to n registers. Assemblers spread out over what a bound
/// allows, so using all of it does not say that it is needed.
fn findings(kernel: &Kernel, gpu: &str, run: &Run, fits_in: impl Fn(u32) -> bool) -> Vec<String> {
    let place = format!("{} for {gpu}", kernel.name);
    let text = run.text.trim();
    if !run.ok {
        return vec![format!("{place}: refused:\n{text}")];
    }
    let Some(usage) = Usage::read(text) else { return vec![format!("{place}: no usage in:\n{text}")] };
    let mut findings = Vec::new();
    if usage.spill_bytes > 0 || usage.stack_bytes > 0 {
        findings
            .push(format!("{place}: {} bytes of stack, {} spilled", usage.stack_bytes, usage.spill_bytes));
    }
    let cap = register_cap(kernel);
    // What fits in fewer fits; under one bound alone the assembler may have bad luck.
    let bounds = [0, 4, 8, 12].map(|fewer| cap - SPARE_REGISTERS - fewer);
    if usage.registers + SPARE_REGISTERS > cap && !bounds.into_iter().any(fits_in) {
        findings.push(format!("{place}: {} registers, the launch bound allows {cap}", usage.registers));
    }
    for line in text.lines().filter(|line| line.contains("warning") || line.contains("Potential Performance"))
    {
        findings.push(format!("{place}: {line}"));
    }
    findings
}

/// Assembles for `gpu`, verbosely; `writes` says whether the machine code is kept.
pub fn assemble(ptxas: &Tool, tools: &Toolchain, kernel: &Kernel, gpu: &str, writes: Writes) -> Run {
    let ptx = kernel.ptx().unwrap();
    ptxas.run(&tools.cache(), &["-v", &format!("-arch={gpu}")], ptx.as_bytes(), writes)
}

/// Assembles for `gpu` with at most `registers`.
fn assemble_bounded(ptxas: &Tool, tools: &Toolchain, kernel: &Kernel, gpu: &str, registers: u32) -> Run {
    let ptx = kernel.ptx().unwrap().replacen("\n.maxntid ", &format!("\n.maxnreg {registers}\n.maxntid "), 1);
    ptxas.run(&tools.cache(), &["-v", &format!("-arch={gpu}")], ptx.as_bytes(), Writes::Dropped)
}

#[test]
fn every_entry_fits_every_gpu_without_spills() {
    let tools = Toolchain::read();
    tools::forget_old(&tools.cache());
    let Some(ptxas) = tools::needed("registers and spills", tools.ptxas()) else { return };
    let pairs: Vec<(&Kernel, &str)> = kernel::all()
        .iter()
        .flat_map(|kernel| gpus(kernel).into_iter().map(move |gpu| (kernel, gpu)))
        .collect();
    let found = tools::parallel(&pairs, |(kernel, gpu)| {
        let fits_in = |registers| {
            let run = assemble_bounded(&ptxas, &tools, kernel, gpu, registers);
            run.ok
                && Usage::read(&run.text)
                    .is_some_and(|usage| usage.stack_bytes == 0 && usage.spill_bytes == 0)
        };
        // sass.rs reads the machine code for that GPU: one assembly for both.
        let writes = if *gpu == gpus(kernel)[0] { Writes::Kept } else { Writes::Dropped };
        findings(kernel, gpu, &assemble(&ptxas, &tools, kernel, gpu, writes), fits_in)
    });
    tools::none_of(found.concat());
}

#[test]
fn assemblers_of_old_drivers_take_every_image() {
    let tools = Toolchain::read();
    for (release, wheels) in [("11.8", &PTXAS_11_8), ("12.0", &PTXAS_12_0)] {
        let Some(ptxas) = tools::needed(&format!("images with CUDA {release}"), tools.wheel(wheels)) else {
            continue;
        };
        // 11.8 is older than the instructions of sm_90a.
        let kernels: Vec<&Kernel> = kernel::all().iter().filter(|k| release != "11.8" || !k.exact).collect();
        let found = tools::parallel(&kernels, |kernel| {
            let run = assemble(&ptxas, &tools, kernel, gpus(kernel)[0], Writes::Dropped);
            if run.ok { None } else { Some(format!("{} with CUDA {release}:\n{}", kernel.name, run.text)) }
        });
        tools::none_of(found.into_iter().flatten().collect());
    }
}
