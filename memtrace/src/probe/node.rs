//! Node, read from outside: in the callback of which asynchronous resource a
//! thread works.
//!
//! In: a process. Out: where its program begins and ends callbacks. What the
//! kernel half reads there is checked there, so no version needs to be known; a
//! program without the functions' names is not followed. x86-64 only, as the place
//! of an argument is the machine's.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{
    image::{Image, file_name},
    maps::{self, FileIdentity, Mapping},
    place::Needs,
    symbols::{Machine, Scope},
};

/// Why callbacks cannot be told apart.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Built otherwise.
    #[error("its program does not name the functions that begin and end callbacks")]
    NoCallbacks,
    /// Another instruction set.
    #[error("callbacks are followed on x86-64 only")]
    Machine,
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Its file could not be opened or understood.
    #[error("{0}")]
    File(String),
}

/// A Node program whose callbacks can be followed.
#[derive(Debug)]
pub struct Node {
    /// Its file.
    pub file: FileIdentity,
    /// File offset of the function that begins a callback.
    pub begins: u64,
    /// File offset of the function that ends one, for its entry and its return.
    pub ends: u64,
    /// File offsets of the functions that run callbacks one after the other.
    pub rows: Vec<u64>,
    /// File offset of the function that runs the continuations of promises, for
    /// its return.
    pub continues: u64,
    /// File offset of the function that settles a promise, if it is named.
    pub settles: Option<u64>,
    image: Image,
}

impl Node {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        self.image.attach_path()
    }
}

/// `node::AsyncHooks::push_async_context(double, double, v8::Local<v8::Object>)`.
const BEGINS: &str = "_ZN4node10AsyncHooks18push_async_contextEddN2v85LocalINS1_6ObjectEEE";
/// `node::InternalCallbackScope::Close()`.
const ENDS: &str = "_ZN4node21InternalCallbackScope5CloseEv";
/// `node::Environment::RunTimers(uv_timer_t*)`, `CheckImmediate(uv_check_t*)`.
const ROWS: [&str; 2] = [
    "_ZN4node11Environment9RunTimersEP10uv_timer_s",
    "_ZN4node11Environment14CheckImmediateEP10uv_check_s",
];
/// `v8::internal::MicrotaskQueue::PerformCheckpointInternal(v8::Isolate*)`.
const CONTINUES: &str = "_ZN2v88internal14MicrotaskQueue25PerformCheckpointInternalEPNS_7IsolateE";
/// What `resolve` of `new Promise((resolve, reject) => …)` runs.
const SETTLES: &str = "Builtins_PromiseCapabilityDefaultResolve";

/// Looks for a Node program in a process; `None` if it runs none.
///
/// # Errors
/// It runs one whose callbacks cannot be followed.
pub fn find(pid: u32) -> Result<Option<Node>, NodeError> {
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    // The library where there is one: the program is empty then.
    let mapped = |is_it: fn(&str) -> bool| {
        let mut executable = mappings.iter().filter(|mapping| mapping.executable);
        executable.find(|mapping| is_it(&file_name(mapping)))
    };
    let library: fn(&str) -> bool = |name| name.starts_with("libnode.so");
    let program: fn(&str) -> bool = |name| name == "node" || name == "nodejs";
    match mapped(library).or_else(|| mapped(program)) {
        Some(mapping) => open(pid, mapping, &mappings).map(Some),
        None => Ok(None),
    }
}

fn open(pid: u32, mapping: &Mapping, mappings: &[Mapping]) -> Result<Node, NodeError> {
    let names = [BEGINS, ENDS, ROWS[0], ROWS[1], CONTINUES, SETTLES];
    let image = Image::open(pid, mapping, mappings, &names, Scope::Any).map_err(NodeError::File)?;
    let mut image = image.ok_or(NodeError::NoCallbacks)?;
    if image.machine() != Machine::X86_64 {
        return Err(NodeError::Machine);
    }
    let mut place = |name: &str, arguments: usize, returns: bool| {
        let function = image.symbol(name).ok_or(NodeError::NoCallbacks)?;
        let needs = Needs { arguments, returns };
        image.place(function, needs).ok_or(NodeError::NoCallbacks)
    };
    Ok(Node {
        file: mapping.file,
        begins: place(BEGINS, 1, false)?,
        ends: place(ENDS, 0, true)?,
        rows: vec![place(ROWS[0], 0, false)?, place(ROWS[1], 0, false)?],
        continues: place(CONTINUES, 0, true)?,
        settles: place(SETTLES, 0, false).ok(),
        image,
    })
}
