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
        /// that is, and by which rule.
        follows: Option<(WorkId, How)>,
        /// Requests of which it can be, if nothing better is learnt.
        candidates: Option<[RequestId; 2]>,
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
            candidates: None,
            asked: false,
        }
    }

    /// Work for nobody known.
    pub const fn unknown(reason: Reason) -> Doing {
        Doing::Open {
            work: None,
            presumed: Owner::Reason(reason),
            follows: None,
            candidates: None,
            asked: false,
        }
    }

    /// Work because of a stretch of which nobody knows yet whose it is.
    pub const fn following(work: WorkId, how: How) -> Doing {
        Doing::Open {
            work: None,
            presumed: Owner::Reason(Reason::BetweenRequests),
            follows: Some((work, how)),
            candidates: None,
            asked: false,
        }
    }

    /// Work for one of these requests, if any are known, or for another.
    pub fn one_of(requests: &[RequestId]) -> Doing {
        let candidates = match *requests {
            [] => None,
            [one] => Some([one, one]),
            [first, second, ..] => Some([first, second]),
        };
        Doing::Open {
            work: None,
            presumed: Owner::Reason(Reason::Ambiguous),
            follows: None,
            candidates,
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

    /// The request whose it is if nothing else is learnt.
    pub fn presumed_request(&self) -> Option<RequestId> {
        self.presumed_claim().map(|claim| claim.request)
    }

    /// Whether it was handed over by another thread.
    pub fn is_handed_over(&self) -> bool {
        self.presumed_claim()
            .is_some_and(|claim| claim.how == How::HandedOver)
    }

    /// Whether it comes after a response.
    pub fn is_afterwards(&self) -> bool {
        self.presumed_claim()
            .is_some_and(|claim| claim.how == How::Afterwards)
    }

    /// Whether it is done because of other work.
    pub fn is_following(&self) -> bool {
        matches!(
            self,
            Doing::Open {
                follows: Some(_),
                ..
            }
        )
    }

    /// Whether both are done because of the same other work.
    pub fn follows_the_same(&self, other: &Doing) -> bool {
        match (self, other) {
            (
                Doing::Open {
                    follows: Some((own, _)),
                    ..
                },
                Doing::Open {
                    follows: Some((others, _)),
                    ..
                },
            ) => own == others,
            _ => false,
        }
    }

    /// Whether something was asked of another server.
    pub fn is_asked(&self) -> bool {
        matches!(self, Doing::Open { asked: true, .. })
    }

    fn presumed_claim(&self) -> Option<Claim> {
        match self {
            Doing::Open {
                presumed: Owner::Request(claim),
                ..
            } => Some(*claim),
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
    /// Stretches that wait for the one they follow, with their presumed owner
    /// and the rule by which they follow it.
    waiting: HashMap<WorkId, Vec<(WorkId, Owner, How)>>,
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
    /// another request than the proven one, it is disputed. (A hand-over is no
    /// such claim: what is given to one thread may have been taken by another.)
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
            candidates,
            asked: _,
        } = before
        else {
            return;
        };
        match (presumed, proven) {
            (Owner::Request(claim), Some(Owner::Request(proof))) if claim.how.is_claim() => {
                if claim.request == proof.request {
                    self.settle(work, presumed, out);
                } else if claim.how == How::HandedOver {
                    self.settle(work, Owner::Request(proof), out);
                } else {
                    self.dispute(work, [claim.request, proof.request], out);
                }
            }
            (Owner::Reason(_), Some(owner)) | (_, Some(owner @ Owner::Request(_))) => {
                self.settle(work, owner, out);
            }
            (Owner::Reason(_), None) => match (follows, candidates) {
                (Some((other, how)), _) => match self.owner(other) {
                    None if self.waiting_count < REMEMBERED_MAX => {
                        let waiting = self.waiting.entry(other).or_default();
                        waiting.push((work, presumed, how));
                        self.waiting_count += 1;
                    }
                    Some(owner) => self.settle(work, followed(owner, presumed, how), out),
                    None => self.settle(work, presumed, out),
                },
                (None, Some(candidates)) => self.dispute(work, candidates, out),
                (None, None) => self.settle(work, presumed, out),
            },
            (Owner::Request(_), _) => self.settle(work, presumed, out),
        }
    }

    /// No event follows: what still waits falls to its presumed owner.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        let mut waiting: Vec<(WorkId, Owner, How)> =
            self.waiting.drain().flat_map(|(_, w)| w).collect();
        waiting.sort_unstable_by_key(|(work, _, _)| *work);
        self.waiting_count = 0;
        for (work, owner, _) in waiting {
            out.push(Attributed::WorkSettled { work, owner });
        }
    }

    /// Nothing will tell whose the stretch until now was: one of two requests'.
    pub fn give_up(
        &mut self,
        doing: &mut Doing,
        candidates: [RequestId; 2],
        out: &mut Vec<Attributed>,
    ) {
        if let Doing::Open {
            work: Some(work), ..
        } = std::mem::replace(doing, Doing::one_of(&candidates))
        {
            self.dispute(work, candidates, out);
        }
    }

    fn dispute(&mut self, work: WorkId, candidates: [RequestId; 2], out: &mut Vec<Attributed>) {
        out.push(Attributed::WorkDisputed { work, candidates });
        self.remember(work, Owner::Reason(Reason::Ambiguous), out);
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
            for (waiting, presumed, how) in self.waiting.remove(&work).unwrap_or_default() {
                self.waiting_count -= 1;
                let owner = followed(owner, presumed, how);
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
fn followed(owner: Owner, presumed: Owner, how: How) -> Owner {
    match owner {
        Owner::Request(claim) => Owner::Request(Claim {
            request: claim.request,
            how,
        }),
        Owner::Reason(_) => presumed,
    }
}
