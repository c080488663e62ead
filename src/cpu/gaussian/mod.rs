//! `gaussian` on the CPU.
//!
//! Separable kernels make two passes, along y and along x; the others visit every pair of pixels within reach. Nothing of
//! the size of a map of all pairs exists. A tile, some rows of one head's map, is worked on by one thread. Tiles follow
//! from the shape alone, and dσ is added up tile by tile in their order, so results do not depend on the threads.

mod dense;
mod separable;
mod tile;
mod weights;

use super::memory::short_vector;
use crate::config::gaussian::GaussianConfig;
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Result};
use dense::Dense;
use separable::Separable;
use tile::{Output, Tile, Turn, run};

/// How the map of one radius is applied, tile by tile.
trait Method: Sized + Sync {
    /// Rows of a tile.
    const ROWS: usize;
    /// What a thread keeps from tile to tile.
    type Scratch: Default;

    /// For maps of `[y, x]`.
    fn new(config: &GaussianConfig, size: [usize; 2], radius: f32) -> Self;

    /// Writes a tile of o.
    fn forward<T: Element>(
        &self,
        scratch: &mut Self::Scratch,
        v: HostView<'_, T, 5>,
        tile: &Tile,
        o: &mut Output<'_, T>,
    );

    /// Writes a tile of dV, if wanted, and returns its share of σ dσ, if `v` is given.
    fn backward<T: Element>(
        &self,
        scratch: &mut Self::Scratch,
        v: Option<HostView<'_, T, 5>>,
        d_o: HostView<'_, T, 5>,
        tile: &Tile,
        dv: Option<&mut Output<'_, T>>,
    ) -> f64;
}

/// `o = A(σ) v`. Shapes and radii have been checked: v and o `[b,h,y,x,d]`, sigma `[h]` or `[1]`, nothing empty.
pub(crate) fn forward<T: Element>(
    config: &GaussianConfig,
    v: HostView<'_, T, 5>,
    sigma: HostView<'_, f32, 1>,
    o: HostViewMut<'_, T, 5>,
) -> Result<()> {
    if config.kernel.is_separable() {
        forward_by::<Separable, T>(config, v, sigma, o);
    } else {
        forward_by::<Dense, T>(config, v, sigma, o);
    }
    Ok(())
}

/// Both gradients; one that is `None` is not computed. Shapes and radii have been checked.
pub(crate) fn backward<T: Element>(
    config: &GaussianConfig,
    v: HostView<'_, T, 5>,
    sigma: HostView<'_, f32, 1>,
    d_o: HostView<'_, T, 5>,
    dv: Option<HostViewMut<'_, T, 5>>,
    dsigma: Option<HostViewMut<'_, f32, 1>>,
) -> Result<()> {
    if config.kernel.is_separable() {
        backward_by::<Separable, T>(config, v, sigma, d_o, dv, dsigma);
    } else {
        backward_by::<Dense, T>(config, v, sigma, d_o, dv, dsigma);
    }
    Ok(())
}

fn methods<M: Method>(config: &GaussianConfig, shape: [usize; 5], sigma: &[f32]) -> Vec<M> {
    sigma.iter().map(|&radius| M::new(config, [shape[2], shape[3]], radius)).collect()
}

fn forward_by<M: Method, T: Element>(
    config: &GaussianConfig,
    v: HostView<'_, T, 5>,
    sigma: HostView<'_, f32, 1>,
    o: HostViewMut<'_, T, 5>,
) {
    let turn = Turn::of(&o.layout);
    let (v, o) = (turn.input(v), turn.output(o));
    let shape = v.layout.shape;
    let methods: Vec<M> = methods(config, shape, &short_vector(sigma));
    run(shape, M::ROWS, Some(o), |scratch, tile, o| {
        if let Some(o) = o {
            methods[tile.h % methods.len()].forward(scratch, v, tile, o);
        }
    });
}

fn backward_by<M: Method, T: Element>(
    config: &GaussianConfig,
    v: HostView<'_, T, 5>,
    sigma: HostView<'_, f32, 1>,
    d_o: HostView<'_, T, 5>,
    dv: Option<HostViewMut<'_, T, 5>>,
    dsigma: Option<HostViewMut<'_, f32, 1>>,
) {
    if dv.is_none() && dsigma.is_none() {
        return;
    }
    let turn = dv.as_ref().map_or(Turn::NONE, |dv| Turn::of(&dv.layout));
    let (v, d_o, dv) = (turn.input(v), turn.input(d_o), dv.map(|dv| turn.output(dv)));
    let (shape, sigma) = (v.layout.shape, short_vector(sigma));
    let methods: Vec<M> = methods(config, shape, &sigma);
    let needed = dsigma.is_some().then_some(v);
    let shares = run(shape, M::ROWS, dv, |scratch, tile, dv| {
        methods[tile.h % methods.len()].backward(scratch, needed, d_o, tile, dv)
    });
    if let Some(HostViewMut { data, layout }) = dsigma {
        let mut slopes = vec![0.0; sigma.len()];
        for (tile, share) in shares {
            slopes[tile.h % sigma.len()] += share;
        }
        for (hi, (slope, radius)) in slopes.iter().zip(&sigma).enumerate() {
            data[layout.at([hi])] = (slope / f64::from(*radius)) as f32;
        }
    }
}
