//! The example `kernel_report`: what it reads and what it concludes.

use super::kernel_report::Options;
use super::kernel_report_listing::{Statement, instructions, mix};
use super::kernel_report_model::{Floors, Load, Part};
use super::words;

#[test]
fn the_command_line() {
    let options = Options::parse(words(&["local", "--json", "counts"])).unwrap();
    assert_eq!((options.op.as_deref(), options.json), (Some("local"), Some("counts".into())));
    assert!(Options::parse(words(&["local", "gaussian"])).is_err());
    assert!(Options::parse(words(&["--csv"])).is_err());
}

#[test]
fn machine_instructions_run_as_often_as_their_line() {
    let listing = r#"
	.section	.text.k,"ax",@progbits
k:
	//## File ".nv_debug_ptx_txt", line 12
        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0010*/              @!P0 LDG.E R8, [R2.64] ;
	//## File ".nv_debug_ptx_txt", line 20
        /*0020*/             @!PT LDS RZ, [RZ] ;
        /*0030*/                   HMMA.16816.F32 R8, R4, R12, R8 ;
.L_x_1:
        /*0040*/                   EXIT ;
        /*0050*/                   NOP;
"#;
    let code = instructions(listing);
    let expected = [(12, "LDG"), (12, "LDG"), (20, "HMMA"), (20, "EXIT")];
    assert_eq!(code, expected.map(|(line, opcode)| (line, opcode.to_owned())));
    let statement = |line, instruction, executions| Statement { line, instruction, executions };
    // Line 12 was copied, as its load says, and line 20 was not. It holds two statements, one of them behind a branch.
    let mix = mix(
        &code,
        &[
            statement(12, "@%p1 ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1]", 6),
            statement(20, "bra $L__BB0_1", 1),
            statement(20, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1}", 7),
        ],
    );
    let expected = [("EXIT", 7), ("HMMA", 7), ("LDG", 6)].map(|(opcode, times)| (opcode.to_owned(), times));
    assert_eq!(mix.into_iter().collect::<Vec<_>>(), expected);
}

/// One second of each part of the machine at a time, and a little of everything else.
#[test]
fn the_busiest_part_binds() {
    let little = Load { device_bytes: 1, tensor_flops: 1, functions: 1, wavefronts: 1, instructions: 1 };
    let clocks = 132 * 1_755_000_000;
    for (load, part) in [
        (Load { device_bytes: 3_350_000_000_000, ..little }, Part::Memory),
        (Load { tensor_flops: 989_400_000_000_000, ..little }, Part::Tensor),
        (Load { functions: clocks / 2, ..little }, Part::Function),
        (Load { wavefronts: clocks, ..little }, Part::Shared),
        (Load { instructions: clocks * 4, ..little }, Part::Issue),
    ] {
        let (binds, seconds) = Floors::of(&load).binding();
        assert_eq!(binds, part);
        approx::assert_abs_diff_eq!(seconds, 1.0, epsilon = 1e-9);
    }
}
