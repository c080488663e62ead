//! Visual attention, fused.
