//! `axial` on `Cpu`, of shapes and in layouts that nobody chose.

use super::{Bits, CONFIGS, Case, Passes, bits, count, norm_vectors, run};
use crate::common::memory::{Memory, layout};
use crate::common::{random, tried};
use half::{bf16, f16};
use macula::axial::{Affine, Axes, AxialConfig, Backward, BatchNorm, Forward, Statistics};
use macula::{Axial, Cpu, Element, Workspace};
use proptest::prelude::*;

fn case() -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..3usize, 1..9usize, 1..9usize, 1..20usize);
    let reach = proptest::array::uniform2(1..12usize);
    (shape, 1..20usize, reach, any::<[bool; 2]>()).prop_map(|((b, h, y, x, d), e, reach, per_head)| Case {
        name: "random",
        q: [b, h, y, x, d],
        e,
        reach,
        per_head_tables: per_head[0],
        per_head_norm: per_head[1],
    })
}

/// Forward and backward in memory of any layout, outputs poisoned, guards around everything. The inputs are those of
/// [`run`], and so is the order of what is returned.
fn run_in_any_layout<T: Element>(case: &Case, config: AxialConfig, seed: u64) -> Result<Bits, String> {
    let explain = |e: macula::Error| format!("{case:?} {config:?}: {e}");
    let (cpu, op) = (Cpu::new(), Axial::new(config).map_err(explain)?);
    let map = |shape, by| layout::<5>(shape, seed + by, [false; 5]);
    let vector = |by| layout::<2>(case.norm(), seed + by, [false; 2]);
    let table = |axis: usize| layout::<3>(case.table(axis), seed + axis as u64, [false; 3]);
    let q = Memory::holding(map(case.q, 1), &random::<T>(1, count(&case.q), 1.0));
    let v = Memory::holding(map(case.v(), 2), &random::<T>(2, count(&case.v()), 1.0));
    let d_o = Memory::holding(map(case.v(), 3), &random::<T>(3, count(&case.v()), 1.0));
    let tables = [0, 1].map(|axis| {
        Memory::holding(table(axis), &random::<T>(4 + axis as u64, count(&case.table(axis)), 0.5))
    });
    let norm = norm_vectors(case);
    let norm = [0, 1, 2, 3].map(|i| Memory::holding(vector(6 + i as u64), &norm[i]));

    let has_norm = config.norm != BatchNorm::None;
    let is_train = config.norm == BatchNorm::Train;
    let has_both = config.axes == Axes::ColumnsThenRows;
    let columns = (config.axes != Axes::Rows).then(|| tables[0].view());
    let rows = (config.axes != Axes::Columns).then(|| tables[1].view());
    let affine = has_norm.then(|| Affine { weight: norm[0].view(), bias: norm[1].view() });
    let given =
        (config.norm == BatchNorm::Eval).then(|| Statistics { mean: norm[2].view(), var: norm[3].view() });

    let mut o = Memory::<T, 5>::poisoned(map(case.v(), 10));
    let mut y = Memory::<T, 5>::poisoned(map(case.v(), 11));
    let [mut mean, mut var] = [12, 13].map(|by| Memory::poisoned(vector(by)));
    let forward = Forward {
        q: q.view(),
        v: v.view(),
        columns,
        rows,
        affine,
        given,
        o: o.view_mut(),
        y: has_both.then(|| y.view_mut()),
        batch: is_train.then(|| Statistics { mean: mean.view_mut(), var: var.view_mut() }),
    };
    op.forward_into(&cpu, forward, Workspace::none()).map_err(explain)?;

    let [mut dq, mut dv] = [(case.q, 14), (case.v(), 15)].map(|(s, by)| Memory::<T, 5>::poisoned(map(s, by)));
    let [mut dcolumns, mut drows] = [0, 1].map(|axis| Memory::<f32, 3>::poisoned(table(axis)));
    let [mut dweight, mut dbias] = [16, 17].map(|by| Memory::<f32, 2>::poisoned(vector(by)));
    let backward = Backward {
        q: q.view(),
        v: v.view(),
        columns,
        rows,
        affine,
        statistics: if is_train { Some(Statistics { mean: mean.view(), var: var.view() }) } else { given },
        y: has_both.then(|| y.view()),
        d_o: d_o.view(),
        dq: Some(dq.view_mut()),
        dv: Some(dv.view_mut()),
        dcolumns: columns.map(|_| dcolumns.view_mut()),
        drows: rows.map(|_| drows.view_mut()),
        dweight: affine.map(|_| dweight.view_mut()),
        dbias: affine.map(|_| dbias.view_mut()),
    };
    op.backward_into(&cpu, backward, Workspace::none()).map_err(explain)?;

    for (name, memory) in [("o", &o), ("y", &y), ("dq", &dq), ("dv", &dv)] {
        memory.check_guards(name)?;
    }
    for (name, memory) in [("dcolumns", &dcolumns), ("drows", &drows)] {
        memory.check_guards(name)?;
    }
    for (name, memory) in [("mean", &mean), ("var", &var), ("dweight", &dweight), ("dbias", &dbias)] {
        memory.check_guards(name)?;
    }
    let mut results = vec![if has_both { bits(&y.values()) } else { Vec::new() }, bits(&o.values())];
    if is_train {
        results.extend([bits(&mean.values()), bits(&var.values())]);
    }
    results.extend([bits(&dq.values()), bits(&dv.values())]);
    results.extend(columns.map(|_| bits(&dcolumns.values())));
    results.extend(rows.map(|_| bits(&drows.values())));
    if has_norm {
        results.extend([bits(&dweight.values()), bits(&dbias.values())]);
    }
    Ok(results)
}

fn check<T: Element>(case: &Case, config: AxialConfig, seed: u64) -> Result<(), TestCaseError> {
    let plain = run::<T>(&Cpu::new(), case, config, Passes::Both).map_err(TestCaseError::fail)?;
    let strided = run_in_any_layout::<T>(case, config, seed).map_err(TestCaseError::fail)?;
    prop_assert!(plain == strided, "{case:?} {config:?}: bits depend on the layout");
    Ok(())
}

proptest! {
    #![proptest_config(tried(60))]

    #[test]
    fn any_shape_in_any_layout(case in case(), config in proptest::sample::select(CONFIGS.to_vec()), seed in 1..u64::from(u32::MAX)) {
        check::<f32>(&case, config, seed)?;
        check::<f16>(&case, config, seed)?;
        check::<bf16>(&case, config, seed)?;
    }
}
