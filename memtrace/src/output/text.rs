//! Text for people: numbers in units, lines of a width, names made safe.
//!
//! In: numbers and strings. Out: strings without colours. It knows no report.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text with everything escaped that a terminal could act upon or hide:
/// control characters, direction marks, invisible and combining ones. A
/// backslash is doubled, so that what is shown tells what was there.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '"' || c == '\'' {
            safe.push(c);
        } else {
            safe.extend(c.escape_debug());
        }
    }
    safe
}

/// Columns that the text takes on a terminal.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text within so many columns: what is too long loses its middle to an
/// ellipsis, for both ends of a route tell endpoints apart.
pub fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_string();
    }
    if columns == 0 {
        return String::new();
    }
    let room = columns - 1;
    let tail_room = room / 2;
    let head = take(text.chars(), room - tail_room);
    let mut tail = take(text.chars().rev(), tail_room);
    tail.reverse();
    let ellipsis = std::iter::once('…');
    head.into_iter().chain(ellipsis).chain(tail).collect()
}

fn take(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

/// The words of the text in lines of at most so many columns; every line but
/// the first is indented. A single word that is longer stays whole.
pub fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let line_is_new = used == 0 || (lines.len() > 1 && used == indent);
        if !line_is_new && used + 1 + width(word) > columns {
            lines.push(" ".repeat(indent));
            used = indent;
        } else if !line_is_new {
            push(&mut lines, " ");
            used += 1;
        }
        push(&mut lines, word);
        used += width(word);
    }
    lines
}

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Bytes with three significant digits: `512 B`, `1.50 KiB`, `16.0 EiB`.
pub fn bytes(count: u64) -> String {
    bytes_mean(count as f64)
}

/// The same for a mean, which can be less than a byte: `0.25 B`.
pub fn bytes_mean(value: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = value;
    let mut unit = 0;
    // Compared as it will be shown: 1023.7 KiB would read 1024 KiB.
    while value.round() >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let whole_bytes = unit == 0 && value.fract() == 0.0;
    let number = if whole_bytes {
        format!("{value:.0}")
    } else {
        three_digits(value)
    };
    format!("{number} {}", UNITS[unit])
}

fn three_digits(value: f64) -> String {
    if value > 0.0 && value < 0.005 {
        "<0.01".to_string()
    } else if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A whole number with its thousands set apart: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A mean of counts: a whole one in full, else three significant digits.
pub fn count_mean(value: f64) -> String {
    if value.fract() == 0.0 || value >= 999.5 {
        count(value.round() as u64)
    } else {
        three_digits(value)
    }
}

/// A figure as it is shown if it may be among those that say too little.
pub fn at_least(shown: String, field: &str, incomplete: &[String]) -> String {
    if incomplete.iter().any(|name| name == field) {
        format!("≥{shown}")
    } else {
        shown
    }
}

/// `one` thing or several: `1 request`, `2 requests`.
pub fn plural(number: u64, one: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {one}{ending}", count(number))
}

/// A fraction as a percentage: `12.3%`; what is not zero never reads so.
pub fn percent(fraction: f64) -> String {
    let percents = fraction * 100.0;
    if percents == 0.0 {
        "0%".to_string()
    } else if percents < 0.05 {
        "<0.1%".to_string()
    } else if percents < 99.95 {
        format!("{percents:.1}%")
    } else {
        format!("{percents:.0}%")
    }
}

/// A duration: `930 ns`, `18.2 µs`, `1.25 ms`, `30.0 s`, `5 m 03 s`.
pub fn duration(ns: u64) -> String {
    duration_mean(ns as f64)
}

/// The same for a mean.
pub fn duration_mean(ns: f64) -> String {
    let seconds = ns / 1e9;
    if ns < 999.5 {
        format!("{ns:.0} ns")
    } else if ns < 999.5e3 {
        format!("{} µs", three_digits(ns / 1e3))
    } else if ns < 999.5e6 {
        format!("{} ms", three_digits(ns / 1e6))
    } else if seconds < 119.5 {
        format!("{} s", three_digits(seconds))
    } else if seconds < 7_199.5 {
        let whole = seconds.round() as u64;
        format!("{} m {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (seconds / 60.0).round() as u64;
        format!("{} h {:02} m", count(minutes / 60), minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits_and_never_read_1024() {
        for (value, shown) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (12_595, "12.3 KiB"),
            (1_047_552, "1023 KiB"),
            (1_048_575, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), shown, "{value}");
        }
        assert_eq!(bytes_mean(0.25), "0.25 B");
        assert_eq!(bytes_mean(0.001), "<0.01 B");
        assert_eq!(bytes_mean(1023.7), "1.00 KiB");
        assert_eq!(bytes_mean(512.0), "512 B");
    }

    #[test]
    fn counts_percentages_and_durations_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count_mean(8.0), "8");
        assert_eq!(count_mean(8.256), "8.26");
        assert_eq!(count_mean(99.97), "100");
        assert_eq!(count_mean(12_345.6), "12,346");
        assert_eq!(plural(1, "request"), "1 request");
        assert_eq!(plural(0, "request"), "0 requests");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.0001), "<0.1%");
        assert_eq!(percent(0.0344), "3.4%");
        assert_eq!(percent(0.9999), "100%");
        for (ns, shown) in [
            (0, "0 ns"),
            (930, "930 ns"),
            (18_200, "18.2 µs"),
            (999_700, "1.00 ms"),
            (30_000_000_000, "30.0 s"),
            (303_000_000_000, "5 m 03 s"),
            (7_500_000_000_000, "2 h 05 m"),
            (u64::MAX, "5,124,095 h 35 m"),
        ] {
            assert_eq!(duration(ns), shown, "{ns}");
        }
    }

    #[test]
    fn nothing_a_terminal_acts_upon_is_left() {
        let hostile =
            "/a\x1b[2J\x1b]0;owned\x07\r\n\u{9b}31m\u{202e}\u{200b}\u{7f}e\u{301}\\é漢\"'";
        let safe = escape(hostile);
        assert_eq!(
            safe,
            "/a\\u{1b}[2J\\u{1b}]0;owned\\u{7}\\r\\n\\u{9b}31m\\u{202e}\\u{200b}\\u{7f}e\\u{301}\\\\é漢\"'"
        );
        assert_eq!(escape("/users/{id}?page"), "/users/{id}?page");
        assert_eq!(escape("\0"), "\\0");
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(cut_middle("/users/{id}", 11), "/users/{id}");
        assert_eq!(cut_middle("/users/{id}", 10), "/user…{id}");
        assert_eq!(cut_middle("abc", 2), "a…");
        assert_eq!(cut_middle("abc", 1), "…");
        assert_eq!(cut_middle("abc", 0), "");
        // Characters two columns wide never make it longer than asked.
        for columns in 0..12 {
            let cut = cut_middle("漢字漢字漢字", columns);
            assert!(width(&cut) <= columns, "{cut:?} in {columns}");
        }
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(
            wrap("one two three four", 9, 2),
            ["one two", "  three", "  four"]
        );
        assert_eq!(wrap("unbreakable", 4, 2), ["unbreakable"]);
        assert_eq!(wrap("", 4, 2), [""]);
    }
}
