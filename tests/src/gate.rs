//! Who may run a test that needs a server or the kernel, and when.
//!
//! In: the user id, `MEMTRACE_TESTS_WITHOUT_KERNEL`. Out: a guard that is held
//! while measuring: only one test of this machine measures at a time, whether
//! tests run as threads of one process or as processes. Deliberately not here:
//! skipping in silence: without root such a test fails and says why, unless it
//! is left out by name.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Set to `1` to leave out the tests that need root and BPF.
pub const WITHOUT_KERNEL: &str = "MEMTRACE_TESTS_WITHOUT_KERNEL";

static IN_THIS_PROCESS: Mutex<()> = Mutex::new(());

/// The right to measure; given back when dropped.
#[derive(Debug)]
pub struct Measuring {
    _file: File,
    _thread: MutexGuard<'static, ()>,
}

/// Waits until no other test measures: for tests that start servers but not
/// memtrace.
pub fn alone() -> anyhow::Result<Measuring> {
    // A test that failed while it held the lock has left nothing behind it.
    let thread = IN_THIS_PROCESS
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("memtrace-tests.lock");
    // Opened if it is there: it may be another user's, which is no hindrance.
    let file = File::open(&path)
        .or_else(|_| File::create(&path))
        .with_context(|| format!("cannot create the lock {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    raise_open_files_limit()?;
    Ok(Measuring {
        _file: file,
        _thread: thread,
    })
}

/// For tests that trace: `None` when they are left out by
/// [`WITHOUT_KERNEL`], an error when this process may not trace.
pub fn tracing_allowed() -> anyhow::Result<Option<Measuring>> {
    if std::env::var_os(WITHOUT_KERNEL).is_some_and(|value| value == "1") {
        eprintln!("left out: {WITHOUT_KERNEL}=1, and this test needs root and BPF");
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this test traces a live server and needs root: run it as root, \
             or leave it out with {WITHOUT_KERNEL}=1"
        );
    }
    alone().map(Some)
}

/// Children inherit it; a thousand connections need more than the usual 1,024.
fn raise_open_files_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")?;
    }
    Ok(())
}
