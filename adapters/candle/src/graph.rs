//! Autograd for ops of any number of inputs.
//!
//! candle's custom ops have at most three inputs. A call with more becomes a chain: the op itself is a custom op of two inputs
//! and a dummy of one element, the dummy is the result of a carrier of two more inputs and another dummy, and so on.
//! candle walks from results to inputs, so the op comes first: it computes all gradients at once, returns its own, and leaves
//! the others for the carriers.
//!
//! The forward pass has been computed when this is called; the custom ops only hand its result to candle.

use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

/// Gradients by input; none for an input that does not want one.
pub(crate) type Grads = Vec<Option<Tensor>>;

/// From the result and its gradient to the gradients of all inputs.
type Backward = dyn Fn(&Tensor, &Tensor) -> Result<Grads> + Send + Sync;

/// What the links of one call share.
struct Call {
    op: &'static str,
    backward: Box<Backward>,
    /// Which inputs have an edge in the graph, in the order of the links.
    tracked: Vec<usize>,
    /// Gradients on their way from the op to the carriers, by the thread that walks the graph.
    waiting: Mutex<HashMap<ThreadId, Grads>>,
}

impl Call {
    fn compute(&self, result: &Tensor, d_result: &Tensor) -> Result<()> {
        let grads = (self.backward)(result, d_result)?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(std::thread::current().id(), grads);
        Ok(())
    }

    /// The gradient of the `i`-th tracked input. The last one clears the table.
    fn take(&self, i: usize) -> Result<Option<Tensor>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::current().id();
        let grad = waiting.get_mut(&thread).and_then(|grads| grads.get_mut(self.tracked[i])?.take());
        if i + 1 == self.tracked.len() {
            waiting.remove(&thread);
        }
        match grad {
            Some(grad) => Ok(Some(grad)),
            None => Err(Error::BackwardNotSupported { op: self.op }.bt()),
        }
    }
}

/// The place of a custom op in its chain.
enum Role {
    /// Has the result, until candle takes it.
    Op(Mutex<Option<Storage>>, Shape),
    /// Makes a dummy.
    Carrier,
}

/// One custom op of a chain.
struct Link {
    call: Arc<Call>,
    role: Role,
    /// Its first input among the tracked ones.
    first: usize,
    /// Its inputs without a dummy.
    count: usize,
}

impl Link {
    fn result(&self) -> Option<(Storage, Shape)> {
        let Role::Op(storage, shape) = &self.role else { return None };
        let storage = storage.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((storage, shape.clone()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match (&self.role, self.result()) {
            (Role::Carrier, _) => Ok((CpuStorage::F32(vec![0.0]), Shape::from(1))),
            (_, Some((Storage::Cpu(storage), shape))) => Ok((storage, shape)),
            _ => Err(Error::Msg(format!("{}: the result is not on the CPU", self.call.op)).bt()),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        let device = input.device.clone();
        match (&self.role, self.result()) {
            (Role::Carrier, _) => {
                let dummy = device.alloc_zeros::<f32>(1)?;
                Ok((CudaStorage::wrap_cuda_slice(dummy, device), Shape::from(1)))
            }
            (_, Some((Storage::Cuda(storage), shape))) => Ok((storage, shape)),
            _ => Err(Error::Msg(format!("{}: the result is not on the GPU", self.call.op)).bt()),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(&self, _: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        Err(Error::NotCompiledWithCudaSupport.bt())
    }

    fn grads<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        result: &Tensor,
        d_result: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        if let Role::Op(..) = self.role {
            self.call.compute(result, d_result)?;
        }
        let mut grads = [const { None }; N];
        for (i, (grad, input)) in grads.iter_mut().zip(inputs).enumerate() {
            *grad = match i < self.count {
                true => self.call.take(self.first + i)?,
                false => Some(input.zeros_like()?),
            };
        }
        Ok(grads)
    }
}

impl CustomOp1 for Link {
    fn name(&self) -> &'static str {
        self.call.op
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, s: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda(s)
    }

    fn bwd(&self, a: &Tensor, result: &Tensor, d_result: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.grads([a], result, d_result)?;
        Ok(a)
    }
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        self.call.op
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda(s)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        d_result: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.grads([a, b], result, d_result)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Link {
    fn name(&self) -> &'static str {
        self.call.op
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda(s)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        result: &Tensor,
        d_result: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.grads([a, b, c], result, d_result)?;
        Ok((a, b, c))
    }
}

/// Which inputs want a gradient.
pub(crate) fn wants<const N: usize>(inputs: [Option<&Tensor>; N]) -> [bool; N] {
    inputs.map(|input| input.is_some_and(Tensor::track_op))
}

/// The result of a call (its memory and shape) as a tensor of candle's graph. `backward` gets the result and its gradient and returns a gradient
/// for every input that [`wants`] one; `inputs` are in the order of what it returns.
pub(crate) fn attach(
    op: &'static str,
    (storage, shape): (Storage, Shape),
    inputs: &[Option<&Tensor>],
    backward: impl Fn(&Tensor, &Tensor) -> Result<Grads> + Send + Sync + 'static,
) -> Result<Tensor> {
    let is_tracked = |i: &usize| inputs[*i].is_some_and(Tensor::track_op);
    let tracked: Vec<usize> = (0..inputs.len()).filter(is_tracked).collect();
    let edges: Vec<&Tensor> = tracked.iter().filter_map(|&i| inputs[i]).collect();
    if edges.is_empty() {
        return Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false));
    }
    let backward = Box::new(backward);
    let call = Arc::new(Call { op, backward, tracked, waiting: Mutex::default() });
    chain(&call, Role::Op(Mutex::new(Some(storage)), shape), &edges, 0)
}

fn chain(call: &Arc<Call>, role: Role, edges: &[&Tensor], first: usize) -> Result<Tensor> {
    let link = |count| Link { call: call.clone(), role, first, count };
    match edges {
        [] => Err(Error::BackwardNotSupported { op: call.op }.bt()),
        [a] => a.apply_op1(link(1)),
        [a, b] => a.apply_op2(b, link(2)),
        [a, b, c] => a.apply_op3(b, c, link(3)),
        [a, b, rest @ ..] => {
            let dummy = chain(call, Role::Carrier, rest, first + 2)?;
            a.apply_op3(b, &dummy, link(2))
        }
    }
}
