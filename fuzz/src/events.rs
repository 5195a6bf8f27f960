//! Arbitrary events: every kind, few identities and addresses, so that they
//! meet.

use arbitrary::{Result, Unstructured};
use memtrace::event::{
    Captured, Data, Direction, Event, EventBody, Origin, ProcessFact, RawEvent, SocketFact,
};
use memtrace::id::{ProcessId, SocketId, StreamId};
use memtrace_common::event::{Addresses, ContextKind, WaitKind};

/// How far events may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// Sizes and times of which sums are exact, payloads as the kernel half
    /// states them, no process in the place of one whose end was not seen.
    Plausible,
    /// None but the types'.
    None,
}

/// As many events as the input holds.
pub fn events(input: &mut Unstructured<'_>, bounds: Bounds) -> Result<Vec<RawEvent>> {
    let mut events = Vec::new();
    let mut now_ns = 1_u64 << 40;
    while !input.is_empty() {
        // Mostly short pauses, now and then longer than the retention time.
        let pause: u8 = input.arbitrary()?;
        now_ns = match pause {
            0..=240 => now_ns.wrapping_add(u64::from(pause) * 100),
            241..=252 => now_ns.wrapping_add(400_000_000),
            253 => now_ns.wrapping_sub(5_000),
            _ => now_ns.wrapping_add(number(input, bounds)?),
        };
        let thread: u8 = input.arbitrary()?;
        let (body, captured) = body(input, bounds)?;
        let event = Event {
            ts_ns: now_ns,
            pid: u32::from(thread & 3),
            tid: u32::from(thread >> 2 & 7),
            body,
        };
        events.push(RawEvent { event, captured });
    }
    Ok(events)
}

fn number(input: &mut Unstructured<'_>, bounds: Bounds) -> Result<u64> {
    match bounds {
        Bounds::Plausible => Ok(u64::from(input.arbitrary::<u32>()?)),
        Bounds::None => input.arbitrary(),
    }
}

fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(u64::from(input.arbitrary::<u8>()? % 16) * 0x40)
}

fn id(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(u32::from(input.arbitrary::<u8>()? % 8))
}

fn socket(input: &mut Unstructured<'_>) -> Result<SocketId> {
    Ok(SocketId(u64::from(input.arbitrary::<u8>()? % 4)))
}

fn socket_fact(input: &mut Unstructured<'_>) -> Result<SocketFact> {
    Ok(SocketFact {
        socket: socket(input)?,
        fd: 5,
        addresses: Addresses {
            family: 2,
            ..Addresses::default()
        },
    })
}

fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let length = usize::from(input.arbitrary::<u8>()? % 24).min(input.len());
    Ok(String::from_utf8_lossy(input.bytes(length)?).into_owned())
}

fn data(input: &mut Unstructured<'_>, bounds: Bounds) -> Result<(Data, Captured)> {
    let flags: u8 = input.arbitrary()?;
    let socket = socket(input)?;
    let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
    let mut payload = input.bytes(length)?.to_vec();
    let unreadable = flags & 0x70 == 0x70;
    let mut len = payload.len() as u64;
    let mut tail = Vec::new();
    if flags & 8 != 0 {
        len = match bounds {
            Bounds::Plausible => len + u64::from(input.arbitrary::<u16>()?),
            Bounds::None => input.arbitrary()?,
        };
        let cut = payload.len() as u64 != len && len >= 8;
        if bounds == Bounds::None || cut && !unreadable {
            tail = input.bytes(8.min(input.len()))?.to_vec();
            if bounds == Bounds::Plausible {
                tail.resize(8, 0);
            }
        }
    }
    if unreadable {
        payload.clear();
        if bounds == Bounds::Plausible {
            tail.clear();
        }
    }
    let data = Data {
        direction: if flags & 1 == 0 {
            Direction::Recv
        } else {
            Direction::Send
        },
        stream: match socket.0 {
            3 => StreamId::Tls(0x40),
            _ => StreamId::Socket(socket),
        },
        fd: 5,
        len,
        buffer: address(input)?,
        more: flags & 2 != 0,
        unreadable,
    };
    let captured = Captured {
        payload,
        tail,
        ..Captured::default()
    };
    Ok((data, captured))
}

