//! Whose bytes a call moves on a connection that carries several exchanges at
//! once.
//!
//! In: the requests that the protocol names before the bytes are stated. Out:
//! what that means for whoever moved them. Elsewhere the order of the exchanges
//! tells; here it does not.

use super::{
    Claim, How, Owner, Reason,
    connection::{AfterWrite, Turn},
};
use crate::{event::Direction, id::RequestId};

/// The requests of which bytes are in the calls that are being stated, each in
/// one part or several.
#[derive(Debug, Default)]
pub struct Carried {
    /// In the part that is stated next. Each once, and bounded by the frames of
    /// one call; so are the others.
    part: Vec<RequestId>,
    /// In the parts before it, in either direction.
    received: Vec<RequestId>,
    sent: Vec<RequestId>,
}

impl Carried {
    /// Bytes of this request are among them.
    pub fn add(&mut self, request: RequestId) {
        self.part.push(request);
    }

    /// A part is stated; `more`: it is not the call's last. `is_open` tells
    /// whether a request still has no whole response.
    ///
    /// Bytes of one request say for whom the thread works, received or sent. A
    /// thread that received those of several may work for any of them, and one
    /// that received none for any that is open.
    pub fn turn(
        &mut self,
        direction: Direction,
        more: bool,
        is_open: impl Fn(RequestId) -> bool,
    ) -> Turn {
        let requests = match direction {
            Direction::Recv => &mut self.received,
            Direction::Send => &mut self.sent,
        };
        for request in self.part.drain(..) {
            if !requests.contains(&request) {
                requests.push(request);
            }
        }
        if more {
            return Turn::Stay;
        }
        let requests = std::mem::take(requests);
        match (direction, &requests[..]) {
            (Direction::Recv, [request]) => Turn::To(Owner::Request(Claim {
                request: *request,
                how: How::Received,
            })),
            (Direction::Recv, []) => Turn::Unclear(Reason::ConnectionUpkeep),
            (Direction::Recv, [..]) => Turn::Unclear(Reason::SeveralRequests),
            (Direction::Send, [request]) => {
                let after = if is_open(*request) {
                    AfterWrite::Same
                } else {
                    AfterWrite::Ended
                };
                Turn::Wrote(*request, after)
            }
            (Direction::Send, []) => Turn::Stay,
            (Direction::Send, [..]) => Turn::WroteSeveral,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(direction: Direction, requests: &[u32], open: bool) -> Turn {
        let mut carried = Carried::default();
        for request in requests {
            carried.add(RequestId(*request));
        }
        let turn = carried.turn(direction, false, |_| open);
        // What was told is told of one call alone.
        let next = carried.turn(Direction::Send, false, |_| open);
        assert_eq!(next, Turn::Stay);
        turn
    }

    #[test]
    fn bytes_received_for_one_request_turn_to_it() {
        let claim = Claim {
            request: RequestId(4),
            how: How::Received,
        };
        let owner = Owner::Request(claim);
        assert_eq!(turn(Direction::Recv, &[4, 4], true), Turn::To(owner));
    }

    #[test]
    fn bytes_received_for_several_or_none_leave_it_unclear() {
        let several = Turn::Unclear(Reason::SeveralRequests);
        assert_eq!(turn(Direction::Recv, &[4, 5], true), several);
        let none = Turn::Unclear(Reason::ConnectionUpkeep);
        assert_eq!(turn(Direction::Recv, &[], true), none);
    }

    #[test]
    fn bytes_sent_for_one_request_prove_it() {
        let sent = |open| turn(Direction::Send, &[4], open);
        assert_eq!(sent(true), Turn::Wrote(RequestId(4), AfterWrite::Same));
        assert_eq!(sent(false), Turn::Wrote(RequestId(4), AfterWrite::Ended));
    }

    #[test]
    fn bytes_sent_for_several_or_none_prove_nothing() {
        assert_eq!(turn(Direction::Send, &[4, 5], true), Turn::WroteSeveral);
        assert_eq!(turn(Direction::Send, &[], true), Turn::Stay);
    }

    #[test]
    fn a_call_is_judged_by_all_of_its_parts() {
        let mut carried = Carried::default();
        carried.add(RequestId(4));
        assert_eq!(carried.turn(Direction::Recv, true, |_| true), Turn::Stay);
        // Another thread sends meanwhile.
        carried.add(RequestId(5));
        let sent = carried.turn(Direction::Send, false, |_| true);
        assert_eq!(sent, Turn::Wrote(RequestId(5), AfterWrite::Same));
        carried.add(RequestId(6));
        let several = Turn::Unclear(Reason::SeveralRequests);
        assert_eq!(carried.turn(Direction::Recv, false, |_| true), several);
    }
}
