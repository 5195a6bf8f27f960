//! What an ELF file says about itself: machine, linkage, build id, and where
//! in the file its functions are.
//!
//! Any seekable bytes come in; facts and [`Symbol`]s go out. Nothing in the file
//! is believed: every offset and count is checked against the file's length and
//! against the limits below, tables are read in pieces, and only the symbols
//! that the caller asks for are kept. Nothing is disassembled here, and it is
//! not decided what a symbol means.

mod table;

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};

use table::{ENTRY_BYTES, NAME_BYTES_MAX, Span, Window, name_at, u64_at};

/// Files above this length are refused, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Symbols read of one table: 24 bytes each while it is read, so at most 96 MiB.
const SYMBOLS_MAX: u64 = 4 << 20;
/// Relocations read of one file.
const RELOCATIONS_MAX: u64 = 4 << 20;
/// Relocation sections read of one file; linkers write two.
const RELOCATION_SECTIONS_MAX: usize = 16;
/// Note segments read of one file; linkers write up to three.
const NOTE_SEGMENTS_MAX: usize = 16;
/// Sections and segments read of one file.
const HEADERS_MAX: u32 = 16 << 10;
/// Bytes read of a note or dynamic segment.
const SEGMENT_BYTES_MAX: u64 = 64 << 10;
/// Why an ELF file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file could not be read.
    #[error("it could not be read: {0}")]
    Read(#[from] io::Error),
    /// It is not an ELF file.
    #[error("it is not an ELF file")]
    NotElf,
    /// It is for a machine that cannot be traced.
    #[error("it is a program for {0}, and only 64-bit x86 and ARM programs can be traced")]
    Machine(String),
    /// It is longer than [`FILE_BYTES_MAX`].
    #[error("it has {0} bytes, more than the {FILE_BYTES_MAX} that are looked at")]
    TooLong(u64),
    /// A part of it contradicts the rest.
    #[error("its {0} is damaged")]
    Damaged(&'static str),
}

/// Instruction sets that can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM, little-endian.
    Aarch64,
}

/// How a program or library is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// A program that a dynamic loader completes.
    DynamicExecutable,
    /// A program that needs no loader, position-independent or not.
    StaticExecutable,
    /// A shared library, or a dynamic loader.
    SharedLibrary,
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFacts {
    /// Its instruction set.
    pub machine: Machine,
    /// How it is linked.
    pub linkage: Linkage,
    /// The name under which others link against it.
    pub soname: Option<String>,
    /// The GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// It carries a Go build id.
    pub go: bool,
    /// It still has its full symbol table (not only the dynamic one).
    pub full_symbols: bool,
}

/// A function that the file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, without a version.
    pub name: String,
    /// Its virtual address in the file's own numbering.
    pub address: u64,
    /// Its length in bytes; 0 if the file does not say.
    pub size: u64,
    /// Where its first byte is in the file.
    pub file_offset: u64,
}

/// The functions asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Defined functions, sorted by address, then name, each once.
    pub functions: Vec<Symbol>,
    /// Names of indirect functions: what they name is code that chooses the
    /// function when the program starts, so a probe there would see nothing.
    pub resolvers: Vec<String>,
}

/// Where a symbol may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It is exported, where the file exports anything.
    Exported,
    /// It may be known to the linker alone.
    Any,
}

/// A loadable segment: file bytes `offset..offset + len` appear at `address`.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    len: u64,
    executable: bool,
}

/// A symbol table with its names.
#[derive(Clone, Copy, Debug)]
struct Table {
    symbols: Span,
    names: Span,
    dynamic: bool,
}

/// An entry of a symbol table.
#[derive(Clone, Copy)]
struct Raw {
    name: u32,
    kind: elf::SymbolType,
    address: u64,
    size: u64,
}

/// An ELF file under inspection.
#[derive(Debug)]
pub struct ElfFile<R> {
    reader: R,
    facts: ElfFacts,
    segments: Vec<Segment>,
    tables: Vec<Table>,
    relocations: Vec<Span>,
}

/// What the dynamic segment says.
#[derive(Default)]
struct DynamicFacts {
    strings: u64,
    symbols: u64,
    soname: Option<u64>,
    position_independent: bool,
}

type Header = elf::FileHeader64<Endianness>;

