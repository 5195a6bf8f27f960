//! `cargo xtask stages`: whether the rooms of memtrace keep to their doors.
//!
//! In: the text of `memtrace/src` and the rules below. Out: a line for each
//! import that a rule forbids, and an error if there is one. Tests are held to
//! the rules as well. It reads text, not types: what a re-export brings along
//! is not seen.

mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use self::source::Named;

/// The rooms in the order in which data flows through them. A room imports
/// itself and earlier ones, never a later one.
const ORDER: [&str; 18] = [
    "id",
    "message",
    "event",
    "protocol",
    "decode",
    "dialogue",
    "capture",
    "attribute",
    "store",
    "report",
    "analyse",
    "pipeline",
    "output",
    "probe",
    "failure",
    "collect",
    "replay",
    "cli",
];

/// What a rule forbids.
enum Forbids {
    /// Every import of another room but these.
    RoomsBut(&'static [&'static str]),
    /// Paths that begin like this.
    Paths(&'static [&'static str]),
    /// Text in string literals.
    Text(&'static str),
}

/// What some rooms must not do.
struct Rule {
    rooms: &'static [&'static str],
    forbids: Forbids,
    because: &'static str,
}

/// Rooms that compute their output from their input alone.
const PURE: &[&str] = &[
    "id",
    "message",
    "event",
    "protocol",
    "decode",
    "dialogue",
    "attribute",
    "store",
    "report",
    "analyse",
    "pipeline",
];

/// What is narrower than the order.
const RULES: &[Rule] = &[
    Rule {
        rooms: PURE,
        forbids: Forbids::Paths(&[
            "std::env",
            "std::fs",
            "std::net",
            "std::os",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "aya",
            "libc",
            "tokio",
        ]),
        because: "the same capture gives the same report: no I/O and no clock on the way",
    },
    Rule {
        rooms: PURE,
        forbids: Forbids::Text("/proc"),
        because: "what is known of a process comes in events, so a replay knows it too",
    },
    Rule {
        rooms: &["id", "report"],
        forbids: Forbids::RoomsBut(&[]),
        because: "names and the report's shape stand alone",
    },
    Rule {
        rooms: &["decode", "capture"],
        forbids: Forbids::RoomsBut(&["id", "message", "event"]),
        because: "reading and keeping facts takes no opinion on what they mean",
    },
    Rule {
        rooms: &["protocol"],
        forbids: Forbids::RoomsBut(&["id", "message", "event"]),
        because: "a protocol knows the bytes of one connection and no memory",
    },
    Rule {
        rooms: &["store"],
        forbids: Forbids::Paths(&["crate::protocol"]),
        because: "the store adds up and knows no HTTP",
    },
    Rule {
        rooms: &["analyse"],
        forbids: Forbids::Paths(&["crate::probe", "crate::symbolize", "blazesym"]),
        because: "findings are about numbers; names of stacks are made elsewhere",
    },
    Rule {
        rooms: &["output"],
        forbids: Forbids::RoomsBut(&["report"]),
        because: "output prints what the report says and computes nothing",
    },
    Rule {
        rooms: &["probe"],
        forbids: Forbids::RoomsBut(&["id", "event", "decode"]),
        because: "the probes state facts and decide nothing",
    },
    Rule {
        rooms: &["replay"],
        forbids: Forbids::Paths(&["crate::probe", "crate::collect"]),
        because: "a capture opens on a machine that cannot trace",
    },
];

/// The files that may hold `unsafe`; each of its blocks says why it is sound.
const UNSAFE_FILES: [&str; 3] = ["probe/launch.rs", "probe/load.rs", "probe/sys.rs"];

/// One thing that a rule forbids.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    /// The file, from `memtrace/src`.
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        write!(formatter, "memtrace/src/{file}:{line}: {what}")
    }
}

