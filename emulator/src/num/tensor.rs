//! Dot products as tensor cores compute them.
