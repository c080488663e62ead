//! Kernel launches.

use crate::ffi::{HostPtr, In, driver_functions};
use crate::graph::Work;
use crate::launch::{self, LaunchWork};
use crate::state::{Handle, state};
use crate::status::Error;
use crate::stream::StreamHandle;
use ptx_emulator::{Dims, Entry};

/// Elements of the `extra` array.
const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_BUFFER_BYTES: usize = 2;

/// Where a launch's parameters come from.
#[derive(Clone, Copy)]
struct Arguments {
    each: In<HostPtr>,
    extra: In<usize>,
}

impl Arguments {
    /// The parameter block of an entry, copied.
    fn gather(self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let mut block = vec![0; entry.param_bytes() as usize];
        match (self.each.is_null(), self.extra.is_null()) {
            (false, false) => return Err(Error::InvalidValue),
            (true, true) if block.is_empty() => {}
            (true, true) => return Err(Error::InvalidValue),
            (false, true) => {
                for (i, param) in entry.params().iter().enumerate() {
                    let (offset, size) = (param.offset as usize, param.size as usize);
                    block[offset..offset + size].copy_from_slice(self.each.at(i)?.read(size)?);
                }
            }
            (true, false) => {
                let given = self.packed()?;
                if given.len() < block.len() {
                    return Err(Error::InvalidValue);
                }
                let used = block.len();
                block.copy_from_slice(&given[..used]);
            }
        }
        Ok(block)
    }

    /// The block that the `extra` array names.
    fn packed(self) -> Result<&'static [u8], Error> {
        let (mut buffer, mut bytes) = (None, None);
        let mut i = 0;
        loop {
            match self.extra.at(i)? {
                EXTRA_END => break,
                EXTRA_BUFFER => buffer = Some(HostPtr::from_address(self.extra.at(i + 1)?)),
                EXTRA_BUFFER_BYTES => bytes = Some(HostPtr::from_address(self.extra.at(i + 1)?).size()?),
                _ => return Err(Error::InvalidValue),
            }
            i += 2;
        }
        buffer.ok_or(Error::InvalidValue)?.read(bytes.ok_or(Error::InvalidValue)?)
    }
}

fn launch(handle: Handle, dims: Dims, stream: StreamHandle, arguments: Arguments) -> Result<(), Error> {
    let state = state()?;
    let (target, function) = {
        let registry = state.registry();
        let target = registry.stream(stream)?;
        (target, registry.functions.get(&handle).ok_or(Error::InvalidHandle)?.clone())
    };
    if function.context != target.context {
        return Err(Error::InvalidHandle);
    }
    launch::check(&function, &dims)?;
    let params = arguments.gather(&function.entry)?;
    let work = LaunchWork {
        context: function.context,
        device: function.device,
        entry: function.entry,
        dims,
        params,
    };
    state.submit(target, Work::Launch(work))
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: StreamHandle,
    attributes: In<LaunchAttribute>,
    attribute_count: u32,
}

/// `CUlaunchAttribute`: a number, padding, and a value of 64 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchAttribute {
    id: u32,
    pad: u32,
    value: [u64; 8],
}

/// `CUlaunchAttributeID` that stands for nothing.
const ATTRIBUTE_IGNORE: u32 = 0;

driver_functions! {
    /// Executes the kernel before it returns. What the emulator finds is this call's error.
    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: StreamHandle,
        each: In<HostPtr>,
        extra: In<usize>,
    ) {
        let dims = Dims { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
        launch(function, dims, stream, Arguments { each, extra })
    }

    /// As `cuLaunchKernel`; launch attributes are refused.
    fn cuLaunchKernelEx(config: In<LaunchConfig>, function: Handle, each: In<HostPtr>, extra: In<usize>) {
        let config = config.get()?;
        for i in 0..config.attribute_count as usize {
            if config.attributes.at(i)?.id != ATTRIBUTE_IGNORE {
                return Err(Error::NotSupported);
            }
        }
        let dims = Dims { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
        launch(function, dims, config.stream, Arguments { each, extra })
    }

    /// Blocks are not all resident at a time here, so they cannot wait for each other: refused, as the device attribute
    /// says.
    fn cuLaunchCooperativeKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: StreamHandle,
        each: In<HostPtr>,
    ) {
        let _ = (grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, each);
        let registry = state()?.registry();
        registry.stream(stream)?;
        registry.functions.get(&function).ok_or(Error::InvalidHandle)?;
        Err(Error::NotSupported)
    }
}
