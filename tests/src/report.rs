//! A report as another program reads it: `memtrace.report/1` JSON.
//!
//! In: the JSON. Out: the figures tests compare, each with an error that names
//! the missing field. Deliberately not here: memtrace's own types, as this is
//! the format's outside.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::paths;
use crate::shim::HeapCounts;

/// One report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report(pub Value);

/// One row of the report's endpoints.
#[derive(Clone, Debug)]
pub struct Endpoint(Value);

impl Report {
    /// Reads the JSON and checks which format it is.
    pub fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_slice(json).with_context(|| {
            let start = String::from_utf8_lossy(&json[..json.len().min(200)]).into_owned();
            format!("the report is no JSON: {start:?}")
        })?;
        let schema = value.get("schema").and_then(Value::as_str);
        if schema != Some("memtrace.report/1") {
            bail!("the report's schema is {schema:?}");
        }
        Ok(Self(value))
    }

    /// An error unless the report is as the repository's JSON Schema says.
    pub fn require_schema(&self) -> anyhow::Result<()> {
        let path = paths::repository().join("schema/report-1.schema.json");
        let schema = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let schema: Value = serde_json::from_slice(&schema)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| anyhow!("{} is no schema: {error}", path.display()))?;
        let errors: Vec<String> = validator
            .iter_errors(&self.0)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if !errors.is_empty() {
            bail!(
                "the report is not as its schema says: {}",
                errors.join("; ")
            );
        }
        Ok(())
    }

    /// A number by its JSON pointer.
    pub fn number(&self, pointer: &str) -> anyhow::Result<f64> {
        number(&self.0, pointer)
    }

    /// A whole number by its JSON pointer.
    pub fn count(&self, pointer: &str) -> anyhow::Result<u64> {
        count(&self.0, pointer)
    }

    /// Bytes on whose request two rules disagree, one of them of this route.
    pub fn disputed_bytes(&self, route: &str) -> anyhow::Result<u64> {
        let rows = self
            .0
            .pointer("/unattributed/ambiguous")
            .and_then(Value::as_array)
            .context("the report has no /unattributed/ambiguous")?;
        let names_it = |row: &&Value| {
            row["candidates"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|name| name.as_str().is_some_and(|name| name.contains(route)))
        };
        rows.iter()
            .filter(names_it)
            .map(|row| count(row, "/alloc_bytes"))
            .sum()
    }

    /// Whether the capture ended early.
    pub fn is_truncated(&self) -> anyhow::Result<bool> {
        self.0
            .pointer("/capture/truncated")
            .and_then(Value::as_bool)
            .context("the report has no /capture/truncated")
    }

    /// An error if anything was lost.
    pub fn require_no_loss(&self) -> anyhow::Result<()> {
        if self.count("/capture/lost/total")? != 0 {
            let lost = self.0.pointer("/capture/lost");
            bail!("the report says that events were lost: {lost:?}");
        }
        Ok(())
    }

    /// What the report says of one process.
    pub fn heap_of(&self, pid: u32) -> anyhow::Result<HeapCounts> {
        let processes = self.array("/processes")?;
        let mut found = processes
            .iter()
            .filter(|process| process.get("pid").and_then(Value::as_u64) == Some(pid.into()));
        let process = found
            .next()
            .with_context(|| format!("process {pid} is not in the report: {processes:?}"))?;
        if found.next().is_some() {
            bail!("process {pid} is in the report twice");
        }
        Ok(HeapCounts {
            alloc_count: count(process, "/alloc_count")?,
            alloc_bytes: count(process, "/alloc_bytes")?,
            free_count: count(process, "/free_count")?,
            free_bytes: count(process, "/free_bytes")?,
        })
    }

    /// The pids of the report's processes.
    pub fn pids(&self) -> anyhow::Result<Vec<u64>> {
        self.array("/processes")?
            .iter()
            .map(|process| count(process, "/pid"))
            .collect()
    }

    /// The one row that a request with this method and path is counted in.
    pub fn endpoint(&self, method: &str, path: &str) -> anyhow::Result<Endpoint> {
        self.find_endpoint(method, path)?
            .with_context(|| format!("no row for {method} {path} in {}", self.rows()))
    }

    /// The same, `None` when the report knows no such request.
    pub fn find_endpoint(&self, method: &str, path: &str) -> anyhow::Result<Option<Endpoint>> {
        let mut found = self
            .array("/endpoints")?
            .iter()
            .filter(|row| text(row, "method") == method && route_covers(text(row, "route"), path));
        let row = found.next();
        if found.next().is_some() {
            bail!("more than one row for {method} {path}: {}", self.rows());
        }
        Ok(row.cloned().map(Endpoint))
    }

    /// What the report says keeps a process from being seen whole.
    pub fn troubles(&self) -> anyhow::Result<Vec<String>> {
        Ok(self
            .array("/processes")?
            .iter()
            .filter_map(|process| process.get("trouble")?.as_array())
            .flatten()
            .filter_map(|trouble| trouble.as_str().map(str::to_owned))
            .collect())
    }

    /// Requests over all rows.
    pub fn requests(&self) -> anyhow::Result<u64> {
        self.array("/endpoints")?
            .iter()
            .map(|row| count(row, "/requests"))
            .sum()
    }

    /// Requests by status over all rows.
    pub fn statuses(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut total = BTreeMap::new();
        for row in self.array("/endpoints")? {
            for (status, requests) in Endpoint(row.clone()).statuses()? {
                *total.entry(status).or_default() += requests;
            }
        }
        Ok(total)
    }

    /// Bytes that belong to no request, by reason.
    pub fn unattributed(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        self.0
            .pointer("/unattributed/by_reason")
            .and_then(Value::as_object)
            .context("the report has no /unattributed/by_reason")?
            .iter()
            .map(|(reason, totals)| Ok((reason.clone(), count(totals, "/alloc_bytes")?)))
            .collect()
    }

    fn rows(&self) -> String {
        let rows = self.array("/endpoints").unwrap_or(&[]);
        let names: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {}", text(row, "method"), text(row, "route")))
            .collect();
        format!("[{}]", names.join(", "))
    }

    fn array(&self, pointer: &str) -> anyhow::Result<&[Value]> {
        self.0
            .pointer(pointer)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .with_context(|| format!("the report has no array {pointer}"))
    }
}

