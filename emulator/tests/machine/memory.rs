//! Loads and stores of every space and width, and the reports of those that are wrong.

use ptx_emulator::{Config, Dims, Machine, MemoryError, StopKind};

use crate::common::{HEAD, Kernel, run};

#[test]
fn widths_and_signs() {
    // Each load sees the bytes 0x80 0x81 … and extends them as its type says.
    let mut out = vec![0u32; 16];
    out[8] = 0x8382_8180;
    out[9] = 0x8786_8584;
    let text = "ld.global.u8 %r1, [%out+32];\nst.global.u32 [%out], %r1;\n\
                ld.global.s8 %r1, [%out+33];\nst.global.u32 [%out+4], %r1;\n\
                ld.global.u16 %r1, [%out+34];\nst.global.u32 [%out+8], %r1;\n\
                ld.global.s16 %r1, [%out+34];\nst.global.u32 [%out+12], %r1;\n\
                ld.global.s32 %d1, [%out+32];\nst.global.u64 [%out+16], %d1;\n\
                ld.global.u8 %d1, [%out+39];\nst.global.b16 [%out+24], %d1;\n\
                ld.global.s8 %h1, [%out+39];\nst.global.b16 [%out+26], %h1;\n\
                st.global.u8 [%out+28], %h1;\nst.global.u8 [%out+29], %d1;";
    Kernel::body(text).run(1, &mut out);
    assert_eq!(out[..4], [0x80, 0xffff_ff81, 0x8382, 0xffff_8382]);
    assert_eq!(out[4..6], [0x8382_8180, 0xffff_ffff]);
    assert_eq!(out[6], 0xff87_0087);
    assert_eq!(out[7], 0x0000_8787);
}

#[test]
fn vectors_in_every_space() {
    for (space, declared, base) in [
        ("shared", ".shared .align 16 .b8 buffer[2048];", "mov.u64 %d2, buffer;"),
        ("local", ".local .align 16 .b8 buffer[16];", "mov.u64 %d2, buffer;"),
        ("global", "", "add.u64 %d2, %out, 1024;"),
    ] {
        let per_thread =
            if space == "local" { "" } else { "mul.wide.u32 %d3, %t, 16;\nadd.u64 %d2, %d2, %d3;" };
        let text = format!(
            "{declared}\n{base}\n{per_thread}\n\
             add.u32 %r1, %t, 1;\nadd.u32 %r2, %t, 2;\nadd.u32 %r3, %t, 3;\nadd.u32 %r4, %t, 4;\n\
             st.{space}.v4.u32 [%d2], {{%r1, %r2, %r3, %r4}};\n\
             ld.{space}.v2.u64 {{%d4, %d5}}, [%d2];\n\
             ld.{space}.v2.u32 {{%r5, %r6}}, [%d2+8];\n\
             ld.{space}.v4.u8 {{%r7, _, _, _}}, [%d2+4];\n\
             shr.u64 %d5, %d5, 32;\ncvt.u32.u64 %r8, %d5;\n\
             add.u32 %r5, %r5, %r6;\nadd.u32 %r5, %r5, %r7;\nadd.u32 %r5, %r5, %r8;\nst.global.u32 [%at], %r5;"
        );
        let got = run(&text, 40, 1024);
        for (t, got) in got.iter().take(40).enumerate() {
            assert_eq!(*got as usize, (t + 3) + (t + 4) + (t + 2) + (t + 4), "{space} thread {t}");
        }
    }
}

