//! Small kernels from text.

use ptx_emulator::{Config, Dims, Entry, Machine, Stop};

/// The head of every text.
pub const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A loaded kernel on a machine of its own.
pub struct Kernel {
    pub machine: Machine,
    pub entry: Entry,
}

impl Kernel {
    /// A kernel `k` with one pointer parameter `out`, held in `%out`; `%t` is the thread, `%at` the address of its
    /// 32-bit word of `out`, and there are `%r`, `%d` (64 bits), `%f`, `%h` (16 bits), `%p` to use.
    pub fn body(text: &str) -> Kernel {
        Kernel::module("", text)
    }

    /// As [`Kernel::body`], with declarations before the kernel.
    pub fn module(before: &str, text: &str) -> Kernel {
        let ptx = format!(
            "{HEAD}{before}\n.visible .entry k(.param .u64 k_out)\n{{\n\
             .reg .pred %p<16>;\n.reg .b16 %h<32>;\n.reg .b32 %r<64>;\n.reg .f32 %f<32>;\n.reg .b64 %d<32>;\n\
             .reg .b32 %t;\n.reg .b64 %out, %at;\n\
             ld.param.u64 %out, [k_out];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %at, %t, 4;\nadd.u64 %at, %at, %out;\n\
             {text}\nret;\n}}\n"
        );
        Kernel::text(&ptx)
    }

    /// A whole text with a kernel `k`.
    pub fn text(ptx: &str) -> Kernel {
        let machine = Machine::new(Config::default());
        let module = machine.load(ptx).unwrap_or_else(|error| panic!("{error}\n{}", numbered(ptx)));
        let entry = module.entry("k").expect("a kernel k");
        Kernel { machine, entry }
    }

    /// Runs it on `out`, one block of so many threads.
    pub fn run(&self, threads: u32, out: &mut [u32]) {
        self.run_with(&Config::default(), Dims::linear(1, threads), out)
            .unwrap_or_else(|stop| panic!("{stop}"));
    }

    /// Runs it on `out`.
    pub fn run_with(&self, config: &Config, dims: Dims, out: &mut [u32]) -> Result<(), Stop> {
        let bytes: Vec<u8> = out.iter().flat_map(|x| x.to_le_bytes()).collect();
        let address = self.machine.alloc(bytes.len() as u64).expect("memory");
        self.machine.write(address, &bytes).expect("in bounds");
        let result = self.machine.launch_with(config, &self.entry, dims, &address.to_le_bytes());
        let mut bytes = bytes;
        self.machine.read(address, &mut bytes).expect("in bounds");
        self.machine.free(address).expect("allocated");
        for (word, chunk) in out.iter_mut().zip(bytes.chunks(4)) {
            *word = u32::from_le_bytes(chunk.try_into().expect("four bytes"));
        }
        result.map(|_| ())
    }

    /// The report of a launch that must stop.
    pub fn stop(&self, dims: Dims, words: usize) -> Stop {
        self.run_with(&Config::default().threads(1), dims, &mut vec![0; words]).expect_err("must stop")
    }
}

/// Runs a kernel body on one block and returns its output.
pub fn run(text: &str, threads: u32, words: usize) -> Vec<u32> {
    let mut out = vec![0; words];
    Kernel::body(text).run(threads, &mut out);
    out
}

/// Every order of warps that tests try.
pub const SEEDS: [u64; 4] = [0, 1, 2, 99];

fn numbered(text: &str) -> String {
    text.lines().enumerate().map(|(k, line)| format!("{:4} {line}\n", k + 1)).collect()
}

