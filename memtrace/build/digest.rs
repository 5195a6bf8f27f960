//! Whether the compiled kernel objects belong to the sources beside them.
//!
//! In: the repository. Out: a digest of the kernel half's sources, and one
//! sentence if an object in `memtrace/bpf` was not built from them or is not
//! the file that was built. It compiles nothing and changes nothing. The build
//! script and `cargo xtask ebpf` both include this file, so that they cannot
//! disagree.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// The processor types that an object is kept for: the layout of the registers
/// at a probe is fixed when an object is built.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Where the objects are, from the package's root.
pub const OBJECTS: &str = "bpf";

/// The file beside the objects that says of each what it is and what it was
/// built from: `NAME object=SHA256 sources=SHA256` on a line.
pub const RECORD: &str = "sources.sha256";

/// Source files and, ending in a slash, directories of them, from the
/// repository's root.
pub const SOURCES: [&str; 5] = [
    "memtrace-common/Cargo.toml",
    "memtrace-common/src/",
    "memtrace-ebpf/Cargo.lock",
    "memtrace-ebpf/Cargo.toml",
    "memtrace-ebpf/src/",
];

/// The file name of one processor type's object.
pub fn object_name(architecture: &str) -> String {
    format!("memtrace.{architecture}.o")
}

/// SHA-256, in hexadecimal digits.
pub fn of_bytes(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

/// The digest of every file that goes into the objects: paths in order, each
/// followed by its length and contents. `None` where the kernel half's sources
/// are not at hand, as in a published package.
///
/// # Errors
/// A source file cannot be read; the message names it.
pub fn of_sources(repository: &Path) -> Result<Option<String>, String> {
    if !repository.join("memtrace-ebpf/src").is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for source in SOURCES {
        if source.ends_with('/') {
            rust_files(repository, source.trim_end_matches('/'), &mut files)?;
        } else {
            files.push(source.to_owned());
        }
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let path = repository.join(&file);
        let contents = fs::read(&path).map_err(|error| cannot_read(&path, &error))?;
        // The length keeps a text that moves from one file's end to the next
        // file's start from going unnoticed.
        digest.update(format!("{file}\n{}\n", contents.len()));
        digest.update(contents);
    }
    Ok(Some(hexadecimal(digest)))
}

/// Compares the objects of memtrace's package with their record, and the record
/// with the sources in the repository around the package.
///
/// # Errors
/// One sentence: what is wrong with which object, and what to run.
pub fn verify(package: &Path) -> Result<(), String> {
    let directory = package.join(OBJECTS);
    let record_path = directory.join(RECORD);
    let record = fs::read_to_string(&record_path).map_err(|error| {
        let why = cannot_read(&record_path, &error);
        format!("{why}, so nothing says what the kernel objects were built from: {REBUILD}")
    })?;
    let sources = match package.parent() {
        Some(repository) => of_sources(repository)?,
        None => None,
    };
    let mut changed = Vec::new();
    let mut stale = Vec::new();
    for architecture in ARCHITECTURES {
        let name = object_name(architecture);
        let path = directory.join(&name);
        let object = fs::read(&path)
            .map_err(|error| format!("{}: {REBUILD}", cannot_read(&path, &error)))?;
        let recorded = recorded(&record, &name).ok_or_else(|| {
            format!(
                "{} has no line for {name}: {REBUILD}",
                record_path.display()
            )
        })?;
        if recorded.object != of_bytes(&object) {
            changed.push(name.clone());
        }
        if sources.as_ref().is_some_and(|now| now != recorded.sources) {
            stale.push(name);
        }
    }
    let (objects, trouble) = if stale.is_empty() {
        (changed, "not what was built from the sources")
    } else {
        (stale, "older than the sources of the kernel half")
    };
    if objects.is_empty() {
        return Ok(());
    }
    let are = if objects.len() == 1 { "is" } else { "are" };
    let objects = objects.join(" and ");
    Err(format!(
        "{objects} in memtrace/{OBJECTS} {are} {trouble}: {REBUILD}"
    ))
}

const REBUILD: &str = "run `cargo xtask ebpf`";

struct Recorded<'a> {
    object: &'a str,
    sources: &'a str,
}

fn recorded<'a>(record: &'a str, name: &str) -> Option<Recorded<'a>> {
    let mut fields = record
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let object = fields.next()?.strip_prefix("object=")?;
    let sources = fields.next()?.strip_prefix("sources=")?;
    Some(Recorded { object, sources })
}

/// Adds the `.rs` files below a directory, by their paths from the root; what
/// editors leave beside them is no source.
fn rust_files(repository: &Path, below: &str, files: &mut Vec<String>) -> Result<(), String> {
    let directory = repository.join(below);
    let entries = fs::read_dir(&directory)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| cannot_read(&directory, &error))?;
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path: PathBuf = entry.path();
        if path.is_dir() {
            rust_files(repository, &format!("{below}/{name}"), files)?;
        } else if name.ends_with(".rs") {
            files.push(format!("{below}/{name}"));
        }
    }
    Ok(())
}

fn hexadecimal(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
