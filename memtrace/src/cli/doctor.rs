//! `memtrace doctor`: what this kernel, these privileges and a process allow,
//! what would be probed where, and what to do about what does not work. Its
//! output is fit for a bug report: it holds no command lines and no content.

use std::io::{self, Write};

use clap::Args;
use memtrace_common::limits::RING_BYTES;

use super::printed;
use crate::{
    failure::Failure,
    output::text::escape,
    probe::{
        attach::Links,
        btf,
        discover::{ObjectCache, Role},
        load::{Kernel, LoadError, LoadOptions},
        lock,
        place::Placement,
        runtimes, sys,
        target::{Selector, process, sockets},
        tracer::check_privileges,
    },
};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also examine this process
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// Findings as they are printed: a verdict, a subject, and words.
struct Sheet<W> {
    out: W,
    failed: u32,
}

impl<W: Write> Sheet<W> {
    fn title(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{text}")
    }

    fn ok(&mut self, subject: &str, words: &str) -> io::Result<()> {
        writeln!(self.out, "  ok    {subject:<26} {}", escape(words))
    }

    fn note(&mut self, subject: &str, words: &str) -> io::Result<()> {
        writeln!(self.out, "  note  {subject:<26} {}", escape(words))
    }

    fn fails(&mut self, subject: &str, words: &str) -> io::Result<()> {
        self.failed += 1;
        writeln!(self.out, "  FAILS {subject:<26} {}", escape(words))
    }

    /// Probed functions: name, offset in the file, place, and whether the return
    /// is probed as well.
    fn functions<'a>(
        &mut self,
        functions: impl Iterator<Item = (&'a str, u64, &'a Placement, bool)>,
    ) -> io::Result<()> {
        writeln!(
            self.out,
            "          {:<24} {:>10}  {:<6} {:<28} cost of a call",
            "function", "offset", "probes", "instruction"
        )?;
        for (name, offset, placement, returns) in functions {
            let probes = if returns { "2" } else { "1" };
            writeln!(
                self.out,
                "          {:<24} {offset:>#10x}  {probes:<6} {:<28} {}",
                escape(name),
                escape(&placement.instruction),
                cost(placement.emulated, returns)
            )?;
        }
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// Something that a trace needs does not work, with the exit code that a trace
/// would end with.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut sheet = Sheet {
        out: io::stdout().lock(),
        failed: 0,
    };
    let mut failure = None;
    let mut keep = |result: io::Result<Option<Failure>>| match result {
        Ok(found) => {
            if failure.is_none() {
                failure = found;
            }
            Ok(())
        }
        Err(error) => printed(Err(error)),
    };
    keep(machine(&mut sheet))?;
    keep(kernel(&mut sheet))?;
    if let Some(pid) = arguments.pid {
        keep(one_process(&mut sheet, pid))?;
    }
    match failure {
        Some(failure) => Err(failure),
        None => printed(writeln!(
            sheet.out,
            "\nEverything that a trace needs works."
        )),
    }
}

fn machine<W: Write>(sheet: &mut Sheet<W>) -> io::Result<Option<Failure>> {
    let (release, machine) = sys::kernel_and_machine();
    writeln!(
        sheet.out,
        "memtrace {} on Linux {release} ({machine})",
        env!("CARGO_PKG_VERSION")
    )?;
    sheet.title("Privileges")?;
    let mut failure = None;
    match check_privileges() {
        Ok(()) => sheet.ok("root, initial PID space", "programs can be loaded")?,
        Err(error) => {
            sheet.fails("privileges", &error.to_string())?;
            failure = Some(Failure::from(error));
        }
    }
    match std::fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) if !text.contains("[none]") => sheet.note(
            "lockdown",
            &format!("{} (uprobes and tracepoints still work)", text.trim()),
        )?,
        Ok(_) | Err(_) => {}
    }
    Ok(failure)
}

fn kernel<W: Write>(sheet: &mut Sheet<W>) -> io::Result<Option<Failure>> {
    sheet.title("Kernel")?;
    match std::fs::read("/sys/kernel/btf/vmlinux") {
        Ok(bytes) => match btf::kernel_offsets(&bytes) {
            Ok(_) => sheet.ok("type information (BTF)", "every structure needed is known")?,
            Err(error) => sheet.fails("type information (BTF)", &error.to_string())?,
        },
        Err(error) => sheet.fails("type information (BTF)", &error.to_string())?,
    }
    let loaded = Kernel::load(LoadOptions {
        follow_children: true,
        ring_bytes: RING_BYTES,
    });
    let mut kernel = match loaded {
        Ok(kernel) => kernel,
        Err(error) => {
            sheet.fails("programs", &error.to_string())?;
            return Ok(Some(match error {
                LoadError::Object { .. } => Failure::Usage(error.to_string()),
                LoadError::NoBtf(_) | LoadError::Btf(_) | LoadError::Refused(_) => {
                    Failure::Kernel("the kernel does not take memtrace's programs".into())
                }
            }));
        }
    };
    sheet.ok("programs", "loaded and verified")?;
    sheet.ok("uprobes", kernel.uprobes.name())?;
    let mut links = Links::default();
    let mut failure = None;
    match links.attach_tasks(&kernel, true) {
        Ok(()) => sheet.ok("process events", "fork, exec, exit, cgroup moves")?,
        Err(error) => {
            sheet.fails("process events", &error.to_string())?;
            failure = Some(Failure::Kernel(error.to_string()));
        }
    }
    match links.attach_system_calls(&mut kernel, true) {
        Ok(()) => sheet.ok("socket calls", "system call tracepoints")?,
        Err(error) => {
            sheet.fails(
                "socket calls",
                &format!("{error}; use --socket-probes libc"),
            )?;
        }
    }
    Ok(failure)
}

