//! What masking leaves, written out by hand. That it leaves nothing private for
//! any split, and changes no message, is shown by the properties in `http1`.

use super::*;
use crate::protocol::http1::Side::{Client, Server};

/// Masks bytes that were captured whole; gives what is worth storing.
fn mask(masker: &mut Masker, side: Side, bytes: &str) -> String {
    let mut payload = bytes.as_bytes().to_vec();
    let kept = masker.mask(side, payload.len() as u64, &mut payload, &mut []);
    assert_eq!(payload.len(), bytes.len());
    payload.truncate(kept);
    String::from_utf8(payload).unwrap_or_default()
}

#[test]
fn request_heads_keep_their_shape() {
    // Paths, names and framing headers stay; values and the body do not.
    let stored = mask(
        &mut Masker::new(),
        Client,
        "POST /a/b?id=77&token HTTP/1.1\r\nHost: example.org\r\nCookie: sid=1\r\n\
         Content-Type: text/html; boundary=abc\r\nContent-Length: 6\r\n\r\nsecret",
    );
    assert_eq!(
        stored,
        "POST /a/b?id=xx&***** HTTP/1.1\r\nHost:xxxxxxxxxxxx\r\nCookie:xxxxxx\r\n\
         Content-Type: text/html;xxxxxxxxxxxxx\r\nContent-Length: 6\r\n\r\n"
    );
}

#[test]
fn responses_keep_status_and_chunk_sizes() {
    // Chunk sizes stay, with zeros for the data between them; trailers are masked.
    let mut masker = Masker::new();
    mask(&mut masker, Client, "GET / HTTP/1.1\r\n\r\n");
    let stored = mask(
        &mut masker,
        Server,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\n\r\n\
         3;n=v\r\nabc\r\n0\r\nSum: 99\r\n\r\n",
    );
    assert_eq!(
        stored,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie:xx\r\n\r\n\
         3;xxx\r\n\0\0\0\r\n0\r\nSum:xxx\r\n\r\n"
    );
}

#[test]
fn pieces_are_masked_without_the_next() {
    // A name that is cut counts as a value, but names that frame are followed.
    let mut masker = Masker::new();
    let stored: Vec<String> = [
        "PO",
        "ST /p?na",
        "me=v",
        "al&ok=1 HTTP/1.1\r\nX-Se",
        "cret: a",
        "b\r\nconTENT-",
        "length: 1",
        "1\r\n\r\nsecret",
    ]
    .iter()
    .map(|piece| mask(&mut masker, Client, piece))
    .collect();
    assert_eq!(
        stored,
        [
            "PO",
            "ST /p?**",
            "**=x",
            "xx&ok=x HTTP/1.1\r\n****",
            "****:xx",
            "x\r\nconTENT-",
            "length: 1",
            "1\r\n\r\n",
        ]
    );
}

#[test]
fn framing_names_that_go_astray_are_masked() {
    // What only starts like a framing header is masked from where it differs.
    let stored = mask(
        &mut Masker::new(),
        Client,
        "GET / HTTP/1.1\r\nContent-Secret value\r\nExpectation: v\r\n\r\n",
    );
    assert_eq!(
        stored,
        "GET / HTTP/1.1\r\nContent-************\r\nExpectation:xx\r\n\r\n"
    );
}

#[test]
fn nothing_stays_of_other_protocols() {
    // Bytes that are no HTTP are dropped, but for those that tell what they are,
    // or that could have been the start of a known method.
    let mut masker = Masker::new();
    assert_eq!(mask(&mut masker, Client, "secret\r\n"), "");
    assert_eq!(mask(&mut masker, Client, "PASS hunter2\r\n"), "PA");
    assert_eq!(mask(&mut masker, Server, "+OK secret\r\n"), "\0");
    let mut masker = Masker::new();
    assert_eq!(
        mask(&mut masker, Client, "\u{16}\u{3}\u{1}secret"),
        "\u{16}\u{3}\u{1}"
    );
    assert_eq!(mask(&mut masker, Server, "\u{16}\u{3}\u{1}secret"), "");
}

#[test]
fn nothing_stays_after_an_upgrade() {
    // Tunnelled bytes are content.
    let mut masker = Masker::new();
    mask(
        &mut masker,
        Client,
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    );
    let head = "HTTP/1.1 101 Switching\r\n\r\n";
    assert_eq!(mask(&mut masker, Server, &format!("{head}frame")), head);
    assert_eq!(mask(&mut masker, Client, "frame"), "");
}

#[test]
fn tails_keep_only_what_ends_a_message() {
    // Of the last bytes only the end of a head or of a chunked body stays.
    for (tail, left) in [
        (b"secretab", &[0; 8]),
        (b"ret\r\n\r\n!", &[0; 8]),
        (b"s\r\n0\r\n\r\n", b"\0\r\n0\r\n\r\n"),
        (b"abcd\r\n\r\n", b"\0\0\0\0\r\n\r\n"),
        (b"abc1\r\n\r\n", b"\0\0\0\0\r\n\r\n"),
    ] {
        let mut tail = *tail;
        Masker::new().mask(Server, 100, &mut [], &mut tail);
        assert_eq!(&tail, left);
    }
}

#[test]
fn broken_records_are_masked_too() {
    // A payload longer than its length, or a tail that is not needed, does not
    // leak either.
    let mut payload = *b"GET / HTTP/1.1\r\n\r\nsecret";
    let mut tail = *b"\r\n0\r\n\r\n";
    let kept = Masker::new().mask(Client, 18, &mut payload, &mut tail);
    assert_eq!((kept, &payload[18..], tail), (18, &[0; 6][..], [0; 7]));
}
