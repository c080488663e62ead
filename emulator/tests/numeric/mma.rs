//! `mma.sync`: every shape and type against a matrix product in `f64`, with the manual's fragment layouts.

use ptx_emulator::{Config, Dims, Machine, TensorMode};

use crate::harness::{Random, refusal};
use crate::oracle::Sixteen;

/// A spelling, and how its fragments are laid out.
struct Shape {
    k: usize,
    inputs: &'static str,
    accumulator: &'static str,
}

const SHAPES: [Shape; 8] = [
    Shape { k: 8, inputs: "f16", accumulator: "f32" },
    Shape { k: 16, inputs: "f16", accumulator: "f32" },
    Shape { k: 8, inputs: "f16", accumulator: "f16" },
    Shape { k: 16, inputs: "f16", accumulator: "f16" },
    Shape { k: 8, inputs: "bf16", accumulator: "f32" },
    Shape { k: 16, inputs: "bf16", accumulator: "f32" },
    Shape { k: 4, inputs: "tf32", accumulator: "f32" },
    Shape { k: 8, inputs: "tf32", accumulator: "f32" },
];

impl Shape {
    fn spelling(&self) -> String {
        let Shape { k, inputs, accumulator } = self;
        format!("mma.sync.aligned.m16n8k{k}.row.col.{accumulator}.{inputs}.{inputs}.{accumulator}")
    }

    /// Row and column in A of element `i` of a lane (PTX ISA, *Matrix Fragments for mma.m16n8k4*, *k8*, *k16*).
    fn a(&self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        match (self.inputs, self.k) {
            ("tf32", _) => {
                let row = if i == 0 || i == 2 { group } else { group + 8 };
                (row, if i < 2 { thread } else { thread + 4 })
            }
            (_, 8) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
            _ => {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                (row, thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
            }
        }
    }

    /// Row and column in B of element `i`.
    fn b(&self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        match self.inputs {
            "tf32" => (thread + 4 * i, group),
            _ => (thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, group),
        }
    }

    /// Row and column in C and D of element `i`.
    fn c(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
    }

    /// Elements a lane holds of A; half as many of B.
    fn a_elements(&self) -> usize {
        self.k / 2
    }
}

/// Words of one lane from its elements.
fn pack(elements: &[u64], bits: usize) -> Vec<u32> {
    if bits == 32 {
        return elements.iter().map(|&x| x as u32).collect();
    }
    elements.chunks(2).map(|pair| (pair[0] | pair[1] << 16) as u32).collect()
}

/// Executes the instruction on one warp: operands as (row, column) → bits.
fn execute(
    shape: &Shape,
    mode: TensorMode,
    a: impl Fn(usize, usize) -> u64,
    b: impl Fn(usize, usize) -> u64,
    c: impl Fn(usize, usize) -> u64,
) -> Vec<Vec<u64>> {
    let input_bits = if shape.inputs == "tf32" { 32 } else { 16 };
    let sum_bits = if shape.accumulator == "f32" { 32 } else { 16 };
    let mut words: Vec<u32> = Vec::new();
    let (mut na, mut nb, mut nc) = (0, 0, 0);
    for lane in 0..32 {
        let at = |f: &dyn Fn(usize, usize) -> u64, (row, column): (usize, usize)| f(row, column);
        let of_a: Vec<u64> = (0..shape.a_elements()).map(|i| at(&a, shape.a(lane, i))).collect();
        let of_b: Vec<u64> = (0..shape.a_elements() / 2).map(|i| at(&b, shape.b(lane, i))).collect();
        let of_c: Vec<u64> = (0..4).map(|i| at(&c, Shape::c(lane, i))).collect();
        let (of_a, of_b, of_c) = (pack(&of_a, input_bits), pack(&of_b, input_bits), pack(&of_c, sum_bits));
        (na, nb, nc) = (of_a.len(), of_b.len(), of_c.len());
        words.extend(of_a.into_iter().chain(of_b).chain(of_c));
    }
    let stride = na + nb + nc;
    let list = |name: &str, n: usize| (0..n).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ");
    let sum_type = if sum_bits == 32 { "f32" } else { "b32" };
    let mut body = String::new();
    for i in 0..stride {
        let (name, index) = match i {
            _ if i < na => ("a", i),
            _ if i < na + nb => ("b", i - na),
            _ => ("c", i - na - nb),
        };
        body += &format!("ld.global.b32 %{name}{index}, [%in+{}];\n", 4 * i);
    }
    body += &format!(
        "{} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
        shape.spelling(),
        list("d", nc),
        list("a", na),
        list("b", nb),
        list("c", nc)
    );
    for i in 0..nc {
        body += &format!("st.global.b32 [%out+{}], %d{i};\n", 4 * i);
    }
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 k_in, .param .u64 k_out)\n{{\n\
         .reg .b32 %t, %a<4>, %b<2>;\n.reg .{sum_type} %c<4>, %d<4>;\n.reg .b64 %in, %out;\n\
         mov.u32 %t, %tid.x;\nld.param.u64 %in, [k_in];\nmad.wide.u32 %in, %t, {}, %in;\n\
         ld.param.u64 %out, [k_out];\nmad.wide.u32 %out, %t, {}, %out;\n{body}ret;\n}}\n",
        4 * stride,
        4 * nc
    );
    let machine = Machine::new(Config::default().threads(1).tensor(mode));
    let module = machine.load(&ptx).unwrap_or_else(|e| panic!("{}: {e}", shape.spelling()));
    let input = machine.alloc(4 * words.len() as u64).expect("memory");
    let bytes: Vec<u8> = words.iter().flat_map(|x| x.to_le_bytes()).collect();
    machine.write(input, &bytes).expect("in bounds");
    let output = machine.alloc(32 * 4 * nc as u64).expect("memory");
    let arguments: Vec<u8> = [input, output].iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = Dims { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    machine
        .launch(&module.entry("k").expect("the entry"), dims, &arguments)
        .unwrap_or_else(|e| panic!("{}: {e}", shape.spelling()));
    let mut bytes = vec![0; 32 * 4 * nc];
    machine.read(output, &mut bytes).expect("in bounds");
    let words: Vec<u32> =
        bytes.chunks(4).map(|w| u32::from_le_bytes(w.try_into().expect("four bytes"))).collect();
    let mut d = vec![vec![0; 8]; 16];
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = Shape::c(lane, i);
            d[row][column] = match sum_bits {
                32 => u64::from(words[lane * nc + i]),
                _ => u64::from(words[lane * nc + i / 2] >> (16 * (i % 2)) & 0xffff),
            };
        }
    }
    d
}

