//! Process images laid out by hand, as the headers of each version have it
//! (`offsetof` over the headers of 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1,
//! 3.13.0 and 3.14.10), and such images with one thing wrong.

use std::{collections::HashMap, io};

use super::*;

const RUNTIME: u64 = 0x10_0000;
const INTERPRETER: u64 = 0x20_0000;
const GIL: u64 = 0x30_0000;
const STATES: [u64; 2] = [0x40_0000, 0x41_0000];
const THREADS: [u64; 2] = [0x50_0000, 0x51_0000];
const CONTEXT: u64 = 0x60_0000;
const TYPE: u64 = 0x61_0000;
const NAME: u64 = 0x62_0000;

#[derive(Clone, Default)]
struct Words(HashMap<u64, u64>);

impl Words {
    fn put(&mut self, address: u64, word: u64) {
        self.0.insert(address, word);
    }
}

impl Memory for Words {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (at, byte) in buffer.iter_mut().enumerate() {
            let address = address + at as u64;
            let word = self.0.get(&(address & !7)).copied().unwrap_or(0);
            *byte = word.to_ne_bytes()[(address & 7) as usize];
        }
        Ok(())
    }
}

/// Offsets as the headers give them: of the main interpreter, of the running
/// state and the GIL in the runtime (or of the GIL's address in the
/// interpreter), of the first thread, and of `thread_id` and `context`.
struct Headers {
    minor: u32,
    main: u64,
    current: Option<u64>,
    gil: u64,
    threads: u64,
    thread_id: u64,
    context: u64,
}

const fn headers(minor: u32, main: u64, current: Option<u64>, gil: u64, rest: [u64; 3]) -> Headers {
    let [threads, thread_id, context] = rest;
    Headers {
        minor,
        main,
        current,
        gil,
        threads,
        thread_id,
        context,
    }
}

const ALL: [Headers; 7] = [
    headers(8, 40, Some(1368), 1152, [8, 176, 240]),
    headers(9, 40, Some(568), 352, [8, 176, 240]),
    headers(10, 40, Some(568), 352, [8, 176, 240]),
    headers(11, 48, Some(576), 360, [16, 152, 224]),
    headers(12, 48, None, 384, [72, 136, 208]),
    headers(13, 632, None, 16, [7344, 152, 208]),
    headers(14, 808, None, 16, [7344, 152, 208]),
];

/// `struct _Py_DebugOffsets`: byte and word.
fn description(of: &Headers) -> Vec<(u64, u64)> {
    let (gil, next, interp, thread_id) = match of.minor {
        13 => (112, 168, 176, 192),
        _ => (120, 192, 200, 216),
    };
    vec![
        (0, COOKIE),
        (8, 0x0300_00f0 | u64::from(of.minor) << 16),
        (16, 0),
        (40, of.main),
        (64, 7336),
        (72, of.threads),
        (gil, of.gil),
        (next, 8),
        (interp, 16),
        (thread_id, of.thread_id),
    ]
}

fn image(of: &Headers) -> Words {
    let mut words = Words::default();
    if of.minor >= 13 {
        for (at, word) in description(of) {
            words.put(RUNTIME + at, word);
        }
    }
    words.put(RUNTIME + of.main, INTERPRETER);
    if of.current.is_none() {
        words.put(INTERPRETER + of.gil, GIL);
    }
    words.put(INTERPRETER + of.threads, STATES[0]);
    words.put(STATES[0] + 8, STATES[1]);
    for (state, thread) in STATES.into_iter().zip(THREADS) {
        words.put(state + 16, INTERPRETER);
        words.put(state + of.thread_id, thread);
        words.put(thread, thread);
    }
    words.put(STATES[1] + of.context, CONTEXT);
    words.put(CONTEXT + 8, TYPE);
    words.put(TYPE + 24, NAME);
    for (at, chunk) in b"_contextvars.Context\0\0\0\0".chunks(8).enumerate() {
        let word = u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
        words.put(NAME + 8 * at as u64, word);
    }
    words
}

#[test]
fn every_version_is_found_as_its_headers_lay_it_out() {
    for of in &ALL {
        let located = locate(&image(of), RUNTIME, of.minor).expect("a whole image");
        let at = match of.current {
            Some(current) => RUNTIME + current,
            None => GIL + 8,
        };
        let expected = Located {
            thread_state_at: at,
            context: of.context as u32,
            thread_id: of.thread_id as u32,
        };
        assert_eq!(located, expected, "3.{}", of.minor);
    }
}

/// Each has one word that belongs to another layout.
#[test]
fn what_does_not_look_like_its_version_is_refused() {
    for of in &ALL {
        let wrong: [(u64, u64); 4] = [
            (STATES[0] + 16, INTERPRETER + 8),
            (STATES[1] + of.thread_id, GIL + 64),
            (STATES[0] + of.context, THREADS[0]),
            (TYPE + 24, NAME + 1),
        ];
        for (at, word) in wrong {
            let mut words = image(of);
            words.put(at, word);
            let error = locate(&words, RUNTIME, of.minor).expect_err("a wrong word");
            let named = matches!(error, PythonError::Mismatch(_) | PythonError::NotRunning);
            assert!(named, "3.{}: {at:#x}: {error}", of.minor);
        }
    }
}

#[test]
fn a_layout_is_not_that_of_another_version() {
    for of in &ALL {
        for other in &ALL {
            // 3.8 to 3.10 differ in the runtime alone: there the kernel's own
            // comparison with the running thread decides.
            let same = of.minor == other.minor || of.minor.max(other.minor) <= 10;
            if !same {
                let found = locate(&image(of), RUNTIME, other.minor);
                assert!(found.is_err(), "3.{} as 3.{}", of.minor, other.minor);
            }
        }
    }
}

#[test]
fn free_threads_and_unknown_versions_are_named() {
    for of in ALL.iter().filter(|of| of.minor >= 13) {
        let mut words = image(of);
        words.put(RUNTIME + 16, 1);
        let found = locate(&words, RUNTIME, of.minor);
        assert!(matches!(found, Err(PythonError::FreeThreaded)), "{found:?}");
    }
    for minor in [7, 15, 99] {
        let found = locate(&Words::default(), RUNTIME, minor);
        assert!(matches!(found, Err(PythonError::Version(_))), "{found:?}");
    }
}

#[test]
fn lists_without_an_end_are_left() {
    for of in &ALL {
        let mut words = image(of);
        words.put(STATES[1] + 8, STATES[0]);
        assert!(locate(&words, RUNTIME, of.minor).is_ok(), "3.{}", of.minor);
    }
}
