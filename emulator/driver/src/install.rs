//! Makes this process's libcuda the look-alike.
//!
//! Programs ask for a driver by the name `libcuda.so.1` or `libcuda.so`. A dynamic loader that already holds a library
//! of that SONAME hands it out without a look at any search path. So two shims of these SONAMEs, built by the build
//! script and embedded in this crate, are loaded first, from memory; what is on the path after that does not matter.

use crate::driver::Driver;
use crate::settings::BadVariable;
use crate::state::State;
use std::fmt;

/// Why the look-alike could not be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallError {
    /// The shims exist for x86-64 Linux with glibc only.
    Platform,
    /// The process already has another libcuda: it was linked to one, or called one before the installation.
    OtherDriver(String),
    /// A `PTX_EMULATOR_*` variable has a value that is not understood.
    Variable(BadVariable),
    /// The operating system refused something; the text says what.
    System(String),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Platform => write!(f, "the look-alike driver needs x86-64 Linux with glibc"),
            InstallError::OtherDriver(name) => {
                write!(
                    f,
                    "this process has loaded another {name} already: install the look-alike before the first driver \
                     call; for a program that is linked to libcuda use ptx-emulator-libcuda"
                )
            }
            InstallError::Variable(error) => error.fmt(f),
            InstallError::System(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InstallError::Variable(error) => Some(error),
            _ => None,
        }
    }
}

