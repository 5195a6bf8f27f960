//! The command line: arguments → a call → an exit code.
//!
//! What the user typed is checked here and turned into the settings of the
//! rooms below; nothing below reads arguments or prints to the user's terminal
//! on its own.

mod demo;
mod doctor;
mod drive;
mod record;
mod report;
mod targets;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Which requests allocate: traces the memory allocations of a live web
/// server, request by request, without changing or restarting it.
///
/// Exit codes: 0 success; 1 other errors; 2 wrong usage; 3 no such target;
/// 4 not permitted; 5 the kernel lacks something; 6 the output cannot be
/// written; 7 the target is already traced; 8 no allocator to probe; 9 the
/// capture cannot be read.
#[derive(Debug, Parser)]
#[command(name = "memtrace", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace processes and write a capture
    Record(record::Arguments),
    /// Report a capture
    Report(report::Arguments),
    /// Watch processes live
    Top(top::Arguments),
    /// Say what this kernel, these privileges and a process allow
    Doctor(doctor::Arguments),
    /// See it work: start a small web server, drive it, trace it, explain the report
    Demo(demo::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Record(arguments) => record::run(arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("memtrace: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A failure to print, unless the reader has simply had enough.
fn printed(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Output(format!("cannot print: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::loss::Loss;

    use crate::{
        attribute::{LOSS_CONNECTIONS_FULL, Reason},
        collect::LOSS_CAPTURE_FULL,
        output::words::{cause_text, reason_text},
        probe::tracer::LOSS_UNDECODABLE,
        store::LOSS_LIVE_TABLE_FULL,
    };

    #[test]
    fn every_reason_and_every_cause_of_loss_has_words() {
        for reason in Reason::ALL.map(Reason::name) {
            assert_ne!(reason_text(reason), reason);
        }
        let others = [
            LOSS_CONNECTIONS_FULL,
            LOSS_CAPTURE_FULL,
            LOSS_UNDECODABLE,
            LOSS_LIVE_TABLE_FULL,
        ];
        for cause in Loss::ALL.map(Loss::name).into_iter().chain(others) {
            assert_ne!(cause_text(cause), cause);
        }
    }
}
