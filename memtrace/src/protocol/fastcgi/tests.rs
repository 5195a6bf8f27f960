//! Conversations of a web server with its application, and what they must give.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::cgi::{Coding, tests::coded};
use crate::protocol::check;

const KEEP: u8 = 1;

fn record(kind: u8, request: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    bytes.extend(request.to_be_bytes());
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend([padding, 0]);
    bytes.extend(content);
    bytes.extend(vec![0; usize::from(padding)]);
    bytes
}

fn begin(request: u16) -> Vec<u8> {
    record(1, request, &[0, 1, KEEP, 0, 0, 0, 0, 0], 0)
}

/// A request as nginx writes it.
fn asks(request: u16, method: &str, uri: &str, body: &[u8]) -> Vec<u8> {
    let variables = coded(
        Coding::FastCgi,
        &[
            ("QUERY_STRING", "id=secret"),
            ("REQUEST_METHOD", method),
            ("HTTP_COOKIE", "secret"),
            ("REQUEST_URI", uri),
        ],
    );
    let mut bytes = begin(request);
    bytes.extend(record(4, request, &variables, 5));
    bytes.extend(record(4, request, b"", 0));
    if !body.is_empty() {
        bytes.extend(record(5, request, body, 3));
    }
    bytes.extend(record(5, request, b"", 0));
    bytes
}

fn end(request: u16, status: u8) -> Vec<u8> {
    record(3, request, &[0, 0, 0, 0, status, 0, 0, 0], 0)
}

fn answers(request: u16, text: &str) -> Vec<u8> {
    [record(6, request, text.as_bytes(), 2), end(request, 0)].concat()
}

fn whole(bytes: &[u8]) -> Bytes<'_> {
    cut(bytes, bytes.len())
}

/// What is captured of bytes if no more than so many are.
fn cut(bytes: &[u8], limit: usize) -> Bytes<'_> {
    let payload = &bytes[..limit.min(bytes.len())];
    Bytes {
        len: bytes.len() as u64,
        payload,
        tail: if payload.len() < bytes.len() {
            &bytes[bytes.len().saturating_sub(8)..]
        } else {
            &[]
        },
    }
}

fn said(connection: &mut Connection, side: Side, bytes: Bytes<'_>) -> Vec<String> {
    let mut out = Vec::new();
    connection.feed(side, bytes, &mut out);
    check::short(&out)
}

#[test]
fn a_kept_connection_carries_one_request_after_another() {
    let mut connection = Connection::new();
    for id in 0..2 {
        let request = asks(1, "GET", "/users/7?id=secret", b"");
        let response = answers(
            1,
            "Status: 404 Not Found\r\nContent-type: text/html\r\n\r\nno",
        );
        assert_eq!(
            said(&mut connection, Side::Client, whole(&request)),
            [
                format!("begin {id}"),
                format!("head {id} fastcgi GET /users/7?id"),
                format!("end {id} {}", request.len())
            ]
        );
        assert_eq!(
            said(&mut connection, Side::Server, whole(&response)),
            [
                format!("answer {id}"),
                format!("status {id} 404"),
                format!("done {id} {} {}", response.len(), request.len())
            ]
        );
    }
}

#[test]
fn the_status_is_200_unless_the_head_says_otherwise() {
    for (head, status) in [
        ("Content-type: text/html\r\n\r\n", 200),
        ("Location: /a\n\n", 302),
        ("status:  500 X\r\n\r\n", 500),
        ("Status: x\r\n\r\n", 200),
    ] {
        let mut connection = Connection::new();
        said(
            &mut connection,
            Side::Client,
            whole(&asks(1, "GET", "/", b"")),
        );
        let told = said(&mut connection, Side::Server, whole(&answers(1, head)));
        assert_eq!(told[1], format!("status 0 {status}"), "{head:?}");
    }
}

