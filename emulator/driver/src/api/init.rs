//! Initialisation, errors, entry points, the profiler.

use crate::ffi::{InStr, Out, driver_functions};
use crate::functions;
use crate::state::{State, state};
use crate::status::{self, Error};
use std::ffi::{c_char, c_void};

driver_functions! {
    /// Refuses `PTX_EMULATOR_*` variables that are not understood, and tells why on standard error.
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        let state = State::of_process().map_err(|error| {
            eprintln!("ptx-emulator: {error}");
            Error::InvalidValue
        })?;
        state.initialize();
        if state.devices.is_empty() { Err(Error::NoDevice) } else { Ok(()) }
    }

    /// The version that is emulated, 11.8 unless chosen otherwise.
    fn cuDriverGetVersion(version: Out<i32>) {
        let state = State::of_process().map_err(|_| Error::InvalidValue)?;
        version.set(state.settings().cuda_version as i32)
    }

    /// Knows the codes of CUDA 11.8.
    fn cuGetErrorName(error: u32, text: Out<*const c_char>) {
        set_text(text, status::name(error))
    }

    /// Knows the codes of CUDA 11.8.
    fn cuGetErrorString(error: u32, text: Out<*const c_char>) {
        set_text(text, status::sentence(error))
    }

    /// Finds what is exported, by names without version. The per-thread default stream and the legacy one differ in
    /// captures only, so there is one function for both.
    fn cuGetProcAddress(symbol: InStr, function: Out<*const c_void>, cuda_version: i32, flags: u64) {
        let version = u32::try_from(cuda_version).map_err(|_| Error::InvalidValue)?;
        if flags > 2 {
            return Err(Error::InvalidValue);
        }
        let found = functions::find(&symbol.text()?, version);
        function.set(found.map_or(std::ptr::null(), |address| address.0))?;
        found.map(|_| ()).ok_or(Error::NotFound)
    }

    /// There is nothing to profile: succeeds.
    fn cuProfilerStart() {
        state()?.registry().current().map(|_| ())
    }

    /// There is nothing to profile: succeeds.
    fn cuProfilerStop() {
        state()?.registry().current().map(|_| ())
    }
}

fn set_text(text: Out<*const c_char>, found: Option<&'static std::ffi::CStr>) -> Result<(), Error> {
    text.set(found.map_or(std::ptr::null(), std::ffi::CStr::as_ptr))?;
    found.map(|_| ()).ok_or(Error::InvalidValue)
}
