//! `gsa`: both branches of the module of Shen et al., of the same queries.
//!
//! All channels but the last are colours of a palette, as in the panel of `content`; the last is 1 in queries and a bell in the
//! tables. Tables are zero in the former, keys in the latter.

use super::super::shared::Failure;
use super::super::shared::canvas::Canvas;
use super::super::shared::heat;
use super::super::shared::sheet::{Cell, Sheet};
use super::axial::{WIDE, table};
use super::content::{colours, likeness, palette};
use super::{Scene, one_query};
use macula::axial::{self, AxialConfig};
use macula::content::ContentConfig;
use macula::gsa::{GsaConfig, Parameters};
use macula::{Axial, Content, Gsa, Tensor};

/// Colours of the palette, and channels in all.
const COLOURS: usize = 15;
const CHANNELS: usize = COLOURS + 1;
/// Weight of the colours in a query; what is near is weighed with 1.
const COLOUR_WEIGHT: f32 = 5.0;

/// Softmax.
fn normalised(logits: impl Iterator<Item = f32> + Clone) -> impl Iterator<Item = f32> {
    let largest = logits.clone().fold(f32::MIN, f32::max);
    let sum: f32 = logits.clone().map(|x| (x - largest).exp()).sum();
    logits.map(move |x| (x - largest).exp() / sum)
}

/// Three queries: each branch, and their sum.
pub fn maps(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let (photo, on) = (&scene.photo.image, scene.device);
    let colours = colours(photo);
    let palette = palette(&colours, COLOURS);
    let (mut q, mut k) = (Vec::new(), Vec::new());
    for colour in &colours {
        q.extend(
            normalised(likeness(colour, &palette).collect::<Vec<_>>().into_iter()).map(|x| COLOUR_WEIGHT * x),
        );
        q.push(1.0);
        k.extend(likeness(colour, &palette));
        k.push(0.0);
    }
    let q = Tensor::from_vec(q, scene.shape(CHANNELS))?.to(on)?;
    let k = Tensor::from_vec(k, scene.shape(CHANNELS))?.to(on)?;
    let v = Tensor::zeros(on, scene.shape(1))?;
    let table = table(scene, CHANNELS, &[WIDE])?;
    let along = axial::Parameters { columns: Some(&table), rows: Some(&table), affine: None, given: None };
    let both = Parameters { columns: &table, rows: &table, affine: None, given: None };

    let content = Content::new(ContentConfig::default());
    let axial = Axial::new(AxialConfig::default())?;
    let gsa = Gsa::new(GsaConfig::default())?;
    let of_content = content.forward(on, &q, &k, &v)?.saved;
    let of_axial = axial.forward(on, &q, &v, &along)?.saved;
    let of_gsa = gsa.forward(on, &q, &k, &v, both)?.saved;

    let mut cells = Vec::new();
    for query in &scene.queries {
        let d_o = one_query(scene.device, scene.photo.size(), query)?;
        let maps = [
            ("content", content.backward(on, &q, &k, &v, &of_content, &d_o)?.dv),
            ("axial", axial.backward(on, &q, &v, &along, &of_axial, &d_o)?.dv),
            ("gsa: their sum", gsa.backward(on, &q, &k, &v, both, &of_gsa, &d_o)?.dv),
        ];
        for (caption, map) in maps {
            let picture = heat::overlay(photo, &map.to_vec()?);
            cells.push(Cell::new(scene.cell(&picture, &[query]), caption).note(query.name));
        }
    }
    let sheet = Sheet {
        title: "Global self-attention: what is alike, and what is near".into(),
        subtitle: "the same queries in both branches; heat is relative to each map's own largest weight"
            .into(),
        columns: 3,
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}
