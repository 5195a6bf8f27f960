//! Small captures of every server of the range, replayed: the whole report is the
//! one that was kept, to the last byte.
//!
//! In: `tests/fixtures/replay`, which `cargo xtask fixtures` records. Out: where a
//! report differs. It needs neither root nor servers. Deliberately not here:
//! whether a report is right; the live tests judge that.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use memtrace_tests::range::{fixture, servers};

#[test]
fn every_capture_gives_the_report_that_was_kept() -> anyhow::Result<()> {
    let mut different = Vec::new();
    for capture in fixture::captures(&fixture::directory())? {
        if let Err(error) = fixture::require_same_report(&capture) {
            different.push(format!("{error:#}"));
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

#[test]
fn there_is_a_capture_of_every_server() -> anyhow::Result<()> {
    let mut here = BTreeSet::new();
    for capture in fixture::captures(&fixture::directory())? {
        let name = capture.file_stem().context("a capture has a name")?;
        here.insert(name.to_string_lossy().into_owned());
    }
    let expected: BTreeSet<String> = servers::all()
        .iter()
        .map(|subject| subject.file_name())
        .collect();
    ensure!(
        here == expected,
        "captures of {here:?}; the range has {expected:?}"
    );
    Ok(())
}
