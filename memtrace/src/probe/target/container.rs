//! The processes of a container, told by their cgroups alone: no container
//! engine is asked.
//!
//! The text of every process's `/proc/PID/cgroup` comes in; the ids of the
//! processes whose cgroup path carries the container's id go out.

use std::collections::BTreeSet;

use super::TargetError;

/// Shortest start of a container id that is taken for one, characters.
pub const PREFIX_CHARS_MIN: usize = 6;
/// Containers listed when the one asked for is not found.
const LISTED_MAX: usize = 20;
/// Characters of an id that are shown.
const SHOWN_CHARS: usize = 12;

/// What engines put before the id in a cgroup's name.
const PREFIXES: [&str; 9] = [
    "docker-",
    "cri-containerd-",
    "libpod-",
    "libpod-payload-",
    "crio-",
    "containerd-",
    "crun-",
    "runc-",
    "lxc.payload.",
];
/// Cgroups of an engine's own helpers beside a container.
const HELPERS: [&str; 4] = [
    "libpod-conmon-",
    "crio-conmon-",
    "lxc.monitor.",
    "docker-init-",
];

/// The processes of the container with this id or name, or whose id begins so.
/// `texts` holds process ids with the text of their `/proc/PID/cgroup`.
pub fn find(wanted: &str, texts: &[(u32, String)]) -> Result<Vec<u32>, TargetError> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (_, text) in texts {
        known.extend(identifiers(text));
    }
    let id = if known.contains(wanted) {
        Some(wanted.to_owned())
    } else {
        unique(wanted, &known)?
    };
    let pids: Vec<u32> = texts
        .iter()
        .filter(|(_, text)| match &id {
            Some(id) => identifiers(text).any(|own| own == *id),
            // Some runtimes name the cgroup after the container and nothing
            // else; only the whole name is taken for that.
            None => components(text).any(|component| component == wanted),
        })
        .map(|(pid, _)| *pid)
        .collect();
    if !pids.is_empty() {
        return Ok(pids);
    }
    if wanted.chars().count() < PREFIX_CHARS_MIN {
        return Err(TargetError::ShortContainer {
            wanted: wanted.to_owned(),
        });
    }
    Err(TargetError::NoContainer {
        wanted: wanted.to_owned(),
        known: known
            .iter()
            .take(LISTED_MAX)
            .map(|id| shortened(id))
            .collect(),
    })
}

/// The one known container whose id begins with `wanted`.
fn unique(wanted: &str, known: &BTreeSet<String>) -> Result<Option<String>, TargetError> {
    if wanted.chars().count() < PREFIX_CHARS_MIN {
        return Ok(None);
    }
    let mut matching = known.iter().filter(|id| id.starts_with(wanted));
    match (matching.next(), matching.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => Ok(Some(id.clone())),
        (Some(_), Some(_)) => Err(TargetError::AmbiguousContainer {
            wanted: wanted.to_owned(),
            candidates: known
                .iter()
                .filter(|id| id.starts_with(wanted))
                .cloned()
                .collect(),
        }),
    }
}

/// The path, below its mount, of the cgroup in `text` that is the container
/// `wanted`, the unified hierarchy's before others.
pub fn cgroup_path(wanted: &str, text: &str) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| !line.starts_with("0::"));
    lines.into_iter().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let mut end = 0;
        for component in path.split('/') {
            end += component.len();
            let named = component == wanted
                || identifier(component).is_some_and(|id| {
                    id == wanted
                        || (wanted.chars().count() >= PREFIX_CHARS_MIN && id.starts_with(wanted))
                });
            if named {
                return path.get(..end).map(str::to_owned);
            }
            end += 1;
        }
        None
    })
}

/// The container ids that a process's cgroups carry.
fn identifiers(text: &str) -> impl Iterator<Item = String> {
    components(text).filter_map(identifier).map(str::to_owned)
}

/// The parts of every cgroup path in the text.
fn components(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .filter(|component| !component.is_empty())
}