impl Endpoint {
    /// Requests of this row.
    pub fn requests(&self) -> anyhow::Result<u64> {
        count(&self.0, "/requests")
    }

    /// Those seen whole.
    pub fn observed(&self) -> anyhow::Result<u64> {
        count(&self.0, "/observed")
    }

    /// Requests by status.
    pub fn statuses(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let statuses = self
            .0
            .get("status")
            .and_then(Value::as_object)
            .with_context(|| format!("the row has no status: {}", self.0))?;
        statuses
            .iter()
            .map(|(status, requests)| {
                let requests = requests
                    .as_u64()
                    .with_context(|| format!("status {status} is no count"))?;
                Ok((status.clone(), requests))
            })
            .collect()
    }

    /// One figure of a distribution: `figure("alloc_bytes", "mean")`.
    pub fn figure(&self, distribution: &str, figure: &str) -> anyhow::Result<f64> {
        number(&self.0, &format!("/{distribution}/{figure}"))
    }

    /// What it allocated by type: names and bytes, most bytes first.
    pub fn types(&self) -> anyhow::Result<Vec<(String, u64)>> {
        self.list("types")?
            .iter()
            .map(|row| Ok((text(row, "name").to_owned(), count(row, "/alloc_bytes")?)))
            .collect()
    }

    /// The figures that say too little.
    pub fn incomplete(&self) -> anyhow::Result<Vec<String>> {
        let names = self.list("incomplete")?.iter();
        Ok(names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect())
    }

    fn list(&self, key: &str) -> anyhow::Result<&[Value]> {
        self.0
            .get(key)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .with_context(|| format!("a row has no list {key}"))
    }

    /// An error unless this row counts exactly these requests, all seen whole.
    pub fn require_requests(&self, expected: u64) -> anyhow::Result<()> {
        let (requests, observed) = (self.requests()?, self.observed()?);
        if (requests, observed) != (expected, expected) {
            bail!(
                "{} {}: {requests} requests, {observed} observed; expected {expected}",
                text(&self.0, "method"),
                text(&self.0, "route")
            );
        }
        Ok(())
    }
}

/// An error unless `actual` is within `share` (0.02 is 2 %) of `expected`.
pub fn require_within(what: &str, actual: f64, expected: f64, share: f64) -> anyhow::Result<()> {
    // Written so that NaN fails.
    if (actual - expected).abs() <= expected.abs() * share {
        return Ok(());
    }
    bail!(
        "{what}: {actual}, which is not within {} % of {expected}",
        share * 100.0
    )
}

/// Whether a route template covers a path: same segments, where `{…}` stands
/// for any one. Queries are not compared.
pub(crate) fn route_covers(route: &str, path: &str) -> bool {
    let without_query = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    let (route, path) = (without_query(route), without_query(path));
    let (route, path): (Vec<&str>, Vec<&str>) =
        (route.split('/').collect(), path.split('/').collect());
    route.len() == path.len()
        && route
            .iter()
            .zip(&path)
            .all(|(pattern, segment)| pattern.starts_with('{') || pattern == segment)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> anyhow::Result<f64> {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("no number {pointer} in {value}"))
}

fn count(value: &Value, pointer: &str) -> anyhow::Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no count {pointer} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_covers_what_it_was_folded_from() {
        assert!(route_covers("/big/{id}", "/big/1000"));
        assert!(route_covers("/big/1000", "/big/1000"));
        assert!(route_covers("/search?q", "/search?q=x"));
        assert!(!route_covers("/big/{id}", "/big/1000/2"));
        assert!(!route_covers("/big/{id}", "/keep/1000"));
        assert!(!route_covers("/", "/plain"));
    }

    #[test]
    fn nothing_is_within_two_percent_of_what_is_not_a_number() {
        assert!(require_within("x", f64::NAN, 100.0, 0.02).is_err());
        assert!(require_within("x", 102.1, 100.0, 0.02).is_err());
        assert!(require_within("x", 101.9, 100.0, 0.02).is_ok());
    }

    #[test]
    fn a_report_says_what_it_lost_and_which_row_a_path_has() -> anyhow::Result<()> {
        let report = Report::parse(
            br#"{"schema":"memtrace.report/1","capture":{"lost":{"total":3},"truncated":true},
                "processes":[{"pid":7,"alloc_bytes":1,"alloc_count":2,"free_bytes":3,"free_count":4}],
                "endpoints":[{"method":"GET","route":"/a/{id}","requests":5,"observed":5,
                              "status":{"200":4,"404":1},"alloc_bytes":{"mean":2.5}}]}"#,
        )?;
        assert!(report.require_no_loss().is_err());
        assert!(report.is_truncated()?);
        assert_eq!(report.heap_of(7)?.free_count, 4);
        assert!(report.heap_of(8).is_err());
        let row = report.endpoint("GET", "/a/12")?;
        row.require_requests(5)?;
        assert!(row.require_requests(4).is_err());
        assert_eq!(row.statuses()?["404"], 1);
        assert!((row.figure("alloc_bytes", "mean")? - 2.5).abs() < f64::EPSILON);
        assert!(report.find_endpoint("POST", "/a/12")?.is_none());
        Ok(())
    }
}
