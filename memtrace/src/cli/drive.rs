//! Driving a trace until it has to end: signals, time, and the ring's call.

use std::time::{Duration, Instant};

use tokio::{
    signal::unix::{SignalKind, signal},
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

/// Runs the trace until the time is up, a signal comes, the targets are gone,
/// or the caller has had enough. Returns why it ended.
///
/// # Errors
/// Signals or the ring cannot be waited for.
pub fn drive(
    collector: &mut Collector,
    duration: Option<Duration>,
    hooks: &mut Hooks<'_>,
) -> Result<&'static str, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot wait for events: {error}")))?;
    runtime.block_on(drive_async(collector, duration, hooks))
}

async fn drive_async(
    collector: &mut Collector,
    duration: Option<Duration>,
    hooks: &mut Hooks<'_>,
) -> Result<&'static str, Failure> {
    let cannot_wait = |error| Failure::Other(format!("cannot wait for events: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot_wait)?;
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
