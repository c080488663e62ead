//! The photograph: the bundled one or the user's, and its way into a tensor and back.

use super::Failure;
use image::{ImageDecoder, ImageReader, RgbImage, imageops};
use macula::Tensor;
use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

/// Chelsea the cat. Source and licence: examples/data/README.md.
const BUNDLED: &[u8] = include_bytes!("../data/chelsea.jpg");

/// Longer sides are scaled down to this, so that a panel with several copies stays a picture that one can look at.
const SIDE_MAX: u32 = 640;

pub struct Photo {
    pub image: RgbImage,
    /// Whether it is the bundled one.
    pub is_bundled: bool,
}

impl Photo {
    pub fn bundled() -> Result<Self, Failure> {
        let image =
            decode(ImageReader::new(Cursor::new(BUNDLED))).map_err(|e| format!("the bundled photo: {e}"))?;
        Ok(Self { image, is_bundled: true })
    }

    /// Reads a PNG or JPEG file, scaled down when it is huge.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let explain = |e: &dyn std::fmt::Display| format!("cannot read the image {}: {e}", path.display());
        let image = decode(ImageReader::open(path).map_err(|e| explain(&e))?).map_err(|e| explain(&e))?;
        let (width, height) = image.dimensions();
        let long = width.max(height);
        if long <= SIDE_MAX {
            return Ok(Self { image, is_bundled: false });
        }
        let scaled = |side: u32| (u64::from(side) * u64::from(SIDE_MAX) / u64::from(long)).max(1) as u32;
        let (small_width, small_height) = (scaled(width), scaled(height));
        println!("note: {width}×{height} pixels are scaled down to {small_width}×{small_height}");
        let image = imageops::resize(&image, small_width, small_height, imageops::FilterType::CatmullRom);
        Ok(Self { image, is_bundled: false })
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }

    /// One image, one head, three channels from 0 to 1: `[1, 1, y, x, 3]`.
    pub fn tensor(&self) -> Result<Tensor<f32, 5>, Failure> {
        let [y, x] = self.size();
        let data = self.image.as_raw().iter().map(|&byte| f32::from(byte) / 255.0).collect();
        Ok(Tensor::from_vec(data, [1, 1, y, x, 3])?)
    }
}

/// A tensor of [`Photo::tensor`]'s shape as a picture of 8 bits.
pub fn to_image(tensor: &Tensor<f32, 5>) -> Result<RgbImage, Failure> {
    let [_, _, y, x, _] = tensor.shape();
    let bytes = tensor.to_vec()?.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    RgbImage::from_raw(x as u32, y as u32, bytes).ok_or_else(|| "a picture needs three channels".into())
}

/// The pixels as the camera meant them to be seen: turned upright, and on white where they are transparent.
fn decode(reader: ImageReader<impl BufRead + Seek>) -> Result<RgbImage, image::ImageError> {
    let mut decoder = reader.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = image::DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if !image.color().has_alpha() {
        return Ok(image.to_rgb8());
    }
    let rgba = image.to_rgba8();
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        image::Rgb(super::canvas::mix([255; 3], [r, g, b], f32::from(a) / 255.0))
    }))
}
