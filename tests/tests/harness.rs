//! The measures themselves, measured: servers, load generators and the shim
//! must agree with each other before memtrace is compared with them.
//!
//! In: everything but memtrace; no root. Out: agreement to the last count.
//! Deliberately not here: memtrace.

use memtrace_tests::client::RawConnection;
use memtrace_tests::gate;
use memtrace_tests::load::{Connections, ab, h2load};
use memtrace_tests::nginx::{FILE_BYTES, Nginx};
use memtrace_tests::probes::changed_code;
use memtrace_tests::report::require_within;
use memtrace_tests::server::{PythonServer, Server, Serving};
use memtrace_tests::shim::{CountingShim, HeapCounts};

/// What the C server asks of the heap for one request of each kind, by hand.
#[test]
fn the_shim_counts_what_the_server_allocates() -> anyhow::Result<()> {
    let _alone = gate::alone()?;
    for serving in [Serving::Threads(4), Serving::Epoll] {
        let shim = CountingShim::new()?;
        let server = Server::alloc_server(serving, Some(&shim))?;
        let before = shim.wait_until_quiet(&[server.pid()])?[0];
        let urls = [
            "/alloc/1000",
            "/calloc/1000",
            "/realloc/1000",
            "/memalign/1000",
            "/failing/1000",
            "/keep/1000",
            "/next/1000",
            "/other/1000",
            "/later/1000",
            "/status/404",
        ]
        .map(|path| server.url(path));
        h2load(400, 8, &urls)?.require_all_answered(400)?;
        let used = shim.wait_until_quiet(&[server.pid()])?[0] - before;
        // 40 of each; realloc has 3 allocations, memalign 3, status none.
        // Never freed: the kept ones, and the last of /next.
        let expected = HeapCounts {
            alloc_count: 40 * (1 + 1 + 3 + 3 + 1 + 1 + 1 + 1 + 1),
            alloc_bytes: 40 * (1000 + 1000 + 1750 + 3000 + 5 * 1000),
            free_count: 40 * (1 + 1 + 3 + 3 + 1 + 1 + 1 + 1) - 1,
            free_bytes: 40 * (1000 + 1000 + 1750 + 3000 + 4 * 1000) - 1000,
        };
        assert_eq!(used, expected, "{serving:?}");

        let counts = server.alloc_server_counts()?;
        assert_eq!(counts.count("/requests/realloc")?, 40);
        assert_eq!(counts.count("/bytes/realloc")?, 40 * 1750);
        assert_eq!(counts.count("/bytes/later")?, 40 * 1000);
        assert_eq!(counts.count("/status/404")?, 40);
        assert_eq!(counts.count("/freed_elsewhere")?, 40);
    }
    Ok(())
}

/// A forked child counts from zero, apart from its parent.
#[test]
fn the_shim_counts_forked_workers_apart() -> anyhow::Result<()> {
    let _alone = gate::alone()?;
    let shim = CountingShim::new()?;
    let server = PythonServer::GunicornFlaskThreads.start(Some(&shim))?;
    let pids = server.pids();
    assert_eq!(pids.len(), 3, "a master and two workers");
    // The first requests import and fill caches.
    h2load(80, 8, [server.url("/big/4000000")])?.require_all_succeeded(80)?;
    let before = shim.wait_until_quiet(&pids)?;
    h2load(200, 8, [server.url("/big/4000000")])?.require_all_succeeded(200)?;
    let after = shim.wait_until_quiet(&pids)?;
    let used = |index: usize| after[index] - before[index];
    assert!(used(0).alloc_bytes < 1_000_000, "the master serves nothing");
    let workers = used(1).plus(used(2));
    require_within(
        "the workers' bytes",
        workers.alloc_bytes as f64,
        200.0 * 4e6,
        0.02,
    )?;
    Ok(())
}

/// Servers and generators count the same requests.
#[test]
fn python_servers_count_what_the_generators_count() -> anyhow::Result<()> {
    let _alone = gate::alone()?;
    for kind in PythonServer::ALL {
        let server = kind.start(None)?;
        let urls =
            ["/plain", "/big/100000", "/status/404", "/keep/1000"].map(|path| server.url(path));
        let load = h2load(320, 8, &urls)?;
        load.require_all_answered(320)?;
        assert_eq!(load.by_class, [240, 0, 80, 0], "{kind:?}");
        ab(100, 4, Connections::New, &server.url("/plain"))?.require_all_succeeded(100)?;
        let counts = server.python_counts()?;
        assert_eq!(counts["/plain"]["200"], 180, "{kind:?}");
        assert_eq!(counts["/big/100000"]["200"], 80, "{kind:?}");
        assert_eq!(counts["/status/404"]["404"], 80, "{kind:?}");
        assert_eq!(counts["/keep/1000"]["200"], 80, "{kind:?}");
        assert_eq!(counts.len(), 4, "{kind:?}");
    }
    Ok(())
}

