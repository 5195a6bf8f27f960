//! `memtrace report`: a capture, as a table, JSON or CSV, or request by request.

use std::{
    io::{BufWriter, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::printed;
use crate::{
    failure::Failure,
    output::{
        csv, json,
        requests::RequestWriter,
        sort::Sort,
        table::{self, TableOptions},
    },
    replay,
};

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The capture
    file: PathBuf,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Instead of the report, print each request by itself, as CSV
    #[arg(long, conflicts_with_all = ["format", "sort", "top"])]
    requests: bool,

    #[command(flatten)]
    order: OrderArguments,
}

/// Arguments that order and limit endpoints.
#[derive(Debug, Args)]
pub struct OrderArguments {
    /// Order of the endpoints: bytes, mean, p99, retained, peak, requests,
    /// duration, count or name
    #[arg(long, value_name = "ORDER", default_value_t = Sort::default())]
    pub sort: Sort,

    /// Show only so many endpoints
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Runs it.
///
/// # Errors
/// The capture cannot be read, or nothing can be printed.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.requests {
        return list_requests(&arguments.file);
    }
    let report = replay::report(&arguments.file)?;
    let stdout = std::io::stdout();
    let options = table_options(&arguments.order);
    let mut out = BufWriter::new(stdout.lock());
    let written = match arguments.format {
        Format::Table => table::write(&report, &options, &mut out),
        Format::Json => json::write(&report, &mut out),
        Format::Csv => csv::write(&report, &mut out),
    };
    printed(written.and_then(|()| out.flush()))
}

fn list_requests(file: &Path) -> Result<(), Failure> {
    let stdout = std::io::stdout();
    let mut writer = match RequestWriter::new(BufWriter::new(stdout.lock())) {
        Ok(writer) => writer,
        Err(error) => return printed(Err(error)),
    };
    // Whoever reads may have read enough: no more is printed then.
    let mut written = Ok(());
    replay::requests(file, |request| {
        if written.is_ok() {
            written = writer.row(request);
        }
    })?;
    printed(written.and_then(|()| writer.finish()))
}

/// A table as wide as the terminal.
pub fn table_options(order: &OrderArguments) -> TableOptions {
    const WIDTH_DEFAULT: u16 = 120;
    let terminal = std::io::stdout().is_terminal();
    let width = if terminal {
        ratatui::crossterm::terminal::size().map_or(WIDTH_DEFAULT, |(columns, _)| columns)
    } else {
        WIDTH_DEFAULT
    };
    TableOptions {
        sort: order.sort,
        top: order.top,
        width,
        color: terminal && std::env::var_os("NO_COLOR").is_none(),
    }
}
