//! `attention_maps` and `learn_radius`.

use super::{attention_maps, folder, learn_radius, words};
use image::{Rgb, RgbImage};
use macula::Cpu;
use std::path::Path;

/// The pictures that a run left in a folder.
fn pictures(out: &Path) -> Vec<(String, RgbImage)> {
    let mut files: Vec<_> = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), image::open(path).unwrap().to_rgb8())).collect()
}

fn draw(image: Option<&Path>, out: &Path) -> Result<(), String> {
    let mut args = words(&["--out", out.to_str().unwrap()]);
    args.extend(image.map(Into::into));
    let options = attention_maps::Options::parse(args).unwrap();
    attention_maps::draw(&options).map_err(|e| e.to_string())
}

#[test]
fn panels_are_drawn_of_the_bundled_photo() {
    let out = folder("bundled").join("made/by/the/example");
    draw(None, &out).unwrap();
    let pictures = pictures(&out);
    let names: Vec<&str> = pictures.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "axial_attended.png",
        "axial_maps.png",
        "content_attended.png",
        "content_maps.png",
        "gaussian_attended.png",
        "gaussian_kernels.png",
        "gaussian_maps.png",
        "gsa_maps.png",
        "local_attended.png",
        "local_maps.png",
        "overview.png",
    ];
    assert_eq!(names, expected);
    for (name, picture) in &pictures {
        let colours: std::collections::HashSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
        assert!(picture.width() >= 1000 && colours.len() > 1000, "{name} is nearly empty");
    }
}

/// From one pixel to sides that are scaled down; transparent and grey ones too.
#[test]
fn panels_are_drawn_of_any_image() {
    for (width, height) in [(1, 1), (5, 3), (1, 900), (1300, 40)] {
        let out = folder(&format!("any_{width}_{height}"));
        let image = out.join("in.png");
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 99])).save(&image).unwrap();
        draw(Some(&image), &out.join("panels")).unwrap();
        assert_eq!(pictures(&out.join("panels")).len(), 11, "{width}×{height}");
    }
    let out = folder("any_kind");
    let clear = image::RgbaImage::from_pixel(4, 4, image::Rgba([9, 9, 9, 0]));
    clear.save(out.join("clear.png")).unwrap();
    image::GrayImage::from_pixel(4, 4, image::Luma([7])).save(out.join("grey.jpg")).unwrap();
    draw(Some(&out.join("clear.png")), &out.join("panels")).unwrap();
    draw(Some(&out.join("grey.jpg")), &out.join("panels")).unwrap();
}

#[test]
fn unreadable_images_are_named() {
    let out = folder("unreadable");
    let error = draw(Some(Path::new("no/such/cat.jpg")), &out).unwrap_err();
    assert!(error.starts_with("cannot read the image no/such/cat.jpg: "), "{error}");
    let text = out.join("text.png");
    std::fs::write(&text, "not a picture").unwrap();
    let error = draw(Some(&text), &out).unwrap_err();
    assert!(error.starts_with("cannot read the image ") && error.contains("text.png"), "{error}");
}

#[test]
fn radii_are_learned_within_one_percent() {
    let device = Cpu::new();
    for sigma in [0.8f32, 1.0, 1.4, 1.9, 2.0, 2.7, 3.6, 4.8, 6.3, 8.0] {
        let puzzle = learn_radius::Puzzle::new(&device, sigma).unwrap();
        let found = puzzle.solve(&device, |_, _| ()).unwrap();
        assert!((found - sigma).abs() <= 0.01 * sigma, "{sigma} px: found {found} px");
    }
}

#[test]
fn learning_is_drawn() {
    let out = folder("learned");
    let args = words(&["--sigma", "3", "--out", out.to_str().unwrap()]);
    learn_radius::learn(&learn_radius::Options::parse(args).unwrap()).unwrap();
    let names: Vec<String> = pictures(&out).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["loss.png", "pictures.png"]);
}

#[test]
fn wrong_arguments_are_refused() {
    for args in [&["a.png", "b.png"][..], &["--out"], &["--device", "abacus"], &["--no-such-option"]] {
        assert!(attention_maps::Options::parse(words(args)).is_err(), "{args:?}");
    }
    for args in [&["3.7"][..], &["--sigma", "x"], &["--sigma", "nan"], &["--sigma", "-1"], &["--sigma=99"]] {
        assert!(learn_radius::Options::parse(words(args)).is_err(), "{args:?}");
    }
}
