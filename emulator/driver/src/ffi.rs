//! The border with C: argument types that check for null, and a guard that no panic passes.

use crate::status::{CUresult, Error};
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Defines exported driver functions: the body is a `Result<(), Error>`, run behind [`guard`].
macro_rules! driver_functions {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// As the CUDA driver API documents the function of this name.
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> $crate::status::CUresult {
            $crate::ffi::guard(|| $body)
        }
    )*};
}
pub(crate) use driver_functions;

/// Runs the body of an exported function; a panic inside becomes `CUDA_ERROR_UNKNOWN` instead of crossing into C.
pub fn guard(body: impl FnOnce() -> Result<(), Error>) -> CUresult {
    // Everything that the bodies share is behind locks that tolerate poison, so a panic leaves nothing half-seen.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.code(),
        Err(_) => Error::Unknown.code(),
    }
}

/// Where a C caller wants a result: null or writable. Only C makes values of it.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Refuses null, before anything happens that would have to be undone.
    pub fn check(self) -> Result<(), Error> {
        if self.0.is_null() { Err(Error::InvalidValue) } else { Ok(()) }
    }

    /// Writes the result; null is `CUDA_ERROR_INVALID_VALUE`.
    pub fn set(self, value: T) -> Result<(), Error> {
        self.check()?;
        // SAFETY: not null, and the callers of exported functions promise that such a pointer is writable.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes the result if one is wanted.
    pub fn set_if_wanted(self, value: T) {
        let _ = self.set(value);
    }

    /// The `index`-th place of an array of results.
    pub fn at(self, index: usize) -> Out<T> {
        Out(self.0.wrapping_add(index))
    }

    /// The place at an address that a C caller passed as a number.
    pub fn from_address(address: usize) -> Out<T> {
        Out(address as *mut T)
    }

    /// The same place seen as another type, as the driver API's `void *` results are.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// What stands there now, for arguments that go both ways.
    pub fn get(self) -> Result<T, Error>
    where
        T: Copy,
    {
        self.check()?;
        // SAFETY: not null, and the callers of exported functions promise that it holds a value of this type.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

/// An array or a value that a C caller passes in: null or readable. Only C makes values of it.
#[repr(transparent)]
#[derive(Debug)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// Whether nothing was passed.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The `index`-th element; null is `CUDA_ERROR_INVALID_VALUE`.
    pub fn at(self, index: usize) -> Result<T, Error> {
        if self.0.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, and the callers of exported functions promise as many elements as they say.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// The value that is pointed to.
    pub fn get(self) -> Result<T, Error> {
        self.at(0)
    }
}

/// A C string that a caller passes in.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct InStr(*const c_char);

impl InStr {
    /// The text; null or not UTF-8 is `CUDA_ERROR_INVALID_VALUE`.
    pub fn text(self) -> Result<String, Error> {
        Ok(self.bytes()?.to_str().map_err(|_| Error::InvalidValue)?.to_owned())
    }

    /// The bytes up to the final zero.
    pub fn bytes(self) -> Result<&'static CStr, Error> {
        if self.0.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null; callers promise a C string that outlives the call, and every use ends with the call.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}

/// Host memory that a caller names for a copy: an address whose length comes with it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPtr(usize);

impl HostPtr {
    /// The address as a number.
    pub fn address(self) -> usize {
        self.0
    }

    /// An address that a C caller passed as a number.
    pub fn from_address(address: usize) -> HostPtr {
        HostPtr(address)
    }

    /// The number that stands there.
    pub fn size(self) -> Result<usize, Error> {
        let bytes = self.read(size_of::<usize>())?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)))
    }

    /// Reads `bytes` bytes. Null is `CUDA_ERROR_INVALID_VALUE`.
    pub fn read(self, bytes: usize) -> Result<&'static [u8], Error> {
        if self.0 == 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller of the copy promises `bytes` readable bytes; the slice does not outlive the call.
        Ok(unsafe { std::slice::from_raw_parts(self.0 as *const u8, bytes) })
    }

    /// The `bytes` bytes as a place to write to. Null is `CUDA_ERROR_INVALID_VALUE`.
    pub fn write(self, bytes: usize) -> Result<&'static mut [u8], Error> {
        if self.0 == 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the caller of the copy promises `bytes` writable bytes that nobody else uses until the copy is
        // complete; the slice does not outlive the call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0 as *mut u8, bytes) })
    }
}

/// Copies a text with its final zero into a caller's buffer of `capacity` bytes, cut where it does not fit.
pub fn fill_text(buffer: Out<u8>, capacity: usize, text: &[u8]) -> Result<(), Error> {
    buffer.check()?;
    if capacity == 0 {
        return Err(Error::InvalidValue);
    }
    let kept = text.len().min(capacity - 1);
    for (i, &byte) in text[..kept].iter().chain([&0]).enumerate() {
        buffer.at(i).set(byte)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guard(|| panic!("planned by this test")), Error::Unknown.code());
        assert_eq!(guard(|| Ok(())), 0);
    }

    #[test]
    fn null_is_refused() {
        assert_eq!(Out::<u32>(std::ptr::null_mut()).set(1), Err(Error::InvalidValue));
        assert_eq!(In::<u32>(std::ptr::null()).get(), Err(Error::InvalidValue));
        assert_eq!(HostPtr(0).read(4), Err(Error::InvalidValue));
    }

    #[test]
    fn text_is_cut_to_the_buffer() {
        let mut buffer = [0xffu8; 4];
        fill_text(Out(buffer.as_mut_ptr()), 4, b"emulated").unwrap();
        assert_eq!(&buffer, b"emu\0");
    }
}
