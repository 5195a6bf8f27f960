//! Requests one by one as CSV, for whoever wants more than sums and quantiles.
//!
//! In: requests whose figures are final. Out: a header and one row for each request, in the
//! order in which their figures became final. A cell that is not known is
//! empty: `status` of a request that was not answered, what follows `outcome`
//! of one that is `in_flight`. Columns keep their order; new ones are added at
//! the end. Text is escaped as in the report's CSV.

use std::io::{self, Write};

use csv::{Terminator, Writer, WriterBuilder};

use crate::output::text::escape;
use crate::report::RequestRow;

/// The columns; `begin_ns` counts from an origin that all rows share.
const COLUMNS: [&str; 18] = [
    "request",
    "connection",
    "pid",
    "protocol",
    "method",
    "route",
    "status",
    "outcome",
    "begin_ns",
    "duration_ns",
    "request_bytes",
    "response_bytes",
    "alloc_bytes",
    "alloc_count",
    "peak_bytes",
    "retained_bytes",
    "ended_by",
    "attribution",
];

/// Writes requests as they come.
#[derive(Debug)]
pub struct RequestWriter<W: Write>(Writer<W>);

impl<W: Write> RequestWriter<W> {
    /// Writes the header.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new()
            .terminator(Terminator::Any(b'\n'))
            .from_writer(out);
        writer.write_record(COLUMNS)?;
        Ok(Self(writer))
    }

    /// Writes one row.
    pub fn row(&mut self, request: &RequestRow) -> io::Result<()> {
        let known = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let RequestRow {
            request,
            connection,
            pid,
            protocol,
            method,
            route,
            status,
            outcome,
            ended_by,
            begin_ns,
            duration_ns,
            request_bytes,
            response_bytes,
            alloc_bytes,
            alloc_count,
            peak_bytes,
            retained_bytes,
            attribution,
        } = request;
        let cells: [String; COLUMNS.len()] = [
            request.to_string(),
            connection.to_string(),
            known(pid.map(u64::from)),
            escape(protocol),
            escape(method),
            escape(route),
            known(status.map(u64::from)),
            (*outcome).to_owned(),
            begin_ns.to_string(),
            known(*duration_ns),
            known(*request_bytes),
            known(*response_bytes),
            alloc_bytes.to_string(),
            alloc_count.to_string(),
            peak_bytes.to_string(),
            retained_bytes.to_string(),
            ended_by.unwrap_or_default().to_owned(),
            by_rule(attribution),
        ];
        self.0.write_record(cells)?;
        Ok(())
    }

    /// Everything written so far reaches its destination.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `received=4000 context=96`: the rules that attributed any bytes.
fn by_rule(attribution: &[(&str, u64)]) -> String {
    let rules: Vec<String> = attribution
        .iter()
        .filter(|(_, bytes)| *bytes != 0)
        .map(|(rule, bytes)| format!("{rule}={bytes}"))
        .collect();
    rules.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestRow {
        RequestRow {
            request: 7,
            connection: 3,
            pid: Some(42),
            protocol: "http/1".into(),
            method: "GET".into(),
            route: "/a,\n{id}".into(),
            status: Some(200),
            outcome: "complete",
            ended_by: None,
            begin_ns: 1000,
            duration_ns: Some(500),
            request_bytes: Some(60),
            response_bytes: Some(90),
            alloc_bytes: 4096,
            alloc_count: 2,
            peak_bytes: 4000,
            retained_bytes: 96,
            attribution: vec![("received", 4000), ("context", 96), ("backend", 0)],
        }
    }

    #[test]
    fn a_request_is_a_row_and_what_is_not_known_is_empty() {
        let mut out = Vec::new();
        let mut writer = RequestWriter::new(&mut out).expect("a vector takes everything");
        writer.row(&request()).expect("a row");
        let in_flight = RequestRow {
            status: None,
            outcome: "in_flight",
            duration_ns: None,
            request_bytes: None,
            response_bytes: None,
            ..request()
        };
        writer.row(&in_flight).expect("a row");
        writer.finish().expect("a vector takes everything");
        let text = String::from_utf8(out).expect("escaped text is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], COLUMNS.join(","));
        assert_eq!(
            lines[1],
            "7,3,42,http/1,GET,\"/a,\\n{id}\",200,complete,1000,500,60,90,4096,2,4000,96,,received=4000 context=96"
        );
        assert_eq!(
            lines[2],
            "7,3,42,http/1,GET,\"/a,\\n{id}\",,in_flight,1000,,,,4096,2,4000,96,,received=4000 context=96"
        );
    }
}
