//! Any bytes are refused as a program or library, or examined; what is found
//! lies within the file.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use memtrace::probe::discover;
use memtrace::probe::symbols::ElfFile;

fuzz_target!(|input: &[u8]| {
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
});