impl<R: Read + Seek> ElfFile<R> {
    /// Reads the headers.
    pub fn open(mut reader: R) -> Result<Self, ElfError> {
        let len = reader.seek(SeekFrom::End(0))?;
        if len > FILE_BYTES_MAX {
            return Err(ElfError::TooLong(len));
        }
        check_identification(&mut reader)?;
        let cache = ReadCache::new(&mut reader);
        let data = &cache;
        let header = Header::parse(data).map_err(|_| ElfError::NotElf)?;
        let endian = header
            .endian()
            .map_err(|_| ElfError::Damaged("file header"))?;
        let machine = match header.e_machine(endian) {
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_AARCH64 => Machine::Aarch64,
            other => return Err(ElfError::Machine(format!("machine type {other:?}"))),
        };

        if header
            .phnum(endian, data)
            .map_err(|_| ElfError::Damaged("program header table"))?
            > HEADERS_MAX
        {
            return Err(ElfError::Damaged("program header table"));
        }
        let programs = header
            .program_headers(endian, data)
            .map_err(|_| ElfError::Damaged("program header table"))?;
        let mut segments = Vec::new();
        let mut dynamic = None;
        let mut interpreted = false;
        let mut build_id = None;
        let mut go = false;
        let mut note_segments = 0;
        for program in programs {
            let span = Span {
                offset: program.p_offset(endian),
                len: program.p_filesz(endian),
            };
            match program.p_type(endian) {
                elf::PT_LOAD => segments.push(Segment {
                    address: program.p_vaddr(endian),
                    offset: span.offset,
                    // What lies beyond the file's end is not there to be probed.
                    len: span.len.min(len.saturating_sub(span.offset)),
                    executable: (program.p_flags(endian) & elf::PF_X).0 != 0,
                }),
                elf::PT_INTERP => interpreted = true,
                elf::PT_DYNAMIC => dynamic = Some(span),
                elf::PT_NOTE
                    if span.len <= SEGMENT_BYTES_MAX && note_segments < NOTE_SEGMENTS_MAX =>
                {
                    note_segments += 1;
                    let Ok(Some(mut notes)) = program.notes(endian, data) else {
                        continue;
                    };
                    while let Ok(Some(note)) = notes.next() {
                        match (note.name(), note.n_type(endian)) {
                            (b"GNU", kind) if kind == elf::NT_GNU_BUILD_ID => {
                                build_id = Some(note.desc().to_vec());
                            }
                            // The Go linker's build id.
                            (b"Go", _) => go = true,
                            (_, _) => {}
                        }
                    }
                }
                // Segment types are the format's, not ours, and mostly of no
                // interest.
                _ => {}
            }
        }

        let dynamic_facts = dynamic
            .map(|span| read_dynamic(data, endian, span))
            .unwrap_or_default();
        let soname = dynamic_facts.soname.and_then(|offset| {
            let at = file_offset(&segments, dynamic_facts.strings)?.checked_add(offset)?;
            let bytes = data
                .read_bytes_at(at, (NAME_BYTES_MAX as u64).min(len.saturating_sub(at)))
                .ok()?;
            name_at(bytes).map(str::to_owned)
        });
        let linkage = if soname.is_some() {
            Linkage::SharedLibrary
        } else if interpreted {
            Linkage::DynamicExecutable
        } else if header.e_type(endian) == elf::ET_EXEC || dynamic_facts.position_independent {
            Linkage::StaticExecutable
        } else {
            Linkage::SharedLibrary
        };

        // A file without a usable section table is still described by its
        // segments.
        let (mut tables, relocations) = read_sections(header, endian, data).unwrap_or_default();
        if !tables.iter().any(|table| table.dynamic) {
            tables.extend(dynamic_table(&segments, &dynamic_facts, len));
        }
        let full_symbols = tables.iter().any(|table| !table.dynamic);
        drop(cache);
        Ok(ElfFile {
            reader,
            facts: ElfFacts {
                machine,
                linkage,
                soname,
                build_id,
                go,
                full_symbols,
            },
            segments,
            tables,
            relocations,
        })
    }

    /// What the file says about itself.
    pub fn facts(&self) -> &ElfFacts {
        &self.facts
    }

