//! The source of a live trace: everything the kernel and `/proc` state about
//! the targets, as one stream of events.
//!
//! In: what to trace. Out: [`RawEvent`]s in the order of the ring, with the
//! collector's own observations (a process described, a socket found open,
//! events lost) put in when they are made. It attaches to processes that are
//! forked by, or join, the targets, and knows nothing of requests.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use memtrace_common::{
    config::Target as KernelTarget,
    event::{CounterKind, HandoverKind},
    loss::Loss,
};
use thiserror::Error;

use super::{
    attach::{Links, SocketProbes},
    discover::{DiscoverError, ObjectCache},
    load::{Kernel, LoadError, LoadOptions},
    lock::{self, Lock},
    runtime::counters::Counters,
    runtimes::Runtimes,
    sys,
    target::{
        Selector, TargetError, descendants, process,
        sleepers::{self, Sleeper},
        sockets,
    },
};
use crate::{
    decode,
    event::{
        Event, EventBody, Handover, Origin, PROCESSES_UNPROBED, ProcessFact, RawEvent, TASKS_UNTOLD,
    },
    id::ProcessId,
};

/// How often selectors that processes can join are looked at again.
const RESOLVE_EVERY: Duration = Duration::from_millis(100);
/// After a library was mapped: looked for soon, and once more for one that
/// was not there yet.
const RESCAN_AFTER: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// How often the counters of runtimes are read here: of threads that the kernel
/// programs never come by.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Records taken from the ring before the caller gets its turn.
const RECORDS_PER_POLL: usize = 100_000;

/// The name under which records that make no sense are counted.
pub const LOSS_UNDECODABLE: &str = "undecodable";
/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Which processes.
    pub selectors: Vec<Selector>,
    /// Trace their children too.
    pub follow_children: bool,
    /// Where socket facts come from.
    pub sockets: SocketProbes,
    /// Bytes of the ring; a power of two of at least a page.
    pub ring_bytes: u32,
}

