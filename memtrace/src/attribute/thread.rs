//! What each thread works for.
//!
//! A thread works either for a reason that nothing will change, or on a stretch
//! of work that is presumed to be someone's: it is settled when the thread turns
//! to something else, or when something proves whose it was.

use std::collections::HashMap;

use crate::{
    attribute::{Attributed, Claim, Credit, How, Owner, ProcessIndex, Reason},
    id::{RequestId, WorkId},
};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// It works for no request, whatever comes.
    Reason(Reason),
    /// It works for this owner unless something else is learnt.
    Open {
        /// The stretch of work; numbered when it first allocates.
        work: Option<WorkId>,
        /// Its owner if nothing else is learnt.
        presumed: Owner,
    },
}

impl Context {
    /// A stretch of work for a request.
    pub const fn request(request: RequestId, how: How) -> Context {
        Context::Open {
            work: None,
            presumed: Owner::Request(Claim { request, how }),
        }
    }

    /// A stretch of work for nobody known.
    pub const fn unknown(reason: Reason) -> Context {
        Context::Open {
            work: None,
            presumed: Owner::Reason(reason),
        }
    }

    /// Whether nothing better is known than this reason.
    pub fn presumes(&self, reason: Reason) -> bool {
        matches!(self, Context::Open { presumed: Owner::Reason(other), .. } if *other == reason)
    }

    /// The request that a rule says is worked for.
    pub fn claimed(&self) -> Option<RequestId> {
        match self {
            Context::Open {
                presumed: Owner::Request(claim),
                ..
            } if claim.how.is_claim() => Some(claim.request),
            Context::Open { .. } | Context::Reason(_) => None,
        }
    }
}

/// One thread.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessIndex,
    /// What it does.
    pub context: Context,
    /// It has taken part in a connection.
    pub served: bool,
    /// The request of which it received bytes, as long as it has not waited.
    pub reading: Option<Reading>,
}

/// A request that a thread received bytes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which request.
    pub request: RequestId,
    /// The runtime context in which it was received; `None` until it is stated.
    pub context: Option<u64>,
}

/// All threads of the traced processes.
#[derive(Debug, Default)]
pub struct Threads {
    threads: HashMap<u32, Thread>,
    work_next: u32,
}

impl Threads {
    /// The thread; met for the first time with this context if need be.
    pub fn get_or_begin(
        &mut self,
        tid: u32,
        process: ProcessIndex,
        fallback: impl FnOnce() -> Reason,
    ) -> &mut Thread {
        let thread = self.threads.entry(tid).or_insert_with(|| Thread {
            process,
            context: Context::unknown(fallback()),
            served: false,
            reading: None,
        });
        thread.process = process;
        thread
    }

    /// The thread, if it is known.
    pub fn get(&self, tid: u32) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    /// The request that a rule says the thread works for.
    pub fn request_of(&self, tid: u32) -> Option<RequestId> {
        self.threads.get(&tid)?.context.claimed()
    }

    /// Starts a thread with the context of the one that made it.
    pub fn inherit(&mut self, tid: u32, thread: Thread, out: &mut Vec<Attributed>) {
        // A thread that had this id before has ended, seen or not.
        self.end(tid, out);
        self.threads.insert(tid, thread);
    }

    /// To whom an allocation of the thread belongs.
    pub fn credit(&mut self, tid: u32, out: &mut Vec<Attributed>) -> Option<Credit> {
        let thread = self.threads.get_mut(&tid)?;
        Some(match &mut thread.context {
            Context::Reason(reason) => Credit::Reason(*reason),
            Context::Open {
                work: Some(work), ..
            } => Credit::Work(*work),
            Context::Open { work, presumed } => {
                let id = WorkId(self.work_next);
                self.work_next = self.work_next.wrapping_add(1);
                *work = Some(id);
                out.push(Attributed::WorkBegin {
                    work: id,
                    presumed: *presumed,
                });
                Credit::Work(id)
            }
        })
    }

    /// Changes what the thread does. Work that was open belongs to `proven`, or
    /// to its presumed owner if nothing is proven; if a rule had claimed it for
    /// another request than the proven one, it is disputed.
    pub fn turn(
        &mut self,
        tid: u32,
        context: Context,
        proven: Option<Owner>,
        out: &mut Vec<Attributed>,
    ) {
        let Some(thread) = self.threads.get_mut(&tid) else {
            return;
        };
        settle(thread, proven, out);
        thread.context = context;
    }

    /// Notes of which request the thread received bytes.
    pub fn set_reading(&mut self, tid: u32, reading: Option<Reading>) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.reading = reading;
        }
    }

    /// The thread has ended.
    pub fn end(&mut self, tid: u32, out: &mut Vec<Attributed>) {
        if let Some(mut thread) = self.threads.remove(&tid) {
            settle(&mut thread, None, out);
        }
    }

    /// No event follows: every thread's open work is settled.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        let mut tids: Vec<u32> = self.threads.keys().copied().collect();
        tids.sort_unstable();
        for tid in tids {
            self.end(tid, out);
        }
    }

    /// Every thread of a process has ended, but for `except`.
    pub fn end_process(
        &mut self,
        process: ProcessIndex,
        except: Option<u32>,
        out: &mut Vec<Attributed>,
    ) {
        let mut ended: Vec<u32> = self
            .threads
            .iter()
            .filter(|(tid, thread)| thread.process == process && Some(**tid) != except)
            .map(|(tid, _)| *tid)
            .collect();
        ended.sort_unstable();
        for tid in ended {
            self.end(tid, out);
        }
    }
}

fn settle(thread: &mut Thread, proven: Option<Owner>, out: &mut Vec<Attributed>) {
    let Context::Open {
        work: Some(work),
        presumed,
    } = thread.context
    else {
        return;
    };
    let settled = |owner| Attributed::WorkSettled { work, owner };
    out.push(match (presumed, proven) {
        (Owner::Request(claim), Some(Owner::Request(proof))) => {
            if claim.request == proof.request && claim.how.is_claim() {
                settled(presumed)
            } else if claim.request == proof.request || !claim.how.is_claim() {
                settled(Owner::Request(proof))
            } else {
                Attributed::WorkDisputed {
                    work,
                    candidates: [claim.request, proof.request],
                }
            }
        }
        (Owner::Reason(_), Some(owner)) => settled(owner),
        (owner, _) => settled(owner),
    });
}
