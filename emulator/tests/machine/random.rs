//! Random structured programs, executed by the emulator and by a direct interpreter of the same tree.

use ptx_emulator::{Config, Dims};

use crate::common::Kernel;

const REGISTERS: usize = 40;

/// A program as a tree.
enum Node {
    /// `d = op(a, b)`, perhaps only where register `guard` is odd.
    Op {
        op: usize,
        d: usize,
        a: usize,
        b: usize,
        guard: Option<usize>,
    },
    If {
        condition: usize,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// At most `times` rounds; leaves early where the register is a multiple of 5.
    Loop {
        times: u32,
        leave: usize,
        body: Vec<Node>,
    },
    /// The thread is done if the register is a multiple of 97.
    Exit {
        condition: usize,
    },
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn nodes(random: &mut Random, depth: usize, count: usize) -> Vec<Node> {
    (0..count)
        .map(|_| match random.below(if depth == 0 { 8 } else { 12 }) {
            0..8 => Node::Op {
                op: random.below(5),
                d: random.below(REGISTERS),
                a: random.below(REGISTERS),
                b: random.below(REGISTERS),
                guard: (random.below(4) == 0).then(|| random.below(REGISTERS)),
            },
            8 | 9 => Node::If {
                condition: random.below(REGISTERS),
                then: nodes(random, depth - 1, count / 2 + 1),
                otherwise: nodes(random, depth - 1, count / 2),
            },
            10 => Node::Loop {
                times: random.below(5) as u32,
                leave: random.below(REGISTERS),
                body: nodes(random, depth - 1, count / 2 + 1),
            },
            _ => Node::Exit { condition: random.below(REGISTERS) },
        })
        .collect()
}

fn arithmetic(op: usize, a: u32, b: u32) -> u32 {
    match op {
        0 => a.wrapping_add(b),
        1 => a.wrapping_sub(b),
        2 => a.wrapping_mul(b | 1),
        3 => a ^ b,
        _ => a.max(b),
    }
}

/// True if the thread has exited.
fn interpret(nodes: &[Node], r: &mut [u32]) -> bool {
    for node in nodes {
        match node {
            Node::Op { op, d, a, b, guard } => {
                if guard.is_none_or(|g| r[g] & 1 != 0) {
                    r[*d] = arithmetic(*op, r[*a], r[*b]);
                }
            }
            Node::If { condition, then, otherwise } => {
                if interpret(if r[*condition] & 2 != 0 { then } else { otherwise }, r) {
                    return true;
                }
            }
            Node::Loop { times, leave, body } => {
                for _ in 0..*times {
                    if interpret(body, r) {
                        return true;
                    }
                    if r[*leave].is_multiple_of(5) {
                        break;
                    }
                }
            }
            Node::Exit { condition } => {
                if r[*condition].is_multiple_of(97) {
                    return true;
                }
            }
        }
    }
    false
}

/// The program as PTX; `labels` counts them.
fn write(nodes: &[Node], out: &mut String, labels: &mut usize) {
    for node in nodes {
        *labels += 1;
        let l = *labels;
        match node {
            Node::Op { op, d, a, b, guard } => {
                let at = match guard {
                    Some(g) => {
                        *out += &format!("and.b32 %s1, %v{g}, 1;\nsetp.ne.u32 %p1, %s1, 0;\n");
                        "@%p1 "
                    }
                    None => "",
                };
                *out += &match op {
                    0 => format!("{at}add.u32 %v{d}, %v{a}, %v{b};\n"),
                    1 => format!("{at}sub.u32 %v{d}, %v{a}, %v{b};\n"),
                    2 => format!("or.b32 %s1, %v{b}, 1;\n{at}mul.lo.u32 %v{d}, %v{a}, %s1;\n"),
                    3 => format!("{at}xor.b32 %v{d}, %v{a}, %v{b};\n"),
                    _ => format!("{at}max.u32 %v{d}, %v{a}, %v{b};\n"),
                };
            }
            Node::If { condition, then, otherwise } => {
                *out +=
                    &format!("and.b32 %s1, %v{condition}, 2;\nsetp.eq.u32 %p1, %s1, 0;\n@%p1 bra ELSE{l};\n");
                write(then, out, labels);
                *out += &format!("bra JOIN{l};\nELSE{l}:\n");
                write(otherwise, out, labels);
                *out += &format!("JOIN{l}:\n");
            }
            Node::Loop { times, leave, body } => {
                *out += &format!(
                    "{{\n.reg .b32 n;\nmov.u32 n, 0;\nROUND{l}:\nsetp.ge.u32 %p1, n, {times};\n@%p1 bra OUT{l};\n"
                );
                write(body, out, labels);
                *out += &format!(
                    "rem.u32 %s1, %v{leave}, 5;\nsetp.eq.u32 %p1, %s1, 0;\n@%p1 bra OUT{l};\nadd.u32 n, n, 1;\nbra ROUND{l};\nOUT{l}:\n}}\n"
                );
            }
            Node::Exit { condition } => {
                *out +=
                    &format!("rem.u32 %s1, %v{condition}, 97;\nsetp.eq.u32 %p1, %s1, 0;\n@%p1 bra END;\n");
            }
        }
    }
}

#[test]
fn agree_with_a_direct_interpreter() {
    const THREADS: usize = 75;
    for program in 0..60 {
        let mut random = Random(program * 7919 + 1);
        let tree = nodes(&mut random, 3, 7);
        let mut text = format!(".reg .b32 %v<{REGISTERS}>;\n.reg .b32 %s1;\n");
        for k in 0..REGISTERS {
            text += &format!("mad.lo.u32 %v{k}, %t, {}, {};\n", 2 * k + 1, k * k + 3);
        }
        write(&tree, &mut text, &mut 0);
        text += "END:\nmov.u32 %s1, 0;\n";
        for k in 0..REGISTERS {
            text += &format!("mad.lo.u32 %s1, %s1, 31, %v{k};\n");
        }
        text += "st.global.u32 [%at], %s1;";
        let kernel = Kernel::body(&text);
        let want: Vec<u32> = (0..THREADS as u32)
            .map(|t| {
                let mut r: Vec<u32> = (0..REGISTERS as u32).map(|k| t * (2 * k + 1) + k * k + 3).collect();
                interpret(&tree, &mut r);
                r.iter().fold(0u32, |sum, x| sum.wrapping_mul(31).wrapping_add(*x))
            })
            .collect();
        for seed in [0, 5] {
            let mut out = vec![0; THREADS];
            let dims = Dims::linear(1, THREADS as u32);
            kernel.run_with(&Config::default().seed(seed), dims, &mut out).expect("runs");
            assert_eq!(out, want, "program {program}, seed {seed}\n{text}");
        }
    }
}
