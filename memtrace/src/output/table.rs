//! The report as a person reads it first.
//!
//! In: a `Report` and how wide the terminal is. Out: text: what was not seen,
//! what was traced, the endpoints, what belongs to no request and why, the
//! processes, the connections. It sorts and cuts, but computes no figure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width,
    presets,
};

use crate::output::columns::{Column, GAP, Layout};
use crate::output::sort::Sort;
use crate::output::text::{
    at_least, bytes, count, count_mean, cut_middle, duration, escape, percent, plural, width, wrap,
};
use crate::output::words::{
    allocated, connections, endpoint_name, endpoint_remarks, http_trouble, measured, no_requests,
    program, reason_text, short_allocator, targets, warnings,
};
use crate::report::{Endpoint, Report};

#[cfg(test)]
mod tests;

/// Widths outside this range are taken for its ends.
const WIDTH_MIN: u16 = 40;
const WIDTH_MAX: u16 = 400;

/// Processes in the table, largest first; the JSON has them all.
const PROCESSES_SHOWN_MAX: usize = 20;

/// How to show a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The order of the endpoints.
    pub sort: Sort,
    /// Show only so many endpoints, and one line for the rest.
    pub top: Option<usize>,
    /// Columns of the terminal.
    pub width: u16,
    /// Use colours and bold type.
    pub color: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            sort: Sort::default(),
            top: None,
            width: 100,
            color: false,
        }
    }
}

/// Writes the report.
pub fn write(report: &Report, options: &TableOptions, out: &mut impl Write) -> io::Result<()> {
    let page = Page::new(options);
    page.warnings(report, out)?;
    page.summary(report, out)?;
    if report.endpoints.is_empty() {
        page.no_requests(report, out)?;
    } else {
        page.endpoints(report, options, out)?;
    }
    page.findings(report, out)?;
    page.unattributed(report, out)?;
    page.processes(report, out)?;
    page.connections(report, out)
}

/// Writes only what was not seen and the endpoints, under a line of the
/// caller's.
pub(super) fn write_brief(
    report: &Report,
    options: &TableOptions,
    headline: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let page = Page::new(options);
    page.warnings(report, out)?;
    for line in page.wrapped(headline) {
        writeln!(out, "{line}")?;
    }
    if report.endpoints.is_empty() {
        return Ok(());
    }
    let ordered = options.sort.order(&report.endpoints, false);
    page.endpoint_rows(&ordered, options, out)
}

/// What every section needs to know of the terminal.
struct Page {
    width: usize,
    color: bool,
}

impl Page {
    fn new(options: &TableOptions) -> Page {
        Page {
            width: usize::from(options.width.clamp(WIDTH_MIN, WIDTH_MAX)),
            color: options.color,
        }
    }

    fn warnings(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let warnings = warnings(report);
        for warning in &warnings {
            for line in self.wrapped(warning) {
                writeln!(out, "{}", self.paint("1;31", &line))?;
            }
        }
        if warnings.is_empty() {
            Ok(())
        } else {
            writeln!(out)
        }
    }

    fn summary(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let capture = &report.capture;
        let totals = &report.totals;
        let mut lines = vec![
            format!("Traced     {}", targets(report)),
            format!("Measured   {}", measured(report)),
            format!(
                "Requests   {} ({}/s)",
                count(totals.requests),
                count_mean(totals.requests_per_second)
            ),
            format!("Allocated  {}", allocated(report)),
        ];
        if !capture.why_ended.is_empty() {
            lines.push(format!("Ended      {}", escape(&capture.why_ended)));
        }
        for note in &capture.notes {
            lines.push(format!("Note       {}", escape(note)));
        }
        for line in lines {
            // The labels' two spaces are part of the layout, not of the words.
            let (label, words) = line.split_at(11);
            for (number, words) in wrap(words, self.width - 11, 0).iter().enumerate() {
                let label = if number == 0 { label } else { "" };
                writeln!(out, "{label:<11}{words}")?;
            }
        }
        writeln!(out)
    }

