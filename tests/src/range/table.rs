//! The range's table, for a terminal and for the documentation.
//!
//! In: rows. Out: text. Deliberately not here: judging, and where it is kept.

use std::fmt::Write as _;

use crate::range::judge::Figures;
use crate::range::{Bytes, Row};

/// The table in Markdown; the columns line up as plain text too.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let mut cells: Vec<[String; 8]> = vec![[
        "server".into(),
        "model".into(),
        "clients".into(),
        "requests right / total".into(),
        "bytes right".into(),
        "wrong".into(),
        "unattributed".into(),
        "of those, most".into(),
    ]];
    cells.extend(rows.iter().map(row));
    let mut widths = [0; 8];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for (number, row) in cells.iter().enumerate() {
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn row(row: &Row) -> [String; 8] {
    let Row {
        name,
        model,
        bytes,
        clients,
        figures,
    } = row;
    let requests = if figures.requests_extra == 0 {
        format!("{} / {}", figures.requests_right, figures.requests)
    } else {
        format!(
            "{} / {}, {} that nobody sent",
            figures.requests_right, figures.requests, figures.requests_extra
        )
    };
    let [right, wrong] = match bytes {
        Bytes::Libc | Bytes::Runtime | Bytes::Managed | Bytes::Extent => {
            [figures.right_share(), figures.wrong_share()].map(percent)
        }
        Bytes::Unknown => ["–".to_owned(), "–".to_owned()],
    };
    [
        (*name).to_owned(),
        (*model).to_owned(),
        clients.to_string(),
        requests,
        right,
        wrong,
        percent(figures.unattributed_share()),
        figures
            .reasons
            .first()
            .map_or_else(|| "–".to_owned(), |(reason, _)| reason.clone()),
    ]
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// The endpoints of a run, to see where it goes wrong.
#[must_use]
pub fn endpoints(figures: &Figures) -> String {
    let mut text = String::new();
    for endpoint in &figures.endpoints {
        let _ = writeln!(
            text,
            "    {:<14} requests {}/{} off {}; known {} + {} each, given {} right {} wrong {} retained {}",
            endpoint.path,
            endpoint.requests_right,
            endpoint.requests,
            endpoint.requests_off,
            endpoint.known_bytes,
            endpoint.overhead_bytes,
            endpoint.given_bytes,
            endpoint.right_bytes,
            endpoint.wrong_bytes,
            endpoint.retained_bytes,
        );
    }
    for (reason, bytes) in &figures.reasons {
        let _ = writeln!(text, "    {reason} {bytes}");
    }
    text
}
