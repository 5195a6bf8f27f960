//! Rust text, read just far enough to see what it names.
//!
//! In: the text of one file and the module it is. Out: the paths in it, with
//! `super` and `self` worked out, its string literals and its uses of `unsafe`.
//! Comments do not count. It does not expand macros and does not know names
//! that an import brought in: the import itself is what is looked at.

/// What a file names, each with its line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Paths, `use` groups taken apart: `crate::store::live`, `std::fs`.
    pub paths: Vec<(usize, String)>,
    /// String literals, without their quotes.
    pub texts: Vec<(usize, String)>,
    /// `unsafe` itself, and `unsafe_code` in an attribute that permits it.
    pub unsafe_lines: Vec<usize>,
}

/// Reads a file that is the module `module`, such as `["store", "live"]`.
pub fn read(text: &str, module: &[&str]) -> Named {
    let tokens = tokens(text);
    let mut named = Named::default();
    let mut inline = Vec::new();
    let mut depth = 0_usize;
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let line = token.line;
        index += 1;
        match &token.kind {
            Kind::Mark('{') => {
                depth += 1;
                if let [.., keyword, name, _] = &tokens[..index]
                    && keyword.is_word("mod")
                    && let Kind::Word(name) = &name.kind
                {
                    inline.push((depth, name.clone()));
                }
            }
            Kind::Mark('}') => {
                if inline.last().is_some_and(|(at, _)| *at == depth) {
                    inline.pop();
                }
                depth = depth.saturating_sub(1);
            }
            Kind::Mark(_) => {}
            Kind::Text(text) => named.texts.push((line, text.clone())),
            Kind::Word(word) => {
                if word == "unsafe" || word == "unsafe_code" {
                    named.unsafe_lines.push(line);
                }
                let here: Vec<&str> = module
                    .iter()
                    .copied()
                    .chain(inline.iter().map(|(_, name)| name.as_str()))
                    .collect();
                let mut paths = Vec::new();
                index = path(&tokens, index - 1, &mut Vec::new(), &mut paths);
                named.paths.extend(
                    paths
                        .into_iter()
                        .map(|(line, path)| (line, absolute(&path, &here))),
                );
            }
        }
    }
    named
}

/// Reads a path from `index` on, groups included. Returns what comes after it.
fn path(
    tokens: &[Token],
    mut index: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let length = prefix.len();
    while let Some(token) = tokens.get(index) {
        match &token.kind {
            Kind::Word(word) => {
                prefix.push(word.clone());
                index += 1;
                if is_separator(tokens, index) {
                    index += 2;
                    continue;
                }
                paths.push((token.line, prefix.clone()));
                break;
            }
            Kind::Mark('{') if !prefix.is_empty() => {
                index += 1;
                while let Some(token) = tokens.get(index) {
                    match &token.kind {
                        Kind::Mark('}') => {
                            index += 1;
                            break;
                        }
                        // The new name says nothing of what is imported.
                        Kind::Word(word) if word == "as" => index += 2,
                        Kind::Word(_) => index = path(tokens, index, prefix, paths),
                        Kind::Mark(_) | Kind::Text(_) => index += 1,
                    }
                }
                break;
            }
            // `a::*`, `a::<T>`: what follows is another path, or none.
            Kind::Mark(_) | Kind::Text(_) => {
                paths.push((token.line, prefix.clone()));
                break;
            }
        }
    }
    prefix.truncate(length);
    index
}

fn is_separator(tokens: &[Token], index: usize) -> bool {
    let is_colon = |index| {
        tokens
            .get(index)
            .is_some_and(|token: &Token| matches!(token.kind, Kind::Mark(':')))
    };
    is_colon(index) && is_colon(index + 1)
}

/// The path from the crate's root, if it begins with `self` or `super`.
fn absolute(path: &[String], here: &[&str]) -> String {
    let mut names = path.iter().map(String::as_str).peekable();
    let mut module = match names.peek() {
        Some(&"self" | &"super") => here.to_vec(),
        Some(_) | None => return path.join("::"),
    };
    module.insert(0, "crate");
    while let Some(&name) = names.peek() {
        match name {
            "self" => {}
            "super" => {
                module.pop();
            }
            _ => break,
        }
        names.next();
    }
    module.extend(names);
    module.join("::")
}

#[derive(Debug)]
struct Token {
    line: usize,
    kind: Kind,
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(found) if found == word)
    }
}

