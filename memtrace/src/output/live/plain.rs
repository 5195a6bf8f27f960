//! The live view where there is no terminal to draw on: a block of text for
//! each report, as `top -b` prints them.
//!
//! In: a `Report`. Out: text that a pipe or a log takes, without colours
//! unless asked for. It keeps nothing between two blocks.

use std::io::{self, Write};

use crate::output::table::{TableOptions, write_brief};
use crate::output::text::{at_least, bytes, count, count_mean, duration, escape, percent, plural};
use crate::report::Report;

/// Writes one block, ending in an empty line.
pub fn write_plain(
    report: &Report,
    options: &TableOptions,
    out: &mut impl Write,
) -> io::Result<()> {
    let (capture, totals) = (&report.capture, &report.totals);
    let figure = |shown, field| at_least(shown, field, &totals.incomplete);
    let mut headline = format!(
        "{}: {} ({}/s), {} in {}, {} still live, {}",
        duration(capture.duration_ns),
        plural(totals.requests, "request"),
        count_mean(totals.requests_per_second),
        figure(bytes(totals.alloc_bytes), "alloc_bytes"),
        figure(plural(totals.alloc_count, "allocation"), "alloc_count"),
        figure(bytes(totals.live_bytes), "live_bytes"),
        plural(capture.events, "event"),
    );
    if let Some(estimate) = capture.overhead.estimate {
        headline.push_str(&format!(", overhead about {}", percent(estimate)));
    }
    write_brief(report, options, &headline, out)?;
    let all = &report.unattributed;
    let reasons: Vec<String> = all
        .by_reason
        .iter()
        .map(|(reason, totals)| format!("{} {}", escape(reason), bytes(totals.alloc_bytes)))
        .collect();
    writeln!(
        out,
        "without a request: {} in {} ({}){}{}\n",
        bytes(all.alloc_bytes),
        count(all.alloc_count),
        percent(all.share_of_alloc),
        if reasons.is_empty() { "" } else { ": " },
        reasons.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report) -> String {
        let options = TableOptions {
            top: Some(2),
            ..TableOptions::default()
        };
        let mut out = Vec::new();
        write_plain(report, &options, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text is UTF-8")
    }

    #[test]
    fn a_block_is_compact() {
        let expected = "\
30.0 s: 9,540 requests (318/s), 295 MiB in 776,266 allocations, 8.85 MiB still live, 1,650,000
  events, overhead about 3.4%
                                ALLOC/REQ  ALLOC/REQ  RETAINED      PEAK     ALLOC
ENDPOINT              REQUESTS       MEAN        P99      MEAN       P99     TOTAL  SHARE
GET /products/{id}       8,000   24.0 KiB   36.0 KiB       0 B  12.0 KiB   188 MiB  63.5%
POST /orders             1,200   84.0 KiB    126 KiB  4.00 KiB  42.0 KiB  98.4 MiB  33.3%
  500×2 422×9
  in-flight×1
… and 2 more endpoints (2.76 MiB)
without a request: 6.65 MiB in 13,066 (2.3%): background_thread 256 KiB, between_requests 1.25 MiB, not_yet_described 512 B, startup 5.15 MiB

";
        assert_eq!(text(&sample::report()), expected);
    }

    #[test]
    fn loss_comes_first_and_nothing_is_a_block_too() {
        assert!(text(&sample::troubled()).starts_with("LOSS: 1,234 events"));
        assert_eq!(
            text(&Report::empty()),
            "0 ns: 0 requests (0/s), 0 B in 0 allocations, 0 B still live, 0 events\n\
             without a request: 0 B in 0 (0%)\n\n"
        );
    }
}
