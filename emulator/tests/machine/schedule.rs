//! Orders of warps and blocks, host threads, and blocks that wait for each other.

use ptx_emulator::{Config, Dims, Report, StopKind};

use crate::common::{Kernel, SEEDS};

#[test]
fn the_result_depends_on_nothing_but_the_program() {
    // A kernel with shared memory, barriers and divergence over many blocks.
    let text = ".shared .u32 s[64];\nmov.u32 %r1, s;\nmad.lo.u32 %r2, %t, 4, %r1;\nmov.u32 %r3, %ctaid.x;\nmad.lo.u32 %r4, %r3, 64, %t;\n\
                st.shared.u32 [%r2], %r4;\nbar.sync 0;\nxor.b32 %r5, %t, 37;\nmad.lo.u32 %r5, %r5, 4, %r1;\nld.shared.u32 %r6, [%r5];\n\
                rem.u32 %r7, %r4, 11;\nLOOP:\nsetp.eq.u32 %p1, %r7, 0;\n@%p1 bra DONE;\nmad.lo.u32 %r6, %r6, 3, %r7;\nsub.u32 %r7, %r7, 1;\n\
                bra LOOP;\nDONE:\nmul.wide.u32 %d1, %r4, 4;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1], %r6;";
    let kernel = Kernel::body(text);
    let mut first: Option<Vec<u32>> = None;
    for seed in SEEDS {
        for threads in [1, 2, 7] {
            let mut out = vec![0; 64 * 50];
            let config = Config::default().seed(seed).threads(threads);
            kernel.run_with(&config, Dims::linear(50, 64), &mut out).expect("runs");
            assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "seed {seed}, {threads} host threads");
        }
    }
}

#[test]
fn seeds_change_the_order_of_warps() {
    // Each warp takes a number as it comes.
    let text = "and.b32 %r1, %t, 31;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 exit;\natom.global.add.u32 %r2, [%out], 1;\nshr.u32 %r3, %t, 5;\n\
                mul.wide.u32 %d1, %r3, 4;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1+4], %r2;";
    let order = |seed: u64| {
        let mut out = vec![0; 9];
        Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(1, 256), &mut out)
            .expect("runs");
        out[1..].to_vec()
    };
    assert_eq!(order(0), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(order(1), [7, 6, 5, 4, 3, 2, 1, 0]);
    assert_ne!(order(2), order(0));
    assert_ne!(order(2), order(3));
    assert_eq!(order(3), order(3));
}

#[test]
fn blocks_wait_for_later_blocks() {
    // Every block adds one and waits until all have: a barrier over the grid, which needs all of them at once.
    let text = "setp.ne.u32 %p1, %t, 0;\n@%p1 bra MEET;\nred.release.gpu.global.add.u32 [%out], 1;\n\
                WAIT:\nld.acquire.gpu.global.u32 %r1, [%out];\nmov.u32 %r2, %nctaid.x;\nsetp.lt.u32 %p2, %r1, %r2;\n@%p2 bra WAIT;\n\
                MEET:\nbar.sync 0;\nred.global.add.u32 [%out+4], 1;";
    for seed in SEEDS {
        let mut out = vec![0; 2];
        Kernel::body(text)
            .run_with(&Config::default().seed(seed), Dims::linear(20, 64), &mut out)
            .expect("runs");
        assert_eq!(out, [20, 1280], "seed {seed}");
    }
}

#[test]
fn the_earliest_stop_is_reported() {
    // Blocks 3 and up store outside; whichever host thread is first, block 3 is named.
    let text =
        "mov.u32 %r1, %ctaid.x;\nmul.wide.u32 %d1, %r1, 4;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1], 1;";
    for threads in [1, 2, 4] {
        let stop = Kernel::body(text)
            .run_with(&Config::default().threads(threads), Dims::linear(1000, 32), &mut [0; 3])
            .expect_err("out of bounds");
        assert_eq!(
            (stop.kind(), stop.block()),
            (StopKind::OutOfBounds, Some([3, 0, 0])),
            "{threads} host threads"
        );
    }
}

#[test]
fn special_registers() {
    let text = "mov.u32 %r1, %tid.x;\nmov.u32 %r2, %tid.y;\nmov.u32 %r3, %tid.z;\nmov.u32 %r4, %ntid.y;\nmad.lo.u32 %r5, %r3, %r4, %r2;\n\
                mov.u32 %r4, %ntid.x;\nmad.lo.u32 %r5, %r5, %r4, %r1;\n\
                mov.u32 %r6, %ctaid.z;\nmov.u32 %r7, %nctaid.y;\nmov.u32 %r8, %ctaid.y;\nmad.lo.u32 %r6, %r6, %r7, %r8;\n\
                mov.u32 %r7, %nctaid.x;\nmov.u32 %r8, %ctaid.x;\nmad.lo.u32 %r6, %r6, %r7, %r8;\nmad.lo.u32 %r5, %r6, 48, %r5;\n\
                mul.wide.u32 %d1, %r5, 4;\nadd.u64 %d1, %d1, %out;\n\
                mov.u32 %r9, %laneid;\nmov.u32 %r10, %warpid;\nmad.lo.u32 %r9, %r10, 32, %r9;\nmad.lo.u32 %r9, %r6, 48, %r9;\n\
                mov.u32 %r11, %lanemask_lt;\nmov.u32 %r12, %lanemask_ge;\nxor.b32 %r11, %r11, %r12;\nadd.u32 %r11, %r11, 1;\nadd.u32 %r9, %r9, %r11;\n\
                mov.u32 %r13, %clock;\nmov.u64 %d2, %globaltimer;\nmov.u32 %r14, %clock;\nsetp.ge.u32 %p1, %r13, %r14;\n@%p1 mov.u32 %r9, 0;\n\
                st.global.u32 [%d1], %r9;";
    let mut out = vec![0; 48 * 24];
    let dims = Dims { grid: [2, 3, 4], block: [3, 4, 4], shared_bytes: 0 };
    Kernel::body(text).run_with(&Config::default(), dims, &mut out).expect("runs");
    assert!(out.iter().enumerate().all(|(k, got)| *got as usize == k), "{out:?}");
}

#[test]
fn reports_count() {
    let text = "mov.u32 %r1, 0;\nLOOP:\nadd.u32 %r1, %r1, 1;\nsetp.lt.u32 %p1, %r1, %t;\n@%p1 bra LOOP;";
    let kernel = Kernel::body(text);
    let out = kernel.machine.alloc(256).expect("memory");
    let launch = |counters| -> Report {
        let config = Config::default().counters(counters);
        kernel
            .machine
            .launch_with(&config, &kernel.entry, Dims::linear(2, 40), &out.to_le_bytes())
            .expect("runs")
    };
    let bare = launch(false);
    let counted = launch(true);
    assert_eq!((bare.blocks, bare.lines.len()), (2, 0));
    assert_eq!(bare.warp_instructions, counted.warp_instructions);
    let add = counted.lines.iter().find(|line| line.instruction.starts_with("add.u32 %r1")).expect("counted");
    // Warp 0 goes round 31 times, warp 1 (threads 32 to 39) 39 times; thread t adds max(t, 1) times.
    assert_eq!(add.counts.executions, 2 * (31 + 39));
    assert_eq!(add.counts.lanes, 2 * (1 + (1..40).sum::<u64>()));
    assert_eq!(
        counted.lines.iter().map(|line| line.counts.executions).sum::<u64>(),
        counted.warp_instructions
    );
}
