//! Packets written out by hand, and what they must give.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::check;

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.push(0);
    bytes
}

fn packet(magic: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn to_server(payload: &[u8]) -> Vec<u8> {
    packet([0x12, 0x34], payload)
}

fn to_client(payload: &[u8]) -> Vec<u8> {
    packet(*b"AB", payload)
}

/// A request as Apache writes it.
fn forward(method: u8, path: &str, query: Option<&str>, length: Option<usize>) -> Vec<u8> {
    let mut payload = vec![2, method];
    payload.extend(string("HTTP/1.1"));
    payload.extend(string(path));
    payload.extend(string("127.0.0.1"));
    payload.extend([0xff, 0xff]); // no host name
    payload.extend(string("example.org"));
    payload.extend([0, 80, 0]);
    payload.extend([0, 2 + u8::from(length.is_some())]);
    payload.extend([0xa0, 0x0b]); // host
    payload.extend(string("example.org"));
    payload.extend(string("x-own"));
    payload.extend(string("secret"));
    if let Some(length) = length {
        payload.extend([0xa0, 0x08]);
        payload.extend(string(&length.to_string()));
    }
    payload.push(0x0a);
    payload.extend(string("AJP_REMOTE_PORT"));
    payload.extend(string("1234"));
    payload.extend([0x0b, 1, 0]);
    if let Some(query) = query {
        payload.push(0x05);
        payload.extend(string(query));
    }
    payload.push(0xff);
    to_server(&payload)
}

fn data(bytes: &[u8]) -> Vec<u8> {
    to_server(&[&(bytes.len() as u16).to_be_bytes()[..], bytes].concat())
}

fn headers(status: u16) -> Vec<u8> {
    let mut payload = vec![4];
    payload.extend(status.to_be_bytes());
    payload.extend(string("Reason"));
    payload.extend([0, 1, 0xa0, 0x01]);
    payload.extend(string("text/html"));
    to_client(&payload)
}

fn chunk(len: u16) -> Vec<u8> {
    let mut payload = vec![3];
    payload.extend(len.to_be_bytes());
    payload.extend(vec![b'x'; usize::from(len)]);
    payload.push(0);
    to_client(&payload)
}

fn end() -> Vec<u8> {
    to_client(&[5, 1])
}

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

fn said(connection: &mut Connection, side: Side, bytes: &[u8], limit: usize) -> Vec<String> {
    let mut out = Vec::new();
    connection.feed(side, cut(bytes, limit), &mut out);
    check::short(&out)
}

#[test]
fn a_connection_carries_one_request_after_another() {
    let mut connection = Connection::new();
    for id in 0..2 {
        let request = forward(2, "/users/7", Some("q=secret"), None);
        let response = [headers(404), chunk(700), end()].concat();
        assert_eq!(
            said(&mut connection, Side::Client, &request, usize::MAX),
            [
                format!("begin {id}"),
                format!("head {id} ajp GET /users/7?q")
            ]
        );
        // The end lies behind what is captured, once.
        let limit = if id == 0 { usize::MAX } else { 512 };
        assert_eq!(
            said(&mut connection, Side::Server, &response, limit)
                .iter()
                .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>(),
            [
                format!("answer {id}"),
                format!("status {id} 404"),
                format!("end {id} {}", request.len()),
                format!(
                    "done {id} {}",
                    if id == 0 {
                        response.len()
                    } else {
                        headers(404).len()
                    }
                ),
            ]
        );
    }
}

#[test]
fn bodies_come_when_they_are_asked_for() {
    let mut connection = Connection::new();
    let head = forward(4, "/upload", None, Some(700));
    let told = said(&mut connection, Side::Client, &head, usize::MAX);
    assert_eq!(told, ["begin 0", "head 0 ajp POST /upload"]);
    // The length of this one reads like the code of a request.
    assert!(said(&mut connection, Side::Client, &data(&[b's'; 512]), 100).is_empty());
    assert!(
        said(
            &mut connection,
            Side::Server,
            &to_client(&[6, 31, 250]),
            512
        )
        .is_empty()
    );
    let rest = data(&[b's'; 188]);
    let told = said(&mut connection, Side::Client, &rest, usize::MAX);
    let total = head.len() + 4 + 2 + 512 + rest.len();
    assert_eq!(told, [format!("end 0 {total}")]);
    // Of unknown length: an empty packet ends it.
    said(
        &mut connection,
        Side::Server,
        &[headers(200), end()].concat(),
        512,
    );
    said(
        &mut connection,
        Side::Client,
        &forward(4, "/chunked", None, None),
        usize::MAX,
    );
    for body in [data(b"some"), to_server(b"")] {
        said(
            &mut connection,
            Side::Server,
            &to_client(&[6, 31, 250]),
            512,
        );
        let told = said(&mut connection, Side::Client, &body, usize::MAX);
        assert_eq!(told.len(), usize::from(body.len() == 4), "{told:?}");
    }
}

#[test]
fn pings_are_no_requests() {
    let mut connection = Connection::new();
    assert!(said(&mut connection, Side::Client, &to_server(&[10]), usize::MAX).is_empty());
    assert!(said(&mut connection, Side::Server, &to_client(&[9]), usize::MAX).is_empty());
    let told = said(
        &mut connection,
        Side::Client,
        &forward(3, "/", None, Some(0)),
        usize::MAX,
    );
    assert_eq!(told.len(), 3);
}

#[test]
fn a_head_that_was_cut_says_what_was_seen() {
    let mut connection = Connection::new();
    let request = forward(2, "/a", Some("q=1"), None);
    let told = said(&mut connection, Side::Client, &request, 40);
    assert_eq!(told, ["begin 0", "head 0 ajp GET /a?… cut"]);
}

#[test]
fn the_next_request_ends_a_response_whose_end_was_missed() {
    let mut connection = Connection::new();
    said(
        &mut connection,
        Side::Client,
        &forward(2, "/a", None, None),
        usize::MAX,
    );
    let response = [headers(200), chunk(900), chunk(900)].concat();
    said(&mut connection, Side::Server, &response, 512);
    let told = said(
        &mut connection,
        Side::Client,
        &forward(2, "/b", None, None),
        usize::MAX,
    );
    assert!(told[1].starts_with("done 0 "), "{told:?}");
    let mut out = Vec::new();
    connection.close(&mut out);
    assert_eq!(check::short(&out), ["abandoned 1 PartialRequest"]);
}

#[test]
fn only_an_opening_is_one() {
    let request = forward(2, "/", None, None);
    for len in 0..5 {
        assert_eq!(opens(&request[..len]), None);
    }
    assert_eq!(opens(&request), Some(true));
    assert_eq!(opens(&to_server(&[10])), Some(true));
    for bad in [
        &b"AB\0\x01\x02"[..],
        b"\x12\x35",
        b"\x12\x34\0\x02\x0a",
        b"\x12\x34\0\x02\x02",
    ] {
        assert_eq!(opens(bad), Some(false), "{bad:?}");
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (
            "[a-z/]{0,9}",
            any::<u8>(),
            prop_oneof![Just(None), (0..20_usize).prop_map(Some)]
        )
            .prop_map(|(path, method, length)| forward(
                method,
                &path,
                Some("q=secret"),
                length
            )),
        (0..900_usize).prop_map(|len| data(&vec![b's'; len])),
        (0..999_u16).prop_map(headers),
        (0..900_u16).prop_map(chunk),
        Just(end()),
        Just(to_client(&[6, 1, 1])),
        vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    /// Whatever arrives, the parser gets through it, each exchange has one end,
    /// and nothing private is in it.
    #[test]
    fn every_exchange_has_one_end(
        feeds in vec((any::<bool>(), piece(), prop_oneof![2 => Just(usize::MAX), 1 => 0..60_usize], 1..60_usize), 0..14),
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
        let told = format!("{out:?}");
        prop_assert!(!told.contains("secret"), "{}", told);
    }

    /// Exchanges are found exactly, in any pieces.
    #[test]
    fn valid_exchanges_are_found(
        planned in vec(("[a-z]{1,9}", 0..900_usize, 0..900_u16, 200..600_u16), 1..6),
        size in prop_oneof![1..20_usize, Just(usize::MAX)],
    ) {
        let mut connection = Connection::new();
        for (index, (path, sent, got, status)) in planned.iter().enumerate() {
            let mut request = forward(4, &format!("/{path}"), None, Some(*sent));
            if *sent > 0 {
                request.extend(data(&vec![2; *sent]));
            }
            let response = [headers(*status), chunk(*got), end()].concat();
            let mut out = Vec::new();
            for (side, bytes) in [(Side::Client, &request), (Side::Server, &response)] {
                for piece in bytes.chunks(size.min(bytes.len())) {
                    connection.feed(side, cut(piece, usize::MAX), &mut out);
                }
            }
            prop_assert_eq!(&check::short(&out), &vec![
                format!("begin {index}"),
                format!("head {index} ajp POST /{path}"),
                format!("end {index} {}", request.len()),
                format!("answer {index}"),
                format!("status {index} {status}"),
                format!("done {index} {} {}", response.len(), request.len()),
            ]);
        }
    }
}
