//! tokio's tasks: where each kind of task that a program has is polled.
//!
//! In: a file's functions. Out: [`TaskFacts`], the places where a thread begins to
//! work for a task, which are known by name: tokio compiles its
//! `runtime::task::raw::poll` for each kind of future that is spawned, and calls it
//! through a table (tokio/src/runtime/task/raw.rs, since 1.0). Its argument is the
//! task's cell, a block of its own on the heap; who allocated that block has spawned
//! the task. Programs without symbols, and other executors, are not known.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use super::{
    object::ProbedObject,
    place::{self, Needs, Placement},
    symbols::{ElfError, ElfFile, Symbol},
};

/// Kinds of tasks that are probed in one file; what comes after them is as if
/// tasks were not known.
const KINDS_MAX: usize = 1024;

/// What a probe must find untouched.
const NEEDS: Needs = Needs {
    arguments: 1,
    returns: true,
};

/// A place to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Where in the file the probe goes.
    pub offset: u64,
    /// How the place was chosen.
    pub placement: Placement,
}

/// Where tasks are polled; empty of most files.
pub type TaskFacts = Vec<Poll>;

/// A mapped file in which tasks are polled.
pub type TaskObject = ProbedObject<TaskFacts>;

/// Whether a function polls tasks of one kind: by its path in either of the
/// compiler's manglings.
pub fn is_of_interest(name: &str) -> bool {
    (name.starts_with("_ZN5tokio") || name.starts_with("_R"))
        && name.contains("5tokio7runtime4task3raw4poll")
}

/// Where a file with these functions polls tasks, in the order of the addresses.
///
/// # Errors
/// Its code could not be read.
pub fn examine<R: Read + Seek>(
    file: &mut ElfFile<R>,
    symbols: &[Symbol],
) -> Result<TaskFacts, ElfError> {
    // Kinds that compile to the same code share it.
    let by_address: BTreeMap<u64, &Symbol> = symbols
        .iter()
        .map(|symbol| (symbol.address, symbol))
        .collect();
    let mut facts = TaskFacts::new();
    for (address, symbol) in by_address.into_iter().take(KINDS_MAX) {
        let len = match usize::try_from(symbol.size) {
            Ok(0) => place::SCAN_BYTES_UNSIZED,
            Ok(size) => size.min(place::SCAN_BYTES_MAX),
            Err(_) => place::SCAN_BYTES_MAX,
        };
        let code = file.code(address, len)?;
        let placement = place::choose(&code, address, file.facts().machine, NEEDS);
        let offset = file
            .code_offset(address.wrapping_add(placement.offset))
            .unwrap_or(symbol.file_offset);
        facts.push(Poll { offset, placement });
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::is_of_interest;

    #[test]
    fn functions_that_poll_are_known_in_both_manglings() {
        for name in [
            "_ZN5tokio7runtime4task3raw4poll17h0123456789abcdefE",
            "_RINvNtNtNtCs1234_5tokio7runtime4task3raw4pollNCNvCs9_6server4talk0E",
        ] {
            assert!(is_of_interest(name), "{name}");
        }
        for name in [
            "_ZN5tokio7runtime4task3raw7RawTask4poll17h0E",
            "_ZN5tokio7runtime4task3raw8schedule17h0E",
            "5tokio7runtime4task3raw4poll",
        ] {
            assert!(!is_of_interest(name), "{name}");
        }
    }
}
