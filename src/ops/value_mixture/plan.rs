//! Launches and cost of `value_mixture`.

use super::params::{
    Map, Table, ValueMixtureBwdParams, ValueMixtureBwdScoresParams, ValueMixtureBwdTablesParams,
    ValueMixtureFwdParams, ValueMixtureFwdWeightsParams,
};
use super::{Tables, ValueMixture};
use crate::ops::planning::{Arena, UNIT_BYTES, check_contiguous, is_wide, launch};
use crate::plan::{Divisor, Ptr};
use crate::{Cost, DType, Error, Launch, Layout, Plan, Result};

const OP: &str = ValueMixture::NAME;
/// Threads of the blocks that walk over maps, and mixtures that a thread has in flight; see `kernels/value_mixture*`.
const THREADS: usize = 256;
const QUARTET: usize = 4;
/// Warps of the blocks that walk over the tables, one per site.
const SITES_PER_BLOCK: usize = 8;
/// Units of a pixel up to which neighbouring heads are one: longer rows of units leave too many threads without one.
const FOLDED_UNITS_MOST: usize = 64;
/// Blocks of a backward pass beyond which the pixels of a site are split no further.
const BLOCKS_ENOUGH: usize = 2048;
/// Rounds of a block that make up for the sums that it leaves.
const ROUNDS_LEAST: usize = 4;
/// Kernels count pixels, sites and elements of a table in 32 bits.
const EXTENT_MAX: usize = 1 << 30;

/// A forward call: element type and layouts. Operands: 0 vs, 1 emb_row, 2 emb_col, 3 nu, 4 o, 5 p.
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of vs and o.
    pub dtype: DType,
    /// Values, `[m, b, h, y, x, e]`.
    pub vs: Layout<6>,
    /// The tables.
    pub tables: Tables<Layout<2>>,
    /// Output, `[b, h, y, x, e]`.
    pub o: Layout<5>,
    /// Whether the weights go to the caller (contiguous) instead of the workspace.
    pub wants_p: bool,
}

/// A backward call: element type and layouts. Operands: 0 vs, 1 emb_row, 2 emb_col, 3 nu, 4 d_o, 5 dvs, 6 to 8 gradients of
/// the tables.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of vs, d_o and dvs.
    pub dtype: DType,
    /// Values, `[m, b, h, y, x, e]`.
    pub vs: Layout<6>,
    /// The tables.
    pub tables: Tables<Layout<2>>,
    /// Gradient of the output, `[b, h, y, x, e]`.
    pub d_o: Layout<5>,
    /// Gradient of vs, when wanted.
    pub dvs: Option<Layout<6>>,
    /// Gradients of the tables, when wanted.
    pub dtables: Tables<Option<Layout<2>>>,
}

/// Accesses of so many channels.
fn units(channels: usize, dtype: DType) -> usize {
    channels.div_ceil(UNIT_BYTES / dtype.bytes())
}

/// Rows, columns and channels of the tables.
#[derive(Clone, Copy)]
struct Sites {
    rows: usize,
    columns: usize,
    r: usize,
}

impl Sites {
    fn of(tables: &Tables<Layout<2>>, mixtures: usize) -> Result<Self> {
        let [rows, r] = tables.emb_row.shape;
        let columns = tables.emb_col.shape[0];
        let sums = mixtures.saturating_mul(rows.saturating_add(columns));
        let elements = rows.saturating_add(columns).max(mixtures).saturating_mul(r);
        for count in [rows.saturating_mul(columns), sums, elements] {
            if count >= EXTENT_MAX {
                let what = format!("tables so large that {count} numbers follow from them, beyond 2^30");
                return Err(Error::unsupported(OP, what));
            }
        }
        Ok(Self { rows, columns, r })
    }

    fn count(&self) -> usize {
        self.rows * self.columns // proof: `of` checked the product
    }
}

/// The pixels of a call, as kernels walk over them: heads whose channels follow each other are one.
struct Walk {
    b: usize,
    h: usize,
    y: usize,
    x: usize,
    channels: usize,
    dtype: DType,
}

impl Walk {
    /// `tensors` with and without mixtures, all of them of one shape but for that.
    fn of(vs: &[&Layout<6>], others: &[&Layout<5>], dtype: DType) -> Self {
        let [_, b, h, y, x, e] = vs[0].shape;
        let follow = |stride: isize| stride == e as isize;
        let is_folded = vs.iter().all(|t| follow(t.strides[2]))
            && others.iter().all(|t| follow(t.strides[1]))
            && units(h.saturating_mul(e), dtype) <= FOLDED_UNITS_MOST;
        let (h, channels) = if is_folded { (1, h * e) } else { (h, e) };
        Self { b, h, y, x, channels, dtype }
    }

