//! `shfl`, `vote`, `match`, `redux`, `activemask`, `elect`.

use ptx_emulator::{Dims, StopKind};

use crate::common::{Kernel, run};

/// The manual's pseudo-code for one lane: source lane and validity.
fn shuffle(mode: &str, lane: i32, b: i32, c: i32) -> (i32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max = lane & segment | clamp & !segment;
    let min = lane & segment;
    let (j, valid) = match mode {
        "up" => (lane - b, lane - b >= max),
        "down" => (lane + b, lane + b <= max),
        "bfly" => (lane ^ b, (lane ^ b) <= max),
        _ => (min | b & !segment, (min | b & !segment) <= max),
    };
    (if valid { j } else { lane }, valid)
}

#[test]
fn shuffles() {
    for mode in ["up", "down", "bfly", "idx"] {
        for (b, c) in
            [(1, 0x1f), (1, 0), (16, 0x1f), (3, 0x181f), (7, 0x1807), (31, 0x1f), (2, 0x1c03), (5, 0x1c1f)]
        {
            let text = format!(
                "add.u32 %r1, %t, 1000;\nshfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1;\n\
                 @!%p1 or.b32 %r2, %r2, 0x10000;\nst.global.u32 [%at], %r2;"
            );
            for (lane, got) in run(&text, 32, 32).into_iter().enumerate() {
                let (source, valid) = shuffle(mode, lane as i32, b, c);
                let want = (source + 1000) as u32 | if valid { 0 } else { 0x10000 };
                assert_eq!(got, want, "{mode} b {b} c {c:#x} lane {lane}");
            }
        }
    }
}

#[test]
fn lanes_shuffle_by_their_own_index() {
    let text = "xor.b32 %r1, %t, 21;\nmul.lo.u32 %r2, %t, 3;\nshfl.sync.idx.b32 %r3, %r2, %r1, 31, 0xffffffff;\n\
                st.global.u32 [%at], %r3;";
    let got = run(text, 64, 64);
    assert!(got.iter().enumerate().all(|(t, got)| *got as usize == (t & 32 | (t ^ 21) & 31) * 3));
}

#[test]
fn votes() {
    let text = "and.b32 %r1, %t, 1;\nsetp.eq.u32 %p1, %r1, 0;\nsetp.lt.u32 %p2, %t, 64;\n\
                vote.sync.ballot.b32 %r2, %p1, -1;\nvote.sync.all.pred %p3, %p2, -1;\nvote.sync.any.pred %p4, !%p2, -1;\n\
                vote.sync.uni.pred %p5, %p2, -1;\nvote.sync.uni.pred %p6, %p1, -1;\nselp.u32 %r3, 1, 0, %p3;\n\
                @%p4 add.u32 %r3, %r3, 2;\n@%p5 add.u32 %r3, %r3, 4;\n@%p6 add.u32 %r3, %r3, 8;\nadd.u32 %r3, %r3, %r2;\n\
                st.global.u32 [%at], %r3;";
    let got = run(text, 80, 80);
    assert_eq!(got[..64], [0x5555_5555 + 1 + 4; 64]);
    // Half a warp: lanes that do not exist neither vote nor are waited for.
    assert_eq!(got[64..], [0x5555 + 2 + 4; 16]);
}

