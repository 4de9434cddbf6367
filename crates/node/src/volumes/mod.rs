//! Files that volumes show to containers.

pub mod atomic;
