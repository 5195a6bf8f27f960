//! The report as CSV, for spreadsheets and data frames.
//!
//! In: a `Report`. Out: one header and one row for each thing, told apart by
//! the first column, `kind`:
//!
//! - `lost`: events not seen, by cause (`name`, `count`); only if there are any
//! - `truncated`: the capture ends early or is damaged; `name` says how
//! - `endpoint`: one for each endpoint, in the report's order
//! - `unattributed`: one for each reason (`name`), by name
//!
//! Losses come first, as everywhere. Other columns are named as in the JSON,
//! with dots as underscores, and keep their order: new ones are added at the
//! end. A cell that does not apply to the row's kind is empty. `status` holds
//! `200:10 404:2`, `incomplete` the names of the figures that say too little.
//!
//! Text of the target is escaped as on a terminal, and quoted as CSV demands.
//! It is not guarded against spreadsheets that take a leading `=` for a
//! formula: a prefix would change the data. Routes open with `/` or `(`; a
//! method is what the client sent.

use std::io::{self, Write};

use csv::{Terminator, WriterBuilder};

use crate::output::text::escape;
use crate::report::{Distribution, Endpoint, Report};

/// The distributions of an endpoint, by their JSON names.
const DISTRIBUTIONS: [&str; 7] = [
    "alloc_bytes",
    "alloc_count",
    "peak_bytes",
    "retained_bytes",
    "duration_ns",
    "request_bytes",
    "response_bytes",
];

/// The figures of a distribution, by their JSON names.
const FIGURES: [&str; 8] = [
    "total",
    "mean",
    "p50",
    "p90",
    "p99",
    "max",
    "ci95_low",
    "ci95_high",
];

/// Columns before the distributions.
const FIRST: [&str; 14] = [
    "kind",
    "name",
    "count",
    "protocol",
    "method",
    "route",
    "requests",
    "observed",
    "in_flight",
    "outcomes_complete",
    "outcomes_aborted",
    "outcomes_no_response",
    "status",
    "share_of_alloc",
];

/// Columns after the distributions.
const LAST: [&str; 4] = ["free_bytes", "free_count", "live_bytes", "incomplete"];

/// Writes the report; lines end in a newline alone.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let columns = columns();
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::Any(b'\n'))
        .from_writer(out);
    writer.write_record(&columns)?;
    for row in rows(report) {
        let cells = columns.iter().map(|column| {
            let cell = row.iter().find(|(name, _)| name == column);
            cell.map_or("", |(_, value)| value.as_str())
        });
        writer.write_record(cells)?;
    }
    writer.flush()
}

/// The header.
pub fn columns() -> Vec<String> {
    let distributions = DISTRIBUTIONS.iter().flat_map(|distribution| {
        FIGURES
            .iter()
            .map(move |figure| format!("{distribution}_{figure}"))
    });
    let first = FIRST.iter().map(ToString::to_string);
    let last = LAST.iter().map(ToString::to_string);
    first.chain(distributions).chain(last).collect()
}

/// The cells of a row that are not empty, each with its column.
type Row = Vec<(String, String)>;

fn cell(column: &str, value: impl ToString) -> (String, String) {
    (column.to_string(), value.to_string())
}

fn rows(report: &Report) -> Vec<Row> {
    let capture = &report.capture;
    let mut rows = Vec::new();
    for (cause, count) in capture.lost.by_cause.iter().filter(|(_, n)| **n > 0) {
        rows.push(vec![
            cell("kind", "lost"),
            cell("name", escape(cause)),
            cell("count", count),
        ]);
    }
    if capture.truncated || capture.damage.is_some() {
        let how = capture.damage.as_deref().unwrap_or("");
        rows.push(vec![cell("kind", "truncated"), cell("name", escape(how))]);
    }
    rows.extend(report.endpoints.iter().map(endpoint));
    for (reason, totals) in &report.unattributed.by_reason {
        rows.push(vec![
            cell("kind", "unattributed"),
            cell("name", escape(reason)),
            cell("share_of_alloc", totals.share_of_alloc),
            cell("alloc_bytes_total", totals.alloc_bytes),
            cell("alloc_count_total", totals.alloc_count),
            cell("live_bytes", totals.live_bytes),
        ]);
    }
    rows
}

