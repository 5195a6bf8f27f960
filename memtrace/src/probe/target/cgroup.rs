//! The processes of a cgroup.
//!
//! A path as the user wrote it comes in; the cgroup's directory and the ids of
//! the processes in it and below go out. Both cgroup versions are served, wherever
//! they are mounted.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::process::Status;
use super::{TargetError, read_text};

/// Depth of cgroups below the one asked for that is looked into.
const DEPTH_MAX: usize = 64;

/// Where cgroups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount {
    /// The directory.
    pub path: PathBuf,
    /// It is the unified hierarchy (version 2).
    pub unified: bool,
}

/// The cgroup mounts in the text of `/proc/self/mounts`, the unified hierarchy
/// first.
pub fn parse_mounts(text: &str) -> Vec<CgroupMount> {
    let mut mounts: Vec<CgroupMount> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let path = unescape(fields.nth(1)?);
            let unified = match fields.next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            Some(CgroupMount {
                path: PathBuf::from(path),
                unified,
            })
        })
        .collect();
    mounts.sort_by_key(|mount| !mount.unified);
    mounts
}

/// The mount table writes blanks, tabs, line feeds and backslashes as three
/// octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(u8::is_ascii);
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The cgroup mounts of this machine, the unified hierarchy first.
pub fn mounts() -> Vec<CgroupMount> {
    parse_mounts(&read_text(Path::new("/proc/self/mounts")).unwrap_or_default())
}

/// The directory of a cgroup: the path itself if it is one, else the path below
/// a cgroup mount, one with processes before an empty one.
pub fn find_directory(path: &Path) -> Result<PathBuf, TargetError> {
    if path.is_absolute() && is_cgroup(path) {
        return Ok(path.to_owned());
    }
    let mounts = mounts();
    let below = path.strip_prefix("/").unwrap_or(path);
    let candidates: Vec<PathBuf> = mounts
        .iter()
        .map(|mount| mount.path.join(below))
        .filter(|directory| is_cgroup(directory))
        .collect();
    let inhabited = candidates
        .iter()
        .find(|directory| processes_of_cgroup(directory).is_ok_and(|pids| !pids.is_empty()));
    inhabited
        .or(candidates.first())
        .cloned()
        .ok_or_else(|| TargetError::NoCgroup {
            path: path.to_owned(),
            mounts: mounts.into_iter().map(|mount| mount.path).collect(),
        })
}

fn is_cgroup(path: &Path) -> bool {
    path.join("cgroup.procs").is_file()
}

/// The processes in a cgroup directory and below it, in ascending order.
pub fn processes_of_cgroup(directory: &Path) -> Result<Vec<u32>, TargetError> {
    let mut pids = BTreeSet::new();
    collect(directory, 0, &mut pids).map_err(|source| TargetError::Unreadable {
        path: directory.to_owned(),
        source,
    })?;
    Ok(pids.into_iter().collect())
}

fn collect(directory: &Path, depth: usize, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => pids.extend(parse_ids(&text)),
        // A threaded cgroup lists threads alone.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let text = std::fs::read_to_string(directory.join("cgroup.threads"))?;
            pids.extend(parse_ids(&text).filter_map(|tid| Some(Status::read(tid)?.tgid)));
        }
        Err(error) => return Err(error),
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)?.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match collect(&entry.path(), depth + 1, pids) {
            Ok(()) => {}
            // Removed in the meantime.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One id a line; 0 stands for a process that this PID namespace cannot see.
fn parse_ids(text: &str) -> impl Iterator<Item = u32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts_of_both_versions() {
        let text = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
                    cgroup /sys/fs/cgroup/cpu\\040set cgroup rw,cpuset 0 0\n\
                    cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                    broken\n";
        let mounts = parse_mounts(text);
        assert_eq!(
            mounts,
            [
                CgroupMount {
                    path: PathBuf::from("/sys/fs/cgroup/unified"),
                    unified: true
                },
                CgroupMount {
                    path: PathBuf::from("/sys/fs/cgroup/cpu set"),
                    unified: false
                },
            ]
        );
    }

    #[test]
    fn a_path_to_no_cgroup_is_refused() {
        let Err(error) = find_directory(Path::new("/no/such.slice")) else {
            panic!("there is no such cgroup");
        };
        let text = error.to_string();
        assert!(
            text.starts_with("there is no cgroup /no/such.slice"),
            "{text}"
        );
        // A directory alone does not make a cgroup.
        assert!(matches!(
            find_directory(Path::new("/proc/self")),
            Err(TargetError::NoCgroup { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}", path in "[ -~]{0,20}") {
            parse_mounts(&text);
            parse_mounts(&format!("cgroup2 /{path} cgroup2 rw 0 0"));
            prop_assert!(parse_ids(&text).all(|pid| pid != 0));
        }

        #[test]
        fn escaped_paths_are_read_back(path in "/[ -~]{0,30}") {
            let escaped: String = path
                .chars()
                .map(|c| match c {
                    ' ' | '\\' => format!("\\{:03o}", c as u32),
                    _ => c.to_string(),
                })
                .collect();
            prop_assert_eq!(unescape(&escaped), path);
        }
    }
}
