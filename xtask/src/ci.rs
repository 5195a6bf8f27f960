//! `cargo xtask ci`: exactly what CI runs, in this order.
//!
//! In: a clone, root, and a Debian machine whose package archive can be
//! reached. Out: each step's name, output and time; the first failure ends it.
//! It judges nothing itself.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{digest, ebpf, stages, test, vm, workspace};

/// A step's name and what it does.
type Step = (&'static str, fn(&Path) -> Result<()>);

/// Quick checks first: most failures are found within a minute.
const STEPS: [Step; 11] = [
    ("format", format),
    ("stages", stages::run),
    ("kernel objects belong to their sources", ebpf::check),
    ("clippy", clippy),
    ("documentation", documentation),
    ("tests", tests),
    ("toolchain for kernel objects", install_toolchain),
    ("kernel objects rebuilt from source", rebuild_objects),
    ("clippy, kernel half", clippy_kernel_half),
    ("live tests on the rebuilt object", live_tests_on_rebuilt),
    ("other kernels", other_kernels),
];

/// Runs every step.
///
/// # Errors
/// The first step that failed, by name.
pub fn run(root: &Path) -> Result<()> {
    let started = Instant::now();
    let mut times = Vec::new();
    for (index, (name, step)) in STEPS.into_iter().enumerate() {
        println!("\n== {} of {}: {name}", index + 1, STEPS.len());
        let step_started = Instant::now();
        let outcome = step(root);
        let seconds = step_started.elapsed().as_secs_f64();
        outcome.with_context(|| format!("ci: {name} failed after {seconds:.0} s"))?;
        println!("== {name}: passed in {seconds:.1} s");
        times.push((name, seconds));
    }
    println!("\n{:>9}  step", "seconds");
    for (name, seconds) in times {
        println!("{seconds:>9.1}  {name}");
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!(
        "\nci: all {} steps passed in {minutes:.1} minutes",
        STEPS.len()
    );
    Ok(())
}

fn format(root: &Path) -> Result<()> {
    let check = |command: &mut Command| workspace::run(command.args(["--all", "--check"]));
    check(workspace::cargo(root).arg("fmt"))?;
    // These are workspaces of their own.
    for apart in ["memtrace-ebpf", "fuzz"] {
        if root.join(apart).join("Cargo.toml").is_file() {
            check(workspace::cargo(&root.join(apart)).arg("fmt"))?;
        }
    }
    Ok(())
}

fn clippy(root: &Path) -> Result<()> {
    workspace::run(
        workspace::cargo(root)
            .args(["clippy", "--workspace", "--all-targets"])
            .args(["--", "--deny", "warnings"]),
    )
}

fn documentation(root: &Path) -> Result<()> {
    workspace::run(
        workspace::cargo(root)
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}

fn tests(root: &Path) -> Result<()> {
    test::run(root, &test::Options::default())
}

fn install_toolchain(_root: &Path) -> Result<()> {
    ebpf::install_toolchain()
}

fn rebuild_objects(root: &Path) -> Result<()> {
    let directory = workspace::target(root)?.join("bpf-rebuilt");
    for path in ebpf::build_into(root, &directory)? {
        let name = path.file_name().context("an object has a name")?;
        let kept = root.join("memtrace").join(digest::OBJECTS).join(name);
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        // Not a failure: another compiler makes other code of the same sources.
        let same = if read(&path)? == read(&kept)? {
            "the same bytes as"
        } else {
            "other bytes than"
        };
        println!("{} has {same} {}", path.display(), kept.display());
    }
    Ok(())
}

fn clippy_kernel_half(root: &Path) -> Result<()> {
    if !ebpf::lint(root)? {
        println!("left out: the toolchain for kernel objects has no clippy");
    }
    Ok(())
}

fn live_tests_on_rebuilt(root: &Path) -> Result<()> {
    let name = digest::object_name(ARCH);
    let rebuilt = workspace::target(root)?.join("bpf-rebuilt").join(&name);
    let kept = root.join("memtrace").join(digest::OBJECTS).join(&name);
    if fs::read(&rebuilt).ok() == fs::read(&kept).ok() {
        println!("{name} has been tested: what was rebuilt is the same, byte for byte");
        return Ok(());
    }
    test::run_live_on(root, &rebuilt)
}

fn other_kernels(root: &Path) -> Result<()> {
    vm::run(&vm::Options::new(root.to_path_buf()))
}
