//! What the trace adds up to: totals by process, endpoint and reason, and the
//! blocks that are live.
//!
//! In: [`Attributed`] facts. Out: totals, read by `analyse`. It knows no
//! protocol, no thread and no clock: time comes with the facts. Memory is
//! bounded: live blocks by [`LIVE_BLOCKS_MAX`], requests by those that have not
//! been settled, endpoints by the cap on routes.

mod distribution;
mod live;
mod settled;
mod totals;
mod types;

use std::collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry};
use std::hash::Hash;

pub use distribution::Distribution;
pub use live::LIVE_BLOCKS_MAX;
use live::{Block, Inserted, ProcessBlocks, WORK_NUMBER_MAX};
pub use settled::SettledRequest;
use totals::Account;
pub use totals::{
    ByRule, ConnectionTotals, EndpointKey, EndpointTotals, ProcessTotals, ReasonTotals, Sum, Unseen,
};
pub use types::{TypeId, TypeSums, Types};

use crate::{
    attribute::{
        Attributed, Claim, ConnCount, ConnKind, Credit, How, Outcome, Owner, ProcessIndex, Reason,
    },
    id::{ConnId, RequestId, WorkId},
};

/// The name under which blocks that found no room are counted.
pub const LOSS_LIVE_TABLE_FULL: &str = "live_table_full";

#[derive(Debug)]
struct Request {
    conn: ConnId,
    process: ProcessIndex,
    begin_ns: u64,
    endpoint: Option<EndpointId>,
    void: Option<Reason>,
    status: Option<u16>,
    account: Account,
    /// Of what was allocated, how much by which rule; the sum is all.
    by_rule: ByRule,
    types: TypeSums,
    end: Option<End>,
    /// Stretches of work with blocks that may still be freed, and those that
    /// are presumed to be its own.
    works: Vec<WorkId>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    at_ns: u64,
    outcome: Outcome,
    request_bytes: u64,
    response_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct EndpointId(u32);

/// A stretch of work. What it allocates is in the presumed request's account as
/// well, and taken out again if it turns out to be another's.
#[derive(Debug)]
struct OpenWork {
    presumed: Owner,
    account: Account,
    types: TypeSums,
}

/// Whose a live block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Request(RequestId),
    Reason(Reason),
}

impl Holder {
    fn of(owner: Owner) -> Holder {
        match owner {
            Owner::Request(claim) => Holder::Request(claim.request),
            Owner::Reason(reason) => Holder::Reason(reason),
        }
    }
}

/// Something settled of which blocks are live.
#[derive(Clone, Copy, Debug)]
struct Settled {
    holder: Holder,
    live_blocks: u32,
}

impl Settled {
    /// One of the blocks is gone, and the entry with the last. Returns whose it
    /// was.
    fn take_block<Id: Eq + Hash>(settled: &mut HashMap<Id, Settled>, id: Id) -> Option<Holder> {
        let Entry::Occupied(mut entry) = settled.entry(id) else {
            return None;
        };
        let Settled {
            holder,
            live_blocks,
        } = entry.get_mut();
        let holder = *holder;
        *live_blocks = live_blocks.saturating_sub(1);
        if *live_blocks == 0 {
            entry.remove();
        }
        Some(holder)
    }
}

