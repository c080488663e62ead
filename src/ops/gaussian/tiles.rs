//! Plans of the kernels that are not separable: weights tile by tile, shared by all images and channels of a head.

use super::lines::{Along, sum};
use super::params::{BwdTileParams, TileNormParams, TileParams, Tiles};
use super::plan::{BackwardProblem, ForwardProblem, Map, OP, radius, rounding};
use crate::config::gaussian::{GaussianConfig, Norm};
use crate::ops::planning::{Arena, grid, launch};
use crate::plan::Ptr;
use crate::{DType, Launch, Layout, Plan, Result};

// Constants of `kernels/gaussian_tile.cuh`.
const SIDE: i32 = 8;
const COLUMNS: i32 = 16;
const UNIT_BYTES: i32 = 16;

/// How the work is cut: `COLUMNS` units of channels per block, of as many images as it takes.
fn tiles(map: &Map, dtype: DType) -> Result<Tiles> {
    let unit = UNIT_BYTES / dtype.bytes() as i32;
    let up = |n: i32, by: i32| n / by + i32::from(n % by != 0);
    let units = up(map.d, unit);
    // As few as blocks of a launch, by the same limit.
    let columns = grid(OP, i128::from(map.b) * i128::from(units))?.cast_signed();
    Ok(Tiles {
        y: map.y,
        x: map.x,
        channels: map.d,
        units,
        columns,
        groups: up(columns, COLUMNS),
        rows_of_tiles: up(map.y, SIDE),
        tiles_of_row: up(map.x, SIDE),
    })
}

impl Tiles {
    /// Tiles of queries of one map.
    fn of_map(&self) -> i128 {
        i128::from(self.rows_of_tiles) * i128::from(self.tiles_of_row)
    }

    /// Blocks of one head.
    fn blocks(&self) -> i128 {
        self.of_map() * i128::from(self.groups)
    }
}

/// What queries are divided by, and the mean slopes of their weights; made by `gaussian_fwd_tile_norm_f32`.
struct Factors {
    inverse: Ptr,
    mean: Ptr,
}

impl Factors {
    const NONE: Factors = Factors { inverse: Ptr::NULL, mean: Ptr::NULL };

    /// Takes them from the scratch and pushes the launch that fills them; nothing where nothing is normalised.
    fn new(
        config: &GaussianConfig,
        sigma: &Layout<1>,
        (tiles, dtype): (&Tiles, DType),
        wants_mean: bool,
        (scratch, launches): (&mut Arena, &mut Vec<Launch>),
    ) -> Result<Self> {
        if config.norm == Norm::None {
            return Ok(Self::NONE);
        }
        let bytes = sigma.shape[0] as i64 * i64::from(tiles.y) * i64::from(tiles.x) * size_of::<f32>() as i64;
        let inverse = scratch.take(bytes);
        let mean = if wants_mean { scratch.take(bytes) } else { Ptr::NULL };
        let params = TileNormParams {
            radius: radius(config, sigma),
            inverse,
            mean,
            tiles: *tiles,
            rounding: rounding(dtype),
            pad: 0,
        };
        let blocks = grid(OP, tiles.of_map() * sigma.shape[0] as i128)?;
        launches.push(launch(OP, "gaussian_fwd_tile_norm_f32", blocks, &params)?);
        Ok(Self { inverse, mean })
    }
}

/// A product with A, or with its transpose: then 1/Z belongs to the inputs.
struct Product<'a> {
    dtype: DType,
    src: (Ptr, &'a Layout<5>),
    dst: (Ptr, &'a Layout<5>),
    is_transposed: bool,
}

impl Product<'_> {
    fn launch(
        &self,
        config: &GaussianConfig,
        sigma: &Layout<1>,
        map: &Map,
        tiles: &Tiles,
        factors: &Factors,
    ) -> Result<Launch> {
        let kernel = match self.dtype {
            DType::F32 => "gaussian_fwd_tile_f32",
            DType::F16 => "gaussian_fwd_tile_f16",
            DType::Bf16 => "gaussian_fwd_tile_bf16",
        };
        let params = TileParams {
            radius: radius(config, sigma),
            src: self.src.0,
            dst: self.dst.0,
            inverse: factors.inverse,
            src_at: map.strides(self.src.1, Along::X, 0),
            dst_at: map.strides(self.dst.1, Along::X, 0),
            tiles: *tiles,
            scales_inputs: self.is_transposed.into(),
            pad: 0,
        };
        launch(OP, kernel, tiles.blocks() * i128::from(map.h), &params)
    }
}

pub(super) fn forward(config: &GaussianConfig, problem: &ForwardProblem, map: &Map) -> Result<Plan> {
    let (mut scratch, mut launches) = (Arena::default(), Vec::new());
    let tiles = tiles(map, problem.dtype)?;
    let out = (&mut scratch, &mut launches);
    let factors = Factors::new(config, &problem.sigma, (&tiles, problem.dtype), false, out)?;
    let product = Product {
        dtype: problem.dtype,
        src: (Ptr::operand(0), &problem.v),
        dst: (Ptr::operand(2), &problem.o),
        is_transposed: false,
    };
    launches.push(product.launch(config, &problem.sigma, map, &tiles, &factors)?);
    scratch.plan(OP, launches)
}

/// `dv` is the product with the transpose; `dsigma` sums over all pairs of pixels on its own.
pub(super) fn backward(config: &GaussianConfig, problem: &BackwardProblem, map: &Map) -> Result<Plan> {
    if problem.dv.is_none() && problem.dsigma.is_none() {
        return Ok(Plan::default());
    }
    let (mut scratch, mut launches) = (Arena::default(), Vec::new());
    let tiles = tiles(map, problem.dtype)?;
    let out = (&mut scratch, &mut launches);
    let wants_mean = problem.dsigma.is_some();
    let factors = Factors::new(config, &problem.sigma, (&tiles, problem.dtype), wants_mean, out)?;
    if let Some(dv) = &problem.dv {
        let product = Product {
            dtype: problem.dtype,
            src: (Ptr::operand(2), &problem.d_o),
            dst: (Ptr::operand(3), dv),
            is_transposed: true,
        };
        launches.push(product.launch(config, &problem.sigma, map, &tiles, &factors)?);
    }
    if let Some(dsigma) = &problem.dsigma {
        let kernel = match problem.dtype {
            DType::F32 => "gaussian_bwd_tile_f32",
            DType::F16 => "gaussian_bwd_tile_f16",
            DType::Bf16 => "gaussian_bwd_tile_bf16",
        };
        let blocks = grid(OP, tiles.blocks() * i128::from(map.h))?;
        let partials = scratch.take(i64::from(blocks) * size_of::<f32>() as i64);
        let params = BwdTileParams {
            radius: radius(config, &problem.sigma),
            v: Ptr::operand(0),
            d_o: Ptr::operand(2),
            partials,
            inverse: factors.inverse,
            mean: factors.mean,
            v_at: map.strides(&problem.v, Along::X, 0),
            d_o_at: map.strides(&problem.d_o, Along::X, 0),
            tiles,
        };
        launches.push(launch(OP, kernel, blocks, &params)?);
        launches.push(sum(config, problem, 1, dsigma, partials, i64::from(blocks) / i64::from(map.h))?);
    }
    scratch.plan(OP, launches)
}
