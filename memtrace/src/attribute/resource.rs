//! Resources of Node, which make each other and have their callbacks run, and the
//! jobs (continuations of promises) that callbacks and jobs make.
//!
//! In: which resources and jobs were made. Out: for whom each works: for whom the
//! callback or job works that made it. What its own callbacks do is known by that,
//! as for any context (`context`); the resource of a connection works for whoever is
//! served by what comes on it. Of jobs that were made for several requests at once
//! each is for one: for the one of which it, or the job that it made last of all,
//! sends bytes.

use super::{
    Attributed, Attributor, Claim, How, Owner,
    strand::{BETWEEN, Origin, StrandId},
};
use crate::id::RequestId;
use memtrace_common::event::ContextKind;

/// Resources or jobs made between two facts that are remembered, the last of them.
const MADE_MAX: u64 = 1024;
/// Jobs that made each other of which the last tells whose they were.
const MAKERS_MAX: u32 = 64;

impl Attributor {
    /// All resources or jobs from `first` to `last` were made by what the thread does.
    pub(super) fn resources_made(
        &mut self,
        pid: u32,
        tid: u32,
        (first, last): (u64, u64),
        kind: ContextKind,
        out: &mut Vec<Attributed>,
    ) {
        let first = first.max(last.saturating_sub(MADE_MAX - 1));
        for made in first..=last {
            self.context_made(pid, tid, made, 0, kind, out);
            if kind == ContextKind::Job {
                self.note_maker(tid, made);
            }
        }
    }

    /// The thread's job has made another one.
    fn note_maker(&mut self, tid: u32, made: u64) {
        if let StrandId::Context(process, maker) = self.strands.current(tid)
            && maker != made
            && let Some(context) = self.strands.context_mut(process, maker)
            && context.kind == ContextKind::Job
        {
            context.makes = context.makes.saturating_add(1);
            if let Some(made) = self.strands.context_mut(process, made) {
                made.maker = Some(maker);
            }
        }
    }

    /// Whether a strand is a job.
    pub(super) fn is_job(&self, strand: StrandId) -> bool {
        match strand {
            StrandId::Context(process, context) => self
                .strands
                .context(process, context)
                .is_some_and(|context| context.kind == ContextKind::Job),
            StrandId::Thread(_) => false,
        }
    }

    /// A job has sent bytes of a request: those that had made it, and no other, were
    /// for the same one.
    pub(super) fn proves_makers(
        &mut self,
        strand: StrandId,
        wrote: RequestId,
        out: &mut Vec<Attributed>,
    ) {
        let StrandId::Context(process, job) = strand else {
            return;
        };
        let claim = Claim {
            request: wrote,
            how: How::Answered,
        };
        let mut next = self.strands.context(process, job).and_then(|job| job.maker);
        for _ in 0..MAKERS_MAX {
            let Some(maker) = next else {
                return;
            };
            let Some(context) = self.strands.context_mut(process, maker) else {
                return;
            };
            let is_its_own = match context.origin {
                Origin::OneOfSeveral | Origin::Work(_) => true,
                // A rule had said so, and another one says otherwise.
                Origin::Request(claimed) => claimed != wrote,
                Origin::Unknown | Origin::Connection(_) | Origin::OneOf(_) | Origin::Shared => {
                    false
                }
            };
            if context.makes != 1 || !is_its_own {
                return;
            }
            context.origin = Origin::Request(wrote);
            next = context.maker;
            let maker = StrandId::Context(process, maker);
            let proven = Some(Owner::Request(claim));
            self.strands.turn(maker, BETWEEN, proven, out);
        }
    }
}
