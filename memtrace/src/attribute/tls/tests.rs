//! The rules that tie sessions to sockets, one by one, and what holds whatever
//! happens.

use proptest::prelude::*;

use super::*;
use crate::id::StreamId;

const PROCESS: ProcessIndex = ProcessIndex(0);
const SESSION: Session = (PROCESS, 0x5000);
const OTHER: Session = (PROCESS, 0x6000);
const SOCKET: SocketId = SocketId(11);
const ELSEWHERE: SocketId = SocketId(12);
/// The descriptors of the two.
const FD: i32 = 7;
const FD_ELSEWHERE: i32 = 8;

const READ_80: Call = Call::Moved(Direction::Recv, 80);
const WROTE_80: Call = Call::Moved(Direction::Send, 80);

/// The thread has just received on a socket.
fn received(socket: SocketId, received: u64) -> Option<Moved> {
    Some(Moved {
        socket,
        fd: if socket == SOCKET { FD } else { FD_ELSEWHERE },
        received,
        unread: true,
        sealed: true,
    })
}

/// A call that used no socket itself.
fn call(ties: &mut Ties, session: Session, call: Call, last: Option<Moved>) -> Option<SocketId> {
    ties.called(session, call, -1, last, |_| true)
}

/// A call that used the socket's descriptor.
fn naming(ties: &mut Ties, session: Session, call: Call, socket: SocketId) -> Option<SocketId> {
    let last = received(socket, 0);
    let fd = last.map_or(-1, |last| last.fd);
    ties.called(session, call, fd, last, |_| true)
}

#[test]
fn a_call_that_used_a_socket_names_it() {
    for moved in [READ_80, WROTE_80, Call::Read, Call::Handshake] {
        let mut ties = Ties::default();
        let tied = naming(&mut ties, SESSION, moved, SOCKET);
        assert_eq!(tied, Some(SOCKET), "{moved:?}");
        assert_eq!(ties.socket_of(SESSION), Some(SOCKET));
        assert_eq!(ties.session_on(SOCKET), Some(SESSION));
    }
}

#[test]
fn the_first_read_after_bytes_were_received_is_of_their_session() {
    for read in [READ_80, Call::Read] {
        let mut ties = Ties::default();
        let tied = call(&mut ties, SESSION, read, received(SOCKET, 102));
        assert_eq!(tied, Some(SOCKET), "{read:?}");
    }
}

#[test]
fn a_handshake_tells_when_it_goes_on_not_when_it_begins() {
    let mut ties = Ties::default();
    // A server begins it as soon as it has accepted the connection: what it
    // received last was for another.
    let begun = call(&mut ties, SESSION, Call::Handshake, received(ELSEWHERE, 9));
    assert_eq!(begun, None);
    let gone_on = call(&mut ties, SESSION, Call::Handshake, received(SOCKET, 517));
    assert_eq!(gone_on, Some(SOCKET));
}

/// uvloop: eight handshakes end, then the first plaintext of each is read.
#[test]
fn plaintext_read_late_is_its_sessions() {
    let mut ties = Ties::default();
    let sessions = [SESSION, OTHER];
    for session in sessions {
        call(&mut ties, session, Call::Handshake, None);
    }
    let sockets = [SOCKET, ELSEWHERE];
    let mut last = None;
    for (session, socket) in sessions.into_iter().zip(sockets) {
        last = received(socket, 186);
        call(&mut ties, session, Call::Handshake, last);
    }
    let taken_in = last.map(|last| Moved {
        unread: false,
        ..last
    });
    for (session, socket) in sessions.into_iter().zip(sockets) {
        assert_eq!(call(&mut ties, session, READ_80, taken_in), None);
        assert_eq!(ties.socket_of(session), Some(socket));
    }
}

#[test]
fn no_evidence_no_tie() {
    let taken_in = received(SOCKET, 500).map(|last| Moved {
        unread: false,
        ..last
    });
    for (why, made, fd, last) in [
        ("the thread has waited", READ_80, -1, None),
        ("another call took it in", READ_80, -1, taken_in),
        ("less was received", READ_80, -1, received(SOCKET, 80)),
        ("nothing was read", WROTE_80, -1, received(SOCKET, 500)),
        (
            "the descriptor is another's",
            READ_80,
            FD_ELSEWHERE,
            received(SOCKET, 500),
        ),
    ] {
        let mut ties = Ties::default();
        let tied = ties.called(SESSION, made, fd, last, |_| true);
        assert_eq!(tied, None, "{why}");
        assert_eq!(ties.socket_of(SESSION), None, "{why}");
    }
    let mut ties = Ties::default();
    let tied = ties.called(SESSION, READ_80, -1, received(SOCKET, 500), |_| false);
    assert_eq!(tied, None, "the socket carries no TLS");
}

#[test]
fn bytes_of_several_calls_add_up_until_the_thread_turns_elsewhere() {
    let data = |direction, len| Data {
        direction,
        stream: StreamId::Socket(SOCKET),
        fd: FD,
        len,
        buffer: 0,
        more: false,
        unreadable: false,
    };
    let header = Moved::after(None, SOCKET, &data(Direction::Recv, 5));
    let both = Moved::after(Some(header), SOCKET, &data(Direction::Recv, 97));
    assert_eq!((both.received, both.unread), (102, true));
    // A handshake's last answer goes out before the first plaintext is read.
    let answered = Moved::after(Some(both), SOCKET, &data(Direction::Send, 510));
    assert_eq!((answered.received, answered.unread), (102, true));
    let other = Moved::after(Some(answered), ELSEWHERE, &data(Direction::Recv, 97));
    assert_eq!(other.received, 97);
    let back = Moved::after(Some(other), SOCKET, &data(Direction::Send, 510));
    assert_eq!((back.received, back.unread), (0, false));
}

