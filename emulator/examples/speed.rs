//! Nanoseconds per warp instruction, by class: `cargo run --release --example speed [--checks] [--counters]`.
//!
//! One warp on one thread executes an unrolled run of each instruction; the loop around it is measured too and subtracted.

use std::time::Instant;

use ptx_emulator::{Arch, Config, Dims, Machine, TensorMode};

/// Copies of an instruction in the loop.
const COPIES: usize = 64;
/// Nanoseconds that a run may take, so that a busy machine leaves some runs alone, and runs of which the fastest counts.
const RUN_NS: f64 = 4e5;
const RUNS: usize = 40;

/// What is measured, as PTX text. Integer registers `%r0` … `%r15` hold small numbers, `%f0` … `%f7` numbers near 1,
/// `%h0` … `%h3` and the halves of `%x0` … `%x7` 16-bit floats near 1, `%s` a shared and `%g` a global address for the lane.
const INSTRUCTIONS: [(&str, &str); 44] = [
    ("add.s32", "add.s32 %r0, %r1, %r2;"),
    ("mad.lo.s32", "mad.lo.s32 %r0, %r1, %r2, %r3;"),
    ("mul.wide.s32", "mul.wide.s32 %d0, %r1, %r2;"),
    ("add.s64", "add.s64 %d0, %d1, %d2;"),
    ("and.b32", "and.b32 %r0, %r1, %r2;"),
    ("lop3.b32", "lop3.b32 %r0, %r1, %r2, %r3, 0x96;"),
    ("shl.b32", "shl.b32 %r0, %r1, %r2;"),
    ("setp.lt.s32", "setp.lt.s32 %p1, %r1, %r2;"),
    ("selp.b32", "selp.b32 %r0, %r1, %r2, %p0;"),
    ("add.s32, predicated", "@%p0 add.s32 %r0, %r1, %r2;"),
    ("mov.b32", "mov.b32 %r0, %r1;"),
    ("add.f32", "add.f32 %f0, %f1, %f2;"),
    ("fma.rn.f32", "fma.rn.f32 %f0, %f1, %f2, %f3;"),
    ("fma.rm.f32", "fma.rm.f32 %f0, %f1, %f2, %f3;"),
    ("max.f32", "max.f32 %f0, %f1, %f2;"),
    ("div.rn.f32", "div.rn.f32 %f0, %f1, %f2;"),
    ("ex2.approx.ftz.f32", "ex2.approx.ftz.f32 %f0, %f1;"),
    ("lg2.approx.f32", "lg2.approx.f32 %f0, %f1;"),
    ("fma.rn.f64", "fma.rn.f64 %e0, %e1, %e2, %e1;"),
    ("cvt.rn.f16x2.f32", "cvt.rn.f16x2.f32 %x0, %f1, %f2;"),
    ("cvt.rn.bf16x2.f32", "cvt.rn.bf16x2.f32 %x0, %f1, %f2;"),
    ("cvt.f32.f16", "cvt.f32.f16 %f0, %h1;"),
    ("cvt.rna.tf32.f32", "cvt.rna.tf32.f32 %r0, %f1;"),
    ("cvt.rzi.s32.f32", "cvt.rzi.s32.f32 %r0, %f1;"),
    ("fma.rn.f16x2", "fma.rn.f16x2 %x0, %x1, %x2, %x3;"),
    ("fma.rn.bf16x2", "fma.rn.bf16x2 %x0, %x5, %x6, %x7;"),
    ("add.f16x2", "add.f16x2 %x0, %x1, %x2;"),
    ("shfl.sync.bfly.b32", "shfl.sync.bfly.b32 %r0, %r1, 1, 31, -1;"),
    ("redux.sync.add.s32", "redux.sync.add.s32 %r0, %r1, -1;"),
    ("vote.sync.ballot.b32", "vote.sync.ballot.b32 %r0, %p0, -1;"),
    ("ld.shared.f32", "ld.shared.f32 %f0, [%s];"),
    ("ld.shared.v4.f32", "ld.shared.v4.f32 {%f4, %f5, %f6, %f7}, [%s16];"),
    ("st.shared.f32", "st.shared.f32 [%s], %f1;"),
    ("ld.global.f32", "ld.global.f32 %f0, [%g];"),
    ("ld.global.v4.f32", "ld.global.v4.f32 {%f4, %f5, %f6, %f7}, [%g16];"),
    ("st.global.f32", "st.global.f32 [%g], %f1;"),
    ("atom.global.add.f32", "atom.global.add.f32 %f0, [%g], %f1;"),
    ("cp.async.cg and its wait", "cp.async.cg.shared.global [%s16], [%g16], 16;\ncp.async.wait_all;"),
    ("ldmatrix.x4", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%x4, %x5, %x6, %x7}, [%s16];"),
    ("ldmatrix.x4.trans", "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%x4, %x5, %x6, %x7}, [%s16];"),
    (
        "mma m16n8k16 f16",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f4, %f5, %f6, %f7}, {%x0, %x1, %x2, %x3}, {%x1, %x2}, {%f0, %f1, %f2, %f3};",
    ),
    (
        "mma m16n8k16 bf16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f4, %f5, %f6, %f7}, {%x4, %x5, %x6, %x7}, {%x4, %x5}, {%f0, %f1, %f2, %f3};",
    ),
    (
        "mma m16n8k8 tf32",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f4, %f5, %f6, %f7}, {%r4, %r5, %r6, %r7}, {%r4, %r5}, {%f0, %f1, %f2, %f3};",
    ),
    ("bar.sync", "bar.sync 0;"),
];

