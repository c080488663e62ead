//! Lanes that go different ways: every result must be as if each thread ran alone.

use ptx_emulator::{Config, Dims, StopKind};

use crate::common::{Kernel, SEEDS, run};

#[test]
fn nested_loops_with_break_and_early_exit() {
    // Per thread: sum over i < t % 7, j < t % 5 of i * j, leaving the inner loop when i * j is 6 and the kernel when the
    // sum passes 30 (after writing -1).
    let text = "rem.u32 %r1, %t, 7;\nrem.u32 %r2, %t, 5;\nmov.u32 %r3, 0;\nmov.u32 %r4, 0;\n\
                OUTER:\nsetp.ge.u32 %p1, %r4, %r1;\n@%p1 bra DONE;\nmov.u32 %r5, 0;\n\
                INNER:\nsetp.ge.u32 %p2, %r5, %r2;\n@%p2 bra NEXT;\nmul.lo.u32 %r6, %r4, %r5;\nadd.u32 %r3, %r3, %r6;\n\
                setp.gt.u32 %p3, %r3, 30;\n@%p3 bra LEAVE;\nsetp.eq.u32 %p4, %r6, 6;\n@%p4 bra NEXT;\nadd.u32 %r5, %r5, 1;\n\
                bra INNER;\nNEXT:\nadd.u32 %r4, %r4, 1;\nbra OUTER;\n\
                LEAVE:\nst.global.u32 [%at], -1;\nexit;\nDONE:\nst.global.u32 [%at], %r3;";
    let want = |t: u32| {
        let mut sum = 0;
        for i in 0..t % 7 {
            for j in 0..t % 5 {
                sum += i * j;
                if sum > 30 {
                    return !0;
                }
                if i * j == 6 {
                    break;
                }
            }
        }
        sum
    };
    // 75 threads: the last warp is partial.
    for seed in SEEDS {
        let mut out = vec![0; 75];
        Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(1, 75), &mut out)
            .expect("runs");
        for (t, got) in out.iter().enumerate() {
            assert_eq!(*got, want(t as u32), "seed {seed} thread {t}");
        }
    }
}

#[test]
fn lanes_merge_again() {
    // After the branch all 32 lanes run together.
    let text = "and.b32 %r1, %t, 1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra EVEN;\nadd.u32 %r2, %t, 1;\nbra DONE;\n\
                EVEN:\nadd.u32 %r2, %t, 2;\nDONE:\nactivemask.b32 %r3;\nst.global.u32 [%at], %r3;";
    assert_eq!(run(text, 32, 32), [!0u32; 32]);
    // Also after a loop that each lane leaves at another time.
    let text = "mov.u32 %r1, 0;\nLOOP:\nadd.u32 %r1, %r1, 1;\nsetp.lt.u32 %p1, %r1, %t;\n@%p1 bra LOOP;\n\
                activemask.b32 %r3;\nst.global.u32 [%at], %r3;";
    assert_eq!(run(text, 32, 32), [!0u32; 32]);
}

#[test]
fn indexed_branches() {
    let text = "and.b32 %r1, %t, 3;\nTABLE: .branchtargets L0, L1, L2, L3;\nbrx.idx %r1, TABLE;\n\
                L0:\nmov.u32 %r2, 10;\nbra DONE;\nL1:\nmov.u32 %r2, 11;\nbra DONE;\nL2:\nmov.u32 %r2, 12;\nbra DONE;\n\
                L3:\nmov.u32 %r2, 13;\nDONE:\nactivemask.b32 %r3;\nsetp.eq.u32 %p1, %r3, -1;\n@!%p1 mov.u32 %r2, 0;\n\
                st.global.u32 [%at], %r2;";
    assert!(run(text, 32, 32).iter().enumerate().all(|(t, got)| *got as usize == 10 + (t & 3)));
    let outside =
        Kernel::body(&text.replace("and.b32 %r1, %t, 3;", "mov.u32 %r1, 4;")).stop(Dims::linear(1, 1), 1);
    assert_eq!(outside.kind(), StopKind::BadOperand);
}

#[test]
fn a_lock_between_lanes_of_one_warp() {
    // Spinning lanes stand at a lower pc than the owner's critical section and must not starve it.
    let text = "SPIN:\natom.global.cas.b32 %r1, [%out], 0, 1;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra SPIN;\n\
                ld.volatile.global.u32 %r2, [%out+4];\nadd.u32 %r2, %r2, %t;\nst.volatile.global.u32 [%out+4], %r2;\n\
                membar.gl;\natom.global.exch.b32 %r3, [%out], 0;";
    for seed in SEEDS {
        let mut out = vec![0; 2];
        Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(1, 64), &mut out)
            .expect("runs");
        assert_eq!(out[1], 63 * 64 / 2);
    }
}

