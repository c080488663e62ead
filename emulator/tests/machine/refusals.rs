//! What is not understood is refused with its line and spelling.

use ptx_emulator::{Config, Dims, Machine};

use crate::common::{HEAD, Kernel};

fn refusal(ptx: &str) -> String {
    match Machine::new(Config::default()).load(ptx) {
        Ok(_) => panic!("accepted:\n{ptx}"),
        Err(error) => error.to_string(),
    }
}

/// Declarations on line 6 and the instruction on line 7.
fn instruction(text: &str) -> String {
    refusal(&format!(
        "{HEAD}.visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<8>; .reg .b64 %d<4>; .reg .f32 %f<4>;\n{text}\nret;\n}}\n"
    ))
}

#[test]
fn golden() {
    let cases = [
        ("frob.u32 %r1, %r2;", "ptx line 7: `frob.u32`: unknown instruction"),
        (
            "add.u32.quick %r1, %r2, %r3;",
            "ptx line 7: `add.u32.quick`: unknown or misplaced modifier `.quick`",
        ),
        ("add.rn.u32 %r1, %r2, %r3;", "ptx line 7: `add.rn.u32`: unknown or misplaced modifier `.rn`"),
        ("add.u8 %h1, %h2, %h3;", "ptx line 7: `add.u8`: not a type of this instruction"),
        ("add.u32 %r1, %r2;", "ptx line 7: `add.u32`: takes 3 operands, got 2"),
        ("mul.u32 %r1, %r2, %r3;", "ptx line 7: `mul.u32`: one of `.lo`, `.hi`, `.wide` is missing"),
        ("add.u64 %d1, %d2, %r1;", "ptx line 7: `%r1`: a register of 32 bits where 64 are wanted"),
        ("add.u32 %d1, %r2, %r1;", "ptx line 7: `%d1`: a register of 64 bits where 32 are written"),
        ("add.u32 %r1, %r2, %p1;", "ptx line 7: `%p1`: a predicate where a number is wanted"),
        ("mov.u32 %r1, %nosuch;", "ptx line 7: `%nosuch`: unknown register"),
        ("mov.u64 %d1, nosuch;", "ptx line 7: `nosuch`: unknown symbol"),
        ("bra NOWHERE;", "ptx line 7: `NOWHERE`: unknown label"),
        ("@%r1 ret;", "ptx line 7: `%r1`: not a predicate"),
        ("fma.f32 %f1, %f2, %f3, %f1;", "ptx line 7: `fma.f32`: a rounding mode is missing"),
        ("setp.ltu.s32 %p1, %r1, %r2;", "ptx line 7: `setp.ltu.s32`: not a comparison of this type"),
        (
            "cvt.u32.f32 %r1, %f1;",
            "ptx line 7: `cvt.u32.f32`: one of `.rni`, `.rzi`, `.rmi`, `.rpi` is missing",
        ),
        ("cvt.rn.f64.f32 %d1, %f1;", "ptx line 7: `cvt.rn.f64.f32`: no rounding to a wider type"),
        (
            "ld.shared::cluster.u32 %r1, [%r2];",
            "ptx line 7: `ld.shared::cluster.u32`: distributed shared memory is not supported",
        ),
        ("ld.global.v8.f32 %f1, [%d1];", "ptx line 7: `ld.global.v8.f32`: eight elements need sm_100"),
        ("st.const.u32 [%d1], %r1;", "ptx line 7: `st.const.u32`: constant memory cannot be stored to"),
        (
            "atom.global.add.b32 %r1, [%d1], %r2;",
            "ptx line 7: `atom.global.add.b32`: not an operation of this type",
        ),
        (
            "red.global.cas.b32 [%d1], %r2, %r1;",
            "ptx line 7: `red.global.cas.b32`: not an operation of this type",
        ),
        ("shfl.bfly.b32 %r1, %r2, 1, 31;", "ptx line 7: `shfl.bfly.b32`: `.sync` is missing"),
        (
            "wgmma.fence.sync.aligned;",
            "ptx line 7: `wgmma.fence.sync.aligned`: warpgroup matrix instructions are not supported",
        ),
        (
            "mbarrier.init.shared.b64 [%r1], 1;",
            "ptx line 7: `mbarrier.init.shared.b64`: asynchronous barriers are not supported",
        ),
        (
            "cp.async.bulk.commit_group;",
            "ptx line 7: `cp.async.bulk.commit_group`: bulk copies are not supported",
        ),
        ("barrier.cluster.arrive;", "ptx line 7: `barrier.cluster.arrive`: clusters are not supported"),
        (
            "setmaxnreg.inc.sync.aligned.u32 240;",
            "ptx line 7: `setmaxnreg.inc.sync.aligned.u32`: register reallocation are not supported",
        ),
        ("call vprintf;", "ptx line 7: `vprintf`: a function without a body cannot be called"),
        ("mov.u32 %r1, 0x1G;", "ptx line 7: `0x1G`: not a number"),
        ("mov.u32 %r1 %r2;", "ptx line 7: `%r2`: `;` is wanted here"),
        ("mov.u32 %r1, #;", "ptx line 7: `#`: not a character of PTX"),
        (".frob 3;", "ptx line 7: `.frob`: unknown directive"),
        (".reg .b24 %x;", "ptx line 7: `.b24`: unknown register type"),
        (".reg .b32 %x, %x;", "ptx line 7: `%x`: defined twice in one scope"),
        (".pragma \"faster\";", "ptx line 7: `\"faster\"`: unknown pragma"),
        ("{ ret; ", "ptx line 9: `end of text`: `}` is wanted here"),
        ("/* no end", "ptx line 7: `/*`: a comment without an end"),
    ];
    for (text, want) in cases {
        assert_eq!(instruction(text), want, "{text}");
    }
}

