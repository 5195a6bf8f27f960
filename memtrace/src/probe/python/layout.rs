//! Where CPython keeps its threads' states, and what in them.
//!
//! In: a version, the address of `_PyRuntime`, and the process's memory. Out:
//! [`Located`], after every thread state of the main interpreter was found to
//! look like one; else why not. It attaches nothing.
//!
//! Layouts are those of the versions' own headers (`Include/cpython/pystate.h`,
//! `Include/internal/pycore_runtime.h`, `pycore_interp.h`, `pycore_gil.h`; up to
//! 3.8 `pycore_pystate.h`). Since 3.13 `_PyRuntime` opens with a description of
//! itself (`struct _Py_DebugOffsets`, `pycore_debug_offsets.h`), which is
//! believed instead.

use super::PythonError;
use crate::probe::image::Memory;

/// Where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where the address of the running thread's state is.
    pub thread_state_at: u64,
    /// `PyThreadState.context`, bytes into the state.
    pub context: u32,
    /// `PyThreadState.thread_id`, bytes into the state.
    pub thread_id: u32,
}

/// Offsets of one version, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// `interpreters.main` in `_PyRuntime`.
    interpreter: Interpreter,
    gil: Gil,
    /// The first thread's state in the interpreter.
    threads: u64,
    next: u64,
    interp: u64,
    thread_id: u64,
    context: u64,
}

/// Where the main interpreter's state is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interpreter {
    /// At this offset in `_PyRuntime`.
    At(u64),
    /// At the end of the list that begins at this offset in `_PyRuntime` and
    /// goes on at that one in each: interpreters are put in at its front.
    LastOf(u64, u64),
}

/// Where the running thread's state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gil {
    /// In `_PyRuntime`, at `gilstate.tstate_current`.
    InRuntime { current: u64 },
    /// In the `last_holder` of the GIL, which is where the interpreter says
    /// (`ceval.gil`).
    OfInterpreter { gil: u64 },
}

/// `last_holder` in `struct _gil_runtime_state`, behind `interval`.
const GIL_LAST_HOLDER: u64 = 8;
/// `ob_type` of an object and `tp_name` of a type, in builds with a GIL.
const OB_TYPE: u64 = 8;
const TP_NAME: u64 = 24;
/// Thread states looked at, and interpreters passed: any further ones are as
/// right as these.
const WALK_MAX: usize = 1024;
/// The process runs while its lists are read, so a look may catch a thread
/// state that is on its way.
const LOOKS: usize = 5;

const fn before_3_11(current: u64) -> Layout {
    Layout {
        interpreter: Interpreter::At(40),
        gil: Gil::InRuntime { current },
        threads: 8,
        next: 8,
        interp: 16,
        thread_id: 176,
        context: 240,
    }
}

/// The layout of a version that does not describe itself.
fn table(minor: u32) -> Option<Layout> {
    Some(match minor {
        8 => before_3_11(1368),
        9 | 10 => before_3_11(568),
        11 => Layout {
            interpreter: Interpreter::At(48),
            gil: Gil::InRuntime { current: 576 },
            threads: 16,
            next: 8,
            interp: 16,
            thread_id: 152,
            context: 224,
        },
        12 => Layout {
            interpreter: Interpreter::At(48),
            gil: Gil::OfInterpreter { gil: 384 },
            threads: 72,
            next: 8,
            interp: 16,
            thread_id: 136,
            context: 208,
        },
        _ => return None,
    })
}

/// Where `struct _Py_DebugOffsets` keeps what is needed of it.
#[derive(Clone, Copy, Debug)]
struct SelfDescription {
    ceval_gil: usize,
    next: usize,
    interp: usize,
    thread_id: usize,
    /// `PyThreadState.context` is not described: where it is in this version,
    /// behind a `thread_id` that is where it should be.
    context: u64,
    expected_thread_id: u64,
}

const COOKIE: u64 = u64::from_ne_bytes(*b"xdebugpy");
const DESCRIPTION_BYTES: usize = 256;
const VERSION: usize = 8;
const FREE_THREADED: usize = 16;
const INTERPRETERS_HEAD: usize = 40;
const INTERPRETER_NEXT: usize = 64;
const THREADS_HEAD: usize = 72;

fn self_description(minor: u32) -> Option<SelfDescription> {
    Some(match minor {
        13 => SelfDescription {
            ceval_gil: 112,
            next: 168,
            interp: 176,
            thread_id: 192,
            context: 208,
            expected_thread_id: 152,
        },
        14 => SelfDescription {
            ceval_gil: 120,
            next: 192,
            interp: 200,
            thread_id: 216,
            context: 208,
            expected_thread_id: 152,
        },
        _ => return None,
    })
}

