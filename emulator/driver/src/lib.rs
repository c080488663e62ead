//! A libcuda look-alike over ptx-emulator, linked into a test.
