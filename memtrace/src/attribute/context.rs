//! Which request a runtime context works for.
//!
//! An asyncio task, a callback and a call handed to a worker thread each run in
//! a context of their own, copied from the one in which they were made: whoever
//! made it works on behalf of the same request.

use std::collections::{HashMap, VecDeque};

use crate::{attribute::ProcessIndex, id::RequestId};

/// Contexts remembered over all processes; the oldest is forgotten first.
/// About 60 bytes each.
const CONTEXTS_MAX: usize = 65_536;

/// The requests of contexts.
#[derive(Debug, Default)]
pub struct Contexts {
    requests: HashMap<(ProcessIndex, u64), (RequestId, u64)>,
    /// In the order in which they were made, with the number of the making:
    /// an address that was used again has a later number.
    made: VecDeque<(ProcessIndex, u64, u64)>,
    next: u64,
}

impl Contexts {
    /// A context was made by a thread that works for `request`, or for none. A
    /// context that had this address before is gone.
    pub fn made(&mut self, process: ProcessIndex, context: u64, request: Option<RequestId>) {
        let Some(request) = request else {
            self.requests.remove(&(process, context));
            return;
        };
        if self.made.len() >= CONTEXTS_MAX
            && let Some((process, context, number)) = self.made.pop_front()
            && let Some((_, latest)) = self.requests.get(&(process, context))
            && *latest == number
        {
            self.requests.remove(&(process, context));
        }
        let number = self.next;
        self.next += 1;
        self.requests.insert((process, context), (request, number));
        self.made.push_back((process, context, number));
    }

    /// The request that a context works for.
    pub fn request(&self, process: ProcessIndex, context: u64) -> Option<RequestId> {
        self.requests
            .get(&(process, context))
            .map(|(request, _)| *request)
    }

    /// The process has ended or replaced its program.
    pub fn end_process(&mut self, process: ProcessIndex) {
        self.requests.retain(|(other, _), _| *other != process);
        self.made.retain(|(other, _, _)| *other != process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_used_again_belongs_to_its_latest_maker() {
        let mut contexts = Contexts::default();
        let process = ProcessIndex(0);
        contexts.made(process, 16, Some(RequestId(1)));
        contexts.made(process, 16, Some(RequestId(2)));
        assert_eq!(contexts.request(process, 16), Some(RequestId(2)));
        contexts.made(process, 16, None);
        assert_eq!(contexts.request(process, 16), None);
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_only_if_it_is_the_same() {
        let mut contexts = Contexts::default();
        let process = ProcessIndex(0);
        contexts.made(process, 1, Some(RequestId(1)));
        contexts.made(process, 2, Some(RequestId(2)));
        contexts.made(process, 1, Some(RequestId(3)));
        for context in 3..CONTEXTS_MAX as u64 + 2 {
            contexts.made(process, context, Some(RequestId(4)));
        }
        assert_eq!(contexts.request(process, 1), Some(RequestId(3)));
        assert_eq!(contexts.request(process, 2), None);
    }
}