    fn pixels(&self) -> Result<usize> {
        let pixels = [self.b, self.h, self.y, self.x].into_iter().fold(1usize, usize::saturating_mul);
        if pixels >= EXTENT_MAX {
            let what = format!("2^30 pixels of all images and heads and more, got {pixels}");
            return Err(Error::unsupported(OP, what));
        }
        Ok(pixels)
    }

    /// Units of a pixel.
    fn units(&self) -> usize {
        units(self.channels, self.dtype)
    }

    fn map(&self, operand: u8, shape: [usize; 5], strides: [isize; 5]) -> Map {
        // A dimension of size 1 is never walked, and its stride must not spoil the alignment of the others.
        let is_walked = |i: usize| shape[i] != 1 && !(i == 2 && self.h == 1);
        let strides = [0, 1, 2, 3, 4].map(|i| if is_walked(i) { strides[i] as i64 } else { 0 });
        let is_wide = is_wide(&strides, self.channels, self.dtype).into();
        Map { data: Ptr::operand(operand), strides, is_wide }
    }

    fn map6(&self, operand: u8, t: &Layout<6>) -> Map {
        let [shape @ .., _] = t.shape;
        let [strides @ .., _] = t.strides;
        self.map(operand, shape, strides)
    }

    fn map5(&self, operand: u8, t: &Layout<5>) -> Map {
        let ([b, h, y, x, _], [sb, sh, sy, sx, _]) = (t.shape, t.strides);
        self.map(operand, [1, b, h, y, x], [0, sb, sh, sy, sx])
    }
}

fn weights(tables: &Tables<Layout<2>>, sites: Sites, mixtures: usize, p: Ptr) -> Result<Launch> {
    let params = ValueMixtureFwdWeightsParams {
        row: Table::of(1, &tables.emb_row),
        column: Table::of(2, &tables.emb_col),
        nu: Table::of(3, &tables.nu),
        p,
        columns: Divisor::new(sites.columns as u32),
        sites: sites.count() as i32,
        mixtures: mixtures as i32,
        channels: sites.r as i32,
    };
    launch(OP, "value_mixture_fwd_weights_f32", sites.count().div_ceil(SITES_PER_BLOCK), &params)
}

pub(super) fn forward(problem: &ForwardProblem) -> Result<Plan> {
    let p = problem;
    if p.o.is_empty() && !p.wants_p {
        return Ok(Plan::default());
    }
    check_contiguous(OP, "vs", &p.vs)?;
    check_contiguous(OP, "o", &p.o)?;
    let mixtures = p.vs.shape[0];
    let sites = Sites::of(&p.tables, mixtures)?;
    let mut scratch = Arena::default();
    let weight = if p.wants_p { Ptr::operand(5) } else { scratch.floats(mixtures * sites.count()) };
    let mut launches = vec![weights(&p.tables, sites, mixtures, weight)?];
    if !p.o.is_empty() {
        let walk = Walk::of(&[&p.vs], &[&p.o], p.dtype);
        let (pixels, units) = (walk.pixels()?, walk.units());
        let params = ValueMixtureFwdParams {
            vs: walk.map6(0, &p.vs),
            o: walk.map5(4, &p.o),
            p: weight,
            units: Divisor::new(units as u32),
            columns: Divisor::new(walk.x as u32),
            rows: Divisor::new(walk.y as u32),
            heads: Divisor::new(walk.h as u32),
            table_rows: Divisor::new(sites.rows as u32),
            table_columns: Divisor::new(sites.columns as u32),
            pixels: pixels as i32,
            pixels_per_block: (THREADS / units) as i32,
            mixtures: mixtures as i32,
            channels: walk.channels as i32,
        };
        let kernel = match p.dtype {
            DType::F32 => "value_mixture_fwd_f32",
            DType::F16 => "value_mixture_fwd_f16",
            DType::Bf16 => "value_mixture_fwd_bf16",
        };
        launches.push(launch(OP, kernel, pixels.div_ceil(THREADS / units), &params)?);
    }
    scratch.plan(OP, launches)
}