/// Encodes a number that the type holds exactly, and says what it holds.
fn encode(ty: &str, x: f64) -> u64 {
    match ty {
        "f16" => Sixteen::f16().round(x, "rn").into(),
        "bf16" => Sixteen::bf16().round(x, "rn").into(),
        // The low bits of tf32 must not matter.
        "tf32" => u64::from((x as f32).to_bits() & 0xffff_e000) | 0x1234,
        _ => (x as f32).to_bits().into(),
    }
}

fn decode(ty: &str, bits: u64) -> f64 {
    match ty {
        "f16" => Sixteen::f16().value(bits as u16),
        "bf16" => Sixteen::bf16().value(bits as u16),
        "tf32" => f32::from_bits(bits as u32 & 0xffff_e000).into(),
        _ => f32::from_bits(bits as u32).into(),
    }
}

const MODES: [TensorMode; 3] = [TensorMode::Exact, TensorMode::Sm80, TensorMode::Sm90];

#[test]
fn small_integers_in_every_shape_and_mode() {
    for shape in &SHAPES {
        for mode in MODES {
            // Distinct enough that any exchange of elements shows; every sum is exact.
            let a = |row: usize, column: usize| ((row * 7 + column * 3) % 17) as f64 - 8.0;
            let b = |row: usize, column: usize| ((row * 5 + column * 11) % 13) as f64 - 6.0;
            let c = |row: usize, column: usize| (row * 8 + column) as f64;
            let d = execute(
                shape,
                mode,
                |r, k| encode(shape.inputs, a(r, k)),
                |k, n| encode(shape.inputs, b(k, n)),
                |r, n| encode(shape.accumulator, c(r, n)),
            );
            for row in 0..16 {
                for column in 0..8 {
                    let want: f64 =
                        (0..shape.k).map(|k| a(row, k) * b(k, column)).sum::<f64>() + c(row, column);
                    let got = decode(shape.accumulator, d[row][column]);
                    assert_eq!(got, want, "{} {mode:?} {row} {column}", shape.spelling());
                }
            }
        }
    }
}

