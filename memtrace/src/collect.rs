//! A live trace, from its source to its report.
//!
//! In: what to trace and where to keep it. Out: a capture file, if asked for,
//! and reports at any time. This is the only place where the stages that touch
//! the outside world meet; it decides nothing about whose an allocation is.

use std::{fs::File, path::Path};

use crate::{
    analyse::CaptureFacts,
    capture::{CaptureMeta, CaptureWriter, Pushed, Summary},
    dialogue::Dialogue,
    event::{Event, EventBody, RawEvent},
    failure::Failure,
    pipeline::Pipeline,
    probe::{
        sys,
        tracer::{TraceOptions, Tracer, own},
    },
    report::Report,
};

/// The name under which events are counted that came after the capture had
/// reached its largest size, until every probe was off.
pub const LOSS_CAPTURE_FULL: &str = "capture_full";

/// Where the capture goes.
#[derive(Clone, Copy, Debug)]
pub struct CaptureOptions<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its largest size, bytes.
    pub max_bytes: u64,
}

/// Everything behind the source: dialogue, capture, pipeline.
struct Sink {
    dialogue: Dialogue,
    rest: Rest,
}

/// Everything behind the dialogue.
struct Rest {
    writer: Option<CaptureWriter<File>>,
    pipeline: Pipeline,
    failed: Option<Failure>,
    /// Events that came after the capture was full.
    refused: u64,
    full: bool,
}

impl Sink {
    fn event(&mut self, raw: RawEvent) {
        let rest = &mut self.rest;
        self.dialogue.step(raw, &mut |event| rest.event(event));
    }
}

impl Rest {
    fn event(&mut self, event: Event) {
        if let Some(writer) = &mut self.writer
            && self.failed.is_none()
        {
            match writer.push(&event) {
                Ok(Pushed::Taken) => {}
                Ok(Pushed::Full) => {
                    // What is not in the capture is not in the live report
                    // either: both show the same trace.
                    self.full = true;
                    self.refused += 1;
                    return;
                }
                Err(error) => self.failed = Some(Failure::writing(&error)),
            }
        }
        self.pipeline.event(&event);
    }
}

/// What a trace ended with.
#[derive(Debug)]
pub struct Ended {
    /// The report that the capture gives as well.
    pub report: Report,
    /// What was written, if anything.
    pub capture: Option<Summary>,
    /// The capture could not be written to its end.
    pub failure: Option<Failure>,
}

/// A trace under way.
pub struct Collector {
    tracer: Option<Tracer>,
    sink: Sink,
    facts: CaptureFacts,
}

impl Collector {
    /// Attaches and begins to measure. `started`: a child that waits to be
    /// traced from its first instruction.
    ///
    /// # Errors
    /// Nothing is attached and no capture is left behind then.
    pub fn start(
        options: TraceOptions,
        retain_ns: u64,
        capture: Option<CaptureOptions<'_>>,
        started: Option<u32>,
        targets: Vec<String>,
    ) -> Result<Collector, Failure> {
        let (kernel, machine) = sys::kernel_and_machine();
        let realtime_ns = sys::realtime_ns();
        let meta = CaptureMeta {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ns: realtime_ns,
            kernel_release: kernel.clone(),
            arch: machine,
            mode: "exact".to_owned(),
            targets,
            realtime_offset_ns: realtime_ns.wrapping_sub(sys::monotonic_ns()) as i64,
            retain_ns,
            ..CaptureMeta::default()
        };
        // The targets first: a mistaken name must not cost an earlier capture.
        let mut early = Vec::new();
        let tracer = Tracer::start(options, started, &mut |event| early.push(event))?;
        let writer = match capture {
            Some(capture) => Some(
                CaptureWriter::create(capture.path, &meta, capture.max_bytes)
                    .map_err(|error| Failure::writing(&error))?,
            ),
            None => None,
        };
        let mut sink = Sink {
            dialogue: Dialogue::new(),
            rest: Rest {
                writer,
                pipeline: Pipeline::new(retain_ns),
                failed: None,
                refused: 0,
                full: false,
            },
        };
        for event in early {
            sink.event(event);
        }
        sink.event(own(0, EventBody::TraceBegin));
        Ok(Collector {
            tracer: Some(tracer),
            sink,
            facts: CaptureFacts {
                kernel,
                ..CaptureFacts::default()
            },
        })
    }

    /// The source, as long as the trace is under way.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Takes in what has happened. Returns whether there may be more already.
    pub fn poll(&mut self) -> bool {
        match &mut self.tracer {
            Some(tracer) => tracer.poll(&mut |event| self.sink.event(event)),
            None => false,
        }
    }

    /// To be called every second: states losses and puts what was taken in on
    /// disk.
    pub fn tick(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.poll_lost(&mut |event| self.sink.event(event));
            self.sink.event(own(0, EventBody::Clock));
        }
        if let Some(writer) = &mut self.sink.rest.writer
            && self.sink.rest.failed.is_none()
            && let Err(error) = writer.flush()
        {
            self.sink.rest.failed = Some(Failure::writing(&error));
        }
    }

    /// Why the trace has to end now, if it has.
    pub fn must_end(&self) -> Option<&'static str> {
        if self.sink.rest.failed.is_some() {
            Some("the capture could not be written")
        } else if self.sink.rest.full {
            Some("the capture reached its largest size (--max-size)")
        } else if self.tracer.as_ref().is_none_or(Tracer::is_over) {
            Some("every traced process has ended")
        } else {
            None
        }
    }

    /// The report of everything so far.
    pub fn report(&self) -> Report {
        self.sink.rest.pipeline.report(&self.facts)
    }

    /// Events taken in so far, and bytes of the capture on disk.
    pub fn progress(&self) -> (u64, u64) {
        let written = self
            .sink
            .rest
            .writer
            .as_ref()
            .map_or(0, |w| w.bytes_written());
        (self.sink.rest.pipeline.events(), written)
    }

    /// Takes every probe off, takes in what they had still stated, and closes
    /// the capture.
    pub fn end(mut self, why: &str) -> Ended {
        // Measuring ends now; taking the probes off takes a while, and what
        // they state meanwhile still counts.
        let end = own(
            0,
            EventBody::TraceEnd {
                why: why.to_owned(),
            },
        );
        if let Some(tracer) = self.tracer.take() {
            tracer.stop(&mut |event| self.sink.event(event));
        }
        if self.sink.rest.refused != 0 {
            let lost = EventBody::Loss {
                cause: LOSS_CAPTURE_FULL.to_owned(),
                total: self.sink.rest.refused,
            };
            self.sink.event(own(0, lost));
        }
        self.sink.event(end);
        self.sink.rest.pipeline.finish();
        let mut capture = None;
        if let Some(writer) = self.sink.rest.writer.take()
            && self.sink.rest.failed.is_none()
        {
            match writer.finish() {
                Ok((summary, _)) => capture = Some(summary),
                Err(error) => self.sink.rest.failed = Some(Failure::writing(&error)),
            }
        }
        Ended {
            report: self.sink.rest.pipeline.report(&self.facts),
            capture,
            failure: self.sink.rest.failed,
        }
    }
}