fn endpoint(endpoint: &Endpoint) -> Row {
    let status: Vec<String> = endpoint
        .status
        .iter()
        .map(|(status, count)| format!("{}:{count}", escape(status)))
        .collect();
    let mut row = vec![
        cell("kind", "endpoint"),
        cell("protocol", escape(&endpoint.protocol)),
        cell("method", escape(&endpoint.method)),
        cell("route", escape(&endpoint.route)),
        cell("requests", endpoint.requests),
        cell("observed", endpoint.observed),
        cell("in_flight", endpoint.in_flight),
        cell("outcomes_complete", endpoint.outcomes.complete),
        cell("outcomes_aborted", endpoint.outcomes.aborted),
        cell("outcomes_no_response", endpoint.outcomes.no_response),
        cell("status", status.join(" ")),
        cell("share_of_alloc", endpoint.share_of_alloc),
        cell("free_bytes", endpoint.free_bytes),
        cell("free_count", endpoint.free_count),
        cell("incomplete", endpoint.incomplete.join(" ")),
    ];
    let distributions: [&Distribution; DISTRIBUTIONS.len()] = [
        &endpoint.alloc_bytes,
        &endpoint.alloc_count,
        &endpoint.peak_bytes,
        &endpoint.retained_bytes,
        &endpoint.duration_ns,
        &endpoint.request_bytes,
        &endpoint.response_bytes,
    ];
    for (name, distribution) in DISTRIBUTIONS.iter().zip(distributions) {
        let figures = figures(distribution);
        for (figure, value) in FIGURES.iter().zip(figures) {
            row.push((format!("{name}_{figure}"), value));
        }
    }
    row
}

fn figures(distribution: &Distribution) -> [String; FIGURES.len()] {
    let Distribution {
        total,
        mean,
        p50,
        p90,
        p99,
        max,
        ci95,
    } = distribution;
    let [low, high] = match ci95 {
        Some(interval) => interval.map(|bound| bound.to_string()),
        None => [String::new(), String::new()],
    };
    [
        total.to_string(),
        mean.to_string(),
        p50.to_string(),
        p90.to_string(),
        p99.to_string(),
        max.to_string(),
        low,
        high,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    /// The value of a column in the row of that number, the header not counted.
    fn value(text: &str, row: usize, column: &str) -> String {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().expect("a header").clone();
        let place = headers.iter().position(|name| name == column);
        let record = reader.records().nth(row).expect("a row").expect("whole");
        record[place.expect("a column of that name")].to_string()
    }

    #[test]
    fn an_endpoint_is_a_row_and_a_reason_is_a_row() {
        let report = sample::report();
        let text = text(&report);
        assert_eq!(text.lines().count(), 1 + 4 + 4);
        assert_eq!(value(&text, 1, "kind"), "endpoint");
        assert_eq!(value(&text, 1, "route"), "/orders");
        assert_eq!(value(&text, 1, "status"), "201:1188 422:9 500:2");
        assert_eq!(value(&text, 1, "alloc_bytes_mean"), "86016");
        assert_eq!(value(&text, 1, "retained_bytes_total"), "4915200");
        assert_eq!(value(&text, 1, "alloc_bytes_ci95_low"), "");
        assert_eq!(value(&text, 1, "live_bytes"), "");
        assert_eq!(value(&text, 4, "kind"), "unattributed");
        assert_eq!(value(&text, 4, "name"), "background_thread");
        assert_eq!(value(&text, 4, "alloc_bytes_total"), "262144");
        assert_eq!(value(&text, 4, "live_bytes"), "262144");
        assert_eq!(value(&text, 4, "requests"), "");
    }

    #[test]
    fn loss_and_truncation_come_first() {
        let text = text(&sample::troubled());
        assert_eq!(value(&text, 0, "kind"), "lost");
        assert_eq!(value(&text, 0, "name"), "new_cause");
        assert_eq!(value(&text, 0, "count"), "30");
        assert_eq!(value(&text, 3, "kind"), "truncated");
        assert_eq!(
            value(&text, 3, "name"),
            "chunk 17 is cut short at byte 52,113"
        );
        assert_eq!(value(&text, 4, "kind"), "endpoint");
    }

    /// Programs find columns by place or by name: both are a promise.
    #[test]
    fn the_columns_stay_where_they_are() {
        let columns = columns();
        assert_eq!(columns.len(), 14 + 7 * 8 + 4);
        assert_eq!(columns[0], "kind");
        assert_eq!(columns[5], "route");
        assert_eq!(columns[14], "alloc_bytes_total");
        assert_eq!(columns[30], "peak_bytes_total");
        assert_eq!(columns[72], "live_bytes");
        assert_eq!(columns[73], "incomplete");
        let mut distinct = columns.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), columns.len());
        // Whatever a row fills must have a column, or it would be dropped.
        for row in rows(&sample::troubled()) {
            for (name, _) in row {
                assert!(columns.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn hostile_text_stays_in_its_cell() {
        let mut report = sample::report();
        report.endpoints[0].route = "/a,\"b\"\n\x1b[2J".into();
        let text = text(&report);
        assert_eq!(text.lines().count(), 1 + 4 + 4);
        assert!(!text.contains('\x1b'));
        assert_eq!(value(&text, 0, "route"), "/a,\"b\"\\n\\u{1b}[2J");
    }

    #[test]
    fn nothing_gives_the_header_alone() {
        let text = text(&Report::empty());
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("kind,name,count,protocol,method,route,"));
    }
}
