//! What must hold from the first stage to the last, whatever is fed in: no
//! panic, no byte lost or counted twice, the same report from the same events,
//! live or through a capture, whole or cut.
//!
//! The stages on their own are tested where they are; here they are joined as
//! `record` and `report` join them, without a kernel.

#[path = "hostile/checks.rs"]
mod checks;
#[path = "hostile/events.rs"]
mod events;
#[path = "hostile/model.rs"]
mod model;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use memtrace::analyse::CaptureFacts;
use memtrace::capture::{CaptureMeta, CaptureWriter, Pushed};
use memtrace::dialogue::Dialogue;
use memtrace::event::{Event, EventBody, RawEvent};
use memtrace::pipeline::{Pipeline, RETAIN_NS_DEFAULT};
use memtrace::replay;
use memtrace::report::Report;
use memtrace_common::event::CounterKind;
use proptest::prelude::*;

use checks::{adds_up, prints, to_json};

const KERNEL: &str = "6.1.0-test";

/// Events as everything behind the dialogue sees them.
fn said(events: Vec<RawEvent>) -> Vec<Event> {
    let mut dialogue = Dialogue::new();
    let mut out = Vec::new();
    for raw in events {
        dialogue.step(raw, &mut |event| out.push(event));
    }
    out
}

/// The report of a live trace, without a capture.
fn live_report(events: &[Event]) -> Report {
    let mut pipeline = Pipeline::new(RETAIN_NS_DEFAULT);
    for event in events {
        pipeline.event(event);
    }
    pipeline.finish();
    pipeline.report(&CaptureFacts {
        kernel: KERNEL.to_owned(),
        ..CaptureFacts::default()
    })
}

/// A capture of these events, flushed after every `chunk` of them.
fn capture(events: &[Event], chunk: usize) -> Vec<u8> {
    let meta = CaptureMeta {
        kernel_release: KERNEL.to_owned(),
        retain_ns: RETAIN_NS_DEFAULT,
        ..CaptureMeta::default()
    };
    let mut writer = CaptureWriter::new(Vec::new(), "a vector".to_owned(), &meta, 1 << 30)
        .expect("a vector takes everything");
    for (index, event) in events.iter().enumerate() {
        assert_eq!(writer.push(event).expect("it fits"), Pushed::Taken);
        if index % chunk == chunk - 1 {
            writer.flush().expect("a vector takes everything");
        }
    }
    let (summary, bytes) = writer.finish().expect("a vector takes everything");
    assert_eq!(summary.events, events.len() as u64);
    assert_eq!(summary.bytes, bytes.len() as u64);
    bytes
}

/// A file of this test alone.
fn scratch_file(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    directory.join(format!("{name}-{}.memtrace", std::process::id()))
}

