//! `cargo xtask ebpf`: the kernel objects that memtrace is built with.
//!
//! In: the sources of `memtrace-ebpf` and `memtrace-common`, and a compiler for
//! BPF. Out: one object for each processor type in `memtrace/bpf`, and the
//! record that says what they were built from; with `--out`, the objects alone,
//! elsewhere. It does not load them: that is the live tests' work.

mod object;
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

pub use self::toolchain::install as install_toolchain;
use self::toolchain::{TARGET, Toolchain};
use crate::{digest, workspace};

/// What `cargo xtask ebpf` can be told.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Build nothing: fail if an object is not what the sources make
    #[arg(long, conflicts_with_all = ["out", "install"])]
    check: bool,
    /// Write the objects into this directory and leave the repository as it is
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// On Debian, install what is missing of a toolchain first
    #[arg(long)]
    install: bool,
}

/// Does what the options say.
///
/// # Errors
/// No toolchain, sources that do not compile, or stale objects.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if options.check {
        check(root)?;
        println!("ebpf: the objects belong to the sources");
        return Ok(());
    }
    if options.install {
        install_toolchain()?;
    }
    match &options.out {
        Some(directory) => build_into(root, directory).map(drop),
        None => rebuild(root),
    }
}

/// Fails with one sentence if an object is stale.
pub fn check(root: &Path) -> Result<()> {
    digest::verify(&root.join("memtrace")).map_err(anyhow::Error::msg)
}

/// Builds the objects into a directory and returns their paths, in the order of
/// [`digest::ARCHITECTURES`].
pub fn build_into(root: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let objects = build(root)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut paths = Vec::new();
    for (architecture, object) in &objects {
        let path = directory.join(digest::object_name(architecture));
        fs::write(&path, object).with_context(|| format!("cannot write {}", path.display()))?;
        println!("ebpf: {} ({} bytes)", path.display(), object.len());
        paths.push(path);
    }
    Ok(paths)
}

/// Lets clippy read the kernel half. `false` if the toolchain has no clippy.
pub fn lint(root: &Path) -> Result<bool> {
    let toolchain = Toolchain::find()?;
    if !toolchain.has_clippy() {
        return Ok(false);
    }
    for architecture in digest::ARCHITECTURES {
        let mut command = compile(root, toolchain, "clippy", architecture)?;
        workspace::run(command.args(["--", "--deny", "warnings"]))?;
    }
    Ok(true)
}

/// Builds the objects into the repository, with their record.
fn rebuild(root: &Path) -> Result<()> {
    let sources = || {
        digest::of_sources(root)
            .map_err(anyhow::Error::msg)?
            .context("the sources of the kernel half are not in this repository")
    };
    let before = sources()?;
    let directory = root.join("memtrace").join(digest::OBJECTS);
    let paths = build_into(root, &directory)?;
    ensure!(
        before == sources()?,
        "the sources changed while they were compiled: run `cargo xtask ebpf` again"
    );
    let mut record = String::new();
    for (architecture, path) in digest::ARCHITECTURES.iter().zip(paths) {
        let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        record.push_str(&format!(
            "{} object={} sources={before}\n",
            digest::object_name(architecture),
            digest::of_bytes(&object)
        ));
    }
    let path = directory.join(digest::RECORD);
    fs::write(&path, record).with_context(|| format!("cannot write {}", path.display()))?;
    check(root)
}

/// Compiles the objects, by processor type.
fn build(root: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let toolchain = Toolchain::find()?;
    println!("ebpf: compiling with {}", toolchain.name());
    let mut objects = Vec::new();
    for architecture in digest::ARCHITECTURES {
        workspace::run(&mut compile(root, toolchain, "build", architecture)?)?;
        let linked = target(root, architecture)?
            .join(TARGET)
            .join("release/memtrace");
        let bytes =
            fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
        let stripped = object::strip(&bytes).with_context(|| format!("in {}", linked.display()))?;
        forbid_paths_of_this_machine(root, &stripped)?;
        objects.push((architecture, stripped));
    }
    ensure_alike(&objects)?;
    Ok(objects)
}

