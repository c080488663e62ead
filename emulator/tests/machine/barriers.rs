//! `bar` and `barrier`.

use ptx_emulator::{Config, Dims, StopKind};

use crate::common::{Kernel, SEEDS};

/// Runs one block under every order of warps.
fn run(text: &str, threads: u32, words: usize) -> Vec<u32> {
    let kernel = Kernel::body(text);
    let results: Vec<Vec<u32>> = SEEDS
        .iter()
        .map(|seed| {
            let mut out = vec![0; words];
            let config = Config::default().seed(*seed);
            kernel
                .run_with(&config, Dims::linear(1, threads), &mut out)
                .unwrap_or_else(|stop| panic!("{stop}"));
            out
        })
        .collect();
    assert!(results.windows(2).all(|w| w[0] == w[1]), "the result depends on the order of warps");
    results.into_iter().next().expect("one seed")
}

#[test]
fn all_threads_meet() {
    // Reverse a block through shared memory, ten times over.
    let text = ".shared .u32 s[96];\nmov.u32 %r1, s;\nmad.lo.u32 %r2, %t, 4, %r1;\nsub.u32 %r3, 95, %t;\nmad.lo.u32 %r3, %r3, 4, %r1;\n\
                mov.u32 %r4, %t;\nmov.u32 %r5, 0;\nLOOP:\nst.shared.u32 [%r2], %r4;\nbar.sync 0;\nld.shared.u32 %r4, [%r3];\n\
                add.u32 %r4, %r4, 1;\nbarrier.sync.aligned 0;\nadd.u32 %r5, %r5, 1;\nsetp.lt.u32 %p1, %r5, 11;\n@%p1 bra LOOP;\n\
                st.global.u32 [%at], %r4;";
    assert!(run(text, 96, 96).iter().enumerate().all(|(t, got)| *got as usize == 95 - t + 11));
}

#[test]
fn named_barriers_with_counts() {
    // A producer warp fills two buffers, a consumer warp empties them; barriers 1 and 2 say full, 3 and 4 empty.
    let text = ".shared .u32 s[64];\nmov.u32 %r1, s;\nand.b32 %r2, %t, 31;\nmad.lo.u32 %r1, %r2, 4, %r1;\nmov.u32 %r3, 0;\nmov.u32 %r4, 0;\n\
                setp.ge.u32 %p1, %t, 32;\n@%p1 bra CONSUME;\n\
                PRODUCE:\nand.b32 %r5, %r3, 1;\nadd.u32 %r6, %r5, 3;\nbar.sync %r6, 64;\nmad.lo.u32 %r7, %r5, 128, %r1;\n\
                mad.lo.u32 %r8, %r3, 10, %r2;\nst.shared.u32 [%r7], %r8;\nadd.u32 %r6, %r5, 1;\nbar.arrive %r6, 64;\n\
                add.u32 %r3, %r3, 1;\nsetp.lt.u32 %p2, %r3, 8;\n@%p2 bra PRODUCE;\nret;\n\
                CONSUME:\nbar.arrive 3, 64;\nbar.arrive 4, 64;\n\
                AGAIN:\nand.b32 %r5, %r3, 1;\nadd.u32 %r6, %r5, 1;\nbar.sync %r6, 64;\nmad.lo.u32 %r7, %r5, 128, %r1;\n\
                ld.shared.u32 %r8, [%r7];\nadd.u32 %r4, %r4, %r8;\nadd.u32 %r6, %r5, 3;\nsetp.ge.u32 %p3, %r3, 6;\n@%p3 bra SKIP;\n\
                bar.arrive %r6, 64;\nSKIP:\nadd.u32 %r3, %r3, 1;\nsetp.lt.u32 %p2, %r3, 8;\n@%p2 bra AGAIN;\nst.global.u32 [%at], %r4;";
    let got = run(text, 64, 64);
    assert!(got[32..].iter().enumerate().all(|(lane, got)| *got as usize == 280 + 8 * lane), "{got:?}");
}

#[test]
fn reductions() {
    let text = "and.b32 %r1, %t, 1;\nsetp.eq.u32 %p1, %r1, 0;\nbar.red.popc.u32 %r2, 0, %p1;\nbar.red.and.pred %p2, 0, %p1;\n\
                bar.red.or.pred %p3, 1, !%p1;\nsetp.lt.u32 %p4, %t, 200;\nbar.red.and.pred %p5, 0, %p4;\n\
                barrier.red.or.pred %p6, 0, 96, %p4;\n\
                @%p2 add.u32 %r2, %r2, 1000;\n@%p3 add.u32 %r2, %r2, 2000;\n@%p5 add.u32 %r2, %r2, 4000;\n\
                @%p6 add.u32 %r2, %r2, 8000;\nst.global.u32 [%at], %r2;";
    assert_eq!(run(text, 96, 96), [14048; 96]);
}

