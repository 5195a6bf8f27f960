//! The report as JSON, for other programs, and back.
//!
//! In: a `Report`, or text. Out: pretty JSON, the same bytes for the same
//! report. It leaves no field out and adds none; `schema/report-1.schema.json`
//! describes the shape.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::report::{Report, SCHEMA};

/// Writes the report, ending in a newline.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let formatter = Harmless(PrettyFormatter::new());
    let mut serializer = Serializer::with_formatter(&mut *out, formatter);
    report.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// Reads a report. Fields that this version does not know are passed over, for
/// the format grows.
pub fn parse(text: &str) -> Result<Report, ParseError> {
    #[derive(serde::Deserialize)]
    struct Label {
        schema: String,
    }
    // The label first: what is wrong with another format's fields helps nobody.
    let label: Label = serde_json::from_str(text).map_err(ParseError::Json)?;
    if label.schema != SCHEMA {
        return Err(ParseError::Schema(label.schema));
    }
    serde_json::from_str(text).map_err(ParseError::Json)
}

/// Why text is not a report.
#[derive(Debug)]
pub enum ParseError {
    /// It is no JSON, or lacks a field.
    Json(serde_json::Error),
    /// It says that it is something else.
    Schema(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Json(error) => write!(f, "this is not a memtrace report in JSON: {error}"),
            ParseError::Schema(schema) => write!(
                f,
                "this is a {schema:?}, not a {SCHEMA:?}; another version of memtrace may read it"
            ),
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ParseError::Json(error) => Some(error),
            ParseError::Schema(_) => None,
        }
    }
}

/// Escapes also what JSON would allow as it is but a terminal acts upon, such
/// as U+009B and direction marks: reports end up on terminals. A parser reads
/// the same text either way.
struct Harmless<'a>(PrettyFormatter<'a>);

impl Formatter for Harmless<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            // JSON's own escapes were already taken out of the fragment, so a
            // long escape here means a character that is not printable.
            if c == ' ' || c.escape_debug().len() <= 2 {
                write!(out, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use serde_json::Value;

    const SCHEMA_TEXT: &str = include_str!("../../../schema/report-1.schema.json");

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn schema() -> Value {
        serde_json::from_str(SCHEMA_TEXT).expect("the schema is JSON")
    }

    #[test]
    fn reports_satisfy_the_schema_and_come_back_the_same() {
        let validator = jsonschema::draft202012::new(&schema()).expect("a valid schema");
        let mut sampled = sample::report();
        sampled.capture.mode = crate::report::Mode::Sampled;
        sampled.endpoints[0].alloc_bytes.ci95 = Some([1.5, 2.5]);
        for report in [
            sample::report(),
            sample::troubled(),
            sampled,
            Report::empty(),
        ] {
            let text = text(&report);
            let value: Value = serde_json::from_str(&text).expect("JSON");
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{errors:#?}");
            assert_eq!(parse(&text).expect("it parses"), report);
            assert!(text.ends_with("}\n") && !text.ends_with("\n\n"));
        }
    }

    #[test]
    fn the_schema_refuses_what_is_not_a_report() {
        let validator = jsonschema::draft202012::new(&schema()).expect("a valid schema");
        let good = serde_json::to_value(sample::report()).expect("JSON");
        for (pointer, bad) in [
            ("/schema", Value::from("memtrace.report/2")),
            ("/capture/mode", Value::from("guessed")),
            ("/capture/observed_fraction", Value::from(1.5)),
            ("/endpoints/0/requests", Value::from(-1)),
            ("/endpoints/0/alloc_bytes/p99", Value::from(1.5)),
            ("/endpoints/0/status", Value::from(vec![200])),
            ("/unattributed/by_reason/startup", Value::from(3)),
            ("/processes/0/pid", Value::Null),
        ] {
            let mut value = good.clone();
            *value.pointer_mut(pointer).expect("a field of the sample") = bad;
            assert!(!validator.is_valid(&value), "{pointer}");
        }
        let mut value = good.clone();
        value["endpoints"][0]["of_a_later_version"] = Value::from(1);
        assert!(validator.is_valid(&value), "the format may grow");
    }

    /// Types and schema are written by hand, twice; a field that one has and
    /// the other has not, or that nobody described, is found here.
    #[test]
    fn the_schema_describes_every_field_and_no_other() {
        let schema = schema();
        let report = serde_json::to_value(sample::troubled()).expect("JSON");
        compare(&schema, &schema, &report, "");
    }

    fn compare(root: &Value, node: &Value, value: &Value, at: &str) {
        let node = match node["$ref"].as_str() {
            Some(reference) => root
                .pointer(reference.trim_start_matches('#'))
                .expect("a definition"),
            None => node,
        };
        if let Some(items) = value.as_array() {
            for item in items {
                compare(root, &node["items"], item, at);
            }
        }
        let (Some(fields), Some(known)) = (value.as_object(), node["properties"].as_object())
        else {
            return;
        };
        let required = node["required"].as_array().expect("a required list");
        assert_eq!(required.len(), known.len(), "required at {at:?}");
        for (name, property) in known {
            assert!(fields.contains_key(name), "{at}/{name} is not written");
            assert!(property["description"].is_string(), "{at}/{name}: no words");
            assert!(
                required.contains(&Value::from(name.as_str())),
                "{at}/{name}"
            );
        }
        for (name, field) in fields {
            let property = known.get(name);
            let property = property.unwrap_or_else(|| panic!("{at}/{name} is not in the schema"));
            compare(root, property, field, &format!("{at}/{name}"));
        }
    }

    #[test]
    fn extreme_numbers_survive() {
        let mut report = sample::report();
        report.totals.alloc_bytes = u64::MAX;
        report.endpoints[0].alloc_bytes = sample::around(u64::MAX, 7);
        report.endpoints[0].share_of_alloc = crate::report::share(1, 3);
        report.capture.overhead.estimate = Some(1e-6);
        assert_eq!(parse(&text(&report)).expect("it parses"), report);
        let mut refused = Vec::new();
        for odd in 1..2_000_u64 {
            let mean = crate::report::mean(odd * 1_000_003 * 7_919, 1_999);
            let text = serde_json::to_string(&mean).expect("JSON");
            if serde_json::from_str::<f64>(&text).ok() != Some(mean) {
                refused.push(text);
            }
        }
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn nothing_a_terminal_acts_upon_is_written() {
        let mut report = sample::report();
        report.endpoints[0].route = "/\x1b[2J\u{7f}\u{9b}\u{202e}\u{e0001}é\"\\".into();
        let text = text(&report);
        assert!(
            text.chars()
                .all(|c| c == '\n' || c == 'é' || c.is_ascii_graphic() || c == ' '),
            "{text}"
        );
        assert_eq!(parse(&text).expect("it parses"), report);
    }

    #[test]
    fn what_is_not_a_report_is_refused_with_a_reason() {
        let other = r#"{"schema": "memtrace.report/2", "everything": "else"}"#;
        let error = parse(other).unwrap_err().to_string();
        assert!(error.contains("memtrace.report/2"), "{error}");
        for text in ["", "[]", "{}", r#"{"schema": "memtrace.report/1"}"#] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with("this is not a memtrace report"),
                "{error}"
            );
        }
    }
}
