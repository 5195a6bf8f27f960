//! Frames as they look, at the sizes that matter.

use super::*;
use crate::output::sort::Sort;
use crate::report::sample;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

fn screen(report: &Report, state: &ViewState, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
    terminal
        .draw(|frame| draw(frame, report, state))
        .expect("a test terminal takes everything");
    terminal.backend().buffer().clone()
}

/// The screen's lines without trailing spaces.
fn text(report: &Report, state: &ViewState, width: u16, height: u16) -> String {
    let screen = screen(report, state, width, height);
    let lines = screen.content().chunks(usize::from(width)).map(|line| {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_string() + "\n"
    });
    lines.collect()
}

fn by_bytes() -> ViewState {
    ViewState::new(Sort::Bytes)
}

#[test]
fn a_frame_of_80_by_24() {
    let expected = "\
LOST 1,234 events: ring_full_alloc 1,200, new_cause 30, threads_full 4
30.0 s  /usr/bin/python3.11 (pids 4101, 4102; glibc)
318 requests/s  55,000 events/s  8.85 MiB live  overhead about 3.4%

                                 ALLOC/REQ  ALLOC/REQ  RETAINED      PEAK
ENDPOINT               REQUESTS       MEAN        P99      MEAN       P99  SHARE
GET /products/{id}        8,000   24.0 KiB   36.0 KiB       0 B  12.0 KiB  63.5%
POST /orders 500×2        1,200   84.0 KiB    126 KiB  4.00 KiB  42.0 KiB  33.3%
GET /static/{file}          310   9.08 KiB   13.6 KiB       0 B  4.54 KiB   0.9%
GET /health                  30      512 B      768 B       0 B     255 B  <0.1%








WITHOUT A REQUEST  6.65 MiB, 2.3% of all bytes
startup              5.15 MiB   1.7%  by a process that the trace saw start, bef
between_requests     1.25 MiB   0.4%  by a serving thread that had no request at
background_thread     256 KiB   0.1%  by a thread that took part in no connectio
not_yet_described       512 B  <0.1%
q quit  s sort: bytes ▼  r reverse  ↑↓ scroll  p pause  ? help
";
    assert_eq!(text(&sample::troubled(), &by_bytes(), 80, 24), expected);
}

#[test]
fn a_frame_of_120_by_40() {
    let mut state = ViewState::new(Sort::Retained);
    state.reverse = true;
    state.paused = true;
    let expected = "\
30.0 s  PAUSED  /usr/bin/python3.11 (pids 4101, 4102; glibc)
318 requests/s  55,000 events/s  8.85 MiB live  overhead about 3.4%

                                         ALLOC/REQ  ALLOC/REQ  ALLOCS/REQ  RETAINED      PEAK  TIME/REQ     ALLOC
ENDPOINT                       REQUESTS       MEAN        P99        MEAN      MEAN       P99      MEAN     TOTAL  SHARE
GET /health                          30      512 B      768 B          80       0 B     255 B   1.25 ms  15.0 KiB  <0.1%
GET /products/{id}                8,000   24.0 KiB   36.0 KiB          80       0 B  12.0 KiB   1.25 ms   188 MiB  63.5%
GET /static/{file} 404×8            310   9.08 KiB   13.6 KiB          80       0 B  4.54 KiB   1.25 ms  2.75 MiB   0.9%
POST /orders 500×2 422×9          1,200   84.0 KiB    126 KiB          80  4.00 KiB  42.0 KiB   1.25 ms  98.4 MiB  33.3%

























WITHOUT A REQUEST  6.65 MiB, 2.3% of all bytes
startup              5.15 MiB   1.7%  by a process that the trace saw start, before its first message
between_requests     1.25 MiB   0.4%  by a serving thread that had no request at that time
background_thread     256 KiB   0.1%  by a thread that took part in no connection
not_yet_described       512 B  <0.1%
q quit  s sort: retained ▲  r reverse  ↑↓ scroll  p go on  ? help
";
    let report = sample::report();
    assert_eq!(text(&report, &state, 120, 40), expected);
    let marked: Vec<String> = screen(&report, &state, 120, 40)
        .content()
        .chunks(120)
        .skip(4)
        .take(1)
        .flatten()
        .filter(|cell| cell.modifier.contains(Modifier::REVERSED))
        .map(|cell| cell.symbol().to_string())
        .collect();
    assert_eq!(marked.concat().trim(), "MEAN", "the order's column");
}