/// Bytes by which a thread's counter says that it has allocated more than it
/// said before; its beginning counts as a reading, if that was seen.
fn counted(counters: &mut HashMap<u32, u64>, event: &Event) -> u64 {
    match event.body {
        EventBody::Fork {
            child_tid,
            process: false,
            ..
        } => {
            counters.insert(child_tid, 0);
        }
        EventBody::Exit { .. } => {
            counters.remove(&event.tid);
        }
        EventBody::Counter {
            kind: CounterKind::ThreadAllocated,
            value,
            peak: _,
        } => {
            let largest = counters.entry(event.tid).or_insert(value);
            let before = *largest;
            *largest = before.max(value);
            return *largest - before;
        }
        _ => {}
    }
    0
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(600))]

    /// Each byte is in one place, at the end and at any moment before it.
    #[test]
    fn no_byte_is_lost_or_counted_twice(events in events::traces(), watched in 0..80_usize) {
        let mut pipeline = Pipeline::new(RETAIN_NS_DEFAULT);
        let (mut bytes, mut blocks) = (0, 0);
        let mut counters = HashMap::new();
        for (index, event) in said(events).into_iter().enumerate() {
            if let EventBody::Alloc { size, .. } = event.body {
                bytes += size;
                blocks += 1;
            }
            if let EventBody::Realloc { addr, size, .. } = event.body
                && addr != 0
            {
                bytes += size;
                blocks += 1;
            }
            if let EventBody::ManagedAlloc { size, .. } = event.body {
                bytes += size;
                blocks += 1;
            }
            bytes += counted(&mut counters, &event);
            pipeline.event(&event);
            if index == watched {
                adds_up(&pipeline.report(&CaptureFacts::default()));
            }
        }
        pipeline.finish();
        let report = pipeline.report(&CaptureFacts::default());
        adds_up(&report);
        prop_assert_eq!(report.totals.alloc_bytes, bytes);
        prop_assert_eq!(report.totals.alloc_count, blocks);
    }

    /// Whatever the types allow gets through every stage and every output, and
    /// through a capture gives the same report.
    #[test]
    fn noise_gets_through_and_a_capture_changes_nothing(
        events in events::noise(),
        chunk in 1..60_usize,
    ) {
        let events = said(events);
        let live = prints(&live_report(&events));
        let file = scratch_file("round-trip");
        std::fs::write(&file, capture(&events, chunk)).expect("a writable target directory");
        let replayed = replay::report(&file).expect("a whole capture");
        std::fs::remove_file(&file).expect("it was written");
        prop_assert_eq!(to_json(&replayed), live);
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// The same events give the same capture and the same report, byte for byte.
    #[test]
    fn the_same_events_give_the_same_bytes(events in events::noise()) {
        let (first, second) = (said(events.clone()), said(events));
        prop_assert_eq!(prints(&live_report(&first)), prints(&live_report(&second)));
        prop_assert_eq!(capture(&first, 50), capture(&second, 50));
    }
}

proptest! {
    #![proptest_config(config(3))]

    /// A capture cut at any byte opens, holds what was flushed before the cut,
    /// and says that it is truncated.
    #[test]
    fn every_cut_of_a_capture_is_reported(events in prop::collection::vec(events::traces(), 3)) {
        let events = said(events.concat());
        let bytes = capture(&events, 40);
        let file = scratch_file("cut");
        std::fs::write(&file, &bytes).expect("a writable target directory");
        let whole = replay::report(&file).expect("a whole capture");
        prop_assert!(!whole.capture.truncated);
        prop_assert_eq!(whole.capture.events, events.len() as u64);
        let cut = OpenOptions::new().write(true).open(&file).expect("it was written");
        let mut last = None;
        for length in (0..bytes.len() as u64).rev() {
            cut.set_len(length).expect("a file can be cut");
            let report = replay::report(&file).expect("a cut capture can be reported");
            prop_assert!(report.capture.truncated, "cut to {} bytes", length);
            prop_assert!(report.capture.damage.is_some(), "cut to {} bytes", length);
            let read = report.capture.events as usize;
            // Whole chunks are there, and nothing else.
            prop_assert!(read == events.len() || read.is_multiple_of(40), "{} events", read);
            if last != Some(read) {
                last = Some(read);
                adds_up(&report);
                let live = live_report(&events[..read]);
                prop_assert_eq!(&report.totals, &live.totals);
                prop_assert_eq!(&report.endpoints, &live.endpoints);
                prop_assert_eq!(&report.unattributed, &live.unattributed);
            }
        }
        prop_assert_eq!(last, Some(0));
        std::fs::remove_file(&file).expect("it was written");
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Of a server that is understood, every figure is exactly what a model of
    /// it says: bytes, blocks, retained, freed, sizes, times, by route and by
    /// reason.
    #[test]
    fn a_servers_requests_have_exactly_their_figures(steps in model::steps()) {
        let (events, expected) = model::run(&steps, RETAIN_NS_DEFAULT);
        let report = live_report(&said(events));
        adds_up(&report);
        let mut figures = model::figures(&report);
        let unknown = &expected.peaks_unknown;
        for name in expected.peaks_may_be_lower.union(unknown) {
            if let (Some(told), Some(model)) = (
                figures.endpoints.get_mut(name),
                expected.figures.endpoints.get(name),
            ) {
                prop_assert!(
                    told.peak_bytes <= model.peak_bytes || unknown.contains(name),
                    "the peak of {}", name
                );
                told.peak_bytes = model.peak_bytes;
            }
        }
        prop_assert_eq!(figures, expected.figures);
    }
}