#[test]
fn generic_addresses_find_their_space() {
    // Lanes of one load point to shared, local, global and parameter memory.
    let text = ".shared .align 4 .u32 s;\n.local .align 4 .u32 l;\n\
                mov.u64 %d1, s;\ncvta.shared.u64 %d1, %d1;\nmov.u64 %d2, l;\ncvta.local.u64 %d2, %d2;\n\
                add.u64 %d3, %out, 64;\ncvta.global.u64 %d3, %d3;\n\
                mov.b64 %d6, k_out;\ncvta.param.u64 %d4, %d6;\n\
                st.u32 [%d1], 11;\nst.u32 [%d2], 22;\nst.u32 [%d3], 33;\n\
                and.b32 %r1, %t, 3;\nsetp.eq.u32 %p1, %r1, 1;\nsetp.eq.u32 %p2, %r1, 2;\nsetp.eq.u32 %p3, %r1, 3;\n\
                mov.u64 %d5, %d1;\n@%p1 mov.u64 %d5, %d2;\n@%p2 mov.u64 %d5, %d3;\n@%p3 mov.u64 %d5, %d4;\n\
                ld.u32 %r2, [%d5];\n@%p3 cvt.u32.u64 %r3, %out;\n@%p3 sub.u32 %r2, %r2, %r3;\n\
                isspacep.shared %p4, %d5;\nisspacep.global %p5, %d5;\n@%p4 add.u32 %r2, %r2, 100;\n\
                @%p5 add.u32 %r2, %r2, 200;\nst.global.u32 [%at], %r2;";
    let got = run(text, 8, 32);
    assert_eq!(got[..8], [111, 22, 233, 0, 111, 22, 233, 0]);
}