/// The running totals of a trace.
#[derive(Debug)]
pub struct Store {
    /// A request's blocks count as retained if they are live this long after it
    /// ended, ns.
    retain_ns: u64,
    now_ns: u64,
    first_ns: Option<u64>,
    begin_ns: Option<u64>,
    end: Option<(u64, String)>,
    events: u64,
    processes: Vec<(ProcessTotals, ProcessBlocks)>,
    live_blocks: usize,
    /// Boxed: a table that has doubled is half empty, and tens of thousands of
    /// requests may be within their retention time.
    requests: HashMap<RequestId, Box<Request>>,
    /// Ended requests in the order in which their retention time ends.
    ended: VecDeque<(u64, RequestId)>,
    open_works: HashMap<WorkId, OpenWork>,
    settled_works: HashMap<WorkId, Settled>,
    /// Open works whose presumed request has been added up meanwhile, and the
    /// numbers under which they go on.
    continued: HashMap<WorkId, WorkId>,
    /// Such numbers come from above: one that a stretch has from below in the
    /// meantime has long been settled.
    continued_next: u32,
    endpoint_ids: HashMap<EndpointKey, EndpointId>,
    endpoints: Vec<(EndpointKey, EndpointTotals)>,
    reasons: [ReasonTotals; Reason::ALL.len()],
    /// What is disputed, by the endpoints of the candidates.
    disputed: BTreeMap<[Option<EndpointId>; 2], Sum>,
    connections: ConnectionTotals,
    types: Types,
    lost: BTreeMap<String, u64>,
    /// Requests that were settled since they were last asked for; `None` when
    /// nobody asks.
    settled: Option<Vec<SettledRequest>>,
}

impl Store {
    /// Nothing has happened. `retain_ns`: how long after its request's end a
    /// block must be live to count as retained.
    pub fn new(retain_ns: u64) -> Self {
        Store {
            retain_ns,
            now_ns: 0,
            first_ns: None,
            begin_ns: None,
            end: None,
            events: 0,
            processes: Vec::new(),
            live_blocks: 0,
            requests: HashMap::new(),
            ended: VecDeque::new(),
            open_works: HashMap::new(),
            settled_works: HashMap::new(),
            continued: HashMap::new(),
            continued_next: WORK_NUMBER_MAX,
            endpoint_ids: HashMap::new(),
            endpoints: Vec::new(),
            reasons: [ReasonTotals::default(); Reason::ALL.len()],
            disputed: BTreeMap::new(),
            connections: ConnectionTotals::default(),
            types: Types::default(),
            lost: BTreeMap::new(),
            settled: None,
        }
    }

    /// Keeps every settled request until [`Store::take_settled`] is called,
    /// which is to be soon: nothing else bounds their number.
    pub fn keep_settled(&mut self) {
        self.settled = Some(Vec::new());
    }

