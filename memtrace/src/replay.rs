//! A capture file, from its first chunk to its report.
//!
//! In: a capture. Out: the same report that the live trace ended with, or its
//! requests one by one.

use std::{fs::File, io::BufReader, path::Path};

use crate::{
    analyse::CaptureFacts,
    capture::{CaptureReader, Status},
    failure::Failure,
    pipeline::Pipeline,
    report::{Report, RequestRow},
};

type Reader = CaptureReader<BufReader<File>>;

/// Reads a capture and reports it.
///
/// # Errors
/// The file cannot be read or is no capture. A capture that is cut or damaged
/// is reported as far as it goes, and says so.
pub fn report(path: &Path) -> Result<Report, Failure> {
    let mut reader = open(path)?;
    let mut pipeline = Pipeline::new(reader.meta().retain_ns);
    run(&mut reader, &mut pipeline, |_| ())?;
    let (truncated, damage) = match reader.status() {
        Status::Complete => (false, None),
        Status::Reading => (true, None),
        Status::Truncated(words) | Status::Damaged(words) => (true, Some(words.clone())),
    };
    Ok(pipeline.report(&CaptureFacts {
        kernel: reader.meta().kernel_release.clone(),
        truncated,
        damage,
    }))
}

/// Reads a capture and hands over each request when its figures are final, in
/// that order.
///
/// # Errors
/// As [`report`].
pub fn requests(path: &Path, mut take: impl FnMut(&RequestRow)) -> Result<(), Failure> {
    let mut reader = open(path)?;
    let mut pipeline = Pipeline::new(reader.meta().retain_ns);
    pipeline.keep_settled();
    run(&mut reader, &mut pipeline, |pipeline| {
        pipeline.take_settled().iter().for_each(&mut take);
    })
}

fn open(path: &Path) -> Result<Reader, Failure> {
    CaptureReader::open(path).map_err(|error| Failure::reading(&error))
}

/// Every event through the pipeline; `between` is called after each batch and
/// at the end.
fn run(
    reader: &mut Reader,
    pipeline: &mut Pipeline,
    mut between: impl FnMut(&mut Pipeline),
) -> Result<(), Failure> {
    let mut events = Vec::new();
    while reader
        .next_batch(&mut events)
        .map_err(|error| Failure::reading(&error))?
    {
        for event in &events {
            pipeline.event(event);
        }
        between(pipeline);
    }
    pipeline.finish();
    between(pipeline);
    Ok(())
}
