//! The futexes that a language runtime keeps for itself.
//!
//! In: what a process has mapped. Out: the range of addresses whose futexes only
//! put the runtime's threads in turn (a global lock, a scheduler, a pause for
//! garbage to be collected), so that a wake-up there hands no work over.
//!
//! CPython has its global lock in `_PyRuntime` (pycore_runtime.h; with the main
//! interpreter since 3.12), and makes every lock of the program elsewhere. The
//! other runtimes named here wake threads for purposes of their own at addresses
//! like those at which the program's threads wait for work: none of their futexes
//! tells anything, except HotSpot's, where the kernel programs can tell a thread's
//! own from the machine's.

use std::ops::Range;

use super::{
    image::Image,
    maps::{self, Mapping},
    symbols::Scope,
};

const PYTHON: &str = "_PyRuntime";

/// The range in a process; `None` if it has no such runtime.
///
/// # Errors
/// Its mappings cannot be read.
pub fn of_process(pid: u32) -> std::io::Result<Option<Range<u64>>> {
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    if mappings.iter().any(is_all_its_own) {
        return Ok(Some(0..u64::MAX));
    }
    let python = mappings.iter().filter(|mapping| mapping.executable);
    let python = python.filter(|mapping| {
        let name = file_name(mapping);
        name.contains("python") || !name.contains(".so")
    });
    for candidate in python {
        if let Ok(Some(image)) = Image::open(pid, candidate, &mappings, &[PYTHON], Scope::Exported)
            && let Some(runtime) = image.variable(PYTHON)
        {
            return Ok(Some(runtime));
        }
    }
    Ok(None)
}

/// Whether it is the program or library of a runtime that owns every futex of its
/// process.
fn is_all_its_own(mapping: &Mapping) -> bool {
    let name = file_name(mapping);
    matches!(
        name.as_str(),
        "libjvm.so" | "libcoreclr.so" | "node" | "nodejs" | "deno" | "bun" | "beam.smp"
    ) || name.starts_with("libnode.so")
}

fn file_name(mapping: &Mapping) -> String {
    let name = mapping.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_files() {
        for (path, is_known) in [
            ("/usr/lib/jvm/java-17/lib/server/libjvm.so", true),
            ("/usr/bin/node", true),
            ("/usr/lib/libnode.so.108", true),
            ("/usr/bin/ruby3.1", false),
            ("/usr/sbin/nginx", false),
            ("/usr/bin/python3.11", false),
        ] {
            let line = format!("1000-2000 r-xp 00000000 08:01 7 {path}");
            let mapping = maps::parse_line(line.as_bytes()).expect("a mapping");
            assert_eq!(is_all_its_own(&mapping), is_known, "{path}");
        }
    }
}