/// Finds what is needed in a process with CPython 3.`minor`.
///
/// # Errors
/// The version is not known, its memory does not look like that version's, or
/// cannot be read.
pub fn locate(memory: &impl Memory, runtime: u64, minor: u32) -> Result<Located, PythonError> {
    let layout = match (table(minor), self_description(minor)) {
        (Some(layout), _) => layout,
        (None, Some(description)) => described(memory, runtime, minor, description)?,
        (None, None) => return Err(PythonError::Version(format!("3.{minor}"))),
    };
    let mut failure = PythonError::NotRunning;
    for _ in 0..LOOKS {
        match located(memory, runtime, &layout) {
            Ok(located) => return Ok(located),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn described(
    memory: &impl Memory,
    runtime: u64,
    minor: u32,
    at: SelfDescription,
) -> Result<Layout, PythonError> {
    let mut bytes = [0; DESCRIPTION_BYTES];
    memory.read(runtime, &mut bytes)?;
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    };
    if word(0) != COOKIE {
        return Err(PythonError::Mismatch("it does not describe itself"));
    }
    // PY_VERSION_HEX: major, minor, micro, release level and serial.
    if word(VERSION) >> 16 != (3 << 8) | u64::from(minor) {
        return Err(PythonError::Mismatch("it describes another version"));
    }
    if word(FREE_THREADED) != 0 {
        return Err(PythonError::FreeThreaded);
    }
    let thread_id = word(at.thread_id);
    if thread_id != at.expected_thread_id {
        return Err(PythonError::Mismatch("it describes other thread states"));
    }
    Ok(Layout {
        interpreter: Interpreter::LastOf(word(INTERPRETERS_HEAD), word(INTERPRETER_NEXT)),
        gil: Gil::OfInterpreter {
            gil: word(at.ceval_gil),
        },
        threads: word(THREADS_HEAD),
        next: word(at.next),
        interp: word(at.interp),
        thread_id,
        context: at.context,
    })
}

fn located(memory: &impl Memory, runtime: u64, layout: &Layout) -> Result<Located, PythonError> {
    let interpreter = interpreter(memory, runtime, layout.interpreter)?;
    check_threads(memory, interpreter, layout)?;
    let thread_state_at = match layout.gil {
        Gil::InRuntime { current } => runtime.wrapping_add(current),
        Gil::OfInterpreter { gil } => {
            let gil = pointer(memory, interpreter.wrapping_add(gil))?;
            gil.wrapping_add(GIL_LAST_HOLDER)
        }
    };
    let small = |offset: u64| {
        u32::try_from(offset).map_err(|_| PythonError::Mismatch("an offset is out of range"))
    };
    Ok(Located {
        thread_state_at,
        context: small(layout.context)?,
        thread_id: small(layout.thread_id)?,
    })
}

fn interpreter(memory: &impl Memory, runtime: u64, told: Interpreter) -> Result<u64, PythonError> {
    match told {
        Interpreter::At(offset) => pointer(memory, runtime.wrapping_add(offset)),
        Interpreter::LastOf(head, next) => {
            let mut interpreter = pointer(memory, runtime.wrapping_add(head))?;
            for _ in 0..WALK_MAX {
                match memory.word(interpreter.wrapping_add(next))? {
                    0 => return Ok(interpreter),
                    following => interpreter = following,
                }
            }
            Err(PythonError::Mismatch("its interpreters have no end"))
        }
    }
}

/// Every thread state names the interpreter, a thread, and a context or none.
fn check_threads(
    memory: &impl Memory,
    interpreter: u64,
    layout: &Layout,
) -> Result<(), PythonError> {
    let mut state = pointer(memory, interpreter.wrapping_add(layout.threads))?;
    for _ in 0..WALK_MAX {
        let member = |offset: u64| memory.word(state.wrapping_add(offset));
        if member(layout.interp)? != interpreter {
            return Err(PythonError::Mismatch("a thread state is none"));
        }
        // On x86-64 a thread's id is the address of its control block, which
        // opens with its own address (System V ABI, thread-local storage). One
        // that has not started has none yet.
        let thread = member(layout.thread_id)?;
        if thread != 0 && memory.word(thread)? != thread {
            return Err(PythonError::Mismatch("a thread state names no thread"));
        }
        let context = member(layout.context)?;
        if context != 0 && !is_context(memory, context)? {
            return Err(PythonError::Mismatch("a thread's context is none"));
        }
        match member(layout.next)? {
            0 => return Ok(()),
            next => state = next,
        }
    }
    Ok(())
}

/// Whether the object's type calls itself `Context`, or `_contextvars.Context`.
fn is_context(memory: &impl Memory, object: u64) -> Result<bool, PythonError> {
    const NAMES: [&[u8]; 2] = [b"Context\0", b"_contextvars.Context\0"];
    let kind = pointer(memory, object.wrapping_add(OB_TYPE))?;
    let name = pointer(memory, kind.wrapping_add(TP_NAME))?;
    for expected in NAMES {
        let mut found = vec![0; expected.len()];
        if memory.read(name, &mut found).is_ok() && found == expected {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pointer(memory: &impl Memory, address: u64) -> Result<u64, PythonError> {
    match memory.word(address)? {
        0 => Err(PythonError::NotRunning),
        pointer => Ok(pointer),
    }
}

#[cfg(test)]
mod tests;