#[test]
fn directives() {
    assert_eq!(refusal(".version nine\n"), "ptx line 1: `nine`: a version is wanted here");
    assert_eq!(refusal(".address_size 32\n"), "ptx line 1: `32`: only 64-bit addresses are supported");
    assert_eq!(refusal(".target sm_80, fast\n"), "ptx line 1: `fast`: unknown target option");
    assert_eq!(refusal(&format!("{HEAD}.frob 1;\n")), "ptx line 4: `.frob`: unknown directive");
    assert_eq!(
        refusal(&format!("{HEAD}.entry k() .frob 3 {{ }}\n")),
        "ptx line 4: `.frob`: unknown directive of a function"
    );
    assert_eq!(
        refusal(&format!("{HEAD}.global .u32 x[2] = {{1,2,3}};\n")),
        "ptx line 4: `x`: 12 bytes of values for 8 bytes"
    );
    assert_eq!(
        refusal(&format!("{HEAD}.entry k(.param .u32 p)\n{{ ret;")),
        "ptx line 5: `end of text`: `}` is wanted here"
    );
}

#[test]
fn impossible_launches() {
    let kernel = Kernel::body("");
    let refuse = |dims: Dims, params: &[u8]| match kernel.machine.launch(&kernel.entry, dims, params) {
        Ok(_) => panic!("launched"),
        Err(stop) => stop.to_string(),
    };
    let dims = Dims::linear(1, 32);
    assert_eq!(refuse(dims, &[0; 7]), "error: 7 bytes of parameters; the kernel takes 8 in k");
    assert_eq!(
        refuse(Dims::linear(0, 32), &[0; 8]),
        "error: a grid of [0, 1, 1] blocks of [32, 1, 1] threads has none in k"
    );
    assert_eq!(
        refuse(Dims::linear(1, 1056), &[0; 8]),
        "error: a block of [1056, 1, 1] threads; at most 1024, and 64 along z in k"
    );
    assert_eq!(
        refuse(Dims { shared_bytes: 163 * 1024 + 1, ..dims }, &[0; 8]),
        "error: 166913 bytes of shared memory; sm_80 has 166912 in k"
    );
    assert!(refuse(Dims { grid: [1, 65536, 1], ..dims }, &[0; 8]).contains("65535"));
    let other = Machine::new(Config::default());
    let stop = other.launch(&kernel.entry, dims, &[0; 8]).expect_err("another machine");
    assert_eq!(stop.text(), "the kernel was loaded by another machine");
}
