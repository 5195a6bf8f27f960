//! What web servers tell their applications of a request: the variables of CGI
//! (RFC 3875, 4.1) as FastCGI and uwsgi carry them come in, method, target and
//! length of the body go out.
//!
//! Of all variables only these few are held, and of their values no more than
//! what is shown of a target. Variables that were not captured are passed over,
//! as far as their lengths are known.

use super::http1::known_method;
use super::target::{self, TARGET_MAX};

/// How lengths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Both lengths before both strings, in one byte, or in four if the first
    /// has its highest bit set (FastCGI 1.0, 3.4).
    FastCgi,
    /// Each string after its length, in two bytes, the lower first.
    Uwsgi,
}

/// Longest name of a variable that is read.
const NAME_MAX: u32 = 14;

/// Where in the pairs the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the lengths before a name.
    Lengths,
    /// In a name with this many bytes left, then a value of this length.
    Name { left: u32, value: u32 },
    /// In the length before a value.
    ValueLength,
    /// In a value with this many bytes left.
    Value(u32),
    /// Anywhere.
    Lost,
}

/// The variables that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Method,
    Uri,
    Script,
    PathInfo,
    Query,
    Length,
}

/// Variables under way.
#[derive(Clone, Debug)]
pub struct Variables {
    coding: Coding,
    at: At,
    held: Vec<u8>,
    /// Whose value is under way, if it is one that is read.
    reading: Option<Variable>,
    /// Some of them were not captured.
    cut: bool,
    method: Option<Vec<u8>>,
    uri: Option<Vec<u8>>,
    /// The rest of the URI was not captured.
    uri_cut: bool,
    script: Option<Vec<u8>>,
    path_info: Option<Vec<u8>>,
    query: Option<Vec<u8>>,
    length: Option<u64>,
}

/// What the variables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `None`: not known by name, or not captured.
    pub method: Option<&'static str>,
    /// Path and names of query parameters; ends in `…` if it is cut.
    pub target: String,
    /// Bytes of the body, if that was said.
    pub content_length: Option<u64>,
    /// All variables were captured.
    pub complete: bool,
}

impl Variables {
    /// No byte was seen.
    pub fn new(coding: Coding) -> Self {
        Variables {
            coding,
            at: At::Lengths,
            held: Vec::new(),
            reading: None,
            cut: false,
            method: None,
            uri: None,
            uri_cut: false,
            script: None,
            path_info: None,
            query: None,
            length: None,
        }
    }

    /// Takes in the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.at {
                At::Lengths | At::ValueLength => {
                    rest = after;
                    self.held.push(byte);
                    self.end_lengths();
                }
                At::Name { left, value } => {
                    let (text, after) = rest.split_at(at_most(left, rest.len()));
                    rest = after;
                    // One that is too long is none that is read.
                    let room = (NAME_MAX as usize + 1).saturating_sub(self.held.len());
                    self.held.extend_from_slice(&text[..room.min(text.len())]);
                    self.at = At::Name {
                        left: left - text.len() as u32,
                        value,
                    };
                }
                At::Value(left) => {
                    let (text, after) = rest.split_at(at_most(left, rest.len()));
                    rest = after;
                    if self.reading.is_some() {
                        // One byte more shows that it was cut.
                        let room = (TARGET_MAX + 1).saturating_sub(self.held.len());
                        self.held.extend_from_slice(&text[..room.min(text.len())]);
                    }
                    self.at = At::Value(left - text.len() as u32);
                }
                At::Lost => return,
            }
            self.end_strings();
        }
    }

    /// Passes over bytes that were not captured.
    pub fn skip(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.cut = true;
        self.at = match self.at {
            At::Value(left) if u64::from(left) >= bytes => At::Value(left - bytes as u32),
            At::Lengths | At::ValueLength | At::Name { .. } | At::Value(_) | At::Lost => At::Lost,
        };
        // What is there of another value is no value.
        if self.reading == Some(Variable::Uri) {
            self.uri = Some(std::mem::take(&mut self.held));
            self.uri_cut = true;
        }
        self.reading = None;
        self.held.clear();
        self.end_strings();
    }

    /// What they say, now that they have ended.
    pub fn facts(&self) -> Facts {
        let complete = !self.cut && self.at == At::Lengths && self.held.is_empty();
        let target = match (&self.uri, &self.script) {
            (Some(uri), _) => target::reduce(uri, self.uri_cut),
            (None, Some(script)) => {
                let path_info = self.path_info.as_deref().unwrap_or(b"");
                let path = [script, path_info].concat();
                target::reduce_parts(&path, self.query.as_deref(), !complete)
            }
            (None, None) => target::reduce(b"", !complete),
        };
        Facts {
            method: self.method.as_deref().and_then(known_method),
            target,
            content_length: self.length,
            complete,
        }
    }

    fn end_lengths(&mut self) {
        let next = match (self.coding, self.at) {
            (Coding::FastCgi, _) => {
                lengths(&self.held).map(|(left, value)| At::Name { left, value })
            }
            (Coding::Uwsgi, at) => match self.held[..] {
                [low, high] => {
                    let length = u32::from(u16::from_le_bytes([low, high]));
                    Some(if at == At::Lengths {
                        At::Name {
                            left: length,
                            value: 0,
                        }
                    } else {
                        At::Value(length)
                    })
                }
                _ => None,
            },
        };
        if let Some(next) = next {
            self.held.clear();
            self.at = next;
        }
    }

    /// Goes on behind strings of which no byte is left.
    fn end_strings(&mut self) {
        if let At::Name { left: 0, value } = self.at {
            self.reading = Variable::named(&self.held);
            self.held.clear();
            self.at = match self.coding {
                Coding::FastCgi => At::Value(value),
                Coding::Uwsgi => At::ValueLength,
            };
        }
        if self.at == At::Value(0) {
            self.at = At::Lengths;
            let value = std::mem::take(&mut self.held);
            match self.reading.take() {
                Some(Variable::Method) => self.method = Some(value),
                Some(Variable::Uri) => self.uri = Some(value),
                Some(Variable::Script) => self.script = Some(value),
                Some(Variable::PathInfo) => self.path_info = Some(value),
                Some(Variable::Query) => self.query = Some(value),
                Some(Variable::Length) => {
                    self.length = str::from_utf8(&value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                }
                None => {}
            }
        }
    }
}

