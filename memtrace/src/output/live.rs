//! The live view: a report that is refreshed in the terminal while the trace
//! runs.
//!
//! In: reports as they come, and keys. Out: the screen, and the wish to quit.
//! It traces nothing and reads no capture; the caller brings each report.
//!
//! It is made for slow lines: no mouse, only the cells that changed are sent,
//! and no more than [`FRAMES_PER_SECOND_MAX`] frames.

mod draw;
mod keys;
mod plain;

use std::io;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::{Rect, Size};

use crate::output::sort::Sort;
use crate::report::{Report, per_second};

pub use draw::draw;
pub use keys::{Action, Bounds, Rates, ViewState, on_key};
pub use plain::write_plain;

/// Frames a second at most, however fast reports and keys come.
pub const FRAMES_PER_SECOND_MAX: u32 = 4;

/// The terminal, taken over until this value is dropped.
pub struct LiveView {
    terminal: DefaultTerminal,
    state: ViewState,
    shown: Report,
    /// The newest report, kept back while the view is paused.
    held: Option<Report>,
    drawn_at: Option<Instant>,
    stale: bool,
}

impl LiveView {
    /// Takes over the terminal: raw mode, another screen, and a panic hook
    /// that gives both back before the panic's message is printed.
    pub fn open(sort: Sort) -> io::Result<LiveView> {
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        Ok(LiveView {
            terminal,
            state: ViewState::new(sort),
            shown: Report::empty(),
            held: None,
            drawn_at: None,
            stale: true,
        })
    }

    /// Shows a newer report, unless the view is paused. It is drawn now, or
    /// by the next [`LiveView::handle_keys`] if the last frame was just now.
    pub fn show(&mut self, report: Report) -> io::Result<()> {
        if self.state.paused {
            self.held = Some(report);
            return Ok(());
        }
        self.take(report);
        self.draw_if_due()
    }

    /// Handles keys and resizes for as long as `timeout`, or until the user
    /// wants to quit.
    pub fn handle_keys(&mut self, timeout: Duration) -> io::Result<Action> {
        let until = Instant::now() + timeout;
        loop {
            self.draw_if_due()?;
            let mut wait = until.saturating_duration_since(Instant::now());
            if self.stale {
                wait = wait.min(self.until_due());
            }
            if event::poll(wait)? {
                if self.handle(&event::read()?) == Action::Quit {
                    return Ok(Action::Quit);
                }
            } else if Instant::now() >= until {
                return Ok(Action::Continue);
            }
        }
    }

    fn handle(&mut self, event: &Event) -> Action {
        let action = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                self.state.bounds = self.bounds();
                on_key(&mut self.state, *key)
            }
            Event::Resize(..) => Action::Redraw,
            // No other event is asked for; a terminal that sends one anyway
            // changes nothing.
            _ => Action::Continue,
        };
        if !self.state.paused
            && let Some(report) = self.held.take()
        {
            self.take(report);
        }
        self.stale |= action == Action::Redraw;
        action
    }

    fn bounds(&self) -> Bounds {
        let Size { width, height } = self.terminal.size().unwrap_or_default();
        Bounds {
            rows: self.shown.endpoints.len(),
            page: draw::page_rows(&self.shown, Rect::new(0, 0, width, height)),
        }
    }

    fn take(&mut self, report: Report) {
        self.state.rates = recent(&self.shown, &report).or(self.state.rates);
        self.shown = report;
        self.stale = true;
    }

    fn until_due(&self) -> Duration {
        let frame = Duration::from_secs(1) / FRAMES_PER_SECOND_MAX;
        self.drawn_at
            .map_or(Duration::ZERO, |at| frame.saturating_sub(at.elapsed()))
    }

    fn draw_if_due(&mut self) -> io::Result<()> {
        if self.stale && self.until_due().is_zero() {
            let (shown, state) = (&self.shown, &self.state);
            self.terminal.draw(|frame| draw(frame, shown, state))?;
            self.drawn_at = Some(Instant::now());
            self.stale = false;
        }
        Ok(())
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        // While panicking the hook has done it; a second time would set the
        // cursor back to where the panic's message now stands.
        if !std::thread::panicking() {
            give_back();
        }
    }
}

fn give_back() {
    // A terminal that is gone needs nothing given back.
    ratatui::try_restore().ok();
}

/// What happened each second between two reports of one trace; none if no
/// time passed.
fn recent(before: &Report, after: &Report) -> Option<Rates> {
    let passed_ns = after
        .capture
        .duration_ns
        .checked_sub(before.capture.duration_ns)
        .filter(|ns| *ns > 0)?;
    let rate = |before: u64, after: u64| per_second(after.saturating_sub(before), passed_ns);
    Some(Rates {
        requests_per_second: rate(before.totals.requests, after.totals.requests),
        events_per_second: rate(before.capture.events, after.capture.events),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn rates_are_of_the_time_since_the_last_report() {
        let before = sample::report();
        let mut after = before.clone();
        assert_eq!(recent(&before, &after), None);
        after.capture.duration_ns += 2_000_000_000;
        after.totals.requests += 50;
        after.capture.events += 9_000;
        let expected = Rates {
            requests_per_second: 25.0,
            events_per_second: 4_500.0,
        };
        assert_eq!(recent(&before, &after), Some(expected));
        // A trace that starts over must not show a rate from two traces.
        assert_eq!(recent(&after, &before), None);
    }
}