/// Checks every file of memtrace and prints what is forbidden.
///
/// # Errors
/// Something is.
pub fn run(root: &Path) -> Result<()> {
    let sources = root.join("memtrace/src");
    let mut files = Vec::new();
    rust_files(&sources, "", &mut files)?;
    files.sort();
    let mut violations = Vec::new();
    let mut rooms = BTreeSet::new();
    for file in &files {
        let path = sources.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        rooms.extend(module(file).first().map(ToString::to_string));
        violations.extend(check(file, &text));
    }
    for violation in &violations {
        println!("{violation}");
    }
    let gone: Vec<_> = ORDER
        .into_iter()
        .filter(|room| !rooms.contains(*room))
        .collect();
    ensure!(
        gone.is_empty(),
        "xtask/src/stages.rs gives a place to what is no room: {}",
        gone.join(" ")
    );
    ensure!(
        violations.is_empty(),
        "stages: {} forbidden; the rules are in xtask/src/stages.rs",
        violations.len()
    );
    println!(
        "stages: {} rooms, {} files, every import is allowed",
        rooms.len(),
        files.len()
    );
    Ok(())
}

/// Holds one file against every rule.
fn check(file: &str, text: &str) -> Vec<Violation> {
    let module = module(file);
    let named = source::read(text, &module);
    let mut found = Vec::new();
    let mut forbid = |line, what: String| {
        found.push(Violation {
            file: file.to_owned(),
            line,
            what,
        });
    };
    if !UNSAFE_FILES.contains(&file) {
        for line in &named.unsafe_lines {
            let files = UNSAFE_FILES.join(", ");
            forbid(*line, format!("`unsafe` outside of {files}"));
        }
    }
    // The crate's own roots stand outside of the rooms.
    if let Some(&room) = module.first() {
        match place(room) {
            Some(place) => check_order(room, place, &named, &mut forbid),
            None => forbid(
                1,
                format!("`{room}` has no place in the order of rooms: give it one"),
            ),
        }
        for rule in RULES.iter().filter(|rule| rule.rooms.contains(&room)) {
            check_rule(rule, room, &named, &mut forbid);
        }
    }
    found.sort_by_key(|violation| violation.line);
    found.dedup();
    found
}

fn check_order(
    room: &str,
    place_here: usize,
    named: &Named,
    forbid: &mut impl FnMut(usize, String),
) {
    for (line, other) in other_rooms(room, named) {
        match place(other) {
            Some(place_there) if place_there < place_here => {}
            Some(_) => forbid(
                line,
                format!("`{room}` imports `{other}`: no stage imports a later one"),
            ),
            None => forbid(
                line,
                format!("`{room}` imports `{other}`, which is no room"),
            ),
        }
    }
}

fn check_rule(rule: &Rule, room: &str, named: &Named, forbid: &mut impl FnMut(usize, String)) {
    let because = rule.because;
    match rule.forbids {
        Forbids::RoomsBut(allowed) => {
            for (line, other) in other_rooms(room, named) {
                if !allowed.contains(&other) {
                    forbid(line, format!("`{room}` imports `{other}`: {because}"));
                }
            }
        }
        Forbids::Paths(prefixes) => {
            for (line, path) in &named.paths {
                let is_forbidden = |prefix: &&str| {
                    path.strip_prefix(*prefix).is_some_and(|rest| {
                        rest.starts_with("::") || (rest.is_empty() && prefix.contains("::"))
                    })
                };
                if prefixes.iter().any(is_forbidden) {
                    forbid(*line, format!("`{room}` uses `{path}`: {because}"));
                }
            }
        }
        Forbids::Text(text) => {
            for (line, found) in &named.texts {
                if found.contains(text) {
                    forbid(*line, format!("`{room}` names `{text}`: {because}"));
                }
            }
        }
    }
}

/// The rooms that a room's file names, itself excepted.
fn other_rooms<'a>(room: &str, named: &'a Named) -> impl Iterator<Item = (usize, &'a str)> {
    named.paths.iter().filter_map(move |(line, path)| {
        let other = path.strip_prefix("crate::")?.split("::").next()?;
        (other != room).then_some((*line, other))
    })
}

fn place(room: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == room)
}

/// The module that a file is, from the crate's root.
fn module(file: &str) -> Vec<&str> {
    let mut names: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(names.last(), Some(&"mod")) || matches!(names[..], ["lib" | "main"]) {
        names.pop();
    }
    names
}

