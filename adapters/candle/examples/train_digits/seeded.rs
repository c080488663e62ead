//! First values of parameters that follow from a seed: candle's random numbers on the CPU cannot be seeded.

use crate::data::Random;
use candle_core::{DType, Device, Error, Result, Shape, Tensor, Var};
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Makes the parameters that layers ask for, in the order in which they ask.
#[derive(Clone)]
pub struct Seeded(Arc<Mutex<(Random, BTreeMap<String, Var>)>>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new((Random::new(seed), BTreeMap::new()))))
    }

    /// All parameters by name.
    pub fn all(&self) -> Vec<(String, Var)> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }
}

impl SimpleBackend for Seeded {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (random, vars) = &mut *state;
        let count = shape.elem_count();
        let values: Vec<f64> = match init {
            Init::Const(value) => vec![value; count],
            Init::Randn { mean, stdev } => (0..count).map(|_| mean + stdev * random.normal()).collect(),
            Init::Uniform { lo, up } => (0..count).map(|_| lo + (up - lo) * random.uniform()).collect(),
            Init::Kaiming { dist, fan, non_linearity } => {
                let spread = non_linearity.gain() / (fan.for_shape(&shape) as f64).sqrt();
                let mut value = || match dist {
                    NormalOrUniform::Normal => spread * random.normal(),
                    NormalOrUniform::Uniform => spread * 3f64.sqrt() * (2.0 * random.uniform() - 1.0),
                };
                (0..count).map(|_| value()).collect()
            }
        };
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let var = state.1.get(name).map(|var| var.as_tensor().clone());
        var.ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
