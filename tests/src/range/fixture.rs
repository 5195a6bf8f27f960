//! Small captures of the range's servers, and the reports that they give.
//!
//! In: a subject. Out: `NAME.memtrace` in a directory and the report made of it,
//! `NAME.json` beside it, and where a report differs from the one kept. Deliberately
//! not here: whether a report is right; the range judges that on the same servers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::Subject;
use super::backends::Backends;
use super::endpoint::Plan;
use crate::memtrace::report_json;
use crate::paths;

/// Requests of each endpoint: with the clients, enough that requests overlap.
const REQUESTS_OF_EACH: usize = 2;
const CLIENTS: usize = 4;

/// The largest capture that is kept, bytes: it is in the repository for good.
const CAPTURE_BYTES_MAX: u64 = 60_000;

/// Differences told of one report.
const DIFFERENCES_MAX: usize = 20;

/// Where the repository keeps them.
#[must_use]
pub fn directory() -> PathBuf {
    paths::repository().join("tests/fixtures/replay")
}

/// Traces a subject for a few requests and keeps the capture and its report.
pub fn record(subject: &Subject, backends: &Backends, directory: &Path) -> anyhow::Result<()> {
    let keep = || -> anyhow::Result<()> {
        let mut started = subject.warm(backends)?;
        let plan = Plan::new((subject.endpoints)(), REQUESTS_OF_EACH);
        let (_, recorded) = subject.trace(backends, &mut started, &plan, CLIENTS)?;
        recorded.complete_report()?;
        let bytes = recorded.capture_bytes()?;
        ensure!(
            bytes <= CAPTURE_BYTES_MAX,
            "the capture has {bytes} bytes, more than {CAPTURE_BYTES_MAX}"
        );
        fs::create_dir_all(directory)?;
        let capture = directory.join(format!("{}.memtrace", subject.file_name()));
        fs::copy(&recorded.capture, &capture)
            .with_context(|| format!("cannot write {}", capture.display()))?;
        accept(&capture)
    };
    keep().with_context(|| format!("a capture of {}", subject.name))
}

/// Keeps the report that a capture gives now.
pub fn accept(capture: &Path) -> anyhow::Result<()> {
    let path = report_path(capture);
    fs::write(&path, report_json(capture)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The captures in a directory, by name.
pub fn captures(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory)
        .with_context(|| format!("no captures in {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|name| name == "memtrace") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// An error that names the differences, unless a capture gives the report kept.
pub fn require_same_report(capture: &Path) -> anyhow::Result<()> {
    let path = report_path(capture);
    let kept = fs::read(&path).with_context(|| format!("no report {}", path.display()))?;
    let given = report_json(capture)?;
    if kept == given {
        return Ok(());
    }
    let parse = |json: &[u8]| -> anyhow::Result<Value> { Ok(serde_json::from_slice(json)?) };
    let mut differences = Vec::new();
    compare("", &parse(&kept)?, &parse(&given)?, &mut differences);
    if differences.is_empty() {
        differences.push("the same values, written in another way".to_owned());
    }
    let told = differences.len().min(DIFFERENCES_MAX);
    bail!(
        "{} gives another report than the one kept. If that is right, `cargo xtask fixtures \
         --accept` keeps the new one. {} differences:\n{}",
        capture.display(),
        differences.len(),
        differences[..told].join("\n")
    )
}

fn report_path(capture: &Path) -> PathBuf {
    capture.with_extension("json")
}

/// Adds where two values differ, by JSON pointer.
fn compare(pointer: &str, kept: &Value, given: &Value, differences: &mut Vec<String>) {
    match (kept, given) {
        (Value::Object(kept), Value::Object(given)) => {
            for (key, value) in kept {
                let pointer = format!("{pointer}/{key}");
                let other = given.get(key).unwrap_or(&Value::Null);
                compare(&pointer, value, other, differences);
            }
            for (key, value) in given.iter().filter(|(key, _)| !kept.contains_key(*key)) {
                differences.push(format!("{pointer}/{key}: new: {value}"));
            }
        }
        (Value::Array(kept), Value::Array(given)) if kept.len() == given.len() => {
            for (index, (kept, given)) in kept.iter().zip(given).enumerate() {
                compare(&format!("{pointer}/{index}"), kept, given, differences);
            }
        }
        (kept, given) if kept != given => {
            differences.push(format!("{pointer}: {kept} was kept, now {given}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(kept: &Value, given: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        compare("", kept, given, &mut differences);
        differences
    }

    #[test]
    fn every_difference_is_named_by_its_place() {
        let kept = json!({"a": {"b": [1, 2]}, "c": 3, "d": null});
        assert_eq!(differences(&kept, &kept), Vec::<String>::new());
        assert_eq!(
            differences(&kept, &json!({"a": {"b": [1, 4]}, "d": null, "e": 5})),
            [
                "/a/b/1: 2 was kept, now 4",
                "/c: 3 was kept, now null",
                "/e: new: 5"
            ]
        );
        assert_eq!(
            differences(&kept, &json!({"a": {"b": [1]}, "c": 3, "d": null})),
            ["/a/b: [1,2] was kept, now [1]"]
        );
    }
}
