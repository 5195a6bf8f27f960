//! One place at which threads wait for each other, and what was given there.
//!
//! In: who sleeps there, what is given to whomever, who was woken. Out: whose
//! work a woken thread can be doing ([`Given`]).
//!
//! Through a pipe or a pair of sockets each reader gets exactly the bytes that a
//! writer wrote. A futex or an event descriptor only says that there is
//! something in a list that nobody sees. It is taken in the order in which it
//! was given: so a woken thread has what it was woken for, unless another one,
//! woken at the same time or done with something before, was quicker. If there
//! was nothing else to be had in the list, it has it even so. There was nothing
//! else as long as somebody was asleep all the time: whoever had given something
//! would have woken that one, and been seen. (Not where a thread was seen to get
//! several things done for one wake-up meanwhile: there, who gives does not
//! always wake.)

use std::collections::VecDeque;

use memtrace_common::{event::HandoverKind, limits::FUTEX_PAIR};

use crate::{
    attribute::ProcessIndex,
    event::Handover,
    id::{RequestId, WorkId},
};

/// Gifts that nobody took yet, at one place; more are forgotten, and with them
/// what is in the list.
const GIFTS_MAX: usize = 4096;
/// Requests remembered of those that somebody at a place may be working for.
const LOOSE_MAX: usize = 8;

/// Where threads wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Futexes mean something only in their process; the others are the
    /// kernel's.
    pub process: Option<ProcessIndex>,
    /// Through what it hands over.
    pub kind: HandoverKind,
    key: u64,
}

impl Place {
    /// The place that a fact is about.
    pub fn of(process: ProcessIndex, handover: &Handover) -> Place {
        let Handover { key, kind, .. } = *handover;
        match kind {
            HandoverKind::Futex => Place::futex(process, key),
            HandoverKind::Pipe
            | HandoverKind::EventFd
            | HandoverKind::SocketPair
            | HandoverKind::Channel
            | HandoverKind::Stream => Place {
                process: None,
                kind,
                key,
            },
        }
    }

    /// A futex, together with its neighbour.
    pub fn futex(process: ProcessIndex, key: u64) -> Place {
        Place {
            process: Some(process),
            kind: HandoverKind::Futex,
            key: key & !FUTEX_PAIR,
        }
    }

    /// Whether it is read from and written to.
    pub fn is_file(self) -> bool {
        self.kind != HandoverKind::Futex
    }

    /// Whether a reader gets just what a writer wrote.
    pub fn is_exact(self) -> bool {
        match self.kind {
            HandoverKind::Pipe | HandoverKind::SocketPair => true,
            HandoverKind::Futex
            | HandoverKind::EventFd
            | HandoverKind::Channel
            | HandoverKind::Stream => false,
        }
    }
}

/// On whose behalf somebody is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gift {
    /// On nobody's, as far as is known.
    Nobody,
    /// On a request's.
    Request(RequestId),
    /// On behalf of a stretch of work of which nobody knows yet whose it is.
    Work(WorkId),
}

/// Whose work a thread can be doing that was woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nobody's that is known.
    Nothing,
    /// The one for which it was woken.
    Just(Gift),
    /// One of these requests', or that of another one.
    OneOf(Vec<RequestId>),
    /// What remains to be done for a request, or what it has taken since.
    After {
        /// The request.
        request: RequestId,
        /// For which there was something to be taken.
        gifts: Vec<RequestId>,
        /// There was nothing else.
        is_all: bool,
    },
}

impl Given {
    /// Of all this, when nobody else can have had it.
    pub fn of(gifts: Vec<Gift>) -> Given {
        match gifts[..] {
            [] | [Gift::Nobody] => Given::Nothing,
            [gift] => Given::Just(gift),
            _ => Given::one_of(gifts),
        }
    }

    /// Of all this, or of something else.
    pub fn one_of(gifts: Vec<Gift>) -> Given {
        Given::OneOf(requests(gifts))
    }
}

/// Something given that nobody took yet.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// On whose behalf.
    pub gift: Gift,
    /// By which thread.
    pub from: u32,
    /// Bytes, or how often it wakes somebody.
    pub left: u64,
}

/// One place.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Threads that wait.
    pub asleep: Vec<u32>,
    /// What was given and not taken, the oldest first.
    pub parcels: VecDeque<Parcel>,
    /// Threads that were woken and have done nothing since, with what they were
    /// woken for.
    pub fresh: Vec<(u32, Gift)>,
    /// Threads that live here, are awake, and may have taken something else.
    pub free: Vec<u32>,
    /// A thread that did not have to sleep: who would have woken it says so only
    /// now.
    pub early: Option<u32>,
    /// Requests of which it is not known who took them.
    pub loose: Vec<RequestId>,
    /// Since somebody was woken or went, everybody was awake at some time: there
    /// may be something in the list that was not seen to be given.
    pub is_dry: bool,
    /// Several things are given with one wake-up: there may always be something
    /// that was not seen to be given.
    pub is_quiet: bool,
    /// How often everybody was awake.
    pub dry_times: u64,
    /// What is in an exact place is known from its first byte.
    pub is_in_step: bool,
    /// Threads wait here in the middle of something: it puts them in turn.
    pub is_lock: bool,
    /// The thread that has read here last, and whether others do.
    pub reader: Option<u32>,
    pub is_shared: bool,
}

