//! What the live view remembers, and what each key does to it.
//!
//! In: a state and a key. Out: the state changed, and what to do now. It
//! reads no keyboard and draws nothing.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::output::sort::Sort;

/// What the user chose to see.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewState {
    /// The order of the endpoints.
    pub sort: Sort,
    /// The opposite order.
    pub reverse: bool,
    /// Endpoints above the first one shown.
    pub scroll: usize,
    /// Newer reports wait.
    pub paused: bool,
    /// The keys are explained in place of the report.
    pub help: bool,
    /// What happened each second of late; none before the second report.
    pub rates: Option<Rates>,
    /// How far there is to scroll.
    pub bounds: Bounds,
}

impl ViewState {
    /// The view at its start.
    pub fn new(sort: Sort) -> ViewState {
        ViewState {
            sort,
            reverse: false,
            scroll: 0,
            paused: false,
            help: false,
            rates: None,
            bounds: Bounds::default(),
        }
    }
}

/// What happened each second between the last two reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Requests.
    pub requests_per_second: f64,
    /// Events recorded.
    pub events_per_second: f64,
}

/// How far there is to scroll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Endpoints there are.
    pub rows: usize,
    /// Endpoints that fit on the screen.
    pub page: usize,
}

/// What a key asks of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Continue,
    /// The screen must change.
    Redraw,
    /// The view should end.
    Quit,
}

/// The keys, for the help page.
pub(super) const HELP: [(&str, &str); 8] = [
    ("q, Esc, Ctrl-C", "quit"),
    ("s, →", "sort by the next column"),
    ("←", "sort by the previous column"),
    ("r", "reverse the order"),
    ("↑ ↓, j k", "scroll by one endpoint"),
    ("PgUp PgDn", "scroll by a page; Home, End: to the ends"),
    ("p, Space", "pause and go on"),
    ("?, h", "show or leave this page"),
];

/// What the key does.
pub fn on_key(state: &mut ViewState, key: KeyEvent) -> Action {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'C') => Action::Quit,
            KeyCode::Char('l' | 'L') => Action::Redraw,
            _ => Action::Continue,
        };
    }
    if state.help {
        // The page hides the table, so a key can only close it or quit.
        return match key.code {
            KeyCode::Char('q') => Action::Quit,
            _ => toggle(&mut state.help),
        };
    }
    let last = state.bounds.rows.saturating_sub(state.bounds.page);
    let page = state.bounds.page.max(1);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('s') | KeyCode::Right => resort(state, state.sort.next()),
        KeyCode::Left => resort(state, state.sort.previous()),
        KeyCode::Char('r') => {
            state.scroll = 0;
            toggle(&mut state.reverse)
        }
        KeyCode::Char('p' | ' ') => toggle(&mut state.paused),
        KeyCode::Char('?' | 'h') => toggle(&mut state.help),
        KeyCode::Up | KeyCode::Char('k') => scroll(state, state.scroll.saturating_sub(1), last),
        KeyCode::Down | KeyCode::Char('j') => scroll(state, state.scroll.saturating_add(1), last),
        KeyCode::PageUp => scroll(state, state.scroll.saturating_sub(page), last),
        KeyCode::PageDown => scroll(state, state.scroll.saturating_add(page), last),
        KeyCode::Home => scroll(state, 0, last),
        KeyCode::End => scroll(state, last, last),
        _ => Action::Continue,
    }
}

fn toggle(flag: &mut bool) -> Action {
    *flag = !*flag;
    Action::Redraw
}

/// Another order starts at its top: where one had scrolled to means nothing
/// in it.
fn resort(state: &mut ViewState, sort: Sort) -> Action {
    state.sort = sort;
    state.scroll = 0;
    Action::Redraw
}

fn scroll(state: &mut ViewState, to: usize, last: usize) -> Action {
    let to = to.min(last);
    if to == state.scroll {
        Action::Continue
    } else {
        state.scroll = to;
        Action::Redraw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut ViewState, code: KeyCode) -> Action {
        on_key(state, KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn state() -> ViewState {
        let mut state = ViewState::new(Sort::Bytes);
        state.bounds = Bounds { rows: 25, page: 10 };
        state
    }

    #[test]
    fn three_keys_quit() {
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(press(&mut state(), code), Action::Quit);
        }
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(on_key(&mut state(), interrupt), Action::Quit);
        let mut helping = state();
        helping.help = true;
        assert_eq!(on_key(&mut helping, interrupt), Action::Quit);
        assert_eq!(press(&mut state(), KeyCode::Char('c')), Action::Continue);
    }

    #[test]
    fn the_order_cycles_both_ways_from_the_top() {
        let mut state = state();
        state.scroll = 7;
        assert_eq!(press(&mut state, KeyCode::Char('s')), Action::Redraw);
        assert_eq!((state.sort, state.scroll), (Sort::Mean, 0));
        press(&mut state, KeyCode::Right);
        assert_eq!(state.sort, Sort::P99);
        for _ in 0..3 {
            press(&mut state, KeyCode::Left);
        }
        assert_eq!(state.sort, Sort::Name);
        press(&mut state, KeyCode::Char('r'));
        assert!(state.reverse);
    }

    #[test]
    fn scrolling_stays_within_the_list() {
        let mut state = state();
        assert_eq!(press(&mut state, KeyCode::Up), Action::Continue);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.scroll, 1);
        press(&mut state, KeyCode::PageDown);
        assert_eq!(state.scroll, 11);
        press(&mut state, KeyCode::PageDown);
        assert_eq!(state.scroll, 15, "the last page is full");
        assert_eq!(press(&mut state, KeyCode::Down), Action::Continue);
        press(&mut state, KeyCode::Home);
        assert_eq!(state.scroll, 0);
        press(&mut state, KeyCode::End);
        assert_eq!(state.scroll, 15);
        // The list became shorter meanwhile: the next key finds its way back.
        state.bounds.rows = 3;
        assert_eq!(press(&mut state, KeyCode::Up), Action::Redraw);
        assert_eq!(state.scroll, 0);
    }

    #[test]
    fn help_closes_with_any_key_and_pause_toggles() {
        let mut state = state();
        press(&mut state, KeyCode::Char('?'));
        assert!(state.help);
        assert_eq!(press(&mut state, KeyCode::Esc), Action::Redraw);
        assert!(!state.help);
        press(&mut state, KeyCode::Char('p'));
        assert!(state.paused);
        press(&mut state, KeyCode::Char(' '));
        assert!(!state.paused);
    }
}
