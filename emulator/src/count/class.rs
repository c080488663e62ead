//! Kinds of instructions.

/// What kind of work an instruction is: for the mix of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Products of tensor cores (`mma`).
    Tensor,
    /// Matrices between shared memory and registers (`ldmatrix`, `stmatrix`, `movmatrix`).
    Matrix,
    /// Arithmetic on 32-bit floats.
    F32,
    /// Arithmetic on 16-bit floats, alone or in pairs.
    F16,
    /// Arithmetic on 64-bit floats.
    F64,
    /// Approximate and other functions of many steps: exponentials, logarithms, sines, roots, divisions of floats.
    Function,
    /// Arithmetic on integers, bits and shifts.
    Integer,
    /// Comparisons and selections.
    Compare,
    /// Conversions between types.
    Convert,
    /// Moves between registers, and of addresses between spaces.
    Move,
    /// Loads from and stores to global memory.
    Global,
    /// Loads from and stores to shared memory.
    Shared,
    /// Loads from and stores to local memory: stacks and spills.
    Local,
    /// Loads of parameters and constants.
    Param,
    /// Loads and stores whose space the address tells.
    Generic,
    /// Copies from global to shared memory, their commits and waits (`cp.async`).
    Copy,
    /// Atomic operations on any memory.
    Atomic,
    /// Exchange between the lanes of a warp: shuffles, votes, reductions.
    Exchange,
    /// Barriers and fences.
    Barrier,
    /// Branches and exits.
    Branch,
    /// Everything else.
    Other,
}

impl Class {
    /// Every class, in the order of the mix.
    pub const ALL: [Class; 21] = [
        Class::Tensor,
        Class::Matrix,
        Class::F32,
        Class::F16,
        Class::F64,
        Class::Function,
        Class::Integer,
        Class::Compare,
        Class::Convert,
        Class::Move,
        Class::Global,
        Class::Shared,
        Class::Local,
        Class::Param,
        Class::Generic,
        Class::Copy,
        Class::Atomic,
        Class::Exchange,
        Class::Barrier,
        Class::Branch,
        Class::Other,
    ];

    /// Its name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Tensor => "tensor",
            Class::Matrix => "matrix",
            Class::F32 => "f32",
            Class::F16 => "f16",
            Class::F64 => "f64",
            Class::Function => "function",
            Class::Integer => "integer",
            Class::Compare => "compare",
            Class::Convert => "convert",
            Class::Move => "move",
            Class::Global => "global",
            Class::Shared => "shared",
            Class::Local => "local",
            Class::Param => "param",
            Class::Generic => "generic",
            Class::Copy => "copy",
            Class::Atomic => "atomic",
            Class::Exchange => "exchange",
            Class::Barrier => "barrier",
            Class::Branch => "branch",
            Class::Other => "other",
        }
    }

    /// The class of an instruction by its text.
    pub(crate) fn of(instruction: &str) -> Class {
        let opcode = opcode(instruction);
        let mut words = opcode.split('.');
        let base = words.next().unwrap_or_default();
        let has = |wanted: &[&str]| words.clone().any(|word| wanted.contains(&word));
        match base {
            "mma" | "wgmma" => Class::Tensor,
            "ldmatrix" | "stmatrix" | "movmatrix" => Class::Matrix,
            "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rcp" | "sqrt" | "rsqrt" => Class::Function,
            "div" if has(&["f32", "f64"]) => Class::Function,
            "setp" | "set" | "selp" | "slct" | "testp" | "isspacep" => Class::Compare,
            "cvt" => Class::Convert,
            "mov" | "cvta" | "createpolicy" => Class::Move,
            "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                let space = [
                    (Class::Global, "global"),
                    (Class::Shared, "shared"),
                    (Class::Shared, "shared::cta"),
                    (Class::Local, "local"),
                    (Class::Param, "param"),
                    (Class::Param, "param::entry"),
                    (Class::Param, "param::func"),
                    (Class::Param, "const"),
                ];
                space.into_iter().find(|(_, word)| has(&[word])).map_or(Class::Generic, |(class, _)| class)
            }
            "cp" => Class::Copy,
            "atom" | "red" => Class::Atomic,
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => Class::Exchange,
            "bar" | "barrier" | "membar" | "fence" => Class::Barrier,
            "bra" | "brx" | "ret" | "exit" | "call" => Class::Branch,
            _ if has(&["f32"]) => Class::F32,
            _ if has(&["f16", "f16x2", "bf16", "bf16x2"]) => Class::F16,
            _ if has(&["f64"]) => Class::F64,
            "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "addc"
            | "subc" | "madc" | "sad" | "dp4a" | "mul24" | "mad24" | "and" | "or" | "xor" | "not"
            | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bfind" | "brev" | "clz" | "popc" | "fns"
            | "prmt" | "lop3" | "bmsk" | "szext" => Class::Integer,
            _ => Class::Other,
        }
    }
}