#[test]
fn records_may_come_in_any_pieces() {
    let request = asks(1, "POST", "/upload", b"content");
    let response = answers(1, "Content-type: text/html\r\n\r\npage");
    let mut connection = Connection::new();
    let mut told = Vec::new();
    for (side, bytes) in [(Side::Client, &request), (Side::Server, &response)] {
        for byte in bytes {
            told.extend(said(&mut connection, side, whole(&[*byte])));
        }
    }
    // The response ends in the body of END_REQUEST, as all of it counts then.
    assert_eq!(
        told,
        [
            "begin 0".to_owned(),
            "head 0 fastcgi POST /upload".to_owned(),
            format!("end 0 {}", request.len()),
            "answer 0".to_owned(),
            "status 0 200".to_owned(),
            format!("done 0 {} {}", response.len(), request.len())
        ]
    );
}

#[test]
fn an_end_behind_what_was_captured_is_recognised() {
    let long = format!("Content-type: text/html\r\n\r\n{}", "x".repeat(8000));
    for behind in [
        end(1, 0),
        [record(6, 1, b"", 0), end(1, 0)].concat(),
        [record(6, 1, b"", 0), record(7, 1, b"", 0), end(1, 0)].concat(),
    ] {
        let response = [record(6, 1, long.as_bytes(), 4), behind].concat();
        let mut connection = Connection::new();
        said(
            &mut connection,
            Side::Client,
            whole(&asks(1, "GET", "/", b"")),
        );
        let told = said(&mut connection, Side::Server, cut(&response, 512));
        assert!(
            told.last()
                .is_some_and(|line| line.starts_with(&format!("done 0 {}", response.len()))),
            "{told:?}"
        );
        let next = said(
            &mut connection,
            Side::Client,
            whole(&asks(1, "GET", "/", b"")),
        );
        assert_eq!(next[0], "begin 1");
    }
}

#[test]
fn variables_behind_what_was_captured_are_missing() {
    let variables = coded(
        Coding::FastCgi,
        &[
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/a"),
            ("HTTP_COOKIE", &"c".repeat(9000)),
        ],
    );
    let mut connection = Connection::new();
    said(&mut connection, Side::Client, whole(&begin(1)));
    let params = [record(4, 1, &variables, 0), record(4, 1, b"", 0)].concat();
    // php-fpm reads a record's header by itself, then its content.
    said(&mut connection, Side::Client, whole(&params[..8]));
    said(
        &mut connection,
        Side::Client,
        cut(&params[8..params.len() - 8], 4096),
    );
    let told = said(
        &mut connection,
        Side::Client,
        whole(&params[params.len() - 8..]),
    );
    assert_eq!(told, ["head 0 fastcgi GET /a cut"]);
}

#[test]
fn several_requests_at_once_are_told_apart() {
    let mut connection = Connection::new();
    let both = [asks(1, "GET", "/one", b""), asks(2, "GET", "/two", b"")].concat();
    said(&mut connection, Side::Client, whole(&both));
    let told = said(
        &mut connection,
        Side::Server,
        whole(&answers(2, "Status: 201\r\n\r\n")),
    );
    assert!(told.contains(&"status 1 201".to_owned()), "{told:?}");
    assert!(told.contains(&"carries 1".to_owned()), "{told:?}");
    let told = said(
        &mut connection,
        Side::Server,
        whole(&answers(1, "Status: 202\r\n\r\n")),
    );
    assert_eq!(told[1], "status 0 202");
}

#[test]
fn requests_end_without_an_answer_too() {
    let mut connection = Connection::new();
    said(
        &mut connection,
        Side::Client,
        whole(&asks(1, "GET", "/", b"")),
    );
    // Refused: FCGI_OVERLOADED.
    let told = said(&mut connection, Side::Server, whole(&end(1, 2)));
    assert_eq!(told, ["abandoned 0 ResetByServer"]);
    said(
        &mut connection,
        Side::Client,
        whole(&asks(1, "GET", "/", b"")),
    );
    let told = said(&mut connection, Side::Client, whole(&record(2, 1, b"", 0)));
    assert_eq!(told, ["abandoned 1 ResetByClient"]);
    said(&mut connection, Side::Client, whole(&begin(1)));
    let mut out = Vec::new();
    connection.close(&mut out);
    assert_eq!(check::short(&out), ["abandoned 2 PartialRequest"]);
}

