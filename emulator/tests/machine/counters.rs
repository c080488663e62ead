//! Counters on patterns whose sectors, wavefronts and products are worked out by hand.

use ptx_emulator::{Arch, Class, Config, Counts, Dims, Report};

use crate::common::Kernel;

/// Runs a body with counters on `bytes` of memory that begin at a multiple of 256.
fn report(text: &str, dims: Dims, bytes: u64, config: Config) -> Report {
    let kernel = Kernel::body(text);
    let out = kernel.machine.alloc(bytes).expect("memory");
    kernel.machine.fill(out, &[0], bytes).expect("in bounds");
    let config = config.counters(true);
    kernel
        .machine
        .launch_with(&config, &kernel.entry, dims, &out.to_le_bytes())
        .unwrap_or_else(|stop| panic!("{stop}"))
}

/// The counts of the one instruction that begins so, run by one full warp.
fn of(text: &str, begins: &str) -> Counts {
    let report = report(text, Dims::linear(1, 32), 1 << 16, Config::default());
    let mut lines = report.lines.iter().filter(|line| line.instruction.starts_with(begins));
    let line = lines.next().unwrap_or_else(|| panic!("no {begins}"));
    assert!(lines.next().is_none(), "more than one {begins}");
    line.counts
}

/// Requests, bytes, sectors and ideal sectors of a load from `out + offset + stride · thread`.
fn load(offset: u32, stride: u32, instruction: &str) -> [u64; 4] {
    let address =
        format!("mul.wide.u32 %d1, %t, {stride};\nadd.u64 %d1, %d1, %out;\nadd.u64 %d1, %d1, {offset};\n");
    let counts = of(&format!("{address}{instruction}"), "ld.global");
    assert_eq!((counts.executions, counts.lanes, counts.wavefronts), (1, 32, 0));
    [counts.global_requests, counts.global_bytes, counts.sectors, counts.ideal_sectors]
}

#[test]
fn sectors_of_loads() {
    let word = "ld.global.u32 %r1, [%d1];";
    // 32 lanes of 4 bytes are 128 bytes: 4 sectors of 32.
    assert_eq!(load(0, 4, word), [1, 128, 4, 4]);
    // Beginning in the middle of a sector they reach into a fifth.
    assert_eq!(load(16, 4, word), [1, 128, 5, 4]);
    // Every other word: 256 bytes are touched, and half of them wanted.
    assert_eq!(load(0, 8, word), [1, 128, 8, 4]);
    // Rows of 128 bytes and more: a sector for each lane.
    assert_eq!(load(0, 128, word), [1, 128, 32, 4]);
    assert_eq!(load(0, 2048, word), [1, 128, 32, 4]);
    // Everyone reads the same word: 4 bytes are wanted.
    assert_eq!(load(0, 0, word), [1, 128, 1, 1]);
    // Vectors of 16 bytes: 512 bytes are 16 sectors, and twice the stride reads half of each two sectors.
    let vector = "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d1];";
    assert_eq!(load(0, 16, vector), [1, 512, 16, 16]);
    assert_eq!(load(0, 32, vector), [1, 512, 32, 16]);
    // 32 lanes of 2 bytes.
    assert_eq!(load(0, 2, "ld.global.u16 %r1, [%d1];"), [1, 64, 2, 2]);
    assert_eq!(load(2, 2, "ld.global.u16 %r1, [%d1];"), [1, 64, 3, 2]);
}

#[test]
fn sectors_of_stores_atomics_and_some_lanes() {
    let store = of("st.global.u32 [%at+16], %t;", "st.global");
    assert_eq!((store.global_requests, store.sectors, store.ideal_sectors), (1, 5, 4));
    let atomic = of("red.global.add.u32 [%out+64], %t;", "red");
    assert_eq!(
        (atomic.global_requests, atomic.global_bytes, atomic.sectors, atomic.ideal_sectors),
        (1, 128, 1, 1)
    );
    // Ten lanes are 40 bytes in 2 sectors; none are no request.
    let some = of("setp.lt.u32 %p1, %t, 10;\n@%p1 st.global.u32 [%at], %t;", "@%p1 st");
    assert_eq!((some.executions, some.lanes, some.global_requests), (1, 10, 1));
    assert_eq!((some.global_bytes, some.sectors, some.ideal_sectors), (40, 2, 2));
    let none = of("setp.gt.u32 %p1, %t, 99;\n@%p1 st.global.u32 [%at], %t;", "@%p1 st");
    assert_eq!((none.executions, none.lanes, none.global_requests, none.sectors), (1, 0, 0, 0));
}

