//! Requests over TLS are seen as their plaintext, once, on the connection that
//! carries them.
//!
//! In: real servers on OpenSSL (shared, linked in, Node's) and GnuTLS, with
//! sockets of their own and with buffers of their event loop's. Out: requests,
//! statuses and known bytes against the servers' own counts and the generators'.
//! Deliberately not here: HTTP/2; Go, whose TLS is its own; and
//! rustls, whose sessions are told by their sockets.

use memtrace_tests::gate;
use memtrace_tests::load::{Connections, ab, h2load};
use memtrace_tests::memtrace::{self, Recording};
use memtrace_tests::nginx::{FILE_BYTES, Nginx};
use memtrace_tests::programs::{Linked, Symbols};
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{PythonServer, RequestCounts, Server};
use memtrace_tests::tls::{self, Certificate, RustlsModel, TlsConnection};

const CONCURRENCIES: [u64; 3] = [1, 8, 64];

/// Every connection was read, and none is there a second time as its session.
fn require_read(report: &Report, connections: u64) -> anyhow::Result<()> {
    assert_eq!(report.count("/http/tls_connections")?, connections);
    assert_eq!(report.count("/http/tls_unread_connections")?, 0);
    assert_eq!(report.count("/http/not_http_connections")?, 0);
    assert_eq!(report.count("/connections/accepted")?, connections);
    assert_eq!(report.troubles()?, Vec::<String>::new());
    Ok(())
}

/// The report's requests are those that the server counted since `before`, path
/// by path and status by status.
fn require_counts(
    report: &Report,
    before: &RequestCounts,
    after: &RequestCounts,
) -> anyhow::Result<()> {
    let mut total = 0;
    for (path, by_status) in after {
        for (status, count) in by_status {
            let earlier = before.get(path).and_then(|of| of.get(status)).unwrap_or(&0);
            if count == earlier {
                continue;
            }
            let row = report.endpoint("GET", path)?;
            assert_eq!(
                row.statuses()?.get(status),
                Some(&(count - earlier)),
                "{path}"
            );
            total += count - earlier;
        }
    }
    assert_eq!(report.requests()?, total);
    Ok(())
}

/// A server with `/plain`, `/big/N`, `/keep/N`, `/status/N` and `/counts`. Each
/// client's first request, for which the library makes the connection's buffers,
/// is one of which no bytes are known.
fn known_bytes(
    name: &str,
    start: impl Fn(&Certificate) -> anyhow::Result<Server>,
) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let server = start(&certificate)?;
    let paths = ["/status/404", "/big/4000000", "/keep/1000000", "/plain"];
    let urls = paths.map(|path| server.https_url(path));
    // The first requests import modules and fill caches: not what is measured.
    h2load(256, 64, &urls)?.require_all_answered(256)?;
    for clients in CONCURRENCIES {
        let before = certificate.counts(&server)?;
        let recording = Recording::of_pids(&server.pids())?;
        h2load(256, clients, &urls)?.require_all_answered(256)?;
        let report = recording.stop()?.complete_report()?;
        let what = |error: anyhow::Error| error.context(format!("{name}, {clients} clients"));
        for path in paths {
            let row = report.endpoint("GET", path)?;
            row.require_requests(64).map_err(what)?;
        }
        require_counts(&report, &before, &certificate.counts(&server)?)?;
        let mean = |path, figure| report.endpoint("GET", path)?.figure(figure, "mean");
        // What asyncio's TLS takes for any request is no small part of it.
        let plain = mean("/plain", "alloc_bytes")?;
        let big = mean("/big/4000000", "alloc_bytes")?;
        require_within("bytes of /big", big - plain, 4e6, 0.02).map_err(what)?;
        let kept = mean("/keep/1000000", "retained_bytes")?;
        require_within("bytes of /keep", kept, 1e6, 0.02).map_err(what)?;
        assert_eq!(report.count("/http/tls_unread_connections")?, 0, "{name}");
        assert_eq!(
            report.count("/http/tls_connections")?,
            report.count("/connections/accepted")?,
            "{name}: a session is no connection beside its socket"
        );
        assert_eq!(report.troubles()?, Vec::<String>::new(), "{name}");
    }
    Ok(())
}

fn python(kind: PythonServer) -> anyhow::Result<()> {
    known_bytes(&format!("{kind:?}"), |certificate| {
        kind.start_tls(certificate)
    })
}

/// Sockets of OpenSSL's own, a connection for each request.
#[test]
fn gunicorn_sync() -> anyhow::Result<()> {
    python(PythonServer::GunicornFlaskSync)
}

#[test]
fn gunicorn_threads() -> anyhow::Result<()> {
    python(PythonServer::GunicornFlaskThreads)
}