/// A cargo command on the kernel half, with the flags that the objects need.
fn compile(
    root: &Path,
    toolchain: Toolchain,
    subcommand: &str,
    architecture: &str,
) -> Result<Command> {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        // Type information is made from it; the rest of it is removed.
        "-Cdebuginfo=2".to_owned(),
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    for (path, name) in machine_paths(root)? {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    if let Some(sysroot) = toolchain.sysroot() {
        flags.push(format!("--remap-path-prefix={}=rust", sysroot.display()));
    }
    let mut command = toolchain.cargo(subcommand)?;
    command
        .current_dir(root.join("memtrace-ebpf"))
        .arg("--locked")
        .env("CARGO_TARGET_DIR", target(root, architecture)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(command)
}

/// Where one processor type's intermediate files are kept.
fn target(root: &Path, architecture: &str) -> Result<PathBuf> {
    Ok(workspace::target(root)?.join("bpf").join(architecture))
}

/// The directories whose names the compiler writes into type information, and
/// what stands there instead; a later one wins over one around it.
fn machine_paths(root: &Path) -> Result<[(PathBuf, &'static str); 2]> {
    Ok([
        (root.to_path_buf(), "memtrace"),
        (workspace::cargo_home()?, "cargo"),
    ])
}

/// An object is for everyone: it must not say whose machine made it.
fn forbid_paths_of_this_machine(root: &Path, object: &[u8]) -> Result<()> {
    let mut paths: Vec<PathBuf> = machine_paths(root)?.map(|(path, _)| path).into();
    paths.extend(env::home_dir());
    for path in paths {
        let name = format!("{}/", path.display());
        if name != "/" && contains(object, name.as_bytes()) {
            bail!(
                "the object contains the path {name} of this machine; \
                 the compiler's flags in xtask/src/ebpf.rs have to rename it"
            );
        }
    }
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The objects differ in how they read registers, in nothing that a loader sees.
fn ensure_alike(objects: &[(&str, Vec<u8>)]) -> Result<()> {
    let inventories = objects
        .iter()
        .map(|(_, object)| object::inventory(object))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        inventories.windows(2).all(|pair| pair[0] == pair[1]),
        "the processor types' objects hold different programs or maps: {inventories:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with its sources, its objects and a record of both.
    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for source in digest::SOURCES {
            let path = root.path().join(source);
            let file = if source.ends_with('/') {
                path.join("deep/one.rs")
            } else {
                path
            };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, source).unwrap();
        }
        let directory = root.path().join("memtrace").join(digest::OBJECTS);
        fs::create_dir_all(&directory).unwrap();
        let sources = digest::of_sources(root.path()).unwrap().unwrap();
        let mut record = String::new();
        for architecture in digest::ARCHITECTURES {
            let name = digest::object_name(architecture);
            let object = format!("object for {architecture}");
            let sum = digest::of_bytes(object.as_bytes());
            fs::write(directory.join(&name), object).unwrap();
            record.push_str(&format!("{name} object={sum} sources={sources}\n"));
        }
        fs::write(directory.join(digest::RECORD), record).unwrap();
        root
    }

    fn sentence(root: &tempfile::TempDir) -> String {
        check(root.path()).unwrap_err().to_string()
    }

    #[test]
    fn objects_of_their_sources_pass() {
        check(repository().path()).unwrap();
    }

    #[test]
    fn any_changed_added_or_moved_source_is_noticed() {
        for (file, contents) in [
            ("memtrace-ebpf/src/deep/one.rs", "changed"),
            ("memtrace-ebpf/src/two.rs", ""),
            ("memtrace-ebpf/Cargo.lock", "changed"),
            ("memtrace-common/src/deep/one.rs", "changed"),
        ] {
            let root = repository();
            fs::write(root.path().join(file), contents).unwrap();
            let sentence = sentence(&root);
            assert!(sentence.contains("memtrace.x86_64.o"), "{sentence}");
            assert!(sentence.contains("memtrace.aarch64.o"), "{sentence}");
            assert!(sentence.ends_with("run `cargo xtask ebpf`"), "{sentence}");
            assert_eq!(sentence.lines().count(), 1);
        }
    }

    #[test]
    fn what_editors_leave_is_no_source() {
        let root = repository();
        fs::write(root.path().join("memtrace-ebpf/src/.one.rs.swp"), "").unwrap();
        check(root.path()).unwrap();
    }

    #[test]
    fn a_changed_object_is_named_alone() {
        let root = repository();
        fs::write(root.path().join("memtrace/bpf/memtrace.aarch64.o"), "?").unwrap();
        let sentence = sentence(&root);
        assert!(
            sentence.contains("memtrace.aarch64.o in memtrace/bpf is not"),
            "{sentence}"
        );
        assert!(!sentence.contains("x86_64"), "{sentence}");
    }

    #[test]
    fn missing_objects_and_records_are_named() {
        for file in ["memtrace.x86_64.o", digest::RECORD] {
            let root = repository();
            fs::remove_file(root.path().join("memtrace/bpf").join(file)).unwrap();
            let sentence = sentence(&root);
            assert!(sentence.contains(file), "{sentence}");
            assert!(sentence.ends_with("run `cargo xtask ebpf`"), "{sentence}");
        }
    }

    #[test]
    fn a_package_without_the_kernel_half_has_its_objects_checked() {
        let root = repository();
        fs::remove_dir_all(root.path().join("memtrace-ebpf")).unwrap();
        check(root.path()).unwrap();
        fs::write(root.path().join("memtrace/bpf/memtrace.x86_64.o"), "?").unwrap();
        assert!(sentence(&root).contains("memtrace.x86_64.o in memtrace/bpf is not"));
    }

    #[test]
    fn paths_of_this_machine_are_found() {
        let root = Path::new("/somewhere/memtrace");
        assert!(forbid_paths_of_this_machine(root, b"\0memtrace/src\0").is_ok());
        assert!(forbid_paths_of_this_machine(root, b"\0/somewhere/memtrace/src\0").is_err());
    }
}