/// nginx's log and the backend count what the generators count.
#[test]
fn nginx_counts_what_the_generators_count() -> anyhow::Result<()> {
    let _alone = gate::alone()?;
    let shim = CountingShim::new()?;
    let nginx = Nginx::start(Some(&shim))?;
    let server = nginx.server();
    let urls =
        ["/file.txt", "/proxied/alloc/500", "/missing", "/none"].map(|path| server.url(path));
    let load = h2load(800, 8, &urls)?;
    load.require_all_answered(800)?;
    assert_eq!(load.by_class, [400, 0, 400, 0]);
    ab(300, 4, Connections::Kept, &server.url("/file.txt"))?.require_all_succeeded(300)?;
    let counts = nginx.counts(1100)?;
    assert_eq!(counts["/file.txt"]["200"], 500);
    assert_eq!(counts["/proxied/alloc/500"]["200"], 200);
    assert_eq!(counts["/missing"]["404"], 200);
    assert_eq!(counts["/none"]["404"], 200);
    let backend = nginx.backend().alloc_server_counts()?;
    assert_eq!(backend.count("/requests/alloc")?, 200);
    let body = RawConnection::open(server.port())?.get("/file.txt")?.body;
    assert_eq!(body.len(), FILE_BYTES);
    // Both workers count, in files of their own.
    let heaps = shim.wait_until_quiet(&server.pids())?;
    assert_eq!(heaps.len(), 3);
    Ok(())
}

/// The shapes of HTTP that the live tests use are served as they should be.
#[test]
fn the_c_server_speaks_http() -> anyhow::Result<()> {
    let _alone = gate::alone()?;
    for serving in [Serving::Threads(2), Serving::Epoll] {
        let server = Server::alloc_server(serving, None)?;
        let mut connection = RawConnection::open(server.port())?;
        // Two in one piece, the second with a chunked body in pieces.
        connection.send_in_pieces([
            "GET /alloc/10 HTTP/1.1\r\nHost: test\r\n\r\nPOST /calloc/10 HTTP/1.1\r\nHost: test\r\nTransf",
            "er-Encoding: chunked\r\n\r\n5\r\nhel",
            "lo\r\n3;x=y\r\nabc\r\n0\r\nTrailer: t\r\n\r\n",
        ])?;
        assert_eq!(connection.response_to("GET")?.status, 200);
        assert_eq!(connection.response_to("POST")?.body, b"ok\n");
        connection.send(
            "POST /alloc/10 HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )?;
        assert_eq!(connection.take(25)?, b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.send("body")?;
        assert_eq!(connection.response_to("POST")?.status, 200);
        connection.send("HEAD /body/5000 HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let head = connection.response_to("HEAD")?;
        assert!(head.head.contains("Content-Length: 5000"), "{}", head.head);
        assert_eq!(connection.get("/chunked/5000")?.body.len(), 5000);
        assert_eq!(connection.get("/status/204")?.status, 204);
        assert_eq!(connection.get("/later/100")?.status, 200);
        connection.send("GET http://test/alloc/10?x=1 HTTP/1.1\r\nHost: test\r\n\r\n")?;
        assert_eq!(connection.response_to("GET")?.status, 200);
        assert_eq!(connection.get("/upgrade/64")?.status, 101);
        let not_a_request = b"GET /alloc/1 HTTP/1.1\r\n\r\n";
        connection.send(not_a_request)?;
        assert_eq!(connection.take(not_a_request.len())?, not_a_request);
        drop(connection);
        let mut garbage = RawConnection::open(server.port())?;
        garbage.send(b"\x16\x03\x01\x00\r\n\r\n")?;
        assert_eq!(garbage.response_to("GET")?.status, 400);

        let counts = server.alloc_server_counts()?;
        assert_eq!(counts.count("/requests/alloc")?, 3);
        assert_eq!(counts.count("/requests/upgrade")?, 1);
        assert_eq!(counts.count("/bad_heads")?, 1);
        assert_eq!(counts.count("/upgraded_reads")?, 1);
    }
    Ok(())
}

/// A process that nobody traces has the code of its files.
#[test]
fn untraced_code_is_unchanged() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(2), None)?;
    assert_eq!(changed_code(server.pid())?, []);
    Ok(())
}
