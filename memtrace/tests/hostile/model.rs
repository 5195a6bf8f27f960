//! A single-threaded server that serves several connections at once, and what
//! memtrace must say of it.
//!
//! In: [`Step`]s. Out: the events of a server that takes them, and the figures
//! of the report, computed from the steps by rules of the model's own: the
//! server knows what it works for at every moment, and each block has one owner.
//! Steps that make no sense where they stand are left out.

use std::collections::{BTreeMap, BTreeSet};

use memtrace::event::{
    Captured, Data, Direction, Event, EventBody, Origin, ProcessFact, RawEvent, SocketFact,
};
use memtrace::id::{ProcessId, SocketId, StreamId};
use memtrace::report::Report;
use memtrace_common::event::{Addresses, WaitKind};
use proptest::collection::vec;
use proptest::prelude::*;

const CONNECTIONS: usize = 4;
const SLOTS: usize = 12;
const PID: u32 = 300;

/// A request and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub enum Asks {
    /// `GET` of a route with a number in it.
    Get(u8),
    /// `POST` with a body that comes by itself.
    Upload(u8),
    /// `POST` of which only half of the body ever comes.
    HalfUpload,
    /// The head stops in the middle for good.
    HalfHead,
    /// The head makes no sense.
    Malformed,
}

/// What the server or a client does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A connection is accepted.
    Accept(usize),
    /// A request arrives on an idle connection, in pieces of this size.
    Request(usize, Asks, usize),
    /// The request of this connection is answered with this body, in two calls
    /// or one.
    Respond(usize, usize, bool),
    /// The connection is closed.
    Close(usize),
    /// A block is allocated, unless the slot holds one.
    Alloc(usize, u64),
    /// The slot's block is freed.
    Free(usize),
    /// The slot's block is reallocated.
    Realloc(usize, u64),
    /// The server waits for events.
    Wait,
    /// Time passes, ns, and is stated.
    Pause(u64),
}

/// Steps of a server's life.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let connection = || 0..CONNECTIONS;
    let slot = || 0..SLOTS;
    let asks = prop_oneof![
        8 => (0..3_u8).prop_map(Asks::Get),
        3 => (0..3_u8).prop_map(Asks::Upload),
        1 => Just(Asks::HalfUpload),
        1 => Just(Asks::HalfHead),
        1 => Just(Asks::Malformed),
    ];
    let step = prop_oneof![
        4 => connection().prop_map(Step::Accept),
        8 => (connection(), asks, 20..80_usize)
            .prop_map(|(connection, asks, piece)| Step::Request(connection, asks, piece)),
        8 => (connection(), 0..300_usize, any::<bool>())
            .prop_map(|(connection, body, split)| Step::Respond(connection, body, split)),
        2 => connection().prop_map(Step::Close),
        14 => (slot(), 0..100_000_u64).prop_map(|(slot, size)| Step::Alloc(slot, size)),
        8 => slot().prop_map(Step::Free),
        3 => (slot(), 1..100_000_u64).prop_map(|(slot, size)| Step::Realloc(slot, size)),
        5 => Just(Step::Wait),
        1 => (0..1_500_000_000_u64).prop_map(Step::Pause),
    ];
    vec(step, 0..120)
}

/// The figures of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointFigures {
    requests: u64,
    in_flight: u64,
    complete: u64,
    no_response: u64,
    alloc_bytes: u64,
    alloc_count: u64,
    free_bytes: u64,
    free_count: u64,
    retained_bytes: u64,
    /// Compared by itself: see [`Expected::peaks_may_be_lower`].
    pub peak_bytes: u64,
    request_bytes: u64,
    response_bytes: u64,
    duration_ns: u64,
}

/// What is compared of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// By method and route.
    pub endpoints: BTreeMap<String, EndpointFigures>,
    /// Bytes, blocks, and bytes still live.
    reasons: BTreeMap<String, (u64, u64, u64)>,
    live_bytes: u64,
    malformed: u64,
}

/// What a report must say.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// All figures.
    pub figures: Figures,
    /// Endpoints with a request of which a block was freed while it was not
    /// clear whose work that was: its peak may be reported too low, never too
    /// high.
    pub peaks_may_be_lower: BTreeSet<String>,
    /// Endpoints with requests that lost work to another.
    pub peaks_unknown: BTreeSet<String>,
}