/// One thread per row: applies `text` to `%a`, `%b`, `%c` (as many as there are columns) and returns `%d`.
/// Widths in bits; 1 means a predicate result.
pub fn apply(text: &str, columns: &[(u32, &[u64])], result: u32) -> Vec<u64> {
    let rows = columns[0].1.len();
    let names = ["a", "b", "c", "e"];
    let (mut registers, mut loads, mut params) = (String::new(), String::new(), String::new());
    for (k, (bits, values)) in columns.iter().enumerate() {
        assert_eq!(values.len(), rows);
        let name = names[k];
        registers += &format!(".reg .b{bits} %{name};\n");
        params += &format!(".param .u64 k_{k}, ");
        loads += &format!(
            "ld.param.u64 %at, [k_{k}];\nmad.wide.u32 %at, %i, 8, %at;\nld.global.b{bits} %{name}, [%at];\n"
        );
    }
    let stored = if result == 1 { 32 } else { result };
    let predicate = if result == 1 { "selp.b32 %d, 1, 0, %p;\n" } else { "" };
    let last = columns.len();
    let ptx = format!(
        "{HEAD}.visible .entry k({params}.param .u64 k_{last}, .param .u32 k_n)\n{{\n\
         .reg .pred %p, %q, %over;\n.reg .b32 %i, %n, %t, %s;\n.reg .b64 %at, %w;\n.reg .b16 %h;\n\
         {registers}.reg .b{stored} %d;\n\
         mov.u32 %t, %tid.x;\nmov.u32 %i, %ctaid.x;\nmov.u32 %n, %ntid.x;\nmad.lo.u32 %i, %i, %n, %t;\n\
         ld.param.u32 %n, [k_n];\nsetp.ge.u32 %over, %i, %n;\n@%over bra DONE;\n{loads}{text}\n{predicate}\
         ld.param.u64 %at, [k_{last}];\nmad.wide.u32 %at, %i, 8, %at;\nst.global.b{stored} [%at], %d;\n\
         DONE:\nret;\n}}\n"
    );
    let kernel = Kernel::text(&ptx);
    let machine = &kernel.machine;
    let mut arguments = Vec::new();
    let upload = |values: &[u64]| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let address = machine.alloc(bytes.len() as u64).expect("memory");
        machine.write(address, &bytes).expect("in bounds");
        address
    };
    for (_, values) in columns {
        arguments.extend(upload(values).to_le_bytes());
    }
    let out = upload(&vec![0; rows]);
    arguments.extend(out.to_le_bytes());
    arguments.extend((rows as u32).to_le_bytes());
    let dims = Dims::linear((rows as u32).div_ceil(96), 96);
    machine.launch(&kernel.entry, dims, &arguments).unwrap_or_else(|stop| panic!("{text}: {stop}"));
    let mut bytes = vec![0; rows * 8];
    machine.read(out, &mut bytes).expect("in bounds");
    bytes.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes"))).collect()
}

/// Numbers that instructions get wrong, cut to a width.
pub fn specials(bits: u32) -> Vec<u64> {
    let mask = ones(bits);
    let top = 1u64 << (bits - 1);
    let mut out: Vec<u64> =
        vec![0, 1, 2, 3, 5, 31, 32, 33, 63, 64, 100, 255, 256, 0x8000, 0xffff, 0x1_0001, 0xdead_beef];
    out.extend([top, top - 1, top + 1, mask, mask - 1, mask / 3, mask / 5 * 2, mask ^ (mask >> 4)]);
    out.extend([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
    out.iter_mut().for_each(|x| *x &= mask);
    out.sort_unstable();
    out.dedup();
    out
}

/// So many ones.
pub fn ones(bits: u32) -> u64 {
    if bits >= 64 { !0 } else { (1 << bits) - 1 }
}

/// A pattern as a number of this width and signedness.
pub fn number(x: u64, bits: u32, signed: bool) -> i128 {
    let x = x & ones(bits);
    if signed && x >> (bits - 1) & 1 != 0 { x as i128 - (1i128 << bits) } else { x as i128 }
}

/// All pairs, as columns.
pub fn pairs(a: &[u64], b: &[u64]) -> (Vec<u64>, Vec<u64>) {
    a.iter().flat_map(|x| b.iter().map(move |y| (*x, *y))).unzip()
}

/// All triples, as columns.
pub fn triples(a: &[u64], b: &[u64], c: &[u64]) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let mut out = (Vec::new(), Vec::new(), Vec::new());
    for x in a {
        for y in b {
            for z in c {
                out.0.push(*x);
                out.1.push(*y);
                out.2.push(*z);
            }
        }
    }
    out
}
