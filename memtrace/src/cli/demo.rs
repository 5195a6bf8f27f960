//! `memtrace demo`: a first success in one command.
//!
//! Starts an ordinary Python web server (the standard library's), drives it
//! for some seconds over keep-alive connections, traces it, prints the report
//! and says what the reader is looking at.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    drive::{Driver, Hooks},
    printed,
    report::{OrderArguments, table_options},
};
use crate::{
    collect::{CaptureOptions, Collector},
    failure::Failure,
    output::{sort::Sort, table},
    pipeline::RETAIN_NS_DEFAULT,
    probe::{
        attach::SocketProbes,
        target::Selector,
        tracer::{TraceOptions, check_privileges},
    },
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long to drive the server
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Where to keep the capture [default: memtrace-demo.memtrace in the temporary directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const SERVER: &str = include_str!("demo/server.py");
/// What the demo asks for, in turn.
const PATHS: [&str; 6] = [
    "/",
    "/thumbnail/7",
    "/search?q=shoes",
    "/thumbnail/12",
    "/login",
    "/no-such-page",
];
const CONNECTIONS: usize = 4;
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Ends the server however the demo ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It is the demo's own; nothing is lost with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it.
///
/// # Errors
/// No Python, or whatever keeps a trace from beginning.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    check_privileges()?;
    let driver = Driver::new()?;
    let address = free_address()?;
    let server = start_server(address)?;
    let pid = server.0.id();
    let path = arguments
        .output
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join("memtrace-demo.memtrace"));
    eprintln!("memtrace: an ordinary Python web server runs as process {pid} on {address}");
    let mut collector = Collector::start(
        TraceOptions {
            selectors: vec![Selector::Pid(pid)],
            follow_children: true,
            sockets: SocketProbes::Tracepoints,
            ring_bytes: memtrace_common::limits::RING_BYTES,
        },
        RETAIN_NS_DEFAULT,
        Some(CaptureOptions {
            path: &path,
            max_bytes: 256 << 20,
        }),
        None,
        vec![format!("--pid {pid}")],
    )?;
    super::record::announce(&collector);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || client(address, number, &stop, &answered))
        })
        .collect();
    let begin = Instant::now();
    let clients_done = AtomicBool::new(false);
    let mut waiting = Some(clients);
    let why = driver.drive(
        &mut collector,
        None,
        &mut Hooks {
            every: Duration::from_millis(100),
            call: &mut |_| {
                if begin.elapsed() >= arguments.duration {
                    stop.store(true, Ordering::Relaxed);
                    for client in waiting.take().into_iter().flatten() {
                        // A client that panicked has printed why.
                        let _ = client.join();
                    }
                    clients_done.store(true, Ordering::Relaxed);
                }
            },
            stop: &|| {
                clients_done
                    .load(Ordering::Relaxed)
                    .then_some("the demo was over")
            },
        },
    )?;
    stop.store(true, Ordering::Relaxed);
    let ended = collector.end(why);
    drop(server);
    let order = OrderArguments {
        sort: Sort::default(),
        top: None,
    };
    let mut out = std::io::stdout().lock();
    printed(table::write(
        &ended.report,
        &table_options(&order),
        &mut out,
    ))?;
    printed(explain(
        &mut out,
        answered.load(Ordering::Relaxed),
        ended.report.totals.requests,
        &path,
    ))?;
    match ended.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn explain(
    out: &mut impl std::io::Write,
    answered: u64,
    seen: u64,
    path: &std::path::Path,
) -> std::io::Result<()> {
    write!(
        out,
        r"
What you are looking at
-----------------------
The demo's clients got {answered} answers; memtrace, watching the server from the
kernel and without changing it, saw {seen} requests.

GET /thumbnail/{{id}}  makes a 300,000-byte buffer for every answer and drops it:
                     much is allocated, nothing stays. Its peak is what a
                     worker needs.
GET /login           keeps 20,000 bytes of every visitor for good: look at its
                     retained bytes. That is what a leak looks like.
GET /search?q        works on a list of words; small Python objects live in
                     Python's own arenas, which are seen when they grow.

Bytes that belong to no request stand below the endpoints, each under its reason.

Next: memtrace record --pid PID -o FILE   on a server of yours (Ctrl-C ends it)
      memtrace top --pid PID              to watch it live
      memtrace doctor --pid PID           to see what can be traced
This capture: memtrace report {}
",
        path.display()
    )
}

/// A port that nobody uses, on loopback.
fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::Other(format!("no port is free on loopback: {error}")))
}

fn start_server(address: SocketAddr) -> Result<Server, Failure> {
    let child = Command::new("python3")
        .args(["-c", SERVER, &address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::NoTarget(format!(
                "the demo's server needs python3, which cannot be run: {error}; install it \
                 (apt-get install python3), or trace a server of yours with: memtrace record --pid"
            ))
        })?;
    let mut server = Server(child);
    let begin = Instant::now();
    loop {
        if TcpStream::connect(address).is_ok() {
            return Ok(server);
        }
        if let Ok(Some(status)) = server.0.try_wait() {
            let mut text = String::new();
            if let Some(stderr) = &mut server.0.stderr {
                let _ = stderr.read_to_string(&mut text);
            }
            return Err(Failure::NoTarget(format!(
                "the demo's server ended ({status}): {text}"
            )));
        }
        if begin.elapsed() > READY_WITHIN {
            return Err(Failure::NoTarget(
                "the demo's server did not answer within 20 s".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks for one page after the other on one connection until told to stop.
fn client(address: SocketAddr, number: usize, stop: &AtomicBool, answered: &AtomicU64) {
    let Ok(stream) = TcpStream::connect(address) else {
        return;
    };
    let mut reader = BufReader::new(stream);
    for path in PATHS.iter().cycle().skip(number) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n");
        if reader.get_mut().write_all(request.as_bytes()).is_err()
            || read_answer(&mut reader).is_none()
        {
            return;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads one response; the demo's server always states its length.
fn read_answer(reader: &mut BufReader<TcpStream>) -> Option<()> {
    let mut length = 0u64;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    Some(())
}
