//! Connections that are malformed, cut, lost, picked up in the middle, or no HTTP
//! at all, and what is still made of them.

use super::*;

#[test]
fn malformed_requests_are_counted_and_left() {
    // Each defect is named, the server's answer still matches, and the next
    // request is found.
    for (request, defect) in [
        ("GET /\r\n", "Version"),
        ("GET / HTTP/2.0\r\n\r\n", "Version"),
        ("GET / x HTTP/1.1\r\n\r\n", "Version"),
        ("GET /\u{1} HTTP/1.1\r\n\r\n", "Target"),
        ("G(T / HTTP/1.1\r\n\r\n", "Method"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
            "ContentLength",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "ContentLength",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "ContentLength",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            "TransferEncoding",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "ChunkSize",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "ChunkSize",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
            "ChunkSize",
        ),
    ] {
        let mut wire = Wire::new();
        wire.send(Client, GET).send(Server, OK).said();
        let said = wire.send(Client, request).said();
        let expected = format!("bad request 1 {defect}");
        assert_eq!(said.last(), Some(&expected), "{request}");
        wire.send(Server, OK);
        assert_eq!(
            wire.said().last(),
            Some(&format!("done 1 40 {}", request.len()))
        );
        assert_eq!(
            wire.send(Client, GET).send(Server, OK).said().len(),
            6,
            "{request}"
        );
    }
}

#[test]
fn malformed_responses_are_counted_and_left() {
    // The exchange of a broken response ends when the next request opens.
    let mut wire = Wire::new();
    wire.send(Client, GET).said();
    wire.send(Server, "HTTP/1.1 2x0 OK\r\n\r\nbody");
    assert_eq!(wire.said(), ["answer 0", "bad response 0 StatusLine"]);
    let said = wire.send(Client, GET).send(Server, OK).said();
    assert_eq!(said[..2], ["done 0 23 28", "begin 1"]);
    assert_eq!(said.last().map(String::as_str), Some("done 1 40 28"));
}

#[test]
fn first_bytes_that_are_answered_were_a_request() {
    // What a server answers with 400 at the start of a connection is counted as
    // a malformed request.
    let mut wire = Wire::new();
    wire.send(Client, "hello\r\n");
    assert!(wire.said().is_empty());
    wire.send(Server, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        wire.said(),
        [
            "begin 0",
            "bad request 0 NotHttp1",
            "answer 0",
            "status 0 400 39",
            "done 0 39 7"
        ]
    );
}

#[test]
fn other_protocols_are_told_apart() {
    // TLS is recognised, also byte by byte; unknown ones stay unknown.
    for (bytes, verdict) in [
        (
            &b"\x16\x03\x01\x02\x00\x01"[..],
            Verdict::NotHttp(Other::Tls),
        ),
        (&b"*1\r\n$4\r\nPING\r\n"[..], Verdict::Unknown),
        (&b"GET well soon"[..], Verdict::Unknown),
        (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], Verdict::Unknown),
    ] {
        let mut wire = Wire::new();
        wire.send(Client, bytes)
            .send(Server, b"+PONG\r\n")
            .send(Client, bytes)
            .close();
        assert_eq!(wire.connection.is_http(), verdict);
        assert!(wire.said().is_empty());
        let mut wire = Wire::new();
        for &byte in bytes {
            wire.send(Client, [byte]);
        }
        assert_eq!(wire.connection.is_http(), verdict);
        assert!(wire.said().is_empty());
    }
}

#[test]
fn unknown_methods_need_a_whole_request_line() {
    // At an unknown position an unknown method counts only with a valid line.
    let mut wire = Wire::new();
    wire.send(Client, "BREW /pot HTTP/1.1\r\n\r\n");
    assert_eq!(wire.said()[1], "head 0 * /pot 1.1 22");
    let mut wire = Wire::new();
    wire.send(Client, "BREW /pot now\r\n");
    assert!(wire.said().is_empty());
}

