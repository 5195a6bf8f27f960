//! A capture is the run: the same report from it, as often as one likes, from
//! any part of it, and not large.
//!
//! In: captures of live servers, whole and cut. Out: reports. Deliberately not
//! here: what the reports say; the other live tests compare that.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use memtrace_tests::gate;
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::{Recorded, Recording, exit_code, report_json, report_of, run};
use memtrace_tests::server::{PythonServer, Server, Serving};

/// A capture of a mixed load, with things retained and freed elsewhere in it.
fn mixed_capture(requests: u64) -> anyhow::Result<Recorded> {
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let urls = [
        "/alloc/1000",
        "/keep/200",
        "/other/300",
        "/next/400",
        "/status/404",
    ]
    .map(|path| server.url(path));
    h2load(requests, 4, &urls)?.require_all_answered(requests)?;
    let recorded = recording.stop()?;
    recorded.require_exit_code(exit_code::OK)?;
    assert_eq!(recorded.live_report()?.requests()?, requests);
    Ok(recorded)
}

#[test]
fn the_capture_gives_the_report_the_live_run_ended_with() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let recorded = mixed_capture(2000)?;
    let live = recorded.live_report()?;
    live.require_no_loss()?;
    live.require_schema()?;
    assert!(!live.is_truncated()?);
    assert_eq!(live.requests()?, 2000);
    assert_eq!(recorded.report()?, live);
    let first = report_json(&recorded.capture)?;
    let second = report_json(&recorded.capture)?;
    assert!(first == second, "two reports of one capture differ");

    // The other formats, too, are the same each time, and not empty.
    for format in ["table", "csv"] {
        let capture = recorded.capture.to_string_lossy().into_owned();
        let arguments = ["report", &capture, "--format", format];
        let (first, second) = (run(arguments)?, run(arguments)?);
        assert_eq!(first.status.code(), Some(exit_code::OK));
        assert!(
            String::from_utf8_lossy(&first.stdout).contains("/alloc/"),
            "{format}"
        );
        assert!(first.stdout == second.stdout, "two {format} reports differ");
    }
    let mode = fs::metadata(&recorded.capture)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a capture is its owner's alone");
    Ok(())
}

#[test]
fn a_python_capture_gives_the_report_the_live_run_ended_with() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = PythonServer::UvicornFastApi.start(None)?;
    let recording = Recording::of_pids(&server.pids())?;
    h2load(400, 8, [server.url("/plain"), server.url("/keep/1000")])?.require_all_succeeded(400)?;
    let recorded = recording.stop()?;
    let live = recorded.complete_report()?;
    live.require_schema()?;
    assert_eq!(live.requests()?, 400);
    assert_eq!(recorded.report()?, live);
    Ok(())
}

/// The first 100 bytes one by one, then some 200 places over the whole file.
#[test]
fn a_capture_cut_anywhere_opens_and_says_so() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let recorded = mixed_capture(4000)?;
    let whole = fs::read(&recorded.capture)?;
    let directory = tempfile::TempDir::new()?;
    let cut_file = directory.path().join("cut.memtrace");
    let step = (whole.len() / 200).max(1);
    let mut places: Vec<usize> = (1..100).collect();
    // A prime beside the step, so that places fall everywhere in a chunk.
    places.extend(
        (100..whole.len())
            .step_by(step)
            .map(|place| place + place % 7),
    );
    places.push(whole.len() - 1);
    let mut most_requests = 0;
    for place in places.into_iter().filter(|&place| place < whole.len()) {
        fs::write(&cut_file, &whole[..place])?;
        let report = report_of(&cut_file)
            .map_err(|error| error.context(format!("cut at byte {place} of {}", whole.len())))?;
        assert!(report.is_truncated()?, "cut at byte {place}");
        let requests = report.requests()?;
        assert!(requests <= 4000, "cut at byte {place}: {requests} requests");
        most_requests = most_requests.max(requests);
    }
    assert!(most_requests > 0, "no cut capture had a request left in it");
    Ok(())
}

/// Bytes changed inside a capture never crash the reader: a report, or a
/// sentence and exit code 9.
#[test]
fn a_damaged_capture_is_refused_or_read_in_part() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let recorded = mixed_capture(1000)?;
    let whole = fs::read(&recorded.capture)?;
    let directory = tempfile::TempDir::new()?;
    let damaged = directory.path().join("damaged.memtrace");
    let path = damaged.to_string_lossy().into_owned();
    for place in (0..whole.len()).step_by((whole.len() / 100).max(1)) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        fs::write(&damaged, &bytes)?;
        let output = run(["report", &path, "--format", "json"])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            matches!(
                output.status.code(),
                Some(exit_code::OK | exit_code::UNREADABLE_CAPTURE)
            ),
            "byte {place}: {} {stderr}",
            output.status
        );
        assert!(!stderr.contains("panicked"), "byte {place}: {stderr}");
    }
    Ok(())
}

#[test]
fn what_is_no_capture_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("text.memtrace");
    fs::write(
        &path,
        "This is not a capture, but a sentence that is long enough.\n".repeat(50),
    )?;
    for path in [path, directory.path().join("missing.memtrace")] {
        let path = path.to_string_lossy().into_owned();
        let output = run(["report", &path])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(exit_code::UNREADABLE_CAPTURE),
            "{stderr}"
        );
        assert!(
            stderr.contains(&path),
            "the message names the file: {stderr}"
        );
    }
    Ok(())
}

/// Under 1 KB for each request of the Python servers, everything recorded.
#[test]
fn captures_of_python_servers_are_small() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for kind in [
        PythonServer::GunicornFlaskThreads,
        PythonServer::GunicornDjangoThreads,
        PythonServer::UvicornFastApi,
        PythonServer::HttpServer,
    ] {
        let server = kind.start(None)?;
        let recording = Recording::of_pids(&server.pids())?;
        h2load(3000, 8, [server.url("/plain")])?.require_all_succeeded(3000)?;
        let recorded = recording.stop()?;
        assert_eq!(recorded.complete_report()?.requests()?, 3000);
        let bytes_each = recorded.capture_bytes()? / 3000;
        eprintln!("{kind:?}: {bytes_each} bytes of capture for each request");
        assert!(
            bytes_each < 1000,
            "{kind:?}: {bytes_each} bytes for each request"
        );
    }
    Ok(())
}

/// A capture stays within the size it was given, and says that it is not whole.
#[test]
fn a_capture_stays_within_its_size() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    let mut arguments = memtrace_tests::memtrace::pid_arguments(&server.pids());
    arguments.extend(["--max-size".into(), "128KiB".into()]);
    let recording = Recording::with(arguments)?;
    h2load(
        40_000,
        4,
        [server.url("/alloc/1000"), server.url("/keep/100")],
    )?
    .require_all_succeeded(40_000)?;
    let recorded = recording.stop()?;
    recorded.require_exit_code(exit_code::OK)?;
    assert!(recorded.capture_bytes()? <= 128 * 1024);
    let report = recorded.report()?;
    let lost = report.count("/capture/lost/total")?;
    assert!(
        report.is_truncated()? || lost > 0,
        "a capture that reached its size says what is missing"
    );
    Ok(())
}
