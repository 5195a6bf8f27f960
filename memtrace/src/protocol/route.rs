//! Routes: a request target comes in, the template that it was made from goes
//! out, as far as its shape tells: `/users/17?page=2` is `/users/{id}?page`.
//!
//! [`template`] looks at one target alone. [`RouteTable`] also remembers what it
//! has seen, and keeps the number of distinct routes bounded whatever clients
//! send. Neither asks the server for its route definitions, and neither decodes
//! percent-encoding.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::{http1::is_known_method, target::NAME_MASK};
use crate::message::UNKNOWN;

/// Longest route, in characters; the rest becomes [`ELLIPSIS`].
pub const ROUTE_CHARS_MAX: usize = 256;

/// Query parameter names shown in a route.
pub const QUERY_NAMES_MAX: usize = 8;

/// Distinct routes of a table unless it is told otherwise.
pub const ROUTES_MAX: usize = 500;

/// Distinct literal segments at one position, after the same prefix.
pub const VALUES_MAX: usize = 100;

/// Literal segments that a table remembers: about 0.4 MB at 100 bytes each, and
/// 8 MB at worst, with prefix and segment of 256 four-byte characters.
pub const LITERALS_MAX: usize = 4_000;

/// Shows that something was cut.
pub const ELLIPSIS: &str = "…";

/// The row of all routes beyond a table's limit.
pub const OTHER_ROUTES: &str = "{other routes}";

/// The method of requests whose method is not known by name, and of
/// [`OTHER_ROUTES`].
pub const OTHER_METHOD: &str = "{other}";

/// Stands for a segment with too many different values.
pub const VALUE: &str = "{value}";

/// A route: what targets of the same handler have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The path with its variable segments replaced; `*` or `{authority}` for
    /// targets that have none, and [`UNKNOWN`].
    pub path: String,
    /// Names of the query parameters, sorted, each once; ends in [`ELLIPSIS`] if
    /// there were more.
    pub query: Vec<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.path.clone();
        for (index, name) in self.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(name);
        }
        f.write_str(&shorten(text))
    }
}

/// The route of a request target in any of its forms (RFC 9112, 3.2).
pub fn template(target: &str) -> Route {
    let target = target.split('#').next().unwrap_or("");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (target, ""),
    };
    let path = match path.split_once("://") {
        // A path may hold a URL in turn: only a scheme may come before it.
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            match rest.find('/') {
                Some(start) => &rest[start..],
                None => "/",
            }
        }
        Some(_) | None => path,
    };
    let path = if path.starts_with('/') {
        let segments: Vec<Cow<'_, str>> = path.split('/').map(fold_segment).collect();
        segments.join("/")
    } else if path == "*" || path == UNKNOWN {
        path.to_owned()
    } else {
        "{authority}".to_owned()
    };
    Route {
        path: shorten(path),
        query: query_names(query),
    }
}

fn query_names(query: &str) -> Vec<String> {
    let names: BTreeSet<String> = query
        .split('&')
        .map(|parameter| parameter.split('=').next().unwrap_or(""))
        .filter(|name| !name.is_empty())
        .map(fold_name)
        .collect();
    let more = names.len() > QUERY_NAMES_MAX;
    let mut names: Vec<String> = names.into_iter().take(QUERY_NAMES_MAX).collect();
    if more {
        names.push(ELLIPSIS.to_owned());
    }
    names
}

/// A masked name becomes `*`, an index (`ids[3]`) is dropped, and a name that
/// looks like a value is treated as one.
fn fold_name(name: &str) -> String {
    if name.contains(NAME_MASK) {
        return NAME_MASK.to_string();
    }
    if name.ends_with('…') {
        return ELLIPSIS.to_owned();
    }
    if let Some((array, rest)) = name.split_once('[') {
        let rest: String = rest.chars().filter(|c| !c.is_ascii_digit()).collect();
        return format!("{array}[{rest}");
    }
    fold_segment(name).into_owned()
}

