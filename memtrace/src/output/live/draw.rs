//! One frame of the live view.
//!
//! In: a `Report` and what the user chose to see. Out: the cells of a frame.
//! It reads no clock and no keyboard: the same in gives the same out. Any size
//! will do; what does not fit gives way, loss last.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout as Split, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};

use crate::output::columns::{Column, GAP, Layout};
use crate::output::live::keys::{HELP, ViewState};
use crate::output::text::{
    at_least, bytes, count, count_mean, cut_middle, duration, escape, percent, width,
};
use crate::output::words::{
    endpoint_name, endpoint_remarks, no_requests, reason_text, targets, warnings,
};
use crate::report::{Endpoint, Report};

#[cfg(test)]
mod tests;

/// Lines of a table's heading.
const HEADING_LINES: u16 = 2;

/// Below this height there is no pane for what was not attributed.
const PANE_HEIGHT_MIN: u16 = 16;

/// Lines of that pane: its title and the largest reasons.
const PANE_LINES_MAX: u16 = 6;

/// Below this height the header is a single line.
const HEADER_HEIGHT_MIN: u16 = 9;

/// Draws the frame.
pub fn draw(frame: &mut Frame, report: &Report, state: &ViewState) {
    if state.help {
        return help(frame);
    }
    let areas = Areas::of(report, frame.area());
    frame.render_widget(header(report, state, areas.header.height), areas.header);
    if report.endpoints.is_empty() {
        let mut lines = vec![Line::from("No HTTP request was seen yet.").style(bold())];
        lines.extend(no_requests(report).into_iter().map(Line::from));
        let advice = Paragraph::new(lines).wrap(Wrap { trim: true });
        frame.render_widget(advice, areas.table);
    } else {
        table(frame, report, state, areas.table);
    }
    frame.render_widget(unattributed(report, areas.pane), areas.pane);
    frame.render_widget(footer(state), areas.footer);
}

/// Endpoints that fit on a screen of this size.
pub(super) fn page_rows(report: &Report, screen: Rect) -> usize {
    let table = Areas::of(report, screen).table;
    usize::from(table.height.saturating_sub(HEADING_LINES))
}

struct Areas {
    header: Rect,
    table: Rect,
    pane: Rect,
    footer: Rect,
}

impl Areas {
    fn of(report: &Report, screen: Rect) -> Areas {
        let header = if screen.height < HEADER_HEIGHT_MIN {
            1
        } else {
            3 + u16::from(trouble(report).is_some())
        };
        let pane = if screen.height < PANE_HEIGHT_MIN {
            0
        } else {
            let reasons = u16::try_from(report.unattributed.by_reason.len());
            reasons
                .unwrap_or(u16::MAX)
                .saturating_add(1)
                .min(PANE_LINES_MAX)
        };
        let [header, table, pane, footer] = Split::vertical([
            Constraint::Length(header),
            Constraint::Fill(1),
            Constraint::Length(pane),
            Constraint::Length(1),
        ])
        .areas(screen);
        Areas {
            header,
            table,
            pane,
            footer,
        }
    }
}

/// The first thing to know if not everything was seen, on one line.
fn trouble(report: &Report) -> Option<String> {
    let lost = &report.capture.lost;
    if lost.total == 0 {
        return warnings(report).into_iter().next();
    }
    let mut causes: Vec<_> = lost.by_cause.iter().filter(|(_, n)| **n > 0).collect();
    causes.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), name.as_str()));
    let causes: Vec<String> = causes
        .into_iter()
        .map(|(name, n)| format!("{} {}", escape(name), count(*n)))
        .collect();
    let total = count(lost.total);
    Some(format!("LOST {total} events: {}", causes.join(", ")))
}

fn header(report: &Report, state: &ViewState, height: u16) -> Text<'static> {
    let (capture, totals) = (&report.capture, &report.totals);
    let (requests, events) = match state.rates {
        Some(rates) => (rates.requests_per_second, rates.events_per_second),
        None => (totals.requests_per_second, capture.events_per_second),
    };
    let mut figures = vec![
        format!("{} requests/s", count_mean(requests)),
        format!("{} events/s", count_mean(events)),
        format!(
            "{} live",
            at_least(bytes(totals.live_bytes), "live_bytes", &totals.incomplete)
        ),
    ];
    if let Some(estimate) = capture.overhead.estimate {
        figures.push(format!("overhead about {}", percent(estimate)));
    }
    let mut first = vec![Span::styled(duration(capture.duration_ns), bold())];
    if state.paused {
        let paused = Style::new().add_modifier(Modifier::REVERSED);
        first.push(Span::raw("  "));
        first.push(Span::styled("PAUSED", paused));
    }
    first.push(Span::raw(format!("  {}", targets(report))));
    let trouble = trouble(report).map(|text| {
        let loud = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        Line::styled(text, loud)
    });
    let figures = Line::from(figures.join("  "));
    if height <= 1 {
        // Loss goes before everything else, also where there is room for
        // nothing else.
        return Text::from(trouble.unwrap_or(figures));
    }
    let mut lines: Vec<Line> = trouble.into_iter().collect();
    lines.push(Line::from(first));
    lines.push(figures);
    Text::from(lines)
}

