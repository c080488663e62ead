//! `ldmatrix`, `stmatrix`, `movmatrix`.

use ptx_emulator::{Arch, Config, Dims, Machine, StopKind};

use crate::harness::refusal;

/// Shared memory of the kernels below, in 16-bit elements: element `i` starts as `i`.
const ELEMENTS: usize = 2048;

/// Each lane's registers and shared memory, or why the launch stopped.
type Outcome = Result<(Vec<[u32; 4]>, Vec<u16>), Box<ptx_emulator::Stop>>;

/// Fills shared memory, lets each lane compute a row address from its table entry, executes the text, stores `%r0` … `%r3`
/// and, afterwards, shared memory.
fn execute(config: Config, target: &str, text: &str, offsets: [u32; 32]) -> Outcome {
    let ptx = format!(
        ".version 8.0\n.target {target}\n.address_size 64\n\
         .visible .entry k(.param .u64 k_in, .param .u64 k_out)\n{{\n\
         .reg .pred %p;\n.reg .b32 %t, %i, %v, %w, %base, %row, %r<4>;\n.reg .b64 %in, %out, %at, %generic;\n\
         .shared .align 128 .b8 tile[{}];\n\
         mov.u32 %t, %tid.x;\nld.param.u64 %in, [k_in];\nld.param.u64 %out, [k_out];\nmov.u32 %base, tile;\n\
         mov.u32 %i, %t;\n\
         FILL: shl.b32 %v, %i, 1;\nadd.u32 %w, %v, 1;\nshl.b32 %w, %w, 16;\nor.b32 %w, %w, %v;\n\
         shl.b32 %v, %i, 2;\nadd.u32 %v, %v, %base;\nst.shared.b32 [%v], %w;\nadd.u32 %i, %i, 32;\n\
         setp.lt.u32 %p, %i, {};\n@%p bra FILL;\nbar.sync 0;\n\
         mad.wide.u32 %at, %t, 4, %in;\nld.global.b32 %row, [%at];\nadd.u32 %row, %row, %base;\n\
         cvt.u64.u32 %generic, %row;\ncvta.shared.u64 %generic, %generic;\n\
         mad.lo.u32 %r0, %t, 4, 0x10000;\nadd.u32 %r1, %r0, 1;\nadd.u32 %r2, %r0, 2;\nadd.u32 %r3, %r0, 3;\n\
         {text}\n\
         mad.wide.u32 %at, %t, 16, %out;\nst.global.v4.b32 [%at], {{%r0, %r1, %r2, %r3}};\nbar.sync 0;\n\
         mov.u32 %i, %t;\n\
         DUMP: shl.b32 %v, %i, 2;\nadd.u32 %v, %v, %base;\nld.shared.b32 %w, [%v];\n\
         mad.wide.u32 %at, %i, 4, %out;\nst.global.b32 [%at+512], %w;\nadd.u32 %i, %i, 32;\n\
         setp.lt.u32 %p, %i, {};\n@%p bra DUMP;\nret;\n}}\n",
        2 * ELEMENTS,
        ELEMENTS / 2,
        ELEMENTS / 2,
    );
    let machine = Machine::new(config);
    let module = machine.load(&ptx).unwrap_or_else(|e| panic!("{text}: {e}"));
    let input = machine.alloc(128).expect("memory");
    let bytes: Vec<u8> = offsets.iter().flat_map(|x| x.to_le_bytes()).collect();
    machine.write(input, &bytes).expect("in bounds");
    let output = machine.alloc(512 + 2 * ELEMENTS as u64).expect("memory");
    let arguments: Vec<u8> = [input, output].iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = Dims { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    machine.launch(&module.entry("k").expect("the entry"), dims, &arguments)?;
    let mut bytes = vec![0; 512 + 2 * ELEMENTS];
    machine.read(output, &mut bytes).expect("in bounds");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let registers = (0..32).map(|l| std::array::from_fn(|i| word(16 * l + 4 * i))).collect();
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Ok((registers, (0..ELEMENTS).map(|i| half(512 + 2 * i)).collect()))
}

fn quiet() -> Config {
    Config::default().threads(1)
}

/// Rows of 64 elements, their 16-byte pieces exchanged as a swizzle does: lane l's row is row l, piece l % 8 ^ 5.
fn swizzled() -> [u32; 32] {
    std::array::from_fn(|l| 128 * (l as u32 % 32) + 16 * ((l as u32 % 8) ^ 5))
}

#[test]
fn ldmatrix_in_every_form() {
    let rows = swizzled();
    for (count, list) in [(1, "%r0"), (2, "%r0, %r1"), (4, "%r0, %r1, %r2, %r3")] {
        for trans in ["", ".trans"] {
            for (space, address) in [(".shared", "%row"), (".shared::cta", "%row"), ("", "%generic")] {
                let text =
                    format!("ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {{{list}}}, [{address}];");
                let (got, _) = execute(quiet(), "sm_80", &text, rows).unwrap_or_else(|e| panic!("{e}"));
                for lane in 0..32 {
                    for i in 0..4 {
                        let element = |row: usize, column: usize| rows[8 * i + row] / 2 + column as u32;
                        let (group, thread) = (lane / 4, lane % 4);
                        let want = if i >= count {
                            0x10000 + 4 * lane as u32 + i as u32
                        } else if trans.is_empty() {
                            element(group, 2 * thread) | element(group, 2 * thread + 1) << 16
                        } else {
                            element(2 * thread, group) | element(2 * thread + 1, group) << 16
                        };
                        assert_eq!(got[lane][i], want, "{text} lane {lane} register {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_offset_and_a_sink() {
    let rows: [u32; 32] = std::array::from_fn(|l| 128 * (l as u32 % 16));
    let text = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {_, %r1}, [%row+32];";
    let (got, _) = execute(quiet(), "sm_80", text, rows).unwrap_or_else(|e| panic!("{e}"));
    for lane in 0..32 {
        let first = (rows[8 + lane / 4] + 32) / 2 + 2 * (lane as u32 % 4);
        assert_eq!(got[lane][1], first | (first + 1) << 16, "lane {lane}");
        assert_eq!(got[lane][0], 0x10000 + 4 * lane as u32);
    }
}

#[test]
fn mistaken_addresses_stop_the_launch() {
    let text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1, %r2, %r3}, [%row];";
    let mut rows = swizzled();
    rows[13] += 8;
    let stop = execute(quiet(), "sm_80", text, rows).expect_err("misaligned");
    assert_eq!((stop.kind(), stop.thread()), (StopKind::Misaligned, Some([13, 0, 0])), "{stop}");
    rows[13] = 2 * ELEMENTS as u32;
    let stop = execute(quiet(), "sm_80", text, rows).expect_err("out of bounds");
    assert_eq!((stop.kind(), stop.thread()), (StopKind::OutOfBounds, Some([13, 0, 0])), "{stop}");
    // Lanes beyond 8 · x give no address.
    let text = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%row];";
    assert!(execute(quiet(), "sm_80", text, rows).is_ok());
    let text = "ldmatrix.sync.aligned.m8n8.x1.b16 {%r0}, [%in];";
    let stop = execute(quiet(), "sm_80", text, rows).expect_err("a global address");
    assert_eq!(stop.kind(), StopKind::OutOfBounds, "{stop}");
}

#[test]
fn a_partial_warp_stops_the_launch() {
    let text = "setp.lt.u32 %p, %t, 20;\n@%p movmatrix.sync.aligned.m8n8.trans.b16 %r0, %r1;";
    let stop = execute(quiet(), "sm_80", text, swizzled()).expect_err("20 lanes");
    assert_eq!(stop.kind(), StopKind::Divergence, "{stop}");
}

#[test]
fn movmatrix_transposes() {
    let text = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%row];\n\
                movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\n\
                ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r2}, [%row];\n\
                movmatrix.sync.aligned.m8n8.trans.b16 %r3, %r1;";
    let (got, _) = execute(quiet(), "sm_80", text, swizzled()).unwrap_or_else(|e| panic!("{e}"));
    for lane in 0..32 {
        assert_eq!(got[lane][1], got[lane][2], "lane {lane}: transposed in registers and on the way in");
        assert_eq!(got[lane][3], got[lane][0], "lane {lane}: twice is nothing");
    }
}

#[test]
fn stmatrix_undoes_ldmatrix() {
    let rows = swizzled();
    for trans in ["", ".trans"] {
        // Store what was loaded from row l to row 31 − l of the same piece.
        let text = format!(
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r0, %r1, %r2, %r3}}, [%row];\nbar.sync 0;\n\
             sub.u32 %v, 31, %t;\nshl.b32 %v, %v, 7;\nadd.u32 %v, %v, %base;\n\
             stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%v], {{%r0, %r1, %r2, %r3}};"
        );
        let config = quiet().arch(Arch::Sm90);
        let (_, shared) = execute(config, "sm_90", &text, rows).unwrap_or_else(|e| panic!("{e}"));
        for matrix in 0..4 {
            for row in 0..8 {
                for column in 0..8 {
                    let (from, at) = if trans.is_empty() { (row, column) } else { (column, row) };
                    let want = rows[8 * matrix + from] / 2 + at as u32;
                    let place = 64 * (31 - (8 * matrix + row)) + column;
                    assert_eq!(u32::from(shared[place]), want, "x4{trans} matrix {matrix} {row} {column}");
                }
            }
        }
    }
}

#[test]
fn stmatrix_needs_a_newer_device() {
    let text = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%row], {%r0};";
    for arch in [Arch::Sm80, Arch::Sm86] {
        let stop = execute(quiet().arch(arch), "sm_90", text, swizzled()).expect_err("too old");
        assert_eq!(stop.kind(), StopKind::BadOperand, "{stop}");
    }
}

#[test]
fn forms_that_do_not_exist_are_refused() {
    let registers = ".reg .b32 %r<4>; .reg .b32 %row;";
    for (text, reason) in [
        ("ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r0, %r1, %r2}, [%row];", "x1"),
        ("ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0, %r1}, [%row];", "m8n8"),
        ("ldmatrix.sync.m8n8.x1.shared.b16 {%r0}, [%row];", "aligned"),
        ("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0}, [%row];", "2 elements"),
        ("ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r0}, [%row];", "global"),
        ("movmatrix.sync.aligned.m8n8.b16 %r0, %r1;", "trans"),
    ] {
        let error = refusal(registers, text);
        assert!(error.contains("line 7") && error.contains(reason), "{text}\n{error}");
    }
}