/// How the sites of the tables, and the pixels that fall on each, are shared out to blocks of a backward pass.
struct Share {
    /// Rows and columns of the tables that pixels fall on.
    seen: [usize; 2],
    /// Columns of a tile of sites, and tiles of a row.
    columns: usize,
    tiles: usize,
    quartets: usize,
    /// Rows and columns of the pixels of a site.
    down: usize,
    across: usize,
    /// Of all images and heads.
    pixels: usize,
    repeats: usize,
    pixels_per_block: usize,
    splits: usize,
}

impl Share {
    fn of(walk: &Walk, sites: Sites, mixtures: usize) -> Result<Self> {
        walk.pixels()?;
        let seen = [sites.rows.min(walk.y), sites.columns.min(walk.x)];
        let places = THREADS / walk.units();
        let tiles = seen[1].div_ceil(places);
        let columns = seen[1].div_ceil(tiles);
        let quartets = mixtures.div_ceil(QUARTET);
        let (down, across) = (walk.y.div_ceil(sites.rows), walk.x.div_ceil(sites.columns));
        let pixels = walk.b * walk.h * down * across; // proof: no more than all pixels
        let repeats = (places / columns).min(pixels);
        let rounds = pixels.div_ceil(repeats);
        let blocks = quartets.saturating_mul(tiles).saturating_mul(seen[0]);
        let splits = BLOCKS_ENOUGH.div_ceil(blocks).min(rounds.div_ceil(ROUNDS_LEAST));
        let pixels_per_block = rounds.div_ceil(splits) * repeats;
        let splits = pixels.div_ceil(pixels_per_block);
        Ok(Self { seen, columns, tiles, quartets, down, across, pixels, repeats, pixels_per_block, splits })
    }

    fn blocks(&self) -> usize {
        [self.quartets, self.tiles, self.seen[0], self.splits].into_iter().fold(1, usize::saturating_mul)
    }

    /// Floats that the blocks leave.
    fn partials(&self) -> usize {
        [self.quartets, QUARTET, self.seen[0], self.seen[1], self.splits]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }
}

pub(super) fn backward(problem: &BackwardProblem) -> Result<Plan> {
    let p = problem;
    let has_pixels = !p.d_o.is_empty();
    let wants_dvs = p.dvs.is_some() && has_pixels;
    let wants_tables = p.dtables.as_array().into_iter().any(Option::is_some);
    if !wants_dvs && !wants_tables {
        return Ok(Plan::default());
    }
    check_contiguous(OP, "vs", &p.vs)?;
    check_contiguous(OP, "d_o", &p.d_o)?;
    p.dvs.as_ref().map_or(Ok(()), |dvs| check_contiguous(OP, "dvs", dvs))?;
    let mixtures = p.vs.shape[0];
    let sites = Sites::of(&p.tables, mixtures)?;
    let mut scratch = Arena::default();
    let weight = scratch.floats(mixtures * sites.count());
    let mut launches = vec![weights(&p.tables, sites, mixtures, weight)?];
    let (mut seen, mut splits, mut partials) = ([0; 2], 0, Ptr::NULL);
    if has_pixels {
        let vs: Vec<&Layout<6>> = [Some(&p.vs), p.dvs.as_ref()].into_iter().flatten().collect();
        let walk = Walk::of(&vs, &[&p.d_o], p.dtype);
        let share = Share::of(&walk, sites, mixtures)?;
        (seen, splits) = (share.seen, share.splits);
        if wants_tables {
            partials = scratch.floats(share.partials());
        }
        let threads_of_site = share.repeats * walk.units();
        let params = ValueMixtureBwdParams {
            vs: walk.map6(0, &p.vs),
            d_o: walk.map5(4, &p.d_o),
            dvs: p.dvs.as_ref().map_or(Map::NONE, |dvs| walk.map6(5, dvs)),
            p: weight,
            partials,
            units: Divisor::new(walk.units() as u32),
            columns: Divisor::new(share.columns as u32),
            quartets: Divisor::new(share.quartets as u32),
            tiles: Divisor::new(share.tiles as u32),
            seen_rows: Divisor::new(seen[0] as u32),
            across: Divisor::new(share.across as u32),
            down: Divisor::new(share.down as u32),
            heads: Divisor::new(walk.h as u32),
            table_rows: sites.rows as i32,
            table_columns: sites.columns as i32,
            seen_columns: seen[1] as i32,
            y: walk.y as i32,
            x: walk.x as i32,
            pixels: share.pixels as i32,
            repeats: share.repeats as i32,
            pixels_per_block: share.pixels_per_block as i32,
            splits: splits as i32,
            mixtures: mixtures as i32,
            channels: walk.channels as i32,
            tree: (threads_of_site.next_power_of_two() / 2) as i32,
        };
        let kernel = match p.dtype {
            DType::F32 => "value_mixture_bwd_f32",
            DType::F16 => "value_mixture_bwd_f16",
            DType::Bf16 => "value_mixture_bwd_bf16",
        };
        launches.push(launch(OP, kernel, share.blocks(), &params)?);
    }
    if wants_tables {
        let dscores = scratch.floats(mixtures * sites.count());
        let params = ValueMixtureBwdScoresParams {
            p: weight,
            partials,
            dscores,
            columns: Divisor::new(sites.columns as u32),
            sites: sites.count() as i32,
            seen_rows: seen[0] as i32,
            seen_columns: seen[1] as i32,
            splits: splits as i32,
            mixtures: mixtures as i32,
        };
        let blocks = sites.count().div_ceil(SITES_PER_BLOCK);
        launches.push(launch(OP, "value_mixture_bwd_scores_f32", blocks, &params)?);
        let span = sites.rows + sites.columns;
        let grad = |operand: u8, layout: &Option<Layout<2>>| {
            layout.as_ref().map_or(Table::NONE, |layout| Table::of(operand, layout))
        };
        let params = ValueMixtureBwdTablesParams {
            row: Table::of(1, &p.tables.emb_row),
            column: Table::of(2, &p.tables.emb_col),
            nu: Table::of(3, &p.tables.nu),
            drow: grad(6, &p.dtables.emb_row),
            dcolumn: grad(7, &p.dtables.emb_col),
            dnu: grad(8, &p.dtables.nu),
            dscores,
            margins: scratch.floats(mixtures * span),
            span: Divisor::new(span as u32),
            channels: Divisor::new(sites.r as u32),
            rows: sites.rows as i32,
            columns: sites.columns as i32,
            mixtures: mixtures as i32,
            pad: 0,
        };
        launches.push(launch(OP, "value_mixture_bwd_tables_f32", 1, &params)?);
    }
    scratch.plan(OP, launches)
}

