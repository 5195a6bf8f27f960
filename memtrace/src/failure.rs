//! Why a command failed, and the exit code that says so.

use thiserror::Error;

use crate::{
    capture::CaptureError,
    probe::{load::LoadError, tracer::TraceError},
};

/// A failed command. Each variant has an exit code of its own, which scripts
/// may rely on.
#[derive(Debug, Error)]
pub enum Failure {
    /// 1: anything else.
    #[error("{0}")]
    Other(String),
    /// 2: the command line cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// 3: there is no such target, or it is gone.
    #[error("{0}")]
    NoTarget(String),
    /// 4: not permitted.
    #[error("{0}")]
    NotPermitted(String),
    /// 5: the kernel lacks something.
    #[error("{0}")]
    Kernel(String),
    /// 6: the output cannot be written.
    #[error("{0}")]
    Output(String),
    /// 7: another memtrace traces a target.
    #[error("{0}")]
    AlreadyTraced(String),
    /// 8: there is no allocator to probe.
    #[error("{0}")]
    NothingToProbe(String),
    /// 9: the capture cannot be read.
    #[error("{0}")]
    Capture(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Other(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NoTarget(_) => 3,
            Failure::NotPermitted(_) => 4,
            Failure::Kernel(_) => 5,
            Failure::Output(_) => 6,
            Failure::AlreadyTraced(_) => 7,
            Failure::NothingToProbe(_) => 8,
            Failure::Capture(_) => 9,
        }
    }

    /// A failure to write the capture.
    pub fn writing(error: &CaptureError) -> Self {
        Failure::Output(error.to_string())
    }

    /// A failure to read a capture.
    pub fn reading(error: &CaptureError) -> Self {
        Failure::Capture(error.to_string())
    }
}

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        let text = error.to_string();
        match error {
            TraceError::NotRoot(_) | TraceError::PidNamespace => Failure::NotPermitted(text),
            TraceError::Target(_) | TraceError::Empty(_) | TraceError::Examine { .. } => {
                Failure::NoTarget(text)
            }
            TraceError::Load(error) => match error {
                LoadError::Object { .. } => Failure::Usage(text),
                LoadError::NoBtf(_) | LoadError::Btf(_) | LoadError::Refused(_) => {
                    Failure::Kernel(text)
                }
            },
            TraceError::Attach(_) | TraceError::NoTracepoints(_) => Failure::Kernel(text),
            TraceError::Locked(_) => Failure::AlreadyTraced(text),
            TraceError::NoAllocator(_) => Failure::NothingToProbe(text),
        }
    }
}