    /// The functions which the file defines and whose names `want` accepts.
    pub fn functions(&mut self, want: &dyn Fn(&str) -> bool) -> Result<Symbols, ElfError> {
        let mut found = Symbols::default();
        for table in self.tables.clone() {
            self.functions_of(table, want, &mut found)?;
        }
        found
            .functions
            .sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        found
            .functions
            .dedup_by(|a, b| a.address == b.address && a.name == b.name);
        found.resolvers.sort();
        found.resolvers.dedup();
        Ok(found)
    }

    fn functions_of(
        &mut self,
        table: Table,
        want: &dyn Fn(&str) -> bool,
        found: &mut Symbols,
    ) -> Result<(), ElfError> {
        let is_function = |kind| kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
        for (name, raw) in self.named(table, &is_function, want)? {
            if raw.kind == elf::STT_GNU_IFUNC {
                found.resolvers.push(name);
                continue;
            }
            let Some(file_offset) = self.code_offset(raw.address) else {
                continue;
            };
            found.functions.push(Symbol {
                name,
                address: raw.address,
                size: raw.size,
                file_offset,
            });
        }
        Ok(())
    }

    /// The variables which the file defines and whose names `want` accepts: name
    /// → virtual address in the file's own numbering.
    pub fn variables(
        &mut self,
        want: &dyn Fn(&str) -> bool,
    ) -> Result<HashMap<String, u64>, ElfError> {
        let mut found = HashMap::new();
        for table in self.tables.clone() {
            let named = self.named(table, &|kind| kind == elf::STT_OBJECT, want)?;
            found.extend(named.into_iter().map(|(name, raw)| (name, raw.address)));
        }
        Ok(found)
    }

    /// Where the symbols of these names are, functions or variables: name → virtual
    /// address in the file's own numbering and length in bytes. The full table is
    /// read only for those that are not exported, if these may be local at all: it
    /// can be much longer.
    pub fn addresses(
        &mut self,
        names: &[&str],
        scope: Scope,
    ) -> Result<HashMap<String, (u64, u64)>, ElfError> {
        let mut found: HashMap<String, (u64, u64)> = HashMap::new();
        let mut tables = self.tables.clone();
        tables.sort_by_key(|table| !table.dynamic);
        if scope == Scope::Exported && tables.iter().any(|table| table.dynamic) {
            tables.truncate(1);
        }
        for table in tables {
            if names.iter().all(|name| found.contains_key(*name)) {
                break;
            }
            let is_named = |kind| kind != elf::STT_SECTION && kind != elf::STT_FILE;
            let wanted = |name: &str| names.contains(&name);
            for (name, raw) in self.named(table, &is_named, &wanted)? {
                found.entry(name).or_insert((raw.address, raw.size));
            }
        }
        Ok(found)
    }

    /// What the loader has added to the file's own addresses, seen from the lowest
    /// place at which any of it is mapped and the file offset there; `None` for a
    /// file of which nothing is loaded.
    pub fn moved_lowest(&self, mapped_at: u64, offset: u64) -> Option<u64> {
        // Its first segment in the file is its lowest mapping.
        let first = self.segments.iter().min_by_key(|segment| segment.offset)?;
        Some(
            mapped_at
                .wrapping_sub(offset)
                .wrapping_sub(first.address.wrapping_sub(first.offset)),
        )
    }