/// Cuts to [`ROUTE_CHARS_MAX`] characters, the marker included.
fn shorten(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(ROUTE_CHARS_MAX) {
        let last = text[..end].char_indices().next_back();
        text.truncate(last.map_or(0, |(start, _)| start));
        text.push_str(ELLIPSIS);
    }
    text
}

/// A path segment with what is variable in it replaced.
fn fold_segment(segment: &str) -> Cow<'_, str> {
    // Parameters (`;jsessionid=…`) are no part of the route.
    let segment = segment.split(';').next().unwrap_or("");
    if segment.ends_with('…') {
        return Cow::Borrowed(ELLIPSIS);
    }
    // An email address ends like a file name.
    let named = segment
        .rsplit_once('.')
        .filter(|(_, extension)| is_extension(extension) && !is_email(segment));
    match named {
        Some((stem, extension)) => match whole_placeholder(stem) {
            Some(placeholder) => Cow::Owned(format!("{placeholder}.{extension}")),
            None => fold_pieces(segment),
        },
        None => match whole_placeholder(segment) {
            Some(placeholder) => Cow::Borrowed(placeholder),
            None => fold_pieces(segment),
        },
    }
}

fn is_extension(text: &str) -> bool {
    (1..=5).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// What `text` is an instance of, taken as a whole.
fn whole_placeholder(text: &str) -> Option<&'static str> {
    if is_number(text) {
        Some("{id}")
    } else if is_uuid(text) {
        Some("{uuid}")
    } else if is_date(text) {
        Some("{date}")
    } else if is_hex(text) {
        Some("{hex}")
    } else if is_email(text) {
        Some("{email}")
    } else if is_token(text) {
        Some("{token}")
    } else {
        None
    }
}

/// Folds long numbers and hashes between the separators of a name:
/// `app.3f2a9c1b.js`, `invoice-20417.pdf`.
fn fold_pieces(segment: &str) -> Cow<'_, str> {
    let is_separator = |c: char| matches!(c, '.' | '-' | '_' | '~');
    let placeholder = |piece: &str| {
        if piece.len() >= 4 && is_number(piece) {
            Some("{id}")
        } else if is_hex(piece) {
            Some("{hex}")
        } else {
            None
        }
    };
    if !segment
        .split(is_separator)
        .any(|piece| placeholder(piece).is_some())
    {
        return Cow::Borrowed(segment);
    }
    let mut folded = String::with_capacity(segment.len());
    for piece in segment.split_inclusive(is_separator) {
        let bare = piece.trim_end_matches(is_separator);
        folded.push_str(placeholder(bare).unwrap_or(bare));
        folded.push_str(&piece[bare.len()..]);
    }
    Cow::Owned(folded)
}

/// `17`, `-3`, and lists such as `4,8,15`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b',')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `2024-01-31`, with or without a time, and `2024-01`.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let fits = |shape: &[u8]| {
        bytes.len() >= shape.len()
            && shape.iter().zip(bytes).all(|(&shape, byte)| match shape {
                b'0' => byte.is_ascii_digit(),
                shape => *byte == shape,
            })
    };
    let plausible = matches!(bytes.first(), Some(b'1' | b'2'));
    plausible
        && ((bytes.len() == 7 && fits(b"0000-00"))
            || (fits(b"0000-00-00")
                && matches!(bytes.get(10), None | Some(b'T' | b't' | b' ' | b'_' | b'%'))))
}

