//! Load generators that count: h2load for keep-alive, ab for new connections.
//!
//! In: URLs and numbers. Out: [`LoadCounts`], as the generator printed them.
//! Deliberately not here: expectations; a generator that fails is an error, an
//! answer with an unlucky status is not.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// What the generator counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Requests answered.
    pub done: u64,
    /// Requests without an answer: connection errors and time-outs.
    pub unanswered: u64,
    /// Answers 2xx, 3xx, 4xx, 5xx.
    pub by_class: [u64; 4],
}

impl LoadCounts {
    /// An error unless so many were asked and all were answered.
    pub fn require_all_answered(&self, asked: u64) -> anyhow::Result<()> {
        if self.done != asked || self.unanswered != 0 {
            bail!("{asked} requests were asked; the generator counted {self:?}");
        }
        Ok(())
    }

    /// An error unless so many were asked and all were answered with 2xx.
    pub fn require_all_succeeded(&self, asked: u64) -> anyhow::Result<()> {
        self.require_all_answered(asked)?;
        if self.by_class[0] != asked {
            bail!("{asked} requests were asked; the generator counted {self:?}");
        }
        Ok(())
    }
}

/// h2load.
#[derive(Debug)]
pub struct H2load(Child);

impl H2load {
    /// Starts `requests` over `clients` keep-alive connections, in HTTP/1.1. Each
    /// client asks the URLs in turn, so that with `requests` a multiple of
    /// `clients × urls` each URL is asked equally often.
    pub fn start<U: AsRef<OsStr>>(
        requests: u64,
        clients: u64,
        urls: impl IntoIterator<Item = U>,
    ) -> anyhow::Result<Self> {
        Self::run(&["--h1"], requests, clients, urls)
    }

    /// The same in HTTP/2, so many requests at once on each connection.
    pub fn start_streams<U: AsRef<OsStr>>(
        requests: u64,
        clients: u64,
        streams: u64,
        urls: impl IntoIterator<Item = U>,
    ) -> anyhow::Result<Self> {
        Self::run(&["-m", &streams.to_string()], requests, clients, urls)
    }

    fn run<U: AsRef<OsStr>>(
        how: &[&str],
        requests: u64,
        clients: u64,
        urls: impl IntoIterator<Item = U>,
    ) -> anyhow::Result<Self> {
        let child = Command::new("h2load")
            .args(how)
            .args(["-n", &requests.to_string(), "-c", &clients.to_string()])
            .args(urls)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run h2load: run `cargo xtask setup`")?;
        Ok(Self(child))
    }

    /// Waits for its end.
    pub fn finish(self) -> anyhow::Result<LoadCounts> {
        let output = self
            .0
            .wait_with_output()
            .context("cannot wait for h2load")?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "h2load ended with {}: {stdout}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        parse_h2load(&stdout)
    }
}

/// Runs h2load to its end; see [`H2load::start`].
pub fn h2load<U: AsRef<OsStr>>(
    requests: u64,
    clients: u64,
    urls: impl IntoIterator<Item = U>,
) -> anyhow::Result<LoadCounts> {
    H2load::start(requests, clients, urls)?.finish()
}

/// How ab uses connections. It speaks HTTP/1.0 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One for each request.
    New,
    /// Kept by `Connection: keep-alive`.
    Kept,
}

/// Runs ab to its end.
pub fn ab(
    requests: u64,
    clients: u64,
    connections: Connections,
    url: &str,
) -> anyhow::Result<LoadCounts> {
    let mut command = Command::new("ab");
    command.args([
        "-q",
        "-l",
        "-n",
        &requests.to_string(),
        "-c",
        &clients.to_string(),
    ]);
    if connections == Connections::Kept {
        command.arg("-k");
    }
    let output = command
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .context("cannot run ab: run `cargo xtask setup`")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "ab ended with {}: {stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    parse_ab(&stdout)
}

fn parse_h2load(text: &str) -> anyhow::Result<LoadCounts> {
    let requests = numbers_by_word(text, "requests:")?;
    let statuses = numbers_by_word(text, "status codes:")?;
    let get = |numbers: &[(u64, String)], word: &str| {
        numbers
            .iter()
            .find(|(_, of)| of == word)
            .map(|(number, _)| *number)
            .with_context(|| format!("h2load printed no number of {word}: {text}"))
    };
    Ok(LoadCounts {
        done: get(&requests, "done")?,
        unanswered: get(&requests, "errored")? + get(&requests, "timeout")?,
        by_class: [
            get(&statuses, "2xx")?,
            get(&statuses, "3xx")?,
            get(&statuses, "4xx")?,
            get(&statuses, "5xx")?,
        ],
    })
}

/// `title 3 a, 4 b` as `[(3, "a"), (4, "b")]`.
fn numbers_by_word(text: &str, title: &str) -> anyhow::Result<Vec<(u64, String)>> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(title))
        .with_context(|| format!("no line `{title}` in: {text}"))?;
    line.split(',')
        .map(|part| {
            let (number, word) = part
                .trim()
                .split_once(' ')
                .with_context(|| format!("not a number and a word: {part}"))?;
            Ok((number.parse()?, word.to_owned()))
        })
        .collect()
}

fn parse_ab(text: &str) -> anyhow::Result<LoadCounts> {
    let number = |title: &str| -> anyhow::Result<Option<u64>> {
        text.lines()
            .find_map(|line| line.strip_prefix(title))
            .map(|rest| Ok(rest.trim().parse()?))
            .transpose()
    };
    let done = number("Complete requests:")?.context("ab printed no complete requests")?;
    let failed = number("Failed requests:")?.context("ab printed no failed requests")?;
    // Printed only if there were any; ab does not say which they were.
    let not_2xx = number("Non-2xx responses:")?.unwrap_or(0);
    Ok(LoadCounts {
        done,
        unanswered: failed,
        by_class: [done - not_2xx, 0, not_2xx, 0],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_words_are_read() -> anyhow::Result<()> {
        let h2load = "requests: 60 total, 60 started, 59 done, 40 succeeded, 20 failed, 1 errored, \
                      0 timeout\nstatus codes: 39 2xx, 0 3xx, 20 4xx, 0 5xx\n";
        let counts = parse_h2load(h2load)?;
        assert_eq!((counts.done, counts.unanswered), (59, 1));
        assert_eq!(counts.by_class, [39, 0, 20, 0]);
        assert!(counts.require_all_answered(60).is_err());
        assert!(parse_h2load("requests: none\n").is_err());

        let ab =
            "Complete requests:      500\nFailed requests:        0\nNon-2xx responses:      7\n";
        let counts = parse_ab(ab)?;
        assert_eq!(counts.by_class, [493, 0, 7, 0]);
        counts.require_all_answered(500)?;
        assert!(counts.require_all_succeeded(500).is_err());
        Ok(())
    }
}