#[test]
fn generic_accesses_count_for_what_they_reach() {
    let global = of("st.u32 [%at], %t;", "st.u32");
    assert_eq!((global.sectors, global.wavefronts), (4, 0));
    let text = ".shared .align 16 .b8 s[128];\nmov.u64 %d1, s;\ncvta.shared.u64 %d1, %d1;\nmul.wide.u32 %d2, %t, 4;\n\
                add.u64 %d1, %d1, %d2;\nst.u32 [%d1], %t;";
    let shared = of(text, "st.u32");
    assert_eq!((shared.sectors, shared.global_requests), (0, 0));
    assert_eq!((shared.wavefronts, shared.ideal_wavefronts), (1, 1));
}

/// Requests, bytes, wavefronts and ideal ones of an access to `s + stride · thread`.
fn shared(stride: u32, instruction: &str, begins: &str) -> [u64; 4] {
    let setup =
        format!(".shared .align 16 .b8 s[8192];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, {stride}, %r1;\n");
    let counts = of(&format!("{setup}{instruction}"), begins);
    assert_eq!(counts.sectors, 0);
    [counts.shared_requests, counts.shared_bytes, counts.wavefronts, counts.ideal_wavefronts]
}

#[test]
fn wavefronts_of_loads_and_stores() {
    let word = |stride| shared(stride, "st.shared.u32 [%r1], %t;", "st.shared");
    assert_eq!(word(4), [1, 128, 1, 1]);
    // Stride 2: lanes l and l + 16 meet.
    assert_eq!(word(8), [1, 128, 2, 1]);
    // Stride 32: all on bank 0. Stride 33: each on its own.
    assert_eq!(word(128), [1, 128, 32, 1]);
    assert_eq!(word(132), [1, 128, 1, 1]);
    assert_eq!(shared(0, "ld.shared.u32 %r2, [%r1];", "ld.shared"), [1, 128, 1, 1]);
    let two = |stride| shared(stride, "ld.shared.v2.u32 {%r2, %r3}, [%r1];", "ld.shared");
    assert_eq!(two(8), [1, 256, 2, 2]);
    // 16 lanes of a phase on rows of 16 bytes: lanes l and l + 8 meet.
    assert_eq!(two(16), [1, 256, 4, 2]);
    let four = |stride| shared(stride, "ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [%r1];", "ld.shared");
    assert_eq!(four(16), [1, 512, 4, 4]);
    // 8 lanes of a phase on rows of 128 bytes all meet; on rows of 144 bytes none do.
    assert_eq!(four(128), [1, 512, 32, 4]);
    assert_eq!(four(144), [1, 512, 4, 4]);
    // Atomics on one word take turns.
    assert_eq!(shared(0, "atom.shared.add.u32 %r2, [%r1], 1;", "atom"), [1, 128, 32, 1]);
    assert_eq!(shared(4, "atom.shared.add.u32 %r2, [%r1], 1;", "atom"), [1, 128, 1, 1]);
}

#[test]
fn wavefronts_of_matrices() {
    let four = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r2, %r3, %r4, %r5}, [%r1];";
    // 32 rows of 16 bytes: 8 rows that follow each other fill the banks; 8 rows of 128 bytes meet on four banks.
    assert_eq!(shared(16, four, "ldmatrix"), [1, 512, 4, 4]);
    assert_eq!(shared(144, four, "ldmatrix"), [1, 512, 4, 4]);
    assert_eq!(shared(128, four, "ldmatrix"), [1, 512, 32, 4]);
    assert_eq!(shared(64, four, "ldmatrix"), [1, 512, 16, 4]);
    // Of x1 and x2 only the first 8 and 16 lanes' rows.
    let one = "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r2}, [%r1];";
    assert_eq!(shared(128, one, "ldmatrix"), [1, 128, 8, 1]);
    let two = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r2, %r3}, [%r1];";
    assert_eq!(shared(16, two, "ldmatrix"), [1, 256, 2, 2]);
}

