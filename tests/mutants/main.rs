//! Every barrier and every wait of every kernel, removed in turn from its PTX: the emulator's checks must report it.
//!
//! Where a mutant survives, a plan is missing here, or the barrier goes. An op has a file here with plans that together launch all
//! of its kernels; needs no GPU and no driver, hence a binary of its own.

mod axial;
mod bench;
mod content;
mod edit;
mod gaussian;
mod gsa;
mod local;
mod local_bias;
mod value_mixture;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bench::Bench;
use edit::{Site, sites, text};
use macula::plan::Plan;

fn plans() -> Vec<Plan> {
    let mut plans = gaussian::plans();
    plans.extend(local::plans());
    plans.extend(local_bias::plans());
    plans.extend(content::plans());
    plans.extend(axial::plans());
    plans.extend(gsa::plans());
    plans.extend(value_mixture::plans());
    plans
}

/// For each site of the kernels that were launched: whether the checks reported its removal.
type Verdicts = BTreeMap<Site, bool>;

/// Blocks of a mutant's launch: what goes wrong goes wrong in all of them.
const BLOCKS: u32 = 48;

/// Tries every site of the plan's launches that has not been reported before. Each of those kernels also runs as it is: what
/// it leaves is there for the next one, and a plan that fails by itself would make every mutant look reported.
fn try_plan(plan: &Plan, verdicts: &Mutex<Verdicts>) {
    let is_open = |site: &Site| !*verdicts.lock().unwrap().entry(site.clone()).or_insert(false);
    let all = plan.launches.iter().map(|launch| {
        let text = text(launch.kernel);
        let sites = sites(launch.kernel, &text);
        (launch, text, sites)
    });
    let all: Vec<_> = all.collect();
    let Some(last) = all.iter().rposition(|(.., sites)| sites.iter().any(|(site, _)| is_open(site))) else {
        return;
    };
    let bench = Bench::new(plan);
    for (launch, text, sites) in &all[..=last] {
        for (site, mutant) in sites.iter().filter(|(site, _)| is_open(site)) {
            // What a mutant leaves behind is overwritten by the next one and at last by the kernel itself.
            let reported = [0, 1, 5].iter().any(|&seed| bench.run(mutant, launch, BLOCKS, seed).is_err());
            *verdicts.lock().unwrap().entry(site.clone()).or_insert(false) |= reported;
        }
        bench.run(text, launch, u32::MAX, 0).unwrap_or_else(|stop| panic!("the kernel as it is: {stop}"));
    }
}

fn verdicts(plans: &[Plan]) -> Verdicts {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Verdicts::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Relaxed)) {
                    try_plan(plan, &verdicts);
                }
            });
        }
    });
    verdicts.into_inner().unwrap()
}

#[test]
fn every_removed_barrier_is_reported() {
    if macula::kernel::all().is_empty() {
        // build.rs has refused this already where kernels are required.
        return;
    }
    let plans = plans();
    let launched: BTreeSet<&str> =
        plans.iter().flat_map(|plan| &plan.launches).map(|launch| launch.kernel).collect();
    for kernel in macula::kernel::all() {
        assert!(
            launched.contains(kernel.name),
            "no plan here launches {}: its op wants a file here",
            kernel.name
        );
    }
    let verdicts = verdicts(&plans);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let survivors = verdicts.iter().filter(|(_, reported)| !**reported).map(|(site, _)| {
        let source = std::fs::read_to_string(root.join(&site.file)).unwrap_or_default();
        format!("{site} survives: {}", source.lines().nth(site.line - 1).unwrap_or_default().trim())
    });
    let findings: Vec<String> = survivors.collect();
    assert!(findings.is_empty(), "of {} sites:\n{}", verdicts.len(), findings.join("\n"));
    assert!(!verdicts.is_empty());
}
