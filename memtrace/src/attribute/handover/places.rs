//! Where each thread waits, and where it gets its work.
//!
//! In: who sleeps where, who wakes whom on whose behalf, who was woken, who is
//! done. Out: what a thread has turned to ([`Taken`]). What threads do is known
//! elsewhere.

use std::collections::HashMap;

use memtrace_common::event::HandoverKind;

use super::place::{Gift, Given, Parcel, Place, Waiting, requests};
use crate::{attribute::ProcessIndex, event::Handover, id::RequestId};

/// Places remembered over all processes, about 300 bytes each; at the limit
/// those at which nobody waits are forgotten.
const PLACES_MAX: usize = 16_384;
/// Threads remembered, of about 100 bytes: twice as many as are followed. At the
/// limit those that are nowhere are forgotten.
const THREADS_MAX: usize = 131_072;

/// What a thread that was woken has turned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whose work it can be doing.
    pub given: Given,
    /// It had nothing else to do.
    pub was_idle: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Asleep(Place),
    Fresh(Place),
    /// It works, and who woke it is yet to be heard of.
    Early(Place),
    /// It knows what it was given.
    Has(Given),
    /// It is done with this request, and may have taken something else at home
    /// if that was given since, or if somebody could have given it unseen:
    /// everybody was awake there so many times until then. Without a home, it
    /// may have taken anything.
    Done(RequestId, u64),
}

#[derive(Debug, Default)]
struct Known {
    state: Option<State>,
    was_idle: bool,
    /// Where it gets its work.
    home: Option<Place>,
    /// The place to which it may still be writing what it was said to give.
    writing: Option<Place>,
    /// Where it slept in the middle of a request.
    slept: Option<(Place, RequestId)>,
    /// It was seen to wait for work.
    waited: bool,
    /// How often it has told others of what it was given, and how often
    /// everybody had been awake at home when it first did.
    told: u32,
    told_at: u64,
    /// It waits for new events, or has nothing else to do since it did.
    polls: bool,
    /// It has given a request to someone else since it last waited.
    gave: bool,
}

/// All places, and where threads are.
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<Place, Waiting>,
    threads: HashMap<u32, Known>,
}

impl Places {
    /// The thread is about to wait.
    pub fn sleeps(&mut self, tid: u32, place: Place, is_idle: bool) {
        self.leave(tid);
        let known = self.known(tid);
        known.was_idle = is_idle;
        known.waited |= is_idle;
        let Some(last) = self
            .enter(place)
            .map(|waiting| waiting.parcels.back().copied())
        else {
            return;
        };
        let last = last.filter(|last| {
            let writer = self.threads.get(&last.from);
            writer.is_some_and(|writer| writer.writing == Some(place))
        });
        let Some(waiting) = self.places.get_mut(&place) else {
            return;
        };
        if place.is_file() {
            // A reader waits when there is nothing, but for what is just being
            // written.
            waiting.parcels.clear();
            waiting.parcels.extend(last);
            waiting.is_in_step = true;
        }
        waiting.asleep.push(tid);
        waiting.is_dry &= !waiting.is_calm();
        self.known(tid).state = Some(State::Asleep(place));
    }

    /// Whether the thread wakes the next one after it has itself taken what it
    /// was woken for.
    pub fn passes_on(&mut self, tid: u32, place: Place) -> bool {
        let state = self.threads.get(&tid).and_then(|known| known.state.clone());
        match state {
            Some(State::Fresh(at)) if at == place => {
                let given = self.settle(tid, at);
                self.known(tid).state = Some(State::Has(given));
                true
            }
            _ => false,
        }
    }

    /// The thread wakes whoever waits. Returns a thread that works on what is
    /// given already: it had not needed to sleep.
    pub fn give(&mut self, tid: u32, place: Place, what: &Handover, gift: Gift) -> Option<u32> {
        let known = self.known(tid);
        known.gave |= gift != Gift::Nobody;
        known.writing = place.is_file().then_some(place);
        let waiting = self.enter(place)?;
        let early = waiting.early.take();
        let mut left = u64::from(what.amount);
        if place.is_file() {
            if what.alone && !waiting.is_in_step {
                waiting.parcels.clear();
                waiting.is_in_step = true;
            }
        } else {
            // Who fell asleep before the trace began was not seen to.
            left = left.min(waiting.asleep.len().max(1) as u64);
        }
        if left != 0 {
            let from = tid;
            waiting.add(Parcel { gift, from, left });
        }
        early
    }

    /// What the thread has just said to give was not given.
    pub fn take_back(&mut self, tid: u32, place: Place) {
        let Some(waiting) = self.places.get_mut(&place) else {
            return;
        };
        match waiting
            .parcels
            .iter()
            .rposition(|parcel| parcel.from == tid)
        {
            Some(at) if !place.is_exact() => {
                waiting.parcels.remove(at);
                waiting.calm();
            }
            // A part of it may have been written.
            _ => waiting.is_in_step = false,
        }
    }

