//! What was not captured, not seen, or is no HTTP/2: nothing fatal, nothing
//! wrong.

use super::*;

#[test]
fn what_was_not_captured_is_passed_over_by_its_length() {
    // A body of which 512 bytes were captured ends exactly where it says.
    let mut wire = Wire::new();
    let head = wire.headers(Client, 1, 0, &[(":method", "POST"), (":path", "/up")]);
    wire.send(Client, &head).happened();
    let data = frame(DATA, END_STREAM, 1, &[7; 16_000]);
    wire.cut(Client, data.len() as u64, &data[..512]);
    let total = head.len() + data.len();
    assert_eq!(wire.happened(), [format!("end 0 {total}")]);
    // The position is known after it, and so is the table.
    wire.ask(3, "/up");
    assert!(wire.happened()[1].starts_with("head 1 GET /up "));
}

#[test]
fn a_lost_position_is_found_again_where_a_feed_opens_with_frames() {
    // The header of a second frame was not captured.
    let mut wire = Wire::new();
    wire.ask(1, "/a").said();
    let mut bytes = wire.headers(Server, 1, 0, &[(":status", "200")]);
    bytes.extend(frame(DATA, 0, 1, &[7; 1000]));
    let captured = bytes.len() - 500;
    bytes.extend(frame(DATA, 0, 1, &[7; 1000]));
    wire.cut(Server, bytes.len() as u64, &bytes[..captured]);
    assert_eq!(wire.happened(), ["answer 0", "status 0 200"]);
    // In the middle of a frame there is nothing to be recognised.
    wire.send(Server, [7; 300]);
    assert!(wire.said().is_empty());
    wire.send(Server, frame(DATA, END_STREAM, 1, b"end"));
    assert!(wire.happened()[0].starts_with("done 0"));
}

#[test]
fn an_end_that_may_have_been_missed_is_none_that_was_cut_off() {
    // Bytes of the server were lost: the response may have ended among them.
    let mut wire = Wire::new();
    wire.ask(1, "/a").said();
    wire.cut(Server, 5000, b"");
    wire.ask(3, "/b").said();
    let said = wire.close().said();
    assert!(said[0].starts_with("done 0 0 "), "{said:?}");
    assert!(said[1].starts_with("abandoned 1 NoResponse "), "{said:?}");
}

#[test]
fn headers_that_refer_to_what_was_not_seen_are_unknown() {
    // The connection was picked up with a header table that had grown before.
    let mut wire = Wire::new();
    let before = wire.request(1, "PATCH", "/old");
    let mut seen = Wire::picked_up();
    std::mem::swap(&mut seen.client, &mut wire.client);
    drop(before);
    seen.ask(3, "/new");
    let again = seen.request(5, "PATCH", "/old");
    seen.send(Client, again);
    seen.ask(7, "/new");
    let heads: Vec<String> = seen.happened();
    let heads: Vec<&String> = heads.iter().filter(|l| l.starts_with("head")).collect();
    assert!(heads[0].starts_with("head 0 GET /new "), "{heads:?}");
    assert!(
        heads[1].starts_with("head 1 {unknown} {unknown} "),
        "{heads:?}"
    );
    assert!(heads[2].starts_with("head 2 GET /new "), "{heads:?}");
}

#[test]
fn a_block_that_was_cut_makes_the_table_unknown_until_it_is_filled_anew() {
    // What the rest of the block added shifts every index.
    let mut wire = Wire::new();
    wire.ask(1, "/known").happened();
    let fields = [
        (":method", "GET"),
        (":path", "/cut"),
        ("x-long", "never captured"),
    ];
    let cut = wire.headers(Client, 3, END_STREAM, &fields);
    wire.cut(Client, cut.len() as u64, &cut[..18]);
    let said = wire.happened();
    assert!(said[1].starts_with("head 1 GET /cut "), "{said:?}");
    assert!(said[1].ends_with(" cut"), "{said:?}");
    wire.ask(5, "/known");
    assert!(wire.happened()[1].starts_with("head 2 GET {unknown} "));
    wire.ask(7, "/fresh").ask(9, "/fresh");
    let said = wire.happened();
    assert!(said[1].starts_with("head 3 GET /fresh "), "{said:?}");
    assert!(said[4].starts_with("head 4 GET /fresh "), "{said:?}");
}

