//! Any events get through dialogue, attribution, totals and report to every
//! output. If no figure is huge, the report adds up.
#![no_main]

#[path = "../../memtrace/tests/hostile/checks.rs"]
mod checks;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::analyse::CaptureFacts;
use memtrace::dialogue::Dialogue;
use memtrace::pipeline::Pipeline;
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
    let mut dialogue = Dialogue::new();
    let mut pipeline = Pipeline::new(1_000_000_000);
    for (index, raw) in events.into_iter().enumerate() {
        dialogue.step(raw, &mut |event| pipeline.event(&event));
        if index == usize::from(watched) && !huge {
            checks::adds_up(&pipeline.report(&CaptureFacts::default()));
        }
    }
    pipeline.finish();
    let report = pipeline.report(&CaptureFacts::default());
    // Tables of all widths take longer than everything before them.
    if watched % 4 == 0 {
        checks::prints(&report);
    }
    if !huge {
        checks::adds_up(&report);
    }
});
