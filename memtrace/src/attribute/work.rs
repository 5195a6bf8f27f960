//! Stretches of work: numbered, begun, settled.
//!
//! A stretch is presumed to be someone's and settled once, when whoever did it
//! turns to something else or when something proves whose it was. Work that was
//! done because of another stretch, of which nobody knows yet whose it is,
//! follows that one.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    attribute::{Attributed, Claim, Credit, How, Owner, Reason},
    id::{RequestId, WorkId},
};

/// Stretches of which it is remembered whose they were, and stretches that wait
/// for another to be settled; the oldest are forgotten first. About 100 bytes
/// each.
const REMEMBERED_MAX: usize = 65_536;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Work for no request, whatever comes.
    Reason(Reason),
    /// Work for this owner unless something else is learnt.
    Open {
        /// The stretch; numbered when it first allocates or is first referred
        /// to.
        work: Option<WorkId>,
        /// Its owner if nothing else is learnt.
        presumed: Owner,
        /// The stretch that it was done because of, if nobody knows yet whose
        /// that is.
        follows: Option<WorkId>,
        /// Something was asked of another server: a wait for the answer is part
        /// of it.
        asked: bool,
    },
}

impl Doing {
    /// Work for a request.
    pub const fn request(request: RequestId, how: How) -> Doing {
        Doing::Open {
            work: None,
            presumed: Owner::Request(Claim { request, how }),
            follows: None,
            asked: false,
        }
    }

    /// Work for nobody known.
    pub const fn unknown(reason: Reason) -> Doing {
        Doing::Open {
            work: None,
            presumed: Owner::Reason(reason),
            follows: None,
            asked: false,
        }
    }

    /// Work because of a stretch of which nobody knows yet whose it is.
    pub const fn following(work: WorkId) -> Doing {
        Doing::Open {
            work: None,
            presumed: Owner::Reason(Reason::BetweenRequests),
            follows: Some(work),
            asked: false,
        }
    }

    /// Whether nothing better is known than this reason.
    pub fn presumes(&self, reason: Reason) -> bool {
        matches!(self, Doing::Open { presumed: Owner::Reason(other), .. } if *other == reason)
    }

    /// Whether it is work for nobody known, and because of nobody known.
    pub fn is_nobodys(&self) -> bool {
        let for_nobody =
            self.presumes(Reason::BetweenRequests) || self.presumes(Reason::ConnectionUpkeep);
        for_nobody && matches!(self, Doing::Open { follows: None, .. })
    }

    /// The request that a rule says is worked for.
    pub fn claimed(&self) -> Option<RequestId> {
        match self {
            Doing::Open {
                presumed: Owner::Request(claim),
                ..
            } if claim.how.is_claim() => Some(claim.request),
            Doing::Open { .. } | Doing::Reason(_) => None,
        }
    }

    /// The stretch, if it has been numbered.
    pub fn work(&self) -> Option<WorkId> {
        match self {
            Doing::Open { work, .. } => *work,
            Doing::Reason(_) => None,
        }
    }
}

/// The numbers of stretches, and what is remembered of them.
#[derive(Debug, Default)]
pub struct Works {
    next: u32,
    /// Stretches that something refers to and that are not settled.
    referred: HashSet<WorkId>,
    /// Stretches that wait for the one they follow, with their presumed owner.
    waiting: HashMap<WorkId, Vec<(WorkId, Owner)>>,
    waiting_count: usize,
    /// Whose stretches were that something had referred to.
    settled: HashMap<WorkId, Owner>,
    settled_order: VecDeque<WorkId>,
}

impl Works {
    /// To whom an allocation belongs.
    pub fn credit(&mut self, doing: &mut Doing, out: &mut Vec<Attributed>) -> Credit {
        match doing {
            Doing::Reason(reason) => Credit::Reason(*reason),
            Doing::Open { work, presumed, .. } => Credit::Work(match *work {
                Some(work) => work,
                None => self.number(work, *presumed, out),
            }),
        }
    }

    /// The number of a stretch that something is about to refer to; `None` if
    /// its owner will not change.
    pub fn refer(&mut self, doing: &mut Doing, out: &mut Vec<Attributed>) -> Option<WorkId> {
        let Doing::Open { work, presumed, .. } = doing else {
            return None;
        };
        let work = match *work {
            Some(work) => work,
            None => self.number(work, *presumed, out),
        };
        self.referred.insert(work);
        Some(work)
    }

