//! HTTP as it is really spoken: pipelines, chunks, pieces, interim answers,
//! upgrades, nonsense, connections cut short.
//!
//! In: exact bytes to the C server, which counts what it understood. Out: the
//! same counts in memtrace's report. Deliberately not here: the parser's own
//! tests, which need no server.

use memtrace_tests::client::RawConnection;
use memtrace_tests::gate;
use memtrace_tests::load::{Connections, ab};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::process::wait_until;
use memtrace_tests::report::Report;
use memtrace_tests::server::{Server, Serving};

/// Traces the C server, both ways of serving, while `talk` talks to it; then
/// `compare` gets the report.
fn traced(
    talk: impl Fn(&Server) -> anyhow::Result<()>,
    compare: impl Fn(&Report) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for serving in [Serving::Threads(8), Serving::Epoll] {
        let server = Server::alloc_server(serving, None)?;
        let recording = Recording::of_pids(&server.pids())?;
        talk(&server)?;
        let report = recording.stop()?.complete_report()?;
        compare(&report).map_err(|error| error.context(format!("{serving:?}")))?;
    }
    Ok(())
}

/// `requests` of this kind, allocating so many bytes together.
fn require_row(
    report: &Report,
    method: &str,
    path: &str,
    requests: u64,
    alloc_bytes: u32,
) -> anyhow::Result<()> {
    let row = report.endpoint(method, path)?;
    row.require_requests(requests)?;
    assert_eq!(
        row.figure("alloc_bytes", "total")?,
        f64::from(alloc_bytes),
        "{path}"
    );
    Ok(())
}

#[test]
fn pipelined_requests() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for _ in 0..10 {
                let mut together = String::new();
                for path in ["/alloc/1000", "/status/404", "/keep/500", "/alloc/1000"] {
                    together += &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
                }
                connection.send(together)?;
                for expected in [200, 404, 200, 200] {
                    assert_eq!(connection.response_to("GET")?.status, expected);
                }
            }
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 40);
            // One read brought four requests: which of them allocated is not to
            // be seen from a socket, but how many there were, and how answered.
            report
                .endpoint("GET", "/alloc/1000")?
                .require_requests(20)?;
            let not_found = report.endpoint("GET", "/status/404")?;
            not_found.require_requests(10)?;
            assert_eq!(not_found.statuses()?["404"], 10);
            report.endpoint("GET", "/keep/500")?.require_requests(10)
        },
    )
}

#[test]
fn heads_and_bodies_in_pieces() -> anyhow::Result<()> {
    traced(
        |server| {
            for _ in 0..5 {
                let mut connection = RawConnection::open(server.port())?;
                connection.send_in_pieces([
                    "G",
                    "ET /all",
                    "oc/1000 HT",
                    "TP/1.1\r\nHost: te",
                    "st\r",
                    "\n\r",
                    "\n",
                ])?;
                assert_eq!(connection.response_to("GET")?.status, 200);
                connection.send_in_pieces([
                    "POST /calloc/2000 HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n01234",
                    "56789",
                    "GET /alloc",
                ])?;
                assert_eq!(connection.response_to("POST")?.status, 200);
            }
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 10, "a body is no request");
            require_row(report, "GET", "/alloc/1000", 5, 5000)?;
            require_row(report, "POST", "/calloc/2000", 5, 10_000)
        },
    )
}

#[test]
fn chunked_uploads_and_downloads() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for _ in 0..10 {
                connection.send_in_pieces([
                    "POST /alloc/1000 HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "19;name=value\r\nGET /keep/1 HTTP/1.1\r\n\r\n.\r\n",
                    "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
                ])?;
                assert_eq!(connection.response_to("POST")?.status, 200);
                assert_eq!(connection.get("/chunked/5000")?.body.len(), 5000);
            }
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 20, "what a chunk holds is no request");
            require_row(report, "POST", "/alloc/1000", 10, 10_000)?;
            require_row(report, "GET", "/chunked/5000", 10, 0)?;
            let bytes = report
                .endpoint("GET", "/chunked/5000")?
                .figure("response_bytes", "mean")?;
            assert!(
                (5000.0..5600.0).contains(&bytes),
                "{bytes} bytes of response"
            );
            Ok(())
        },
    )
}

/// HEAD, 204 and 304 have no body, whatever their heads announce.
#[test]
fn answers_without_a_body() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for _ in 0..10 {
                connection.send("HEAD /body/5000 HTTP/1.1\r\nHost: test\r\n\r\n")?;
                assert_eq!(connection.response_to("HEAD")?.status, 200);
                assert_eq!(connection.get("/status/204")?.status, 204);
                assert_eq!(connection.get("/status/304")?.status, 304);
                assert_eq!(connection.get("/alloc/1000")?.status, 200);
            }
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 40);
            report
                .endpoint("HEAD", "/body/5000")?
                .require_requests(10)?;
            require_row(report, "GET", "/alloc/1000", 10, 10_000)?;
            let statuses = report.statuses()?;
            assert_eq!(
                (statuses["200"], statuses["204"], statuses["304"]),
                (20, 10, 10)
            );
            Ok(())
        },
    )
}

/// 100 Continue is not the answer.
#[test]
fn expect_100_continue() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for _ in 0..10 {
                connection.send(
                    "POST /alloc/1000 HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\
                     Expect: 100-continue\r\n\r\n",
                )?;
                assert_eq!(connection.take(25)?, b"HTTP/1.1 100 Continue\r\n\r\n");
                connection.send("hello")?;
                assert_eq!(connection.response_to("POST")?.status, 200);
            }
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 10);
            require_row(report, "POST", "/alloc/1000", 10, 10_000)?;
            assert_eq!(report.statuses()?.get("200"), Some(&10));
            assert_eq!(report.statuses()?.len(), 1, "100 is no final status");
            Ok(())
        },
    )
}