#[test]
fn lanes_arrive_one_by_one() {
    // The unaligned form: each half of a warp comes from another place.
    let text = ".shared .u32 s[64];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, 4, %r1;\nst.shared.u32 [%r1], %t;\nand.b32 %r2, %t, 1;\n\
                setp.eq.u32 %p1, %r2, 0;\n@%p1 bra EVEN;\nbarrier.sync 0;\nbra DONE;\nEVEN:\nbarrier.sync 0;\nDONE:\n\
                xor.b32 %r3, %t, 33;\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %r3, 4, %r1;\nld.shared.u32 %r4, [%r1];\nst.global.u32 [%at], %r4;";
    assert!(run(text, 64, 64).iter().enumerate().all(|(t, got)| *got as usize == t ^ 33));
    // With a count too: single lanes count one each, and a whole warp 32.
    let counted = text.replace("barrier.sync 0;", "barrier.sync 5, 64;");
    assert!(run(&counted, 64, 64).iter().enumerate().all(|(t, got)| *got as usize == t ^ 33));
}

#[test]
fn threads_that_have_exited_are_not_waited_for() {
    let text = "setp.ge.u32 %p1, %t, 40;\n@%p1 exit;\nbar.sync 0;\nst.global.u32 [%at], 1;";
    let got = run(text, 96, 96);
    assert_eq!(got[..40], [1; 40]);
}

#[test]
fn deadlocks_name_every_warp() {
    let text = "setp.lt.u32 %p1, %t, 32;\n@%p1 bra FIRST;\nbar.sync 1, 64;\nbar.sync 2, 64;\nret;\n\
                FIRST:\nbar.sync 2, 64;\nbar.sync 1, 64;";
    for seed in SEEDS {
        let stop = Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(3, 64), &mut [0; 64])
            .expect_err("deadlock");
        assert_eq!(stop.kind(), StopKind::Deadlock);
        let lines: Vec<String> = stop.to_string().lines().map(String::from).collect();
        assert_eq!(lines[0], "error: deadlock: every warp waits for one that never comes in k");
        assert!(lines.iter().any(|l| l.contains("barrier 1: 32 of 64 threads have arrived")), "{stop}");
        assert!(
            lines
                .iter()
                .any(|l| l.contains("warp 0 lanes 0xffffffff waits in a barrier")
                    && l.ends_with("bar.sync 2, 64")),
            "{stop}"
        );
        assert!(
            lines
                .iter()
                .any(|l| l.contains("warp 1 lanes 0xffffffff waits in a barrier")
                    && l.ends_with("bar.sync 1, 64")),
            "{stop}"
        );
    }
}

#[test]
fn an_aligned_barrier_in_a_divergent_branch() {
    let text = "setp.lt.u32 %p1, %t, 16;\n@%p1 bra LOW;\nbar.sync 0;\nbra DONE;\nLOW:\nbar.sync 0;\nDONE:\n";
    let stop = Kernel::body(text).stop(Dims::linear(1, 32), 1);
    assert_eq!(stop.kind(), StopKind::Divergence, "{stop}");
    assert!(stop.to_string().contains("wait for lanes"), "{stop}");
    let guarded =
        Kernel::body("setp.lt.u32 %p1, %t, 16;\n@%p1 bar.sync 0;\nbar.sync 0;").stop(Dims::linear(1, 32), 1);
    assert_eq!(guarded.kind(), StopKind::Divergence, "{guarded}");
}

#[test]
fn bad_operands() {
    for (text, words) in [
        ("mov.u32 %r1, 16;\nbar.sync %r1;", "barrier 16: only 0 to 15 exist"),
        ("bar.sync 0, 33;", "a multiple of 32 is wanted"),
        ("bar.sync %t;", "differ between lanes"),
        ("setp.lt.u32 %p1, %t, 32;\n@%p1 bar.arrive 0, 64;\n@!%p1 bar.sync 0, 96;", "this arrival says"),
    ] {
        let stop = Kernel::body(text).stop(Dims::linear(1, 64), 1);
        assert_eq!(stop.kind(), StopKind::BadOperand, "{text}: {stop}");
        assert!(stop.text().contains(words), "{text}: {stop}");
    }
}