#[test]
fn parameters_by_offset() {
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .align 8 .b8 k_p[24], .param .u8 k_q, .param .f64 k_r)\n{{\n\
         .reg .b64 %d<4>; .reg .b32 %r<4>; .reg .f64 %x;\n\
         ld.param.u64 %d1, [k_p];\nld.param.v2.u32 {{%r1, %r2}}, [k_p+8];\nld.param.u16 %r3, [k_p+16];\n\
         st.global.u32 [%d1], %r1;\nst.global.u32 [%d1+4], %r2;\nst.global.u32 [%d1+8], %r3;\n\
         ld.param.u8 %r1, [k_q];\nst.global.u32 [%d1+12], %r1;\n\
         ld.param.f64 %x, [k_r];\nst.global.f64 [%d1+16], %x;\nret;\n}}\n"
    );
    let kernel = Kernel::text(&ptx);
    let offsets: Vec<_> = kernel.entry.params().iter().map(|p| (p.offset, p.size, p.align)).collect();
    assert_eq!(offsets, [(0, 24, 8), (24, 1, 1), (32, 8, 8)]);
    assert_eq!(kernel.entry.param_bytes(), 40);
    let out = kernel.machine.alloc(24).expect("memory");
    let mut params = out.to_le_bytes().to_vec();
    params.extend([1u8, 0, 0, 0, 2, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    params.extend(2.5f64.to_le_bytes());
    kernel.machine.launch(&kernel.entry, Dims::linear(1, 1), &params).expect("runs");
    let mut bytes = [0; 24];
    kernel.machine.read(out, &mut bytes).expect("in bounds");
    assert_eq!(bytes[..16], [1, 0, 0, 0, 2, 0, 0, 0, 3, 4, 0, 0, 5, 0, 0, 0]);
    assert_eq!(bytes[16..], 2.5f64.to_le_bytes());
}

#[test]
fn module_variables() {
    let before = ".visible .global .align 4 .u32 counter = 5;\n.const .align 8 .u64 table[3] = {1, 0x10, 300};\n\
                  .global .align 8 .u64 pointer = generic(counter)+4;\n.global .align 4 .f32 numbers[] = {0f3F800000, 2.5};\n\
                  .global .align 1 .b8 text[4] = {104, 105, 33};\n.global .align 4 .u32 grid[2][3] = {{1,2,3},{4,5,6}};";
    let text = "ld.global.u32 %r1, [counter];\nst.global.u32 [%out], %r1;\nadd.u32 %r1, %r1, 1;\nst.global.u32 [counter], %r1;\n\
                ld.const.u64 %d1, [table+16];\nst.global.u32 [%out+4], %d1;\n\
                ld.global.u64 %d1, [pointer];\nld.u32 %r2, [%d1-4];\nst.global.u32 [%out+8], %r2;\n\
                ld.global.f32 %f1, [numbers+4];\nst.global.f32 [%out+12], %f1;\n\
                ld.global.u8 %r1, [text+1];\nst.global.u32 [%out+16], %r1;\nld.global.u32 %r1, [grid+16];\n\
                st.global.u32 [%out+20], %r1;\nmov.u64 %d1, grid;\nld.global.u32 %r1, [%d1+4];\nst.global.u32 [%out+24], %r1;";
    let kernel = Kernel::module(before, text);
    let mut out = vec![0; 8];
    kernel.run(1, &mut out);
    assert_eq!(out[..7], [5, 300, 6, 2.5f32.to_bits(), 105, 5, 2]);
    // Variables keep their values between launches.
    kernel.run(1, &mut out);
    assert_eq!(out[0], 6);
}

#[test]
fn out_of_bounds() {
    // Thread 30 is the first outside.
    let kernel = Kernel::module(
        ".file 1 \"kernel.cu\"",
        "mov.u32 %r1, %tid.y;\nmad.lo.u32 %r1, %r1, 8, %t;\nmul.wide.u32 %d1, %r1, 4;\nadd.u64 %d1, %d1, %out;\n\
         .loc 1 9 1\nst.global.u32 [%d1], %t;",
    );
    let stop = kernel.stop(Dims { grid: [2, 1, 1], block: [8, 4, 1], shared_bytes: 0 }, 30);
    assert_eq!(stop.kind(), StopKind::OutOfBounds);
    assert_eq!((stop.block(), stop.thread()), (Some([0, 0, 0]), Some([6, 3, 0])));
    assert_eq!(stop.source(), Some(("kernel.cu", 9)));
    let report = stop.to_string();
    let base =
        report.split("at 0x").nth(1).and_then(|s| s.split(':').next()).expect("an address").to_string();
    assert_eq!(
        report.replace(&base, "ADDRESS"),
        format!(
            "error: out-of-bounds global write of 4 bytes at 0xADDRESS: 0 bytes behind the end of 120 bytes at \
             0x{:x} in k\n  block (0,0,0) thread (6,3,0)   kernel.cu:9   ptx line {}   st.global.u32 [%d1], %t",
            u64::from_str_radix(&base, 16).expect("hex") - 120,
            stop.ptx_line()
        )
    );
}

#[test]
fn every_kind_of_bad_access() {
    let kinds = [
        ("ld.global.u32 %r1, [%out-4];", StopKind::OutOfBounds, "4 bytes before 64 bytes"),
        ("ld.global.u32 %r1, [%out+2];", StopKind::Misaligned, "misaligned global read of 4 bytes"),
        ("ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%out+8];", StopKind::Misaligned, "of 16 bytes"),
        ("ld.global.u64 %d1, [%out+52];", StopKind::Misaligned, "of 8 bytes"),
        ("ld.global.v2.u32 {%r1,%r2}, [%out+64];", StopKind::OutOfBounds, "0 bytes behind the end"),
        ("mov.u64 %d1, 0;\nld.global.u32 %r1, [%d1];", StopKind::OutOfBounds, "in no allocation"),
        ("mov.u64 %d1, 0;\nst.u32 [%d1+16], %t;", StopKind::OutOfBounds, "in no allocation"),
        (
            ".shared .u32 s[4];\nmov.u32 %r1, s;\nst.shared.u32 [%r1+16], %t;",
            StopKind::OutOfBounds,
            "shared write",
        ),
        ("mov.u32 %r1, 0;\nst.shared.u32 [%r1], %t;", StopKind::OutOfBounds, "bytes before"),
        (
            ".shared .u32 s[4];\nmov.u32 %r1, s;\nld.shared.v2.u32 {%r2,%r3}, [%r1+4];",
            StopKind::Misaligned,
            "shared read",
        ),
        (
            ".local .b8 l[8];\nmov.u64 %d1, l;\nld.local.u32 %r1, [%d1+8];",
            StopKind::OutOfBounds,
            "local read",
        ),
        ("ld.param.u32 %r1, [k_out+8];", StopKind::OutOfBounds, "parameter read"),
        (
            "mov.b64 %d1, k_out;\ncvta.param.u64 %d1, %d1;\nst.u32 [%d1], 1;",
            StopKind::ReadOnly,
            "parameter memory",
        ),
        ("atom.global.add.u32 %r1, [%out+64], 1;", StopKind::OutOfBounds, "global atomic access"),
        ("atom.global.add.u32 %r1, [%out+6], 1;", StopKind::Misaligned, "atomic"),
        ("trap;", StopKind::Trap, "trap"),
    ];
    for (text, kind, words) in kinds {
        let stop = Kernel::body(text).stop(Dims::linear(1, 1), 16);
        assert_eq!(stop.kind(), kind, "{text}: {stop}");
        assert!(stop.to_string().contains(words), "{text}: {stop}");
        assert_eq!(stop.thread(), Some([0, 0, 0]), "{text}");
    }
    let kernel = Kernel::module(".const .u32 c = 1;", "mov.u64 %d1, c;\nst.u32 [%d1], 2;");
    assert_eq!(kernel.stop(Dims::linear(1, 1), 16).kind(), StopKind::ReadOnly);
}

#[test]
fn guarded_lanes_do_not_touch_memory() {
    let got = run("setp.lt.u32 %p1, %t, 3;\n@%p1 st.global.u32 [%at], 9;\n@!%p1 mov.u32 %r1, 1;", 32, 3);
    assert_eq!(got, [9, 9, 9]);
}

#[test]
fn dynamic_shared_memory_follows_the_static() {
    let before = ".extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 unused[4096];";
    let text = ".shared .align 4 .b8 fixed[20];\nmov.u32 %r1, fixed;\nmov.u32 %r2, dynamic;\nsub.u32 %r3, %r2, %r1;\n\
                st.global.u32 [%out], %r3;\nmov.u32 %r4, %dynamic_smem_size;\nst.global.u32 [%out+4], %r4;\n\
                st.shared.u32 [%r2+60], 1;\nst.shared.u32 [%r2+64], 1;";
    let kernel = Kernel::module(before, text);
    assert_eq!(kernel.entry.static_shared_bytes(), 20);
    let dims = |bytes| Dims { grid: [1, 1, 1], block: [1, 1, 1], shared_bytes: bytes };
    let mut out = vec![0; 2];
    kernel.run_with(&Config::default(), dims(68), &mut out).expect("runs");
    assert_eq!(out, [32, 68]);
    let stop = kernel.stop(dims(64), 2);
    assert_eq!(stop.kind(), StopKind::OutOfBounds);
}

#[test]
fn host_side() {
    let machine = Machine::new(Config::default());
    let a = machine.alloc(100).expect("memory");
    assert_eq!(a % 256, 0);
    assert_eq!(machine.allocation(a + 99), Some((a, 100)));
    assert_eq!(machine.allocation(a + 101), None);
    machine.fill(a, &[1, 2, 3], 33).expect("in bounds");
    let mut out = [0; 7];
    machine.read(a + 92, &mut out).expect("in bounds");
    assert_eq!(out, [3, 1, 2, 3, 1, 2, 3]);
    assert!(matches!(machine.read(a + 95, &mut out), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(machine.write(a + 200, &[1]), Err(MemoryError::NotAllocated { .. })));
    machine.copy(a + 1, a, 50).expect("overlapping");
    let mut out = [0; 4];
    machine.read(a, &mut out).expect("in bounds");
    assert_eq!(out, [1, 1, 2, 3]);
    let b = machine.alloc(0).expect("empty");
    machine.read(b, &mut []).expect("empty");
    machine.free(b).expect("allocated");
    assert_eq!(machine.free(b), Err(MemoryError::NotABase { address: b }));
    assert_eq!(machine.free(a + 1), Err(MemoryError::NotABase { address: a + 1 }));
    machine.free(a).expect("allocated");
    assert!(machine.read(a, &mut out).is_err());
    assert!(matches!(machine.alloc(1 << 50), Err(MemoryError::OutOfMemory { .. })));
    // What nobody has written is NaN.
    let c = machine.alloc(8).expect("memory");
    machine.read(c, &mut out).expect("in bounds");
    assert!(f32::from_le_bytes(out).is_nan());
}
