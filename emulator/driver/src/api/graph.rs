//! Stream capture and graphs. Graphs are made by capture; nodes cannot be added by hand.

use crate::ffi::{Out, driver_functions};
use crate::graph::{Capture, CaptureMode, Graph, GraphExec, exchange_thread_mode};
use crate::state::{Handle, new_handle, state};
use crate::status::Error;
use crate::stream::{StreamHandle, StreamKey};
use std::sync::atomic::{AtomicU64, Ordering};

/// `CUstreamCaptureStatus`.
const NOT_CAPTURING: u32 = 0;
const CAPTURING: u32 = 1;
const INVALIDATED: u32 = 2;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH` and `_USE_NODE_PRIORITY`.
const INSTANTIATE_FLAGS: u64 = 1 | 8;

/// Status and number of the capture that a stream is in.
fn capture_info(stream: StreamHandle) -> Result<(u32, u64), Error> {
    let mut registry = state()?.registry();
    let target = registry.stream(stream)?;
    let id = registry.capturing.get(&target.key).copied().unwrap_or(0);
    match registry.capture_of(target.key) {
        Some(capture) => Ok((if capture.broken { INVALIDATED } else { CAPTURING }, id)),
        None => {
            if let StreamKey::Legacy(context) = target.key {
                registry.check_legacy(context)?;
            }
            Ok((NOT_CAPTURING, 0))
        }
    }
}

fn instantiate(into: Out<Handle>, graph: Handle) -> Result<(), Error> {
    into.check()?;
    let mut registry = state()?.registry();
    let (context, _) = registry.current()?;
    let work = registry.graphs.get(&graph).ok_or(Error::InvalidValue)?.work.clone().into();
    let handle = new_handle();
    registry.execs.insert(handle, GraphExec { context, work });
    into.set(handle)
}

driver_functions! {
    /// As documented.
    fn cuStreamBeginCapture_v2(stream: StreamHandle, mode: u32) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mode = CaptureMode::from_number(mode)?;
        let mut registry = state()?.registry();
        let target = registry.stream(stream)?;
        if matches!(target.key, StreamKey::Legacy(_)) {
            return Err(Error::StreamCaptureUnsupported);
        }
        if registry.capturing.contains_key(&target.key) {
            return Err(Error::IllegalState);
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        registry.captures.insert(id, Capture::new(target, mode));
        registry.capturing.insert(target.key, id);
        Ok(())
    }

    /// Whatever it returns, the capture is over, except when the thread or the stream is the wrong one.
    fn cuStreamEndCapture(stream: StreamHandle, into: Out<Handle>) {
        into.set(0)?;
        let mut registry = state()?.registry();
        let target = registry.stream(stream)?;
        let id = *registry.capturing.get(&target.key).ok_or(Error::IllegalState)?;
        let capture = registry.captures.get_mut(&id).ok_or(Error::IllegalState)?;
        if capture.mode != CaptureMode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(Error::StreamCaptureWrongThread);
        }
        if capture.origin != target.key {
            capture.broken = true;
            return Err(Error::StreamCaptureUnmatched);
        }
        let capture = registry.remove_capture(id).ok_or(Error::IllegalState)?;
        if capture.broken {
            return Err(Error::StreamCaptureInvalidated);
        }
        if !capture.is_joined() {
            return Err(Error::StreamCaptureUnjoined);
        }
        let handle = new_handle();
        registry.graphs.insert(handle, Graph { work: capture.work, nodes: Vec::new() });
        into.set(handle)
    }

    /// As documented.
    fn cuStreamIsCapturing(stream: StreamHandle, status: Out<u32>) {
        status.set(capture_info(stream)?.0)
    }

    /// As documented.
    fn cuStreamGetCaptureInfo(stream: StreamHandle, status: Out<u32>, id: Out<u64>) {
        let (now, of) = capture_info(stream)?;
        status.set(now)?;
        id.set_if_wanted(of);
        Ok(())
    }

    /// Without the graph under construction and its nodes: who asks for those is refused.
    fn cuStreamGetCaptureInfo_v2(
        stream: StreamHandle,
        status: Out<u32>,
        id: Out<u64>,
        graph: Out<Handle>,
        dependencies: Out<Handle>,
        dependency_count: Out<usize>,
    ) {
        let (now, of) = capture_info(stream)?;
        let wants_graph =
            graph.check().is_ok() || dependencies.check().is_ok() || dependency_count.check().is_ok();
        if now == CAPTURING && wants_graph {
            return Err(Error::NotSupported);
        }
        status.set(now)?;
        id.set_if_wanted(of);
        Ok(())
    }

    /// As documented.
    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        let before = exchange_thread_mode(CaptureMode::from_number(mode.get()?)?);
        mode.set(before as u32)
    }

    /// Makes an empty graph.
    fn cuGraphCreate(into: Out<Handle>, flags: u32) {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        into.check()?;
        let handle = new_handle();
        state()?.registry().graphs.insert(handle, Graph::default());
        into.set(handle)
    }

    /// As documented.
    fn cuGraphDestroy(graph: Handle) {
        state()?.registry().graphs.remove(&graph).map(|_| ()).ok_or(Error::InvalidValue)
    }

    /// The nodes in order of capture.
    fn cuGraphGetNodes(graph: Handle, nodes: Out<Handle>, count: Out<usize>) {
        let mut registry = state()?.registry();
        let graph = registry.graphs.get_mut(&graph).ok_or(Error::InvalidValue)?;
        if nodes.check().is_err() {
            return count.set(graph.work.len());
        }
        graph.nodes.resize_with(graph.work.len(), new_handle);
        let room = count.get()?;
        for i in 0..room {
            nodes.at(i).set(graph.nodes.get(i).copied().unwrap_or(0))?;
        }
        count.set(room.min(graph.nodes.len()))
    }

    /// As documented.
    fn cuGraphNodeGetType(node: Handle, kind: Out<u32>) {
        let registry = state()?.registry();
        let found = registry.graphs.values().find_map(|g| {
            let position = g.nodes.iter().position(|n| *n == node)?;
            Some(g.work[position].node_type())
        });
        kind.set(found.ok_or(Error::InvalidValue)?)
    }

    /// There is nothing to report of a failure: node and log stay empty.
    fn cuGraphInstantiate_v2(into: Out<Handle>, graph: Handle, node: Out<Handle>, log: Out<u8>, log_bytes: usize) {
        node.set_if_wanted(0);
        if log_bytes > 0 {
            log.set_if_wanted(0);
        }
        instantiate(into, graph)
    }

    /// Takes the flags of CUDA 11.8.
    fn cuGraphInstantiateWithFlags(into: Out<Handle>, graph: Handle, flags: u64) {
        if flags & !INSTANTIATE_FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        instantiate(into, graph)
    }

    /// There is nothing to upload.
    fn cuGraphUpload(exec: Handle, stream: StreamHandle) {
        let registry = state()?.registry();
        registry.stream(stream)?;
        registry.execs.get(&exec).map(|_| ()).ok_or(Error::InvalidValue)
    }

    /// Does the captured work in its order; launched into a capturing stream, it becomes part of that capture.
    fn cuGraphLaunch(exec: Handle, stream: StreamHandle) {
        let state = state()?;
        let (target, exec) = {
            let registry = state.registry();
            (registry.stream(stream)?, registry.execs.get(&exec).ok_or(Error::InvalidValue)?.clone())
        };
        for work in exec.work.iter() {
            state.submit(target, work.as_ref().clone())?;
        }
        Ok(())
    }

    /// As documented.
    fn cuGraphExecDestroy(exec: Handle) {
        state()?.registry().execs.remove(&exec).map(|_| ()).ok_or(Error::InvalidValue)
    }
}