    /// The thread's wait is over.
    pub fn woken(&mut self, tid: u32, place: Place, what: &Handover, is_idle: bool) {
        self.leave(tid);
        let Some(waiting) = self.enter(place) else {
            return;
        };
        if waiting.is_lock {
            waiting.receive(1);
            return;
        }
        let has_slept = place.kind != HandoverKind::Futex || what.amount != 0;
        let state = if !has_slept && waiting.is_calm() {
            waiting.early = Some(tid);
            State::Early(place)
        } else if !has_slept && !waiting.is_owed() {
            waiting.fresh.push((tid, Gift::Nobody));
            State::Fresh(place)
        } else {
            let (gifts, is_whole) = waiting.receive(u64::from(what.amount.max(1)));
            if place.is_exact() {
                State::Has(waiting.read(tid, gifts, is_whole))
            } else if let [] | [_] = gifts[..] {
                let gift = gifts.first().copied().unwrap_or(Gift::Nobody);
                waiting.fresh.push((tid, gift));
                State::Fresh(place)
            } else {
                gifts.iter().for_each(|gift| waiting.lose(*gift));
                State::Has(Given::one_of(gifts))
            }
        };
        waiting.look();
        let is_home = matches!(&state, State::Has(given) if *given != Given::Nothing);
        let known = self.known(tid);
        known.state = Some(state);
        known.was_idle = is_idle;
        known.waited |= is_idle;
        known.polls &= !is_idle;
        known.gave = false;
        known.told = 0;
        if is_home {
            known.home = Some(place);
        }
    }

    /// The wait of a thread that is in the middle of something is over: it goes on
    /// with that.
    pub fn woken_within(&mut self, tid: u32, place: Place, what: &Handover) {
        self.leave(tid);
        if let Some(waiting) = self.enter(place) {
            waiting.receive(u64::from(what.amount));
        }
    }

    /// A thread that waits for many things reads what woke it: on behalf of which
    /// requests.
    pub fn polled(&mut self, tid: u32, place: Place, what: &Handover) -> Vec<RequestId> {
        self.leave(tid);
        let Some(waiting) = self.enter(place) else {
            return Vec::new();
        };
        let (gifts, _) = waiting.receive(u64::from(what.amount));
        requests(gifts)
    }

    /// What a thread is doing that was woken or done with something, now that it
    /// does something; `None` if there is nothing new.
    pub fn take(&mut self, tid: u32) -> Option<Taken> {
        let known = self.threads.get_mut(&tid)?;
        known.writing = None;
        let was_idle = known.was_idle;
        let home = known.home;
        let given = match known.state.take()? {
            State::Early(place) => {
                known.state = Some(State::Early(place));
                return None;
            }
            State::Has(given) => given,
            State::Fresh(place) => self.settle(tid, place),
            State::Asleep(place) => {
                // Its wait has ended without its having been woken.
                let waiting = self.places.get_mut(&place)?;
                waiting.asleep.retain(|other| *other != tid);
                waiting.look();
                if place.kind != HandoverKind::Futex || !waiting.is_owed() {
                    return None;
                }
                let gift = waiting.receive(1).0.pop()?;
                waiting.fresh.push((tid, gift));
                self.settle(tid, place)
            }
            State::Done(request, times) => {
                let Some(waiting) = home.and_then(|home| self.places.get(&home)) else {
                    let given = Given::After {
                        request,
                        gifts: Vec::new(),
                        is_all: false,
                    };
                    return Some(Taken { given, was_idle });
                };
                let is_all = waiting.dry_times == times && waiting.idle() != 0 && !waiting.is_quiet;
                let gifts = requests(waiting.gifts());
                if is_all && gifts.is_empty() {
                    known.state = Some(State::Done(request, times));
                    return None;
                }
                Given::After {
                    request,
                    gifts,
                    is_all,
                }
            }
        };
        Some(Taken { given, was_idle })
    }

    fn settle(&mut self, tid: u32, place: Place) -> Given {
        let Some(waiting) = self.places.get_mut(&place) else {
            return Given::Nothing;
        };
        let given = waiting.settle(tid);
        if given != Given::Nothing {
            self.known(tid).home = Some(place);
        }
        given
    }

    /// The thread is done with what it was given, and may take something else
    /// where it gets its work.
    pub fn done(&mut self, tid: u32) {
        self.leave(tid);
        if let Some(waiting) = self.unseen_home(tid) {
            waiting.free.push(tid);
        }
    }

    /// The thread has told another one about what it was given. Without having been
    /// woken meanwhile it tells of something else.
    pub fn tells(&mut self, tid: u32) {
        let Some(times) = self.unseen_home(tid).map(|waiting| waiting.dry_times) else {
            return;
        };
        let known = self.known(tid);
        known.told += 1;
        if known.told == 1 {
            known.told_at = times;
        } else if known.told_at == times
            && let Some(waiting) = self.unseen_home(tid)
        {
            waiting.is_quiet = true;
        }
    }

