//! `atom` and `red`.

use ptx_emulator::{Config, Dims};

use crate::common::{Kernel, apply, number, pairs, run, specials};

/// Runs an atomic of a type on a word in memory and returns the old value and the new word.
fn atomic(op: &str, ty: &str, bits: u32, space: &str, a: &[u64], b: &[u64]) -> (Vec<u64>, Vec<u64>) {
    // The word is in shared memory, one per thread, or in global memory at the row's own place.
    let word = match space {
        "shared" => format!(
            "{{ .shared .align 8 .b8 words[768]; .reg .b32 %x; mov.u32 %x, words; mad.lo.u32 %x, %t, 8, %x;\n\
             st.shared.b{bits} [%x], %a; atom.shared.{op}.{ty} %d, [%x], %b; SECOND }}"
        ),
        _ => format!(
            "{{ .reg .b64 %x; mov.u64 %x, %at; st.global.b{bits} [%x], %a; atom.global.{op}.{ty} %d, [%x], %b; SECOND }}"
        ),
    };
    let columns = [(bits, a), (bits, b)];
    let old = apply(&word.replace("SECOND", ""), &columns, bits);
    let new = apply(&word.replace("SECOND", &format!("ld.{space}.b{bits} %d, [%x];")), &columns, bits);
    (old, new)
}

#[test]
fn integers() {
    for space in ["shared", "global"] {
        for (ty, bits, signed) in
            [("u32", 32, false), ("s32", 32, true), ("u64", 64, false), ("s64", 64, true)]
        {
            let (a, b) = pairs(&specials(bits), &specials(bits));
            let n = |x| number(x, bits, signed);
            let mask = crate::common::ones(bits);
            let bit = format!("b{bits}");
            let mut cases =
                vec![("min", ty), ("max", ty), ("and", &bit), ("or", &bit), ("xor", &bit), ("exch", &bit)];
            if ty != "s64" {
                cases.push(("add", ty));
            }
            if ty == "u32" {
                cases.extend([("inc", ty), ("dec", ty)]);
            }
            let want = |op: &str, x: u64, y: u64| match op {
                "min" => n(x).min(n(y)) as u64,
                "max" => n(x).max(n(y)) as u64,
                "and" => x & y,
                "or" => x | y,
                "xor" => x ^ y,
                "exch" => y,
                "add" => x.wrapping_add(y),
                "inc" if x >= y => 0,
                "inc" => x + 1,
                _ if x == 0 || x > y => y,
                _ => x - 1,
            };
            for (op, ty) in cases {
                let (old, new) = atomic(op, ty, bits, space, &a, &b);
                for k in 0..a.len() {
                    assert_eq!(old[k] & mask, a[k], "{space} {op}.{ty} returns the old value");
                    assert_eq!(
                        new[k] & mask,
                        want(op, a[k], b[k]) & mask,
                        "{space} {op}.{ty} of {:#x}, {:#x}",
                        a[k],
                        b[k]
                    );
                }
            }
        }
    }
}

#[test]
fn floats() {
    let f = |x: f32| x.to_bits() as u64;
    let (a, b) = ([f(1.5), f(-0.0), f(1e-39)], [f(2.25), f(0.0), f(1e-39)]);
    let (_, shared) = atomic("add", "f32", 32, "shared", &a, &b);
    assert_eq!(shared.iter().map(|x| x & 0xffff_ffff).collect::<Vec<_>>(), [f(3.75), f(0.0), f(2e-39)]);
    // Global memory flushes subnormals.
    let (_, global) = atomic("add", "f32", 32, "global", &a, &b);
    assert_eq!(global[2] & 0xffff_ffff, 0);
    let (_, got) = atomic("add", "f64", 64, "global", &[1.5f64.to_bits()], &[1e-20f64.to_bits()]);
    assert_eq!(got, [1.5f64.to_bits()]);
    let (_, got) = atomic("add.noftz", "f16x2", 32, "global", &[0x3c00_4000], &[0x3c00_3c00]);
    assert_eq!(got, [0x4000_4200]);
    let (_, got) = atomic("add.noftz", "bf16x2", 32, "global", &[0x3f80_4000], &[0x3f80_3f80]);
    assert_eq!(got, [0x4000_4040]);
    let (_, got) = atomic("add.noftz", "f16", 16, "shared", &[0x3c00], &[0x3c00]);
    assert_eq!(got[0] & 0xffff, 0x4000);
}

#[test]
fn compare_and_swap() {
    // Each thread takes a ticket by comparing and swapping; all are different and none is lost.
    let text = "AGAIN:\nld.relaxed.gpu.global.u32 %r1, [%out];\nadd.u32 %r2, %r1, 1;\n\
                atom.acq_rel.gpu.global.cas.b32 %r3, [%out], %r1, %r2;\nsetp.ne.u32 %p1, %r3, %r1;\n@%p1 bra AGAIN;\n\
                mul.wide.u32 %d1, %r1, 4;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1+4], 1;";
    assert_eq!(run(text, 128, 129), [vec![128], vec![1; 128]].concat());
}

#[test]
fn sums_over_blocks_and_host_threads() {
    let text = "red.global.add.u32 [%out], 1;\nred.relaxed.gpu.global.max.s32 [%out+4], %t;\n\
                mov.u32 %r1, %ctaid.x;\nand.b32 %r1, %r1, 31;\nshl.b32 %r1, 1, %r1;\nred.global.or.b32 [%out+8], %r1;";
    let kernel = Kernel::body(text);
    for threads in [1, 2, 5] {
        let mut out = vec![0; 3];
        let config = Config::default().threads(threads);
        kernel.run_with(&config, Dims::linear(100, 96), &mut out).expect("runs");
        assert_eq!(out, [9600, 95, !0], "{threads} host threads");
    }
}

#[test]
fn float_sums_do_not_depend_on_host_threads() {
    // 1 and 2^-24 in an order that matters.
    let text = "mov.u32 %r1, %ctaid.x;\nsetp.eq.u32 %p1, %r1, 7;\nmov.f32 %f1, 0f33800000;\n@%p1 mov.f32 %f1, 0f3F800000;\n\
                red.global.add.f32 [%out], %f1;";
    let kernel = Kernel::body(text);
    let sum = |threads: usize, seed: u64| {
        let mut out = vec![0; 1];
        kernel
            .run_with(&Config::default().threads(threads).seed(seed), Dims::linear(64, 1), &mut out)
            .expect("runs");
        out[0]
    };
    for seed in crate::common::SEEDS {
        assert_eq!(sum(1, seed), sum(4, seed), "seed {seed}");
    }
    assert_ne!(sum(1, 0), sum(1, 1), "the order of blocks follows the seed");
}

#[test]
fn warps_contend_for_one_word() {
    for seed in crate::common::SEEDS {
        let kernel = Kernel::body("atom.global.inc.u32 %r1, [%out], 6;\nst.global.u32 [%at+4], %r1;");
        let mut out = vec![0; 257];
        kernel.run_with(&Config::default().seed(seed), Dims::linear(1, 256), &mut out).expect("runs");
        let mut counts = [0; 7];
        out[1..].iter().for_each(|x| counts[*x as usize] += 1);
        assert_eq!(counts, [37, 37, 37, 37, 36, 36, 36]);
        assert_eq!(out[0], 256 % 7);
    }
}