    /// A number that no other stretch has.
    pub fn next_number(&mut self) -> WorkId {
        let id = WorkId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }

    fn number(
        &mut self,
        work: &mut Option<WorkId>,
        presumed: Owner,
        out: &mut Vec<Attributed>,
    ) -> WorkId {
        let id = self.next_number();
        *work = Some(id);
        out.push(Attributed::WorkBegin { work: id, presumed });
        id
    }

    /// Whose a stretch was that was referred to, if it is settled.
    pub fn owner(&self, work: WorkId) -> Option<Owner> {
        self.settled.get(&work).copied()
    }

    /// Changes what is done. The stretch until now belongs to `proven`, or to
    /// its presumed owner if nothing is proven; if a rule had claimed it for
    /// another request than the proven one, it is disputed.
    pub fn turn(
        &mut self,
        doing: &mut Doing,
        next: Doing,
        proven: Option<Owner>,
        out: &mut Vec<Attributed>,
    ) {
        let before = std::mem::replace(doing, next);
        let Doing::Open {
            work: Some(work),
            presumed,
            follows,
            asked: _,
        } = before
        else {
            return;
        };
        match (presumed, proven) {
            (Owner::Request(claim), Some(Owner::Request(proof))) if claim.how.is_claim() => {
                if claim.request == proof.request {
                    self.settle(work, presumed, out);
                } else {
                    out.push(Attributed::WorkDisputed {
                        work,
                        candidates: [claim.request, proof.request],
                    });
                    self.remember(work, Owner::Reason(Reason::Ambiguous), out);
                }
            }
            (Owner::Reason(_), Some(owner)) | (_, Some(owner @ Owner::Request(_))) => {
                self.settle(work, owner, out);
            }
            (Owner::Reason(_), None) => match follows.map(|other| (other, self.owner(other))) {
                Some((other, None)) if self.waiting_count < REMEMBERED_MAX => {
                    self.waiting
                        .entry(other)
                        .or_default()
                        .push((work, presumed));
                    self.waiting_count += 1;
                }
                Some((_, Some(owner))) => self.settle(work, followed(owner, presumed), out),
                Some((_, None)) | None => self.settle(work, presumed, out),
            },
            (Owner::Request(_), _) => self.settle(work, presumed, out),
        }
    }

    /// No event follows: what still waits falls to its presumed owner.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        let mut waiting: Vec<(WorkId, Owner)> = self.waiting.drain().flat_map(|(_, w)| w).collect();
        waiting.sort_unstable_by_key(|(work, _)| *work);
        self.waiting_count = 0;
        for (work, owner) in waiting {
            out.push(Attributed::WorkSettled { work, owner });
        }
    }

    fn settle(&mut self, work: WorkId, owner: Owner, out: &mut Vec<Attributed>) {
        out.push(Attributed::WorkSettled { work, owner });
        self.remember(work, owner, out);
    }

    /// Keeps in mind whose a stretch was that is referred to, and settles those
    /// that waited for it.
    fn remember(&mut self, work: WorkId, owner: Owner, out: &mut Vec<Attributed>) {
        // As deep as work that hands on work of which nobody knows whose it is:
        // a list instead of calls.
        let mut settled = vec![(work, owner)];
        while let Some((work, owner)) = settled.pop() {
            if !self.referred.remove(&work) {
                continue;
            }
            self.settled.insert(work, owner);
            self.settled_order.push_back(work);
            if self.settled_order.len() > REMEMBERED_MAX
                && let Some(oldest) = self.settled_order.pop_front()
            {
                self.settled.remove(&oldest);
            }
            for (waiting, presumed) in self.waiting.remove(&work).unwrap_or_default() {
                self.waiting_count -= 1;
                let owner = followed(owner, presumed);
                out.push(Attributed::WorkSettled {
                    work: waiting,
                    owner,
                });
                settled.push((waiting, owner));
            }
        }
    }
}

/// Whose work is that was done because of a stretch with this owner.
fn followed(owner: Owner, presumed: Owner) -> Owner {
    match owner {
        Owner::Request(claim) => Owner::Request(Claim {
            request: claim.request,
            how: How::Context,
        }),
        Owner::Reason(_) => presumed,
    }
}
