//! Finds, downloads and unpacks one Debian cloud kernel.
//!
//! In: a kernel series such as `6.12` and a working directory. Out: the path of
//! a bootable image in it. A kernel of the series that is already there is used
//! again, so a second run needs no network. It installs nothing, and it leaves
//! the package lists alone: whether to refresh them is the user's decision.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{output_of, run_to_success};

const PACKAGE_PREFIX: &str = "linux-image-";
const PACKAGE_SUFFIX: &str = "-cloud-amd64";

/// A kernel that is ready to boot.
#[derive(Debug)]
pub struct Kernel {
    /// The Debian package it came from, version included.
    pub package: String,
    /// The compressed kernel image.
    pub image: PathBuf,
}

/// The newest kernel of the series that is already in `work`, or else the
/// archive's newest, downloaded and unpacked.
pub fn obtain(series: &str, work: &Path) -> Result<Kernel> {
    if let Some(package) = newest(&unpacked_packages(work)?, series) {
        return Ok(Kernel {
            image: image_of(&package, work),
            package,
        });
    }
    let listed = output_of(
        Command::new("apt-cache").args(["--names-only", "search", "^linux-image-.*-cloud-amd64$"]),
        "looking for kernels",
    )?;
    let names: Vec<String> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(String::from)
        .collect();
    let Some(package) = newest(&names, series) else {
        bail!(
            "no {PACKAGE_PREFIX}{series}.*{PACKAGE_SUFFIX} among this machine's packages; \
             run `apt-get update`, or name another series with --kernel"
        );
    };
    println!("{series}: downloading {package}");
    download(&package, work).with_context(|| {
        format!("cannot download {package}; if the archive has replaced it, run `apt-get update`")
    })?;
    Ok(Kernel {
        image: image_of(&package, work),
        package,
    })
}

fn image_of(package: &str, work: &Path) -> PathBuf {
    let release = package.strip_prefix(PACKAGE_PREFIX).unwrap_or(package);
    work.join(package)
        .join("boot")
        .join(format!("vmlinuz-{release}"))
}

fn unpacked_packages(work: &Path) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(work).with_context(|| format!("cannot list {}", work.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names
        .filter(|name| image_of(name, work).is_file())
        .collect())
}

/// Everything happens in a directory of its own that is renamed at the end, so
/// an interrupted download is never taken for a kernel.
fn download(package: &str, work: &Path) -> Result<()> {
    let partial = work.join(format!("{package}.partial"));
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    std::fs::create_dir_all(&partial)?;
    run_to_success(
        Command::new("apt-get")
            // The unprivileged download user may not enter the build directory;
            // apt would say so on every run.
            .args([
                "--quiet=2",
                "--option",
                "APT::Sandbox::User=root",
                "download",
                package,
            ])
            .current_dir(&partial),
        "downloading a kernel",
    )?;
    let archive = std::fs::read_dir(&partial)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package behind")?;
    unpack_boot(&archive, &partial)?;
    std::fs::remove_file(&archive)?;
    let unpacked = work.join(package);
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked)?;
    }
    std::fs::rename(&partial, &unpacked)?;
    let image = image_of(package, work);
    ensure!(image.is_file(), "{package} holds no {}", image.display());
    Ok(())
}

/// Only `/boot`: the modules are ten times as large, and everything that the
/// test needs is built into the cloud kernels.
fn unpack_boot(archive: &Path, into: &Path) -> Result<()> {
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("unpacking a kernel: cannot run dpkg-deb")?;
    let stream = files
        .stdout
        .take()
        .context("unpacking a kernel: dpkg-deb has no output")?;
    run_to_success(
        Command::new("tar")
            .args(["--extract", "./boot"])
            .current_dir(into)
            .stdin(stream),
        "unpacking a kernel",
    )?;
    let status = files.wait()?;
    ensure!(
        status.success(),
        "unpacking a kernel: dpkg-deb ended with {status}"
    );
    Ok(())
}

/// The highest version of the series among package names; signed images only.
fn newest(names: &[String], series: &str) -> Option<String> {
    let version = |name: &String| {
        let version = name
            .strip_prefix(PACKAGE_PREFIX)?
            .strip_suffix(PACKAGE_SUFFIX)?;
        // `6.1.` is not the start of `6.12.…`, nor `6.12.` of the package
        // `linux-image-6.12-cloud-amd64` that only names another one.
        let rest = version.strip_prefix(series)?.strip_prefix('.')?;
        let numbers = rest.split(|digit: char| !digit.is_ascii_digit());
        Some(
            numbers
                .filter_map(|number| number.parse().ok())
                .collect::<Vec<u64>>(),
        )
    };
    names
        .iter()
        .filter_map(|name| Some((version(name)?, name)))
        .max()
        .map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_the_series_is_chosen() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ]
        .map(String::from);
        let newest = |series| newest(&names, series);
        assert_eq!(
            newest("6.1").as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            newest("6.12").as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest("6"), newest("6.12"));
        assert_eq!(newest("5.10"), None);
    }
}