fn one_process<W: Write>(sheet: &mut Sheet<W>, pid: u32) -> io::Result<Option<Failure>> {
    sheet.title(&format!("Process {pid}"))?;
    if let Err(error) = Selector::Pid(pid).resolve() {
        sheet.fails("target", &error.to_string())?;
        return Ok(Some(Failure::NoTarget(error.to_string())));
    }
    let described = match process::describe(pid) {
        Ok(described) => described,
        Err(error) => {
            sheet.fails("target", &error.to_string())?;
            return Ok(Some(Failure::NoTarget(error.to_string())));
        }
    };
    sheet.ok(
        "program",
        &format!(
            "{} ({}), {}{}",
            described.exe,
            described.comm,
            described.runtime,
            if described.exe_deleted {
                "; its file was replaced since it started"
            } else {
                ""
            }
        ),
    )?;
    match lock::acquire(described.process) {
        Ok(Some(_)) => {}
        Ok(None) => sheet.note("in use", "another memtrace traces this process now")?,
        Err(error) => sheet.note("in use", &format!("cannot be told: {error}"))?,
    }
    match sockets::open_sockets(pid) {
        Ok(open) => {
            let accepted = open.iter().filter(|socket| socket.accepted).count();
            sheet.ok(
                "open connections",
                &format!(
                    "{accepted} accepted, {} opened by it",
                    open.len() - accepted
                ),
            )?;
        }
        Err(error) => sheet.note("open connections", &format!("cannot be told: {error}"))?,
    }
    let found = match ObjectCache::new().discover(pid) {
        Ok(found) => found,
        Err(error) => {
            sheet.fails("allocators", &error.to_string())?;
            return Ok(Some(Failure::NotPermitted(error.to_string())));
        }
    };
    let runtimes = runtimes::examine(pid);
    let heap = runtimes
        .iter()
        .any(|(subject, told)| *subject == runtimes::GO && told.is_ok());
    for trouble in found.nothing.iter().filter(|_| !heap) {
        sheet.note("allocators", trouble)?;
    }
    for trouble in &found.trouble {
        sheet.note("allocators", trouble)?;
    }
    for object in &found.objects {
        sheet.ok("allocator", &object.describe())?;
        sheet.functions(object.facts.functions.iter().map(|function| {
            let returns = match function.role {
                Role::Allocate(_) => true,
                Role::Free => false,
            };
            let name = function.name.as_str();
            (name, function.offset, &function.placement, returns)
        }))?;
        for skipped in &object.facts.skipped {
            writeln!(
                sheet.out,
                "          {:<24} not probed: ends in {}",
                escape(&skipped.name),
                escape(&skipped.ends_in)
            )?;
        }
    }
    for (subject, told) in runtimes {
        match told {
            Ok(words) => sheet.ok(subject, &words)?,
            Err(words) => sheet.note(subject, &words)?,
        }
    }
    for object in &found.tasks {
        let kinds = object.facts.len();
        let path = object.path.display();
        sheet.ok(
            "tokio's tasks",
            &format!("told apart ({kinds} probes at entries and returns in {path})"),
        )?;
    }
    for object in &found.tls {
        sheet.ok("TLS library", &object.describe())?;
        sheet.functions(object.facts.functions.iter().map(|function| {
            let returns = function.role.has_result();
            (function.name, function.offset, &function.placement, returns)
        }))?;
    }
    if found.tls.is_empty() {
        sheet.note(
            "TLS library",
            "none that can be probed: requests that come over TLS would not be seen",
        )?;
    }
    if found.objects.is_empty() && !heap {
        return Ok(Some(Failure::NothingToProbe(format!(
            "process {pid} has no allocator that could be probed"
        ))));
    }
    Ok(None)
}

/// What a probed call costs on an ordinary x86-64 server, from measurements
/// with malloc in a loop: an emulated instruction traps once, any other is
/// stepped out of line; a return is one more trap.
fn cost(emulated: bool, returns: bool) -> &'static str {
    match (emulated, returns) {
        (true, false) => "about 0.8 µs",
        (true, true) => "about 1.3 µs",
        (false, false) => "about 5 µs (stepped)",
        (false, true) => "about 5.5 µs (stepped)",
    }
}