/// Buffers of the event loop's: which session a socket's bytes are for is not
/// said by any call.
#[test]
fn uvicorn_on_asyncio() -> anyhow::Result<()> {
    python(PythonServer::UvicornFastApiAsyncio)
}

#[test]
fn uvicorn_on_uvloop() -> anyhow::Result<()> {
    python(PythonServer::UvicornFastApi)
}

#[test]
fn hypercorn() -> anyhow::Result<()> {
    known_bytes("hypercorn", tls::hypercorn)
}

/// OpenSSL linked into the program, and sessions fed from libuv.
#[test]
fn node() -> anyhow::Result<()> {
    known_bytes("node", tls::node)
}

/// Keep-alive and new connections, static and proxied, and nginx as a client of
/// its own TLS.
#[test]
fn nginx() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let nginx = Nginx::start_tls(&certificate)?;
    let server = nginx.server();
    let paths = ["/file.txt", "/proxied/alloc/1000", "/missing"];
    let mut asked = 0;
    for clients in CONCURRENCIES {
        let before = nginx.counts(asked)?;
        let recording = Recording::of_pids(&server.pids())?;
        let urls = paths.map(|path| server.https_url(path));
        h2load(192, clients, &urls)?.require_all_answered(192)?;
        let report = recording.stop()?.complete_report()?;
        asked += 192;
        require_counts(&report, &before, &nginx.counts(asked)?)?;
        require_read(&report, clients)?;
        let bytes = report
            .endpoint("GET", "/file.txt")?
            .figure("response_bytes", "mean")?;
        let head = (bytes - FILE_BYTES as f64).max(0.0);
        assert!((150.0..350.0).contains(&head), "{head} bytes of head");
    }
    for path in ["/file.txt", "/secure/file.txt"] {
        let before = nginx.counts(asked)?;
        let recording = Recording::of_pids(&server.pids())?;
        let url = server.https_url(path);
        ab(100, 8, Connections::New, &url)?.require_all_succeeded(100)?;
        let report = recording.stop()?.complete_report()?;
        asked += if path == "/file.txt" { 100 } else { 200 };
        require_counts(&report, &before, &nginx.counts(asked)?)?;
        // ab opens some connections that it does not use.
        let unread = report.count("/http/tls_unread_connections")?;
        assert!(unread <= 8, "{unread} connections unread");
        // Those of nginx's processes among themselves, those to its backend, and
        // the last of the load before, on which it may still say goodbye.
        let accepted = report.count("/connections/accepted")?;
        let found_open = report.count("/connections/found_open")?;
        let tls = report.count("/http/tls_connections")?;
        assert!((accepted..=accepted + found_open).contains(&tls), "{tls}");
        let ambiguous = report.count("/unattributed/by_reason/ambiguous/alloc_bytes");
        assert!(ambiguous.is_err(), "{ambiguous:?} bytes ambiguous");
    }
    Ok(())
}

/// Looking is not receiving, a call inside a call counts once, and both forms of
/// reading and writing are known, wherever the library is.
#[test]
fn every_form_of_openssls_calls() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    for linked in [Linked::Shared, Linked::Static] {
        let server = tls::openssl_forms(linked, &certificate)?;
        for clients in [1, 16] {
            let before = counted(&certificate, &server)?;
            let recording = Recording::of_pids(&server.pids())?;
            let url = server.https_url("/alloc/1000000");
            h2load(320, clients, [url])?.require_all_succeeded(320)?;
            let report = recording.stop()?.complete_report()?;
            assert_eq!(counted(&certificate, &server)? - before, 320);
            assert_eq!(report.requests()?, 320, "{linked:?}");
            let row = report.endpoint("GET", "/alloc/1000000")?;
            row.require_requests(320)?;
            assert_eq!(row.statuses()?.get("200"), Some(&320));
            let bytes = row.figure("alloc_bytes", "mean")?;
            require_within("bytes of a request", bytes, 1e6, 0.02)?;
            require_read(&report, clients)?;
        }
    }
    Ok(())
}

fn counted(certificate: &Certificate, server: &Server) -> anyhow::Result<u64> {
    let body = certificate.get(&server.https_url("/count"))?;
    Ok(String::from_utf8(body)?.trim().parse()?)
}