fn table(frame: &mut Frame, report: &Report, state: &ViewState, area: Rect) {
    let ordered = state.sort.order(&report.endpoints, state.reverse);
    let page = usize::from(area.height.saturating_sub(HEADING_LINES));
    let first = state.scroll.min(ordered.len().saturating_sub(page));
    let names = ordered.iter().map(|e| width(&endpoint_name(e)));
    let longest = names.max().unwrap_or(0);
    let screen = usize::from(area.width);
    // The names take what is left, so that the figures stay in their place
    // while names and remarks come and go.
    let layout = Layout::fit(&ordered, state.sort, longest, screen).stretched(screen);
    let heading = layout.columns.iter().map(|(column, _)| {
        let [quantity, figure] = column.heading();
        let figure = if column.sort() == state.sort {
            Line::styled(figure, bold().add_modifier(Modifier::REVERSED))
        } else {
            Line::styled(figure, bold())
        };
        let lines = vec![Line::styled(quantity, bold()), figure];
        Cell::from(Text::from(lines).alignment(Alignment::Right))
    });
    let name = Cell::from(Text::from(vec![
        Line::from(""),
        Line::styled("ENDPOINT", bold()),
    ]));
    let heading = Row::new(std::iter::once(name).chain(heading)).height(HEADING_LINES);
    let rows = ordered
        .iter()
        .skip(first)
        .take(page)
        .map(|endpoint| row(endpoint, &layout));
    let widths = std::iter::once(layout.name_width).chain(layout.columns.iter().map(|c| c.1));
    let widths = widths.map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
    let table = Table::new(rows, widths)
        .header(heading)
        .column_spacing(GAP as u16);
    frame.render_widget(table, area);
}

fn row(endpoint: &Endpoint, layout: &Layout) -> Row<'static> {
    let name = cut_middle(&endpoint_name(endpoint), layout.name_width);
    let mut room = layout.name_width.saturating_sub(width(&name));
    let mut spans = vec![Span::raw(name)];
    for remark in endpoint_remarks(endpoint) {
        // The worst come first, so what finds no room matters least.
        match room.checked_sub(width(&remark) + 1) {
            Some(left) => room = left,
            None => break,
        }
        let quiet = Style::new().add_modifier(Modifier::DIM);
        spans.push(Span::styled(format!(" {remark}"), quiet));
    }
    let name = Cell::from(Line::from(spans));
    let figures = layout.columns.iter().map(|(column, _)| {
        let text = Line::from(column.cell(endpoint)).right_aligned();
        if *column == Column::RetainedMean && endpoint.retained_bytes.total > 0 {
            Cell::from(text.style(Style::new().fg(Color::Yellow)))
        } else {
            Cell::from(text)
        }
    });
    Row::new(std::iter::once(name).chain(figures))
}

fn unattributed(report: &Report, area: Rect) -> Text<'static> {
    let all = &report.unattributed;
    let title = format!(
        "WITHOUT A REQUEST  {}, {} of all bytes",
        bytes(all.alloc_bytes),
        percent(all.share_of_alloc)
    );
    let mut lines = vec![Line::styled(title, bold())];
    let mut reasons: Vec<_> = all.by_reason.iter().collect();
    reasons.sort_by_key(|(name, r)| (std::cmp::Reverse(r.alloc_bytes), name.as_str()));
    let room = usize::from(area.height.saturating_sub(1));
    for (reason, totals) in reasons.into_iter().take(room) {
        let text = reason_text(reason);
        let share = percent(totals.share_of_alloc);
        let reason_shown = escape(reason);
        let text = if text == reason { "" } else { text };
        lines.push(Line::from(format!(
            "{reason_shown:<20}{:>9}{share:>7}  {text}",
            bytes(totals.alloc_bytes)
        )));
    }
    Text::from(lines)
}

fn footer(state: &ViewState) -> Line<'static> {
    let order = if state.reverse { "▲" } else { "▼" };
    let pause = if state.paused { "go on" } else { "pause" };
    let text = format!(
        "q quit  s sort: {} {order}  r reverse  ↑↓ scroll  p {pause}  ? help",
        state.sort
    );
    Line::styled(text, Style::new().add_modifier(Modifier::DIM))
}

fn help(frame: &mut Frame) {
    let mut lines = vec![Line::styled("Keys", bold())];
    lines.extend(
        HELP.iter()
            .map(|(key, what)| Line::from(format!("  {key:<16}{what}"))),
    );
    lines.push(Line::from(""));
    lines.push(Line::from(
        "ALLOC, RETAINED and PEAK are bytes per request: all it asked for; what outlived it; \
         the most it held at once.",
    ));
    let page = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(page, frame.area());
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}