impl Waiting {
    /// Somebody is there.
    pub fn is_in_use(&self) -> bool {
        !self.asleep.is_empty() || !self.fresh.is_empty()
    }

    /// Bytes that are there, or threads that are about to wake up.
    pub fn pending(&self) -> u64 {
        let left = self.parcels.iter().map(|parcel| parcel.left);
        left.fold(0, u64::saturating_add)
    }

    /// Threads that sleep and are not about to wake up.
    pub fn idle(&self) -> u64 {
        (self.asleep.len() as u64).saturating_sub(self.pending())
    }

    /// More is given than there are sleepers: somebody has it who did not have
    /// to be woken.
    pub fn is_owed(&self) -> bool {
        self.pending() > self.asleep.len() as u64
    }

    /// Adds what a thread gives.
    pub fn add(&mut self, parcel: Parcel) {
        self.parcels.push_back(parcel);
        if self.parcels.len() > GIFTS_MAX {
            self.parcels.clear();
            self.is_in_step = false;
        }
        self.look();
    }

    /// Takes note if everybody is awake.
    pub fn look(&mut self) {
        if self.idle() == 0 {
            self.is_dry = true;
            self.dry_times += 1;
        }
    }

    /// What comes with so many bytes, or wake-ups; and whether all of them were
    /// seen to be given.
    pub fn receive(&mut self, amount: u64) -> (Vec<Gift>, bool) {
        let mut gifts = Vec::new();
        let mut wanted = amount;
        while wanted != 0
            && let Some(parcel) = self.parcels.front_mut()
        {
            let taken = parcel.left.min(wanted);
            wanted -= taken;
            parcel.left -= taken;
            if gifts.last() != Some(&parcel.gift) {
                gifts.push(parcel.gift);
            }
            if parcel.left == 0 {
                self.parcels.pop_front();
            }
        }
        (gifts, wanted == 0)
    }

    /// Whose work a thread does that has read these at an exact place, all of
    /// them seen to be given or not. Where several threads read, one may say so
    /// later than another that has read what came behind.
    pub fn read(&mut self, tid: u32, gifts: Vec<Gift>, is_whole: bool) -> Given {
        let is_another = self.reader.replace(tid).is_some_and(|other| other != tid);
        self.is_shared |= is_another || !self.asleep.is_empty();
        if self.is_shared {
            let behind = self.parcels.iter().map(|parcel| parcel.gift);
            let mut others = requests(behind.chain(self.loose.iter().copied().map(Gift::Request)));
            others.retain(|other| !gifts.contains(&Gift::Request(*other)));
            if !others.is_empty() {
                let own = requests(gifts);
                let all: Vec<RequestId> = own.into_iter().chain(others).collect();
                all.iter().for_each(|one| self.lose(Gift::Request(*one)));
                self.calm();
                return Given::OneOf(all);
            }
        }
        self.calm();
        if self.is_in_step && is_whole {
            Given::of(gifts)
        } else {
            Given::one_of(gifts)
        }
    }

    /// Whose work a fresh thread does, now that it does something.
    pub fn settle(&mut self, tid: u32) -> Given {
        let Some(at) = self.fresh.iter().position(|(other, _)| *other == tid) else {
            return Given::Nothing;
        };
        let (_, own) = self.fresh.swap_remove(at);
        let rivals = self.fresh.iter().map(|(_, gift)| *gift);
        let loose = self.loose.iter().map(|request| Gift::Request(*request));
        let others: Vec<Gift> = rivals
            .chain(loose)
            .filter(|gift| *gift != Gift::Nobody && *gift != own)
            .collect();
        let is_rivalled = !self.fresh.is_empty()
            || !self.loose.is_empty()
            || self.free.iter().any(|other| *other != tid);
        let given = if !is_rivalled || (others.is_empty() && !self.is_dry && !self.is_quiet) {
            Given::of(vec![own])
        } else {
            self.lose(own);
            Given::OneOf(requests(std::iter::once(own).chain(others)))
        };
        self.calm();
        given
    }

    /// It is not known who took this.
    pub fn lose(&mut self, gift: Gift) {
        if let Gift::Request(request) = gift
            && !self.loose.contains(&request)
        {
            if self.loose.len() >= LOOSE_MAX {
                self.loose.remove(0);
            }
            self.loose.push(request);
        }
    }

    /// Nobody is about to take anything.
    pub fn is_calm(&self) -> bool {
        self.fresh.is_empty() && self.parcels.is_empty()
    }

    /// Once nobody is about to take anything, all that was given has been taken.
    pub fn calm(&mut self) {
        if self.is_calm() {
            self.loose.clear();
            self.is_dry = self.asleep.is_empty();
        }
    }

    /// What was given and may still be there.
    pub fn gifts(&self) -> impl Iterator<Item = Gift> {
        let given = self.parcels.iter().map(|parcel| parcel.gift);
        given.chain(self.fresh.iter().map(|(_, gift)| *gift))
    }
}

/// The requests among gifts, each once.
pub fn requests(gifts: impl IntoIterator<Item = Gift>) -> Vec<RequestId> {
    let mut requests = Vec::new();
    for gift in gifts {
        if let Gift::Request(request) = gift
            && !requests.contains(&request)
        {
            requests.push(request);
        }
    }
    requests
}
