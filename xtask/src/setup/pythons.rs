//! Other CPythons than this machine's, for the tests of asyncio: those of
//! Debian's other releases, each unpacked into a root of its own.
//!
//! In: the mirror that this machine's apt knows. Out: `target/pythons/NAME`, to
//! be entered by chroot, with what the interpreter needs to run and no more.
//! Nothing is installed. A release that the mirror has no longer is named and
//! left out; what is there is not fetched again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::checked;

/// A release, and the version of CPython that it has.
const RELEASES: [(&str, &str); 4] = [
    ("bullseye", "3.9"),
    ("trixie", "3.13"),
    ("sid", "3.14"),
    // Unknown to memtrace: it must say so.
    ("sid", "3.15"),
];

/// What an interpreter and the wheels of event loops need to start.
const LIBRARIES: &[&str] = &["libc6", "libgcc-s1", "libstdc++6", "libexpat1", "zlib1g"];

/// Unpacks what is missing.
pub fn run(repository: &Path) -> anyhow::Result<()> {
    let directory = repository.join("target/pythons");
    for (release, version) in RELEASES {
        let root = directory.join(format!("{release}-{version}"));
        if root.is_dir() {
            println!("setup: {} is there", root.display());
            continue;
        }
        println!("setup: unpacking CPython {version} of {release}");
        if let Err(error) = unpack(&directory, release, version, &root) {
            println!("setup: CPython {version} of {release} cannot be had: {error:#}");
        }
    }
    Ok(())
}

fn unpack(directory: &Path, release: &str, version: &str, root: &Path) -> anyhow::Result<()> {
    let apt = directory.join("apt").join(release);
    let debs = apt.join(version);
    for part in ["lists/partial", "cache/archives/partial", version] {
        fs::create_dir_all(apt.join(part))?;
    }
    let sources = apt.join("sources.list");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = format!("deb [signed-by={keyring}] {} {release} main\n", mirror()?);
    fs::write(&sources, line)?;
    // Its own lists and no installed package: this machine's apt is not touched.
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--quiet"]);
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &apt.join("lists")),
            ("Dir::State::Status", Path::new("/dev/null")),
            ("Dir::Cache", &apt.join("cache")),
            ("APT::Sandbox::User", Path::new("root")),
            ("Acquire::Languages", Path::new("none")),
        ] {
            let option = format!("{option}={}", value.display());
            command.arg("-o").arg(option);
        }
        command
    };
    checked(apt_get().arg("update"))?;
    let own = [
        format!("python{version}-minimal"),
        format!("libpython{version}-minimal"),
        format!("libpython{version}-stdlib"),
    ];
    let mut packages: Vec<&str> = LIBRARIES.to_vec();
    packages.extend(own.iter().map(String::as_str));
    match (release, version) {
        // In a library of their own there.
        ("bullseye", _) => packages.push("libcrypt1"),
        (_, "3.15") => packages.push("libzstd1"),
        _ => {}
    }
    checked(apt_get().arg("download").args(&packages).current_dir(&debs))?;
    // Renamed when whole.
    let partial = root.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    for entry in fs::read_dir(&debs)? {
        let package = entry?.path();
        checked(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&package)
                .arg(&partial),
        )?;
    }
    for name in ["lib", "lib64"] {
        if !partial.join(name).exists() && partial.join("usr").join(name).exists() {
            symlink(format!("usr/{name}"), partial.join(name))?;
        }
    }
    fs::rename(&partial, root).with_context(|| format!("cannot name {}", root.display()))
}

/// Where this machine gets Debian from.
fn mirror() -> anyhow::Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CREATED_BY) $(REPO_URI)"])
        .output()
        .context("cannot ask apt for its sources")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let mirror = listed.lines().find_map(|line| {
        let uri = line.strip_prefix("Packages ")?;
        uri.trim_end_matches('/')
            .ends_with("/debian")
            .then_some(uri)
    });
    match mirror {
        Some(mirror) => Ok(mirror.to_owned()),
        None => bail!("apt knows no mirror of Debian"),
    }
}
