//! Attribute → store → analyse, for live events and for replay alike.
//!
//! In: events. Out: a report at any time. Whoever drives it decides where the
//! events come from.

use crate::{
    analyse::{self, CaptureFacts},
    attribute::{Attributed, Attributor},
    event::Event,
    report::{Report, RequestRow},
    store::Store,
};

/// How long after its request's end a block must be live to count as retained,
/// unless the user says otherwise, ns.
pub const RETAIN_NS_DEFAULT: u64 = 1_000_000_000;

/// The stages from events to totals.
#[derive(Debug)]
pub struct Pipeline {
    attributor: Attributor,
    store: Store,
    facts: Vec<Attributed>,
}

impl Pipeline {
    /// An empty pipeline. `retain_ns`: see [`RETAIN_NS_DEFAULT`].
    pub fn new(retain_ns: u64) -> Self {
        Pipeline {
            attributor: Attributor::new(),
            store: Store::new(retain_ns),
            facts: Vec::new(),
        }
    }

    /// Has every request kept, when its figures are final, until
    /// [`Pipeline::take_settled`].
    pub fn keep_settled(&mut self) {
        self.store.keep_settled();
    }

    /// The requests whose figures became final since the last call.
    pub fn take_settled(&mut self) -> Vec<RequestRow> {
        let settled = self.store.take_settled();
        settled.into_iter().map(analyse::request).collect()
    }

    /// Takes in one event.
    pub fn event(&mut self, event: &Event) {
        self.store.advance(event.ts_ns);
        self.attributor.step(event, &mut self.facts);
        self.apply();
    }

    /// The trace is over: what was still open is settled.
    pub fn finish(&mut self) {
        self.attributor.finish(&mut self.facts);
        self.apply();
        self.store.finish();
    }

    /// Events taken in.
    pub fn events(&self) -> u64 {
        self.store.events()
    }

    /// The report of everything so far.
    pub fn report(&self, facts: &CaptureFacts) -> Report {
        analyse::report(&self.store, facts)
    }

    fn apply(&mut self) {
        for fact in self.facts.drain(..) {
            self.store.apply(fact);
        }
    }
}
