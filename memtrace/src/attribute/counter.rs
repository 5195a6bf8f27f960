//! The counters that runtimes keep for each thread: how far one has advanced.
//!
//! In: what a thread's counter says, and when. Out: the bytes since it was last
//! read. What cannot be (a counter that falls, a step that no processor could
//! make) is no figure: memory that is not what it was taken for must not become
//! bytes in a report.

use std::collections::HashMap;

/// Bytes that a thread can allocate in a nanosecond: every block is written to
/// at least once, and no processor writes faster from one thread.
const BYTES_PER_NS_MAX: u64 = 256;
/// What a step may have beside that, bytes: objects so large that their memory
/// is known to be zero, and the time of a reading that is not that of the
/// counter.
const STEP_BYTES_MAX: u64 = 64 << 30;

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Counters {
    threads: HashMap<u32, Counter>,
    /// Steps that cannot have been.
    pub implausible: u64,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    /// The largest value seen.
    value: u64,
    at_ns: u64,
}

impl Counters {
    /// A thread begins, with nothing allocated.
    pub fn begin(&mut self, tid: u32, ts_ns: u64) {
        let counter = Counter {
            value: 0,
            at_ns: ts_ns,
        };
        self.threads.insert(tid, counter);
    }

    /// A thread has ended; its number may be used again.
    pub fn end(&mut self, tid: u32) {
        self.threads.remove(&tid);
    }

    /// Bytes since the thread's counter was last read; 0 for the first reading
    /// of a thread whose beginning was not seen.
    ///
    /// A runtime's other threads may move a thread's open buffer into its sum at
    /// the very moment of a reading, which then shows the buffer twice. The next
    /// one does not, so a value below the largest one is that or an older
    /// reading, and adds nothing.
    pub fn advance(&mut self, tid: u32, value: u64, ts_ns: u64) -> u64 {
        let now = Counter {
            value,
            at_ns: ts_ns,
        };
        let Some(last) = self.threads.insert(tid, now) else {
            return 0;
        };
        if value <= last.value {
            self.threads.insert(tid, last);
            return 0;
        }
        let step = value - last.value;
        let most = ts_ns
            .saturating_sub(last.at_ns)
            .saturating_mul(BYTES_PER_NS_MAX)
            .saturating_add(STEP_BYTES_MAX);
        if step > most {
            self.threads.insert(tid, last);
            self.implausible += 1;
            return 0;
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_thread_that_was_there_begins_with_its_first_reading() {
        let mut counters = Counters::default();
        assert_eq!(counters.advance(1, 5000, 0), 0);
        assert_eq!(counters.advance(1, 5600, 10), 600);
        counters.begin(2, 20);
        assert_eq!(counters.advance(2, 700, 30), 700);
        counters.end(2);
        assert_eq!(counters.advance(2, 100, 40), 0);
    }

    #[test]
    fn a_buffer_shown_twice_is_counted_once() {
        let mut counters = Counters::default();
        counters.begin(1, 0);
        let total: u64 = [1000, 1900, 1400, 1950, 2000]
            .iter()
            .map(|value| counters.advance(1, *value, 1))
            .sum();
        assert_eq!(total, 2000);
    }

    #[test]
    fn what_cannot_be_is_no_figure() {
        let mut counters = Counters::default();
        counters.begin(1, 0);
        assert_eq!(counters.advance(1, 0x7f12_3456_7890, 1_000_000), 0);
        assert_eq!(counters.implausible, 1);
        assert_eq!(counters.advance(1, 4096, 2_000_000), 4096);
    }

    proptest! {
        #[test]
        fn no_more_than_the_largest_reading(
            readings in proptest::collection::vec((0u32..3, any::<u64>(), any::<u64>()), 0..50),
        ) {
            let mut counters = Counters::default();
            let mut sums = [0u64; 3];
            for tid in 0..3 {
                counters.begin(tid, 0);
            }
            for (tid, value, ts_ns) in readings.iter().copied() {
                sums[tid as usize] += counters.advance(tid, value, ts_ns);
                let largest = readings.iter().filter(|r| r.0 == tid).map(|r| r.1).max();
                prop_assert!(sums[tid as usize] <= largest.unwrap_or(0));
            }
        }
    }
}