/// The opcode of an instruction's text, without its guard.
fn opcode(instruction: &str) -> &str {
    let mut words = instruction.split_whitespace();
    match words.next() {
        Some(word) if word.starts_with('@') => words.next().unwrap_or_default(),
        Some(word) => word,
        None => "",
    }
    .trim_end_matches(';')
}

/// Floating-point operations of one `mma`, a multiply-add counting two; 0 of anything else.
pub(crate) fn tensor_flops(instruction: &str) -> u64 {
    let opcode = opcode(instruction);
    if !opcode.starts_with("mma.") {
        return 0;
    }
    // The shape is a word such as `m16n8k16`.
    let sizes = opcode.split('.').find_map(|word| {
        let (m, rest) = word.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some([m, n, k].map(|size| size.parse::<u64>().unwrap_or(0)))
    });
    sizes.map_or(0, |[m, n, k]| 2 * m * n * k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_opcode() {
        for (text, class) in [
            ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0}, {%r0}", Class::Tensor),
            ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0}, [%r1];", Class::Matrix),
            ("@%p1 fma.rn.f32 %f0, %f1, %f2, %f3;", Class::F32),
            ("@!%p1 add.f16x2 %r0, %r1, %r2", Class::F16),
            ("fma.rn.f64 %fd0, %fd1, %fd2, %fd3", Class::F64),
            ("ex2.approx.ftz.f32 %f0, %f1", Class::Function),
            ("div.rn.f32 %f0, %f1, %f2", Class::Function),
            ("div.s32 %r0, %r1, %r2", Class::Integer),
            ("setp.lt.f32 %p0, %f0, %f1", Class::Compare),
            ("cvt.rn.f16x2.f32 %r0, %f0, %f1", Class::Convert),
            ("mov.f32 %f0, %f1", Class::Move),
            ("ld.global.nc.v4.f32 {%f0}, [%rd0]", Class::Global),
            ("st.shared.v2.f32 [%r0], {%f0}", Class::Shared),
            ("ld.local.u32 %r0, [%rd0]", Class::Local),
            ("ld.param.u64 %rd0, [p]", Class::Param),
            ("ld.f32 %f0, [%rd0]", Class::Generic),
            ("cp.async.wait_all;", Class::Copy),
            ("red.global.add.f32 [%rd0], %f0", Class::Atomic),
            ("shfl.sync.bfly.b32 %r0, %r1, 1, 31, -1", Class::Exchange),
            ("bar.sync 0", Class::Barrier),
            ("@%p0 bra $L_1", Class::Branch),
            ("ret;", Class::Branch),
            ("nanosleep.u32 8", Class::Other),
        ] {
            assert_eq!(Class::of(text), class, "{text}");
        }
    }

    #[test]
    fn every_class_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), Class::ALL.len());
    }

    #[test]
    fn products_count_their_multiply_adds_twice() {
        assert_eq!(tensor_flops("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0}"), 4096);
        assert_eq!(tensor_flops("@%p0 mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f0}"), 2048);
        assert_eq!(tensor_flops("fma.rn.f32 %f0, %f1, %f2, %f3"), 0);
    }
}