fn kernel(body: &str) -> String {
    let mut setup = String::new();
    for i in 0..16 {
        setup += &format!("add.u32 %r{i}, %t, {i};\n");
    }
    for i in 0..8 {
        setup += &format!("cvt.rn.f32.u32 %f{i}, %r{i};\nfma.rn.f32 %f{i}, %f{i}, 0f3C000000, 0f3F800000;\n");
    }
    for i in 0..4 {
        setup += &format!("cvt.rn.f16x2.f32 %x{i}, %f{i}, %f{};\nmov.b32 {{%h{i}, _}}, %x{i};\n", i + 1);
        setup +=
            &format!("cvt.rn.bf16x2.f32 %x{}, %f{i}, %f{};\nmov.b32 %r{}, %f{i};\n", i + 4, i + 1, i + 4);
    }
    for i in 0..3 {
        setup += &format!("cvt.u64.u32 %d{i}, %r{i};\ncvt.f64.f32 %e{i}, %f{i};\n");
    }
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 k_g, .param .u32 k_n)\n{{\n\
         .reg .pred %p<3>;\n.reg .b16 %h<4>;\n.reg .b32 %t, %n, %s, %s16, %r<16>, %x<8>;\n.reg .f32 %f<8>;\n\
         .reg .f64 %e<3>;\n.reg .b64 %g, %g16, %d<3>;\n.shared .align 128 .b8 tile[512];\n\
         mov.u32 %t, %tid.x;\n{setup}setp.lt.u32 %p0, %t, 20;\nsetp.lt.u32 %p1, %t, 10;\n\
         ld.param.u64 %g, [k_g];\nmad.wide.u32 %g16, %t, 16, %g;\nmad.wide.u32 %g, %t, 4, %g;\n\
         mov.u32 %s, tile;\nmad.lo.u32 %s16, %t, 16, %s;\nmad.lo.u32 %s, %t, 4, %s;\n\
         st.shared.v4.f32 [%s16], {{%f0, %f1, %f2, %f3}};\nst.global.v4.f32 [%g16], {{%f0, %f1, %f2, %f3}};\n\
         bar.sync 0;\nld.param.u32 %n, [k_n];\n\
         LOOP:\n{body}sub.u32 %n, %n, 1;\nsetp.ne.u32 %p2, %n, 0;\n@%p2 bra LOOP;\n\
         cp.async.wait_all;\nret;\n}}\n"
    )
}

/// Nanoseconds of one round of the loop, without what a launch costs.
fn time(config: &Config, body: &str) -> f64 {
    let machine = Machine::new(config.clone());
    let module = machine.load(&kernel(body)).unwrap_or_else(|e| panic!("{body}{e}"));
    let entry = module.entry("k").expect("the entry");
    let memory = machine.alloc(512).expect("memory");
    let dims = Dims { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    let launch = |rounds: u32| {
        let params = [memory.to_le_bytes().as_slice(), &rounds.to_le_bytes()].concat();
        let start = Instant::now();
        machine.launch(&entry, dims, &params).unwrap_or_else(|e| panic!("{body}{e}"));
        start.elapsed().as_nanos() as f64
    };
    let fastest = |rounds: u32| (0..RUNS).map(|_| launch(rounds)).fold(f64::INFINITY, f64::min);
    let once = fastest(1);
    let rounds = (RUN_NS / (fastest(11) - once).max(100.0) * 10.0).clamp(4.0, 20000.0) as u32;
    (fastest(1 + rounds) - once) / f64::from(rounds)
}

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let config =
        Config::default().arch(Arch::Sm80).threads(1).checks(has("--checks")).counters(has("--counters"));
    let empty = time(&config, "");
    let per_instruction = |config: &Config, text: &str| {
        (time(config, &format!("{text}\n").repeat(COPIES)) - empty) / COPIES as f64
    };
    println!("{:26}{:>8}", "instruction", "ns");
    for (name, text) in INSTRUCTIONS {
        println!("{name:26}{:8.1}", per_instruction(&config, text));
        if name.starts_with("mma") {
            for mode in [TensorMode::Sm80, TensorMode::Sm90] {
                let name = format!("{name}, {mode:?}");
                println!("{name:26}{:8.1}", per_instruction(&config.clone().tensor(mode), text));
            }
        }
    }
}