#[test]
fn matches_and_reductions() {
    let text = "shr.u32 %r1, %t, 3;\nmatch.any.sync.b32 %r2, %r1, -1;\nst.global.u32 [%at], %r2;\n\
                mov.u64 %d1, 5;\nmatch.all.sync.b64 %r3|%p1, %d1, -1;\nmatch.all.sync.b32 %r4|%p2, %r1, -1;\n\
                selp.u32 %r5, 1, 0, %p1;\n@!%p2 add.u32 %r5, %r5, 2;\nsetp.eq.u32 %p3, %r3, -1;\n@%p3 add.u32 %r5, %r5, 4;\n\
                setp.eq.u32 %p3, %r4, 0;\n@%p3 add.u32 %r5, %r5, 8;\nst.global.u32 [%at+128], %r5;\n\
                sub.u32 %r6, %t, 16;\nredux.sync.add.s32 %r7, %r6, -1;\nst.global.u32 [%at+256], %r7;\n\
                redux.sync.min.s32 %r7, %r6, -1;\nst.global.u32 [%at+384], %r7;\nredux.sync.min.u32 %r7, %r6, -1;\n\
                st.global.u32 [%at+512], %r7;\nredux.sync.xor.b32 %r7, %r6, -1;\nst.global.u32 [%at+640], %r7;";
    let got = run(text, 32, 192);
    for t in 0..32 {
        assert_eq!(got[t], 0xff << (t / 8 * 8));
        assert_eq!(got[32 + t], 15);
        assert_eq!(got[64 + t], -16i32 as u32);
        assert_eq!(got[96 + t], -16i32 as u32);
        assert_eq!(got[128 + t], 0);
        assert_eq!(got[160 + t], (0..32).fold(0, |x, t| x ^ (t - 16) as u32));
    }
}

#[test]
fn parts_of_a_warp() {
    // The halves go different ways and each exchanges among its own.
    let text = "setp.lt.u32 %p1, %t, 16;\n@%p1 bra LOW;\n\
                shfl.sync.bfly.b32 %r1, %t, 1, 31, 0xffff0000;\nactivemask.b32 %r2;\nelect.sync %r3|%p2, 0xffff0000;\nbra DONE;\n\
                LOW:\nshfl.sync.bfly.b32 %r1, %t, 2, 31, 0x0000ffff;\nactivemask.b32 %r2;\nelect.sync %r3|%p2, 0x0000ffff;\n\
                DONE:\nselp.u32 %r4, 100, 0, %p2;\nadd.u32 %r1, %r1, %r4;\nadd.u32 %r1, %r1, %r2;\nadd.u32 %r1, %r1, %r3;\n\
                st.global.u32 [%at], %r1;";
    for (t, got) in run(text, 32, 32).into_iter().enumerate() {
        let want = match t {
            0..16 => (t ^ 2) as u32 + 0xffff + if t == 0 { 100 } else { 0 },
            _ => (t ^ 1) as u32 + 0xffff_0000 + 16 + if t == 16 { 100 } else { 0 },
        };
        assert_eq!(got, want, "thread {t}");
    }
}

#[test]
fn one_instruction_with_several_masks() {
    // Both halves stand at the same instruction, each with its own mask.
    let text = "setp.lt.u32 %p1, %t, 16;\nselp.b32 %r1, 0xffff, 0xffff0000, %p1;\nredux.sync.add.u32 %r2, %t, %r1;\n\
                st.global.u32 [%at], %r2;";
    let got = run(text, 32, 32);
    assert_eq!((got[0], got[31]), (120, 120 + 256));
}

#[test]
fn members_that_never_arrive() {
    let wait = "setp.lt.u32 %p1, %t, 16;\n@%p1 bra LOW;\nshfl.sync.idx.b32 %r1, %t, 0, 31, -1;\nbra DONE;\n\
                LOW:\nshfl.sync.idx.b32 %r1, %t, 0, 31, -1;\nDONE:\n";
    let stop = Kernel::body(wait).stop(Dims::linear(1, 32), 32);
    assert_eq!(stop.kind(), StopKind::Divergence, "{stop}");
    let report = stop.to_string();
    assert!(report.contains("lanes 0xffff0000") && report.contains("lanes 0x0000ffff"), "{report}");

    let outside = Kernel::body("shfl.sync.idx.b32 %r1, %t, 0, 31, 0xffff;").stop(Dims::linear(1, 32), 32);
    assert_eq!(outside.kind(), StopKind::BadOperand);
    assert!(outside.text().contains("does not name the executing lane 16"), "{outside}");
}

#[test]
fn lanes_that_have_exited_are_not_waited_for() {
    let text = "setp.lt.u32 %p1, %t, 8;\n@%p1 exit;\nvote.sync.ballot.b32 %r1, 1, -1;\nbar.warp.sync -1;\nst.global.u32 [%at], %r1;";
    let got = run(text, 32, 32);
    assert_eq!(got[..8], [0; 8]);
    assert_eq!(got[8..], [0xffff_ff00; 24]);
}
