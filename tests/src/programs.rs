//! The programs under `tests/programs` that need a compiler, compiled when first
//! needed.
//!
//! In: a source and compiler flags. Out: the path of the program, in cargo's
//! target directory. Deliberately not here: running them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use crate::paths;

const WARNINGS: [&str; 3] = ["-Wall", "-Wextra", "-Werror"];

/// The server of known allocations: dynamic, with glibc.
pub fn alloc_server() -> anyhow::Result<PathBuf> {
    compile(
        "alloc_server",
        "alloc_server.c",
        "cc",
        &["-O2", "-g", "-fno-builtin", "-pthread"],
    )
}

/// The same server, statically linked and stripped: no symbol to be found.
pub fn alloc_server_static_stripped() -> anyhow::Result<PathBuf> {
    compile(
        "alloc_server_static",
        "alloc_server.c",
        "cc",
        &["-O2", "-fno-builtin", "-pthread", "-static", "-s"],
    )
}

/// The same server, statically linked, with its symbols.
pub fn alloc_server_static() -> anyhow::Result<PathBuf> {
    compile(
        "alloc_server_static_symbols",
        "alloc_server.c",
        "cc",
        &["-O2", "-fno-builtin", "-pthread", "-static"],
    )
}

/// The same server with musl.
pub fn alloc_server_musl() -> anyhow::Result<PathBuf> {
    compile(
        "alloc_server_musl",
        "alloc_server.c",
        "musl-gcc",
        &["-O2", "-fno-builtin", "-pthread"],
    )
}

/// The server of other kinds: unix sockets, IPv6, an allocator loaded later.
pub fn kinds_server() -> anyhow::Result<PathBuf> {
    compile(
        "kinds_server",
        "kinds_server.c",
        "cc",
        &["-O2", "-g", "-fno-builtin", "-pthread"],
    )
}

/// How a program has its TLS library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// As a shared library.
    Shared,
    /// Linked in.
    Static,
    /// Linked in, and no symbol left.
    Stripped,
}

/// The server on OpenSSL.
pub fn tls_server(linked: Linked) -> anyhow::Result<PathBuf> {
    const INSIDE: &[&str] = &["-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic"];
    let (output, flags, libraries): (_, &[&str], _) = match linked {
        Linked::Shared => ("tls_server", &[], &["-lssl", "-lcrypto"][..]),
        Linked::Static => ("tls_server_static", &[], INSIDE),
        Linked::Stripped => ("tls_server_stripped", &["-s"], INSIDE),
    };
    let flags: Vec<&str> = ["-O2", "-fno-builtin", "-pthread"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    compile_with(output, "tls_server.c", "cc", &flags, libraries)
}

/// What of its symbols a program keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// All.
    All,
    /// All but tokio's.
    WithoutTokio,
    /// None.
    None,
}

/// The server on rustls, a crate of its own.
pub fn rustls_server(symbols: Symbols) -> anyhow::Result<PathBuf> {
    let manifest = paths::program_source("rustls/Cargo.toml");
    let target = paths::target()?.join("test-programs/rustls");
    // cargo itself tells whether there is anything to do, one at a time.
    let result = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--manifest-path",
        ])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .output()
        .context("cannot run cargo")?;
    if !result.status.success() {
        bail!(
            "{}: {}",
            manifest.display(),
            String::from_utf8_lossy(&result.stderr)
        );
    }
    let program = target.join("release/rustls_server");
    let (name, how): (_, &[&str]) = match symbols {
        Symbols::All => return Ok(program),
        Symbols::WithoutTokio => (
            "rustls_server_without_tokio",
            &["--wildcard", "--strip-symbol=*5tokio7runtime*"],
        ),
        Symbols::None => ("rustls_server_stripped", &["--strip-all"]),
    };
    let stripped = target.join(name);
    let result = Command::new("objcopy")
        .args(how)
        .args([&program, &stripped])
        .output()
        .context("cannot run objcopy")?;
    if !result.status.success() {
        bail!(
            "{}: {}",
            program.display(),
            String::from_utf8_lossy(&result.stderr)
        );
    }
    Ok(stripped)
}