/// What the mathematics needs.
struct Work {
    /// Elements of the output, and numbers in p.
    elements: u64,
    mixtures: u64,
    weights: u64,
    r: u64,
    /// Bytes of the output or its gradient, and of the tables.
    map_bytes: u64,
    table_bytes: u64,
}

impl Work {
    fn of(vs: &Layout<6>, tables: &Tables<Layout<2>>, dtype: DType) -> Self {
        let [m, pixels @ ..] = vs.shape.map(|n| n as u64);
        let elements = pixels.into_iter().product::<u64>();
        let ([rows, r], columns) = (tables.emb_row.shape.map(|n| n as u64), tables.emb_col.shape[0] as u64);
        Self {
            elements,
            mixtures: m,
            weights: m * rows * columns,
            r,
            map_bytes: elements * dtype.bytes() as u64,
            table_bytes: 4 * r * (rows + columns + m),
        }
    }

    /// Of p.
    fn weight_flops(&self) -> u64 {
        3 * self.weights * self.r
    }
}

pub(super) fn forward_cost(problem: &ForwardProblem) -> Cost {
    let work = Work::of(&problem.vs, &problem.tables, problem.dtype);
    let p_bytes = if problem.wants_p { 4 * work.weights } else { 0 };
    Cost {
        flops: 2 * work.mixtures * work.elements + work.weight_flops(),
        min_bytes: (work.mixtures + 1) * work.map_bytes + work.table_bytes + p_bytes,
        exps: work.weights,
    }
}

pub(super) fn backward_cost(problem: &BackwardProblem) -> Cost {
    let work = Work::of(&problem.vs, &problem.tables, problem.dtype);
    let dtables = problem.dtables.as_array();
    let table_grads = dtables.into_iter().flatten().map(|grad| 4 * grad.len() as u64).sum::<u64>();
    let (reads, writes) = (u64::from(table_grads > 0), u64::from(problem.dvs.is_some()));
    Cost {
        flops: (2 * reads + writes) * work.mixtures * work.elements + work.weight_flops(),
        min_bytes: (1 + (reads + writes) * work.mixtures) * work.map_bytes + work.table_bytes + table_grads,
        exps: work.weights,
    }
}
