//! Connections written out by hand, and the messages they must give.

use super::Message::*;
use super::Side::{Client, Server};
use super::*;
use crate::message::Protocol;

mod series;
mod trouble;

/// One connection under test.
struct Wire {
    connection: Connection,
    out: Vec<Message>,
}

impl Wire {
    fn new() -> Self {
        Wire {
            connection: Connection::new(),
            out: Vec::new(),
        }
    }

    fn picked_up() -> Self {
        Wire {
            connection: Connection::picked_up(),
            out: Vec::new(),
        }
    }

    /// Bytes that were captured whole.
    fn send(&mut self, side: Side, bytes: impl AsRef<[u8]>) -> &mut Self {
        let payload = bytes.as_ref();
        self.cut(side, payload.len() as u64, payload, b"")
    }

    /// Bytes of which `payload` and `tail` were captured.
    fn cut(&mut self, side: Side, len: u64, payload: &[u8], tail: &[u8]) -> &mut Self {
        let bytes = Bytes { len, payload, tail };
        self.connection.feed(side, bytes, &mut self.out);
        self
    }

    fn close(&mut self) -> &mut Self {
        self.connection.close(&mut self.out);
        self
    }

    /// What happened since the last call, in short.
    fn said(&mut self) -> Vec<String> {
        self.out.drain(..).map(|message| short(&message)).collect()
    }
}

