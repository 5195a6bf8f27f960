//! The connections of the traced processes and the requests on them.
//!
//! In: socket facts. Out: the requests that begin and end, and for each fact
//! what the thread that caused it works for from then on. It knows no memory
//! and no threads.

mod conn;
mod messages;

use std::collections::{HashMap, VecDeque};

use crate::{
    attribute::{
        Attributed, ConnKind, EndedBy, Outcome, Owner, ProcessIndex, Reason,
        process::Processes,
        series::Series,
        tls::{Call, Moved, Ties},
    },
    event::Data,
    id::{ConnId, RequestId, SocketId, StreamId, WorkId},
    message::{Foreign, Message, Role},
    protocol::session::SESSIONS_MAX,
};
use conn::{Conn, Tls, Told};

/// Requests remembered of those that wait for an answer on one connection, 4 bytes
/// each; the oldest are forgotten first.
const ASKERS_MAX: usize = 256;

/// What a connection is known by: TLS sessions that are tied to no socket are
/// told apart by their addresses, which mean something only in their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Socket(SocketId),
    Tls(ProcessIndex, u64),
}

/// A connection, in a way that finds it again as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef {
    key: Key,
    id: ConnId,
}

/// On whose behalf bytes were sent to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A request's.
    Request(RequestId),
    /// That of a stretch of work of which nobody knew whose it was.
    Work(WorkId),
}

/// What a thread turns to because of a socket fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stays with what it did.
    Stay,
    /// It asked something of another server.
    Asked,
    /// It sent the first bytes on a connection that was opened on someone's
    /// behalf.
    Began(Caller),
    /// It went on to ask what it had begun to ask on someone's behalf.
    Continued(Caller),
    /// It received an answer to what was asked on someone's behalf.
    Answered(Caller),
    /// From now on it works for this owner.
    To(Owner),
    /// It received records whose plaintext will tell: until then nothing better
    /// is known than this.
    Toward(Reason),
    /// It received bytes that may be for several requests: what it does from now
    /// on is unclear, for this reason if nothing better is learnt.
    Unclear(Reason),
    /// It sent bytes of several requests' responses.
    WroteSeveral,
    /// It sent bytes of this request's response, so what it did until now and
    /// was unclear was for this request; it goes on with the second.
    Wrote(RequestId, AfterWrite),
    /// It sent a message of a series for this request: the same, unless it works
    /// for another, which may have others told of it.
    Pushed(RequestId, AfterWrite),
}

/// How far the asking of another server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    /// Nothing was asked since the last answer.
    Nothing,
    /// The connection was opened for it.
    Opened,
    /// Something was sent, and nothing has been received since.
    Sent,
}

/// When and where something was said.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By which process.
    pub process: ProcessIndex,
    /// When, ns.
    pub ts_ns: u64,
    /// Who ends what is ended by it; `None`: whoever ended the connection.
    pub ended_by: Option<EndedBy>,
}

/// What comes after bytes of a response were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The same request: its response has not ended.
    Same,
    /// The next request of a pipeline.
    Next(RequestId),
    /// Unclear: the response has ended.
    Ended,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {
    conns: HashMap<Key, Conn>,
    ties: Ties,
    conn_next: u32,
    request_next: u32,
    /// Connections that were not followed because there were too many.
    pub overflow: u64,
    /// Reads and writes of series of which the messages were not told apart.
    pub untold: u64,
    /// Series by the requests that opened them.
    series: HashMap<RequestId, Key>,
    /// Where a message has been answered and has not ended.
    answered: Vec<Key>,
}

impl Connections {
    /// A connection was accepted, opened, or found open.
    pub fn open(
        &mut self,
        socket: SocketId,
        process: ProcessIndex,
        kind: ConnKind,
        accepted: bool,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) {
        let key = Key::Socket(socket);
        if kind == ConnKind::Found && self.conns.contains_key(&key) {
            return;
        }
        // A number that is used again belongs to a new socket: the end of the
        // old one was not seen.
        self.end(key, ts_ns, out);
        self.ties.end_socket(socket);
        let role = match kind {
            ConnKind::Accepted => Some(Role::Server),
            ConnKind::Connected => Some(Role::Client),
            ConnKind::Found => accepted.then_some(Role::Server),
        };
        self.insert(key, process, kind, role, out);
    }

