//! Any events get through redaction, attribution, totals and report to every
//! output. If no figure is huge, the report adds up.
#![no_main]

#[path = "../../memtrace/tests/hostile/checks.rs"]
mod checks;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::analyse::CaptureFacts;
use memtrace::pipeline::Pipeline;
use memtrace::redact::Redactor;
use memtrace_fuzz::events::{Bounds, events};

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok((huge, watched)) = input.arbitrary::<(bool, u8)>() else {
        return;
    };
    let bounds = if huge {
        Bounds::None
    } else {
        Bounds::Plausible
    };
    let Ok(events) = events(&mut input, bounds) else {
        return;
    };
    let mut redactor = Redactor::new();
    let mut pipeline = Pipeline::new(1_000_000_000);
    let mut plain = Pipeline::new(1_000_000_000);
    for (index, mut event) in events.into_iter().enumerate() {
        plain.event(&event);
        redactor.event(&mut event);
        pipeline.event(&event);
        if index == usize::from(watched) && !huge {
            checks::adds_up(&pipeline.report(&CaptureFacts::default()));
        }
    }
    pipeline.finish();
    plain.finish();
    let report = pipeline.report(&CaptureFacts::default());
    // Tables of all widths take longer than everything before them.
    let json = if watched % 4 == 0 {
        checks::prints(&report)
    } else {
        checks::to_json(&report)
    };
    if !huge {
        checks::adds_up(&report);
        // Taking private content out takes nothing out of the report.
        let plain = plain.report(&CaptureFacts::default());
        assert_eq!(checks::to_json(&plain), json);
    }
});
