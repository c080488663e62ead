//! Small problems with our results, for other programs to compare themselves with before they are timed.
//!
//! One `<op>.safetensors` each, f32: the arguments by their names, the results by theirs, the settings in the header.

use crate::Failure;
use crate::memory::random;
use macula::axial::Parameters;
use macula::local::{Border, LocalConfig, Positions, Sliding, Tables};
use macula::value_mixture;
use macula::{Axial, Content, Cuda, Gaussian, Gsa, Local, Tensor, ValueMixture, gsa as both};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Neither square nor a multiple of any tile, large enough for a window of 7.
const SHAPE: [usize; 5] = [2, 2, 11, 9, 16];

/// What goes into one file.
struct Problem {
    settings: HashMap<String, String>,
    tensors: Vec<(&'static str, Vec<usize>, Vec<u8>)>,
}

impl Problem {
    fn new(settings: &[(&str, String)]) -> Self {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Self { settings, tensors: Vec::new() }
    }

    fn add<const R: usize>(&mut self, name: &'static str, tensor: &Tensor<f32, R>) -> Result<(), Failure> {
        let bytes = tensor.to_vec()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name, tensor.shape().to_vec(), bytes));
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut views = Vec::new();
        for (name, shape, bytes) in &self.tensors {
            views.push(((*name).to_owned(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
        }
        Ok(safetensors::serialize_to_file(views, Some(self.settings.clone()), path)?)
    }
}

fn gaussian(gpu: &Cuda) -> Result<Problem, Failure> {
    let (v, d_o) = (random::<f32, 5>(gpu, 1, SHAPE, 1.0)?, random::<f32, 5>(gpu, 2, SHAPE, 1.0)?);
    let sigma = Tensor::from_vec(vec![1.3f32], [1])?.to(gpu)?;
    let op = Gaussian::default();
    let (o, grads) = (op.forward(gpu, &v, &sigma)?, op.backward(gpu, &v, &sigma, &d_o)?);
    let mut problem = Problem::new(&[("op", Gaussian::NAME.into())]);
    problem.add("v", &v)?;
    problem.add("sigma", &sigma)?;
    problem.add("d_o", &d_o)?;
    problem.add("o", &o)?;
    problem.add("dv", &grads.dv)?;
    problem.add("dsigma", &grads.dsigma)?;
    Ok(problem)
}

fn local(gpu: &Cuda, has_tables: bool, border: Border) -> Result<Problem, Failure> {
    let random = |seed| random::<f32, 5>(gpu, seed, SHAPE, 1.0);
    let (q, k, v, d_o) = (random(1)?, random(2)?, random(3)?, random(4)?);
    let config = LocalConfig {
        window: Sliding::new([7, 7]).at_border(border).into(),
        scale: 0.25,
        ..Default::default()
    };
    let op = Local::new(config)?;
    let channels = config.relative.table_channels(SHAPE[4]);
    let rows = config.window.table_rows();
    let table = |seed, i: usize| crate::memory::random::<f32, 3>(gpu, seed, [1, rows[i], channels[i]], 1.0);
    let (rel_h, rel_w) = (table(5, 0)?, table(6, 1)?);
    let tables = has_tables.then_some(Tables { rel_h: &rel_h, rel_w: &rel_w });
    let tables = Positions { tables, ..Positions::default() };
    let out = op.forward(gpu, &q, &k, &v, tables)?;
    let settings = [("op", Local::NAME.into()), ("window", "7".into()), ("scale", config.scale.to_string())];
    let mut problem = Problem::new(&settings);
    for (name, tensor) in [("q", &q), ("k", &k), ("v", &v), ("d_o", &d_o), ("o", &out.o)] {
        problem.add(name, tensor)?;
    }
    if has_tables {
        problem.add("rel_h", &rel_h)?;
        problem.add("rel_w", &rel_w)?;
    }
    // What the device does not do is left out, and the others compare what there is.
    if let Ok(grads) = op.backward(gpu, &q, &k, &v, tables, &out, &d_o) {
        for (name, tensor) in [("dq", &grads.dq), ("dk", &grads.dk), ("dv", &grads.dv)] {
            problem.add(name, tensor)?;
        }
        if let Some(tables) = &grads.dtables {
            problem.add("drel_h", &tables.rel_h)?;
            problem.add("drel_w", &tables.rel_w)?;
        }
    }
    Ok(problem)
}

fn content(gpu: &Cuda) -> Result<Problem, Failure> {
    let random = |seed| random::<f32, 5>(gpu, seed, SHAPE, 1.0);
    let (q, k, v, d_o) = (random(1)?, random(2)?, random(3)?, random(4)?);
    let op = Content::default();
    let out = op.forward(gpu, &q, &k, &v)?;
    let mut problem = Problem::new(&[("op", Content::NAME.into())]);
    for (name, tensor) in [("q", &q), ("k", &k), ("v", &v), ("d_o", &d_o), ("o", &out.o)] {
        problem.add(name, tensor)?;
    }
    if let Ok(grads) = op.backward(gpu, &q, &k, &v, &out.saved, &d_o) {
        for (name, tensor) in [("dq", &grads.dq), ("dk", &grads.dk), ("dv", &grads.dv)] {
            problem.add(name, tensor)?;
        }
    }
    Ok(problem)
}

fn axial(gpu: &Cuda) -> Result<Problem, Failure> {
    let [_, _, y, x, d] = SHAPE;
    let tensor = |seed| random::<f32, 5>(gpu, seed, SHAPE, 1.0);
    let (q, v, d_o) = (tensor(1)?, tensor(2)?, tensor(3)?);
    let columns = random::<f32, 3>(gpu, 4, [1, 2 * y - 1, d], 0.3)?;
    let rows = random::<f32, 3>(gpu, 5, [1, 2 * x - 1, d], 0.3)?;
    let parameters = Parameters { columns: Some(&columns), rows: Some(&rows), affine: None, given: None };
    let op = Axial::default();
    let out = op.forward(gpu, &q, &v, &parameters)?;
    let mut problem = Problem::new(&[("op", Axial::NAME.into())]);
    for (name, tensor) in [("q", &q), ("v", &v), ("d_o", &d_o), ("o", &out.o)] {
        problem.add(name, tensor)?;
    }
    problem.add("columns", &columns)?;
    problem.add("rows", &rows)?;
    if let Ok(grads) = op.backward(gpu, &q, &v, &parameters, &out.saved, &d_o) {
        problem.add("dq", &grads.dq)?;
        problem.add("dv", &grads.dv)?;
        for (name, table) in [("dcolumns", &grads.dcolumns), ("drows", &grads.drows)] {
            table.as_ref().map_or(Ok(()), |table| problem.add(name, table))?;
        }
    }
    Ok(problem)
}

fn mixture(gpu: &Cuda) -> Result<Problem, Failure> {
    let ([b, h, y, x, e], m) = (SHAPE, 4);
    let (vs, d_o) =
        (random::<f32, 6>(gpu, 1, [m, b, h, y, x, e], 1.0)?, random::<f32, 5>(gpu, 2, SHAPE, 1.0)?);
    let table = |seed, rows| random::<f32, 2>(gpu, seed, [rows, 8], 1.0);
    let (emb_row, emb_col, nu) = (table(3, 4)?, table(4, 4)?, table(5, m)?);
    let tables = value_mixture::Tables { emb_row: &emb_row, emb_col: &emb_col, nu: &nu };
    let op = ValueMixture::new();
    let (out, grads) = (op.forward(gpu, &vs, tables)?, op.backward(gpu, &vs, tables, &d_o)?);
    let mut problem = Problem::new(&[("op", ValueMixture::NAME.into())]);
    problem.add("vs", &vs)?;
    problem.add("dvs", &grads.dvs)?;
    problem.add("d_o", &d_o)?;
    problem.add("o", &out.o)?;
    let dtables = &grads.dtables;
    for (name, table) in [("emb_row", &emb_row), ("emb_col", &emb_col), ("nu", &nu)] {
        problem.add(name, table)?;
    }
    for (name, grad) in [("demb_row", &dtables.emb_row), ("demb_col", &dtables.emb_col), ("dnu", &dtables.nu)]
    {
        problem.add(name, grad)?;
    }
    Ok(problem)
}

fn gsa(gpu: &Cuda) -> Result<Problem, Failure> {
    let [_, _, y, x, d] = SHAPE;
    let tensor = |seed| random::<f32, 5>(gpu, seed, SHAPE, 1.0);
    let (q, k, v, d_o) = (tensor(1)?, tensor(2)?, tensor(3)?, tensor(4)?);
    let columns = random::<f32, 3>(gpu, 5, [1, 2 * y - 1, d], 0.3)?;
    let rows = random::<f32, 3>(gpu, 6, [1, 2 * x - 1, d], 0.3)?;
    let parameters = both::Parameters { columns: &columns, rows: &rows, affine: None, given: None };
    let op = Gsa::default();
    let out = op.forward(gpu, &q, &k, &v, parameters)?;
    let grads = op.backward(gpu, &q, &k, &v, parameters, &out.saved, &d_o)?;
    let mut problem = Problem::new(&[("op", Gsa::NAME.into())]);
    let maps = [("q", &q), ("k", &k), ("v", &v), ("d_o", &d_o), ("o", &out.o)];
    for (name, tensor) in maps.into_iter().chain([("dq", &grads.dq), ("dk", &grads.dk), ("dv", &grads.dv)]) {
        problem.add(name, tensor)?;
    }
    let tables = [("columns", &columns), ("rows", &rows)];
    for (name, table) in tables.into_iter().chain([("dcolumns", &grads.dcolumns), ("drows", &grads.drows)]) {
        problem.add(name, table)?;
    }
    Ok(problem)
}

/// Makes one problem.
type Make = fn(&Cuda) -> Result<Problem, Failure>;

pub fn write_all(gpu: &Cuda, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let all: [(&str, Make); 8] = [
        ("gaussian", gaussian),
        ("local", |gpu| local(gpu, false, Border::Mask)),
        ("local_rel", |gpu| local(gpu, true, Border::Mask)),
        ("local_shift", |gpu| local(gpu, false, Border::Shift)),
        ("content", content),
        ("axial", axial),
        ("gsa", gsa),
        ("value_mixture", mixture),
    ];
    let mut written = 0;
    for (name, make) in all {
        match make(gpu) {
            Ok(problem) => {
                problem.write(&folder.join(format!("{name}.safetensors")))?;
                println!("{name}: {} tensors", problem.tensors.len());
                written += 1;
            }
            Err(e) => println!("{name}: {e}"),
        }
    }
    if written == 0 { Err("no problem could be written".into()) } else { Ok(()) }
}
