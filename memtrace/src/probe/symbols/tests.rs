//! The files of this very test: its program and its C library, whole and damaged.

use std::fs::File;
use std::io::Cursor;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// The C library that this test runs on.
fn libc_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let maps = std::fs::read("/proc/self/maps").expect("own maps");
        let path = crate::probe::maps::parse(&maps)
            .into_iter()
            .find(|m| m.path.to_string_lossy().contains("/libc.so.6"))
            .expect("a mapped C library")
            .path;
        std::fs::read(path).expect("its bytes")
    })
}

#[test]
fn the_c_library_is_described() {
    let mut file = ElfFile::open(Cursor::new(libc_bytes())).expect("an ELF file");
    assert_eq!(file.facts().linkage, Linkage::SharedLibrary);
    assert_eq!(file.facts().soname.as_deref(), Some("libc.so.6"));
    assert!(
        file.facts()
            .build_id
            .as_ref()
            .is_some_and(|id| id.len() >= 8)
    );
    assert!(!file.facts().go);
    let symbols = file
        .functions(&|name| ["malloc", "free", "memcpy", "printf"].contains(&name))
        .expect("symbols");
    let names: Vec<&str> = symbols.functions.iter().map(|f| f.name.as_str()).collect();
    assert!(names.contains(&"malloc") && names.contains(&"free") && names.contains(&"printf"));
    // memcpy is chosen at start by what the processor can do.
    assert_eq!(symbols.resolvers, ["memcpy"]);
    for function in &symbols.functions {
        let code = file.code(function.address, 16).expect("code");
        let start = function.file_offset as usize;
        assert_eq!(code, libc_bytes()[start..start + 16]);
    }
}

#[test]
fn this_test_imports_from_the_c_library() {
    let program = File::open("/proc/self/exe").expect("own program");
    let mut file = ElfFile::open(program).expect("an ELF file");
    assert_eq!(file.facts().linkage, Linkage::DynamicExecutable);
    assert!(file.facts().full_symbols);
    let imports = file.imports(&|name| name == "malloc").expect("imports");
    assert!(imports.values().all(|name| name == "malloc"));
    assert!(!imports.is_empty());
    let own = file.functions(&|name| name == "main").expect("symbols");
    assert_eq!(own.functions.len(), 1);
}

#[test]
fn symbols_are_found_by_their_names() {
    let mut file = ElfFile::open(Cursor::new(libc_bytes())).expect("an ELF file");
    // A function and a variable.
    let found = file.addresses(&["malloc", "stdout", "nothing like it"], Scope::Any);
    let found = found.expect("symbols");
    assert_eq!(found.len(), 2);
    let functions = file.functions(&|name| name == "malloc").expect("symbols");
    let malloc = &functions.functions[0];
    assert_eq!(found["malloc"], (malloc.address, malloc.size));
    assert_eq!(found["stdout"].1, size_of::<usize>() as u64);

    // One that is exported to nobody: in the full table only.
    let program = File::open("/proc/self/exe").expect("own program");
    let mut file = ElfFile::open(program).expect("an ELF file");
    let own = file.functions(&|name| name == "main").expect("symbols");
    let found = file.addresses(&["main"], Scope::Any).expect("symbols");
    assert_eq!(found["main"].0, own.functions[0].address);
    let exported = file.addresses(&["main"], Scope::Exported);
    assert_eq!(exported.expect("symbols").len(), 0);
}

#[test]
fn a_symbol_table_beyond_the_limit_is_refused() {
    let mut bytes = libc_bytes().to_vec();
    // e_shoff; each section header has 64 bytes.
    let sections = u64::from_le_bytes(bytes[40..48].try_into().expect("eight")) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[60], bytes[61]]));
    for section in (0..count).map(|index| sections + 64 * index) {
        // sh_type, sh_size.
        if bytes[section + 4..section + 8] == elf::SHT_DYNSYM.0.to_le_bytes() {
            bytes[section + 32..section + 40].copy_from_slice(&(1_u64 << 50).to_le_bytes());
        }
    }
    let mut file = ElfFile::open(Cursor::new(bytes)).expect("an ELF file");
    assert!(matches!(
        file.addresses(&["malloc"], Scope::Any),
        Err(ElfError::Damaged("symbol table"))
    ));
}

#[test]
fn other_files_are_refused_by_name() {
    let refused = |bytes: &[u8]| ElfFile::open(Cursor::new(bytes.to_vec())).map(|_| ());
    assert!(matches!(refused(b""), Err(ElfError::NotElf)));
    assert!(matches!(
        refused(b"#!/bin/sh\nexit 0\n"),
        Err(ElfError::NotElf)
    ));
    let mut narrow = libc_bytes()[..64].to_vec();
    narrow[4] = 1;
    assert!(matches!(refused(&narrow), Err(ElfError::Machine(_))));
    let mut foreign = libc_bytes().to_vec();
    foreign[18] = 0xf3;
    assert!(matches!(refused(&foreign), Err(ElfError::Machine(_))));
}

#[test]
fn a_file_without_sections_still_names_its_functions() {
    let mut bytes = libc_bytes().to_vec();
    // e_shoff, e_shnum, e_shstrndx.
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    let mut file = ElfFile::open(Cursor::new(bytes)).expect("an ELF file");
    assert!(!file.facts().full_symbols);
    let symbols = file.functions(&|name| name == "malloc").expect("symbols");
    assert_eq!(symbols.functions.len(), 1);
}

/// Everything that can be asked of a file.
fn exercise(bytes: Vec<u8>) {
    let Ok(mut file) = ElfFile::open(Cursor::new(bytes)) else {
        return;
    };
    if let Ok(symbols) = file.functions(&|name| name.contains("alloc")) {
        for function in symbols.functions.iter().take(16) {
            let code = file.code(function.address, 4096).expect("memory reads");
            assert!(code.len() <= 4096);
        }
    }
    drop(file.imports(&|name| name.contains("alloc")));
    drop(file.addresses(&["malloc", "none"], Scope::Any));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..2048)) {
        exercise(tail.clone());
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        bytes.extend(tail);
        exercise(bytes);
    }

    #[test]
    fn a_damaged_header_is_survived(
        changes in proptest::collection::vec((0usize..1024, any::<u8>()), 1..12),
    ) {
        let mut bytes = libc_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        exercise(bytes);
    }

    #[test]
    fn a_damaged_body_is_survived(
        changes in proptest::collection::vec((0usize..1 << 20, any::<u8>()), 1..2000),
        tail in proptest::collection::vec((1usize..6000, any::<u8>()), 0..200),
        cut in proptest::option::of(0usize..1 << 20),
    ) {
        let mut bytes = libc_bytes().to_vec();
        let len = bytes.len();
        for (at, byte) in changes {
            bytes[at % len] = byte;
        }
        // The section table lies at the end of the file.
        for (back, byte) in tail {
            bytes[len - back] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        exercise(bytes);
    }
}