    /// The defined symbols of these kinds whose names `want` accepts.
    fn named(
        &mut self,
        table: Table,
        is_kind: &dyn Fn(elf::SymbolType) -> bool,
        want: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, Raw)>, ElfError> {
        let count = table.symbols.len / ENTRY_BYTES as u64;
        if count > SYMBOLS_MAX {
            return Err(ElfError::Damaged("symbol table"));
        }
        let mut raws = Vec::new();
        let mut window = Window::new(table.symbols);
        for index in 0..count {
            let Some(entry) = window.entry(&mut self.reader, index)? else {
                break;
            };
            let kind = elf::SymbolType(entry[4] & 0xf);
            let section = u16::from_le_bytes([entry[6], entry[7]]);
            let address = u64_at(&entry, 8);
            if !is_kind(kind) || section == 0 || address == 0 {
                continue;
            }
            raws.push(Raw {
                name: u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]),
                kind,
                address,
                size: u64_at(&entry, 16),
            });
        }
        // In the order of the names, one pass over them is enough.
        raws.sort_unstable_by_key(|raw| raw.name);
        let mut named = Vec::new();
        let mut window = Window::new(table.names);
        for raw in raws {
            let Some(name) = window.name(&mut self.reader, u64::from(raw.name))? else {
                continue;
            };
            // Full tables may carry the version in the name.
            let name = name.split('@').next().unwrap_or_default();
            if want(name) {
                named.push((name.to_owned(), raw));
            }
        }
        Ok(named)
    }

    /// The pointers that the loader fills with the addresses of functions whose
    /// names `want` accepts: address of the pointer → name of the function.
    pub fn imports(
        &mut self,
        want: &dyn Fn(&str) -> bool,
    ) -> Result<HashMap<u64, String>, ElfError> {
        let Some(table) = self.tables.iter().find(|table| table.dynamic).copied() else {
            return Ok(HashMap::new());
        };
        // GLOB_DAT and JUMP_SLOT.
        let kinds: [u32; 2] = match self.facts.machine {
            Machine::X86_64 => [6, 7],
            Machine::Aarch64 => [1025, 1026],
        };
        let mut by_symbol: Vec<(u32, u64)> = Vec::new();
        let mut left = RELOCATIONS_MAX;
        for span in self.relocations.clone() {
            let mut window = Window::new(span);
            let count = (span.len / ENTRY_BYTES as u64).min(left);
            left -= count;
            for index in 0..count {
                let Some(entry) = window.entry(&mut self.reader, index)? else {
                    break;
                };
                let info = u64_at(&entry, 8);
                if kinds.contains(&(info as u32)) {
                    by_symbol.push(((info >> 32) as u32, u64_at(&entry, 0)));
                }
            }
        }
        by_symbol.sort_unstable();
        let mut by_name: Vec<(u32, u64)> = Vec::new();
        let mut window = Window::new(table.symbols);
        for (symbol, pointer) in by_symbol {
            if let Some(entry) = window.entry(&mut self.reader, u64::from(symbol))? {
                let name = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
                by_name.push((name, pointer));
            }
        }
        by_name.sort_unstable();
        let mut imports = HashMap::new();
        let mut window = Window::new(table.names);
        for (name, pointer) in by_name {
            if let Some(name) = window.name(&mut self.reader, u64::from(name))?
                && want(name)
            {
                imports.insert(pointer, name.to_owned());
            }
        }
        Ok(imports)
    }

    /// What the loader has added to the file's own addresses, seen from where it
    /// mapped the part of the code that begins at a file offset.
    pub fn moved(&self, mapped_at: u64, offset: u64) -> Option<u64> {
        // A mapping begins with the page that the segment's first byte is in.
        const PAGE_BYTES_MAX: u64 = 64 << 10;
        let segment = self.segments.iter().find(|segment| {
            segment.executable
                && segment.offset.saturating_sub(offset) < PAGE_BYTES_MAX
                && offset < segment.offset.saturating_add(segment.len)
        })?;
        let own = segment
            .address
            .wrapping_add(offset.wrapping_sub(segment.offset));
        Some(mapped_at.wrapping_sub(own))
    }

    /// The file offset of the code at a virtual address.
    pub fn code_offset(&self, address: u64) -> Option<u64> {
        let segment = self.code_segment(address)?;
        segment.offset.checked_add(address - segment.address)
    }

    /// The code at a virtual address: at most `len` bytes, fewer where the
    /// segment or the file ends, none where there is no code.
    pub fn code(&mut self, address: u64, len: usize) -> Result<Vec<u8>, ElfError> {
        let Some(segment) = self.code_segment(address) else {
            return Ok(Vec::new());
        };
        let skip = address - segment.address;
        let len = (segment.len - skip).min(len as u64);
        let Some(offset) = segment.offset.checked_add(skip) else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        self.reader.seek(SeekFrom::Start(offset))?;
        self.reader.by_ref().take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn code_segment(&self, address: u64) -> Option<Segment> {
        self.segments
            .iter()
            .find(|segment| segment.executable && holds(segment, address))
            .copied()
    }
}

