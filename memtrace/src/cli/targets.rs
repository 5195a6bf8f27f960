//! The arguments that say what to trace and how, shared by `record` and `top`.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use crate::{
    failure::Failure,
    probe::{attach::SocketProbes, target::Selector, tracer::TraceOptions},
};

/// What to trace.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Process to trace, with all its threads (repeatable)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,

    /// Trace every process in this cgroup and below, and those that join
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,

    /// Trace a container's processes; the beginning of its ID is enough
    #[arg(long, value_name = "ID")]
    pub container: Vec<String>,

    /// Trace every process of this name (/proc/PID/comm), and those that come
    #[arg(long, value_name = "COMM")]
    pub name: Vec<String>,

    /// Do not trace children of the traced processes
    #[arg(long)]
    pub no_follow: bool,

    /// Where to watch socket calls: system call tracepoints, or libc's
    /// functions where the kernel refuses those
    #[arg(long, value_enum, default_value_t = SocketProbesArgument::Tracepoints)]
    pub socket_probes: SocketProbesArgument,

    /// Memory for events that have not been read yet
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = ByteSize::from_str)]
    pub ring_size: ByteSize,

    /// A block is retained if it is live this long after its request's end
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub retain: Duration,

    /// Command to start and trace
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `--socket-probes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketProbesArgument {
    /// System call tracepoints.
    Tracepoints,
    /// Uprobes on libc's functions.
    Libc,
}

impl TargetArguments {
    /// The settings of a trace.
    ///
    /// # Errors
    /// Nothing was named, or a size makes no sense.
    pub fn trace_options(&self) -> Result<TraceOptions, Failure> {
        let selectors = self.selectors();
        if selectors.is_empty() && self.command.is_empty() {
            return Err(Failure::Usage(
                "say what to trace: --pid, --cgroup, --container, --name, or -- COMMAND".into(),
            ));
        }
        Ok(TraceOptions {
            selectors,
            follow_children: !self.no_follow,
            sockets: match self.socket_probes {
                SocketProbesArgument::Tracepoints => SocketProbes::Tracepoints,
                SocketProbesArgument::Libc => SocketProbes::Libc,
            },
            ring_bytes: ring_bytes(self.ring_size)?,
        })
    }

    fn selectors(&self) -> Vec<Selector> {
        let pids = self.pid.iter().map(|pid| Selector::Pid(*pid));
        let cgroups = self.cgroup.iter().cloned().map(Selector::Cgroup);
        let containers = self.container.iter().cloned().map(Selector::Container);
        let names = self.name.iter().cloned().map(Selector::Name);
        pids.chain(cgroups).chain(containers).chain(names).collect()
    }

    /// How long after its request's end a block must live to be retained, ns.
    pub fn retain_ns(&self) -> u64 {
        u64::try_from(self.retain.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The targets as the user named them.
    pub fn named(&self) -> Vec<String> {
        let mut named: Vec<String> = self.pid.iter().map(|pid| format!("--pid {pid}")).collect();
        named.extend(
            self.cgroup
                .iter()
                .map(|path| format!("--cgroup {}", path.display())),
        );
        named.extend(self.container.iter().map(|id| format!("--container {id}")));
        named.extend(self.name.iter().map(|name| format!("--name {name}")));
        if let Some(program) = self.command.first() {
            // Arguments may hold secrets.
            named.push(format!("-- {}", program.to_string_lossy()));
        }
        named
    }
}

/// A ring's size as the kernel takes it: a power of two, of whole pages.
fn ring_bytes(size: ByteSize) -> Result<u32, Failure> {
    const MIN: u64 = 64 << 10;
    const MAX: u64 = 1 << 30;
    let bytes = size.as_u64();
    if !(MIN..=MAX).contains(&bytes) {
        return Err(Failure::Usage(format!(
            "--ring-size {size} is out of range: 64KiB to 1GiB"
        )));
    }
    Ok(bytes.next_power_of_two() as u32)
}