#[test]
fn only_a_whole_opening_is_one() {
    assert_eq!(opens(b""), None);
    assert_eq!(opens(&begin(1)[..7]), None);
    assert_eq!(opens(&begin(1)), Some(true));
    for bad in [
        &b"\x02\x01\0\x01\0\x08\0\0"[..],
        b"\x01\x04\0\x01\0\x08\0\0",
        b"\x01\x01\0\0\0\x08\0\0",
        b"\x01\x01\0\x01\0\x09\0\0",
        b"\x01\x01\0\x01\0\x08\0\x01",
        b"GET",
    ] {
        assert_eq!(opens(bad), Some(false), "{bad:?}");
    }
}

#[test]
fn events_of_a_stream_are_messages() {
    let mut connection = Connection::new();
    said(
        &mut connection,
        Side::Client,
        whole(&asks(1, "GET", "/events", b"")),
    );
    let event = format!("data: {}\n\n", "x".repeat(1000));
    let head = record(6, 1, b"Content-Type: text/event-stream\r\n\r\n", 0);
    let told = said(&mut connection, Side::Server, whole(&head));
    assert_eq!(
        told.last().map(String::as_str),
        Some("series 0 ServerSentEvents")
    );
    let told = said(
        &mut connection,
        Side::Server,
        cut(&record(6, 1, event.as_bytes(), 3), 512),
    );
    assert_eq!(told, ["opens 0 Server", "message 0 Server 1008"]);
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (1..3_u16).prop_map(begin),
        (1..3_u16, "[a-z/?=]{0,9}").prop_map(|(request, uri)| asks(request, "GET", &uri, b"b")),
        (1..3_u16).prop_map(|request| answers(request, "Status: 200 OK\r\n\r\nx")),
        (1..3_u16, 0..12_u8, vec(any::<u8>(), 0..20), 0..9_u8)
            .prop_map(|(request, kind, content, padding)| record(kind, request, &content, padding)),
        vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    /// Whatever arrives, the parser gets through it, and each exchange has one
    /// end.
    #[test]
    fn every_exchange_has_one_end(
        feeds in vec((any::<bool>(), piece(), prop_oneof![2 => Just(usize::MAX), 1 => 0..40_usize], 1..30_usize), 0..14),
    ) {
        let mut connection = Connection::new();
        let mut out = Vec::new();
        for (client, bytes, limit, size) in &feeds {
            let side = if *client { Side::Client } else { Side::Server };
            for piece in bytes.chunks(*size) {
                connection.feed(side, cut(piece, *limit), &mut out);
            }
        }
        connection.close(&mut out);
        check::each_exchange_has_one_end(&out, true);
    }

    /// Exchanges are found exactly, in any pieces, and nothing private with them.
    #[test]
    fn valid_exchanges_are_found(
        planned in vec(("[a-z]{1,9}", 0..3000_usize, 0..3000_usize, 200..600_u16), 1..6),
        size in prop_oneof![1..20_usize, Just(usize::MAX)],
        limit in prop_oneof![Just(usize::MAX), 600..4096_usize],
    ) {
        let mut connection = Connection::new();
        for (index, (path, sent, got, status)) in planned.iter().enumerate() {
            let request = asks(1, "POST", &format!("/{path}?q=secret"), &vec![b's'; *sent]);
            let text = format!("Status: {status} X\r\n\r\n{}", "s".repeat(*got));
            let mut out = Vec::new();
            // The request's own records are read one by one.
            for piece in request.chunks(size.min(request.len())) {
                connection.feed(Side::Client, whole(piece), &mut out);
            }
            let response = answers(1, &text);
            for piece in response.chunks(size.min(response.len())) {
                connection.feed(Side::Server, cut(piece, limit), &mut out);
            }
            let told = check::short(&out);
            prop_assert_eq!(&told, &vec![
                format!("begin {index}"),
                format!("head {index} fastcgi POST /{path}?q"),
                format!("end {index} {}", request.len()),
                format!("answer {index}"),
                format!("status {index} {status}"),
                format!("done {index} {} {}", response.len(), request.len()),
            ]);
        }
    }
}
