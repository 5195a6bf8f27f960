//! Discovery in live processes: preloaded allocators, static programs, deleted
//! files. Needs the usual allocators installed, `cc` and `musl-gcc`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, OpAccess, Register};
use memtrace_common::event::AllocCall;

use super::*;
use crate::probe::symbols::Machine;

const PRELOADED: [(&str, Allocator); 3] = [
    ("libjemalloc.so.2", Allocator::Jemalloc),
    ("libtcmalloc_minimal.so.4", Allocator::Tcmalloc),
    ("libmimalloc.so.2", Allocator::Mimalloc),
];

/// A child that echoes its input: once it has, its libraries are loaded.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut byte = [0];
        let input = child.stdin.as_mut().expect("its input");
        input.write_all(b"x").expect("written");
        let output = child.stdout.as_mut().expect("its output");
        output.read_exact(&mut byte).expect("an answer");
        Running(child)
    }

    fn preloading(library: &str) -> Running {
        Running::start(Command::new("cat").env("LD_PRELOAD", library))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("memtrace-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Scratch(path)
    }

    /// Compiles C with these arguments.
    fn compile(&self, compiler: &str, arguments: &[&str], name: &str, source: &str) -> PathBuf {
        let input = self.0.join(format!("{name}.c"));
        let output = self.0.join(name);
        std::fs::write(&input, source).expect("written");
        let status = Command::new(compiler)
            .args(arguments)
            .arg(&input)
            .arg("-o")
            .arg(&output)
            .status()
            .expect("a compiler");
        assert!(status.success(), "{compiler} failed");
        output
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const ECHO: &str = "#include <stdlib.h>\n#include <unistd.h>\n\
    int main(void) {\n\
      char c;\n\
      char *volatile block = malloc(10);\n\
      block = realloc(block, 20);\n\
      free(block);\n\
      block = calloc(2, 3);\n\
      while (read(0, &c, 1) == 1) if (write(1, &c, 1) != 1) return 1;\n\
      free(block);\n\
      return 0;\n\
    }\n";

/// A layer over the C library's allocator.
const LAYER: &str = "#include <stddef.h>\n\
    void *__libc_malloc(size_t);\n\
    void __libc_free(void *);\n\
    static void *(*volatile take)(size_t) = __libc_malloc;\n\
    static void (*volatile give)(void *) = __libc_free;\n\
    size_t counted;\n\
    void *malloc(size_t n) { void *p = take(n); counted += n; return p; }\n\
    void free(void *p) { give(p); counted++; }\n";

fn object(objects: &[AllocatorObject], allocator: Allocator) -> &AllocatorObject {
    objects
        .iter()
        .find(|object| object.facts.allocators.contains(&allocator))
        .unwrap_or_else(|| panic!("no {allocator} among {objects:?}"))
}

fn role(object: &AllocatorObject, name: &str) -> Option<Role> {
    let bears = |function: &&Function| {
        function.name == name || function.aliases.iter().any(|alias| alias == name)
    };
    object.facts.functions.iter().find(bears).map(|f| f.role)
}

/// Whether the name is probed, or known to end in a probed function.
fn covered(object: &AllocatorObject, name: &str) -> bool {
    role(object, name).is_some()
        || object
            .facts
            .skipped
            .iter()
            .any(|skipped| skipped.name == name && covered(object, &skipped.ends_in))
}

#[test]
fn this_process_uses_the_c_library() {
    let objects = allocators(std::process::id()).expect("allocators");
    let libc = object(&objects, Allocator::Glibc);
    assert!(libc.path.ends_with("libc.so.6"), "{:?}", libc.path);
    assert!(libc.describe().starts_with("glibc (/"));
    let size = Role::Allocate(AllocCall::Size);
    assert_eq!(role(libc, "malloc"), Some(size));
    assert_eq!(role(libc, "__libc_malloc"), Some(size));
    assert_eq!(role(libc, "free"), Some(Role::Free));
    for name in [
        "calloc",
        "realloc",
        "reallocarray",
        "memalign",
        "aligned_alloc",
        "posix_memalign",
        "valloc",
        "pvalloc",
    ] {
        assert!(covered(libc, name), "{name}");
    }
    // The loader has an allocator for itself alone.
    assert!(
        objects
            .iter()
            .all(|object| !object.path.to_string_lossy().contains("/ld-"))
    );
    let mapped = libc.file.inode;
    let meta = std::fs::metadata(libc.attach_path()).expect("the attach path leads to a file");
    assert_eq!(meta.ino(), mapped);
}

#[test]
fn preloaded_allocators_stand_beside_the_c_library() {
    for (library, allocator) in PRELOADED {
        let child = Running::preloading(library);
        let objects = allocators(child.pid()).expect("allocators");
        object(&objects, Allocator::Glibc);
        let found = object(&objects, allocator);
        assert_eq!(found.facts.allocators, [allocator]);
        for name in [
            "malloc",
            "calloc",
            "realloc",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "free",
            "_Znwm",
            "_ZnamSt11align_val_t",
            "_ZdlPv",
            "_ZdaPvmSt11align_val_t",
        ] {
            assert!(covered(found, name), "{library}: {name}");
        }
        if allocator == Allocator::Jemalloc {
            let resize = Role::Allocate(AllocCall::ResizeInPlace);
            assert_eq!(role(found, "xallocx"), Some(resize));
            assert_eq!(role(found, "sdallocx"), Some(Role::Free));
            // It jumps to free.
            assert_eq!(role(found, "_ZdlPv"), None);
        }
        let places: BTreeSet<u64> = found.facts.functions.iter().map(|f| f.offset).collect();
        assert_eq!(places.len(), found.facts.functions.len());
    }
}

/// Every place of every function of `object` is checked against an independent
/// reading of the code.
fn check_places(object: &AllocatorObject) {
    const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];
    assert_eq!(object.facts.elf.machine, Machine::X86_64);
    let bytes = std::fs::read(object.attach_path()).expect("the file");
    let mut cheap = 0;
    for function in &object.facts.functions {
        let shown = format!("{} of {}", function.name, object.path.display());
        assert_eq!(
            function.offset,
            function.symbol_offset + function.placement.offset,
            "{shown}"
        );
        cheap += usize::from(function.placement.emulated);
        let code = &bytes[function.symbol_offset as usize..];
        let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        let mut facts = InstructionInfoFactory::new();
        let needs = function.role.needs();
        loop {
            let instruction = decoder.decode();
            assert!(!instruction.is_invalid(), "{shown}");
            if instruction.ip() == function.placement.offset {
                break;
            }
            assert!(instruction.ip() < function.placement.offset, "{shown}");
            assert_eq!(instruction.flow_control(), FlowControl::Next, "{shown}");
            for used in facts.info(&instruction).used_registers() {
                let register = used.register().full_register();
                let kept = ARGUMENTS[..needs.arguments].contains(&register)
                    || (needs.returns && register == Register::RSP);
                let read = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
                assert!(!kept || read, "{shown}: {register:?} is written");
            }
        }
    }
    assert!(cheap * 2 > object.facts.functions.len(), "few cheap places");
}

#[test]
fn every_place_is_an_instruction_that_sees_the_arguments() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let scratch = Scratch::new("places");
    let musl = scratch.compile("musl-gcc", &[], "musl-dynamic", ECHO);
    let mut children = vec![Running::start(&mut Command::new(musl))];
    children.extend(PRELOADED.map(|(library, _)| Running::preloading(library)));
    let mut seen = BTreeSet::new();
    for child in &children {
        for object in allocators(child.pid()).expect("allocators") {
            check_places(&object);
            seen.extend(object.facts.allocators.iter().copied());
        }
    }
    let all = [
        Allocator::Glibc,
        Allocator::Musl,
        Allocator::Jemalloc,
        Allocator::Tcmalloc,
        Allocator::Mimalloc,
    ];
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn static_programs() {
    let scratch = Scratch::new("static");
    for (compiler, allocator) in [("musl-gcc", Allocator::Musl), ("cc", Allocator::Glibc)] {
        let name = format!("static-{allocator}");
        let program = scratch.compile(compiler, &["-static"], &name, ECHO);
        let child = Running::start(&mut Command::new(&program));
        let objects = allocators(child.pid()).expect("allocators");
        assert_eq!(objects.len(), 1);
        let found = object(&objects, allocator);
        assert_eq!(found.path, program);
        assert_eq!(found.facts.elf.linkage, Linkage::StaticExecutable);
        for function in ["malloc", "calloc", "realloc", "free"] {
            assert!(covered(found, function), "{allocator}: {function}");
        }
    }

    let stripped = scratch.compile("cc", &["-static", "-s"], "stripped", ECHO);
    let child = Running::start(&mut Command::new(&stripped));
    let Err(error) = allocators(child.pid()) else {
        panic!("nothing tells where its allocator is");
    };
    let text = error.to_string();
    assert!(text.contains(&*stripped.to_string_lossy()), "{text}");
    assert!(text.contains("statically linked and stripped"), "{text}");
    assert!(text.contains("keep its symbols"), "{text}");
}

#[test]
fn operators_that_end_in_malloc_are_left_out() {
    let source = "#include <stdlib.h>\n#include <unistd.h>\n\
        __attribute__((noinline)) void *_Znwm(unsigned long n) {\n\
          void *p = malloc(n); if (!p) abort(); return p; }\n\
        __attribute__((noinline)) void _ZdlPv(void *p) { free(p); }\n\
        int main(void) {\n\
          char c; void *volatile p = _Znwm(5);\n\
          while (read(0, &c, 1) == 1) if (write(1, &c, 1) != 1) return 1;\n\
          _ZdlPv(p); return 0; }\n";
    let scratch = Scratch::new("operators");
    // Alone, a program that defines operators is no allocator; with the C library
    // linked in, they end in its functions.
    let dynamic = scratch.compile("cc", &["-O2"], "dynamic", source);
    let child = Running::start(&mut Command::new(&dynamic));
    let objects = allocators(child.pid()).expect("allocators");
    assert!(objects.iter().all(|object| object.path != dynamic));
    drop(child);
    let whole = scratch.compile("cc", &["-O2", "-static"], "whole", source);
    let child = Running::start(&mut Command::new(&whole));
    let objects = allocators(child.pid()).expect("allocators");
    let found = object(&objects, Allocator::Glibc);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(role(found, "_Znwm"), None);
        assert_eq!(role(found, "_ZdlPv"), None);
    }
    assert!(covered(found, "malloc") && covered(found, "free"));
}