/// Where nothing tells where plaintext passes, the report says that requests were
/// not seen, and why; `doctor` says so before.
fn require_said(server: &Server) -> anyhow::Result<()> {
    let output = memtrace::run(["doctor", "--pid", &server.pid().to_string()])?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("requests that come over TLS would not be seen"),
        "{said}"
    );
    let recording = Recording::of_pids(&server.pids())?;
    h2load(64, 8, [server.https_url("/alloc/1000000")])?.require_all_succeeded(64)?;
    let report = recording.stop()?.complete_report()?;
    assert_eq!(report.requests()?, 0);
    assert_eq!(report.count("/http/tls_connections")?, 8);
    assert_eq!(report.count("/http/tls_unread_connections")?, 8);
    let troubles = report.troubles()?;
    assert!(
        matches!(&troubles[..], [one] if one.starts_with("8 connections that it accepted carry TLS")),
        "{troubles:?}"
    );
    let reason = "/unattributed/by_reason/tls_unread/alloc_bytes";
    assert!(report.count(reason)? >= 64_000_000);
    Ok(())
}

#[test]
fn a_library_without_symbols_is_stated() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    require_said(&tls::openssl_forms(Linked::Stripped, &certificate)?)
}

#[test]
fn rustls_without_symbols_is_stated() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    require_said(&tls::rustls(
        RustlsModel::Threads,
        Symbols::None,
        &certificate,
    )?)
}

/// GnuTLS and OpenSSL in the same server.
#[test]
fn lighttpd() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    for module in ["mod_gnutls", "mod_openssl"] {
        let server = tls::lighttpd(module, &certificate)?;
        for clients in CONCURRENCIES {
            let recording = Recording::of_pids(&server.pids())?;
            let urls = ["/file.txt", "/none"].map(|path| server.https_url(path));
            h2load(256, clients, &urls)?.require_all_answered(256)?;
            let report = recording.stop()?.complete_report()?;
            assert_eq!(report.requests()?, 256, "{module}");
            let file = report.endpoint("GET", "/file.txt")?;
            file.require_requests(128)?;
            assert_eq!(file.statuses()?.get("200"), Some(&128));
            let none = report.endpoint("GET", "/none")?;
            none.require_requests(128)?;
            assert_eq!(none.statuses()?.get("404"), Some(&128));
            let bytes = file.figure("response_bytes", "mean")?;
            assert!((2150.0..2350.0).contains(&bytes), "{bytes} bytes");
            require_read(&report, clients)?;
        }
        let recording = Recording::of_pids(&server.pids())?;
        let url = server.https_url("/file.txt");
        ab(100, 8, Connections::New, &url)?.require_all_succeeded(100)?;
        let report = recording.stop()?.complete_report()?;
        assert_eq!(report.requests()?, 100, "{module}");
    }
    Ok(())
}

#[test]
fn gnutls_serv() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let server = tls::gnutls_serv(&certificate)?;
    let recording = Recording::of_pids(&server.pids())?;
    let url = server.https_url("/whatever");
    ab(100, 8, Connections::New, &url)?.require_all_succeeded(100)?;
    let report = recording.stop()?.complete_report()?;
    report.endpoint("GET", "/whatever")?.require_requests(100)?;
    assert_eq!(report.requests()?, 100);
    Ok(())
}

/// Connections that were open before the trace are tied to their sessions by
/// what comes on them.
#[test]
fn connections_from_before_the_trace() -> anyhow::Result<()> {
    type Start = fn(&Certificate) -> anyhow::Result<Server>;
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let servers: [(&str, Start); 4] = [
        ("asyncio", |it| {
            PythonServer::UvicornFastApiAsyncio.start_tls(it)
        }),
        ("uvloop", |it| PythonServer::UvicornFastApi.start_tls(it)),
        ("threads", |it| {
            PythonServer::GunicornFlaskThreads.start_tls(it)
        }),
        ("node", tls::node),
    ];
    for (name, start) in servers {
        let server = start(&certificate)?;
        let mut connections = Vec::new();
        for _ in 0..3 {
            let mut connection = TlsConnection::open(server.port())?;
            connection.get("/plain")?;
            connections.push(connection);
        }
        let recording = Recording::of_pids(&server.pids())?;
        for _ in 0..5 {
            for connection in &mut connections {
                assert!(connection.get("/plain")?.contains("200"), "{name}");
                assert!(connection.get("/status/404")?.contains("404"), "{name}");
            }
        }
        let report = recording.stop()?.complete_report()?;
        assert_eq!(report.requests()?, 30, "{name}");
        report.endpoint("GET", "/plain")?.require_requests(15)?;
        let missing = report.endpoint("GET", "/status/404")?;
        assert_eq!(missing.statuses()?.get("404"), Some(&15), "{name}");
        assert_eq!(report.count("/http/tls_connections")?, 3, "{name}");
        assert_eq!(report.count("/http/tls_unread_connections")?, 0, "{name}");
        assert_eq!(report.count("/connections/accepted")?, 0, "{name}");
    }
    Ok(())
}
