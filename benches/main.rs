//! Benches on the CPU device. Every case is checked before it is timed.
//!
//! `cargo bench -p macula --bench main -- gaussian` runs those of one op.

mod axial;
mod content;
mod gaussian;
mod gsa;
mod inputs;
mod local;
mod value_mixture;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    axial::bench(&mut criterion);
    content::bench(&mut criterion);
    gaussian::bench(&mut criterion);
    gsa::bench(&mut criterion);
    local::bench(&mut criterion);
    value_mixture::bench(&mut criterion);
    criterion.final_summary();
}
