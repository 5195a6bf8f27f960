//! Reads the console log of one machine.
//!
//! In: the log, in which the guest's script marked its steps with
//! `== begin NAME` and `== end NAME STATUS` lines. Out: what each step printed
//! and whether it succeeded; the log's tail for a person. What the steps say is
//! judged elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What one step of the guest printed, and its exit status.
struct Step<'a> {
    text: &'a str,
    status: i32,
}

/// The finished steps of one boot.
pub struct Console<'a> {
    steps: BTreeMap<&'a str, Step<'a>>,
}

impl<'a> Console<'a> {
    /// Cuts the console at its marks. A step without an end is left out, so it
    /// is reported as never finished.
    pub fn read(console: &'a str) -> Self {
        let mut steps = BTreeMap::new();
        let mut begun: Option<(&str, usize)> = None;
        let mut offset = 0;
        for line in console.split_inclusive('\n') {
            let start = offset;
            offset += line.len();
            if let Some(name) = line.trim_end().strip_prefix("== begin ") {
                begun = Some((name, offset));
            } else if let Some(ending) = line.trim_end().strip_prefix("== end ")
                && let Some((name, text_start)) = begun
                && let Some(status) = ending.strip_prefix(name)
                && let Ok(status) = status.trim_start().parse()
            {
                let text = console[text_start..start].trim();
                steps.insert(name, Step { text, status });
                begun = None;
            }
        }
        Self { steps }
    }

    /// What the step printed, if it ended with status 0.
    pub fn succeeded(&self, name: &str) -> Result<&'a str, String> {
        match self.steps.get(name) {
            None => Err(format!("the guest never finished its step `{name}`")),
            Some(Step { text, status: 0 }) => Ok(text),
            Some(Step { text, status }) => {
                let last = text.lines().last().unwrap_or("nothing printed");
                Err(format!(
                    "the guest's step `{name}` ended with status {status}: {last}"
                ))
            }
        }
    }

    /// The JSON document that the step printed.
    pub fn json(&self, name: &str) -> Result<Value, String> {
        let text = self.succeeded(name)?;
        serde_json::from_str(text).map_err(|error| format!("`{name}` is not JSON: {error}"))
    }
}

/// The console as lines of text: without carriage returns, and with the
/// firmware's terminal control replaced where it is not text.
pub fn read_log(log: &Path) -> Result<String> {
    let bytes = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    if bytes.is_empty() {
        bail!(
            "{} is empty: the machine printed nothing at all",
            log.display()
        );
    }
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

/// The last lines, cut to a width that a terminal can hold: a report is one
/// line of many thousand characters.
pub fn tail(console: &str, lines: usize) -> Vec<String> {
    const WIDTH_MAX: usize = 240;
    let all: Vec<&str> = console.lines().filter(|line| !line.is_empty()).collect();
    let shorten = |line: &&str| match line.char_indices().nth(WIDTH_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => (*line).to_owned(),
    };
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(shorten)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_needs_its_own_end() {
        let console = Console::read(
            "junk\n== begin one\n{\"a\":1}\n\n== end one 0\n== begin two\nwords\nmore\n\n\
             == end two 3\n== begin three\nx\n== end thre 0\n== end three\n== begin four\n",
        );
        assert_eq!(console.json("one"), Ok(serde_json::json!({"a": 1})));
        let reason = console.succeeded("two").unwrap_err();
        assert!(
            reason.contains("status 3") && reason.ends_with("more"),
            "{reason}"
        );
        assert!(console.json("two").is_err());
        for name in ["three", "four", "five"] {
            assert!(
                console
                    .succeeded(name)
                    .unwrap_err()
                    .contains("never finished")
            );
        }
    }

    #[test]
    fn the_tail_is_bounded_both_ways() {
        let long = "é".repeat(300);
        let console = format!("one\n\ntwo\n{long}\n");
        let shown = tail(&console, 2);
        assert_eq!(shown[0], "two");
        assert_eq!(shown[1].chars().count(), 241);
        assert_eq!(tail("", 5), Vec::<String>::new());
    }
}