/// These figures of a report.
pub fn figures(report: &Report) -> Figures {
    let endpoint = |e: &memtrace::report::Endpoint| EndpointFigures {
        requests: e.requests,
        in_flight: e.in_flight,
        complete: e.outcomes.complete,
        no_response: e.outcomes.no_response,
        alloc_bytes: e.alloc_bytes.total,
        alloc_count: e.alloc_count.total,
        free_bytes: e.free_bytes,
        free_count: e.free_count,
        retained_bytes: e.retained_bytes.total,
        peak_bytes: e.peak_bytes.total,
        request_bytes: e.request_bytes.total,
        response_bytes: e.response_bytes.total,
        duration_ns: e.duration_ns.total,
    };
    Figures {
        endpoints: (report.endpoints.iter())
            .map(|e| (format!("{} {}", e.method, e.route), endpoint(e)))
            .collect(),
        reasons: (report.unattributed.by_reason.iter())
            .map(|(name, r)| (name.clone(), (r.alloc_bytes, r.alloc_count, r.live_bytes)))
            .collect(),
        live_bytes: report.totals.live_bytes,
        malformed: report.http.malformed_requests,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Request(usize),
    Reason(&'static str),
    /// Not decided yet.
    Open,
}

/// What the thread does: something that a rule claims, or something that falls
/// to an owner if nothing else is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    For(Owner),
    Open(Owner),
}

#[derive(Debug)]
struct Block {
    size: u64,
    owner: Owner,
    live: bool,
    /// Number of the event with which it came.
    born: usize,
    /// Number of the event with which it went.
    died: usize,
    /// It was freed, before its request's retention time was over.
    freed_in_time: bool,
    /// Number of the stretch of work with which it came.
    stretch: usize,
}

#[derive(Debug)]
struct Request {
    /// Its endpoint, or why it has none.
    name: Result<String, &'static str>,
    begin_ns: u64,
    end_ns: Option<u64>,
    complete: bool,
    /// The retention time is over.
    settled: bool,
    retained_bytes: u64,
    peak_bytes: u64,
    peak_may_be_lower: bool,
    /// It lost work to another, and what its peak was without that is not known.
    peak_unknown: bool,
    request_bytes: u64,
    response_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Closed,
    Idle,
    /// It owes an answer to this request, if it can be answered.
    Owes {
        request: usize,
        answerable: bool,
    },
    /// Nothing but its end can follow.
    Spoilt,
}

struct Server {
    retain_ns: u64,
    now_ns: u64,
    events: Vec<RawEvent>,
    connections: [Connection; CONNECTIONS],
    /// Sockets used so far by each connection.
    generations: [u64; CONNECTIONS],
    requests: Vec<Request>,
    blocks: Vec<Block>,
    slots: [Option<usize>; SLOTS],
    work: Work,
    /// Number of the current stretch of work.
    stretch: usize,
    malformed: u64,
}

/// The events of a server that takes these steps, and the report's figures.
pub fn run(steps: &[Step], retain_ns: u64) -> (Vec<RawEvent>, Expected) {
    let mut server = Server {
        retain_ns,
        now_ns: 5_000_000_000,
        events: Vec::new(),
        connections: [Connection::Closed; CONNECTIONS],
        generations: [0; CONNECTIONS],
        requests: Vec::new(),
        blocks: Vec::new(),
        slots: [None; SLOTS],
        work: Work::Open(Owner::Reason("startup")),
        stretch: 0,
        malformed: 0,
    };
    server.emit(EventBody::Process(ProcessFact {
        process: ProcessId::new(PID, 1_000_000_000),
        parent_pid: 1,
        exe: "/srv/server".to_owned(),
        comm: "server".to_owned(),
        runtime: "native".to_owned(),
        allocators: Vec::new(),
        tls: Vec::new(),
        origin: Origin::Started,
        trouble: Vec::new(),
        probed_after_ns: 0,
    }));
    server.emit(EventBody::TraceBegin);
    for step in steps {
        server.step(*step);
    }
    server.emit(EventBody::TraceEnd {
        why: "the steps are over".to_owned(),
    });
    let expected = server.end();
    (server.events, expected)
}

impl Server {
    /// An event, a little later than the last one.
    fn emit(&mut self, body: EventBody) {
        self.emit_with(body, Captured::default());
    }

    fn emit_with(&mut self, body: EventBody, captured: Captured) {
        self.now_ns += 700;
        for index in 0..self.requests.len() {
            let due = |end_ns| end_ns + self.retain_ns <= self.now_ns;
            if self.requests[index].end_ns.is_some_and(due) {
                self.settle_request(index);
            }
        }
        let event = Event {
            ts_ns: self.now_ns,
            pid: PID,
            tid: PID,
            body,
        };
        self.events.push(RawEvent { event, captured });
    }

    fn settle_request(&mut self, index: usize) {
        let request = &mut self.requests[index];
        if !request.settled {
            request.settled = true;
            // What is presumed to be its own now stays so.
            if self.work == Work::Open(Owner::Request(index)) {
                for block in &mut self.blocks {
                    if block.owner == Owner::Open {
                        block.owner = Owner::Request(index);
                        block.freed_in_time = !block.live;
                    }
                }
            }
            let of_request = |block: &&Block| block.live && block.owner == Owner::Request(index);
            let kept = self.blocks.iter().filter(of_request);
            request.retained_bytes = kept.map(|block| block.size).sum();
            let own = self.blocks.iter();
            let own = own.filter(|block| block.owner == Owner::Request(index));
            // The sum only grows with an event that brings a block.
            let live_at = |now: usize| {
                let live = own
                    .clone()
                    .filter(|block| (block.born..block.died).contains(&now));
                live.map(|block| block.size).sum::<u64>()
            };
            let peak = own.clone().map(|block| live_at(block.born)).max();
            request.peak_bytes = peak.unwrap_or(0);
        }
    }

    /// The thread turns to something else: blocks of open work get their owner.
    fn turn(&mut self, work: Work, proven: Option<Owner>) {
        let (presumed, claimed) = match self.work {
            Work::Open(presumed) => (presumed, None),
            Work::For(Owner::Request(index)) => (Owner::Request(index), Some(index)),
            Work::For(owner) => (owner, None),
        };
        let disputed = match (claimed, proven) {
            (Some(claimed), Some(Owner::Request(proof))) => claimed != proof,
            _ => false,
        };
        if let (Owner::Request(index), Some(owner)) = (presumed, proven)
            && presumed != owner
        {
            self.requests[index].peak_unknown = true;
        }
        let fixed = matches!(self.work, Work::For(Owner::Reason(_)));
        let owner = if disputed {
            Owner::Reason("ambiguous")
        } else {
            match proven.filter(|_| !fixed).unwrap_or(presumed) {
                Owner::Request(index) if self.requests[index].settled => {
                    Owner::Reason("ended_request")
                }
                owner => owner,
            }
        };
        for block in &mut self.blocks {
            let of_claim = claimed.is_some_and(|claimed| {
                block.owner == Owner::Request(claimed)
                    && block.stretch == self.stretch
                    && !self.requests[claimed].settled
            });
            if block.owner == Owner::Open || disputed && of_claim {
                block.owner = owner;
                block.freed_in_time = !block.live;
            }
        }
        self.stretch += 1;
        self.work = work;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Accept(at) if self.connections[at] == Connection::Closed => {
                self.generations[at] += 1;
                self.connections[at] = Connection::Idle;
                let socket = self.socket(at);
                self.emit(EventBody::Accept(SocketFact {
                    socket,
                    fd: 5,
                    addresses: Addresses::default(),
                }));
                self.turn(Work::Open(Owner::Reason("connection_setup")), None);
            }
            Step::Request(at, asks, piece) if self.connections[at] == Connection::Idle => {
                self.request(at, asks, piece);
            }
            Step::Respond(at, body, split) => self.respond(at, body, split),
            Step::Close(at) if self.connections[at] != Connection::Closed => self.close(at),
            Step::Alloc(slot, size) if self.slots[slot].is_none() => {
                let addr = address(slot, self.blocks.len());
                self.emit(EventBody::Alloc { addr, size });
                self.hand_out(slot, size);
            }
            Step::Free(slot) => {
                if let Some(block) = self.slots[slot].take() {
                    let addr = address(slot, block);
                    self.emit(EventBody::Free { addr });
                    self.take_back(block);
                }
            }
            Step::Realloc(slot, size) => {
                if let Some(block) = self.slots[slot].take() {
                    let (old, addr) = (address(slot, block), address(slot, self.blocks.len()));
                    self.emit(EventBody::Realloc {
                        old,
                        addr,
                        size,
                        elapsed_ns: 100,
                    });
                    self.take_back(block);
                    self.hand_out(slot, size);
                }
            }
            // Before it has served anything, a thread that waits is none of ours.
            Step::Wait if self.generations != [0; CONNECTIONS] => {
                self.emit(EventBody::Wait {
                    kind: WaitKind::Epoll,
                    descriptors: 0,
                });
                self.turn(BETWEEN_REQUESTS, None);
            }
            Step::Pause(ns) => {
                self.now_ns += ns;
                self.emit(EventBody::Clock);
            }
            Step::Accept(_) | Step::Request(..) | Step::Close(_) | Step::Alloc(..) | Step::Wait => {
            }
        }
    }

    /// Each accepted socket has a number of its own.
    fn socket(&self, at: usize) -> SocketId {
        SocketId(100 * self.generations[at] + at as u64)
    }

    fn bytes(&mut self, at: usize, direction: Direction, bytes: &[u8]) {
        let socket = self.socket(at);
        let data = Data {
            direction,
            stream: StreamId::Socket(socket),
            fd: 5,
            len: bytes.len() as u64,
            buffer: 0,
            more: false,
            unreadable: false,
        };
        let captured = Captured {
            payload: bytes.to_vec(),
            ..Captured::default()
        };
        self.emit_with(EventBody::Data(data), captured);
    }

    fn request(&mut self, at: usize, asks: Asks, piece: usize) {
        let (name, bytes) = asks.wire();
        let request = self.requests.len();
        let mut begin_ns = None;
        for part in bytes.chunks(piece) {
            self.bytes(at, Direction::Recv, part);
            begin_ns.get_or_insert(self.now_ns);
            // Nothing is allocated between the pieces.
        }
        self.malformed += u64::from(name == Err("malformed_head"));
        self.requests.push(Request {
            name,
            begin_ns: begin_ns.unwrap_or_default(),
            end_ns: None,
            complete: false,
            settled: false,
            retained_bytes: 0,
            peak_bytes: 0,
            peak_may_be_lower: false,
            peak_unknown: false,
            request_bytes: bytes.len() as u64,
            response_bytes: 0,
        });
        self.connections[at] = Connection::Owes {
            request,
            answerable: !matches!(asks, Asks::HalfUpload | Asks::HalfHead),
        };
        // Between a wait and the first byte it can only have made room for it.
        let proven = (self.work == BETWEEN_REQUESTS).then_some(Owner::Reason("receive_buffer"));
        self.turn(Work::For(Owner::Request(request)), proven);
    }

    fn respond(&mut self, at: usize, body: usize, split: bool) {
        let Connection::Owes {
            request,
            answerable: true,
        } = self.connections[at]
        else {
            return;
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
        let (body, owner) = (vec![b'.'; body], Owner::Request(request));
        if split && !body.is_empty() {
            self.bytes(at, Direction::Send, head.as_bytes());
            self.turn(Work::For(owner), Some(owner));
            self.bytes(at, Direction::Send, &body);
        } else {
            self.bytes(at, Direction::Send, &[head.as_bytes(), &body].concat());
        }
        // What follows is clean-up, unless something else is proven.
        self.turn(Work::Open(owner), Some(owner));
        let answered = &mut self.requests[request];
        answered.end_ns = Some(self.now_ns);
        answered.complete = true;
        answered.response_bytes = (head.len() + body.len()) as u64;
        self.connections[at] = match answered.name {
            Ok(_) => Connection::Idle,
            Err(_) => Connection::Spoilt,
        };
    }

    fn close(&mut self, at: usize) {
        let socket = self.socket(at);
        self.emit(EventBody::Close {
            socket,
            fd: 5,
            last: true,
        });
        let owed = match self.connections[at] {
            Connection::Owes { request, .. } => Some(request),
            Connection::Closed | Connection::Idle | Connection::Spoilt => None,
        };
        if let Some(request) = owed {
            self.requests[request].end_ns = Some(self.now_ns);
        }
        self.connections[at] = Connection::Closed;
        // A thread in the middle of another connection's request stays there.
        let elsewhere = match self.work {
            Work::For(Owner::Request(request)) => owed != Some(request),
            Work::For(Owner::Reason(_) | Owner::Open) | Work::Open(_) => false,
        };
        if !elsewhere {
            self.turn(BETWEEN_REQUESTS, None);
        }
    }

    fn hand_out(&mut self, slot: usize, size: u64) {
        self.slots[slot] = Some(self.blocks.len());
        self.blocks.push(Block {
            size,
            owner: match self.work {
                // It has been added up already.
                Work::For(Owner::Request(index)) if self.requests[index].settled => Owner::Open,
                Work::For(owner) => owner,
                Work::Open(_) => Owner::Open,
            },
            stretch: self.stretch,
            live: true,
            born: self.events.len(),
            died: usize::MAX,
            freed_in_time: false,
        });
    }

    fn take_back(&mut self, block: usize) {
        let block = &mut self.blocks[block];
        block.live = false;
        block.died = self.events.len();
        if let Owner::Request(request) = block.owner {
            let request = &mut self.requests[request];
            block.freed_in_time = !request.settled;
            request.peak_may_be_lower |= matches!(self.work, Work::Open(_));
        }
    }

    fn end(&mut self) -> Expected {
        self.turn(BETWEEN_REQUESTS, None);
        for index in 0..self.requests.len() {
            self.settle_request(index);
        }
        let mut figures = Figures {
            malformed: self.malformed,
            ..Figures::default()
        };
        let mut peaks_may_be_lower = BTreeSet::new();
        let mut peaks_unknown = BTreeSet::new();
        for request in &self.requests {
            if let Ok(name) = &request.name {
                let figures = figures.endpoints.entry(name.clone()).or_default();
                figures.requests += 1;
                if request.peak_may_be_lower {
                    peaks_may_be_lower.insert(name.clone());
                }
                if request.peak_unknown {
                    peaks_unknown.insert(name.clone());
                }
                match request.end_ns {
                    Some(end_ns) => {
                        figures.complete += u64::from(request.complete);
                        figures.no_response += u64::from(!request.complete);
                        figures.retained_bytes += request.retained_bytes;
                        figures.peak_bytes += request.peak_bytes;
                        figures.request_bytes += request.request_bytes;
                        figures.response_bytes += request.response_bytes;
                        figures.duration_ns += end_ns - request.begin_ns;
                    }
                    None => figures.in_flight += 1,
                }
            }
        }
        for block in &self.blocks {
            figures.live_bytes += if block.live { block.size } else { 0 };
            let reason = match block.owner {
                Owner::Request(request) => match &self.requests[request].name {
                    Ok(name) => {
                        let figures = figures.endpoints.entry(name.clone()).or_default();
                        figures.alloc_bytes += block.size;
                        figures.alloc_count += 1;
                        if block.freed_in_time {
                            figures.free_bytes += block.size;
                            figures.free_count += 1;
                        }
                        continue;
                    }
                    Err(reason) => *reason,
                },
                Owner::Reason(reason) => reason,
                Owner::Open => unreachable!("the last turn settles all open work"),
            };
            let figures = figures.reasons.entry(reason.to_owned()).or_default();
            figures.0 += block.size;
            figures.1 += 1;
            figures.2 += if block.live { block.size } else { 0 };
        }
        Expected {
            figures,
            peaks_may_be_lower,
            peaks_unknown,
        }
    }
}

const BETWEEN_REQUESTS: Work = Work::Open(Owner::Reason("between_requests"));

impl Asks {
    /// The endpoint that it is counted for, or why it has none, and its bytes.
    fn wire(self) -> (Result<String, &'static str>, Vec<u8>) {
        const TARGETS: [(&str, &str); 3] = [
            ("/items/17?page=2", "/items/{id}?page"),
            ("/static/app.js", "/static/app.js"),
            ("/", "/"),
        ];
        let target = |which: u8| TARGETS[usize::from(which) % TARGETS.len()];
        let (name, text) = match self {
            Asks::Get(which) => {
                let (target, route) = target(which);
                let head = format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n");
                (Ok(format!("GET {route}")), head)
            }
            Asks::Upload(which) => {
                let (target, route) = target(which);
                let body = "x=1&".repeat(20);
                let length = body.len();
                let head = format!("POST {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
                (Ok(format!("POST {route}")), head + &body)
            }
            Asks::HalfUpload => {
                let head = "POST /upload HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf of it";
                (Ok("POST /upload".to_owned()), head.to_owned())
            }
            Asks::HalfHead => {
                let head = "GET /half HTTP/1.1\r\nHost: exam";
                (Err("incomplete_head"), head.to_owned())
            }
            Asks::Malformed => {
                let head = "POST /bad HTTP/1.1\r\nContent-Length: 7x\r\n\r\n";
                (Err("malformed_head"), head.to_owned())
            }
        };
        (name, text.into_bytes())
    }
}

/// Each slot's blocks alternate between two addresses, so that each address is
/// handed out over and over.
fn address(slot: usize, block: usize) -> u64 {
    0x7000_0000 + ((slot * 2 + block % 2) * 64) as u64
}