/// A message in short: its name, its exchange, and what else it says.
fn short(message: &Message) -> String {
    match message {
        RequestBegin { exchange } => format!("begin {}", exchange.0),
        RequestHead {
            exchange,
            method,
            target,
            protocol,
            keep_alive,
            expect_continue,
            head_bytes,
            complete,
        } => {
            let flag = |set: bool, text: &'static str| if set { text } else { "" };
            format!(
                "head {} {method} {target} {} {head_bytes}{}{}{}",
                exchange.0,
                if *protocol == Protocol::Http10 {
                    "1.0"
                } else {
                    "1.1"
                },
                flag(!keep_alive, " close"),
                flag(*expect_continue, " expect"),
                flag(!complete, " cut"),
            )
        }
        RequestEnd {
            exchange,
            request_bytes,
        } => format!("end {} {request_bytes}", exchange.0),
        Interim { exchange, status } => format!("interim {} {status}", exchange.0),
        ResponseBegin { exchange } => format!("answer {}", exchange.0),
        ResponseHead {
            exchange,
            status,
            head_bytes,
        } => format!("status {} {status} {head_bytes}", exchange.0),
        ResponseEnd {
            exchange,
            response_bytes,
            request_bytes,
        } => format!("done {} {response_bytes} {request_bytes}", exchange.0),
        Upgraded {
            exchange,
            response_bytes,
            request_bytes,
        } => format!("upgraded {} {response_bytes} {request_bytes}", exchange.0),
        MalformedRequest { exchange, defect } => format!("bad request {} {defect:?}", exchange.0),
        MalformedResponse { exchange, defect } => {
            format!("bad response {} {defect:?}", exchange.0)
        }
        UnmatchedResponse { status } => format!("unmatched {status:?}"),
        RequestAbandoned {
            exchange,
            how,
            request_bytes,
            response_bytes,
            status,
        } => format!(
            "abandoned {} {how:?} {request_bytes} {response_bytes} {status:?}",
            exchange.0
        ),
        SeriesBegin { exchange, series } => format!("series {} {series:?}", exchange.0),
        SeriesMessageBegin { exchange, from } => format!("opens {} {from:?}", exchange.0),
        SeriesMessage {
            exchange,
            from,
            bytes,
        } => format!("message {} {from:?} {bytes}", exchange.0),
        SeriesCut { exchange, from } => format!("untold {} {from:?}", exchange.0),
        Role(_)
        | Foreign(_)
        | Carries { .. }
        | Numbered { .. }
        | Multiplexed
        | GrpcStatus { .. } => {
            panic!("no message of HTTP/1: {message:?}")
        }
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Runs one exchange and gives what was said after the request's head.
fn answer_to(request: &str, response: &str) -> Vec<String> {
    let mut wire = Wire::new();
    wire.send(Client, request);
    wire.out
        .retain(|message| !matches!(message, RequestBegin { .. } | RequestHead { .. }));
    wire.send(Server, response).said()
}

#[test]
fn keep_alive_exchanges_follow_each_other() {
    // Two requests on one connection give two exchanges with exact byte counts.
    let mut wire = Wire::new();
    for id in 0..2 {
        let said = wire.send(Client, GET).send(Server, OK).said();
        let expected = [
            format!("begin {id}"),
            format!("head {id} GET /a 1.1 28"),
            format!("end {id} 28"),
            format!("answer {id}"),
            format!("status {id} 200 38"),
            format!("done {id} 40 28"),
        ];
        assert_eq!(said, expected);
    }
    assert_eq!(wire.connection.is_http(), Verdict::Http1);
    assert!(wire.close().said().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    // Three heads in one feed are three requests, matched first in, first out.
    let mut wire = Wire::new();
    wire.send(
        Client,
        "GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
    );
    wire.out.clear();
    let said = wire
        .send(
            Server,
            "HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 304 Same\r\n\r\n",
        )
        .said();
    let ends: Vec<&String> = said
        .iter()
        .filter(|line| !line.starts_with("answer"))
        .collect();
    assert_eq!(
        ends,
        [
            "status 0 404 38",
            "done 0 39 19",
            "status 1 200 38",
            "done 1 38 20",
            "status 2 304 21",
            "done 2 21 19",
        ]
    );
}

#[test]
fn a_length_frames_a_request() {
    // A body of known length ends exactly where it says, and the next head follows.
    let mut wire = Wire::new();
    wire.send(Client, "POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\nab");
    assert_eq!(wire.said(), ["begin 0", "head 0 POST /p 1.1 39"]);
    assert_eq!(wire.send(Client, "cdeG").said(), ["end 0 44", "begin 1"]);
}

#[test]
fn chunks_frame_both_directions() {
    // Chunk extensions and trailers are part of the message, and end it exactly.
    let mut wire = Wire::new();
    let head = "POST /p HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
    let body =
        "4;name=\"v\"\r\nabcd\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: 1\r\n\r\n";
    wire.send(Client, format!("{head}{body}{GET}"));
    let total = head.len() + body.len();
    assert_eq!(
        wire.said()[2..4],
        [format!("end 0 {total}"), "begin 1".to_owned()]
    );
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n";
    wire.send(Server, format!("{head}2\r\nok\r\n0\r\n\r\n{OK}"));
    let total = head.len() + 12;
    assert!(wire.said().contains(&format!("done 0 {total} 121")));
}

#[test]
fn chunked_wins_over_a_length() {
    // With both Transfer-Encoding and Content-Length, the chunks decide.
    let said = answer_to(
        "POST / HTTP/1.1\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK,
    );
    assert_eq!(said[0], "end 0 72");
    assert_eq!(said.last().map(String::as_str), Some("done 0 40 72"));
}

#[test]
fn responses_without_a_body() {
    // HEAD, 204 and 304 have no body whatever their heads say.
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let response = format!("HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n");
        let said = answer_to(&format!("{method} / HTTP/1.1\r\n\r\n"), &response);
        assert!(
            said.last()
                .is_some_and(|line| line.starts_with("done 0 39 ")),
            "{said:?}"
        );
    }
}

#[test]
fn a_response_lasts_until_the_close() {
    // Without a length or chunks the end of the connection ends the response.
    let mut wire = Wire::new();
    wire.send(Client, "GET / HTTP/1.0\r\n\r\n")
        .send(Server, "HTTP/1.0 200 OK\r\n\r\n");
    wire.said();
    wire.cut(Server, 1_000_000, b"", b"");
    assert!(wire.said().is_empty());
    wire.connection.close_side(Server, &mut wire.out);
    assert_eq!(wire.said(), ["done 0 1000019 18"]);
    assert!(wire.close().said().is_empty());
}

#[test]
fn continue_is_an_interim_response() {
    // 100 and 103 come before the final response and count into its bytes.
    let mut wire = Wire::new();
    wire.send(
        Client,
        "PUT /f HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    assert_eq!(wire.said(), ["begin 0", "head 0 PUT /f 1.1 60 expect"]);
    wire.send(Server, "HTTP/1.1 100 Continue\r\n\r\n")
        .send(Client, "abc");
    assert_eq!(wire.said(), ["answer 0", "interim 0 100", "end 0 63"]);
    wire.send(
        Server,
        format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}"),
    );
    assert_eq!(
        wire.said(),
        ["interim 0 103", "status 0 200 38", "done 0 102 63"]
    );
}

#[test]
fn a_refused_expectation_lets_the_next_request_follow() {
    // A client refused before it sent its body may go on without sending it.
    let mut wire = Wire::new();
    wire.send(
        Client,
        "PUT /f HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    wire.send(Server, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        .said();
    assert_eq!(wire.send(Client, GET).said()[..1], ["begin 1"]);
}

#[test]
fn an_early_answer_does_not_end_the_request() {
    // A 413 may be complete while the body is still arriving.
    let mut wire = Wire::new();
    wire.send(Client, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
    wire.said();
    wire.send(Server, "HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.said(), ["answer 0", "status 0 413 39", "done 0 39 42"]);
    wire.send(Client, "defghij").send(Client, GET);
    assert_eq!(wire.said()[..2], ["end 0 49", "begin 1"]);
}

#[test]
fn upgrades_end_the_parsing() {
    // After 101 nothing on the connection is HTTP/1 any more.
    let mut wire = Wire::new();
    wire.send(
        Client,
        "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    );
    wire.said();
    wire.send(
        Server,
        "HTTP/1.1 101 Switching\r\nUpgrade: foo\r\n\r\nGARBAGE",
    );
    assert_eq!(
        wire.said(),
        ["answer 0", "status 0 101 40", "upgraded 0 40 55"]
    );
    wire.send(Client, GET).send(Server, OK).close();
    assert!(wire.said().is_empty());
}

#[test]
fn connect_opens_a_tunnel_unless_refused() {
    // CONNECT upgrades on 2xx; after a refusal the connection stays HTTP.
    let request = "CONNECT db.internal:5432 HTTP/1.1\r\n\r\n";
    let said = answer_to(request, "HTTP/1.1 200 Go\r\n\r\n");
    assert_eq!(
        said,
        [
            "end 0 37",
            "answer 0",
            "status 0 200 19",
            "upgraded 0 19 37"
        ]
    );
    let mut wire = Wire::new();
    wire.send(Client, request)
        .send(Server, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    wire.said();
    assert_eq!(wire.send(Client, GET).send(Server, OK).said().len(), 6);
}

#[test]
fn all_target_forms_are_understood() {
    // Absolute, asterisk and authority form, without their private parts.
    for (line, target) in [
        ("GET http://user:pw@host:80/p?q=1", "/p?q"),
        ("OPTIONS *", "*"),
        ("CONNECT h:1", ""),
        ("CONNECT /h:1", ""),
        ("GET /a;s=1/b?x=1&novalue", "/a/b?x&*"),
    ] {
        let mut wire = Wire::new();
        let said = wire.send(Client, format!("{line} HTTP/1.1\r\n\r\n")).said();
        assert!(said[1].contains(&format!(" {target} 1.1")), "{said:?}");
    }
}

#[test]
fn odd_line_ends_are_tolerated() {
    // Empty lines before a request, and line feeds without carriage returns.
    let mut wire = Wire::new();
    wire.send(
        Client,
        "\r\n\r\nPOST / HTTP/1.1\nContent-Length: 1\n\nx\r\n",
    );
    assert_eq!(wire.said(), ["begin 0", "head 0 POST / 1.1 35", "end 0 36"]);
    wire.send(
        Server,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n",
    );
    assert_eq!(wire.said()[1..], ["status 0 200 44", "done 0 51 36"]);
}

#[test]
fn persistence_is_reported() {
    // keep_alive follows the version and the Connection header.
    for (version, header, keeps) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: foo, CLOSE", false),
        ("1.0", "X: y", false),
        ("1.0", "connection: Keep-Alive", true),
    ] {
        let mut wire = Wire::new();
        wire.send(Client, format!("GET / HTTP/{version}\r\n{header}\r\n\r\n"));
        assert_eq!(
            !wire.said()[1].ends_with(" close"),
            keeps,
            "{version} {header}"
        );
    }
}

#[test]
fn heads_of_any_length_are_followed() {
    // A head far larger than any buffer still frames its message.
    let mut wire = Wire::new();
    wire.send(Client, "POST /long HTTP/1.1\r\n");
    for _ in 0..1000 {
        wire.send(Client, format!("Cookie: {}\r\n", "c".repeat(1000)));
    }
    wire.send(Client, "Content-Length: 2\r\n\r\nab");
    let total = 21 + 1000 * 1010 + 21 + 2;
    assert_eq!(wire.said()[2], format!("end 0 {total}"));
}

#[test]
fn equal_lengths_may_be_repeated() {
    // Content-Length twice with one value frames the message.
    let said = answer_to(
        "POST / HTTP/1.1\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nab",
        OK,
    );
    assert_eq!(said[0], "end 0 62");
}

#[test]
fn an_idle_connection_is_small() {
    // Thousands of connections are followed at once.
    let size = size_of::<Connection>();
    assert!(size <= 512, "{size} bytes");
}
