//! `content` on `Cpu`, of shapes and in layouts that nobody chose.

use super::{Bits, Case, count, run};
use crate::common::memory::{Memory, layout};
use crate::common::{random, tried};
use half::{bf16, f16};
use macula::content::{Backward, ContentConfig, Form, Forward, Saved};
use macula::{Content, Cpu, Element, View, ViewMut, Workspace};
use proptest::prelude::*;

fn case() -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..3usize, 1..9usize, 1..9usize, 1..20usize);
    let keys = proptest::array::uniform2(1..9usize);
    (shape, keys, 1..20usize, 0.1..9f64).prop_map(|((b, h, y, x, d), keys, e, size)| Case {
        name: "random",
        q: [b, h, y, x, d],
        keys,
        e,
        size,
    })
}

/// Forward and backward in memory of any layout, outputs poisoned, guards around everything. The inputs are those of
/// [`run`], and so is the order of what is returned.
fn run_in_any_layout<T: Element>(case: &Case, form: Form, seed: u64) -> Result<Bits, String> {
    let explain = |e: macula::Error| format!("{case:?} {form:?}: {e}");
    let (cpu, op) = (Cpu::new(), Content::new(ContentConfig { form }));
    let lies = |shape, by| layout::<5>(shape, seed + by, [false; 5]);
    let holding = |shape, by, size| Memory::holding(lies(shape, by), &random::<T>(by, count(shape), size));
    let (q, k) = (holding(case.q, 1, case.size), holding(case.k(), 2, case.size));
    let (v, d_o) = (holding(case.v(), 3, 1.0), holding(case.o(), 4, 1.0));
    let mut o = Memory::<T, 5>::poisoned(lies(case.o(), 5));
    let [b, h, _, _, d] = case.q;
    let mut summary = vec![f32::NAN; b * h * d * case.e];
    let (mut max, mut sum) = (vec![f32::NAN; b * h * d], vec![f32::NAN; b * h * d]);
    let saved = Saved {
        summary: ViewMut::new(&mut summary, [b, h, d, case.e]).map_err(explain)?,
        max: ViewMut::new(&mut max, [b, h, d]).map_err(explain)?,
        sum: ViewMut::new(&mut sum, [b, h, d]).map_err(explain)?,
    };
    let forward = Forward { q: q.view(), k: k.view(), v: v.view(), o: o.view_mut(), saved: Some(saved) };
    op.forward_into(&cpu, forward, Workspace::none()).map_err(explain)?;
    let saved = Saved {
        summary: View::new(&summary, [b, h, d, case.e]).map_err(explain)?,
        max: View::new(&max, [b, h, d]).map_err(explain)?,
        sum: View::new(&sum, [b, h, d]).map_err(explain)?,
    };
    let mut grads =
        [(case.q, 6), (case.k(), 7), (case.v(), 8)].map(|(s, by)| Memory::<T, 5>::poisoned(lies(s, by)));
    let [dq, dk, dv] = grads.each_mut().map(|grad| Some(grad.view_mut()));
    let (q, k, v, d_o) = (q.view(), k.view(), v.view(), d_o.view());
    let backward = Backward { q, k, v, saved, d_o, dq, dk, dv };
    op.backward_into(&cpu, backward, Workspace::none()).map_err(explain)?;
    let mut bits: Bits = vec![bytemuck::cast_slice(&o.values()).to_vec()];
    bits.extend([&summary, &max, &sum].map(|x| bytemuck::cast_slice(x).to_vec()));
    o.check_guards("o")?;
    for (name, grad) in ["dq", "dk", "dv"].iter().zip(&grads) {
        grad.check_guards(name)?;
        bits.push(bytemuck::cast_slice(&grad.values()).to_vec());
    }
    Ok(bits)
}

fn check<T: Element>(case: &Case, form: Form, seed: u64) -> Result<(), TestCaseError> {
    let plain = run::<T>(&Cpu::new(), case, form).map_err(TestCaseError::fail)?;
    let strided = run_in_any_layout::<T>(case, form, seed).map_err(TestCaseError::fail)?;
    prop_assert!(plain == strided, "{case:?} {form:?}: bits depend on the layout");
    Ok(())
}

proptest! {
    #![proptest_config(tried(60))]

    #[test]
    fn any_shape_in_any_layout(case in case(), form in proptest::sample::select(Form::ALL.to_vec()), seed in 1..u64::from(u32::MAX)) {
        check::<f32>(&case, form, seed)?;
        check::<f16>(&case, form, seed)?;
        check::<bf16>(&case, form, seed)?;
    }
}