    fn no_requests(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        self.heading("NO HTTP REQUEST WAS SEEN", "", out)?;
        for advice in no_requests(report) {
            for line in self.wrapped(&format!("- {advice}")) {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out)
    }

    fn endpoints(
        &self,
        report: &Report,
        options: &TableOptions,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let ordered = options.sort.order(&report.endpoints, false);
        self.endpoint_rows(&ordered, options, out)?;
        let mut legend = format!(
            "By {}. ALLOC, RETAINED and PEAK are bytes per request: all it asked for; what still \
             lived {} after it ended; the most it held at once.",
            options.sort,
            duration(report.capture.retain_ns)
        );
        if ordered.iter().any(|e| !endpoint_remarks(e).is_empty()) {
            legend.push_str(" Under a name: statuses other than 2xx; requests cut short, unanswered, in flight.");
        }
        for line in wrap(&legend, self.width, 0) {
            writeln!(out, "{}", self.paint("2", &line))?;
        }
        writeln!(out)
    }

    fn endpoint_rows(
        &self,
        ordered: &[&Endpoint],
        options: &TableOptions,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let (shown, rest) = ordered.split_at(options.top.unwrap_or(usize::MAX).min(ordered.len()));
        let names = shown.iter().map(|e| width(&endpoint_name(e)));
        let layout = Layout::fit(shown, options.sort, names.max().unwrap_or(0), self.width);
        let mut table = self.table();
        let name = Cell::new("\nENDPOINT");
        let figures = layout
            .columns
            .iter()
            .map(|(column, _)| right(column.heading().join("\n")));
        table.set_header(std::iter::once(name).chain(figures).map(|c| self.bold(c)));
        for endpoint in shown {
            let name = Cell::new(name_lines(endpoint, layout.name_width).join("\n"));
            let figures = layout.columns.iter().map(|(column, _)| {
                let cell = right(column.cell(endpoint));
                let stands_out =
                    *column == Column::RetainedMean && endpoint.retained_bytes.total > 0;
                if stands_out && self.color {
                    cell.fg(Color::Yellow)
                } else {
                    cell
                }
            });
            table.add_row(std::iter::once(name).chain(figures));
        }
        let widths = std::iter::once(layout.name_width).chain(layout.columns.iter().map(|c| c.1));
        self.set_widths(&mut table, widths);
        writeln!(out, "{}", table.trim_fmt())?;
        if rest.is_empty() {
            return Ok(());
        }
        let bytes_rest = sum(rest.iter().map(|e| e.alloc_bytes.total));
        let more = plural(rest.len() as u64, "more endpoint");
        writeln!(out, "… and {more} ({bytes_rest})")
    }

    fn findings(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        if report.findings.is_empty() {
            return Ok(());
        }
        self.heading("FINDINGS", "", out)?;
        for finding in &report.findings {
            for line in self.wrapped(&format!("- {}", escape(&finding.text))) {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out)
    }

    fn unattributed(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let all = &report.unattributed;
        let figure = |shown, field| at_least(shown, field, &all.incomplete);
        let summary = format!(
            "{} in {}, {} of all bytes",
            figure(bytes(all.alloc_bytes), "alloc_bytes"),
            figure(plural(all.alloc_count, "allocation"), "alloc_count"),
            percent(all.share_of_alloc)
        );
        self.heading("WITHOUT A REQUEST", &summary, out)?;
        if all.by_reason.is_empty() {
            return writeln!(out);
        }
        let mut reasons: Vec<_> = all.by_reason.iter().collect();
        reasons.sort_by_key(|(name, r)| (Reverse(r.alloc_bytes), name.as_str()));
        let mut table = self.table();
        table.set_header(
            [
                Cell::new("REASON"),
                right("BYTES"),
                right("ALLOCS"),
                right("LIVE"),
                right("SHARE"),
                Cell::new("ALLOCATED"),
            ]
            .map(|c| self.bold(c)),
        );
        for (reason, totals) in reasons {
            let text = reason_text(reason);
            table.add_row([
                Cell::new(escape(reason)),
                right(figure(bytes(totals.alloc_bytes), "alloc_bytes")),
                right(figure(count(totals.alloc_count), "alloc_count")),
                right(figure(bytes(totals.live_bytes), "live_bytes")),
                right(percent(totals.share_of_alloc)),
                Cell::new(if text == reason { "" } else { text }),
            ]);
        }
        self.fit_last(&mut table);
        writeln!(out, "{}\n", table.trim_fmt())
    }

    fn processes(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        if report.processes.is_empty() {
            return Ok(());
        }
        let mut table = self.table();
        table.set_header(
            [
                right("PID"),
                right("ALLOCATED"),
                right("ALLOCS"),
                right("FREES"),
                right("LIVE"),
                Cell::new("PROGRAM, RUNTIME, ALLOCATORS"),
            ]
            .map(|c| self.bold(c)),
        );
        let mut processes: Vec<_> = report.processes.iter().collect();
        processes.sort_by_key(|p| (Reverse(p.alloc_bytes), p.pid, p.start_ns));
        let (shown, rest) = processes.split_at(processes.len().min(PROCESSES_SHOWN_MAX));
        for process in shown {
            let mut what = vec![program(process), escape(&process.runtime)];
            what.extend(process.allocators.iter().map(|a| short_allocator(a)));
            if process.allocators.is_empty() {
                what.push("no allocator probed".to_string());
            }
            what.retain(|part| !part.is_empty());
            let figure = |shown, field| at_least(shown, field, &process.incomplete);
            table.add_row([
                right(process.pid),
                right(figure(bytes(process.alloc_bytes), "alloc_bytes")),
                right(figure(count(process.alloc_count), "alloc_count")),
                right(figure(count(process.free_count), "free_count")),
                right(figure(bytes(process.live_bytes), "live_bytes")),
                Cell::new(what.join(", ")),
            ]);
        }
        self.fit_last(&mut table);
        writeln!(out, "{}", table.trim_fmt())?;
        if !rest.is_empty() {
            let bytes_rest = sum(rest.iter().map(|p| p.alloc_bytes));
            let what = if rest.len() == 1 {
                "process"
            } else {
                "processes"
            };
            writeln!(
                out,
                "… and {} more {what} ({bytes_rest})",
                count(rest.len() as u64)
            )?;
        }
        let processes = || report.processes.iter();
        let allocators: BTreeSet<&String> = processes().flat_map(|p| &p.allocators).collect();
        let libraries: BTreeSet<&String> = processes().flat_map(|p| &p.tls).collect();
        let named = allocators
            .into_iter()
            .map(|allocator| ("Allocator", allocator))
            .chain(libraries.into_iter().map(|library| ("TLS", library)));
        for (what, name) in named {
            for line in self.wrapped(&format!("{what}: {}", escape(name))) {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out)
    }

    fn connections(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        for line in self.wrapped(&format!("Connections: {}.", connections(report))) {
            writeln!(out, "{line}")?;
        }
        if let Some(trouble) = http_trouble(report) {
            for line in self.wrapped(&format!("Not read: {trouble}.")) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    fn heading(&self, title: &str, summary: &str, out: &mut impl Write) -> io::Result<()> {
        let gap = if summary.is_empty() { "" } else { "  " };
        writeln!(out, "{}{gap}{summary}", self.paint("1", title))
    }

    /// The text in lines of the page's width, as indented as it begins.
    fn wrapped(&self, text: &str) -> Vec<String> {
        let indent = text.len() - text.trim_start().len();
        let mut lines = wrap(text, self.width - indent, indent + 2);
        if let Some(first) = lines.first_mut() {
            first.insert_str(0, &" ".repeat(indent));
        }
        lines
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    fn bold(&self, cell: Cell) -> Cell {
        if self.color {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    }

    fn set_widths(&self, table: &mut Table, widths: impl Iterator<Item = usize>) {
        let last = table.column_iter().count().saturating_sub(1);
        for ((place, column), width) in table.column_iter_mut().enumerate().zip(widths) {
            let gap = if place == last { 0 } else { GAP };
            column.set_padding((0, gap as u16));
            let width = u16::try_from(width + gap).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
    }

    /// The last column holds words, and wraps within what the others leave.
    fn fit_last(&self, table: &mut Table) {
        let last = table.column_iter().count().saturating_sub(1);
        for (place, column) in table.column_iter_mut().enumerate() {
            if place == last {
                column.set_padding((0, 0));
            } else {
                column.set_padding((0, GAP as u16));
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(self.width).unwrap_or(u16::MAX));
    }
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// What the rows that are not shown add up to.
fn sum(rest: impl Iterator<Item = u64>) -> String {
    bytes(rest.fold(0, u64::saturating_add))
}

/// The name within its column, and under it what was unusual, whole.
fn name_lines(endpoint: &Endpoint, width: usize) -> Vec<String> {
    let mut lines = vec![cut_middle(&endpoint_name(endpoint), width)];
    let remarks = endpoint_remarks(endpoint);
    if !remarks.is_empty() {
        let under = wrap(&remarks.join(" "), width.saturating_sub(2), 0);
        lines.extend(under.into_iter().map(|line| format!("  {line}")));
    }
    lines
}
