//! A request target without its private parts: bytes come in, the path and the
//! names of the query's parameters go out.
//!
//! Left out: hosts and user information, path parameters (`;jsessionid=…`),
//! values, fragments, and targets of no known form. A query parameter without
//! `=` may be a value, and a name that long is rather a token that ends in `=`:
//! of these only that they were there is told, as `*`.
//!
//! It does not fold what is variable in a path; see [`route`](super::route).

/// Stands for a parameter whose name may be a value, and for a method that is
/// not known by name.
pub const NAME_MASK: char = '*';

/// Bytes of a target that are looked at; the rest is replaced by `…`.
pub const TARGET_MAX: usize = 2048;

/// Longest parameter name kept, bytes.
const NAME_MAX: usize = 40;

/// Shows that something is missing.
const CUT: char = '…';

/// The target of a request line or of its equal in other protocols. `incomplete`
/// says that it goes on where `target` ends.
///
/// Origin form and absolute form give their path and query, the asterisk form
/// an asterisk, everything else nothing. The result ends in `…` if not all of
/// the target could be told.
pub fn reduce(target: &[u8], incomplete: bool) -> String {
    let kept = target.get(..TARGET_MAX).unwrap_or(target);
    let cut = incomplete || kept.len() < target.len();
    let mut text = String::with_capacity(kept.len());
    let (origin, fragment) = until(without_authority(kept), b"#");
    let (path, query) = until(origin, b"?");
    for (index, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        let (segment, _) = until(segment, b";");
        text.push_str(&String::from_utf8_lossy(segment));
    }
    if let Some(query) = query {
        push_names(&mut text, query, cut && fragment.is_none());
    }
    if cut && fragment.is_none() {
        text.push(CUT);
    }
    text
}

/// Path and query as other protocols than HTTP state them: apart. A path of
/// which the query is not known ends in `?…`.
pub fn reduce_parts(path: &[u8], query: Option<&[u8]>, incomplete: bool) -> String {
    let mut text = reduce(until(path, b"?#").0, false);
    match query {
        Some(query) if !query.is_empty() => {
            let kept = query.get(..TARGET_MAX).unwrap_or(query);
            let cut = incomplete || kept.len() < query.len();
            push_names(&mut text, kept, cut);
            if cut {
                text.push(CUT);
            }
        }
        Some(_) => {}
        None if incomplete => text.extend(['?', CUT]),
        None => {}
    }
    text
}

/// What comes before the first of these bytes, and what after it.
fn until<'a>(bytes: &'a [u8], ends: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match bytes.iter().position(|byte| ends.contains(byte)) {
        Some(end) => (&bytes[..end], bytes.get(end + 1..)),
        None => (bytes, None),
    }
}

/// The origin form of a target; empty if it has none.
fn without_authority(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") || target == b"*" {
        return target;
    }
    let after = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    match after(b"http://").or_else(|| after(b"https://")) {
        Some(rest) => match rest.iter().position(|byte| b"/?#".contains(byte)) {
            Some(start) if rest[start] == b'/' => &rest[start..],
            // No path is the root's.
            Some(_) | None => b"/",
        },
        None => b"",
    }
}

/// Adds `?a&b`. The last name of a cut query may be the beginning of a value.
fn push_names(text: &mut String, query: &[u8], cut: bool) {
    let mut separator = '?';
    for parameter in query.split(|&byte| byte == b'&') {
        let (name, value) = until(parameter, b"=");
        if parameter.is_empty() {
            continue;
        }
        text.push(separator);
        separator = '&';
        if value.is_some() && name.len() <= NAME_MAX {
            text.push_str(&String::from_utf8_lossy(name));
        } else {
            text.push(NAME_MASK);
        }
    }
    if cut && separator == '?' {
        text.push(separator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(target: &str) -> String {
        reduce(target.as_bytes(), false)
    }

    #[test]
    fn paths_and_names_stay_and_nothing_else() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?x=1&y=2", "/a/b?x&y"),
            ("/a;s=1/b;t?x=1&novalue&y=&z=a=b#f", "/a/b?x&*&y&z"),
            ("/a?secret", "/a?*"),
            ("/a?", "/a"),
            ("/a?&&x=1", "/a?x"),
            ("/a#secret?x=1", "/a"),
            ("http://user:pw@host:80/p?q=1", "/p?q"),
            ("HTTPS://h", "/"),
            ("http://h?q=1", "/"),
            ("/go?to=http://h/?x=1", "/go?to"),
            ("*", "*"),
            ("h:443", ""),
            ("secret", ""),
            ("", ""),
        ] {
            assert_eq!(reduced(target), expected, "{target}");
        }
        let long = format!("/a?{}=1", "n".repeat(NAME_MAX + 1));
        assert_eq!(reduced(&long), "/a?*");
    }

    #[test]
    fn what_is_missing_is_shown() {
        assert_eq!(reduce(b"/a/b", true), "/a/b…");
        assert_eq!(reduce(b"/a?x=1&sec", true), "/a?x&*…");
        assert_eq!(reduce(b"/a?", true), "/a?…");
        assert_eq!(reduce(b"/a#f", true), "/a");
        let long = format!("/{}", "a".repeat(TARGET_MAX));
        assert_eq!(reduced(&long), format!("/{}…", "a".repeat(TARGET_MAX - 1)));
    }

    #[test]
    fn parts_are_joined() {
        assert_eq!(reduce_parts(b"/a", Some(b"x=1"), false), "/a?x");
        assert_eq!(reduce_parts(b"/a", Some(b""), false), "/a");
        assert_eq!(reduce_parts(b"/a?y=2", None, false), "/a");
        assert_eq!(reduce_parts(b"/a", None, true), "/a?…");
        assert_eq!(reduce_parts(b"/a", Some(b"x=1&sec"), true), "/a?x&*…");
    }
}