/// Refuses, by name, what is not a 64-bit little-endian ELF file.
fn check_identification(reader: &mut (impl Read + Seek)) -> Result<(), ElfError> {
    let mut start = [0u8; 6];
    reader.seek(SeekFrom::Start(0))?;
    match reader.read_exact(&mut start) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ElfError::NotElf);
        }
        Err(error) => return Err(error.into()),
    }
    match start {
        [0x7f, b'E', b'L', b'F', 2, 1] => Ok(()),
        [0x7f, b'E', b'L', b'F', 1, _] => Err(ElfError::Machine("a 32-bit machine".into())),
        [0x7f, b'E', b'L', b'F', _, 2] => Err(ElfError::Machine("a big-endian machine".into())),
        _ => Err(ElfError::NotElf),
    }
}

/// What the dynamic segment says, as far as it can be read.
fn read_dynamic<'a>(data: impl ReadRef<'a>, endian: Endianness, span: Span) -> DynamicFacts {
    let mut facts = DynamicFacts::default();
    let Ok(bytes) = data.read_bytes_at(span.offset, span.len.min(SEGMENT_BYTES_MAX)) else {
        return facts;
    };
    let count = bytes.len() / size_of::<elf::Dyn64<Endianness>>();
    let Ok((entries, _)) = object::slice_from_bytes::<elf::Dyn64<Endianness>>(bytes, count) else {
        return facts;
    };
    for entry in entries {
        let value = entry.d_val(endian);
        match entry.d_tag(endian) {
            elf::DT_NULL => break,
            elf::DT_STRTAB => facts.strings = value,
            elf::DT_SYMTAB => facts.symbols = value,
            elf::DT_SONAME => facts.soname = Some(value),
            elf::DT_FLAGS_1 => facts.position_independent = value & elf::DF_1_PIE.0 != 0,
            // Tags are the format's, not ours.
            _ => {}
        }
    }
    facts
}

/// The symbol tables and the relocations against the dynamic one, from the
/// section table; `None` if there is none that can be read.
fn read_sections<'a, D: ReadRef<'a>>(
    header: &Header,
    endian: Endianness,
    data: D,
) -> Option<(Vec<Table>, Vec<Span>)> {
    if header.shnum(endian, data).ok()? > HEADERS_MAX {
        return None;
    }
    let sections = header.section_headers(endian, data).ok()?;
    let span = |section: &elf::SectionHeader64<Endianness>| Span {
        offset: section.sh_offset(endian),
        len: section.sh_size(endian),
    };
    let linked = |section: &elf::SectionHeader64<Endianness>| {
        sections.get(usize::try_from(section.sh_link(endian)).ok()?)
    };
    let mut tables: Vec<Table> = Vec::new();
    let mut relocations = Vec::new();
    for section in sections {
        match section.sh_type(endian) {
            kind @ (elf::SHT_SYMTAB | elf::SHT_DYNSYM) => {
                // There is one of each; more would only take time.
                let dynamic = kind == elf::SHT_DYNSYM;
                if let Some(names) = linked(section)
                    && tables.iter().all(|table| table.dynamic != dynamic)
                {
                    tables.push(Table {
                        symbols: span(section),
                        names: span(names),
                        dynamic,
                    });
                }
            }
            elf::SHT_RELA
                if relocations.len() < RELOCATION_SECTIONS_MAX
                    && linked(section).is_some_and(|s| s.sh_type(endian) == elf::SHT_DYNSYM) =>
            {
                relocations.push(span(section));
            }
            // Section types are the format's, not ours.
            _ => {}
        }
    }
    Some((tables, relocations))
}

/// The dynamic symbol table of a file without sections. Its length is written
/// nowhere; linkers put the names right behind it.
fn dynamic_table(segments: &[Segment], facts: &DynamicFacts, file_len: u64) -> Option<Table> {
    let symbols = file_offset(segments, facts.symbols)?;
    let names = file_offset(segments, facts.strings)?;
    Some(Table {
        symbols: Span {
            offset: symbols,
            len: names.checked_sub(symbols)?,
        },
        names: Span {
            offset: names,
            len: file_len.checked_sub(names)?,
        },
        dynamic: true,
    })
}

fn holds(segment: &Segment, address: u64) -> bool {
    address >= segment.address && address - segment.address < segment.len
}

/// Where in the file a virtual address is.
fn file_offset(segments: &[Segment], address: u64) -> Option<u64> {
    let segment = segments.iter().find(|segment| holds(segment, address))?;
    segment.offset.checked_add(address - segment.address)
}

#[cfg(test)]
mod tests;
