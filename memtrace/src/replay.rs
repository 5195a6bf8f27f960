//! A capture file, from its first chunk to its report.
//!
//! In: a capture. Out: the same report that the live trace ended with.

use std::path::Path;

use crate::{
    analyse::CaptureFacts,
    capture::{CaptureReader, Status},
    failure::Failure,
    pipeline::Pipeline,
    report::Report,
};

/// Reads a capture and reports it.
///
/// # Errors
/// The file cannot be read or is no capture. A capture that is cut or damaged
/// is reported as far as it goes, and says so.
pub fn report(path: &Path) -> Result<Report, Failure> {
    let failed = |error| Failure::reading(&error);
    let mut reader = CaptureReader::open(path).map_err(failed)?;
    let mut pipeline = Pipeline::new(reader.meta().retain_ns);
    let mut events = Vec::new();
    while reader.next_batch(&mut events).map_err(failed)? {
        for event in &events {
            pipeline.event(event);
        }
    }
    pipeline.finish();
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
