//! Node, read from outside: in the callback of which asynchronous resource a
//! thread works.
//!
//! In: a process. Out: where its program begins and ends callbacks. No version needs
//! to be known: that Node keeps the numbers of its resources where the kernel half
//! looks for them is seen in its own code, and once more by the kernel half in what
//! is there. A program without the functions' names is not followed. x86-64 only, as
//! the place of an argument is the machine's.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{
    image::{Image, file_name},
    maps::{self, FileIdentity, Mapping},
    members::members,
    place::Needs,
    symbols::{Machine, Scope},
};

/// Why callbacks cannot be told apart.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Built otherwise.
    #[error("its program does not name the functions that begin and end callbacks")]
    NoCallbacks,
    /// Another layout.
    #[error("it keeps what it knows of its asynchronous resources otherwise than Node 18 to 24")]
    Layout,
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
    /// File offset of the function that runs the continuations of promises, for its
    /// entry and its return.
    pub continues: u64,
    /// File offset of the function that settles a promise, if it is named.
    pub settles: Option<u64>,
    /// File offsets of the functions that queue continuations; none if these cannot be
    /// told apart.
    pub makes_jobs: Vec<u64>,
    image: Image,
}

impl Node {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        self.image.attach_path()
    }
}

/// `node::AsyncHooks::push_async_context(double, double, v8::Local<v8::Object>)`, with
/// a pointer to the last from Node 22 on.
const BEGINS: [&str; 2] = [
    "_ZN4node10AsyncHooks18push_async_contextEddN2v85LocalINS1_6ObjectEEE",
    "_ZN4node10AsyncHooks18push_async_contextEddPN2v85LocalINS1_6ObjectEEE",
];
/// Code looked at of it, bytes: it has 800.
const LOOKED_AT: u64 = 1024;
/// Where `AsyncHooks` keeps the addresses of the three arrays between which it
/// moves numbers there, bytes into it (src/env.h, Node 18 to 24; see the kernel
/// half): the stack, the fields, the numbers.
const ARRAYS: [u64; 3] = [8 + 32, 8 + 56 + 32, 8 + 2 * 56 + 32];
/// `node::InternalCallbackScope::Close()`.
const ENDS: &str = "_ZN4node21InternalCallbackScope5CloseEv";
/// `node::Environment::RunTimers(uv_timer_t*)`, `CheckImmediate(uv_check_t*)`.
const ROWS: [&str; 2] = [
    "_ZN4node11Environment9RunTimersEP10uv_timer_s",
    "_ZN4node11Environment14CheckImmediateEP10uv_check_s",
];
/// `v8::internal::MicrotaskQueue::RunMicrotasks(v8::internal::Isolate*)`.
const CONTINUES: &str = "_ZN2v88internal14MicrotaskQueue13RunMicrotasksEPNS0_7IsolateE";
/// What puts a continuation into its queue, in V8's own code and from outside:
/// `v8::internal::MicrotaskQueue::EnqueueMicrotask(v8::internal::Microtask)`, with a
/// `Tagged<Microtask>` from Node 22 on.
const MAKES_JOBS: &str = "Builtins_EnqueueMicrotask";
const MAKES_OUTER_JOBS: [&str; 2] = [
    "_ZN2v88internal14MicrotaskQueue16EnqueueMicrotaskENS0_9MicrotaskE",
    "_ZN2v88internal14MicrotaskQueue16EnqueueMicrotaskENS0_6TaggedINS0_9MicrotaskEEE",
];
/// Node 18's compiler has split off what `CONTINUES` does beyond a first question, and
/// calls that from elsewhere too. What is left is shorter, bytes.
const WHOLE_BYTES: usize = 128;
/// What takes them out, one after the other, and counts them.
const RUNS_JOBS: &str = "Builtins_RunMicrotasks";
/// Where the queue keeps what the kernel half reads, bytes into it
/// (src/execution/microtask-queue.h, Node 18 to 24): how many wait, for how many there
/// is room, where the first is, the ring.
const QUEUE: [u64; 4] = [8, 16, 24, 32];
/// The same of how many have run.
const FINISHED: u64 = 40;

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
    let names = [
        BEGINS[0],
        BEGINS[1],
        ENDS,
        ROWS[0],
        ROWS[1],
        CONTINUES,
        SETTLES,
        MAKES_JOBS,
        MAKES_OUTER_JOBS[0],
        MAKES_OUTER_JOBS[1],
        RUNS_JOBS,
    ];
    let image = Image::open(pid, mapping, mappings, &names, Scope::Any).map_err(NodeError::File)?;
    let mut image = image.ok_or(NodeError::NoCallbacks)?;
    if image.machine() != Machine::X86_64 {
        return Err(NodeError::Machine);
    }
    let begins = BEGINS.into_iter().find(|name| image.symbol(name).is_some());
    let begins = begins.ok_or(NodeError::NoCallbacks)?;
    let code = image.function(begins, LOOKED_AT);
    if !code.is_some_and(|(address, code)| is_known_layout(address, &code)) {
        return Err(NodeError::Layout);
    }
    let mut has = |name: &str, words: &[u64]| {
        let code = image.function(name, LOOKED_AT);
        code.is_some_and(|(address, code)| {
            let read = members(address, &code);
            words.iter().all(|word| read.contains(word))
        })
    };
    let is_known_queue = has(MAKES_JOBS, &QUEUE) && has(RUNS_JOBS, &[FINISHED]);
    let continues = image.function(CONTINUES, LOOKED_AT);
    let is_whole = continues.is_some_and(|(_, code)| code.len() >= WHOLE_BYTES);
    let outer = MAKES_OUTER_JOBS
        .into_iter()
        .find(|name| image.symbol(name).is_some());
    let mut place = |name: &str, arguments: usize, returns: bool| {
        let function = image.symbol(name).ok_or(NodeError::NoCallbacks)?;
        let needs = Needs { arguments, returns };
        image.place(function, needs).ok_or(NodeError::NoCallbacks)
    };
    Ok(Node {
        file: mapping.file,
        begins: place(begins, 1, false)?,
        ends: place(ENDS, 0, true)?,
        rows: vec![place(ROWS[0], 0, false)?, place(ROWS[1], 0, false)?],
        continues: place(CONTINUES, 1, true)?,
        settles: place(SETTLES, 0, false).ok(),
        makes_jobs: match (
            place(MAKES_JOBS, 0, false),
            outer.map(|outer| place(outer, 0, false)),
        ) {
            (Ok(own), Some(Ok(outer))) if is_known_queue && is_whole => vec![own, outer],
            _ => Vec::new(),
        },
        image,
    })
}