#[test]
fn a_tie_stays_when_something_is_received_elsewhere() {
    let mut ties = Ties::default();
    call(&mut ties, SESSION, READ_80, received(SOCKET, 102));
    // A part of a record came there; what was read now had come before.
    call(&mut ties, SESSION, READ_80, received(ELSEWHERE, 102));
    assert_eq!(ties.socket_of(SESSION), Some(SOCKET));
    assert_eq!(ties.session_on(ELSEWHERE), None);
}

#[test]
fn a_socket_that_has_a_session_is_not_guessed_to_be_anothers() {
    let mut ties = Ties::default();
    call(&mut ties, SESSION, READ_80, received(SOCKET, 102));
    assert_eq!(call(&mut ties, OTHER, READ_80, received(SOCKET, 102)), None);
    assert_eq!(ties.socket_of(SESSION), Some(SOCKET));
    assert_eq!(ties.socket_of(OTHER), None);
}

#[test]
fn a_named_socket_overrules_what_was_inferred() {
    let mut ties = Ties::default();
    call(&mut ties, SESSION, READ_80, received(SOCKET, 102));
    assert_eq!(naming(&mut ties, OTHER, READ_80, SOCKET), Some(SOCKET));
    assert_eq!(ties.socket_of(SESSION), None);
    // And the overruled session is not tied again.
    let again = call(&mut ties, SESSION, READ_80, received(ELSEWHERE, 102));
    assert_eq!(again, None);
}

#[test]
fn a_session_that_uses_two_sockets_is_a_connection_of_its_own() {
    let mut ties = Ties::default();
    naming(&mut ties, SESSION, READ_80, SOCKET);
    assert_eq!(naming(&mut ties, SESSION, READ_80, ELSEWHERE), None);
    assert_eq!(ties.socket_of(SESSION), None);
    assert_eq!(ties.session_on(SOCKET), None);
    assert_eq!(naming(&mut ties, SESSION, READ_80, SOCKET), None);
}

#[test]
fn ends_untie() {
    let ends: [fn(&mut Ties); 3] = [
        |ties| ties.end_session(SESSION),
        |ties| ties.end_socket(SOCKET),
        |ties| ties.end_process(PROCESS),
    ];
    for end in ends {
        let mut ties = Ties::default();
        call(&mut ties, SESSION, READ_80, received(SOCKET, 102));
        end(&mut ties);
        assert_eq!(ties.socket_of(SESSION), None);
        assert_eq!(ties.session_on(SOCKET), None);
        // A library may use the object again, the system the descriptor.
        let again = call(&mut ties, SESSION, READ_80, received(ELSEWHERE, 102));
        assert_eq!(again, Some(ELSEWHERE));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Called(u64, Call, i32, Option<Moved>, bool),
    LeaveAlone(u64),
    EndSession(u64),
    EndSocket(u64),
    EndProcess,
}

fn steps() -> impl Strategy<Value = Step> {
    let last =
        (0..3u64, 0..3i32, 0..200u64, any::<bool>()).prop_map(|(socket, fd, received, unread)| {
            Moved {
                socket: SocketId(socket),
                fd,
                received,
                unread,
                sealed: unread,
            }
        });
    let made = prop_oneof![
        (0..200u64).prop_map(|len| Call::Moved(Direction::Recv, len)),
        (0..200u64).prop_map(|len| Call::Moved(Direction::Send, len)),
        Just(Call::Read),
        Just(Call::Handshake),
    ];
    prop_oneof![
        8 => (0..3u64, made, -1..3i32, proptest::option::of(last), any::<bool>())
            .prop_map(|(session, made, fd, last, tls)| Step::Called(session, made, fd, last, tls)),
        1 => (0..3u64).prop_map(Step::LeaveAlone),
        1 => (0..3u64).prop_map(Step::EndSession),
        1 => (0..3u64).prop_map(Step::EndSocket),
        1 => Just(Step::EndProcess),
    ]
}

proptest! {
    /// Whatever happens, no socket has two sessions and no session two sockets,
    /// and both sides agree.
    #[test]
    fn ties_are_one_to_one(steps in proptest::collection::vec(steps(), 0..60)) {
        let mut ties = Ties::default();
        for step in steps {
            match step {
                Step::Called(session, made, fd, last, tls) => {
                    ties.called((PROCESS, session), made, fd, last, |_| tls);
                }
                Step::LeaveAlone(session) => ties.leave_alone((PROCESS, session)),
                Step::EndSession(session) => ties.end_session((PROCESS, session)),
                Step::EndSocket(socket) => ties.end_socket(SocketId(socket)),
                Step::EndProcess => ties.end_process(PROCESS),
            }
            for id in 0..3 {
                if let Some(socket) = ties.socket_of((PROCESS, id)) {
                    prop_assert_eq!(ties.session_on(socket), Some((PROCESS, id)));
                }
                if let Some(session) = ties.session_on(SocketId(id)) {
                    prop_assert_eq!(ties.socket_of(session), Some(SocketId(id)));
                }
            }
        }
    }
}
