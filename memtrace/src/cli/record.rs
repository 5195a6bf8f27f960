//! `memtrace record`: trace and write a capture.

use std::{
    ffi::OsStr,
    io::{IsTerminal as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::{
    drive::{Driver, Hooks},
    targets::TargetArguments,
};
use crate::{
    collect::{CaptureOptions, Collector, Ended},
    failure::Failure,
    output::{json, text},
    probe::{launch::Waiting, sys},
};

/// Arguments of `record`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    targets: TargetArguments,

    /// How events are selected: exact takes every one
    #[arg(long, value_enum, default_value_t = Mode::Exact)]
    mode: Mode,

    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// The capture to write [default: memtrace-TIME.memtrace, TIME in seconds since 1970]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Stop when the capture has this size
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = ByteSize::from_str)]
    max_size: ByteSize,

    /// Also write the report that the trace ended with, as JSON
    #[arg(long, value_name = "FILE")]
    json_out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Exact,
}

/// Runs it.
///
/// # Errors
/// Whatever keeps the trace from beginning, or its capture from being written.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = arguments.targets.trace_options()?;
    match arguments.mode {
        Mode::Exact => {}
    }
    crate::probe::tracer::check_privileges()?;
    let path = arguments.output.clone().unwrap_or_else(|| {
        PathBuf::from(format!(
            "memtrace-{}.memtrace",
            sys::realtime_ns() / 1_000_000_000
        ))
    });
    let driver = Driver::new()?;
    let waiting = start_waiting(&arguments.targets)?;
    let mut collector = Collector::start(
        options,
        arguments.targets.retain_ns(),
        Some(CaptureOptions {
            path: &path,
            max_bytes: arguments.max_size.as_u64(),
        }),
        waiting.as_ref().map(|waiting| waiting.pid),
        arguments.targets.named(),
    )?;
    announce(&collector);
    let started_pid = waiting.as_ref().map(|waiting| waiting.pid);
    start_command(waiting)?;

    let terminal = std::io::stderr().is_terminal();
    let begin = Instant::now();
    let why = driver.drive(
        &mut collector,
        arguments.duration,
        &mut Hooks {
            every: Duration::from_secs(1),
            call: &mut |collector| {
                if terminal {
                    progress(collector, begin.elapsed());
                }
            },
            stop: &|| None,
        },
    )?;
    let ended = collector.end(why);
    if terminal {
        eprint!("\r\x1b[K");
    }
    if let Some(path) = &arguments.json_out {
        write_json(path, &ended)?;
    }
    summarise(&path, why, &ended);
    if let Some(pid) = started_pid
        && sys::signal(pid, 0).is_ok()
    {
        eprintln!("memtrace: the command still runs as process {pid}");
    }
    match ended.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Forks the command's process, if one is to be started.
pub fn start_waiting(targets: &TargetArguments) -> Result<Option<Waiting>, Failure> {
    let Some(program) = targets.command.first() else {
        return Ok(None);
    };
    if !can_be_found(program) {
        return Err(Failure::NoTarget(format!(
            "there is no program {} to run",
            program.to_string_lossy()
        )));
    }
    Waiting::new(&targets.command)
        .map(Some)
        .map_err(|error| cannot_run(&error))
}

/// Lets the command run; a thread takes note of its end.
pub fn start_command(waiting: Option<Waiting>) -> Result<(), Failure> {
    if let Some(waiting) = waiting {
        let mut child = waiting.start().map_err(|error| cannot_run(&error))?;
        std::thread::spawn(move || {
            // The trace learns of the end by itself; this is so that no
            // zombie is left.
            let _ = child.wait();
        });
    }
    Ok(())
}

/// Whether a command's program exists, where the shell would look for it.
fn can_be_found(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn cannot_run(error: &std::io::Error) -> Failure {
    Failure::NoTarget(format!("the command cannot be run: {error}"))
}

/// The line that says that every probe is in place.
pub fn announce(collector: &Collector) {
    let Some(tracer) = collector.tracer() else {
        return;
    };
    let pids: Vec<String> = tracer.targets().map(|target| target.to_string()).collect();
    let what = match pids.len() {
        0 => "no process yet".to_owned(),
        1 => format!("process {}", pids[0]),
        _ => format!("{} processes ({})", pids.len(), shortened(&pids)),
    };
    eprintln!(
        "memtrace: tracing {what}, every event, through {}; stop with Ctrl-C",
        tracer.uprobe_kind()
    );
}

fn shortened(pids: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = pids
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if pids.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

fn progress(collector: &Collector, elapsed: Duration) {
    let (events, bytes) = collector.progress();
    eprint!(
        "\r\x1b[K{:>4} s  {} events  {} in the capture",
        elapsed.as_secs(),
        text::count(events),
        text::bytes(bytes)
    );
    // A progress line that cannot be printed is no reason to stop.
    let _ = std::io::stderr().flush();
}

fn write_json(path: &Path, ended: &Ended) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::Output(format!(
            "the report {} cannot be written: {error}; choose another place with --json-out",
            path.display()
        ))
    };
    let mut bytes = Vec::new();
    json::write(&ended.report, &mut bytes).map_err(cannot)?;
    std::fs::write(path, bytes).map_err(cannot)
}

fn summarise(path: &Path, why: &str, ended: &Ended) {
    let report = &ended.report;
    let lost = report.capture.lost.total;
    eprintln!(
        "memtrace: {why}; {} events in {:.1} s, {} requests, {} allocated, {} lost",
        text::count(report.capture.events),
        report.capture.duration_ns as f64 / 1e9,
        text::count(report.totals.requests),
        text::bytes(report.totals.alloc_bytes),
        if lost == 0 {
            "nothing".to_owned()
        } else {
            format!("{} events", text::count(lost))
        },
    );
    for process in &report.processes {
        for trouble in &process.trouble {
            eprintln!("memtrace: process {}: {trouble}", process.pid);
        }
    }
    if let Some(capture) = &ended.capture {
        eprintln!(
            "memtrace: {} in {}; see it with: memtrace report {}",
            text::bytes(capture.bytes),
            path.display(),
            path.display()
        );
    }
}