/// Why a trace could not begin.
#[derive(Debug, Error)]
pub enum TraceError {
    /// Not allowed to.
    #[error(
        "memtrace must run as root (it loads programs into the kernel and reads other \
         processes' memory maps); it runs as user {0}: try sudo"
    )]
    NotRoot(u32),
    /// In a PID namespace of its own.
    #[error(
        "memtrace runs in a PID namespace of its own, where the process ids that the kernel \
         reports mean nothing: run it on the host, or in a container started with the host's \
         PID namespace (--pid=host)"
    )]
    PidNamespace,
    /// No such target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The selection is empty.
    #[error("nothing to trace: {0}")]
    Empty(String),
    /// The kernel lacks something or refuses.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Probes could not be attached.
    #[error("the kernel refused a probe: {0}")]
    Attach(io::Error),
    /// System call tracepoints are missing.
    #[error("{0}; try --socket-probes libc")]
    NoTracepoints(io::Error),
    /// Another memtrace is at work.
    #[error(
        "process {0} is already traced by another memtrace: stop that one first (two would \
         cost the process twice)"
    )]
    Locked(ProcessId),
    /// There is no allocator to probe in any target.
    #[error("{0}")]
    NoAllocator(String),
    /// `/proc` could not be read.
    #[error("process {pid} cannot be examined: {source}")]
    Examine {
        /// Which process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

#[derive(Debug)]
struct Target {
    process: ProcessId,
    origin: Origin,
    allocators: Vec<String>,
    tls: Vec<String>,
    trouble: Vec<String>,
    runtimes: Runtimes,
    counters: Counters,
    probed_after_ns: u64,
    _lock: Lock,
}

/// A trace under way. Dropping it detaches everything.
pub struct Tracer {
    options: TraceOptions,
    // Links go before the programs they hold.
    links: Links,
    ring: RingBuf<MapData>,
    kernel: Kernel,
    cache: ObjectCache,
    targets: BTreeMap<u32, Target>,
    rescans: Vec<(Instant, u32)>,
    resolve_at: Instant,
    sample_at: Instant,
    /// Readings that wait until the ring is empty.
    samples: Vec<RawEvent>,
    lost_told: HashMap<&'static str, u64>,
    undecodable: u64,
    unprobed: u64,
    control: Vec<Event>,
}

impl Tracer {
    /// Loads the programs, attaches to every target and states what is there.
    /// When it returns, every probe is in place.
    ///
    /// # Errors
    /// See [`TraceError`]; nothing is left attached.
    pub fn start(
        options: TraceOptions,
        started: Option<u32>,
        sink: &mut dyn FnMut(RawEvent),
    ) -> Result<Tracer, TraceError> {
        check_privileges()?;
        let mut pids = started.into_iter().collect::<Vec<u32>>();
        for selector in &options.selectors {
            pids.extend(selector.resolve()?);
        }
        pids.sort_unstable();
        pids.dedup();
        let joinable = options.selectors.iter().any(can_be_joined);
        if pids.is_empty() && !joinable {
            return Err(TraceError::Empty("no process was selected".into()));
        }
        sys::prefer_this_process();
        let mut kernel = Kernel::load(LoadOptions {
            follow_children: options.follow_children,
            ring_bytes: options.ring_bytes,
        })?;
        let ring = kernel.take_ring()?;
        let mut tracer = Tracer {
            links: Links::default(),
            ring,
            kernel,
            cache: ObjectCache::new(),
            targets: BTreeMap::new(),
            rescans: Vec::new(),
            resolve_at: Instant::now() + RESOLVE_EVERY,
            sample_at: Instant::now(),
            samples: Vec::new(),
            lost_told: HashMap::new(),
            undecodable: 0,
            unprobed: 0,
            control: Vec::new(),
            options,
        };
        tracer
            .links
            .attach_tasks(&tracer.kernel, joinable)
            .map_err(TraceError::Attach)?;
        let tracepoints = tracer.options.sockets == SocketProbes::Tracepoints;
        if let Err(error) = tracer
            .links
            .attach_system_calls(&mut tracer.kernel, tracepoints)
        {
            // Without them later libraries are not noticed; that alone is no
            // reason to refuse.
            if tracepoints {
                return Err(match error.kind() {
                    io::ErrorKind::Unsupported => TraceError::NoTracepoints(error),
                    _ => TraceError::Attach(error),
                });
            }
        }
        for pid in &pids {
            let origin = if Some(*pid) == started {
                Origin::Started
            } else {
                Origin::Attached
            };
            tracer.add(*pid, origin)?;
        }
        if tracer.options.follow_children {
            tracer.add_descendants(&pids)?;
        }
        let probed = tracer
            .targets
            .values()
            .any(|target| !target.allocators.is_empty() || target.runtimes.heap().is_some());
        if !probed && !pids.is_empty() {
            let why: Vec<String> = tracer
                .targets
                .values()
                .map(|target| {
                    let trouble = [target.trouble.clone(), target.runtimes.trouble()].concat();
                    format!("process {}: {}", target.process, trouble.join("; "))
                })
                .collect();
            return Err(TraceError::NoAllocator(format!(
                "no allocator to probe was found: {}",
                why.join("; ")
            )));
        }
        // All at the same moment: a request that one process hands to another is
        // seen in both, or in none.
        let pids: Vec<u32> = tracer.targets.keys().copied().collect();
        tracer.begin(&pids, sink);
        Ok(tracer)
    }

    /// Adds the children that the targets had before the trace began. Those
    /// forked since are followed by the kernel programs.
    fn add_descendants(&mut self, pids: &[u32]) -> Result<(), TraceError> {
        for pid in descendants(pids)? {
            if self.targets.contains_key(&pid) {
                continue;
            }
            // Any other failure means that it has gone in the meantime.
            if let Err(TraceError::Locked(process)) = self.add(pid, Origin::Attached) {
                return Err(TraceError::Locked(process));
            }
        }
        Ok(())
    }

    /// The descriptor that becomes readable when something needs an answer.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn ring_fd(&self) -> io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// The traced processes.
    pub fn targets(&self) -> impl Iterator<Item = ProcessId> {
        self.targets.values().map(|target| target.process)
    }

    /// How uprobes are attached, for people.
    pub fn uprobe_kind(&self) -> &'static str {
        self.kernel.uprobes.name()
    }

    /// Whether no target is left and none can come.
    pub fn is_over(&self) -> bool {
        self.targets.is_empty() && !self.options.selectors.iter().any(can_be_joined)
    }

    /// Hands every record in the ring to `sink`, and does what they ask for.
    /// Returns whether there may be more.
    pub fn poll(&mut self, sink: &mut dyn FnMut(RawEvent)) -> bool {
        if self.sample_at <= Instant::now() && self.samples.is_empty() {
            self.sample(sink);
        }
        let mut taken = 0;
        while taken < RECORDS_PER_POLL {
            let Some(record) = self.ring.next() else {
                break;
            };
            taken += 1;
            match decode::record(&record) {
                Ok(event) => {
                    if is_control(&event.event.body) {
                        self.control.push(event.event.clone());
                    }
                    drop(record);
                    self.tell_type(&event.event, sink);
                    sink(event);
                    if !self.control.is_empty() {
                        self.answer(sink);
                    }
                }
                Err(_) => self.undecodable += 1,
            }
        }
        // Every fact that is older than the readings has been stated now, so
        // that nobody is taken for working for whom it did before.
        if taken < RECORDS_PER_POLL {
            self.samples.drain(..).for_each(&mut *sink);
        }
        self.rescan(sink);
        self.resolve(sink);
        taken == RECORDS_PER_POLL
    }

    /// States the causes of loss whose counters have changed.
    pub fn poll_lost(&mut self, sink: &mut dyn FnMut(RawEvent)) {
        let mut totals: Vec<(&'static str, u64)> = vec![
            (LOSS_UNDECODABLE, self.undecodable),
            (PROCESSES_UNPROBED, self.unprobed),
        ];
        if let Ok(lost) = self.kernel.lost() {
            totals.extend(Loss::ALL.iter().map(|cause| cause.name()).zip(lost));
        }
        for (cause, total) in totals {
            let told = self.lost_told.entry(cause).or_default();
            if *told != total {
                *told = total;
                sink(own(
                    0,
                    EventBody::Loss {
                        cause: cause.to_owned(),
                        total,
                    },
                ));
            }
        }
    }

    /// Takes every probe off the targets, then hands out what is still in the
    /// ring.
    pub fn stop(mut self, sink: &mut dyn FnMut(RawEvent)) {
        if self.samples.is_empty() {
            self.sample(sink);
        }
        self.links.detach_all();
        self.options.selectors.clear();
        while let Some(decoded) = self.ring.next().map(|record| decode::record(&record)) {
            match decoded {
                Ok(event) => {
                    self.tell_type(&event.event, sink);
                    sink(event);
                }
                Err(_) => self.undecodable += 1,
            }
        }
        self.samples.drain(..).for_each(&mut *sink);
        self.poll_lost(sink);
    }

    /// States the name of a type that is met for the first time.
    fn tell_type(&mut self, event: &Event, sink: &mut dyn FnMut(RawEvent)) {
        if let EventBody::ManagedAlloc { type_address, .. } = event.body
            && let Some(target) = self.targets.get_mut(&event.pid)
            && let Some(name) = target.runtimes.new_type(type_address)
        {
            let mut named = own(event.pid, EventBody::TypeName { type_address, name });
            named.event.ts_ns = event.ts_ns;
            sink(named);
        }
    }

    /// Reads the counters of all threads.
    fn sample(&mut self, sink: &mut dyn FnMut(RawEvent)) {
        self.sample_at = Instant::now() + SAMPLE_EVERY;
        let mut changed = Vec::new();
        for (pid, target) in &mut self.targets {
            let counters = &mut target.counters;
            let counted = counters.look(*pid, &mut self.kernel, &mut self.links);
            if target.runtimes.look(*pid, &mut self.kernel) || counted {
                changed.push(*pid);
            }
            for reading in target.counters.readings() {
                let mut sample = own(
                    *pid,
                    EventBody::Counter {
                        kind: CounterKind::ThreadAllocated,
                        value: reading.allocated,
                        peak: 0,
                    },
                );
                sample.event.tid = reading.tid;
                self.samples.push(sample);
            }
        }
        for pid in changed {
            self.describe(pid, sink);
        }
    }

    /// Does what the collector must do about events that it has passed on.
    fn answer(&mut self, sink: &mut dyn FnMut(RawEvent)) {
        for event in std::mem::take(&mut self.control) {
            match event.body {
                EventBody::Fork {
                    child_pid,
                    followed: true,
                    ..
                } => self.join(child_pid, sink),
                EventBody::Exec { .. } => {
                    if let Some(target) = self.targets.get_mut(&event.pid) {
                        target.runtimes = Runtimes::default();
                        target.counters.forget();
                        self.describe(event.pid, sink);
                    }
                    self.schedule_rescans(event.pid);
                }
                EventBody::Mapped => self.schedule_rescans(event.pid),
                EventBody::Exit { process: true } => {
                    self.targets.remove(&event.pid);
                    self.links.detach_process(event.pid);
                    self.rescans.retain(|(_, pid)| *pid != event.pid);
                }
                EventBody::CgroupMove => self.resolve_at = Instant::now(),
                _ => {}
            }
        }
    }

    fn schedule_rescans(&mut self, pid: u32) {
        let now = Instant::now();
        self.rescans.retain(|(_, other)| *other != pid);
        self.rescans
            .extend(RESCAN_AFTER.map(|after| (now + after, pid)));
    }

    fn rescan(&mut self, sink: &mut dyn FnMut(RawEvent)) {
        if self.rescans.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut due: Vec<u32> = Vec::new();
        self.rescans.retain(|(at, pid)| {
            if *at <= now {
                due.push(*pid);
            }
            *at > now
        });
        due.dedup();
        for pid in due {
            if !self.targets.contains_key(&pid) {
                self.join(pid, sink);
            } else if self.probe(pid) {
                self.describe(pid, sink);
            }
        }
    }

    /// Finds processes that have joined a cgroup, container or name.
    fn resolve(&mut self, sink: &mut dyn FnMut(RawEvent)) {
        let now = Instant::now();
        if now < self.resolve_at {
            return;
        }
        self.resolve_at = now + RESOLVE_EVERY;
        let joined: Vec<u32> = self
            .options
            .selectors
            .iter()
            .filter(|selector| can_be_joined(selector))
            .filter_map(|selector| selector.resolve().ok())
            .flatten()
            .filter(|pid| !self.targets.contains_key(pid))
            .collect();
        for pid in joined {
            self.join(pid, sink);
        }
    }

    /// A process has come to the targets while they are traced.
    fn join(&mut self, pid: u32, sink: &mut dyn FnMut(RawEvent)) {
        if self.targets.contains_key(&pid) {
            return;
        }
        match self.add(pid, Origin::Joined) {
            Ok(()) => self.begin(&[pid], sink),
            // In the middle of an exec /proc tells nothing: soon it will.
            Err(TraceError::Examine { .. }) if is_alive(pid) => self.schedule_rescans(pid),
            // Gone before it could be looked at: it did not live long enough to
            // serve, but what it did is not seen.
            Err(_) => {
                self.unprobed += 1;
                let _ = self.kernel.remove_target(pid);
            }
        }
    }

    /// Puts the probes of a process in place. Of one that a traced process has
    /// forked facts are stated already, of any other only from [`Self::begin`] on.
    fn add(&mut self, pid: u32, origin: Origin) -> Result<(), TraceError> {
        let described =
            process::describe(pid).map_err(|source| TraceError::Examine { pid, source })?;
        let lock = lock::acquire(described.process)
            .map_err(|source| TraceError::Examine { pid, source })?
            .ok_or(TraceError::Locked(described.process))?;
        let begun = self.kernel.target(pid).map_or(0, |known| known.begun);
        let target = KernelTarget {
            begun,
            ..KernelTarget::default()
        };
        self.kernel.set_target(pid, target)?;
        self.targets.insert(
            pid,
            Target {
                process: described.process,
                origin,
                allocators: Vec::new(),
                tls: Vec::new(),
                trouble: Vec::new(),
                runtimes: Runtimes::default(),
                counters: Counters::default(),
                probed_after_ns: 0,
                _lock: lock,
            },
        );
        self.probe(pid);
        if let (Origin::Joined, Some(target)) = (origin, self.targets.get_mut(&pid)) {
            target.probed_after_ns = sys::boottime_ns().saturating_sub(described.process.start_ns);
        }
        if let Err(error) = process::describe(pid) {
            self.targets.remove(&pid);
            self.links.detach_process(pid);
            return Err(TraceError::Examine { pid, source: error });
        }
        Ok(())
    }

    /// Facts about these processes are stated from now on, whose probes are all in
    /// place.
    fn begin(&mut self, pids: &[u32], sink: &mut dyn FnMut(RawEvent)) {
        for pid in pids {
            // Refused if the process has ended.
            let _ = self
                .kernel
                .change_target(*pid, |known| KernelTarget { begun: 1, ..known });
        }
        for pid in pids {
            self.describe(*pid, sink);
            // What opens from now on is seen, what was open is stated here, and
            // what is both is the same socket.
            for open in sockets::open_sockets(*pid).unwrap_or_default() {
                sink(own(
                    *pid,
                    EventBody::OpenSocket {
                        fact: open.fact,
                        accepted: open.accepted,
                    },
                ));
            }
            self.find_sleepers(*pid, sink);
        }
    }

    /// States which threads had fallen asleep before the trace began.
    fn find_sleepers(&mut self, pid: u32, sink: &mut dyn FnMut(RawEvent)) {
        let (Ok(known), Some(target)) = (self.kernel.target(pid), self.targets.get(&pid)) else {
            return;
        };
        let java_threads = target.counters.java_threads();
        for Sleeper { tid, futex } in sleepers::sleepers(pid).unwrap_or_default() {
            let is_for_work = if known.jvm.java_thread_bytes == 0 {
                !(known.locks_from..known.locks_until).contains(&futex)
            } else {
                let bytes = u64::from(known.jvm.java_thread_bytes);
                java_threads
                    .iter()
                    .any(|at| futex.wrapping_sub(*at) < bytes)
            };
            // One more that cannot be remembered is one that was not seen.
            if is_for_work && self.kernel.know_futex(pid, futex).is_ok() {
                let mut asleep = own(
                    pid,
                    EventBody::Sleep(Handover {
                        key: futex,
                        kind: HandoverKind::Futex,
                        amount: 0,
                        alone: false,
                    }),
                );
                asleep.event.tid = tid;
                sink(asleep);
            }
        }
    }

    /// Probes what the process has mapped now. Returns whether anything about
    /// it has changed.
    fn probe(&mut self, pid: u32) -> bool {
        let Some(target) = self.targets.get_mut(&pid) else {
            return false;
        };
        let mut changed = target
            .runtimes
            .attach(&mut self.kernel, &mut self.links, pid);
        target
            .counters
            .probe(pid, &mut self.kernel, &mut self.links);
        match self.cache.discover(pid) {
            Ok(found) => {
                let nothing = found.nothing.filter(|_| target.runtimes.heap().is_none());
                let mut trouble: Vec<String> = nothing.into_iter().chain(found.trouble).collect();
                for object in &found.objects {
                    match self.links.attach_allocator(&self.kernel, pid, object) {
                        Ok(true) => {
                            target.allocators.push(object.describe());
                            changed = true;
                        }
                        Ok(false) => {}
                        Err(error) => trouble.push(format!(
                            "{} could not be probed: {error}",
                            object.describe()
                        )),
                    }
                }
                for object in &found.tasks {
                    if let Err(error) = self.links.attach_tasks_of(&self.kernel, pid, object) {
                        trouble.push(format!("{TASKS_UNTOLD}: {error}"));
                    }
                }
                for object in &found.tls {
                    match self.links.attach_tls(&self.kernel, pid, object) {
                        Ok(true) => {
                            target.tls.push(object.describe());
                            changed = true;
                        }
                        Ok(false) => {}
                        Err(error) => trouble.push(format!(
                            "{} could not be probed: {error}",
                            object.describe()
                        )),
                    }
                }
                changed |= trouble != target.trouble;
                target.trouble = trouble;
            }
            Err(DiscoverError::Gone(_)) => return false,
            Err(error) => {
                let trouble = vec![error.to_string()];
                changed |= trouble != target.trouble;
                target.trouble = trouble;
            }
        }
        if self.options.sockets == SocketProbes::Libc {
            match self.cache.socket_objects(pid) {
                Ok(objects) => {
                    for object in &objects {
                        if let Err(error) =
                            self.links.attach_libc_sockets(&self.kernel, pid, object)
                        {
                            target
                                .trouble
                                .push(format!("socket functions could not be probed: {error}"));
                            changed = true;
                        }
                    }
                }
                Err(error) => {
                    target.trouble.push(error.to_string());
                    changed = true;
                }
            }
        }
        changed
    }

    fn describe(&mut self, pid: u32, sink: &mut dyn FnMut(RawEvent)) {
        let Some(target) = self.targets.get(&pid) else {
            return;
        };
        let Ok(described) = process::describe(pid) else {
            return;
        };
        let mut allocators = target.allocators.clone();
        allocators.extend(target.runtimes.heap().map(str::to_owned));
        sink(own(
            pid,
            EventBody::Process(ProcessFact {
                process: target.process,
                parent_pid: described.parent_pid,
                exe: described.exe,
                comm: described.comm,
                runtime: described.runtime,
                allocators,
                tls: target.tls.clone(),
                origin: target.origin,
                trouble: [
                    target.trouble.clone(),
                    target.runtimes.trouble(),
                    target.counters.trouble().cloned().collect(),
                ]
                .concat(),
                probed_after_ns: target.probed_after_ns,
            }),
        ));
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.links.detach_all();
    }
}

