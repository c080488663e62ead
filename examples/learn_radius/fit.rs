//! Gradient descent on one number.
//!
//! The loss L(σ) is half the mean square of `A(σ) v − target`, and the op's backward pass gives ∂L/∂σ. What is learned is
//! ρ = ln σ, so that σ stays positive and a step means the same at σ = 0.8 as at σ = 8; its gradient is σ ∂L/∂σ.
//!
//! A fixed step would crawl where the loss is flat (large radii) and leap where it is steep (small ones). So the step
//! follows from the last two gradients: they say how fast the gradient changes with ρ, and the step goes to where it
//! would vanish (the secant method; in one dimension this is what quasi-Newton methods and the step rule of Barzilai and
//! Borwein do). Two guards make it safe from any start: σ changes by at most a factor of two per step, and the signs of
//! the gradients seen so far say between which two radii the minimum lies; a step that would leave that bracket goes to
//! its middle instead.

use macula::{Device, Gaussian, Result, Tensor};

/// Where the descent starts, whatever the truth.
pub const START: f32 = 2.0;
/// The most steps; far fewer are needed.
pub const STEPS_MAX: usize = 40;
/// ρ is found when a step is smaller than this: the relative accuracy of σ.
const STEP_MIN: f64 = 1e-5;
/// The largest step: a factor of two.
const STEP_MAX: f64 = std::f64::consts::LN_2;

/// The state after one forward and backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub sigma: f32,
    pub loss: f64,
}

/// The loss's gradient by ρ at one radius.
struct Slope {
    rho: f64,
    gradient: f64,
}

/// Finds the radius at which `photo` becomes `target`. `watch` sees every step; the last one is the answer.
pub fn fit(
    device: &dyn Device,
    photo: &Tensor<f32, 5>,
    target: &Tensor<f32, 5>,
    mut watch: impl FnMut(usize, Step),
) -> Result<Step> {
    let op = Gaussian::default();
    let (photo, target) = (photo.to(device)?, target.to_vec()?);
    let mut rho = f64::from(START).ln();
    let mut previous: Option<Slope> = None;
    // The minimum is above the first and below the second.
    let mut bracket = (f64::NEG_INFINITY, f64::INFINITY);
    let mut best = Step { sigma: START, loss: f64::INFINITY };
    for i in 0..STEPS_MAX {
        let radius = rho.exp() as f32;
        let sigma = Tensor::from_vec(vec![radius], [1])?.to(device)?;

        // Forward, and the gradient of the loss by the output.
        let o = op.forward(device, &photo, &sigma)?.to_vec()?;
        let count = o.len() as f64;
        let error: Vec<f64> = o.iter().zip(&target).map(|(o, t)| f64::from(o - t)).collect();
        let loss = error.iter().map(|e| e * e).sum::<f64>() / (2.0 * count);
        let d_o = error.iter().map(|e| (e / count) as f32).collect();
        let d_o = Tensor::from_vec(d_o, photo.shape())?.to(device)?;

        // Backward, and the chain rule for ρ = ln σ.
        let dsigma = op.backward(device, &photo, &sigma, &d_o)?.dsigma.to_vec()?[0];
        let gradient = f64::from(radius) * f64::from(dsigma);

        let step = Step { sigma: radius, loss };
        watch(i, step);
        if loss < best.loss {
            best = step;
        }
        if gradient < 0.0 {
            bracket.0 = rho;
        } else {
            bracket.1 = rho;
        }
        let here = Slope { rho, gradient };
        let next = next_rho(&here, previous.as_ref(), bracket);
        if gradient == 0.0 || (next - rho).abs() < STEP_MIN {
            return Ok(step);
        }
        previous = Some(here);
        rho = next;
    }
    Ok(best)
}

/// The secant step, guarded.
fn next_rho(here: &Slope, previous: Option<&Slope>, (low, high): (f64, f64)) -> f64 {
    // Downhill by the largest step, until two gradients say more.
    let mut step = -STEP_MAX.copysign(here.gradient);
    if let Some(previous) = previous {
        let curvature = (here.gradient - previous.gradient) / (here.rho - previous.rho);
        if curvature > 0.0 {
            step = (-here.gradient / curvature).clamp(-STEP_MAX, STEP_MAX);
        }
    }
    let next = here.rho + step;
    if next > low && next < high { next } else { (low + high) / 2.0 }
}
