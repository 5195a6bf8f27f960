//! `memtrace top`: the report of a trace under way, again and again.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use clap::Args;

use super::{
    drive::{Driver, Hooks},
    record::{announce, start_command, start_waiting},
    report::{OrderArguments, table_options},
    targets::TargetArguments,
};
use crate::{
    collect::Collector,
    failure::Failure,
    output::live::{self, Action, LiveView},
    report::Report,
};

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    targets: TargetArguments,

    #[command(flatten)]
    order: OrderArguments,

    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Time between two updates
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

/// No faster than a person can read and a slow line can carry.
const INTERVAL_MIN: Duration = Duration::from_millis(250);

/// Runs it.
///
/// # Errors
/// Whatever keeps the trace from beginning.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = arguments.targets.trace_options()?;
    crate::probe::tracer::check_privileges()?;
    let driver = Driver::new()?;
    let waiting = start_waiting(&arguments.targets)?;
    let mut collector = Collector::start(
        options,
        arguments.targets.retain_ns(),
        None,
        waiting.as_ref().map(|waiting| waiting.pid),
        arguments.targets.named(),
    )?;
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        start_command(waiting)?;
        watch(collector, driver, &arguments)
    } else {
        announce(&collector);
        start_command(waiting)?;
        let mut failed = None;
        let table = table_options(&arguments.order);
        let stop = AtomicBool::new(false);
        let why = driver.drive(
            &mut collector,
            arguments.duration,
            &mut Hooks {
                every: arguments.interval.max(INTERVAL_MIN),
                call: &mut |collector| {
                    let mut out = std::io::stdout().lock();
                    if let Err(error) = live::write_plain(&collector.report(), &table, &mut out) {
                        failed = Some(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                },
                stop: &|| {
                    stop.load(Ordering::Relaxed)
                        .then_some("nobody reads the output")
                },
            },
        )?;
        collector.end(why);
        super::printed(failed.map_or(Ok(()), Err))
    }
}

/// The live view, in a thread of its own, since it waits for keys.
fn watch(mut collector: Collector, driver: Driver, arguments: &Arguments) -> Result<(), Failure> {
    let sort = arguments.order.sort;
    let quit = Arc::new(AtomicBool::new(false));
    let (reports, shown) = mpsc::sync_channel::<Report>(1);
    let view = std::thread::spawn({
        let quit = Arc::clone(&quit);
        move || {
            let result = view(sort, &shown, &quit);
            quit.store(true, Ordering::Relaxed);
            result
        }
    });
    let why = driver.drive(
        &mut collector,
        arguments.duration,
        &mut Hooks {
            every: arguments.interval.max(INTERVAL_MIN),
            // A view that is busy gets the next one.
            call: &mut |collector| drop(reports.try_send(collector.report())),
            stop: &|| {
                quit.load(Ordering::Relaxed)
                    .then_some("stopped by the user")
            },
        },
    );
    quit.store(true, Ordering::Relaxed);
    drop(reports);
    let viewed = view.join();
    let why = why?;
    let ended = collector.end(why);
    match viewed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            return Err(Failure::Output(format!(
                "the terminal cannot be used: {error}"
            )));
        }
        Err(_) => return Err(Failure::Other("the live view failed".into())),
    }
    eprintln!(
        "memtrace: {why}; {} requests in {:.1} s",
        ended.report.totals.requests,
        ended.report.capture.duration_ns as f64 / 1e9
    );
    Ok(())
}

fn view(
    sort: crate::output::sort::Sort,
    shown: &mpsc::Receiver<Report>,
    quit: &AtomicBool,
) -> std::io::Result<()> {
    const KEYS_EVERY: Duration = Duration::from_millis(100);
    let mut view = LiveView::open(sort)?;
    while !quit.load(Ordering::Relaxed) {
        if let Ok(report) = shown.try_recv() {
            view.show(report)?;
        }
        match view.handle_keys(KEYS_EVERY)? {
            Action::Continue | Action::Redraw => {}
            Action::Quit => break,
        }
    }
    Ok(())
}
