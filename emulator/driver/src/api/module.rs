//! Modules.

use crate::ffi::{HostPtr, In, InStr, Out, driver_functions, fill_text};
use crate::image::{self, MAGIC_BYTES, Refusal};
use crate::state::{Handle, state};
use crate::status::Error;
use std::ffi::{CStr, c_char};
use std::time::Instant;

/// `CUjit_option` numbers that do something here.
const WALL_TIME: u32 = 2;
const INFO_LOG: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;
/// The last `CUjit_option` of CUDA 11.8.
const LAST_OPTION: u32 = 29;

/// The bytes of an image: of text up to its final zero, of anything else the first few, which are enough to refuse it.
fn image_bytes(image: HostPtr) -> Result<&'static [u8], Error> {
    let mut magic = [0; MAGIC_BYTES];
    for (i, byte) in magic.iter_mut().enumerate() {
        *byte = image.read(i + 1)?[i];
        if *byte == 0 {
            break;
        }
    }
    if image::is_binary(magic) {
        return image.read(MAGIC_BYTES);
    }
    // SAFETY: not null (checked by `read`); an image that is no binary is a C string by the contract of the call.
    Ok(unsafe { CStr::from_ptr(image.address() as *const c_char) }.to_bytes())
}

fn load(into: Out<Handle>, image: HostPtr) -> Result<(), Refusal> {
    let refused = |error| Refusal { error, log: String::new() };
    into.check().map_err(refused)?;
    let bytes = image_bytes(image).map_err(refused)?;
    let handle = state().map_err(refused)?.load_module(bytes)?;
    into.set(handle).map_err(refused)
}

/// The options of a load, each with the slot that holds its value.
struct Options {
    numbers: In<u32>,
    values: Out<usize>,
    count: usize,
}

impl Options {
    fn slot(&self, option: u32) -> Result<Option<Out<usize>>, Error> {
        for i in 0..self.count {
            if self.numbers.at(i)? == option {
                self.values.check()?;
                return Ok(Some(self.values.at(i)));
            }
        }
        Ok(None)
    }

    fn check(&self) -> Result<(), Error> {
        for i in 0..self.count {
            if self.numbers.at(i)? > LAST_OPTION {
                return Err(Error::InvalidValue);
            }
        }
        Ok(())
    }

    /// Writes a log into the caller's buffer, and into the size's slot how many bytes it has.
    fn log(&self, buffer: u32, size: u32, text: &str) -> Result<(), Error> {
        let (Some(buffer), Some(size)) = (self.slot(buffer)?, self.slot(size)?) else { return Ok(()) };
        // The size is an unsigned int in a slot of a pointer's size.
        let capacity = size.get()? as u32 as usize;
        let target = Out::<u8>::from_address(buffer.get()?);
        if capacity == 0 || target.check().is_err() {
            return size.set(0);
        }
        fill_text(target, capacity, text.as_bytes())?;
        size.set(text.len().min(capacity - 1))
    }
}

driver_functions! {
    /// Reads PTX text from a file.
    fn cuModuleLoad(into: Out<Handle>, path: InStr) {
        into.check()?;
        let state = state()?;
        let path = std::path::PathBuf::from(path.text()?);
        let bytes = std::fs::read(path).map_err(|_| Error::FileNotFound)?;
        into.set(state.load_module(&bytes).map_err(|refusal| refusal.error)?)
    }

    /// Takes PTX text; a cubin or a fat binary is `CUDA_ERROR_NO_BINARY_FOR_GPU`.
    fn cuModuleLoadData(into: Out<Handle>, image: HostPtr) {
        load(into, image).map_err(|refusal| refusal.error)
    }

    /// Writes the logs and the wall time; other options are accepted and change nothing.
    fn cuModuleLoadDataEx(
        into: Out<Handle>,
        image: HostPtr,
        option_count: u32,
        options: In<u32>,
        values: Out<usize>,
    ) {
        let options = Options { numbers: options, values, count: option_count as usize };
        options.check()?;
        let start = Instant::now();
        let loaded = load(into, image);
        if let Some(slot) = options.slot(WALL_TIME)? {
            slot.cast::<f32>().set(start.elapsed().as_secs_f32() * 1e3)?;
        }
        options.log(INFO_LOG, INFO_LOG_BYTES, "")?;
        let text = loaded.as_ref().err().map_or("", |refusal| &refusal.log);
        options.log(ERROR_LOG, ERROR_LOG_BYTES, text)?;
        loaded.map_err(|refusal| refusal.error)
    }

    /// Fat binaries hold machine code: refused.
    fn cuModuleLoadFatBinary(into: Out<Handle>, image: HostPtr) {
        load(into, image).map_err(|refusal| refusal.error)
    }

    /// As documented.
    fn cuModuleUnload(module: Handle) {
        let mut registry = state()?.registry();
        registry.refuse_during_capture()?;
        registry.modules.remove(&module).ok_or(Error::InvalidHandle)?;
        registry.functions.retain(|_, f| f.module != module);
        Ok(())
    }

    /// As documented; asking again gives the same function.
    fn cuModuleGetFunction(into: Out<Handle>, module: Handle, name: InStr) {
        into.check()?;
        into.set(state()?.function(module, &name.text()?)?)
    }

    /// As documented.
    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: InStr) {
        let registry = state()?.registry();
        registry.current()?;
        let module = registry.modules.get(&module).ok_or(Error::InvalidHandle)?;
        let (at, length) = module.module.global(&name.text()?).ok_or(Error::NotFound)?;
        address.set_if_wanted(at);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    /// Modules are loaded whole.
    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        const EAGER: u32 = 1;
        mode.set(EAGER)
    }
}