/// The container id that one part of a cgroup path carries.
fn identifier(component: &str) -> Option<&str> {
    if HELPERS.iter().any(|helper| component.starts_with(helper)) {
        return None;
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if let Some(id) = PREFIXES
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .min_by_key(|id| id.len())
    {
        return (!id.is_empty()).then_some(id);
    }
    // `kubepods-….slice:cri-containerd:<id>`.
    let last = name.rsplit(':').next().unwrap_or(name);
    // A full id stands alone where the engine manages cgroups itself.
    (last.len() == 64 && last.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(last)
}

fn shortened(id: &str) -> String {
    if id.len() == 64 {
        id.chars().take(SHOWN_CHARS).collect()
    } else {
        id.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const B: &str = "0123456fffffffff0123456789abcdef0123456789abcdef0123456789abcdef";

    fn processes(lines: &[String]) -> Vec<(u32, String)> {
        (100..).zip(lines.iter().cloned()).collect()
    }

    #[test]
    fn every_engine_s_way_of_naming() {
        for path in [
            format!("0::/system.slice/docker-{A}.scope"),
            format!("12:cpuset:/docker/{A}\n0::/"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope"),
            format!("0::/kubepods/burstable/pod1-2-3/{A}"),
            format!("0::/kubepods.slice/x.slice/crio-{A}.scope"),
            format!("0::/machine.slice/libpod-{A}.scope/container"),
            format!("0::/system.slice/containerd.service/kubepods-x.slice:cri-containerd:{A}"),
            format!("0::/user.slice/crun-{A}.scope"),
        ] {
            let texts = processes(&[path.clone(), "0::/init.scope".to_owned()]);
            assert_eq!(find(A, &texts).expect("found"), [100], "{path}");
            assert_eq!(find(&A[..12], &texts).expect("found"), [100], "{path}");
            let cgroup = cgroup_path(&A[..12], &path).expect("a cgroup");
            assert!(cgroup.starts_with('/') && cgroup.contains(A), "{cgroup}");
            assert!(!cgroup.ends_with("/container"), "{cgroup}");
        }
    }

    #[test]
    fn names_are_taken_whole() {
        let texts = processes(&[
            "0::/lxc.payload.web/system.slice/nginx.service".to_owned(),
            "0::/lxc.monitor.web".to_owned(),
            "3:memory:/mine\n0::/mine".to_owned(),
        ]);
        assert_eq!(find("web", &texts).expect("found"), [100]);
        assert_eq!(find("mine", &texts).expect("found"), [102]);
        assert!(matches!(
            find("min", &texts),
            Err(TargetError::ShortContainer { .. })
        ));
        assert_eq!(
            cgroup_path("web", &texts[0].1).as_deref(),
            Some("/lxc.payload.web")
        );
    }

    #[test]
    fn unclear_and_unknown_ones_are_refused() {
        let texts = processes(&[
            format!("0::/docker/{A}"),
            format!("0::/docker/{B}"),
            format!("0::/machine.slice/libpod-conmon-{A}.scope"),
        ]);
        let Err(error) = find("012345", &texts) else {
            panic!("two begin so");
        };
        let text = error.to_string();
        assert!(text.contains(A) && text.contains(B), "{text}");
        assert_eq!(find("01234567", &texts).expect("one begins so"), [100]);
        let Err(error) = find("fedcba", &texts) else {
            panic!("none begins so");
        };
        let text = error.to_string();
        assert!(
            text.contains("running: 0123456789ab, 0123456fffff"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(
            wanted in ".{0,20}", text in ".{0,200}", path in "(/[a-z0-9:.-]{0,70}){0,4}",
        ) {
            let line = format!("0::{path}");
            drop(find(&wanted, &[(1, text.clone()), (2, line.clone())]));
            if let Some(cgroup) = cgroup_path(&wanted, &line) {
                prop_assert!(path.starts_with(&cgroup));
            }
            cgroup_path(&wanted, &text);
        }
    }
}
