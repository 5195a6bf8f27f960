//! Driving a trace until it has to end: signals, time, and the ring's call.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{collect::Collector, failure::Failure, probe::sys};

/// The ring is emptied at least this often; only urgent records wake us.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// What a caller does while the trace goes on.
pub struct Hooks<'a> {
    /// Called every second (and before the first).
    pub every: Duration,
    /// What is called.
    pub call: &'a mut dyn FnMut(&mut Collector),
    /// Whether the caller wants the trace to end, and why.
    pub stop: &'a dyn Fn() -> Option<&'static str>,
}

/// Signals that end a trace in an orderly way. Caught from the moment this
/// exists: make it before anybody is told that the trace has begun.
pub struct Driver {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Driver {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub fn new() -> Result<Driver, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot_wait)?;
        let guard = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
        let terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
        let hangup = signal(SignalKind::hangup()).map_err(cannot_wait)?;
        drop(guard);
        Ok(Driver {
            runtime,
            interrupt,
            terminate,
            hangup,
        })
    }

    /// Runs the trace until the time is up, a signal comes, the targets are
    /// gone, or the caller has had enough. Returns why it ended.
    ///
    /// # Errors
    /// The ring cannot be waited for.
    pub fn drive(
        self,
        collector: &mut Collector,
        duration: Option<Duration>,
        hooks: &mut Hooks<'_>,
    ) -> Result<&'static str, Failure> {
        let Driver {
            runtime,
            interrupt,
            terminate,
            hangup,
        } = self;
        runtime.block_on(drive(
            collector,
            duration,
            hooks,
            [interrupt, terminate, hangup],
        ))
    }
}

fn cannot_wait(error: io::Error) -> Failure {
    Failure::Other(format!("cannot wait for events: {error}"))
}

async fn drive(
    collector: &mut Collector,
    duration: Option<Duration>,
    hooks: &mut Hooks<'_>,
    [mut interrupt, mut terminate, mut hangup]: [Signal; 3],
) -> Result<&'static str, Failure> {
    let Some(tracer) = collector.tracer() else {
        return Ok("every traced process has ended");
    };
    let ring = tracer.ring_fd().map_err(cannot_wait)?;
    let ring = sys::waitable(ring).map_err(cannot_wait)?;
    let mut poll = interval(POLL_EVERY);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let far = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
    let deadline = duration
        .and_then(|duration| Instant::now().checked_add(duration))
        .unwrap_or(far);
    let deadline = sleep_until(deadline.into());
    tokio::pin!(deadline);
    let mut next_second = Instant::now() + Duration::from_secs(1);
    let mut next_call = Instant::now();
    loop {
        let more = collector.poll();
        let now = Instant::now();
        if now >= next_second {
            next_second = now + Duration::from_secs(1);
            collector.tick();
        }
        if now >= next_call {
            next_call = now + hooks.every;
            (hooks.call)(collector);
        }
        if let Some(why) = collector.must_end().or_else(|| (hooks.stop)()) {
            return Ok(why);
        }
        let wake = async {
            if more {
                // Others get their turn, and it goes on at once.
                tokio::task::yield_now().await;
                return;
            }
            tokio::select! {
                ready = ring.readable() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                _ = poll.tick() => {}
            }
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok("stopped by the user (SIGINT)"),
            _ = terminate.recv() => return Ok("stopped (SIGTERM)"),
            _ = hangup.recv() => return Ok("the terminal was closed (SIGHUP)"),
            () = &mut deadline => return Ok("the time was up (--duration)"),
            () = wake => {}
        }
    }
}
