//! `memtrace report --requests`, read.
//!
//! In: a capture. Out: its requests one by one, with the figures that the range
//! judges. Columns are found by name. Deliberately not here: memtrace's own types.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, bail};

use crate::memtrace::{exit_code, require_exit_code, run};

/// One request as memtrace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Method.
    pub method: String,
    /// Route template.
    pub route: String,
    /// Status, if it was answered.
    pub status: Option<u16>,
    /// Whether the whole response was sent.
    pub complete: bool,
    /// Bytes of the request, if it has ended.
    pub request_bytes: Option<u64>,
    /// Bytes allocated for it.
    pub alloc_bytes: u64,
    /// The most that it held at once, bytes.
    pub peak_bytes: u64,
    /// Bytes of it that were not given back.
    pub retained_bytes: u64,
}

/// Every request of a capture.
pub fn of_capture(capture: &Path) -> anyhow::Result<Vec<Listed>> {
    let output = run([
        OsStr::new("report"),
        capture.as_os_str(),
        OsStr::new("--requests"),
    ])?;
    require_exit_code(&output, exit_code::OK)?;
    parse(&String::from_utf8(output.stdout).context("the listing is no UTF-8")?)
}

fn parse(text: &str) -> anyhow::Result<Vec<Listed>> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().context("no header")?.split(',').collect();
    let column = |name: &str| {
        columns
            .iter()
            .position(|column| *column == name)
            .with_context(|| format!("the listing has no column {name}"))
    };
    let (method, route) = (column("method")?, column("route")?);
    let (status, outcome) = (column("status")?, column("outcome")?);
    let request_bytes = column("request_bytes")?;
    let (alloc, retained) = (column("alloc_bytes")?, column("retained_bytes")?);
    let peak = column("peak_bytes")?;
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            // The range asks for nothing that would need quotes.
            if cells.len() != columns.len() || line.contains('"') {
                bail!("not a row of the listing: {line}");
            }
            let number = |cell: &str| -> anyhow::Result<Option<u64>> {
                match cell {
                    "" => Ok(None),
                    cell => Ok(Some(cell.parse().with_context(|| format!("in {line}"))?)),
                }
            };
            Ok(Listed {
                method: cells[method].to_owned(),
                route: cells[route].to_owned(),
                status: number(cells[status])?.and_then(|status| status.try_into().ok()),
                complete: cells[outcome] == "complete",
                request_bytes: number(cells[request_bytes])?,
                alloc_bytes: number(cells[alloc])?.context("no alloc_bytes")?,
                peak_bytes: number(cells[peak])?.context("no peak_bytes")?,
                retained_bytes: number(cells[retained])?.context("no retained_bytes")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() -> anyhow::Result<()> {
        let text = "request,route,method,status,outcome,request_bytes,retained_bytes,alloc_bytes,\
                    peak_bytes\n\
                    0,/a/{id},GET,200,complete,160,0,4096,4000\n\
                    1,/a/{id},GET,,in_flight,,0,0,0\n";
        let rows = parse(text)?;
        assert_eq!(rows[0].request_bytes, Some(160));
        assert_eq!((rows[0].alloc_bytes, rows[0].complete), (4096, true));
        assert_eq!(rows[0].peak_bytes, 4000);
        assert_eq!((rows[1].status, rows[1].complete), (None, false));
        assert!(parse("request,route\n").is_err());
        assert!(parse(&text.replace("/a/", "\"/a/")).is_err());
        Ok(())
    }
}
