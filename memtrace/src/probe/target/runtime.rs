//! Which language runtime a process runs.
//!
//! The program's path and the paths of its mapped libraries come in, a name such
//! as `cpython 3.11` goes out. It is a guess from file names, for people to read;
//! readers of a runtime's memory must check for themselves.

use std::path::{Path, PathBuf};

/// The runtime of a process with this program and these executable mappings;
/// `go` says that the program carries Go's build id.
pub fn guess(exe: &Path, mapped: &[PathBuf], go: bool) -> String {
    let program = file_name(exe);
    let from_program = by_program(program, mapped);
    let from_libraries = || {
        mapped
            .iter()
            .find_map(|path| by_library(file_name(path), mapped))
    };
    from_program
        .or_else(from_libraries)
        .or_else(|| go.then(|| "go".to_owned()))
        .unwrap_or_else(|| "native".to_owned())
}

fn by_program(name: &str, mapped: &[PathBuf]) -> Option<String> {
    if let Some(rest) = name.strip_prefix("python") {
        return Some(with_version("cpython", &python_version(rest, mapped)?));
    }
    if let Some(rest) = name.strip_prefix("pypy") {
        return Some(with_version("pypy", &version(rest)?));
    }
    if let Some(rest) = name.strip_prefix("ruby") {
        return Some(with_version("ruby", &version(rest)?));
    }
    if let Some(rest) = name.strip_prefix("php") {
        let rest = ["-fpm", "-cgi"]
            .iter()
            .find_map(|kind| rest.strip_prefix(kind))
            .unwrap_or(rest);
        return Some(with_version("php", &version(rest)?));
    }
    matches!(name, "node" | "nodejs").then(|| "node".to_owned())
}

fn by_library(name: &str, mapped: &[PathBuf]) -> Option<String> {
    if name == "libjvm.so" {
        return Some("jvm".to_owned());
    }
    if name == "libcoreclr.so" {
        return Some("dotnet".to_owned());
    }
    if name.starts_with("libnode.so") {
        return Some("node".to_owned());
    }
    let (stem, tail) = name.strip_prefix("lib")?.split_once(".so")?;
    if let Some(rest) = stem.strip_prefix("python") {
        return Some(with_version("cpython", &python_version(rest, mapped)?));
    }
    if let Some(rest) = stem.strip_prefix("pypy") {
        return Some(with_version("pypy", &version(rest.strip_suffix("-c")?)?));
    }
    if let Some(rest) = stem.strip_prefix("ruby") {
        let own = version(rest.trim_start_matches('-'))?;
        // Some builds have the version behind the suffix alone.
        let told = if own.is_empty() {
            major_minor(tail.trim_start_matches('.'))
        } else {
            own
        };
        return Some(with_version("ruby", &told));
    }
    if let Some(rest) = stem.strip_prefix("php") {
        return Some(with_version("php", &version(rest)?));
    }
    None
}

/// `3.11` and `3.13t` as they are; for a bare `3` the version that the paths of
/// its extension modules tell, if there are any. `None` if it is something else.
fn python_version(text: &str, mapped: &[PathBuf]) -> Option<String> {
    let plain = text.strip_suffix(['t', 'd']).unwrap_or(text);
    let own = version(plain)?;
    if own.contains('.') {
        return Some(text.to_owned());
    }
    let told = mapped
        .iter()
        .flat_map(|path| path.components())
        .filter_map(|part| part.as_os_str().to_str()?.strip_prefix("python"))
        .find_map(|rest| version(rest).filter(|v| v.contains('.')));
    Some(told.unwrap_or(own))
}

/// The text if it is empty or a version number, else `None`.
fn version(text: &str) -> Option<String> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        .then(|| text.trim_end_matches('.').to_owned())
}

fn major_minor(text: &str) -> String {
    let parts: Vec<&str> = text.split('.').take(2).collect();
    version(&parts.join(".")).unwrap_or_default()
}

fn with_version(name: &str, version: &str) -> String {
    if version.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {version}")
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(exe: &str, mapped: &[&str], go: bool) -> String {
        let mapped: Vec<PathBuf> = mapped.iter().map(PathBuf::from).collect();
        guess(Path::new(exe), &mapped, go)
    }

    #[test]
    fn known_runtimes() {
        for (exe, mapped, expected) in [
            ("/usr/bin/python3.11", &[][..], "cpython 3.11"),
            ("/opt/bin/python3.13t", &[], "cpython 3.13t"),
            (
                "/opt/bin/python3",
                &["/opt/lib/python3.12/lib-dynload/_ssl.so"],
                "cpython 3.12",
            ),
            ("/opt/bin/python", &[], "cpython"),
            (
                "/usr/bin/uwsgi-core",
                &["/usr/lib/libc.so.6", "/usr/lib/libpython3.11.so.1.0"],
                "cpython 3.11",
            ),
            ("/usr/bin/pypy3.9", &[], "pypy 3.9"),
            ("/usr/bin/node", &["/usr/lib/libc.so.6"], "node"),
            ("/usr/bin/x", &["/usr/lib/libnode.so.108"], "node"),
            (
                "/usr/lib/jvm/java-17/bin/java",
                &["/usr/lib/jvm/java-17/lib/server/libjvm.so"],
                "jvm",
            ),
            ("/usr/sbin/php-fpm8.2", &[], "php 8.2"),
            ("/usr/sbin/php-fpm", &[], "php"),
            (
                "/usr/sbin/apache2",
                &["/usr/lib/apache2/modules/libphp8.2.so"],
                "php 8.2",
            ),
            ("/usr/bin/ruby3.1", &[], "ruby 3.1"),
            (
                "/usr/bin/puma",
                &["/usr/lib/libruby-3.1.so.3.1"],
                "ruby 3.1",
            ),
            ("/usr/bin/puma", &["/opt/lib/libruby.so.3.3.0"], "ruby 3.3"),
            ("/usr/sbin/nginx", &["/usr/lib/libc.so.6"], "native"),
            // Names that only begin alike.
            ("/usr/bin/pythonista", &[], "native"),
            ("/usr/bin/node_exporter", &[], "native"),
            ("/usr/bin/phpunit-watch", &[], "native"),
        ] {
            assert_eq!(told(exe, mapped, false), expected, "{exe} {mapped:?}");
        }
        assert_eq!(told("/usr/bin/prometheus", &[], true), "go");
        assert_eq!(told("", &[], false), "native");
    }

    proptest! {
        #[test]
        fn any_path_is_survived(
            exe in ".{0,40}", name in "(lib)?(python|ruby|php|pypy)?.{0,12}(\\.so.{0,8})?", go: bool,
        ) {
            prop_assert!(!told(&exe, &[&name], go).is_empty());
            prop_assert!(!told(&name, &[&exe], go).is_empty());
        }
    }
}