#[test]
fn lost_records_make_the_table_unknown() {
    // Whether told of, or shown by a stream that was never seen to open.
    let mut wire = Wire::new();
    wire.ask(1, "/known").happened();
    wire.connection.lose();
    wire.ask(3, "/known");
    assert!(wire.happened()[1].starts_with("head 1 GET {unknown} "));
    wire.ask(5, "/fresh").happened();
    let missed = wire.request(7, "GET", "/missed");
    drop(missed);
    wire.ask(9, "/missed");
    assert!(wire.happened()[1].starts_with("head 3 GET {unknown} "));
}

#[test]
fn a_status_that_is_unknown_is_not_stated() {
    // The response is followed all the same.
    let mut wire = Wire::new();
    wire.ask(1, "/").ask(3, "/").answer(1, "418").said();
    wire.connection.lose();
    wire.answer(3, "418");
    let said = wire.happened();
    assert_eq!(said[0], "answer 1");
    assert!(said[1].starts_with("done 1"), "{said:?}");
    assert_eq!(said.len(), 2);
}

#[test]
fn a_connection_picked_up_in_the_middle_knows_trailers_from_requests() {
    // Trailers of a request that was not seen are none, and open nothing.
    let mut wire = Wire::picked_up();
    let trailers = wire.headers(Client, 41, END_STREAM, &[("x-sum", "1")]);
    wire.send(Client, trailers);
    assert!(wire.said().is_empty());
    wire.answer(41, "200");
    assert_eq!(wire.said(), ["unmatched Some(200)"]);
    let request = wire.request(43, "GET", "/a");
    let sent = request.len();
    wire.send(Client, request);
    assert_eq!(
        wire.said(),
        [
            "begin 0".to_owned(),
            "carries 0".to_owned(),
            format!("head 0 GET /a {sent}"),
            format!("end 0 {sent}")
        ]
    );
}

#[test]
fn frames_are_told_from_other_bytes() {
    // A request or a response in HTTP/2 says who is who; little else does.
    let mut wire = Wire::new();
    let request = wire.request(1, "GET", "/");
    let response = wire.headers(Server, 1, END_STREAM, &[(":status", "200")]);
    let mut after_window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]);
    after_window.extend(&request);
    let of = |bytes: &[u8]| sender_of(bytes, bytes.len() as u64);
    assert_eq!(of(&request), Some(Client));
    assert_eq!(of(&after_window), Some(Client));
    assert_eq!(of(&response), Some(Server));
    assert_eq!(of(&frame(SETTINGS, 0, 0, &[0; 6])), None);
    assert_eq!(of(&[0; 64]), None);
    assert_eq!(of(b"GET / HTTP/1.1\r\n\r\n"), None);
    assert_eq!(
        of(b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff"),
        None
    );
}

#[test]
fn more_streams_than_are_followed_are_counted_all_the_same() {
    // Each exchange that begins ends, and memory is bounded.
    let mut wire = Wire::new();
    let many = STREAMS_MAX as u32 + 10;
    for n in 0..many {
        wire.ask(2 * n + 1, "/");
    }
    wire.close();
    let ends = |how: Abandoned| {
        wire.out
            .iter()
            .filter(|message| matches!(message, RequestAbandoned { how: is, .. } if *is == how))
            .count()
    };
    assert_eq!(ends(Abandoned::PipelineTooLong), 10);
    assert_eq!(ends(Abandoned::NoResponse), STREAMS_MAX);
}

#[test]
fn a_block_beyond_all_bounds_is_cut() {
    // It is passed over without being held.
    let mut wire = Wire::new();
    let mut bytes = frame(HEADERS, END_STREAM, 1, &[0x82, 0x84]);
    for _ in 0..20 {
        bytes.extend(frame(CONTINUATION, 0, 1, &[0x86; 16_000]));
    }
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let total = bytes.len();
    wire.send(Client, bytes);
    assert_eq!(wire.happened()[1], format!("head 0 GET / {total} cut"));
    wire.ask(3, "/next");
    assert!(wire.happened()[1].starts_with("head 1 GET /next "));
}