#[test]
fn an_open_connection_is_picked_up_at_its_next_message() {
    // The rest of a body and of a response are passed over.
    let mut wire = Wire::picked_up();
    wire.send(Client, "rest of an upload")
        .send(Server, "rest of a page");
    wire.send(Server, OK);
    assert_eq!(wire.said(), ["unmatched Some(200)"]);
    assert_eq!(wire.send(Client, GET).send(Server, OK).said().len(), 6);

    let mut wire = Wire::picked_up();
    wire.send(Client, GET)
        .send(Server, "rest of a page")
        .send(Server, OK);
    assert_eq!(wire.said().last().map(String::as_str), Some("done 0 40 28"));
}

#[test]
fn an_unmatched_answer_to_head_does_not_swallow_the_next() {
    // Nobody saw whether the request was a HEAD, so its length may mean nothing.
    let mut wire = Wire::picked_up();
    wire.send(Server, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    wire.send(Client, GET).send(Server, OK);
    assert_eq!(wire.said().last().map(String::as_str), Some("done 0 40 28"));
}

#[test]
fn unasked_responses_are_unmatched() {
    // A server that gives up on an idle connection may say so.
    let mut wire = Wire::new();
    wire.send(Server, "HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.close().said(), ["unmatched Some(408)"]);
}

#[test]
fn abandoned_exchanges_say_how_far_they_got() {
    // A closed connection ends every exchange, with what was there of it.
    let mut wire = Wire::new();
    wire.send(
        Client,
        format!("{GET}{GET}POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"),
    );
    wire.send(Server, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    wire.said();
    assert_eq!(
        wire.close().said(),
        [
            "abandoned 0 PartialResponse 28 41 Some(200)",
            "abandoned 1 NoResponse 28 0 None",
            "abandoned 2 PartialRequest 41 0 None",
        ]
    );
}

#[test]
fn pipelines_are_bounded() {
    // Beyond the limit requests are abandoned at once, and responses stay in step.
    let mut wire = Wire::new();
    for _ in 0..PIPELINE_MAX + 3 {
        wire.send(Client, GET);
    }
    let given_up = wire
        .said()
        .iter()
        .filter(|line| line.contains("PipelineTooLong"))
        .count();
    assert_eq!(given_up, 3);
    assert_eq!(wire.send(Server, OK).said().len(), 3);
    // There is room again, but this request's response comes after the three.
    assert!(wire.send(Client, GET).said()[1].contains("PipelineTooLong"));
    for _ in 1..PIPELINE_MAX {
        assert!(
            wire.send(Server, OK)
                .said()
                .iter()
                .any(|line| line.starts_with("done"))
        );
    }
    for _ in 0..4 {
        assert_eq!(wire.send(Server, OK).said(), ["unmatched Some(200)"]);
    }
    assert_eq!(wire.send(Client, GET).send(Server, OK).said().len(), 6);
}

#[test]
fn uncaptured_bodies_are_counted() {
    // Bytes moved by sendfile are not seen and still belong to the response.
    let mut wire = Wire::new();
    wire.send(Client, GET)
        .send(Server, "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
    wire.said();
    wire.cut(Server, 4_000_000, b"", b"")
        .cut(Server, 1_000_000, b"", b"");
    assert_eq!(wire.said(), ["done 0 5000044 28"]);
}

#[test]
fn a_cut_head_is_reported_as_far_as_seen() {
    // The end of such a request is taken from what follows.
    let mut wire = Wire::new();
    wire.cut(
        Client,
        9000,
        b"POST /big HTTP/1.1\r\nCookie: aaaa",
        b"aaaaaaaa",
    );
    assert_eq!(wire.said(), ["begin 0", "head 0 POST /big 1.1 32 cut"]);
    wire.send(Server, OK);
    assert_eq!(
        wire.said(),
        [
            "answer 0",
            "end 0 9000",
            "status 0 200 38",
            "done 0 40 9000"
        ]
    );
    assert_eq!(wire.send(Client, GET).said()[0], "begin 1");
}

#[test]
fn a_cut_head_that_ends_its_feed_is_whole() {
    // The tail shows that a large head ended there, so a GET is complete.
    let mut wire = Wire::new();
    wire.cut(
        Client,
        9000,
        b"GET /big HTTP/1.1\r\nCookie: aaaa",
        b"aaaa\r\n\r\n",
    );
    assert_eq!(wire.said()[2..], ["end 0 9000"]);
    wire.cut(
        Client,
        9000,
        b"POST /big HTTP/1.1\r\nContent-Length: 3\r\nCookie: aaaa",
        b"aaaa\r\n\r\n",
    );
    assert_eq!(wire.send(Client, "abc").said()[2..], ["end 1 9003"]);
}

#[test]
fn an_unseen_head_is_a_malformed_request() {
    // Unreadable bytes where a request must open count as one.
    let mut wire = Wire::new();
    wire.send(Client, GET).send(Server, OK).said();
    wire.cut(Client, 100, b"", b"");
    assert_eq!(wire.said(), ["begin 1", "bad request 1 HeadNotCaptured"]);
    wire.send(Server, OK);
    assert_eq!(
        wire.said().last().map(String::as_str),
        Some("done 1 40 100")
    );
}

#[test]
fn chunk_sizes_beyond_the_capture() {
    // A chunk that is cut is counted exactly; unseen sizes are waited out until
    // the last chunk shows, in a tail or whole.
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let start = |wire: &mut Wire| {
        wire.send(Client, GET).send(Server, HEAD).said();
    };
    let total = |body: usize| vec![format!("done 0 {} 28", HEAD.len() + body)];
    // The feed ends exactly with the chunk.
    let mut wire = Wire::new();
    start(&mut wire);
    wire.cut(Server, 6 + 4096 + 2, b"1000\r\nabc", b"abcabc\r\n");
    wire.send(Server, "0\r\n\r\n");
    assert_eq!(wire.said(), total(4104 + 5));
    // The last chunk lies in the same feed.
    let mut wire = Wire::new();
    start(&mut wire);
    wire.cut(Server, 6 + 4096 + 2 + 5, b"1000\r\nabc", b"c\r\n0\r\n\r\n");
    assert_eq!(wire.said(), total(4109));
    // Sizes were missed; then the end shows in a tail, or in a feed of its own.
    for (len, payload, tail) in [
        (3000, &b"abc"[..], &b"c\r\n0\r\n\r\n"[..]),
        (5, &b"0\r\n\r\n"[..], &b""[..]),
        (10, &b"abc\r\n0\r\n\r\n"[..], &b""[..]),
    ] {
        let mut wire = Wire::new();
        start(&mut wire);
        wire.cut(Server, 9000, b"1000\r\nabc", b"abcabcab");
        assert!(wire.said().is_empty());
        wire.cut(Server, len, payload, tail);
        assert_eq!(wire.said(), total(9000 + len as usize));
        assert_eq!(wire.send(Client, GET).send(Server, OK).said().len(), 6);
    }
}

#[test]
fn the_next_request_ends_a_response_whose_end_was_missed() {
    // Clients that do not pipeline send a request only after the whole response.
    let mut wire = Wire::new();
    wire.send(Client, GET);
    wire.send(
        Server,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    wire.cut(Server, 9000, b"10\r\nabc", b"abcabcab");
    wire.said();
    assert_eq!(
        wire.send(Client, GET).said()[..2],
        ["done 0 9047 28", "begin 1"]
    );
    assert_eq!(wire.send(Server, OK).said().len(), 3);
}

#[test]
fn a_payload_longer_than_its_length_is_cut() {
    // A broken record cannot make bytes count that were not moved.
    let mut wire = Wire::new();
    wire.cut(Client, 28, format!("{GET}{GET}").as_bytes(), b"");
    assert_eq!(wire.said().len(), 3);
}