#[test]
fn copies_count_on_both_sides() {
    let copy = |source: u32, target: u32, instruction: &str| {
        let text = format!(
            ".shared .align 16 .b8 s[8192];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, {target}, %r1;\n\
             mul.wide.u32 %d1, %t, {source};\nadd.u64 %d1, %d1, %out;\n{instruction}\ncp.async.wait_all;"
        );
        let c = of(&text, "cp.async.c");
        [c.global_bytes, c.sectors, c.ideal_sectors, c.shared_bytes, c.wavefronts, c.ideal_wavefronts]
    };
    let whole = "cp.async.cg.shared.global [%r1], [%d1], 16;";
    assert_eq!(copy(16, 16, whole), [512, 16, 16, 512, 4, 4]);
    assert_eq!(copy(32, 128, whole), [512, 32, 16, 512, 32, 4]);
    assert_eq!(copy(4, 4, "cp.async.ca.shared.global [%r1], [%d1], 4;"), [128, 4, 4, 128, 1, 1]);
    // Four bytes of each sixteen are read, from every sector; all are written.
    assert_eq!(copy(16, 16, "cp.async.cg.shared.global [%r1], [%d1], 16, 4;"), [128, 16, 4, 512, 4, 4]);
    // Zeros only: nothing is read.
    assert_eq!(copy(16, 16, "cp.async.cg.shared.global [%r1], [%d1], 16, 0;"), [0, 0, 0, 512, 4, 4]);
}

#[test]
fn distinct_sectors_of_a_launch() {
    // 4 blocks of 64 threads read the same 256 bytes and write the first word of a row of 128 bytes each.
    let text = "ld.global.u32 %r1, [%at+4096];\nmov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r2, %r2, 64, %t;\n\
                mul.wide.u32 %d1, %r2, 128;\nadd.u64 %d1, %d1, %out;\nst.global.u32 [%d1+8192], %r1;";
    for threads in [1, 3] {
        let report = report(text, Dims::linear(4, 64), 1 << 16, Config::default().threads(threads));
        let totals = report.totals();
        // Eight warps: 4 sectors for each load, 32 for each store.
        assert_eq!((totals.sectors, totals.ideal_sectors), (8 * 4 + 8 * 32, 8 * 4 + 8 * 4));
        assert_eq!(report.requested_bytes(), 32 * 288);
        let [buffer] = report.buffers[..] else { panic!("{:?}", report.buffers) };
        assert_eq!((buffer.bytes, buffer.read_sectors, buffer.written_sectors), (1 << 16, 8, 256));
        assert_eq!((report.read_bytes(), report.written_bytes()), (256, 8192));
    }
    // An atomic reads and writes.
    let report = report("red.global.add.u32 [%at], 1;", Dims::linear(2, 32), 128, Config::default());
    assert_eq!((report.read_bytes(), report.written_bytes()), (128, 128));
}

#[test]
fn one_request_to_two_allocations() {
    let kernel = Kernel::text(
        ".version 8.0\n.target sm_80\n.address_size 64\n.const .align 4 .b8 table[256];\n\
         .visible .entry k(.param .u64 a, .param .u64 b)\n{\n.reg .pred %p;\n.reg .b32 %t, %x, %c;\n.reg .b64 %a, %b;\n\
         ld.param.u64 %a, [a];\nld.param.u64 %b, [b];\nmov.u32 %t, %tid.x;\nsetp.lt.u32 %p, %t, 8;\n\
         selp.b64 %a, %a, %b, %p;\nmad.wide.u32 %a, %t, 4, %a;\nld.global.u32 %x, [%a];\nmov.u64 %b, table;\n\
         ld.const.u32 %c, [%b];\nret;\n}\n",
    );
    let [a, b] = [0, 1].map(|_| kernel.machine.alloc(128).expect("memory"));
    for address in [a, b] {
        kernel.machine.fill(address, &[0], 128).expect("in bounds");
    }
    let params = [a.to_le_bytes(), b.to_le_bytes()].concat();
    let config = Config::default().counters(true);
    let report =
        kernel.machine.launch_with(&config, &kernel.entry, Dims::linear(1, 32), &params).expect("runs");
    // Lanes 0 to 7 read one sector of a, lanes 8 to 31 three of b; constants are not device memory.
    let touched: Vec<_> = report.buffers.iter().map(|x| (x.address, x.read_sectors)).collect();
    assert_eq!(touched, [(a, 1), (b, 3)]);
    let totals = report.totals();
    assert_eq!((totals.global_requests, totals.sectors, totals.ideal_sectors), (1, 4, 4));
}