#[test]
fn random_numbers_within_the_modes_precision() {
    for shape in &SHAPES {
        let mut random = Random(5);
        let mut table = |n: usize| -> Vec<f64> {
            (0..n).map(|_| f64::from(random.next()) / f64::from(1u32 << 31) - 1.0).collect()
        };
        let (a, b, c) = (table(16 * shape.k), table(8 * shape.k), table(128));
        let a = |r: usize, k: usize| encode(shape.inputs, a[r * shape.k + k]);
        let b = |k: usize, n: usize| encode(shape.inputs, b[k * 8 + n]);
        let c = |r: usize, n: usize| encode(shape.accumulator, c[r * 8 + n]);
        for mode in MODES {
            let d = execute(shape, mode, a, b, c);
            for row in 0..16 {
                for column in 0..8 {
                    let products: Vec<f64> = (0..shape.k)
                        .map(|k| decode(shape.inputs, a(row, k)) * decode(shape.inputs, b(k, column)))
                        .collect();
                    let start = decode(shape.accumulator, c(row, column));
                    let truth = products.iter().sum::<f64>() + start;
                    let got = decode(shape.accumulator, d[row][column]);
                    if shape.accumulator == "f16" {
                        let want = Sixteen::f16().round(truth, "rn");
                        let near =
                            u64::from(want).abs_diff(d[row][column]) <= u64::from(mode != TensorMode::Exact);
                        assert!(near, "{} {mode:?}: {got}, truth {truth}", shape.spelling());
                    } else if mode == TensorMode::Exact {
                        assert_eq!(got, f64::from(truth as f32), "{} {row} {column}", shape.spelling());
                    } else {
                        // Every term is cut off below 2^-23 of the largest, a little less with the extra bits.
                        let size = products.iter().fold(start.abs(), |m, p| m.max(p.abs())).max(truth.abs());
                        let bound = size * 2f64.powi(-23) * (shape.k + 2) as f64;
                        assert!((got - truth).abs() <= bound, "{} {mode:?}: {got} {truth}", shape.spelling());
                    }
                }
            }
        }
    }
}

#[test]
fn infinities_and_nan_concern_their_row_and_column() {
    let shape = &SHAPES[1];
    for mode in MODES {
        let one = |_, _| encode("f16", 1.0);
        // Row 3 of A has an infinity at k = 2, row 5 a NaN; column 6 of B has −∞ at k = 2 and 0 · ∞ meets in row 3.
        let a = |r: usize, k: usize| match (r, k) {
            (3, 2) => 0x7c00,
            (5, 9) => 0x7e00,
            _ => one(r, k),
        };
        let b = |k: usize, n: usize| match (k, n) {
            (2, 6) => 0x0000,
            (4, 1) => 0xfc00,
            _ => one(k, n),
        };
        let minus = f64::NEG_INFINITY;
        let c = |r: usize, n: usize| encode("f32", if (r, n) == (9, 0) { minus } else { 0.5 });
        let d = execute(shape, mode, a, b, c);
        for row in 0..16 {
            for column in 0..8 {
                let got = decode("f32", d[row][column]);
                let want = match (row, column) {
                    (5, _) => f64::NAN,
                    (3, 6) => f64::NAN,
                    (3, 1) => f64::NAN,
                    (3, _) => f64::INFINITY,
                    (_, 1) => minus,
                    (9, 0) => minus,
                    (_, 6) => 15.5,
                    _ => 16.5,
                };
                if want.is_nan() {
                    assert_eq!(d[row][column], 0x7fff_ffff, "{mode:?} {row} {column}");
                } else {
                    assert_eq!(got, want, "{mode:?} {row} {column}");
                }
            }
        }
    }
}

#[test]
fn other_forms_are_refused_by_name() {
    let registers = ".reg .b32 %a<4>, %b<2>, %i<4>; .reg .f32 %c<8>; .reg .f64 %f<4>;";
    for (text, reason) in [
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7}, {%a0,%a1}, {%b0,%b1}, {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7};",
            "m8n8k4",
        ),
        ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%f0,%f1}, {%f2}, {%f3}, {%f0,%f1};", "m8n8k4"),
        (
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%i0,%i1,%i2,%i3}, {%a0,%a1,%a2,%a3}, {%b0,%b1}, {%i0,%i1,%i2,%i3};",
            "m16n8k32",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 {%c0,%c1,%c2,%c3}, {%a0,%a1,%a2,%a3}, {%b0,%b1}, {%c0,%c1,%c2,%c3};",
            "types",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32 {%c0,%c1,%c2,%c3}, {%a0,%a1,%a2,%a3}, {%b0,%b1}, {%c0,%c1,%c2,%c3};",
            "one type",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%c0,%c1,%c2,%c3}, {%a0,%a1,%a2,%a3}, {%b0,%b1}, {%c0,%c1,%c2,%c3};",
            "col",
        ),
        (
            "mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%c0,%c1,%c2,%c3}, {%a0,%a1}, {%b0,%b1}, {%c0,%c1,%c2,%c3}, %i0, 0;",
            "sp",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%c0,%c1,%c2,%c3}, {%a0,%a1}, {%b0,%b1}, {%c0,%c1,%c2,%c3};",
            "4 elements",
        ),
    ] {
        let error = refusal(registers, text);
        assert!(error.contains("line 7") && error.contains(reason), "{text}\n{error}");
    }
}