    fn insert(
        &mut self,
        key: Key,
        process: ProcessIndex,
        kind: ConnKind,
        role: Option<Role>,
        out: &mut Vec<Attributed>,
    ) {
        if self.conns.len() >= SESSIONS_MAX {
            self.overflow += 1;
            return;
        }
        let id = ConnId(self.conn_next);
        self.conn_next += 1;
        let mut conn = Conn {
            id,
            kind,
            told: Told::Nothing,
            process,
            role,
            exchanges: VecDeque::new(),
            front_before: None,
            carried: None,
            mover: None,
            ended: None,
            upgraded: None,
            series: None,
            caller: None,
            askers: Vec::new(),
            accepted_after: None,
            asking: Asking::Nothing,
            used: false,
            malformed: false,
            peer_gone: false,
            foreign: false,
            tls: None,
        };
        if let Key::Socket(_) = key {
            conn.tell(out);
        }
        self.conns.insert(key, conn);
    }

    fn key(&self, stream: StreamId, process: ProcessIndex) -> Key {
        match stream {
            StreamId::Socket(socket) => Key::Socket(socket),
            StreamId::Tls(session) => match self.ties.socket_of((process, session)) {
                Some(socket) => Key::Socket(socket),
                None => Key::Tls(process, session),
            },
        }
    }

    /// The connection of a stream; met in the middle if it is not known.
    fn known(
        &mut self,
        stream: StreamId,
        process: ProcessIndex,
        out: &mut Vec<Attributed>,
    ) -> Option<&mut Conn> {
        let key = self.key(stream, process);
        if !self.conns.contains_key(&key) {
            self.insert(key, process, ConnKind::Found, None, out);
        }
        self.conns.get_mut(&key)
    }

    /// What bytes that are about to be stated, or the end of a stream, amount
    /// to.
    pub fn messages(
        &mut self,
        stream: StreamId,
        messages: &[Message],
        moment: Moment,
        processes: &mut Processes,
        out: &mut Vec<Attributed>,
    ) {
        let key = self.key(stream, moment.process);
        let mut request_next = self.request_next;
        if let Some(conn) = self.known(stream, moment.process, out) {
            conn.process = moment.process;
            conn.front_before = Some(conn.front());
            let before = conn.series.as_ref().map(|series| series.opener);
            for message in messages {
                match (message, stream) {
                    (Message::Foreign(Foreign::Tls), StreamId::Socket(_)) => {
                        conn.carries_tls(out);
                    }
                    _ => conn.message(message, &mut request_next, moment, processes, out),
                }
            }
            let alone = conn.told != Told::Nothing;
            let after = conn.series.as_ref().map(|series| series.opener);
            let answered = conn.series.as_ref().is_some_and(Series::is_answered);
            if before != after {
                before.map(|opener| self.series.remove(&opener));
                after.map(|opener| self.series.insert(opener, key));
            }
            // One that has had a request as a connection of its own remains one.
            if let Key::Tls(process, session) = key
                && alone
            {
                self.ties.leave_alone((process, session));
            }
            if answered && !self.answered.contains(&key) {
                self.answered.push(key);
            }
        }
        self.request_next = request_next;
        let is_cut = |message: &&Message| matches!(message, Message::SeriesCut { .. });
        self.untold += messages.iter().filter(is_cut).count() as u64;
    }

    /// The connection on which a request has opened a series that lasts.
    pub fn series_of(&self, opener: RequestId) -> Option<ConnRef> {
        let key = *self.series.get(&opener)?;
        let id = self.conns.get(&key)?.id;
        Some(ConnRef { key, id })
    }

    /// Whether a connection carries a series.
    pub fn is_series(&self, conn: ConnRef) -> bool {
        self.get(conn).is_some_and(|conn| conn.series.is_some())
    }

