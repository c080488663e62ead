//! The crate's integration tests, in one binary: one process knows one CUDA driver.