#[test]
fn a_frame_of_20_by_5_still_says_that_events_were_lost() {
    let expected = "\
LOST 1,234 events: r

ENDPOINT       SHARE
GET /p…s/{id}  63.5%
q quit  s sort: byte
";
    assert_eq!(text(&sample::troubled(), &by_bytes(), 20, 5), expected);
}

#[test]
fn loss_is_red() {
    let screen = screen(&sample::troubled(), &by_bytes(), 80, 24);
    assert_eq!(screen[(0, 0)].fg, Color::Red);
    assert_eq!(screen[(0, 1)].fg, Color::Reset);
}

#[test]
fn no_size_is_too_small() {
    let mut helping = by_bytes();
    helping.help = true;
    let mut far = by_bytes();
    far.scroll = usize::MAX;
    for report in [sample::troubled(), sample::report(), Report::empty()] {
        for state in [&by_bytes(), &helping, &far] {
            for (width, height) in [(0, 0), (0, 9), (9, 0), (1, 1), (2, 3), (7, 20), (300, 2)] {
                screen(&report, state, width, height);
            }
        }
    }
}

#[test]
fn scrolling_shows_what_is_below_and_stops_at_the_end() {
    let mut report = sample::report();
    report.endpoints = (0..50)
        .map(|n| sample::endpoint("GET", &format!("/r{n:02}"), 1, 5_000 - n))
        .collect();
    let page = page_rows(&report, Rect::new(0, 0, 80, 24));
    assert_eq!(page, 13);
    let mut state = by_bytes();
    let first = text(&report, &state, 80, 24);
    assert!(first.contains("/r00") && first.contains("/r12") && !first.contains("/r13"));
    state.scroll = 10;
    let later = text(&report, &state, 80, 24);
    assert!(!later.contains("/r09") && later.contains("/r10") && later.contains("/r22"));
    state.scroll = usize::MAX;
    let last = text(&report, &state, 80, 24);
    assert!(last.contains("/r37") && last.contains("/r49"), "{last}");
    state.scroll = 0;
    state.reverse = true;
    assert!(text(&report, &state, 80, 24).contains("/r49"));
}

#[test]
fn help_explains_every_key() {
    let mut state = by_bytes();
    state.help = true;
    let page = text(&sample::report(), &state, 80, 24);
    for (key, what) in HELP {
        assert!(page.contains(key) && page.contains(what), "{page}");
    }
    assert!(!page.contains("ENDPOINT"));
}

#[test]
fn before_the_first_request_it_says_what_to_check() {
    let page = text(&Report::empty(), &by_bytes(), 80, 24);
    assert!(page.contains("No HTTP request was seen yet."));
    assert!(page.contains("was there traffic"));
}

#[test]
fn hostile_text_is_only_text() {
    let hostile = "/\x1b[2J\u{9b}31m\r\n\u{202e}";
    let mut report = sample::troubled();
    report.endpoints[0].route = hostile.into();
    report.processes[0].exe = hostile.into();
    report.capture.lost.by_cause.insert(hostile.into(), 9_000);
    let reason = crate::report::ReasonTotals::default();
    report.unattributed.by_reason.insert(hostile.into(), reason);
    let page = text(&report, &by_bytes(), 200, 50);
    assert!(page.contains("\\u{1b}[2J"));
    assert!(
        page.chars()
            .all(|c| c == '\n' || c.escape_debug().len() <= 2)
    );
}
