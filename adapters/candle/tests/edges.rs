//! Empty maps, and what is refused.

use candle_core::{DType, Device, Error, Result, Tensor, Var};
use macula_candle::{
    ContentConfig, GaussianConfig, LocalConfig, Positions, Window, content, gaussian, local,
};

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[test]
fn empty_maps() -> Result<()> {
    let v = zeros(&[1, 2, 0, 3, 4], DType::F32);
    let sigma = Var::from_tensor(&Tensor::new(&[1f32, 2.0], &Device::Cpu)?)?;
    let o = gaussian(&v, &sigma, &GaussianConfig::default())?;
    assert_eq!(o.dims(), [1, 2, 0, 3, 4]);
    let grads = o.sum_all()?.backward()?;
    assert_eq!(grads.get(&sigma).unwrap().to_vec1::<f32>()?, [0.0, 0.0]);
    Ok(())
}

/// candle's own errors, where candle has one.
#[test]
fn refusals_are_candles() {
    let v = zeros(&[1, 2, 3, 3, 4], DType::F32);
    let sigma = zeros(&[2], DType::F32);
    let config = GaussianConfig::default();
    let inner = |e: Error| match e {
        Error::WithBacktrace { inner, .. } => *inner,
        other => other,
    };
    let refused = gaussian(&zeros(&[1, 3, 3, 4], DType::F32), &sigma, &config).unwrap_err();
    assert!(matches!(inner(refused), Error::UnexpectedNumberOfDims { expected: 5, got: 4, .. }));
    let refused = gaussian(&zeros(&[1, 2, 3, 3, 4], DType::F64), &sigma, &config).unwrap_err();
    assert!(matches!(inner(refused), Error::UnsupportedDTypeForOp(DType::F64, "gaussian")));
    let k = zeros(&[1, 2, 3, 3, 4], DType::F16);
    let refused = content(&v, &k, &v, &ContentConfig::default()).unwrap_err();
    let want = (DType::F32, DType::F16, "content");
    assert!(
        matches!(inner(refused), Error::DTypeMismatchBinaryOp { lhs, rhs, op } if (lhs, rhs, op) == want)
    );
}

/// Everything else in macula's words.
#[test]
fn refusals_are_maculas() {
    let v = zeros(&[1, 2, 3, 3, 4], DType::F32);
    let text = |e: Error| e.to_string();
    let refused = gaussian(&v, &zeros(&[3], DType::F32), &GaussianConfig::default()).unwrap_err();
    assert!(text(refused).contains("gaussian: `sigma` must be"), "radii");
    let refused = gaussian(&v, &zeros(&[2], DType::F32), &GaussianConfig::default()).unwrap_err();
    assert!(text(refused).contains("gaussian: `sigma` must be"), "a radius of 0");
    let config = LocalConfig { window: Window::sliding([0, 3]), ..LocalConfig::default() };
    let refused = local(&v, &v, &v, Positions::default(), &config).unwrap_err();
    assert!(text(refused).contains("local: `window.size` must be 1 to 33 keys"));
}