#[test]
fn a_flag_between_warps() {
    // The first warp waits for the last one, whichever comes first.
    let text = ".shared .u32 flag;\n.shared .u32 value;\nsetp.ge.u32 %p1, %t, 32;\n@%p1 bra WRITER;\n\
                WAIT:\nld.volatile.shared.u32 %r1, [flag];\nsetp.ne.u32 %p2, %r1, 7;\n@%p2 bra WAIT;\n\
                ld.volatile.shared.u32 %r2, [value];\nst.global.u32 [%at], %r2;\nret;\n\
                WRITER:\nst.volatile.shared.u32 [value], 5;\nmembar.cta;\nst.volatile.shared.u32 [flag], 7;";
    for seed in SEEDS {
        let mut out = vec![0; 64];
        Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(1, 64), &mut out)
            .expect("runs");
        assert_eq!(out[..32], [5; 32], "seed {seed}");
    }
}

#[test]
fn spinning_for_ever_is_noticed() {
    let text = "WAIT:\nld.volatile.global.u32 %r1, [%out];\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra WAIT;";
    let config = Config { patience: 100, ..Config::default() };
    let stop = Kernel::body(text).run_with(&config, Dims::linear(1, 64), &mut [0]).expect_err("hangs");
    assert_eq!(stop.kind(), StopKind::Hang);
    assert!(stop.to_string().contains("warp 1 lanes 0xffffffff runs"), "{stop}");
}

#[test]
fn a_uniform_branch_that_is_not() {
    let text = "setp.lt.u32 %p1, %t, 3;\n@%p1 bra.uni DONE;\nmov.u32 %r1, 1;\nDONE:\n";
    let stop = Kernel::body(text).stop(Dims::linear(1, 32), 1);
    assert_eq!(stop.kind(), StopKind::Divergence);
    // A uniform one may be guarded.
    run("setp.lt.u32 %p1, %t, 99;\n@%p1 bra.uni DONE;\nmov.u32 %r1, 1;\nDONE:\n", 32, 1);
}

#[test]
fn warp_barriers_meet_in_different_places() {
    let text = ".shared .u32 s[32];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, 4, %r1;\nsetp.lt.u32 %p1, %t, 16;\n@%p1 bra LOW;\n\
                st.shared.u32 [%r1], %t;\nbar.warp.sync -1;\nbra DONE;\nLOW:\nbar.warp.sync -1;\nld.shared.u32 %r2, [%r1+64];\n\
                st.global.u32 [%at], %r2;\nDONE:\n";
    let got = run(text, 32, 32);
    assert!(got[..16].iter().enumerate().all(|(t, got)| *got as usize == t + 16));
}

#[test]
fn every_path_through_a_maze() {
    // A chain of 12 data-dependent branches: 2^12 paths, one per thread.
    let mut text = String::from("mov.u32 %r1, %ctaid.x;\nmad.lo.u32 %r1, %r1, 1024, %t;\nmov.u32 %r2, 1;\n");
    for k in 0..12 {
        text += &format!(
            "shr.u32 %r3, %r1, {k};\nand.b32 %r3, %r3, 1;\nsetp.ne.u32 %p1, %r3, 0;\n@%p1 bra T{k};\n\
             mad.lo.u32 %r2, %r2, 3, {k};\nbra J{k};\nT{k}:\nmad.lo.u32 %r2, %r2, 5, 1;\nJ{k}:\n"
        );
    }
    text += "mul.wide.u32 %d1, %r1, 4;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1], %r2;";
    let mut out = vec![0; 4096];
    Kernel::body(&text).run_with(&Config::default(), Dims::linear(4, 1024), &mut out).expect("runs");
    for (t, got) in out.iter().enumerate() {
        let want = (0..12u32).fold(1u32, |x, k| {
            if t >> k & 1 != 0 {
                x.wrapping_mul(5).wrapping_add(1)
            } else {
                x.wrapping_mul(3).wrapping_add(k)
            }
        });
        assert_eq!(*got, want, "thread {t}");
    }
}

#[test]
fn a_value_set_in_the_first_round_only() {
    // %r5 keeps its value from round to round, though each round writes it under a guard before reading it.
    let text = "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\nLOOP:\nmul.lo.u32 %r3, %r1, 7;\nadd.u32 %r4, %r3, 1;\nadd.u32 %r2, %r2, %r4;\n\
                setp.eq.u32 %p1, %r1, 0;\n@%p1 mov.u32 %r5, 1000;\nadd.u32 %r2, %r2, %r5;\nadd.u32 %r1, %r1, 1;\n\
                setp.lt.u32 %p1, %r1, 6;\n@%p1 bra LOOP;\nst.global.u32 [%at], %r2;";
    assert_eq!(run(text, 1, 1), [7 * 15 + 6 + 6000]);
}
