//! Time on the device: CUDA events around calls, buffers rotated, the median of many samples.

use crate::Failure;
use macula::Cuda;
use macula::cudarc::driver::CudaEvent;
use macula::cudarc::driver::sys::{
    CUevent, CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode,
};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One call of an op, with the buffers that it works on.
pub type Call = Box<dyn FnMut() -> macula::Result<()>>;

/// Samples at most, and at least.
const SAMPLES: [usize; 2] = [5, 50];
/// What a sample lasts at least, so that events resolve it.
const SAMPLE_US: f64 = 200.0;
/// Calls in one captured graph at most.
const GRAPH_CALLS: usize = 64;

/// Microseconds per call.
pub struct Timing {
    /// Median, 20 % and 80 % quantiles, calls put on the stream one by one.
    pub stream_us: [f64; 3],
    /// The same, calls replayed from one CUDA graph.
    pub graph_us: [f64; 3],
    /// What one call costs the host.
    pub host_us: f64,
    /// Sets of buffers that were rotated.
    pub sets: usize,
}

impl Timing {
    pub fn json(&self) -> Value {
        json!({ "stream_us": self.stream_us, "graph_us": self.graph_us, "host_us": self.host_us, "sets": self.sets })
    }
}

fn quantiles(samples: &mut [f64]) -> [f64; 3] {
    samples.sort_by(f64::total_cmp);
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
    [at(0.5), at(0.2), at(0.8)]
}

/// Microseconds that `work` takes on the stream.
pub fn elapsed_us(gpu: &Cuda, work: &mut dyn FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let stream = gpu.stream();
    let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    let (begin, end) = (event()?, event()?);
    begin.record(stream)?;
    work()?;
    end.record(stream)?;
    end.synchronize()?;
    Ok(f64::from(elapsed_ms(&begin, &end)?) * 1e3)
}

/// The driver's call, by the name that every driver has: cudarc asks for the `_v2` of CUDA 12.8 and panics without it.
fn elapsed_ms(begin: &CudaEvent, end: &CudaEvent) -> Result<f32, Failure> {
    type Call = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
    static DRIVER: OnceLock<Option<libloading::Library>> = OnceLock::new();
    // SAFETY: the driver is loaded already, by the device that recorded the events.
    let driver = DRIVER.get_or_init(|| unsafe { libloading::Library::new("libcuda.so.1") }.ok());
    let driver = driver.as_ref().ok_or("libcuda.so.1 is gone")?;
    let mut milliseconds = 0.0;
    // SAFETY: the signature is the one that cuda.h has had since its first release; the number outlives the call.
    unsafe {
        driver.get::<Call>(b"cuEventElapsedTime\0")?(&mut milliseconds, begin.cu_event(), end.cu_event())
    }
    .result()?;
    Ok(milliseconds)
}

/// Samples of `calls` calls each, for about as long as `limit`.
fn sample(
    gpu: &Cuda,
    calls: usize,
    limit: Duration,
    work: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<[f64; 3], Failure> {
    let [at_least, at_most] = SAMPLES;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < at_most && (samples.len() < at_least || begin.elapsed() < limit) {
        samples.push(elapsed_us(gpu, work)? / calls as f64);
        // The look-alike: one is as good as many.
        if begin.elapsed() > limit * 8 {
            break;
        }
    }
    Ok(quantiles(&mut samples))
}

/// Times calls on sets of buffers that together exceed the caches.
pub fn time(gpu: &Cuda, sets: &mut [Call], limit: Duration) -> Result<Timing, Failure> {
    let count = sets.len();
    let mut all = || -> Result<(), Failure> { Ok(sets.iter_mut().try_for_each(|call| call())?) };
    // Loads modules and warms up.
    all()?;
    gpu.stream().synchronize()?;
    let once = elapsed_us(gpu, &mut all)?.max(1.0);
    let rounds = ((SAMPLE_US / once).ceil() as usize).clamp(1, GRAPH_CALLS.div_ceil(count));
    let mut round = || (0..rounds).try_for_each(|_| all());

    let begin = Instant::now();
    round()?;
    let host_us = begin.elapsed().as_secs_f64() * 1e6 / (rounds * count) as f64;
    gpu.stream().synchronize()?;
    let stream_us = sample(gpu, rounds * count, limit / 2, &mut round)?;

    let stream = gpu.stream();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
    let captured = round();
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?;
    captured?;
    let graph = graph.ok_or("nothing was captured")?;
    graph.launch()?;
    stream.synchronize()?;
    let graph_us = sample(gpu, rounds * count, limit / 2, &mut || Ok(graph.launch()?))?;
    Ok(Timing { stream_us, graph_us, host_us, sets: count })
}
