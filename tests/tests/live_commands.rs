//! The commands beside `record` and `report`, as a user runs them.

use std::time::Duration;

use anyhow::{Context, ensure};
use memtrace_tests::gate;
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::{Recording, exit_code, pid_arguments, require_exit_code, run};
use memtrace_tests::server::{Server, Serving};

/// The demo ends in a report whose requests equal the answers its clients got.
#[test]
fn the_demo_counts_what_its_clients_got() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let output = run(["demo", "--duration", "2s"])?;
    require_exit_code(&output, exit_code::OK)?;
    let text = String::from_utf8(output.stdout)?;
    let number_after = |words: &str| -> anyhow::Result<u64> {
        let rest = &text[text
            .find(words)
            .with_context(|| format!("no {words:?} in {text}"))?
            + words.len()..];
        let digits: String = rest
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().context("no number")
    };
    let answers = number_after("clients got")?;
    assert!(answers > 100, "{answers} answers");
    assert_eq!(number_after("saw")?, answers);
    for row in ["GET /thumbnail/{id}", "GET /login", "404×"] {
        assert!(text.contains(row), "{row} in {text}");
    }
    assert!(!text.contains("LOSS"), "{text}");
    Ok(())
}

/// The doctor names the allocator and the place of its probes, and attaches
/// nothing that stays.
#[test]
fn the_doctor_examines_a_process() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(2), None)?;
    let output = run(["doctor".into(), "--pid".into(), server.pid().to_string()])?;
    require_exit_code(&output, exit_code::OK)?;
    let text = String::from_utf8(output.stdout)?;
    for words in [
        "glibc",
        "malloc",
        "free",
        "µs",
        "Everything that a trace needs works",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!text.contains("FAILS"), "{text}");
    let changed = memtrace_tests::probes::changed_code(server.pid())?;
    assert_eq!(changed, []);
    Ok(())
}

/// Without a terminal, top prints the report again and again; its last one has
/// every request.
#[test]
fn top_prints_plain_text() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(2), None)?;
    let url = server.url("/alloc/1000");
    let load = std::thread::spawn(move || {
        // Top needs a moment to attach: the load goes on for most of its time.
        std::thread::sleep(Duration::from_secs(1));
        h2load(500, 2, [url])
    });
    let mut arguments = vec!["top".into(), "--duration".into(), "4s".into()];
    arguments.extend(pid_arguments(&server.pids()));
    let output = run(arguments)?;
    require_exit_code(&output, exit_code::OK)?;
    load.join()
        .map_err(|_| anyhow::anyhow!("the load panicked"))??
        .require_all_succeeded(500)?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("GET /alloc/{id}"), "no endpoint in {text}");
    ensure!(text.contains("500 requests"), "not every request in {text}");
    Ok(())
}

/// The CSV of a capture has one row for each endpoint, with its figures.
#[test]
fn a_report_as_csv() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(2), None)?;
    let recording = Recording::of_pids(&server.pids())?;
    h2load(200, 2, [server.url("/alloc/1000"), server.url("/keep/64")])?
        .require_all_succeeded(200)?;
    let recorded = recording.stop()?;
    recorded.require_exit_code(exit_code::OK)?;
    let output = run([
        "report".as_ref(),
        recorded.capture.as_os_str(),
        "--format".as_ref(),
        "csv".as_ref(),
    ])?;
    require_exit_code(&output, exit_code::OK)?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("no header")?.split(',').collect();
    let column = |name: &str| {
        header
            .iter()
            .position(|column| *column == name)
            .with_context(|| format!("no column {name} in {header:?}"))
    };
    let (route, requests, total) = (
        column("route")?,
        column("requests")?,
        column("alloc_bytes_total")?,
    );
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    for (path, bytes) in [("/alloc/{id}", "100000"), ("/keep/{id}", "6400")] {
        let row = rows
            .iter()
            .find(|row| row.get(route) == Some(&path))
            .with_context(|| format!("no row of {path} in {text}"))?;
        assert_eq!(row[requests], "100", "{path}");
        assert_eq!(row[total], bytes, "{path}");
    }
    Ok(())
}
