//! `cp.async`: what is visible when.

use ptx_emulator::{Dims, StopKind};

use crate::common::{Kernel, run};

/// Shared memory of 16 bytes per thread at `%r1`, filled with ones; global source of 16 bytes per thread at `%d1`.
const SETUP: &str = ".shared .align 16 .b8 s[512];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, 16, %r1;\n\
                     st.shared.v4.u32 [%r1], {-1, -1, -1, -1};\nmul.wide.u32 %d1, %t, 16;\nadd.u64 %d1, %d1, %out;\n";

fn source() -> Vec<u32> {
    (0..128).collect()
}

fn copied(text: &str) -> Vec<u32> {
    let mut out = source();
    Kernel::body(&format!("{SETUP}{text}\nld.shared.u32 %r2, [%r1+8];\nst.global.u32 [%d1], %r2;"))
        .run(32, &mut out);
    out.into_iter().step_by(4).collect()
}

#[test]
fn nothing_is_visible_before_the_wait() {
    let third = |k: usize| 4 * k as u32 + 2;
    let before = copied("cp.async.cg.shared.global [%r1], [%d1], 16;");
    assert_eq!(before, [!0; 32]);
    let committed = copied("cp.async.cg.shared.global.L2::128B [%r1], [%d1], 16;\ncp.async.commit_group;");
    assert_eq!(committed, [!0; 32]);
    let one_allowed =
        copied("cp.async.cg.shared.global [%r1], [%d1], 16;\ncp.async.commit_group;\ncp.async.wait_group 1;");
    assert_eq!(one_allowed, [!0; 32]);
    for wait in ["cp.async.commit_group;\ncp.async.wait_group 0;", "cp.async.wait_all;"] {
        let after = copied(&format!("cp.async.ca.shared::cta.global [%r1], [%d1], 16;\n{wait}"));
        assert!(after.iter().enumerate().all(|(k, got)| *got == third(k)), "{wait}");
    }
    // An older group is done when one younger may be in flight; the younger is not.
    let older = copied(
        "cp.async.ca.shared.global [%r1+8], [%d1], 4;\ncp.async.commit_group;\ncp.async.ca.shared.global [%r1+8], [%d1+4], 4;\n\
         cp.async.commit_group;\ncp.async.wait_group 1;",
    );
    assert!(older.iter().enumerate().all(|(k, got)| *got == 4 * k as u32));
    let both = copied(
        "cp.async.ca.shared.global [%r1+8], [%d1], 4;\ncp.async.commit_group;\ncp.async.ca.shared.global [%r1+8], [%d1+4], 4;\n\
         cp.async.commit_group;\ncp.async.wait_group 0;",
    );
    assert!(both.iter().enumerate().all(|(k, got)| *got == 4 * k as u32 + 1));
}

#[test]
fn the_source_is_read_when_the_copy_is_issued() {
    let got = copied(
        "cp.async.ca.shared.global [%r1+8], [%d1+8], 8;\nst.global.u32 [%d1+8], 7;\ncp.async.wait_all;",
    );
    assert!(got.iter().enumerate().all(|(k, got)| *got == 4 * k as u32 + 2));
}

#[test]
fn short_sources_are_filled_with_zeros() {
    for bytes in [0u32, 4, 8, 10, 12, 16] {
        let text = format!("cp.async.cg.shared.global [%r1], [%d1], 16, {bytes};\ncp.async.wait_all;");
        for (k, got) in copied(&text).into_iter().enumerate() {
            let word = 4 * k as u32 + 2;
            let want = match bytes {
                0..=8 => 0,
                10 => word & 0xffff,
                _ => word,
            };
            assert_eq!(got, want, "{bytes} bytes, thread {k}");
        }
    }
    // A source of no bytes is not touched: it may be anywhere.
    let nowhere = copied(
        "mov.u64 %d2, 0;\nmov.u32 %r3, 0;\ncp.async.cg.shared.global [%r1], [%d2], 16, %r3;\ncp.async.wait_all;",
    );
    assert_eq!(nowhere, [0; 32]);
    let ignored = copied(
        "setp.lt.u32 %p1, %t, 8;\ncp.async.cg.shared.global [%r1], [%d1], 16, %p1;\ncp.async.wait_all;",
    );
    assert!(ignored.iter().enumerate().all(|(k, got)| *got == if k < 8 { 0 } else { 4 * k as u32 + 2 }));
}

#[test]
fn bad_copies() {
    for (text, kind) in [
        ("cp.async.cg.shared.global [%r1+8], [%d1], 16;", StopKind::Misaligned),
        ("cp.async.cg.shared.global [%r1], [%d1+8], 16;", StopKind::Misaligned),
        ("cp.async.cg.shared.global [%r1], [%d1+512], 16;", StopKind::OutOfBounds),
        ("cp.async.cg.shared.global [%r1+512], [%d1], 16;", StopKind::OutOfBounds),
        ("cp.async.ca.shared.global [%r1], [%d1], 8, 12;", StopKind::BadOperand),
    ] {
        let stop = Kernel::body(&format!("{SETUP}{text}")).stop(Dims::linear(1, 1), 128);
        assert_eq!(stop.kind(), kind, "{text}: {stop}");
    }
}

#[test]
fn each_lane_waits_for_its_own() {
    // Only even lanes wait.
    let text = "cp.async.ca.shared.global [%r1+8], [%d1+8], 4;\ncp.async.commit_group;\nand.b32 %r3, %t, 1;\nsetp.eq.u32 %p1, %r3, 0;\n\
                @%p1 cp.async.wait_group 0;";
    for (k, got) in copied(text).into_iter().enumerate() {
        assert_eq!(got, if k % 2 == 0 { 4 * k as u32 + 2 } else { !0 }, "lane {k}");
    }
    assert_eq!(run("cp.async.wait_all;\nst.global.u32 [%at], 1;", 1, 1), [1]);
}
