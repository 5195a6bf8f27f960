//! `cargo xtask range`: every server model of the tests, and what memtrace makes
//! of it, kept in `docs/range.md`.
//!
//! In: the release binary and the program `range` of `tests/`. Out: its table; if
//! all of it was run, the table in the document too, with the machine, the kernel
//! and the commit it is from. No figure is there that was not measured. It judges
//! nothing itself.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{setup, test, workspace};

/// What `cargo xtask range` can be told.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Connections at once, such as 1,64 [default: 1,8,64,256]
    #[arg(long)]
    clients: Option<String>,
    /// Leave the machine as it is: what the range needs is there already
    #[arg(long)]
    no_setup: bool,
    /// Only these subjects, by the names in the table
    subjects: Vec<OsString>,
}

/// The document, from the repository's root.
const DOCUMENT: &str = "docs/range.md";

/// What stands around the table in the document.
const BEGIN: &str = "<!-- written by `cargo xtask range`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask range`: end -->\n";

/// Runs the range.
///
/// # Errors
/// Something is missing or does not compile, or a subject could not be measured.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    ensure!(
        workspace::is_root(),
        "the range traces live servers, which takes root: run \
         `sudo --preserve-env=PATH cargo xtask range`"
    );
    if !options.no_setup {
        setup::run()?;
    }
    let memtrace = test::build_release(root)?;
    let mut range = workspace::cargo(root);
    range
        .args(["run", "--package", "memtrace-tests", "--bin", "range", "--"])
        .env("MEMTRACE_BIN", memtrace)
        .args(&options.subjects)
        .stdout(Stdio::piped());
    if let Some(clients) = &options.clients {
        range.args(["--clients", clients]);
    }
    let output = range
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cannot run the range")?;
    let table = String::from_utf8(output.stdout).context("the table is no text")?;
    print!("{table}");
    ensure!(output.status.success(), "not everything was measured");
    if options.subjects.is_empty() && options.clients.is_none() {
        let path = root.join(DOCUMENT);
        let document =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let document = with_table(&document, &format!("{}\n{table}", origin(root)))?;
        fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))?;
        println!("\n{DOCUMENT} has this table now");
    }
    Ok(())
}

/// Where the figures are from, in a sentence.
fn origin(root: &Path) -> String {
    let unknown = || "unknown".to_owned();
    let says = |program: &str, arguments: &[&str]| {
        workspace::answer(Command::new(program).args(arguments).current_dir(root))
            .unwrap_or_else(unknown)
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(unknown, |(_, model)| model.to_owned());
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "Measured on {} with {count} × {model}, kernel {}, at commit {}:\n",
        says("date", &["--utc", "+%Y-%m-%d"]),
        says("uname", &["-r"]),
        says("git", &["describe", "--always", "--dirty"]),
    )
}

/// The document with another text between its marks.
fn with_table(document: &str, text: &str) -> Result<String> {
    let (before, rest) = document
        .split_once(BEGIN)
        .with_context(|| format!("{DOCUMENT} has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{DOCUMENT} has no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_and_the_rest_stays() -> Result<()> {
        let document = format!("above\n{BEGIN}old\n{END}below\n");
        let once = with_table(&document, "new\n")?;
        assert_eq!(once, format!("above\n{BEGIN}\nnew\n\n{END}below\n"));
        assert_eq!(with_table(&once, "new\n")?, once);
        assert!(with_table("above\nbelow\n", "new\n").is_err());
        Ok(())
    }
}
