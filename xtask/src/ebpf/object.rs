//! What the compiler made, reduced to what a kernel is given.
//!
//! In: a linked BPF object with everything a debugger wants. Out: the same
//! programs, maps, symbols, relocations and type information (`.BTF`,
//! `.BTF.ext`), without the debugger's sections, which are most of it, and
//! without what differs from one directory to another.
//! It decides nothing about what the programs do.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::build::elf::{Builder, Section, SectionData};
use object::elf::SHT_STRTAB;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// The object without its debugging sections.
///
/// # Errors
/// It is no object, or one without type information or programs.
pub fn strip(linked: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(linked).context("what was linked is no object")?;
    for section in &mut builder.sections {
        section.delete = is_for_debuggers(&section.name);
    }
    // LLVM keeps the names of sections among those of symbols; what writes here
    // keeps them apart.
    let has_names = |section: &Section| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(has_names) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    for symbol in &mut builder.symbols {
        symbol.name = without_disambiguators(&symbol.name).into();
    }
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("the object cannot be written without its debugging sections")?;

    let before = inventory(linked)?;
    let after = inventory(&stripped)?;
    ensure!(
        before == after,
        "removing the debugging sections changed what is in the object: \
         {before:?} became {after:?}"
    );
    ensure!(
        after.functions.len() > 1 && after.sections.contains(".BTF.ext"),
        "the linker made an object without programs or without type information: {after:?}"
    );
    Ok(stripped)
}

/// What a loader looks for in an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Names of functions, programs among them.
    pub functions: BTreeSet<String>,
    /// Names of maps and other data.
    pub data: BTreeSet<String>,
    /// Names of sections, but those for debuggers and of names.
    pub sections: BTreeSet<String>,
}

/// Lists what is in an object.
///
/// # Errors
/// It is no object, or its names are no text.
pub fn inventory(object: &[u8]) -> Result<Inventory> {
    let file = object::File::parse(object).context("this is no object")?;
    let mut inventory = Inventory {
        functions: BTreeSet::new(),
        data: BTreeSet::new(),
        sections: BTreeSet::new(),
    };
    for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
        let name = symbol.name_bytes().context("a symbol has no name")?;
        let name = String::from_utf8(without_disambiguators(name))
            .context("a symbol's name is no text")?;
        match symbol.kind() {
            SymbolKind::Text => inventory.functions.insert(name),
            _ => inventory.data.insert(name),
        };
    }
    for section in file.sections() {
        let name = section.name().context("a section's name is no text")?;
        if !is_for_debuggers(name.as_bytes()) && !is_names(name) {
            inventory.sections.insert(name.to_owned());
        }
    }
    Ok(inventory)
}

/// A mangled Rust name (`_RNvNtCs7Owk1zXve1B_8memtrace…`) without what tells
/// crates of one name apart: cargo derives it from the directory that they are
/// in, and the same sources are to make the same object everywhere.
fn without_disambiguators(name: &[u8]) -> Vec<u8> {
    if !name.starts_with(b"_R") {
        return name.to_vec();
    }
    let mut kept = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        kept.push(first);
        rest = after;
        if first == b'C'
            && let Some(disambiguator) = after.strip_prefix(b"s")
            && let Some(length) = disambiguator.iter().position(|next| *next == b'_')
            && disambiguator[..length]
                .iter()
                .all(u8::is_ascii_alphanumeric)
            && disambiguator
                .get(length + 1)
                .is_some_and(u8::is_ascii_digit)
        {
            rest = &disambiguator[length + 1..];
        }
    }
    kept
}

fn is_for_debuggers(section: &[u8]) -> bool {
    section.starts_with(b".debug_") || section.starts_with(b".rel.debug_")
}

fn is_names(section: &str) -> bool {
    section == ".strtab" || section == ".shstrtab"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_depends_on_a_directory() {
        for (name, expected) in [
            (
                "_RNvNtCs7Owk1zXve1B_8memtrace6socket4data",
                "_RNvNtC8memtrace6socket4data",
            ),
            ("_RINvCs1_1aNtCs2_1bE", "_RINvC1aNtC1bE"),
            ("_RNvC1a2Cs", "_RNvC1a2Cs"),
            ("Cs12_3abc", "Cs12_3abc"),
            ("", ""),
        ] {
            let kept = without_disambiguators(name.as_bytes());
            assert_eq!(String::from_utf8(kept).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 64]] {
            assert!(strip(bytes).is_err());
            assert!(inventory(bytes).is_err());
        }
    }
}
