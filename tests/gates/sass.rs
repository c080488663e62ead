//! What the machine code must hold: that tensor cores, asynchronous copies and wide accesses are really used.

use std::collections::BTreeMap;
use std::fs;

use macula::kernel;

use crate::assembly::assemble;
use crate::tools::{self, NVDISASM, Toolchain, Writes};

/// Kinds of instructions that a kernel is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    /// A tensor-core product.
    Hmma,
    /// `ldmatrix`.
    Ldsm,
    /// `cp.async`.
    Ldgsts,
    /// A 16-byte load from device memory.
    Ldg128,
    /// A 16-byte store to device memory.
    Stg128,
    /// Local memory: a stack or a spill.
    Local,
}

/// Least numbers of instructions in the sm_80 code of entries whose names begin so. They say that a path exists at all; how
/// often it runs is counted by the emulator.
const EXPECTED: &[(&str, &[(Op, usize)])] = &[
    ("gaussian_fwd_line_f16", &[(Op::Hmma, 8), (Op::Ldsm, 1), (Op::Ldg128, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_line_bf16", &[(Op::Hmma, 8), (Op::Ldsm, 1), (Op::Ldg128, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_line_f32", &[(Op::Ldg128, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_plane_f16", &[(Op::Hmma, 16), (Op::Ldsm, 8), (Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_plane_bf16", &[(Op::Hmma, 16), (Op::Ldsm, 8), (Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_plane_f32", &[(Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("gaussian_bwd_plane_f16", &[(Op::Hmma, 32), (Op::Ldsm, 12), (Op::Ldgsts, 2), (Op::Stg128, 1)]),
    ("gaussian_bwd_plane_bf16", &[(Op::Hmma, 32), (Op::Ldsm, 12), (Op::Ldgsts, 2), (Op::Stg128, 1)]),
    ("gaussian_bwd_plane_f32", &[(Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("gaussian_fwd_tile_f16", &[(Op::Hmma, 64), (Op::Ldsm, 8), (Op::Ldgsts, 16), (Op::Stg128, 8)]),
    ("gaussian_fwd_tile_bf16", &[(Op::Hmma, 64), (Op::Ldsm, 8), (Op::Ldgsts, 16), (Op::Stg128, 8)]),
    ("gaussian_fwd_tile_f32", &[(Op::Ldgsts, 16), (Op::Stg128, 8)]),
    ("gaussian_bwd_tile_f16", &[(Op::Hmma, 64), (Op::Ldsm, 32), (Op::Ldgsts, 24)]),
    ("gaussian_bwd_tile_bf16", &[(Op::Hmma, 64), (Op::Ldsm, 32), (Op::Ldgsts, 24)]),
    ("gaussian_bwd_tile_f32", &[(Op::Ldgsts, 24)]),
    ("gaussian_bwd_col", &[(Op::Ldg128, 1)]),
    ("gaussian_bwd_row", &[(Op::Stg128, 1)]),
    (
        "content_bwd_kv_f16",
        &[(Op::Hmma, 16), (Op::Ldsm, 10), (Op::Ldgsts, 2), (Op::Ldg128, 1), (Op::Stg128, 2)],
    ),
    (
        "content_bwd_kv_bf16",
        &[(Op::Hmma, 16), (Op::Ldsm, 10), (Op::Ldgsts, 2), (Op::Ldg128, 1), (Op::Stg128, 2)],
    ),
    ("content_bwd_kv_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 1), (Op::Stg128, 2)]),
    ("content_bwd_merge", &[(Op::Ldg128, 1), (Op::Stg128, 1)]),
    (
        "content_bwd_q_f16",
        &[(Op::Hmma, 12), (Op::Ldsm, 8), (Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 2)],
    ),
    (
        "content_bwd_q_bf16",
        &[(Op::Hmma, 12), (Op::Ldsm, 8), (Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 2)],
    ),
    ("content_bwd_q_f32", &[(Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 2)]),
    ("content_fwd_kv_f16", &[(Op::Hmma, 9), (Op::Ldsm, 5), (Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("content_fwd_kv_bf16", &[(Op::Hmma, 9), (Op::Ldsm, 5), (Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("content_fwd_kv_f32", &[(Op::Ldgsts, 1), (Op::Stg128, 1)]),
    ("content_fwd_merge", &[(Op::Ldg128, 1), (Op::Stg128, 1)]),
    ("content_fwd_q_f16", &[(Op::Hmma, 8), (Op::Ldsm, 5), (Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 1)]),
    (
        "content_fwd_q_bf16",
        &[(Op::Hmma, 8), (Op::Ldsm, 5), (Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 1)],
    ),
    ("content_fwd_q_f32", &[(Op::Ldgsts, 1), (Op::Ldg128, 1), (Op::Stg128, 1)]),
    ("axial_fwd_f16_d", &[(Op::Hmma, 24), (Op::Ldsm, 18), (Op::Ldgsts, 4), (Op::Ldg128, 3), (Op::Stg128, 1)]),
    (
        "axial_fwd_bf16_d",
        &[(Op::Hmma, 24), (Op::Ldsm, 18), (Op::Ldgsts, 4), (Op::Ldg128, 3), (Op::Stg128, 1)],
    ),
    ("axial_fwd_f32", &[(Op::Ldgsts, 4), (Op::Ldg128, 2), (Op::Stg128, 1)]),
    (
        "axial_fwd_map_gsa_",
        &[(Op::Hmma, 16), (Op::Ldsm, 14), (Op::Ldgsts, 4), (Op::Ldg128, 2), (Op::Stg128, 1)],
    ),
    ("axial_fwd_map_", &[(Op::Hmma, 12), (Op::Ldsm, 11), (Op::Ldgsts, 4), (Op::Stg128, 1)]),
    ("axial_bwd_f16", &[(Op::Hmma, 32), (Op::Ldsm, 27), (Op::Ldgsts, 9), (Op::Ldg128, 4), (Op::Stg128, 2)]),
    ("axial_bwd_bf16", &[(Op::Hmma, 32), (Op::Ldsm, 27), (Op::Ldgsts, 9), (Op::Ldg128, 4), (Op::Stg128, 2)]),
    ("axial_bwd_f32", &[(Op::Ldgsts, 9), (Op::Ldg128, 4), (Op::Stg128, 2)]),
    ("value_mixture_fwd_f16", &[(Op::Ldg128, 4), (Op::Stg128, 1)]),
    ("value_mixture_fwd_bf16", &[(Op::Ldg128, 4), (Op::Stg128, 1)]),
    ("value_mixture_fwd_f32", &[(Op::Ldg128, 4), (Op::Stg128, 1)]),
    ("value_mixture_bwd_f16", &[(Op::Ldg128, 5), (Op::Stg128, 5)]),
    ("value_mixture_bwd_bf16", &[(Op::Ldg128, 5), (Op::Stg128, 5)]),
    ("value_mixture_bwd_f32", &[(Op::Ldg128, 5), (Op::Stg128, 5)]),
    ("value_mixture_bwd_scores", &[(Op::Ldg128, 1)]),
    ("local_fwd_f16", &[(Op::Hmma, 13), (Op::Ldsm, 2), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_fwd_bf16", &[(Op::Hmma, 13), (Op::Ldsm, 2), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_fwd_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 2), (Op::Stg128, 1)]),
    ("local_bwd_dq_f16", &[(Op::Hmma, 35), (Op::Ldsm, 3), (Op::Ldgsts, 2), (Op::Ldg128, 3)]),
    ("local_bwd_dq_bf16", &[(Op::Hmma, 35), (Op::Ldsm, 3), (Op::Ldgsts, 2), (Op::Ldg128, 3)]),
    ("local_bwd_dq_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 3), (Op::Stg128, 1)]),
    ("local_bwd_dkv_f16", &[(Op::Hmma, 20), (Op::Ldsm, 4), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_bwd_dkv_bf16", &[(Op::Hmma, 20), (Op::Ldsm, 4), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_bwd_dkv_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 2), (Op::Stg128, 1)]),
    ("local_fwd_bias_f16", &[(Op::Hmma, 13), (Op::Ldsm, 2), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_fwd_bias_bf16", &[(Op::Hmma, 13), (Op::Ldsm, 2), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_fwd_bias_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 2), (Op::Stg128, 1)]),
    ("local_bwd_dq_bias_f16", &[(Op::Hmma, 35), (Op::Ldsm, 3), (Op::Ldgsts, 2), (Op::Ldg128, 3)]),
    ("local_bwd_dq_bias_bf16", &[(Op::Hmma, 35), (Op::Ldsm, 3), (Op::Ldgsts, 2), (Op::Ldg128, 3)]),
    ("local_bwd_dq_bias_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 3), (Op::Stg128, 1)]),
    ("local_bwd_dkv_bias_f16", &[(Op::Hmma, 20), (Op::Ldsm, 4), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_bwd_dkv_bias_bf16", &[(Op::Hmma, 20), (Op::Ldsm, 4), (Op::Ldgsts, 2), (Op::Ldg128, 2)]),
    ("local_bwd_dkv_bias_f32", &[(Op::Ldgsts, 2), (Op::Ldg128, 2), (Op::Stg128, 1)]),
];

impl Op {
    /// Reads an instruction such as `LDG.E.128.CONSTANT`.
    fn of(instruction: &str) -> Option<Self> {
        let mut parts = instruction.split('.');
        let base = parts.next()?;
        let is_wide = parts.any(|part| part == "128");
        match base {
            "HMMA" | "HGMMA" => Some(Op::Hmma),
            "LDSM" => Some(Op::Ldsm),
            "LDGSTS" => Some(Op::Ldgsts),
            "LDG" if is_wide => Some(Op::Ldg128),
            "STG" if is_wide => Some(Op::Stg128),
            "LDL" | "STL" => Some(Op::Local),
            _ => None,
        }
    }
}

/// Counts a listing of `nvdisasm -c`.
fn count(listing: &str) -> BTreeMap<Op, usize> {
    let mut counts = BTreeMap::new();
    for line in listing.lines() {
        // `        /*0120*/               @!P0 LDG.E.128 R4, [R2.64] ;`
        let Some((address, code)) =
            line.trim_start().strip_prefix("/*").and_then(|rest| rest.split_once("*/"))
        else {
            continue;
        };
        let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut words = code.split_whitespace().peekable();
        let guard = words.next_if(|word| word.starts_with('@'));
        // ptxas pads with instructions that never run.
        if !is_address || guard == Some("@!PT") {
            continue;
        }
        if let Some(op) = words.next().and_then(|word| Op::of(word.trim_end_matches(';'))) {
            *counts.entry(op).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn machine_code_holds_what_kernels_promise() {
    let tools = Toolchain::read();
    let (Some(ptxas), Some(nvdisasm)) =
        (tools::needed("machine code", tools.ptxas()), tools::needed("machine code", tools.wheel(&NVDISASM)))
    else {
        return;
    };
    let kernels: Vec<&kernel::Kernel> = kernel::all().iter().collect();
    let found = tools::parallel(&kernels, |kernel| {
        let gpu = crate::assembly::gpus(kernel)[0];
        let cubin = assemble(&ptxas, &tools, kernel, gpu, Writes::Kept).output;
        let Some(cubin) = cubin else { return vec![format!("{}: not assembled", kernel.name)] };
        // Nothing here asks where jumps go, so their analysis is left out.
        let listing =
            nvdisasm.run(&tools.cache(), &["-c", "-ndf"], &fs::read(cubin).unwrap(), Writes::Nothing);
        assert!(listing.ok, "{}: {}", kernel.name, listing.text);
        let counts = count(&listing.text);
        let mut findings = Vec::new();
        if let Some(accesses) = counts.get(&Op::Local) {
            findings.push(format!("{}: {accesses} accesses to local memory", kernel.name));
        }
        for (_, needs) in EXPECTED.iter().filter(|(prefix, _)| kernel.name.starts_with(prefix)) {
            for (op, least) in *needs {
                let has = counts.get(op).copied().unwrap_or(0);
                if has < *least {
                    findings.push(format!("{}: {has} {op:?}, expected at least {least}", kernel.name));
                }
            }
        }
        findings
    });
    tools::none_of(found.concat());
}

#[test]
fn every_expectation_has_a_kernel() {
    for (prefix, _) in EXPECTED {
        let has = kernel::all().iter().any(|kernel| kernel.name.starts_with(prefix));
        assert!(has || kernel::all().is_empty(), "no kernel's name begins with `{prefix}`");
    }
}

#[test]
fn a_listing_is_counted() {
    let listing = "
\t.section\t.text.a,\"ax\",@progbits
        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0010*/              @P0 LDG.E.64 R4, [R2.64] ;
        /*0020*/             @!PT LDS RZ, [RZ] ;
        /*0030*/             @!PT LDL RZ, [RZ] ;
        /*0040*/                   LDGSTS.E.BYPASS.LTC128B.128 [R9], [R2.64] ;
        /*0050*/                   LDSM.16.MT88.4 R24, [R20] ;
        /*0060*/             @P1 HMMA.16816.F32 R8, R4, R12, R8 ;
        /*0070*/                   STG.E.128 [R2.64], R4 ;
        /*0080*/                   STL [R1], R4 ;
";
    let counts: Vec<(Op, usize)> = count(listing).into_iter().collect();
    let one_each = [Op::Hmma, Op::Ldsm, Op::Ldgsts, Op::Ldg128, Op::Stg128, Op::Local].map(|op| (op, 1));
    assert_eq!(counts, one_each);
}