#[test]
fn a_layer_over_another_allocator_is_probed_to_its_return() {
    let scratch = Scratch::new("layer");
    let library = scratch.compile("cc", &["-O2", "-shared", "-fPIC"], "layer.so", LAYER);
    let child = Running::preloading(&library.to_string_lossy());
    let objects = allocators(child.pid()).expect("allocators");
    let layer = object(&objects, Allocator::Other);
    assert_eq!(layer.path, library);
    let release = Role::Allocate(AllocCall::Release);
    assert_eq!(role(layer, "free"), Some(release));
    let libc = object(&objects, Allocator::Glibc);
    assert_eq!(role(libc, "free"), Some(Role::Free));
}

#[test]
fn a_deleted_library_is_found_or_told_about() {
    let scratch = Scratch::new("deleted");
    let library = scratch.compile("cc", &["-shared", "-fPIC"], "layer.so", LAYER);
    let program = scratch.compile("cc", &[], "echo", ECHO);
    let mut command = Command::new(program);
    let child = Running::start(command.env("LD_PRELOAD", &library));
    std::fs::remove_file(&library).expect("removed");
    let found = ObjectCache::new()
        .discover(child.pid())
        .expect("discovered");
    let listed = std::fs::read_dir(format!("/proc/{}/map_files", child.pid()))
        .expect("listed")
        .flatten()
        .any(|entry| std::fs::metadata(entry.path()).is_ok());
    if listed {
        let layer = object(&found.objects, Allocator::Other);
        assert!(layer.deleted);
        assert_eq!(layer.path, library);
        assert_eq!(found.trouble, Vec::<String>::new());
    } else {
        let told = found
            .trouble
            .iter()
            .any(|text| text.contains("was deleted"));
        assert!(told, "{:?}", found.trouble);
    }
}

#[test]
fn a_file_is_read_once_for_all_its_processes() {
    let mut cache = ObjectCache::new();
    let first = Running::preloading(PRELOADED[0].0);
    let second = Running::preloading(PRELOADED[0].0);
    let one = cache.discover(first.pid()).expect("discovered");
    let known = cache.known.len();
    let two = cache.discover(second.pid()).expect("discovered");
    assert_eq!(cache.known.len(), known);
    assert_eq!(one.objects.len(), two.objects.len());
    for (a, b) in one.objects.iter().zip(&two.objects) {
        assert_eq!(a.file, b.file);
        assert!(Arc::ptr_eq(&a.facts, &b.facts));
    }
}

#[test]
fn an_ended_process_is_said_to_have_ended() {
    let child = Running::start(&mut Command::new("cat"));
    let pid = child.pid();
    drop(child);
    assert!(matches!(
        ObjectCache::new().discover(pid),
        Err(DiscoverError::Gone(gone)) if gone == pid
    ));
}