/// After 101 the connection's bytes are no HTTP, even if they look like it.
#[test]
fn an_upgraded_connection() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            connection.send(
                "GET /upgrade/4000 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
                 Upgrade: echo\r\n\r\n",
            )?;
            assert_eq!(connection.response_to("GET")?.status, 101);
            let looks_like_a_request = b"GET /keep/1 HTTP/1.1\r\nHost: test\r\n\r\n";
            for _ in 0..10 {
                connection.send(looks_like_a_request)?;
                let echo = connection.take(looks_like_a_request.len())?;
                assert_eq!(echo, looks_like_a_request);
            }
            drop(connection);
            let mut other = RawConnection::open(server.port())?;
            assert_eq!(other.get("/alloc/1000")?.status, 200);
            Ok(())
        },
        |report| {
            assert_eq!(report.requests()?, 2);
            report
                .endpoint("GET", "/upgrade/4000")?
                .require_requests(1)?;
            assert_eq!(report.statuses()?["101"], 1);
            require_row(report, "GET", "/alloc/1000", 1, 1000)
        },
    )
}

/// Absolute-form targets and queries belong to the same endpoint.
#[test]
fn forms_of_a_target() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for target in [
                "/alloc/1000",
                "http://test/alloc/1000",
                "http://test:80/alloc/2000",
                "/alloc/00000000000000003000",
            ] {
                connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
                assert_eq!(connection.response_to("GET")?.status, 200);
            }
            Ok(())
        },
        |report| require_row(report, "GET", "/alloc/1000", 4, 7000),
    )
}

/// A query's values are not in the report, and do not make rows.
#[test]
fn queries_are_reduced_to_names() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for number in 0..20 {
                let path = format!("/alloc/1000?token=secret{number}&page={number}");
                assert_eq!(connection.get(&path)?.status, 200);
            }
            Ok(())
        },
        |report| {
            require_row(report, "GET", "/alloc/1000", 20, 20_000)?;
            let json = report.0.to_string();
            assert!(!json.contains("secret"), "a value got through: {json}");
            Ok(())
        },
    )
}

/// HTTP/1.0, with and without keep-alive.
#[test]
fn http_1_0() -> anyhow::Result<()> {
    traced(
        |server| {
            let url = server.url("/alloc/1000");
            ab(200, 4, Connections::New, &url)?.require_all_succeeded(200)?;
            ab(200, 4, Connections::Kept, &url)?.require_all_succeeded(200)
        },
        |report| require_row(report, "GET", "/alloc/1000", 400, 400_000),
    )
}

/// Nonsense is refused by the server and counted by nobody as a request that
/// was served well; requests around it are counted as ever.
#[test]
fn heads_that_are_none() -> anyhow::Result<()> {
    let mut long = b"GET /".to_vec();
    long.extend(vec![b'a'; 20_000]);
    let nonsense: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9.9.9.9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"get /alloc/1 http/1.1\r\n\r\n",
        &long,
    ];
    traced(
        |server| {
            for bytes in nonsense {
                let mut good = RawConnection::open(server.port())?;
                assert_eq!(good.get("/alloc/1000")?.status, 200);
                let mut bad = RawConnection::open(server.port())?;
                bad.send(bytes)?;
                assert_eq!(bad.response_to("GET")?.status, 400);
                drop(bad);
                assert_eq!(good.get("/alloc/1000")?.status, 200);
            }
            Ok(())
        },
        |report| {
            require_row(report, "GET", "/alloc/1000", 12, 12_000)?;
            assert_eq!(report.statuses()?["200"], 12);
            Ok(())
        },
    )
}

/// Clients that leave: before the head is whole, before the body is, before the
/// answer is read.
#[test]
fn connections_cut_short() -> anyhow::Result<()> {
    traced(
        |server| {
            let port = server.port();
            for _ in 0..5 {
                RawConnection::open(port)?.send("GET /keep/1 HT")?;
                RawConnection::open(port)?
                    .send("POST /keep/1 HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome")?;
                let mut unread = RawConnection::open(port)?;
                unread.send("GET /body/200000 HTTP/1.1\r\nHost: test\r\n\r\n")?;
                unread.take(1000)?;
                drop(unread);
                RawConnection::open(port)?;
            }
            // Each of them is closed by the server, too, before the trace ends.
            wait_until("the server to close what was cut", || {
                let counts = server.alloc_server_counts()?;
                Ok(counts.count("/accepted")? == counts.count("/closed")? + 1)
            })?;
            let mut connection = RawConnection::open(port)?;
            assert_eq!(connection.get("/alloc/1000")?.status, 200);
            Ok(())
        },
        |report| {
            require_row(report, "GET", "/alloc/1000", 1, 1000)?;
            // Asked whole, answered in part.
            assert_eq!(report.endpoint("GET", "/body/200000")?.requests()?, 5);
            Ok(())
        },
    )
}

/// Numbers in paths fold, so that a thousand of them are one row.
#[test]
fn a_thousand_paths_are_one_route() -> anyhow::Result<()> {
    traced(
        |server| {
            let mut connection = RawConnection::open(server.port())?;
            for bytes in 1..=1000 {
                assert_eq!(connection.get(&format!("/alloc/{bytes}"))?.status, 200);
            }
            Ok(())
        },
        |report| require_row(report, "GET", "/alloc/1", 1000, 500_500),
    )
}
