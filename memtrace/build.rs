//! Stops the build when a kernel object is stale.
//!
//! In: `bpf/` and the sources of the kernel half. Out: nothing, or one sentence
//! and a failed build. It never compiles an object: that takes a toolchain that
//! a user of memtrace need not have (`cargo xtask ebpf`).

#[path = "build/digest.rs"]
mod digest;

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/digest.rs");
    println!("cargo::rerun-if-changed=bpf");
    // Cargo runs a build script in its package.
    let package = match env::current_dir() {
        Ok(package) => package,
        Err(error) => {
            println!("cargo::error=cannot tell where memtrace's package is: {error}");
            return;
        }
    };
    for source in digest::SOURCES {
        let path = PathBuf::from("..").join(source);
        // A missing file would have this run at every build.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    if let Err(sentence) = digest::verify(&package) {
        println!("cargo::error={sentence}");
    }
}