fn process(input: &mut Unstructured<'_>, bounds: Bounds) -> Result<ProcessFact> {
    let pid = id(input)?;
    let words = text(input)?;
    let start = match bounds {
        Bounds::Plausible => 0,
        Bounds::None => u64::from(id(input)?),
    };
    Ok(ProcessFact {
        process: ProcessId::new(pid, start * ProcessId::TICK_NS),
        parent_pid: id(input)?,
        exe: words.clone(),
        comm: words.clone(),
        runtime: words.clone(),
        allocators: vec![words.clone()],
        tls: Vec::new(),
        origin: *input.choose(&[Origin::Attached, Origin::Joined, Origin::Started])?,
        trouble: vec![words],
        probed_after_ns: number(input, bounds)?,
    })
}

fn body(input: &mut Unstructured<'_>, bounds: Bounds) -> Result<(EventBody, Captured)> {
    let mut captured = Captured::default();
    let body = match input.arbitrary::<u8>()? % 32 {
        0..=4 => EventBody::Alloc {
            addr: address(input)?,
            size: number(input, bounds)?,
        },
        5..=7 => EventBody::Free {
            addr: address(input)?,
        },
        8 | 9 => EventBody::Realloc {
            old: address(input)?,
            addr: address(input)?,
            size: number(input, bounds)?,
            elapsed_ns: number(input, bounds)?,
        },
        10..=17 => {
            let (data, bytes) = data(input, bounds)?;
            captured = bytes;
            EventBody::Data(data)
        }
        18 => EventBody::Accept(socket_fact(input)?),
        19 => EventBody::Connect(socket_fact(input)?),
        20 => EventBody::OpenSocket {
            fact: socket_fact(input)?,
            accepted: input.arbitrary()?,
        },
        21 => EventBody::Shutdown {
            socket: socket(input)?,
            how: id(input)?,
        },
        22 => EventBody::Close {
            socket: socket(input)?,
            fd: 5,
            last: input.arbitrary()?,
        },
        23 => EventBody::SocketError {
            socket: socket(input)?,
            errno: id(input)?,
        },
        24 | 25 => EventBody::Wait {
            kind: *input.choose(&[
                WaitKind::Epoll,
                WaitKind::Poll,
                WaitKind::Select,
                WaitKind::Accept,
            ])?,
            descriptors: id(input)?,
        },
        26 => EventBody::Fork {
            child_pid: id(input)?,
            child_tid: id(input)?,
            start_ns: number(input, bounds)?,
            process: input.arbitrary()?,
            followed: bounds == Bounds::None && input.arbitrary()?,
        },
        27 => EventBody::Exec {
            start_ns: number(input, bounds)?,
        },
        28 => EventBody::Exit {
            process: input.arbitrary()?,
        },
        29 => EventBody::Process(process(input, bounds)?),
        30 => EventBody::Loss {
            cause: text(input)?,
            total: number(input, bounds)?,
        },
        _ => match id(input)? {
            0 => EventBody::Mapped,
            1 => EventBody::CgroupMove,
            5 => EventBody::Clock,
            2 => EventBody::TraceEnd { why: text(input)? },
            3 => EventBody::Context {
                context: address(input)?,
                entered: 1,
                kind: ContextKind::Python,
            },
            4 => EventBody::ContextMade {
                context: address(input)?,
                parent: 0,
                kind: ContextKind::Python,
            },
            6 => EventBody::TlsEnd { session: 0x40 },
            7 => EventBody::TlsCall {
                session: 0x40,
                fd: input.int_in_range(-1..=5)?,
                handshake: input.arbitrary()?,
            },
            _ => EventBody::TraceBegin,
        },
    };
    Ok((body, captured))
}