/// At least 8 hex digits, one of them a decimal or after `0x`; else at least 16.
fn is_hex(text: &str) -> bool {
    let (digits, marked) = match text.strip_prefix("0x") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let decimals = marked || digits.bytes().any(|byte| byte.is_ascii_digit());
    digits.len() >= if decimals { 8 } else { 16 }
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_email(text: &str) -> bool {
    let parts = text.split_once('@').or_else(|| text.split_once("%40"));
    parts.is_some_and(|(name, domain)| {
        let top = domain.rsplit_once('.').map_or("", |(_, top)| top);
        !name.is_empty() && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

/// A random-looking identifier: at least 20 characters in which letters and
/// digits alternate at least three times, or a run of at least 32 without a
/// separator that is no name in camel case.
fn is_token(text: &str) -> bool {
    const SEPARATORS: &[u8] = b"-_.~=+,%:!";
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || SEPARATORS.contains(&byte);
    if text.len() < 20 || !text.bytes().all(allowed) {
        return false;
    }
    let changes = text
        .as_bytes()
        .windows(2)
        .filter(|pair| {
            pair[0].is_ascii_alphanumeric()
                && pair[1].is_ascii_alphanumeric()
                && pair[0].is_ascii_digit() != pair[1].is_ascii_digit()
        })
        .count();
    let longest = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .max_by_key(|piece| piece.len())
        .unwrap_or("");
    let camel_case = longest.bytes().all(|byte| byte.is_ascii_alphabetic())
        && longest.bytes().any(|byte| byte.is_ascii_lowercase())
        && longest.bytes().any(|byte| byte.is_ascii_uppercase());
    let run = if camel_case { 64 } else { 32 };
    changes >= 3 || longest.len() >= run
}

/// A row of the report: a method and a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The method, [`UNKNOWN`] or [`OTHER_METHOD`].
    pub method: String,
    /// The route as text, or [`OTHER_ROUTES`].
    pub route: String,
}

/// The distinct routes of one process, bounded.
///
/// Two limits work together. Where one position of a path has shown more than
/// [`VALUES_MAX`] different literals, new ones become [`VALUE`], which folds
/// names (`/users/alice`) that no shape gives away. And once the table is full,
/// new routes share the row [`OTHER_ROUTES`].
#[derive(Debug)]
pub struct RouteTable {
    max: usize,
    endpoints: HashSet<Endpoint>,
    /// Literal segments seen after each prefix.
    literals: HashMap<String, HashSet<String>>,
    literal_count: usize,
    folded: u64,
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new(ROUTES_MAX)
    }
}

impl RouteTable {
    /// A table of at most `max` distinct routes, and one row for the rest.
    pub fn new(max: usize) -> Self {
        RouteTable {
            max,
            endpoints: HashSet::new(),
            literals: HashMap::new(),
            literal_count: 0,
            folded: 0,
        }
    }

    /// Requests that went to the row of the rest.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// The row of a request.
    pub fn fold(&mut self, method: &str, route: &Route) -> Endpoint {
        let method = if is_known_method(method) || method == UNKNOWN {
            method
        } else {
            OTHER_METHOD
        };
        let folded = Route {
            path: self.fold_path(&route.path),
            query: route.query.clone(),
        };
        let endpoint = Endpoint {
            method: method.to_owned(),
            route: folded.to_string(),
        };
        if self.endpoints.contains(&endpoint) {
            return endpoint;
        }
        if self.endpoints.len() < self.max {
            self.endpoints.insert(endpoint.clone());
            return endpoint;
        }
        self.folded = self.folded.saturating_add(1);
        Endpoint {
            method: OTHER_METHOD.to_owned(),
            route: OTHER_ROUTES.to_owned(),
        }
    }

    fn fold_path(&mut self, path: &str) -> String {
        let mut folded = String::with_capacity(path.len());
        for (index, segment) in path.split('/').enumerate() {
            if index > 0 {
                folded.push('/');
            }
            let keep = segment.is_empty()
                || (segment.starts_with('{') && segment.ends_with('}'))
                || self.is_literal(&folded, segment);
            folded.push_str(if keep { segment } else { VALUE });
        }
        folded
    }

    /// May this segment stand for itself after this prefix?
    fn is_literal(&mut self, prefix: &str, segment: &str) -> bool {
        if let Some(seen) = self.literals.get(prefix) {
            if seen.contains(segment) {
                return true;
            }
            if seen.len() >= VALUES_MAX {
                return false;
            }
        }
        if self.literal_count >= LITERALS_MAX {
            return false;
        }
        self.literal_count += 1;
        self.literals
            .entry(prefix.to_owned())
            .or_default()
            .insert(segment.to_owned());
        true
    }
}

#[cfg(test)]
mod tests;
