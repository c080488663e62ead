//! A small image classifier: a 3×3 convolution (a projection, for images come as neighbourhoods), two residual blocks that mix pixels by attention (or by convolutions), an average.

use crate::data::{NEIGHBOURS, SIZE};
use crate::seeded::Seeded;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder};
use macula_candle::modules::{
    AxialAttention, AxialAttentionConfig, ContentAttention, ContentAttentionConfig, GaussianAttention,
    GaussianAttentionConfig, GsaModule, GsaModuleConfig, LocalAttention, LocalAttentionConfig,
};
use macula_candle::{LocalConfig, Window};

/// Channels of every layer.
const WIDTH: usize = 32;
const HEADS: usize = 4;
/// Channels per head.
const DEPTH: usize = WIDTH / HEADS;
/// Windows of the local attention.
const WINDOW: usize = 5;
const CLASSES: usize = 10;

/// What mixes pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    Gaussian,
    Local,
    Axial,
    Content,
    Gsa,
    Conv,
}

impl Attention {
    pub const ALL: [Attention; 6] = [
        Attention::Gaussian,
        Attention::Local,
        Attention::Axial,
        Attention::Content,
        Attention::Gsa,
        Attention::Conv,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Attention::Gaussian => "gaussian",
            Attention::Local => "local",
            Attention::Axial => "axial",
            Attention::Content => "content",
            Attention::Gsa => "gsa",
            Attention::Conv => "conv",
        }
    }

    /// Floating-point operations on a map of `size`×`size` pixels, projections included; a multiply-add is two.
    fn flops(self, size: usize) -> usize {
        let (pixels, projection) = (size * size, 2 * size * size * WIDTH * WIDTH);
        let content = 4 * pixels * DEPTH * WIDTH;
        let axial = 2 * pixels * (size + size) * 2 * WIDTH;
        match self {
            Attention::Gaussian => 2 * projection + 2 * pixels * (size + size) * WIDTH,
            Attention::Local => 3 * projection + pixels * (4 * WINDOW * WINDOW + 4 * WINDOW) * WIDTH,
            Attention::Axial => 2 * projection + axial,
            Attention::Content => 3 * projection + content,
            Attention::Gsa => 3 * projection + content + axial,
            Attention::Conv => 9 * projection,
        }
    }
}

impl std::str::FromStr for Attention {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|attention| attention.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|a| a.name()).collect();
            format!("no attention is called `{name}`: there are {}", names.join(", "))
        })
    }
}

/// The layer between pixels of a block.
enum Mix {
    Gaussian(GaussianAttention),
    Local(LocalAttention),
    Axial(AxialAttention),
    Content(ContentAttention),
    Gsa(GsaModule),
    Conv(Conv2d),
}

impl Mix {
    fn new(attention: Attention, size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let heads = HEADS;
        Ok(match attention {
            Attention::Gaussian => {
                let config =
                    GaussianAttentionConfig { heads, radius: 1.0, output: true, ..Default::default() };
                Self::Gaussian(GaussianAttention::new(WIDTH, config, vb)?)
            }
            Attention::Local => {
                let scale = (DEPTH as f32).powf(-0.5);
                let op =
                    LocalConfig { window: Window::sliding([WINDOW; 2]), scale, ..LocalConfig::default() };
                let config = LocalAttentionConfig { heads, op, ..Default::default() };
                Self::Local(LocalAttention::new(WIDTH, WIDTH, config, vb)?)
            }
            Attention::Axial => {
                let config = AxialAttentionConfig { heads, ..AxialAttentionConfig::of_map(size, size) };
                Self::Axial(AxialAttention::new(WIDTH, WIDTH, config, vb)?)
            }
            Attention::Content => {
                let config = ContentAttentionConfig { heads, ..Default::default() };
                Self::Content(ContentAttention::new(WIDTH, WIDTH, config, vb)?)
            }
            Attention::Gsa => {
                let config = GsaModuleConfig { heads, ..GsaModuleConfig::of_map(size, size) };
                Self::Gsa(GsaModule::new(WIDTH, WIDTH, config, vb)?)
            }
            Attention::Conv => Self::Conv(conv(vb)?),
        })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::Gaussian(layer) => layer.forward(xs),
            Self::Local(layer) => layer.forward(xs),
            Self::Axial(layer) => layer.forward_t(xs, train),
            Self::Content(layer) => layer.forward(xs),
            Self::Gsa(layer) => layer.forward_t(xs, train),
            Self::Conv(layer) => layer.forward(xs),
        }
    }
}

