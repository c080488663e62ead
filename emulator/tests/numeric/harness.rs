//! One instruction on many rows of operands.

use ptx_emulator::{Config, Dims, Machine};

/// Operand values as bits; the type says how many of them count.
pub type Bits = Vec<u64>;

/// Runs PTX text with the registers `%a`, `%b`, `%c` (as many as there are inputs) and `%d`, one thread per row. Types are
/// register types (`b16`, `f32`, …). A predicate `%p` and scratch registers `%s0`, `%s1` of 32 bits are declared too.
///
/// Runs once on the wide and once on a single-lane shape (blocks of 1 thread): the results must agree.
pub fn run(text: &str, inputs: &[(&str, &Bits)], output: &str) -> Bits {
    let results = run_in_blocks(text, inputs, output, 96);
    let few = inputs[0].1.len().min(40);
    let first: Vec<(&str, Bits)> = inputs.iter().map(|(ty, values)| (*ty, values[..few].to_vec())).collect();
    let first: Vec<(&str, &Bits)> = first.iter().map(|(ty, values)| (*ty, values)).collect();
    assert_eq!(run_in_blocks(text, &first, output, 1), results[..few], "{text}: alone and in a warp");
    results
}

fn bytes(ty: &str) -> usize {
    ty.trim_start_matches(|c: char| c.is_alphabetic()).parse::<usize>().expect("a type with a width") / 8
}

fn run_in_blocks(text: &str, inputs: &[(&str, &Bits)], output: &str, block: u32) -> Bits {
    let rows = inputs[0].1.len();
    let names = ["a", "b", "c"];
    let mut registers = String::new();
    let mut loads = String::new();
    for (k, (ty, values)) in inputs.iter().enumerate() {
        assert_eq!(values.len(), rows);
        let (name, width) = (names[k], bytes(ty));
        registers += &format!(".reg .{ty} %{name};\n");
        loads += &format!(
            "ld.param.u64 %at, [k_{k}];\nmad.wide.u32 %at, %i, {width}, %at;\nld.global.b{} %{name}, [%at];\n",
            8 * width
        );
    }
    let (width, last) = (bytes(output), inputs.len());
    let params: Vec<String> = (0..=last).map(|k| format!(".param .u64 k_{k}")).collect();
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k({}, .param .u32 k_n)\n{{\n\
         .reg .pred %out, %p;\n.reg .b32 %i, %n, %t, %s0, %s1;\n.reg .b64 %at;\n{registers}.reg .{output} %d;\n\
         mov.u32 %t, %tid.x;\nmov.u32 %i, %ctaid.x;\nmov.u32 %n, %ntid.x;\nmad.lo.u32 %i, %i, %n, %t;\n\
         ld.param.u32 %n, [k_n];\nsetp.ge.u32 %out, %i, %n;\n@%out bra DONE;\n{loads}{text}\n\
         ld.param.u64 %at, [k_{last}];\nmad.wide.u32 %at, %i, {width}, %at;\nst.global.b{} [%at], %d;\n\
         DONE: ret;\n}}\n",
        params.join(", "),
        8 * width,
    );
    let machine = Machine::new(Config::default().threads(1));
    let module = machine.load(&ptx).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut arguments = Vec::new();
    for (ty, values) in inputs {
        let width = bytes(ty);
        let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()[..width].to_vec()).collect();
        let address = machine.alloc(data.len() as u64).expect("memory");
        machine.write(address, &data).expect("in bounds");
        arguments.extend(address.to_le_bytes());
    }
    let mut data = vec![0u8; rows * width];
    let address = machine.alloc(data.len() as u64).expect("memory");
    machine.write(address, &data).expect("in bounds");
    arguments.extend(address.to_le_bytes());
    arguments.extend((rows as u32).to_le_bytes());
    let entry = module.entry("k").expect("the entry");
    let dims = Dims { grid: [(rows as u32).div_ceil(block), 1, 1], block: [block, 1, 1], shared_bytes: 0 };
    machine.launch(&entry, dims, &arguments).unwrap_or_else(|e| panic!("{text}: {e}"));
    machine.read(address, &mut data).expect("in bounds");
    data.chunks(width)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..width].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
        .collect()
}

/// The error that loading the text as the body of a kernel gives.
pub fn refusal(declarations: &str, text: &str) -> String {
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n{declarations}\n{text}\nret;\n}}\n"
    );
    match Machine::new(Config::default()).load(&ptx) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// All pairs of two lists, as two columns.
pub fn pairs(a: &[u64], b: &[u64]) -> (Bits, Bits) {
    a.iter().flat_map(|&x| b.iter().map(move |&y| (x, y))).unzip()
}

/// All triples of a list with itself, as three columns.
pub fn triples(values: &[u64]) -> (Bits, Bits, Bits) {
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for &x in values {
        for &y in values {
            for &z in values {
                a.push(x);
                b.push(y);
                c.push(z);
            }
        }
    }
    (a, b, c)
}

/// Pseudo-random numbers, the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32 ^ (self.0 >> 21) as u32
    }
}
