//! The compilers that can make BPF objects.
//!
//! In: this machine. Out: one of two toolchains, ready to be run, or what to
//! install; on Debian, the installation too. Both need `bpf-linker`. Nothing is
//! installed unless asked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The target that the kernel half is compiled for.
pub const TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler is taken from where Debian puts it: rustup's proxies come
/// first on most search paths.
const DEBIAN_PROGRAMS: &str = "/usr/bin";

/// A compiler with a core library for [`TARGET`], clippy for it, and the LLVM
/// that bpf-linker is built against: the compiler's own version or a later one.
const DEBIAN_PACKAGES: [&str; 8] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-clippy",
    "llvm-22",
    "llvm-22-dev",
    "libpolly-22-dev",
    "g++",
];
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

/// What both toolchains link with.
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// A compiler for [`TARGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly, which compiles the core library from `rust-src`.
    Nightly,
    /// A distribution's compiler, which comes with a compiled core library.
    Distribution,
}

impl Toolchain {
    /// The toolchain's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Toolchain::Nightly => "rustup's nightly",
            Toolchain::Distribution => "the distribution's compiler",
        }
    }

    /// The one that is installed.
    ///
    /// # Errors
    /// There is none, or no linker; the message says what to install.
    pub fn find() -> Result<Self> {
        let Some(toolchain) = compiler() else {
            bail!(
                "no compiler here makes BPF objects; install one of these:\n\
                 - anywhere: `rustup toolchain install nightly --component rust-src` and \
                 `cargo install {LINKER}`\n\
                 - on Debian: `cargo xtask ebpf --install`, which installs {} and {LINKER}",
                DEBIAN_PACKAGES.join(" ")
            );
        };
        if !workspace::is_installed(LINKER)? {
            bail!(
                "{} could make BPF objects, but {LINKER} is missing: \
                 `cargo install {LINKER}`, or on Debian `cargo xtask ebpf --install`",
                toolchain.name()
            );
        }
        Ok(toolchain)
    }

    /// `cargo SUBCOMMAND` for [`TARGET`] with this toolchain, told nothing yet
    /// of what to compile.
    pub fn cargo(self, subcommand: &str) -> Result<Command> {
        let mut command = match self {
            // Not `cargo +nightly`: cargo itself, which runs this, may come
            // first on the search path, and knows no such argument.
            Toolchain::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", subcommand]);
                command.args(["-Z", "build-std=core"]);
                command
            }
            Toolchain::Distribution => {
                let programs = Path::new(DEBIAN_PROGRAMS);
                let cargo = programs.join("cargo");
                // Cargo would take rustup's proxy of the same name for it.
                let mut command = if subcommand == "clippy" {
                    Command::new(programs.join("cargo-clippy"))
                } else {
                    Command::new(&cargo)
                };
                command.arg(subcommand);
                command.env("CARGO", &cargo);
                command.env("RUSTC", programs.join("rustc"));
                // The target is one that only nightly compilers may name.
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        // Set by the cargo and the rustup that run this, for another compiler.
        command.env_remove("RUSTUP_TOOLCHAIN");
        if self == Toolchain::Nightly {
            command.env_remove("CARGO").env_remove("RUSTC");
        }
        for inherited in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            command.env_remove(inherited);
        }
        command.env("PATH", workspace::search_path()?);
        command.args(["--release", "--target", TARGET]);
        Ok(command)
    }

    /// Whether clippy came with it.
    pub fn has_clippy(self) -> bool {
        match self {
            Toolchain::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo-clippy", "--version"]);
                workspace::answer(&mut command).is_some()
            }
            Toolchain::Distribution => Path::new(DEBIAN_PROGRAMS).join("cargo-clippy").is_file(),
        }
    }

    /// Where the compiler and its libraries are.
    pub fn sysroot(self) -> Option<PathBuf> {
        let mut command = match self {
            Toolchain::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Toolchain::Distribution => Command::new(Path::new(DEBIAN_PROGRAMS).join("rustc")),
        };
        workspace::answer(command.args(["--print", "sysroot"])).map(PathBuf::from)
    }
}

/// The compiler that is installed, whether or not there is a linker.
fn compiler() -> Option<Toolchain> {
    let has = |toolchain: Toolchain, library: &str| {
        toolchain
            .sysroot()
            .is_some_and(|sysroot| sysroot.join("lib/rustlib").join(library).is_dir())
    };
    if has(Toolchain::Nightly, "src/rust/library/core") {
        Some(Toolchain::Nightly)
    } else if has(Toolchain::Distribution, &format!("{TARGET}/lib")) {
        Some(Toolchain::Distribution)
    } else {
        None
    }
}

/// Installs what is missing of Debian's toolchain; nothing where another one is
/// complete.
///
/// # Errors
/// This is no Debian, the packages are not to be had, or bpf-linker does not
/// compile.
pub fn install() -> Result<()> {
    if let Ok(toolchain) = Toolchain::find()
        && (toolchain == Toolchain::Nightly || toolchain.has_clippy())
    {
        println!("ebpf: {} is complete", toolchain.name());
        return Ok(());
    }
    let missing: Vec<&str> = DEBIAN_PACKAGES
        .into_iter()
        .filter(|package| !is_package_installed(package))
        .collect();
    if !missing.is_empty() {
        println!("ebpf: installing {}", missing.join(" "));
        install_packages(&missing).with_context(|| {
            format!(
                "the toolchain was not installed; to do it by hand on Debian: \
                 apt-get update && apt-get install {}",
                missing.join(" ")
            )
        })?;
    }
    if !workspace::is_installed(LINKER)? {
        println!("ebpf: compiling {LINKER}");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        workspace::run(
            Command::new(cargo)
                .args(["install", LINKER, "--version", LINKER_VERSION, "--locked"])
                .args(["--no-default-features", "--features", "llvm-22"])
                .env("LLVM_PREFIX", DEBIAN_LLVM),
        )?;
    }
    Toolchain::find().map(drop)
}

fn is_package_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Abbrev}", package]);
    workspace::answer(&mut query).is_some_and(|status| status.trim() == "ii")
}

fn install_packages(packages: &[&str]) -> Result<()> {
    workspace::run(workspace::as_root("apt-get").args(["update", "--quiet"]))?;
    workspace::run(
        workspace::as_root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
            .args(["--yes", "--quiet", "--no-install-recommends"])
            .args(packages.iter().map(OsStr::new)),
    )
}