impl Variable {
    fn named(name: &[u8]) -> Option<Variable> {
        Some(match name {
            b"REQUEST_METHOD" => Variable::Method,
            b"REQUEST_URI" => Variable::Uri,
            b"SCRIPT_NAME" => Variable::Script,
            b"PATH_INFO" => Variable::PathInfo,
            b"QUERY_STRING" => Variable::Query,
            b"CONTENT_LENGTH" => Variable::Length,
            _ => return None,
        })
    }
}

/// The two lengths of a FastCGI pair, once they are whole.
fn lengths(bytes: &[u8]) -> Option<(u32, u32)> {
    let (name, rest) = length(bytes)?;
    let (value, _) = length(rest)?;
    Some((name, value))
}

fn length(bytes: &[u8]) -> Option<(u32, &[u8])> {
    match bytes {
        [short @ 0..0x80, rest @ ..] => Some((u32::from(*short), rest)),
        [a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([a & 0x7f, *b, *c, *d]), rest)),
        _ => None,
    }
}

fn at_most(left: u32, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pairs as a web server writes them.
    pub(in crate::protocol) fn coded(coding: Coding, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in pairs {
            match coding {
                Coding::FastCgi => {
                    for text in [name, value] {
                        match u8::try_from(text.len()) {
                            Ok(short @ 0..0x80) => bytes.push(short),
                            _ => bytes.extend((text.len() as u32 | 1 << 31).to_be_bytes()),
                        }
                    }
                    bytes.extend(name.bytes().chain(value.bytes()));
                }
                Coding::Uwsgi => {
                    for text in [name, value] {
                        bytes.extend((text.len() as u16).to_le_bytes());
                        bytes.extend(text.bytes());
                    }
                }
            }
        }
        bytes
    }

    fn facts(coding: Coding, pieces: &[&[u8]]) -> Facts {
        let mut variables = Variables::new(coding);
        for piece in pieces {
            variables.feed(piece);
        }
        variables.facts()
    }

    #[test]
    fn the_uri_names_the_target() {
        for coding in [Coding::FastCgi, Coding::Uwsgi] {
            let long = "x".repeat(300);
            let bytes = coded(
                coding,
                &[
                    ("QUERY_STRING", "id=7"),
                    ("REQUEST_METHOD", "POST"),
                    ("HTTP_COOKIE", &long),
                    ("SCRIPT_NAME", "/index.php"),
                    ("", ""),
                    ("REQUEST_URI", "/users/7?id=7"),
                    ("CONTENT_LENGTH", "12"),
                ],
            );
            let expected = Facts {
                method: Some("POST"),
                target: "/users/7?id".into(),
                content_length: Some(12),
                complete: true,
            };
            assert_eq!(facts(coding, &[&bytes]), expected);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(facts(coding, &single), expected);
        }
    }

    #[test]
    fn without_a_uri_the_script_names_it() {
        let bytes = coded(
            Coding::FastCgi,
            &[
                ("SCRIPT_NAME", "/app"),
                ("PATH_INFO", "/x"),
                ("QUERY_STRING", "a=secret&b"),
            ],
        );
        let facts = facts(Coding::FastCgi, &[&bytes]);
        assert_eq!((facts.method, &*facts.target), (None, "/app/x?a&*"));
    }

    #[test]
    fn what_was_not_captured_is_passed_over() {
        let long = "c".repeat(1000);
        let pairs = [("HTTP_COOKIE", &*long), ("REQUEST_URI", "/a")];
        let bytes = coded(Coding::FastCgi, &pairs);
        let mut variables = Variables::new(Coding::FastCgi);
        variables.feed(&bytes[..100]);
        variables.skip(900);
        variables.feed(&bytes[1000..]);
        assert_eq!(variables.facts().target, "/a");
        assert!(!variables.facts().complete);
        // Beyond a string nobody knows where the next begins.
        let mut variables = Variables::new(Coding::FastCgi);
        variables.feed(&bytes[..100]);
        variables.skip(920);
        variables.feed(&bytes[1020..]);
        assert_eq!(variables.facts().target, "…");
    }

    proptest! {
        #[test]
        fn noise_is_survived(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<u16>()), 0..8),
            uwsgi: bool,
        ) {
            let coding = if uwsgi { Coding::Uwsgi } else { Coding::FastCgi };
            let mut variables = Variables::new(coding);
            for (piece, skipped) in &pieces {
                variables.feed(piece);
                variables.skip(u64::from(*skipped >> 8));
                prop_assert!(variables.held.len() <= TARGET_MAX + 1);
            }
            variables.facts();
        }
    }
}