/// Makes this process's libcuda the look-alike, from now until the process ends.
///
/// Call it before the first driver call, as often as you like and from any thread: one call does the work, and all give
/// the same driver.
///
/// # Errors
///
/// When the platform has no shims, another driver is loaded already, or a `PTX_EMULATOR_*` variable is wrong. Every
/// later call gives the same error.
///
/// # Examples
///
/// ```
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))] {
/// let driver = ptx_emulator_driver::install()?;
/// let context = cudarc::driver::CudaContext::new(0)?;
/// assert_eq!(context.name()?, "PTX emulator (sm_80)");
/// assert!(driver.launches().is_empty());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn install() -> Result<&'static Driver, InstallError> {
    let state = State::of_process().map_err(InstallError::Variable)?;
    shims::load()?;
    Ok(Driver::over(state))
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
mod shims {
    pub fn load() -> Result<(), super::InstallError> {
        Err(super::InstallError::Platform)
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod shims {
    use super::InstallError;
    use crate::functions::{ADDRESSES, Address};
    use std::ffi::{CStr, CString, c_void};
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
    use std::sync::OnceLock;

    /// SONAME and contents of each shim.
    const SHIMS: [(&CStr, &[u8]); 2] = [
        (c"libcuda.so", include_bytes!(concat!(env!("OUT_DIR"), "/libcuda.so"))),
        (c"libcuda.so.1", include_bytes!(concat!(env!("OUT_DIR"), "/libcuda.so.1"))),
    ];

    /// Loads the shims, once in a process; they are never closed.
    pub fn load() -> Result<(), InstallError> {
        static LOADED: OnceLock<Result<(), InstallError>> = OnceLock::new();
        LOADED.get_or_init(load_once).clone()
    }

    fn load_once() -> Result<(), InstallError> {
        for (soname, _) in SHIMS {
            refuse_other(soname)?;
        }
        for (soname, contents) in SHIMS {
            let library = open(soname, contents)?;
            fill_table(soname, library)?;
        }
        Ok(())
    }

    /// An error if the process has a library of this name.
    fn refuse_other(soname: &CStr) -> Result<(), InstallError> {
        // SAFETY: a C string; with RTLD_NOLOAD nothing is loaded and no foreign code runs.
        let other = unsafe { libc::dlopen(soname.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW) };
        if other.is_null() {
            return Ok(());
        }
        // SAFETY: the handle was just obtained; this gives back that one reference.
        unsafe { libc::dlclose(other) };
        Err(InstallError::OtherDriver(soname.to_string_lossy().into_owned()))
    }

    /// Loads a shim from memory, visible to the whole process.
    fn open(soname: &CStr, contents: &[u8]) -> Result<*mut c_void, InstallError> {
        let name = soname.to_string_lossy();
        let failed = |what: &str, why: io::Error| InstallError::System(format!("{what} {name}: {why}"));
        // SAFETY: a C string and a documented flag.
        let descriptor = unsafe { libc::memfd_create(soname.as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(failed("no memory file for", io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let mut file = unsafe { File::from_raw_fd(descriptor) };
        file.write_all(contents).map_err(|why| failed("cannot write", why))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(path).map_err(|why| failed("cannot name", why.into()))?;
        // SAFETY: the library is the shim of this crate's build script; it has no initialisers.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if library.is_null() {
            return Err(failed("cannot load", io::Error::other(last_error())));
        }
        // The loader knows the library by this path from now on, so no other file may get the number: it stays open.
        let _ = file.into_raw_fd();
        Ok(library)
    }

    /// Points the jumps of a shim at this crate's functions.
    fn fill_table(soname: &CStr, library: *mut c_void) -> Result<(), InstallError> {
        // SAFETY: an open library and a C string.
        let table = unsafe { libc::dlsym(library, c"PTX_EMULATOR_TABLE".as_ptr()) };
        if table.is_null() {
            let name = soname.to_string_lossy();
            return Err(InstallError::System(format!("no table in {name}: {}", last_error())));
        }
        // SAFETY: build script and `ADDRESSES` are made from one list, so the shim's table has exactly this many slots;
        // nobody reads it before `install` returns.
        unsafe {
            std::ptr::copy_nonoverlapping(ADDRESSES.as_ptr(), table.cast::<Address>(), ADDRESSES.len())
        };
        Ok(())
    }

    fn last_error() -> String {
        // SAFETY: the string that dlerror gives lives until this thread's next dl call; it is copied before.
        unsafe {
            let text = libc::dlerror();
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::functions::NAMES;

        /// Names of the dynamic symbols that an x86-64 ELF library defines.
        fn exported(elf: &[u8]) -> Vec<String> {
            let number = |at: usize, bytes: usize| {
                elf[at..at + bytes].iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b))
            };
            let sections = number(0x28, 8);
            let section = |i: usize| sections + i * 64;
            let text = |at: usize| {
                elf[at..].split(|&b| b == 0).next().map(|t| String::from_utf8_lossy(t).into_owned())
            };
            let of_type =
                |kind: usize| (0..number(0x3c, 2)).map(section).filter(move |&s| number(s + 4, 4) == kind);
            let mut names = Vec::new();
            for dynsym in of_type(11) {
                let strings = number(section(number(dynsym + 0x28, 4)) + 0x18, 8);
                let (start, bytes) = (number(dynsym + 0x18, 8), number(dynsym + 0x20, 8));
                for symbol in (start..start + bytes).step_by(24) {
                    if number(symbol + 6, 2) != 0 {
                        names.extend(text(strings + number(symbol, 4)));
                    }
                }
            }
            names.sort();
            names
        }

        #[test]
        fn the_shims_export_the_list_and_the_table_only() {
            let mut wanted: Vec<String> = NAMES.iter().map(|n| (*n).to_owned()).collect();
            wanted.push("PTX_EMULATOR_TABLE".to_owned());
            wanted.sort();
            for (_, elf) in SHIMS {
                assert_eq!(exported(elf), wanted);
            }
        }

        /// A subset, so that a program that runs on the look-alike needs no symbol that came later.
        #[test]
        fn a_driver_of_cuda_11_8_exports_every_name() {
            let driver: Vec<&str> = include_str!("../tests/data/cuda_11_8.txt").lines().collect();
            let unknown: Vec<_> = NAMES.iter().filter(|n| !driver.contains(n)).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    }
}
