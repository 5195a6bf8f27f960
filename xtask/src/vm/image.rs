//! Builds the initramfs that every kernel boots with.
//!
//! In: the memtrace binary, the guest's programs in C and its script, the
//! settings of the load. Out: one archive (cpio `newc`, gzip) that holds them
//! with every shared library they name, at the path they name it by: a program
//! is traced with the very allocator it is used with. No kernel modules: what
//! the test needs is built into the cloud kernels.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{output_of, run_to_success};

/// What goes into the image.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The directory of the guest's sources and script.
    pub programs: &'a Path,
    /// The binary under test.
    pub memtrace: &'a Path,
    /// The file `/load`.
    pub load: &'a str,
    /// Where the image is built.
    pub work: &'a Path,
}

/// Builds the image from nothing and returns its path.
pub fn build(parts: &Parts) -> Result<PathBuf> {
    let Parts {
        programs,
        memtrace,
        load,
        work,
    } = *parts;
    let root = work.join("initramfs");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    let binaries = root.join("bin");
    fs::create_dir_all(&binaries).with_context(|| format!("cannot create {}", root.display()))?;

    for program in ["guest_server", "guest_client"] {
        compile(
            &programs.join(format!("{program}.c")),
            &binaries.join(program),
        )?;
    }
    copy(memtrace, &binaries.join("memtrace"))?;
    copy(
        &find_program("busybox", "busybox-static")?,
        &binaries.join("busybox"),
    )?;
    copy(&programs.join("guest_init.sh"), &root.join("init"))?;
    make_executable(&root.join("init"))?;
    fs::write(root.join("load"), load)?;

    for program in ["guest_server", "guest_client", "memtrace", "busybox"] {
        for library in shared_libraries(&binaries.join(program))? {
            let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
            if let Some(directory) = inside.parent() {
                fs::create_dir_all(directory)?;
            }
            copy(&library, &inside)?;
        }
    }
    let archive = work.join("initramfs.cpio");
    pack(&root, &archive)?;
    run_to_success(
        Command::new("gzip")
            .args(["-1", "--no-name", "--force"])
            .arg(&archive),
        "packing the initramfs",
    )?;
    Ok(work.join("initramfs.cpio.gz"))
}

/// Without builtins: the compiler may otherwise drop an allocation whose block
/// is freed unused, and the server counts it.
fn compile(source: &Path, program: &Path) -> Result<()> {
    run_to_success(
        Command::new("cc")
            .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
            .args(["-fno-builtin", "-pthread", "-o"])
            .arg(program)
            .arg(source),
        "compiling the guest's programs",
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/bin"), PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("no {name} on this machine; Debian's package is {package}"))
}

/// The libraries and the loader that the dynamic linker would map, as absolute
/// paths; none for a static program.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // For a static program the loader's listing fails, and that is no error.
    let headers = output_of(
        Command::new("readelf")
            .args(["--program-headers", "--wide"])
            .arg(program),
        "looking at a program",
    )?;
    if !headers.contains(" INTERP ") {
        return Ok(Vec::new());
    }
    let listing = output_of(Command::new("ldd").arg(program), "looking for libraries")?;
    ensure!(
        !listing.contains("not found"),
        "{} needs a library that this machine has not:\n{listing}",
        program.display()
    );
    Ok(library_paths(&listing))
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld.so (0x…)`; the kernel's
/// own `linux-vdso.so.1 (0x…)` has no path.
fn library_paths(listing: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        line.split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    listing.lines().filter_map(path).collect()
}

fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(root, root, &mut names)?;
    names.sort();
    let output =
        fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut packer = Command::new("cpio")
        .args([
            "--create",
            "--format=newc",
            "--owner=+0:+0",
            "--reproducible",
            "--quiet",
        ])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()
        .context("packing the initramfs: cannot run cpio")?;
    let mut input = packer
        .stdin
        .take()
        .context("packing the initramfs: cpio has no input")?;
    input.write_all(names.join("\n").as_bytes())?;
    // cpio reads to the end of its input.
    drop(input);
    let status = packer.wait()?;
    ensure!(
        status.success(),
        "packing the initramfs: cpio ended with {status}"
    );
    Ok(())
}

/// Every path below `directory`, relative to `root`; a directory sorts before
/// what is in it, as unpacking needs it.
fn list(root: &Path, directory: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let name = path
            .strip_prefix(root)?
            .to_str()
            .context("a library's path is not text")?;
        names.push(name.to_owned());
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<_> = library_paths(listing);
        assert_eq!(
            paths,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
