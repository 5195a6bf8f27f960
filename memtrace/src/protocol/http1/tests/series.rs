//! Messages within an exchange, as HTTP/1 carries them.

use super::*;

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";

#[test]
fn a_websocket_is_a_series_in_both_directions() {
    // Frames may come in the same piece as the heads, and whole or cut.
    let mut wire = Wire::new();
    wire.send(Client, UPGRADE).said();
    wire.send(Server, format!("{SWITCHING}\u{1}\u{2}hi"));
    assert_eq!(
        wire.said(),
        [
            "answer 0",
            "status 0 101 46",
            "upgraded 0 46 83",
            "series 0 WebSocket",
            "opens 0 Server",
        ]
    );
    wire.send(Server, b"\x80\x00")
        .send(Client, b"\x82\xfe\x01\x00mask")
        .cut(Client, 256, b"", b"");
    assert_eq!(
        wire.said(),
        [
            "message 0 Server 6",
            "opens 0 Client",
            "message 0 Client 264"
        ]
    );
    assert!(wire.close().said().is_empty());
}

#[test]
fn other_upgrades_are_no_series() {
    // What is switched to is what the server says.
    let mut wire = Wire::new();
    wire.send(Client, UPGRADE).said();
    wire.send(
        Server,
        "HTTP/1.1 101 Switching\r\nUpgrade: echo\r\n\r\n\u{1}\u{2}hi",
    );
    assert_eq!(
        wire.said().last().map(String::as_str),
        Some("upgraded 0 41 83")
    );
}

#[test]
fn events_are_found_in_chunks() {
    // An event may be cut by chunks, a chunk may hold several.
    let mut wire = Wire::new();
    wire.send(Client, GET).said();
    wire.send(
        Server,
        format!("{STREAM}Transfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n"),
    );
    assert_eq!(
        wire.said()[1..],
        [
            "status 0 200 95",
            "series 0 ServerSentEvents",
            "opens 0 Server"
        ]
    );
    wire.send(Server, "e\r\n1\n\ndata: 2\n\nda\r\n");
    assert_eq!(
        wire.said(),
        ["message 0 Server 9", "opens 0 Server", "message 0 Server 9"]
    );
    wire.send(Server, "0\r\n\r\n");
    assert_eq!(wire.said().len(), 1);
    assert_eq!(wire.send(Client, GET).send(Server, OK).said().len(), 6);
}

#[test]
fn a_long_event_that_was_cut_ends() {
    // With its chunk, whatever its size; or with a response that has none.
    let mut wire = Wire::new();
    wire.send(Client, GET)
        .send(
            Server,
            format!("{STREAM}Transfer-Encoding: chunked\r\n\r\n"),
        )
        .said();
    wire.cut(Server, 6 + 4096 + 2, b"1000\r\ndata: ", b"abcd\n\n\r\n");
    assert_eq!(wire.said(), ["opens 0 Server", "message 0 Server 4096"]);

    let mut wire = Wire::new();
    wire.send(Client, GET)
        .send(Server, format!("{STREAM}\r\n"))
        .said();
    wire.cut(Server, 4096, b"data: ", b"abcdef\n\n");
    wire.send(Server, "data: 2\r\n\r\n");
    assert_eq!(
        wire.said(),
        [
            "opens 0 Server",
            "message 0 Server 4096",
            "opens 0 Server",
            "message 0 Server 11",
        ]
    );
}

#[test]
fn lost_chunks_are_told_and_found_again() {
    // Beyond the capture nobody knows where chunks begin; a whole one tells.
    let mut wire = Wire::new();
    wire.send(Client, GET)
        .send(
            Server,
            format!("{STREAM}Transfer-Encoding: chunked\r\n\r\n"),
        )
        .said();
    wire.cut(Server, 3000, b"9\r\ndata: 1\n\n\r\n", b"ata: 3\n\n");
    assert_eq!(
        wire.said(),
        ["opens 0 Server", "message 0 Server 9", "untold 0 Server"]
    );
    wire.send(Server, "9\r\ndata: 4\n\n\r\n");
    assert_eq!(wire.said(), ["opens 0 Server", "message 0 Server 9"]);
}

#[test]
fn compressed_events_are_not_told_apart() {
    // Nor are they passed over in silence.
    let mut wire = Wire::new();
    wire.send(Client, GET)
        .send(Server, format!("{STREAM}Content-Encoding: gzip\r\n\r\n"))
        .said();
    wire.send(Server, b"\x1f\x8b\n\n").send(Server, b"\n\n");
    assert_eq!(wire.said(), ["untold 0 Server", "untold 0 Server"]);
}