    /// The thread has told another one about what it was given, the request's: it
    /// may be done with it.
    pub fn reported(&mut self, tid: u32, request: RequestId) {
        self.done(tid);
        let has_home = self.threads.get(&tid).is_some_and(|it| it.home.is_some());
        let times = match self.unseen_home(tid) {
            Some(waiting) => waiting.dry_times,
            None if has_home => return,
            None => 0,
        };
        let known = self.known(tid);
        known.state = Some(State::Done(request, times));
        known.was_idle = true;
    }

    /// Where the thread gets its work, if it can do so unseen.
    fn unseen_home(&mut self, tid: u32) -> Option<&mut Waiting> {
        let home = self.threads.get(&tid)?.home?;
        if home.is_exact() {
            return None;
        }
        self.places.get_mut(&home)
    }

    /// Whether the thread may be done with what it was given, and has done
    /// nothing since.
    pub fn is_done(&self, tid: u32) -> bool {
        let known = self.threads.get(&tid);
        known.is_some_and(|known| matches!(known.state, Some(State::Done(..))))
    }

    /// The thread works for someone who is known.
    pub fn busy(&mut self, tid: u32) {
        self.leave(tid);
    }

    /// Whether the thread gets its work there; `None` if nobody knows where it
    /// does.
    pub fn is_home(&self, tid: u32, place: Place) -> Option<bool> {
        let home = self.threads.get(&tid)?.home?;
        Some(home == place)
    }

    /// The thread begins to wait for new events.
    pub fn polls(&mut self, tid: u32) {
        self.leave(tid);
        let known = self.known(tid);
        known.polls = true;
        known.gave = false;
    }

    /// Whether the thread's last wait was for new events.
    pub fn has_polled(&self, tid: u32) -> bool {
        self.threads.get(&tid).is_some_and(|known| known.polls)
    }

    /// Whether the thread was seen to wait for work.
    pub fn has_waited(&self, tid: u32) -> bool {
        self.threads.get(&tid).is_some_and(|known| known.waited)
    }

    /// Whether the thread has given a request to someone else since it last
    /// waited for new events.
    pub fn has_given(&self, tid: u32) -> bool {
        self.threads.get(&tid).is_some_and(|known| known.gave)
    }

    /// The thread sleeps there in the middle of a request.
    pub fn sleeps_within(&mut self, tid: u32, place: Place, request: RequestId) {
        self.known(tid).slept = Some((place, request));
    }

    /// The request in the middle of which somebody waits there who is handed no
    /// work anywhere, if nobody else does: for what this thread, which is, does.
    pub fn awaited(&self, tid: u32, place: Place) -> Option<RequestId> {
        self.threads.get(&tid)?.home?;
        let [waiting] = self.places.get(&place)?.asleep[..] else {
            return None;
        };
        let waiting = self.threads.get(&waiting)?;
        let (at, request) = waiting.slept?;
        (at == place && waiting.home.is_none()).then_some(request)
    }

    /// The thread goes on with a request: wherever it slept in the middle of it
    /// is a lock, at which nothing is handed over.
    pub fn goes_on(&mut self, tid: u32, request: RequestId) {
        let slept = self
            .threads
            .get_mut(&tid)
            .and_then(|known| known.slept.take());
        if let Some((place, of)) = slept
            && of == request
            && let Some(waiting) = self.places.get_mut(&place)
        {
            waiting.is_lock = true;
        }
    }

    /// A block of memory is given back: what had been a futex at its beginning
    /// is none any more.
    pub fn forget(&mut self, process: ProcessIndex, address: u64) {
        let place = Place::futex(process, address);
        if let Some(waiting) = self.places.get(&place)
            && !waiting.is_in_use()
        {
            self.places.remove(&place);
        }
    }

    /// The thread has ended.
    pub fn end_thread(&mut self, tid: u32) {
        self.leave(tid);
        self.threads.remove(&tid);
    }

    /// The process has ended or replaced its program.
    pub fn end_process(&mut self, process: ProcessIndex) {
        self.places
            .retain(|place, _| place.process != Some(process));
    }

    /// The thread is not where it was.
    fn leave(&mut self, tid: u32) {
        let Some(known) = self.threads.get_mut(&tid) else {
            return;
        };
        known.writing = None;
        let state = known.state.take();
        if let Some(waiting) = known.home.and_then(|home| self.places.get_mut(&home)) {
            waiting.free.retain(|other| *other != tid);
        }
        if let Some(State::Asleep(place) | State::Fresh(place) | State::Early(place)) = state
            && let Some(waiting) = self.places.get_mut(&place)
        {
            waiting.asleep.retain(|other| *other != tid);
            waiting.early = waiting.early.filter(|early| *early != tid);
            waiting.fresh.retain(|(other, _)| *other != tid);
            waiting.calm();
        }
    }

    fn known(&mut self, tid: u32) -> &mut Known {
        if self.threads.len() >= THREADS_MAX {
            self.threads.retain(|_, known| known.state.is_some());
        }
        self.threads.entry(tid).or_default()
    }

    fn enter(&mut self, place: Place) -> Option<&mut Waiting> {
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&place) {
            self.places.retain(|_, waiting| waiting.is_in_use());
            if self.places.len() >= PLACES_MAX {
                return None;
            }
        }
        Some(self.places.entry(place).or_default())
    }
}