/// The server whose work changes threads.
pub fn pool_server() -> anyhow::Result<PathBuf> {
    compile(
        "pool_server",
        "pool_server.c",
        "cc",
        &["-O2", "-g", "-fno-builtin", "-pthread"],
    )
}

/// What of a Node that is not known is not as in others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownNode {
    /// Its code looks for its resources' numbers elsewhere.
    Code,
    /// There is something else where its code looks for them.
    Memory,
}

/// A program with the names of Node's functions.
pub fn unknown_node(unknown: UnknownNode) -> anyhow::Result<PathBuf> {
    let (output, flag) = match unknown {
        UnknownNode::Code => ("unknown_node_code", "-DOTHER_CODE"),
        UnknownNode::Memory => ("unknown_node_memory", "-UOTHER_CODE"),
    };
    compile(
        output,
        "node/unknown.c",
        "cc",
        &["-O2", "-fno-builtin", flag],
    )
}

/// The counting shim, a library to preload.
pub fn counting_shim() -> anyhow::Result<PathBuf> {
    compile(
        "counting_shim.so",
        "counting_shim.c",
        "cc",
        &["-O2", "-fno-builtin", "-fPIC", "-shared", "-pthread"],
    )
}

/// The range's Go server.
pub fn range_go() -> anyhow::Result<PathBuf> {
    make("range-go", "range/go/main.go", |source, output| {
        let mut go = Command::new("go");
        // Libraries are Debian's packages: no module is fetched.
        go.args(["build", "-o"])
            .arg(output)
            .arg(source)
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", output.with_extension("cache"));
        go
    })
}

/// The directory of the range's servlet, compiled.
pub fn range_servlet() -> anyhow::Result<PathBuf> {
    make(
        "range-servlet",
        "range/java/Range.java",
        |source, output| {
            let mut javac = Command::new("javac");
            javac
                .args(["-Werror", "-cp", "/usr/share/java/tomcat10-servlet-api.jar"])
                .arg("-d")
                .arg(output)
                .arg(source);
            javac
        },
    )
}

fn compile(output: &str, source: &str, compiler: &str, flags: &[&str]) -> anyhow::Result<PathBuf> {
    compile_with(output, source, compiler, flags, &["-ldl"])
}

fn compile_with(
    output: &str,
    source: &str,
    compiler: &str,
    flags: &[&str],
    libraries: &[&str],
) -> anyhow::Result<PathBuf> {
    make(output, source, |source, output| {
        let mut command = Command::new(compiler);
        command
            .args(WARNINGS)
            .args(flags)
            .arg("-o")
            .arg(output)
            .arg(source)
            .args(libraries);
        command
    })
}

/// Runs the compiler that makes `output` of `source`, unless it has.
fn make(
    output: &str,
    source: &str,
    compiler: impl FnOnce(&Path, &Path) -> Command,
) -> anyhow::Result<PathBuf> {
    let directory = paths::target()?.join("test-programs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("cannot create the compile lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot take the compile lock")?;

    let source = paths::program_source(source);
    let output = directory.join(output);
    if is_newer(&output, &source)? {
        return Ok(output);
    }
    // Renamed when whole, so that an interrupted compiler leaves nothing to run.
    let partial = output.with_extension("partial");
    let mut command = compiler(&source, &partial);
    let result = command.output().with_context(|| {
        format!(
            "cannot run {}: run `cargo xtask setup`",
            command.get_program().to_string_lossy()
        )
    })?;
    if !result.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&result.stderr));
    }
    // A directory is not replaced by renaming.
    if output.is_dir() {
        fs::remove_dir_all(&output)
            .with_context(|| format!("cannot remove {}", output.display()))?;
    }
    fs::rename(&partial, &output)
        .with_context(|| format!("cannot name the program {}", output.display()))?;
    Ok(output)
}

fn is_newer(output: &Path, source: &Path) -> anyhow::Result<bool> {
    let source_time = source
        .metadata()
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot read {}", source.display()))?;
    Ok(output
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|output_time| output_time > source_time))
}