fn conv(vb: VarBuilder<'_>) -> Result<Conv2d> {
    let config = Conv2dConfig { padding: 1, ..Default::default() };
    candle_nn::conv2d_no_bias(WIDTH, WIDTH, 3, config, vb)
}

fn norm(vb: VarBuilder<'_>) -> Result<BatchNorm> {
    candle_nn::batch_norm(WIDTH, 1e-5, vb)
}

pub struct Net {
    stem: (Linear, BatchNorm),
    blocks: [(Mix, BatchNorm); 2],
    head: Linear,
    attention: Attention,
    parameters: Seeded,
}

impl Net {
    /// A net whose first values follow from the seed.
    pub fn new(attention: Attention, seed: u64, device: &Device) -> Result<Self> {
        let parameters = Seeded::new(seed);
        let vb = VarBuilder::from_backend(Box::new(parameters.clone()), DType::F32, device.clone());
        let block = |i: usize, size: usize| -> Result<_> {
            let vb = vb.pp(format!("block{i}"));
            Ok((Mix::new(attention, size, vb.pp("mix"))?, norm(vb.pp("norm"))?))
        };
        let stem = candle_nn::linear_no_bias(NEIGHBOURS, WIDTH, vb.pp("stem.conv"))?;
        let stem = (stem, norm(vb.pp("stem.norm"))?);
        let blocks = [block(0, SIZE)?, block(1, SIZE / 2)?];
        let head = candle_nn::linear(WIDTH, CLASSES, vb.pp("head"))?;
        Ok(Self { stem, blocks, head, attention, parameters })
    }

    fn stem(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let (projection, norm) = &self.stem;
        let xs = projection.forward(&images.permute((0, 2, 3, 1))?.contiguous()?)?;
        norm.forward_t(&xs.permute((0, 3, 1, 2))?.contiguous()?, train)?.relu()
    }

    /// Logits, `[n, 10]`, of images `[n, 9, 8, 8]`.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let mut xs = self.stem(images, train)?;
        for (i, (mix, norm)) in self.blocks.iter().enumerate() {
            if i > 0 {
                xs = xs.avg_pool2d(2)?;
            }
            xs = (&xs + norm.forward_t(&mix.forward(&xs, train)?, train)?)?.relu()?;
        }
        self.head.forward(&xs.mean((2, 3))?)
    }

    /// How strongly each pixel of a block's input acts on what the middle pixel becomes there, `[size, size]` for each block:
    /// the magnitude of the gradient, over all channels.
    pub fn influence(&self, image: &Tensor) -> Result<Vec<Vec<f32>>> {
        let mut xs = self.stem(image, false)?;
        let mut maps = Vec::new();
        for (i, (mix, norm)) in self.blocks.iter().enumerate() {
            if i > 0 {
                xs = xs.avg_pool2d(2)?;
            }
            let input = Var::from_tensor(&xs.detach())?;
            let mixed = mix.forward(&input, false)?;
            let middle = mixed.dim(2)? / 2;
            let grads = mixed.narrow(2, middle, 1)?.narrow(3, middle, 1)?.sum_all()?.backward()?;
            if let Some(grad) = grads.get(&input) {
                maps.push(grad.abs()?.sum((0, 1))?.flatten_all()?.to_vec1()?);
            }
            xs = (&xs + norm.forward_t(&mixed.detach(), false)?)?.relu()?;
        }
        Ok(maps)
    }

    /// What an optimizer changes.
    pub fn variables(&self) -> Vec<Var> {
        self.parameters
            .all()
            .into_iter()
            .filter(|(name, _)| !name.contains("running"))
            .map(|(_, v)| v)
            .collect()
    }

    /// How many numbers are learned.
    pub fn parameters(&self) -> usize {
        self.variables().iter().map(|v| v.elem_count()).sum()
    }

    /// Floating-point operations per image.
    pub fn flops(&self) -> usize {
        let stem = 2 * NEIGHBOURS * SIZE * SIZE * WIDTH;
        stem + self.attention.flops(SIZE) + self.attention.flops(SIZE / 2) + 2 * WIDTH * CLASSES
    }

    /// The radii of each block, for the attention that has some.
    pub fn radii(&self) -> Result<Vec<Vec<f32>>> {
        let of = |(mix, _): &(Mix, BatchNorm)| match mix {
            Mix::Gaussian(layer) => layer.radii()?.to_vec1(),
            _ => Ok(Vec::new()),
        };
        self.blocks.iter().map(of).filter(|radii| radii.as_ref().map_or(true, |r| !r.is_empty())).collect()
    }
}