/// Whether the function that begins a callback finds all arrays where they are
/// looked for.
fn is_known_layout(address: u64, code: &[u8]) -> bool {
    let read = members(address, code);
    ARRAYS.iter().all(|array| read.contains(array))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Node 20's `push_async_context` reads.
    const NODE_20: [u8; 22] = [
        0x48, 0x8b, 0x47, 0x60, // mov rax, [rdi+96]
        0x8b, 0x50, 0x18, // mov edx, [rax+24]
        0x4c, 0x3b, 0x7b, 0x18, // cmp r15, [rbx+24]
        0x48, 0x8b, 0x73, 0x28, // mov rsi, [rbx+40]
        0x48, 0x8b, 0x8b, 0x98, 0x00, 0x00, 0x00, // mov rcx, [rbx+152]
    ];
    /// The same of Node 16, whose arrays are shorter.
    const NODE_16: [u8; 22] = [
        0x48, 0x8b, 0x47, 0x50, // mov rax, [rdi+80]
        0x8b, 0x50, 0x18, // mov edx, [rax+24]
        0x4c, 0x3b, 0x73, 0x10, // cmp r14, [rbx+16]
        0x48, 0x8b, 0x73, 0x20, // mov rsi, [rbx+32]
        0x48, 0x8b, 0x8b, 0x80, 0x00, 0x00, 0x00, // mov rcx, [rbx+128]
    ];

    #[test]
    fn the_layout_is_seen_in_the_code() {
        assert!(is_known_layout(0x1000, &NODE_20));
        assert!(!is_known_layout(0x1000, &NODE_16));
        assert!(!is_known_layout(0x1000, &[]));
    }

    #[test]
    fn two_of_three_arrays_are_not_enough() {
        // The numbers elsewhere.
        let mut code = NODE_20;
        code[18] = 0xa0;
        assert!(!is_known_layout(0x1000, &code));
    }
}