    /// The requests that were settled since the last call, in the order in
    /// which they were.
    pub fn take_settled(&mut self) -> Vec<SettledRequest> {
        self.settled.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    /// Time has come to the next event. Requests whose retention time is over
    /// are settled.
    pub fn advance(&mut self, ts_ns: u64) {
        self.events += 1;
        self.first_ns.get_or_insert(ts_ns);
        // Events of different processors, or of the collector itself, may come
        // slightly out of order; time does not go back.
        self.now_ns = self.now_ns.max(ts_ns);
        while let Some((due_ns, request)) = self.ended.front().copied() {
            if due_ns > self.now_ns {
                break;
            }
            self.ended.pop_front();
            self.finalise(request);
        }
    }

    /// Takes in one fact.
    pub fn apply(&mut self, fact: Attributed) {
        match fact {
            Attributed::TraceBegin { ts_ns } => self.begin_ns = Some(ts_ns),
            Attributed::TraceEnd { ts_ns, why } => self.end = Some((ts_ns, why)),
            Attributed::ProcessBegin { index, process } => {
                debug_assert_eq!(index.0 as usize, self.processes.len());
                let totals = ProcessTotals {
                    process: Some(process),
                    ..ProcessTotals::default()
                };
                self.processes.push((totals, ProcessBlocks::default()));
            }
            Attributed::ProcessDescribed { index, fact } => {
                if let Some((totals, _)) = self.processes.get_mut(index.0 as usize) {
                    totals.process = Some(fact.process);
                    totals.fact = Some(fact);
                }
            }
            Attributed::TlsConnection { process } => {
                if let Some((totals, _)) = self.processes.get_mut(process.0 as usize) {
                    totals.tls_connections += 1;
                }
            }
            Attributed::TlsRead { process } => {
                if let Some((totals, _)) = self.processes.get_mut(process.0 as usize) {
                    totals.tls_read += 1;
                }
            }
            Attributed::ProcessExec { index } => self.drop_blocks(index.0 as usize, false),
            Attributed::ProcessEnd { index } => self.drop_blocks(index.0 as usize, true),
            Attributed::Alloc {
                process,
                addr,
                size,
                credit,
            } => self.alloc(process.0 as usize, addr, size, credit),
            Attributed::Free { process, addr } => {
                self.free(process.0 as usize, addr);
            }
            Attributed::Realloc {
                process,
                old,
                addr,
                size,
                entry_ns,
                credit,
            } => {
                self.give_up(process.0 as usize, old, entry_ns);
                if addr != 0 {
                    self.alloc(process.0 as usize, addr, size, credit);
                }
            }
            Attributed::Managed {
                process,
                bytes,
                blocks,
                type_address,
                credit,
            } => {
                let of_type = self.types.id(process, type_address);
                self.managed(process.0 as usize, (bytes, blocks), of_type, credit);
            }
            Attributed::TypeName {
                process,
                type_address,
                name,
            } => self.types.name(process, type_address, name),
            Attributed::RequestHeap {
                process,
                request,
                peak_bytes,
            } => self.request_heap(process.0 as usize, request, peak_bytes),
            Attributed::WorkBegin { work, presumed } => {
                self.begin_work(work, presumed, Account::default());
            }
            Attributed::BlockProven {
                process,
                addr,
                work,
                owner,
            } => self.prove_block(process.0 as usize, addr, work, owner),
            Attributed::WorkSettled {
                work,
                owner: Owner::Reason(Reason::Ambiguous),
            } => self.dispute_work(work, None),
            Attributed::WorkSettled { work, owner } => self.settle_work(work, owner),
            Attributed::WorkDisputed { work, candidates } => {
                self.dispute_work(work, Some(candidates));
            }
            Attributed::RequestBegin {
                request,
                conn,
                process,
                ts_ns,
            } => {
                self.requests.insert(
                    request,
                    Box::new(Request {
                        conn,
                        process,
                        begin_ns: ts_ns,
                        endpoint: None,
                        void: None,
                        status: None,
                        account: Account::default(),
                        by_rule: ByRule::default(),
                        types: TypeSums::default(),
                        end: None,
                        works: Vec::new(),
                    }),
                );
            }
            Attributed::RequestNamed {
                request,
                protocol,
                method,
                route,
            } => {
                let key = EndpointKey {
                    protocol,
                    method,
                    route,
                };
                let endpoint = self.endpoint(key);
                if let Some(request) = self.requests.get_mut(&request) {
                    request.endpoint = Some(endpoint);
                }
            }
            Attributed::RequestStatus { request, status } => {
                if let Some(request) = self.requests.get_mut(&request) {
                    request.status = Some(status);
                }
            }
            Attributed::RequestVoid { request, reason } => {
                if let Some(request) = self.requests.get_mut(&request) {
                    request.void = Some(reason);
                }
            }
            Attributed::RequestEnd {
                request: id,
                outcome,
                request_bytes,
                response_bytes,
                ts_ns,
            } => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.end = Some(End {
                        at_ns: ts_ns,
                        outcome,
                        request_bytes,
                        response_bytes,
                    });
                    self.ended
                        .push_back((self.now_ns.saturating_add(self.retain_ns), id));
                }
            }
            Attributed::ConnBegin { conn: _, kind } => {
                match kind {
                    ConnKind::Accepted => self.connections.accepted += 1,
                    ConnKind::Connected => self.connections.connected += 1,
                    ConnKind::Found => self.connections.found_open += 1,
                }
                self.connections.open += 1;
                self.connections.open_max = self.connections.open_max.max(self.connections.open);
            }
            Attributed::ConnEnd { conn: _ } => {
                self.connections.closed += 1;
                self.connections.open = self.connections.open.saturating_sub(1);
            }
            Attributed::ConnCount(what) => match what {
                ConnCount::MalformedRequest => self.connections.malformed_requests += 1,
                ConnCount::MalformedResponse => self.connections.malformed_responses += 1,
                ConnCount::UnmatchedResponse => self.connections.unmatched_responses += 1,
                ConnCount::NotHttp => self.connections.not_http += 1,
                ConnCount::Upgraded => self.connections.upgraded += 1,
            },
            Attributed::Loss { cause, total } => {
                self.lost.insert(cause, total);
            }
        }
    }

    /// The trace is over: settles every request that has ended and adds up
    /// those that have not.
    pub fn finish(&mut self) {
        while let Some((_, request)) = self.ended.pop_front() {
            self.finalise(request);
        }
        let mut open: Vec<RequestId> = self.requests.keys().copied().collect();
        open.sort_unstable();
        for request in open {
            self.finalise(request);
        }
    }

    /// Events taken in.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// From the moment every probe was in place (or the first event) to the end
    /// (or the last event), ns.
    pub fn duration_ns(&self) -> u64 {
        let begin = self.begin_ns.or(self.first_ns).unwrap_or(0);
        let end = self.end.as_ref().map_or(self.now_ns, |(at_ns, _)| *at_ns);
        end.saturating_sub(begin)
    }

    /// Why the trace ended, if it has.
    pub fn why_ended(&self) -> Option<&str> {
        self.end.as_ref().map(|(_, why)| why.as_str())
    }

    /// How long after its request's end a block must be live to count as
    /// retained, ns.
    pub fn retain_ns(&self) -> u64 {
        self.retain_ns
    }

    /// Loss by cause; causes without loss may be missing.
    pub fn lost(&self) -> &BTreeMap<String, u64> {
        &self.lost
    }

    /// The types of managed blocks.
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// Connections, counted.
    pub fn connections(&self) -> &ConnectionTotals {
        &self.connections
    }

    /// Every process, in the order in which the trace met them.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessTotals> {
        self.processes.iter().map(|(totals, _)| totals)
    }

    /// Every endpoint, in the order in which the trace met them, with the
    /// requests that are not settled yet added.
    pub fn endpoints(&self) -> Vec<(EndpointKey, EndpointTotals)> {
        let mut endpoints = self.endpoints.clone();
        for request in self.requests.values() {
            if let (Some(EndpointId(id)), None) = (request.endpoint, request.void)
                && let Some((_, totals)) = endpoints.get_mut(id as usize)
            {
                match request.end {
                    Some(end) => totals.add_answered(request, end),
                    None => totals.add_in_flight(request),
                }
            }
        }
        endpoints
    }

    /// What belongs to no request, by reason, with what is not settled yet
    /// under the reason it will have if nothing else is learnt.
    pub fn unattributed(&self) -> [(Reason, ReasonTotals); Reason::ALL.len()] {
        let mut reasons = self.reasons;
        let mut add = |reason: Reason, account: &Account| {
            reasons[reason.index()].add(account);
        };
        for work in self.open_works.values() {
            match work.presumed {
                Owner::Reason(reason) => add(reason, &work.account),
                // In the request's account already.
                Owner::Request(_) => {}
            }
        }
        for request in self.requests.values() {
            match (request.endpoint, request.void) {
                (_, Some(reason)) => add(reason, &request.account),
                (None, None) => add(Reason::IncompleteHead, &request.account),
                (Some(_), None) => {}
            }
        }
        Reason::ALL.map(|reason| (reason, reasons[reason.index()]))
    }

    /// What two rules disagree on, by the endpoints of the candidates; `None` for
    /// one that has no name.
    pub fn disputed(&self) -> impl Iterator<Item = ([Option<&EndpointKey>; 2], Sum)> {
        let key = |id: EndpointId| self.endpoints.get(id.0 as usize).map(|(key, _)| key);
        let mut disputed = self.disputed.clone();
        for work in self.open_works.values() {
            // Its candidates are known when it is settled.
            if work.presumed == Owner::Reason(Reason::Ambiguous) && work.account.all().count != 0 {
                let sum = disputed.entry([None; 2]).or_default();
                sum.merge(work.account.all());
            }
        }
        disputed
            .into_iter()
            .map(move |(candidates, sum)| (candidates.map(|id| id.and_then(key)), sum))
    }

    fn alloc(&mut self, process: usize, addr: u64, size: u64, credit: Credit) {
        let credit = self.standing(credit);
        let Some((totals, blocks)) = self.processes.get_mut(process) else {
            return;
        };
        totals.allocated.add(size);
        totals.live_bytes = totals.live_bytes.saturating_add(size);
        let room = self.live_blocks < LIVE_BLOCKS_MAX;
        let inserted = blocks.insert(addr, Block { size, credit }, self.now_ns, room);
        match inserted {
            Inserted::New => self.live_blocks += 1,
            Inserted::Displaced(old) => {
                totals.displaced_count += 1;
                totals.live_bytes = totals.live_bytes.saturating_sub(old.size);
                self.release(old);
            }
            Inserted::Full => {
                *self
                    .lost
                    .entry(LOSS_LIVE_TABLE_FULL.to_owned())
                    .or_default() += 1;
            }
        }
        let tracked = !matches!(inserted, Inserted::Full);
        match credit {
            Credit::Reason(reason) => self.credit_reason(reason, size),
            Credit::Work(id) => {
                if let Some(work) = self.open_works.get_mut(&id) {
                    work.account.alloc(size);
                    if let Owner::Request(claim) = work.presumed {
                        self.credit_request(claim, size);
                    }
                } else if let Some(settled) = self.settled_works.get_mut(&id) {
                    settled.live_blocks += u32::from(tracked);
                    match settled.holder {
                        Holder::Request(request) => {
                            let how = How::Afterwards;
                            self.credit_request(Claim { request, how }, size);
                        }
                        Holder::Reason(reason) => self.credit_reason(reason, size),
                    }
                }
            }
        }
    }

    /// Memory whose frees are not seen: it is in no one's live sum.
    fn managed(
        &mut self,
        process: usize,
        (bytes, blocks): (u64, Option<u64>),
        of_type: TypeId,
        credit: Credit,
    ) {
        let credit = self.standing(credit);
        let account = Account {
            managed: Sum {
                bytes,
                count: blocks.unwrap_or(0),
            },
            unseen: Unseen {
                counts: blocks.is_none(),
                frees: true,
                volume: false,
            },
            ..Account::default()
        };
        let Some((totals, _)) = self.processes.get_mut(process) else {
            return;
        };
        totals.allocated.merge(account.managed);
        totals.unseen.merge(account.unseen);
        let of_request = |request: &mut Request, how: How| {
            request.account.merge(account);
            request.by_rule[how.index()].merge(account.managed);
        };
        let id = match credit {
            Credit::Reason(reason) => {
                self.reasons[reason.index()].add(&account);
                return;
            }
            Credit::Work(id) => id,
        };
        if let Some(work) = self.open_works.get_mut(&id) {
            work.account.merge(account);
            work.types.add(of_type, account.managed);
            if let Owner::Request(claim) = work.presumed
                && let Some(request) = self.requests.get_mut(&claim.request)
            {
                of_request(request, claim.how);
            }
        } else if let Some(settled) = self.settled_works.get(&id) {
            match settled.holder {
                Holder::Request(request) => {
                    if let Some(request) = self.requests.get_mut(&request) {
                        of_request(request, How::Afterwards);
                    }
                }
                Holder::Reason(reason) => self.reasons[reason.index()].add(&account),
            }
        }
    }

    fn request_heap(&mut self, process: usize, id: RequestId, peak_bytes: u64) {
        let unseen = Unseen {
            volume: true,
            ..Unseen::default()
        };
        if let Some((totals, _)) = self.processes.get_mut(process) {
            totals.unseen.merge(unseen);
        }
        if let Some(request) = self.requests.get_mut(&id) {
            request.account.heap_peak_bytes = request.account.heap_peak_bytes.max(peak_bytes);
            request.account.unseen.merge(unseen);
        }
    }

    /// The credit, unless it is that of something long settled: the block is
    /// to be found under the reason that it is counted for.
    fn standing(&self, credit: Credit) -> Credit {
        let Credit::Work(id) = credit else {
            return credit;
        };
        let id = self.current(id);
        if self.open_works.contains_key(&id) || self.settled_works.contains_key(&id) {
            Credit::Work(id)
        } else {
            Credit::Reason(Reason::EndedRequest)
        }
    }

    /// The number under which a stretch of work goes on.
    fn current(&self, id: WorkId) -> WorkId {
        self.continued.get(&id).copied().unwrap_or(id)
    }

    fn credit_request(&mut self, claim: Claim, size: u64) {
        if let Some(request) = self.requests.get_mut(&claim.request) {
            request.account.alloc(size);
            request.by_rule[claim.how.index()].add(size);
        }
    }

    fn credit_reason(&mut self, reason: Reason, size: u64) {
        let totals = &mut self.reasons[reason.index()];
        totals.allocated.add(size);
        totals.live_bytes = totals.live_bytes.saturating_add(size);
    }

    fn free(&mut self, process: usize, addr: u64) {
        let Some((totals, blocks)) = self.processes.get_mut(process) else {
            return;
        };
        match blocks.remove(addr) {
            Some(block) => {
                self.live_blocks -= 1;
                totals.freed.add(block.size);
                totals.live_bytes = totals.live_bytes.saturating_sub(block.size);
                self.release(block);
            }
            None => totals.freed_unknown_count += 1,
        }
    }

    /// The old block of a reallocation that began at `entry_ns`. Another thread
    /// may have been given its address before the reallocation returned.
    fn give_up(&mut self, process: usize, old: u64, entry_ns: u64) {
        if let Some((totals, blocks)) = self.processes.get_mut(process)
            && let Some(block) = blocks.take_displaced(old, entry_ns)
        {
            totals.displaced_count -= 1;
            totals.freed.add(block.size);
            return;
        }
        self.free(process, old);
    }

    /// A block is gone: its owner's live sum shrinks.
    fn release(&mut self, block: Block) {
        let holder = match block.credit {
            Credit::Reason(reason) => Holder::Reason(reason),
            Credit::Work(id) => {
                if let Some(work) = self.open_works.get_mut(&id) {
                    work.account.free(block.size);
                    if let Owner::Request(claim) = work.presumed
                        && let Some(request) = self.requests.get_mut(&claim.request)
                    {
                        request.account.free(block.size);
                    }
                    return;
                }
                match Settled::take_block(&mut self.settled_works, id) {
                    Some(holder) => holder,
                    None => return,
                }
            }
        };
        match holder {
            Holder::Request(id) => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.account.free(block.size);
                }
            }
            Holder::Reason(reason) => {
                let totals = &mut self.reasons[reason.index()];
                totals.live_bytes = totals.live_bytes.saturating_sub(block.size);
            }
        }
    }

    fn begin_work(&mut self, work: WorkId, presumed: Owner, account: Account) {
        let presumed = match presumed {
            Owner::Request(claim) => match self.requests.get_mut(&claim.request) {
                Some(request) => {
                    request.works.push(work);
                    presumed
                }
                None => Owner::Reason(Reason::EndedRequest),
            },
            Owner::Reason(_) => presumed,
        };
        self.open_works.insert(
            work,
            OpenWork {
                presumed,
                account,
                types: TypeSums::default(),
            },
        );
    }

    /// A block of a stretch that is not settled has an owner of its own.
    fn prove_block(&mut self, process: usize, addr: u64, work: WorkId, owner: Owner) {
        let Some(block) = self
            .processes
            .get_mut(process)
            .and_then(|(_, blocks)| blocks.get(addr))
        else {
            return;
        };
        let mut account = Account::default();
        account.alloc(block.size);
        let presumed = match block.credit {
            Credit::Work(of) => {
                let of = self.current(of);
                let Some(of) = self.open_works.get_mut(&of) else {
                    return;
                };
                of.account.take_out(account);
                of.presumed
            }
            Credit::Reason(reason) => {
                self.reasons[reason.index()].take_out(&account);
                Owner::Reason(reason)
            }
        };
        if let Some((_, blocks)) = self.processes.get_mut(process) {
            blocks.set_credit(addr, Credit::Work(work));
        }
        self.begin_work(work, presumed, account);
        self.settle_work(work, owner);
    }

    fn settle_work(&mut self, id: WorkId, owner: Owner) {
        let id = self.continued.remove(&id).unwrap_or(id);
        let Some(work) = self.open_works.remove(&id) else {
            return;
        };
        let OpenWork {
            presumed,
            account,
            types,
        } = work;
        let owner = self.reassign(presumed, owner, account);
        if let Owner::Request(claim) = owner
            && let Some(request) = self.requests.get_mut(&claim.request)
        {
            request.types.merge(&types);
        }
        // Blocks that found no room in the table are never released; counting
        // them here only keeps an entry longer.
        let live_blocks = account.allocated.count.saturating_sub(account.freed.count);
        if live_blocks == 0 {
            // Requests can last long, and most stretches leave nothing.
            if let Owner::Request(claim) = presumed
                && let Some(request) = self.requests.get_mut(&claim.request)
            {
                request.works.pop_if(|last| *last == id);
            }
        } else {
            let holder = Holder::of(owner);
            if owner != presumed
                && let Holder::Request(request) = holder
                && let Some(request) = self.requests.get_mut(&request)
            {
                request.works.push(id);
            }
            let live_blocks = u32::try_from(live_blocks).unwrap_or(u32::MAX);
            self.settled_works.insert(
                id,
                Settled {
                    holder,
                    live_blocks,
                },
            );
        }
    }

    /// Moves what a stretch of work allocated from its presumed owner to the
    /// one that it turned out to have. Returns the owner that it has then: what
    /// a request was added up with stays with it.
    fn reassign(&mut self, presumed: Owner, owner: Owner, account: Account) -> Owner {
        if let Owner::Request(claim) = presumed
            && let Some(request) = self.requests.get_mut(&claim.request)
        {
            if owner == presumed {
                return owner;
            }
            request.by_rule[claim.how.index()].take_out(account.all());
            if let Owner::Request(proof) = owner
                && proof.request == claim.request
            {
                request.by_rule[proof.how.index()].merge(account.all());
                return owner;
            }
            request.account.take_out(account);
        }
        match owner {
            Owner::Request(claim) => match self.requests.get_mut(&claim.request) {
                Some(request) => {
                    request.account.merge(account);
                    request.by_rule[claim.how.index()].merge(account.all());
                    owner
                }
                None => self.reassign_to_reason(Reason::EndedRequest, account),
            },
            Owner::Reason(reason) => self.reassign_to_reason(reason, account),
        }
    }

    fn reassign_to_reason(&mut self, reason: Reason, account: Account) -> Owner {
        self.reasons[reason.index()].add(&account);
        Owner::Reason(reason)
    }

    fn dispute_work(&mut self, id: WorkId, candidates: Option<[RequestId; 2]>) {
        let of_request = |request| self.requests.get(&request).and_then(|r| r.endpoint);
        let mut endpoints = candidates.map_or([None; 2], |requests| requests.map(of_request));
        endpoints.sort_unstable();
        let Some(work) = self.open_works.get(&id) else {
            return;
        };
        let allocated = work.account.all();
        let known = match work.presumed {
            Owner::Request(claim) => self.requests.contains_key(&claim.request),
            Owner::Reason(_) => true,
        };
        if known {
            self.disputed.entry(endpoints).or_default().merge(allocated);
        }
        self.settle_work(id, Owner::Reason(Reason::Ambiguous));
    }

    fn drop_blocks(&mut self, process: usize, ended: bool) {
        let Some((totals, blocks)) = self.processes.get_mut(process) else {
            return;
        };
        self.live_blocks -= blocks.len();
        let mut gone = std::mem::take(blocks);
        if ended {
            // What was live when it ended is what it had not freed: requests
            // keep it as retained. Nothing will be freed of it any more.
            totals.ended = true;
            for block in gone.drain() {
                match block.credit {
                    Credit::Reason(_) => {}
                    Credit::Work(id) => {
                        Settled::take_block(&mut self.settled_works, id);
                    }
                }
            }
        } else {
            totals.live_bytes = 0;
            for block in gone.drain() {
                self.release(block);
            }
        }
    }

    fn endpoint(&mut self, key: EndpointKey) -> EndpointId {
        if let Some(id) = self.endpoint_ids.get(&key) {
            return *id;
        }
        let id = EndpointId(self.endpoints.len() as u32);
        self.endpoint_ids.insert(key.clone(), id);
        self.endpoints.push((key, EndpointTotals::default()));
        id
    }

    /// Adds a request to its endpoint, or to the reason why it has none.
    fn finalise(&mut self, id: RequestId) {
        let Some(mut request) = self.requests.remove(&id) else {
            return;
        };
        for work in &request.works {
            let types = self.continue_work(*work);
            request.types.merge(&types);
        }
        let endpoint = match (request.endpoint, request.void) {
            (Some(EndpointId(endpoint)), None) => {
                self.note_settled(id, endpoint as usize, &request);
                self.endpoints.get_mut(endpoint as usize)
            }
            (_, void) => {
                self.finalise_void(id, &request, void.unwrap_or(Reason::IncompleteHead));
                return;
            }
        };
        for work in &request.works {
            if let Entry::Occupied(settled) = self.settled_works.entry(*work)
                && settled.get().holder == Holder::Request(id)
            {
                settled.remove();
            }
        }
        if let Some((_, totals)) = endpoint {
            match request.end {
                Some(end) => totals.add_ended(&request, end),
                None => totals.add_in_flight(&request),
            }
        }
    }

    /// What an open stretch of work has allocated so far stays with its presumed
    /// request, which is about to be added up; what follows is another's. Returns
    /// what of it is known by type.
    fn continue_work(&mut self, id: WorkId) -> TypeSums {
        let current = self.current(id);
        let Some(work) = self.open_works.remove(&current) else {
            return TypeSums::default();
        };
        let OpenWork {
            presumed,
            account,
            types,
        } = work;
        let live_blocks = account.allocated.count.saturating_sub(account.freed.count);
        if live_blocks != 0 {
            self.settled_works.insert(
                current,
                Settled {
                    holder: Holder::of(presumed),
                    live_blocks: u32::try_from(live_blocks).unwrap_or(u32::MAX),
                },
            );
        }
        let next = WorkId(self.continued_next);
        self.continued_next = self
            .continued_next
            .checked_sub(1)
            .unwrap_or(WORK_NUMBER_MAX);
        self.continued.insert(id, next);
        self.open_works.insert(
            next,
            OpenWork {
                presumed: Owner::Reason(Reason::EndedRequest),
                account: Account::default(),
                types: TypeSums::default(),
            },
        );
        types
    }

    /// Adds a request to the reason why it has no endpoint, which also answers
    /// for its live blocks from then on.
    fn finalise_void(&mut self, id: RequestId, request: &Request, reason: Reason) {
        self.reasons[reason.index()].add(&request.account);
        for work in &request.works {
            if let Some(settled) = self.settled_works.get_mut(work)
                && settled.holder == Holder::Request(id)
            {
                settled.holder = Holder::Reason(reason);
            }
        }
    }
}