#[derive(Debug)]
enum Kind {
    Word(String),
    Text(String),
    Mark(char),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = token(rest, first);
        if let Some(kind) = kind {
            tokens.push(Token { line, kind });
        }
        let (taken, after) = rest.split_at(length);
        line += taken.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The token at the start of `rest`, if it is one, and how many bytes it takes.
fn token(rest: &str, first: char) -> (Option<Kind>, usize) {
    if rest.starts_with("//") {
        return (None, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (None, block_comment(rest));
    }
    if let Some((text, length)) = string(rest) {
        return (Some(Kind::Text(text.to_owned())), length);
    }
    if first == '\'' {
        return (None, quote(rest));
    }
    if is_word(first) {
        let length = rest.find(|next| !is_word(next)).unwrap_or(rest.len());
        return (Some(Kind::Word(rest[..length].to_owned())), length);
    }
    let kind = (!first.is_whitespace()).then_some(Kind::Mark(first));
    (kind, first.len_utf8())
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// The length of a comment that may hold others.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// A string literal of any kind: what is in it, and its length with quotes.
fn string(rest: &str) -> Option<(&str, usize)> {
    let letters = rest.find(|next| !matches!(next, 'b' | 'c' | 'r'))?;
    if letters > 2 {
        return None;
    }
    let hashes = rest[letters..].find(|next| next != '#')?;
    let is_raw = rest[..letters].contains('r');
    if hashes > 0 && !is_raw {
        return None;
    }
    let start = letters + hashes;
    let inside = rest[start..].strip_prefix('"')?;
    let length = if is_raw {
        inside.find(&format!("\"{}", "#".repeat(hashes)))
    } else {
        let mut is_escaped = false;
        inside.find(|next| {
            let ends = next == '"' && !is_escaped;
            is_escaped = next == '\\' && !is_escaped;
            ends
        })
    };
    let length = length.unwrap_or(inside.len());
    let whole = (start + 1 + length + 1 + hashes).min(rest.len());
    Some((&inside[..length], whole))
}

/// The length of a character literal, or of a lifetime's quote alone.
fn quote(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match inside.next() {
        Some((_, '\\')) => {
            inside.next();
            inside
                .find(|(_, next)| *next == '\'')
                .map_or(rest.len(), |(at, _)| at + 1)
        }
        Some(_) => match inside.next() {
            Some((at, '\'')) => at + 1,
            Some(_) | None => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, module: &[&str]) -> Vec<String> {
        let named = read(text, module);
        named
            .paths
            .into_iter()
            .map(|(_, path)| path)
            .filter(|path| path.contains("::"))
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            paths("use crate::{a::{self, B}, c::*, d as e};", &["x"]),
            ["crate::a::self", "crate::a::B", "crate::c", "crate::d"]
        );
    }

    #[test]
    fn paths_in_expressions_and_types_count() {
        assert_eq!(
            paths("fn f() -> Vec<crate::a::B> { std::fs::read::<P>(q) }", &[]),
            ["crate::a::B", "std::fs::read"]
        );
    }

    #[test]
    fn super_is_worked_out_through_inline_modules() {
        assert_eq!(
            paths("use super::super::a::B;", &["x", "y"]),
            ["crate::a::B"]
        );
        assert_eq!(
            paths(
                "mod tests { use super::a; fn f() {} } use super::b;",
                &["x"]
            ),
            ["crate::x::a", "crate::b"]
        );
        assert_eq!(paths("pub(in self::a) fn f();", &["x"]), ["crate::x::a"]);
    }

    #[test]
    fn comments_and_texts_are_not_code() {
        let named = read(
            "// crate::a\n/* crate::b /* */ unsafe */\nlet x = r#\"crate::c \"unsafe\"#; '\"' // \"",
            &[],
        );
        assert!(named.paths.iter().all(|(_, path)| !path.contains("::")));
        assert_eq!(named.texts, [(3, "crate::c \"unsafe".to_owned())]);
        assert!(named.unsafe_lines.is_empty());
    }

    #[test]
    fn lifetimes_escapes_and_literals_do_not_swallow_code() {
        let text = "fn f<'a>(s: &'a str) { g('\\'', '\"', b'x', \"\\\"\\\\\"); crate::a::b() }";
        assert_eq!(paths(text, &[]), ["crate::a::b"]);
    }

    #[test]
    fn lines_are_counted() {
        let named = read("\"a\nb\";\nunsafe { x }\n#[allow(unsafe_code)]", &[]);
        assert_eq!(named.unsafe_lines, [3, 4]);
    }

    #[test]
    fn broken_text_ends() {
        for text in [
            "\"",
            "'",
            "'\\",
            "/*",
            "r#\"",
            "crate::",
            "use crate::{",
            "}}",
            "b",
        ] {
            read(text, &[]);
        }
    }
}