/// Whether a process can come to be selected after the trace has begun.
fn can_be_joined(selector: &Selector) -> bool {
    match selector {
        Selector::Pid(_) => false,
        Selector::Cgroup(_) | Selector::Container(_) | Selector::Name(_) => true,
    }
}

/// Whether a process exists and has not ended.
fn is_alive(pid: u32) -> bool {
    process::Stat::read(pid).is_ok_and(|stat| !stat.ended)
}

fn is_control(body: &EventBody) -> bool {
    matches!(
        body,
        EventBody::Fork { followed: true, .. }
            | EventBody::Exec { .. }
            | EventBody::Exit { process: true }
            | EventBody::Mapped
            | EventBody::CgroupMove
    )
}

/// An event of the collector's own.
pub fn own(pid: u32, body: EventBody) -> RawEvent {
    RawEvent::from(Event {
        ts_ns: sys::monotonic_ns(),
        pid,
        tid: 0,
        body,
    })
}

/// Root, in the initial PID namespace.
///
/// # Errors
/// One of the two does not hold.
pub fn check_privileges() -> Result<(), TraceError> {
    // include/linux/proc_ns.h: PROC_PID_INIT_INO.
    const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
    let user = sys::effective_user();
    if user != 0 {
        return Err(TraceError::NotRoot(user));
    }
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() != INITIAL_PID_NAMESPACE => Err(TraceError::PidNamespace),
        Ok(_) | Err(_) => Ok(()),
    }
}
