//! What memtrace is judged by, apart from memtrace: servers that count their
//! own requests and allocations, load generators that count theirs, a preloaded
//! shim that counts a process's heap calls, and a wrapper that runs `memtrace`
//! as a user would.
//!
//! In: the test programs under `programs/` and the `memtrace` binary. Out:
//! numbers to compare. Deliberately not here: any code of memtrace itself; the
//! binary, its exit codes and its JSON are all these tests know of it.

pub mod client;
pub mod gate;
pub mod go;
pub mod java;
pub mod load;
pub mod memtrace;
pub mod nginx;
pub mod paths;
pub mod probes;
pub mod process;
pub mod programs;
pub mod range;
pub mod report;
pub mod server;
pub mod shim;
pub mod soak;
pub mod tls;