#[test]
fn products_of_tensor_cores() {
    let product = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, \
                   {%r4, %r5}, {%f0, %f1, %f2, %f3};\n";
    let text = format!("{}{product}{product}", "mov.u32 %r0, 0;\n");
    let report = report(&text, Dims::linear(3, 64), 256, Config::default());
    // 2 · 16 · 8 · 16 each, two of them, in six warps.
    assert_eq!(report.totals().tensor_flops, 4096 * 2 * 6);
    let tensor = report.mix().into_iter().find(|(class, _)| *class == Class::Tensor).expect("products");
    assert_eq!((tensor.1.executions, tensor.1.lanes), (12, 12 * 32));
}

#[test]
fn the_mix_adds_up() {
    let text = "add.u32 %r1, %t, 1;\nadd.u32 %r1, %r1, 1;\ncvt.rn.f32.u32 %f1, %r1;\nfma.rn.f32 %f1, %f1, %f1, %f1;\n\
                ex2.approx.f32 %f1, %f1;\nst.global.f32 [%at], %f1;\nbar.sync 0;";
    let report = report(text, Dims::linear(1, 96), 384, Config::default().arch(Arch::Sm90));
    let mix: Vec<(Class, u64)> =
        report.mix().into_iter().map(|(class, counts)| (class, counts.executions)).collect();
    let by_hand = [
        (Class::F32, 1),
        (Class::Function, 1),
        // Two, and of the frame `mul.wide` and `add`.
        (Class::Integer, 4),
        (Class::Convert, 1),
        // Of the frame, `%tid.x`.
        (Class::Move, 1),
        (Class::Global, 1),
        (Class::Param, 1),
        (Class::Barrier, 1),
        (Class::Branch, 1),
    ];
    assert_eq!(mix, by_hand.map(|(class, count)| (class, 3 * count)));
    assert_eq!(mix.iter().map(|(_, count)| count).sum::<u64>(), report.warp_instructions);
}

#[test]
fn counts_do_not_depend_on_host_threads_seeds_or_checks() {
    let text = ".shared .align 16 .b8 s[256];\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %t, 4, %r1;\nst.shared.u32 [%r1], %t;\n\
                bar.sync 0;\nmov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r2, %r2, 64, %t;\nmul.wide.u32 %d1, %r2, 4;\n\
                add.u64 %d1, %d1, %out;\nld.shared.u32 %r3, [%r1];\nst.global.u32 [%d1], %r3;";
    let of = |config| report(text, Dims::linear(9, 64), 9 * 256, config);
    let plain = of(Config::default().threads(1));
    for config in [
        Config::default().threads(4),
        Config::default().seed(1),
        Config::default().seed(5).threads(2),
        Config::default().checks(true),
    ] {
        let other = of(config);
        assert_eq!((other.lines, other.buffers[0].written_sectors), (plain.lines.clone(), 72));
    }
}

#[test]
fn json_holds_the_report() {
    let report = report("st.global.u32 [%at], %t;", Dims::linear(1, 32), 128, Config::default());
    let json = report.to_json();
    for part in [
        "\"kernel\": \"k\"",
        "\"written_bytes\": 128",
        "\"instruction\": \"st.global.u32 [%at], %t\", \"class\": \"global\", \"executions\": 1, \"lanes\": 32, \
         \"global_requests\": 1, \"global_bytes\": 128, \"sectors\": 4, \"ideal_sectors\": 4}",
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
}
