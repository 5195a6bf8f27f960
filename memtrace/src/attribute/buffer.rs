//! Blocks into which bytes are received.
//!
//! A loop allocates the buffer for the next connection's bytes before it
//! receives them: until then nothing tells that it has gone on from the
//! connection before. The call that receives names the buffer, which proves for
//! whom the block was allocated, whatever is presumed of the rest.

/// Smallest block that is looked at, bytes: nginx's smallest buffer is as large.
const BUFFER_MIN: u64 = 1024;

/// The latest two blocks of a thread that may be there to receive into.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers([Option<Room>; 2]);

#[derive(Clone, Copy, Debug)]
struct Room {
    addr: u64,
    size: u64,
    with_connection: bool,
}

/// A block into which bytes were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its address.
    pub addr: u64,
    /// It was allocated while a connection was set up, and may be that
    /// connection's.
    pub with_connection: bool,
}

impl Buffers {
    /// The thread was given a block, maybe for a connection that it sets up.
    pub fn given(&mut self, addr: u64, size: u64, with_connection: bool) {
        if size >= BUFFER_MIN {
            let Buffers([earlier, latest]) = self;
            *earlier = latest.replace(Room {
                addr,
                size,
                with_connection,
            });
        }
    }

    /// The thread has given a block back.
    pub fn freed(&mut self, addr: u64) {
        for room in &mut self.0 {
            room.take_if(|room| room.addr == addr);
        }
    }

    /// The block into which bytes were received, if it is one of the latest.
    /// Whatever comes next, neither is a latest block any more.
    pub fn take(&mut self, received: u64) -> Option<Filled> {
        let Buffers(rooms) = std::mem::take(self);
        rooms
            .into_iter()
            .flatten()
            .find(|room| received.wrapping_sub(room.addr) < room.size)
            .map(|room| Filled {
                addr: room.addr,
                with_connection: room.with_connection,
            })
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::event::Addresses;

    use super::*;
    use crate::{
        attribute::{Attributed, Attributor, Claim, How, Owner},
        event::{Data, Direction, Event, EventBody, SocketFact},
        id::{RequestId, SocketId, StreamId},
        message::{ExchangeId, Message},
    };

    /// A loop goes from one connection to the next without a wait: the buffer
    /// is the second one's, what was allocated before it the first one's.
    #[test]
    fn a_block_that_is_received_into_is_for_what_is_received() {
        let mut attributor = Attributor::new();
        let mut out = Vec::new();
        let mut step = |body| {
            let event = Event {
                ts_ns: 1,
                pid: 1,
                tid: 1,
                body,
            };
            attributor.step(&event, &mut out);
        };
        for socket in [1, 2] {
            step(EventBody::Accept(SocketFact {
                socket: SocketId(socket),
                fd: 3,
                addresses: Addresses::default(),
            }));
        }
        let alloc = |addr, size| EventBody::Alloc { addr, size };
        for (socket, buffer) in [(1, 0), (2, 0x4100)] {
            let stream = StreamId::Socket(SocketId(socket));
            let exchange = ExchangeId(0);
            let messages = vec![Message::RequestBegin { exchange }];
            step(EventBody::Messages { stream, messages });
            step(EventBody::Data(Data {
                direction: Direction::Recv,
                stream,
                fd: 3,
                len: 9,
                buffer,
                more: false,
                unreadable: false,
            }));
            step(alloc(0x2000, 2000));
            step(alloc(0x4000, 4000));
        }
        let proven: Vec<&Attributed> = out
            .iter()
            .filter(|fact| matches!(fact, Attributed::BlockProven { .. }))
            .collect();
        let [Attributed::BlockProven { addr, owner, .. }] = proven[..] else {
            panic!("{out:?}");
        };
        let request = RequestId(1);
        let how = How::Received;
        assert_eq!(*owner, Owner::Request(Claim { request, how }));
        assert_eq!(*addr, 0x4000);
    }

    #[test]
    fn a_block_is_found_by_any_address_in_it_once() {
        let mut buffers = Buffers::default();
        buffers.given(0x1000, 4096, true);
        buffers.given(0x4000, 1024, false);
        buffers.given(0x8000, 1023, false);
        let earlier = buffers;
        let filled = Filled {
            addr: 0x1000,
            with_connection: true,
        };
        assert_eq!(buffers.take(0x1fff), Some(filled));
        assert_eq!(buffers.take(0x1fff), None);
        buffers = earlier;
        assert_eq!(buffers.take(0x4400), None);
        buffers = earlier;
        buffers.freed(0x4000);
        assert_eq!(buffers.take(0x4000), None);
        assert_eq!(Buffers::default().take(0), None);
    }
}
