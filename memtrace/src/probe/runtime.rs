//! Language runtimes that are read from outside: what their processes keep where,
//! and where to probe them.

pub mod counters;
pub mod go;
pub mod jvm;
pub mod memory;
pub mod php;