/// Adds the Rust files below a directory, by their paths from it.
fn rust_files(directory: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let cannot_read = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(cannot_read)? {
        let entry = entry.with_context(cannot_read)?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{} is not named in text", entry.path().display()))?;
        if entry.path().is_dir() {
            rust_files(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if name.ends_with(".rs") {
            files.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(file: &str, text: &str) -> Vec<String> {
        check(file, text)
            .into_iter()
            .map(|violation| violation.to_string())
            .collect()
    }

    fn forbidden(file: &str, text: &str, expected: &str) {
        let found = violations(file, text);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{file}: {text}: {found:?}"
        );
    }

    #[test]
    fn earlier_rooms_and_the_room_itself_may_be_imported() {
        for (file, text) in [
            (
                "store.rs",
                "use crate::{attribute::Owner, store::live, id};",
            ),
            (
                "store/live.rs",
                "use super::distribution; use crate::store::live::X;",
            ),
            ("cli/report.rs", "use crate::{replay, output::json};"),
            ("probe/maps.rs", "use crate::probe::sys; use std::fs;"),
            ("attribute.rs", "mod tests { use super::store; }"),
            ("lib.rs", "pub mod cli; pub use crate::cli::main;"),
        ] {
            assert_eq!(violations(file, text), [""; 0], "{file}");
        }
    }

    #[test]
    fn later_rooms_may_not() {
        let later = "no stage imports a later one";
        forbidden("dialogue.rs", "use crate::attribute::MAX;", later);
        forbidden("store/live.rs", "type A = super::super::analyse::A;", later);
        forbidden(
            "attribute/a/b.rs",
            "mod tests { use crate::store::Store; }",
            later,
        );
        forbidden(
            "failure.rs",
            "\n\nuse crate::{id, cli::x};",
            "failure.rs:3: ",
        );
    }

    #[test]
    fn a_new_room_needs_a_place() {
        forbidden("novel.rs", "", "`novel` has no place");
        forbidden(
            "cli.rs",
            "use crate::novel::X;",
            "`novel`, which is no room",
        );
    }

    #[test]
    fn each_rule_forbids_something() {
        for (file, text, expected) in [
            ("attribute/process.rs", "use std::{fs, fmt};", "`std::fs`"),
            (
                "decode.rs",
                "fn f() { std::time::Instant::now(); }",
                "no clock",
            ),
            (
                "attribute.rs",
                "fn f() { read(\"/proc/self\"); }",
                "`/proc`",
            ),
            ("protocol/http1.rs", "use aya::Ebpf;", "`aya::Ebpf`"),
            ("report.rs", "use crate::id::ConnId;", "stand alone"),
            ("capture/reader.rs", "use crate::decode::d;", "no opinion"),
            ("store.rs", "use crate::protocol::route;", "no HTTP"),
            ("analyse.rs", "use blazesym::Pid;", "about numbers"),
            (
                "output/table.rs",
                "use crate::store::Store;",
                "computes nothing",
            ),
            (
                "probe/attach.rs",
                "use crate::capture::C;",
                "decide nothing",
            ),
            ("replay.rs", "use crate::probe::sys;", "cannot trace"),
        ] {
            forbidden(file, text, expected);
        }
    }

    #[test]
    fn time_spans_and_files_elsewhere_are_allowed() {
        assert_eq!(violations("store.rs", "use std::time::Duration;"), [""; 0]);
        assert_eq!(violations("capture.rs", "use std::fs::File;"), [""; 0]);
        assert_eq!(violations("attribute.rs", "// reads no /proc\n"), [""; 0]);
    }

    #[test]
    fn unsafe_stays_in_its_files() {
        let text = "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }";
        assert_eq!(violations("probe/sys.rs", text), [""; 0]);
        assert_eq!(violations("probe/maps.rs", text).len(), 2);
        assert_eq!(violations("lib.rs", text).len(), 2);
    }

    #[test]
    fn every_rule_is_about_rooms_in_the_order() {
        for rule in RULES {
            for room in rule.rooms {
                assert!(place(room).is_some(), "{room}");
            }
        }
    }
}
