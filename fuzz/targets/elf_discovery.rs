//! Any bytes are refused as a program or library, or examined; what is found
//! lies within the file. Any bytes are also code in which to find a place for a
//! probe.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use memtrace::probe::discover;
use memtrace::probe::place::{self, Needs};
use memtrace::probe::symbols::{ElfFile, Machine, Scope};

fuzz_target!(|input: &[u8]| {
    for (machine, returns) in [(Machine::X86_64, true), (Machine::Aarch64, false)] {
        let arguments = input.len() % 5;
        let place = place::choose(input, 0x1000, machine, Needs { arguments, returns });
        assert!(place.offset <= input.len() as u64);
    }
    let examined = discover::examine(Cursor::new(input));
    let Ok(mut file) = ElfFile::open(Cursor::new(input)) else {
        assert!(examined.is_err());
        return;
    };
    if let Ok(facts) = examined {
        for function in &facts.functions {
            assert!(function.offset < input.len() as u64);
        }
    }
    if let Ok(symbols) = file.functions(&|_| true) {
        for function in &symbols.functions {
            assert!(function.file_offset < input.len() as u64);
            if let Ok(code) = file.code(function.address, 64) {
                assert!(code.len() <= 64);
            }
        }
    }
    let _ = file.imports(&|_| true);
    let _ = file.addresses(&["malloc", "_PyRuntime"], Scope::Any);
});