    /// A thread of the process waits for new events: its messages that were
    /// answered are over.
    pub fn end_answered(&mut self, process: ProcessIndex, out: &mut Vec<Attributed>) {
        let conns = &mut self.conns;
        self.answered.retain(|key| match conns.get_mut(key) {
            Some(conn) if conn.process == process => {
                if let Some(series) = &mut conn.series {
                    // Another may have begun meanwhile.
                    if series.is_answered() {
                        series.end_received(out);
                    }
                }
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    /// A call for a TLS session is about to be stated, or what it moved: ties
    /// the session to a socket if what the thread did last tells which.
    pub fn tls_call(
        &mut self,
        session: u64,
        call: Call,
        fd: i32,
        process: ProcessIndex,
        last: Option<Moved>,
        out: &mut Vec<Attributed>,
    ) {
        let conns = &self.conns;
        // Not one on which messages are seen as they are; and what comes back on
        // one that the process opened is known by what it sent there.
        let carries_tls = |socket| {
            conns.get(&Key::Socket(socket)).is_some_and(|conn| {
                conn.tls.is_some()
                    && conn.role != Some(Role::Client)
                    && conn.exchanges.is_empty()
                    && conn.upgraded.is_none()
            })
        };
        let tied = self
            .ties
            .called((process, session), call, fd, last, carries_tls);
        if let Some(socket) = tied {
            let untied = self.conns.remove(&Key::Tls(process, session));
            // It has had no request: only whom it was used for can be known.
            if let (Some(untied), Some(conn)) = (untied, self.conns.get_mut(&Key::Socket(socket))) {
                conn.role = untied.role.or(conn.role);
                conn.caller = untied.caller.or(conn.caller);
            }
        }
        let moved = matches!(call, Call::Moved(..));
        if moved
            && let Some(socket) = self.ties.socket_of((process, session))
            && let Some(conn) = self.conns.get_mut(&Key::Socket(socket))
            && conn.tls.replace(Tls::Plaintext) == Some(Tls::Records)
        {
            out.push(Attributed::TlsRead { process });
        }
    }

    /// The socket on which a TLS session speaks, if that is known.
    pub fn socket_of(&self, process: ProcessIndex, session: u64) -> Option<SocketId> {
        self.ties.socket_of((process, session))
    }

    /// Bytes moved; what they amount to was stated before. Returns on which
    /// connection, and what it means for who moved them.
    pub fn data(
        &mut self,
        data: &Data,
        process: ProcessIndex,
        tls_is_read: bool,
        out: &mut Vec<Attributed>,
    ) -> Option<(ConnRef, Turn)> {
        let key = self.key(data.stream, process);
        let conn = self.known(data.stream, process, out)?;
        let id = conn.id;
        let turn = match (data.stream, conn.tls) {
            (StreamId::Socket(_), Some(tls)) if conn.role != Some(Role::Client) => {
                conn.records(data, process, tls, tls_is_read)
            }
            _ => conn.data(data, process),
        };
        Some((ConnRef { key, id }, turn))
    }

    /// The connection of a socket, if it is known.
    pub fn of_socket(&self, socket: SocketId) -> Option<ConnRef> {
        let key = Key::Socket(socket);
        let id = self.conns.get(&key)?.id;
        Some(ConnRef { key, id })
    }

    fn get(&self, conn: ConnRef) -> Option<&Conn> {
        self.conns
            .get(&conn.key)
            .filter(|found| found.id == conn.id)
    }

    /// The request that a connection is in the middle of, if the process
    /// answers requests on it.
    pub fn current(&self, conn: ConnRef) -> Option<RequestId> {
        let conn = self.get(conn)?;
        if let Some(series) = &conn.series {
            return series.current();
        }
        match (conn.role, &conn.upgraded) {
            (Some(Role::Server), Some(upgraded)) => Some(upgraded.request),
            // Of several at once, any.
            (Some(Role::Server), None) if conn.has_several() => None,
            (Some(Role::Server), None) => conn.front(),
            (Some(Role::Client) | None, _) => None,
        }
    }

    /// Whether the process has several requests to answer on a connection, in no
    /// certain order.
    pub fn has_several(&self, conn: ConnRef) -> bool {
        self.get(conn).is_some_and(Conn::has_several)
    }

    /// Whether a connection that may carry several exchanges at once has others
    /// under way than this request's.
    pub fn has_others(&self, conn: ConnRef, than: RequestId) -> bool {
        self.is_multiplexed(conn)
            && self.get(conn).is_some_and(|conn| {
                let mut requests = conn.exchanges.iter().map(|exchange| exchange.request);
                requests.any(|request| request != than)
            })
    }

    /// Whether a request's response is still to come, or to end, on a connection.
    pub fn has_open(&self, conn: ConnRef, request: RequestId) -> bool {
        self.get(conn).is_some_and(|conn| {
            let mut requests = conn.exchanges.iter().map(|exchange| exchange.request);
            requests.any(|other| other == request)
        })
    }

    /// Whether a connection may carry several exchanges at once.
    pub fn is_multiplexed(&self, conn: ConnRef) -> bool {
        self.get(conn).is_some_and(|conn| conn.carried.is_some())
    }

    /// A task was spawned for the exchange that has waited for one for longest, on a
    /// connection that may carry several. Returns its request, if any has waited of
    /// those that began with `from` or later.
    pub fn hand_on(&mut self, conn: ConnRef, from: RequestId) -> Option<RequestId> {
        let found = self
            .conns
            .get_mut(&conn.key)
            .filter(|it| it.id == conn.id)?;
        let mut exchanges = found.exchanges.iter_mut();
        let next = exchanges.find(|exchange| {
            exchange.request >= from && !exchange.handed_on && !exchange.responding
        })?;
        next.handed_on = true;
        Some(next.request)
    }

    /// The request that begins next.
    pub fn next_request(&self) -> RequestId {
        RequestId(self.request_next)
    }

    /// A thread has moved bytes on a connection. Returns whether others have as
    /// well.
    pub fn moved_by(&mut self, conn: ConnRef, tid: u32) -> bool {
        let Some(found) = self.conns.get_mut(&conn.key).filter(|it| it.id == conn.id) else {
            return false;
        };
        let (first, others) = found.mover.get_or_insert((tid, false));
        *others |= *first != tid;
        *others
    }

    /// The request that the protocol knows by a number on a connection.
    pub fn numbered(&self, conn: ConnRef, number: u32) -> Option<RequestId> {
        let mut exchanges = self.get(conn)?.exchanges.iter();
        exchanges
            .find(|exchange| exchange.number == Some(number))
            .map(|exchange| exchange.request)
    }

    /// Whether the process answers requests on a connection.
    pub fn serves(&self, conn: ConnRef) -> bool {
        self.get(conn)
            .is_some_and(|conn| conn.role == Some(Role::Server))
    }

    /// Whether no request has begun on a connection on which the process
    /// answers requests.
    pub fn is_unused(&self, conn: ConnRef) -> bool {
        self.get(conn)
            .is_some_and(|conn| conn.role == Some(Role::Server) && !conn.used)
    }

    /// A connection was accepted when so many contexts were known.
    pub fn set_accepted(&mut self, socket: SocketId, contexts: u64) {
        if let Some(conn) = self.conns.get_mut(&Key::Socket(socket)) {
            conn.accepted_after = Some(contexts);
        }
    }

    /// How many contexts were known when the connection was accepted, if that was
    /// seen.
    pub fn accepted_after(&self, conn: ConnRef) -> Option<u64> {
        self.get(conn)?.accepted_after
    }

    /// On whose behalf bytes were sent on a connection to another server.
    pub fn set_caller(&mut self, conn: ConnRef, caller: Option<Caller>, opened: bool) {
        if let Some(found) = self.conns.get_mut(&conn.key)
            && found.id == conn.id
        {
            found.caller = caller;
            found.asking = if opened { Asking::Opened } else { Asking::Sent };
            if let (Some(Caller::Request(request)), false) = (caller, opened)
                && !found.askers.contains(&request)
            {
                if found.askers.len() >= ASKERS_MAX {
                    found.askers.remove(0);
                }
                found.askers.push(request);
            }
        }
    }

    /// Whether what comes may answer any of several requests that are under way.
    pub fn answers_several(
        &mut self,
        conn: ConnRef,
        under_way: impl Fn(RequestId) -> bool,
    ) -> bool {
        let Some(found) = self.conns.get_mut(&conn.key).filter(|it| it.id == conn.id) else {
            return false;
        };
        found.askers.retain(|asker| under_way(*asker));
        let several = found.askers.len() > 1;
        if !several {
            found.askers.clear();
        }
        several
    }

    /// Something was sent for whoever had opened the connection.
    pub fn set_sent(&mut self, conn: ConnRef) {
        if let Some(found) = self.conns.get_mut(&conn.key)
            && found.id == conn.id
        {
            found.asking = Asking::Sent;
        }
    }

    /// Whether something was asked of another server there in this stretch of
    /// work.
    pub fn was_asked_in(&self, socket: SocketId, work: WorkId) -> bool {
        let conn = self.conns.get(&Key::Socket(socket));
        conn.is_some_and(|conn| conn.caller == Some(Caller::Work(work)))
    }

    /// A descriptor was closed. Returns the requests' owner-independent answer:
    /// whether the connection is gone.
    pub fn close(
        &mut self,
        socket: SocketId,
        last: bool,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) -> bool {
        let key = Key::Socket(socket);
        if !last || !self.conns.contains_key(&key) {
            return false;
        }
        // What became of a request under way is known when its session ends.
        if let Some((process, session)) = self.ties.session_on(socket)
            && let Some(mut conn) = self.conns.remove(&key)
        {
            conn.tell_end(out);
            if conn.front().is_some() || conn.upgraded.is_some() {
                self.conns.insert(Key::Tls(process, session), conn);
            }
        } else {
            self.end(key, ts_ns, out);
        }
        self.ties.end_socket(socket);
        true
    }

    /// A call on a socket failed for good.
    pub fn failed(&mut self, socket: SocketId) {
        if let Some(conn) = self.conns.get_mut(&Key::Socket(socket)) {
            conn.peer_gone = true;
        }
    }

    /// A TLS session is over.
    pub fn end_tls(
        &mut self,
        session: u64,
        process: ProcessIndex,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) {
        self.end(Key::Tls(process, session), ts_ns, out);
        self.ties.end_session((process, session));
    }

    /// A process replaced its program: its TLS sessions are gone.
    pub fn exec(&mut self, process: ProcessIndex, ts_ns: u64, out: &mut Vec<Attributed>) {
        let is_session = |key: &Key, _: &Conn| matches!(key, Key::Tls(of, _) if *of == process);
        self.end_all(is_session, ts_ns, out);
        self.ties.end_process(process);
    }

    /// Whether this request is one that the connection still owes a response, or
    /// owed one until its end was stated.
    pub fn owes(&self, socket: SocketId, request: RequestId) -> bool {
        self.conns.get(&Key::Socket(socket)).is_some_and(|conn| {
            conn.ended == Some(request)
                || conn.exchanges.iter().any(|owed| owed.request == request)
                || conn
                    .upgraded
                    .as_ref()
                    .is_some_and(|upgraded| upgraded.request == request)
                || conn
                    .series
                    .as_ref()
                    .is_some_and(|series| series.current() == Some(request))
        })
    }

    /// Every connection that this process used last is gone with it.
    pub fn end_process(&mut self, process: ProcessIndex, ts_ns: u64, out: &mut Vec<Attributed>) {
        self.end_all(|_, conn| conn.process == process, ts_ns, out);
        self.ties.end_process(process);
    }

    fn end_all(
        &mut self,
        which: impl Fn(&Key, &Conn) -> bool,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) {
        let mut keys: Vec<(ConnId, Key)> = self
            .conns
            .iter()
            .filter(|(key, conn)| which(key, conn))
            .map(|(key, conn)| (conn.id, *key))
            .collect();
        keys.sort_unstable();
        for (_, key) in keys {
            self.end(key, ts_ns, out);
        }
    }

    fn end(&mut self, key: Key, ts_ns: u64, out: &mut Vec<Attributed>) {
        let Some(mut conn) = self.conns.remove(&key) else {
            return;
        };
        // What the stream's own end did not mention: its end was not seen.
        let ended_by = conn.ended_by();
        for exchange in conn.exchanges.drain(..) {
            out.push(Attributed::RequestEnd {
                request: exchange.request,
                outcome: if exchange.responding {
                    Outcome::Aborted(ended_by)
                } else {
                    Outcome::NoResponse(ended_by)
                },
                request_bytes: 0,
                response_bytes: 0,
                ts_ns,
            });
        }
        if let Some(series) = conn.series.take() {
            self.series.remove(&series.opener);
            series.end(ended_by, out);
        }
        if let Some(upgraded) = conn.upgraded.take() {
            out.push(Attributed::RequestEnd {
                request: upgraded.request,
                outcome: Outcome::Complete,
                request_bytes: upgraded.request_bytes,
                response_bytes: upgraded.response_bytes,
                ts_ns,
            });
        }
        conn.tell_end(out);
    }
}
