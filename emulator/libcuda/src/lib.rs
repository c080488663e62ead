//! The look-alike driver as a shared library, for any CUDA program.
