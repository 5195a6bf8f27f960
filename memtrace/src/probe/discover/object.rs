//! One program or library: whether it holds an allocator, and what to probe.
//!
//! An ELF file comes in; [`ObjectFacts`] go out: the allocator functions it
//! defines, each address once, without those that merely lead to another one.
//! Which process has it mapped, and where, is not known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek};

use memtrace_common::event::AllocCall;

use super::forward::{STUB_BYTES, Subject, Surroundings, calls_another, ends_in};
use super::functions::{Allocator, Family, Role, classify};
use crate::probe::place::{self, Placement};
use crate::probe::symbols::{ElfError, ElfFacts, ElfFile, Machine, Symbol};
use crate::probe::{
    tasks::{self, TaskFacts},
    tls::{self, TlsFacts},
};

/// An allocator function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name; the one that people know best if it has several.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// What it does.
    pub role: Role,
    /// Where in the file the probe goes.
    pub offset: u64,
    /// Where in the file the function begins.
    pub symbol_offset: u64,
    /// How the place was chosen.
    pub placement: Placement,
}

/// An allocator function that is not probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// The probed function that it ends in.
    pub ends_in: String,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// What the file says about itself.
    pub elf: ElfFacts,
    /// The allocators in it; empty if there is none to probe.
    pub allocators: Vec<Allocator>,
    /// What to probe, in the order of their places; empty if there is none.
    pub functions: Vec<Function>,
    /// What need not be probed.
    pub skipped: Vec<Skipped>,
    /// Allocator functions that cannot be probed because the program chooses
    /// among several of that name when it starts.
    pub resolvers: Vec<String>,
    /// The TLS libraries in it.
    pub tls: TlsFacts,
    /// Where tasks are polled.
    pub tasks: TaskFacts,
    /// It is the dynamic loader, whose own small allocator serves only itself.
    pub loader: bool,
}

/// Addresses with an allocator function's name in one file; mimalloc has some 90.
const FUNCTIONS_MAX: usize = 1024;

/// Functions that tell whose the standard functions are.
const GLIBC_MARKS: [&str; 4] = [
    "gnu_get_libc_version",
    "_int_malloc",
    "__libc_mallopt",
    "__libc_mallinfo",
];
const MUSL_MARKS: [&str; 6] = [
    "__dls3",
    "__dls2b",
    "__libc_malloc_impl",
    "__malloc_donate",
    "__malloc_alloc_meta",
    "__expand_heap",
];

/// The functions at one address.
struct Group {
    names: Vec<String>,
    family: Family,
    role: Role,
    size: u64,
    offset: u64,
}

/// Looks for allocators in a file.
pub fn examine<R: Read + Seek>(reader: R) -> Result<ObjectFacts, ElfError> {
    let mut file = ElfFile::open(reader)?;
    let elf = file.facts().clone();
    let mut facts = ObjectFacts {
        loader: elf.soname.as_deref().is_some_and(is_loader),
        elf,
        allocators: Vec::new(),
        functions: Vec::new(),
        skipped: Vec::new(),
        resolvers: Vec::new(),
        tls: TlsFacts::default(),
        tasks: TaskFacts::default(),
    };
    if facts.loader {
        return Ok(facts);
    }

    let mut symbols = file.functions(&|name| {
        classify(name).is_some()
            || GLIBC_MARKS.contains(&name)
            || MUSL_MARKS.contains(&name)
            || tls::is_of_interest(name)
            || tasks::is_of_interest(name)
    })?;
    let of_tls = |symbol: &mut Symbol| tls::is_of_interest(&symbol.name);
    let tls_functions: Vec<Symbol> = symbols.functions.extract_if(.., of_tls).collect();
    facts.tls = tls::examine(&mut file, &tls_functions)?;
    let of_tasks = |symbol: &mut Symbol| tasks::is_of_interest(&symbol.name);
    let polls: Vec<Symbol> = symbols.functions.extract_if(.., of_tasks).collect();
    facts.tasks = tasks::examine(&mut file, &polls)?;
    symbols.resolvers.retain(|name| !tls::is_of_interest(name));
    let mut marks = BTreeSet::new();
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for symbol in symbols.functions {
        let Some((family, role)) = classify(&symbol.name) else {
            marks.insert(symbol.name);
            continue;
        };
        let group = groups.entry(symbol.address).or_insert(Group {
            names: Vec::new(),
            family,
            role,
            size: 0,
            offset: symbol.file_offset,
        });
        // The name that says most about whose it is decides.
        if specific(family) > specific(group.family) {
            (group.family, group.role) = (family, role);
        }
        group.size = group.size.max(symbol.size);
        group.names.push(symbol.name);
    }

    let defined = whole_families(&groups);
    groups.retain(|_, group| {
        group
            .names
            .iter()
            .filter_map(|name| classify(name))
            .any(|(family, _)| defined.contains(&family))
            || (group.family == Family::Operator && !defined.is_empty())
    });
    if groups.is_empty() {
        return Ok(facts);
    }
    if groups.len() > FUNCTIONS_MAX {
        return Err(ElfError::Damaged("symbol table"));
    }
    facts.resolvers = symbols.resolvers;
    facts.allocators = whose(&groups, &marks);
    choose_places(&mut file, groups, &mut facts)?;
    Ok(facts)
}

/// glibc's loaders by the names under which programs ask for them. musl's is its
/// C library.
fn is_loader(soname: &str) -> bool {
    ["ld-linux", "ld.so.", "ld64.so."]
        .iter()
        .any(|start| soname.starts_with(start))
}

/// How much a name says about whose function it is.
fn specific(family: Family) -> u8 {
    match family {
        Family::Operator => 0,
        Family::Standard => 1,
        Family::Jemalloc | Family::Tcmalloc | Family::Mimalloc => 2,
    }
}

/// The families of which the file has functions of both kinds: what only hands
/// out or only takes back is something else that bears the name.
fn whole_families(groups: &BTreeMap<u64, Group>) -> BTreeSet<Family> {
    let mut kinds: BTreeMap<Family, (bool, bool)> = BTreeMap::new();
    for name in groups.values().flat_map(|group| &group.names) {
        let Some((family, role)) = classify(name) else {
            continue;
        };
        let (gives, takes) = kinds.entry(family).or_default();
        match (family, role) {
            // Of the standard functions malloc and free must be there.
            (Family::Standard, Role::Allocate(AllocCall::Size)) => {
                *gives |= name == "malloc" || name == "__libc_malloc";
            }
            (Family::Standard, Role::Free) => *takes |= name == "free" || name == "__libc_free",
            (Family::Standard, Role::Allocate(_)) => {}
            (_, Role::Allocate(_)) => *gives = true,
            (_, Role::Free) => *takes = true,
        }
    }
    kinds
        .into_iter()
        .filter(|(family, (gives, takes))| *family != Family::Operator && *gives && *takes)
        .map(|(family, _)| family)
        .collect()
}

/// Whose allocators these are.
fn whose(groups: &BTreeMap<u64, Group>, marks: &BTreeSet<String>) -> Vec<Allocator> {
    let mut allocators = BTreeSet::new();
    for group in groups.values() {
        match group.family {
            Family::Jemalloc => allocators.insert(Allocator::Jemalloc),
            Family::Tcmalloc => allocators.insert(Allocator::Tcmalloc),
            Family::Mimalloc => allocators.insert(Allocator::Mimalloc),
            Family::Standard | Family::Operator => false,
        };
    }
    let named = |name: &str| {
        groups
            .values()
            .find(|group| group.names.iter().any(|known| known == name))
    };
    // Whose is malloc? Its address's other names may have told already, and an
    // unprefixed jemalloc has mallocx beside it.
    let told = named("malloc").is_some_and(|group| group.family != Family::Standard)
        || named("mallocx").is_some();
    if !told && (named("malloc").is_some() || named("__libc_malloc").is_some()) {
        let has = |names: &[&str]| names.iter().any(|name| marks.contains(*name));
        if has(&MUSL_MARKS) {
            allocators.insert(Allocator::Musl);
        } else if has(&GLIBC_MARKS) {
            allocators.insert(Allocator::Glibc);
        } else if allocators.is_empty() {
            allocators.insert(Allocator::Other);
        }
    }
    allocators.into_iter().collect()
}

/// The rest of the object, as the search for forwarders sees it.
struct Around<'a, R> {
    file: &'a mut ElfFile<R>,
    functions: HashMap<u64, (String, Role)>,
    imports: HashMap<u64, (String, Role)>,
}

impl<R: Read + Seek> Surroundings for Around<'_, R> {
    fn function_at(&self, address: u64) -> Option<(&str, Role)> {
        let (name, role) = self.functions.get(&address)?;
        Some((name, *role))
    }

    fn import_at(&self, pointer: u64) -> Option<(&str, Role)> {
        let (name, role) = self.imports.get(&pointer)?;
        Some((name, *role))
    }

    fn stub_at(&mut self, address: u64) -> Vec<u8> {
        self.file.code(address, STUB_BYTES).unwrap_or_default()
    }
}

fn choose_places<R: Read + Seek>(
    file: &mut ElfFile<R>,
    groups: BTreeMap<u64, Group>,
    facts: &mut ObjectFacts,
) -> Result<(), ElfError> {
    let imports = file
        .imports(&|name| classify(name).is_some())?
        .into_iter()
        .filter_map(|(pointer, name)| {
            let (_, role) = classify(&name)?;
            Some((pointer, (name, role)))
        })
        .collect();
    let functions = groups
        .iter()
        .map(|(address, group)| (*address, (best_name(&group.names), group.role)))
        .collect();
    let mut around = Around {
        file,
        functions,
        imports,
    };
    for (address, group) in groups {
        let len = match usize::try_from(group.size) {
            Ok(0) => place::SCAN_BYTES_UNSIZED,
            Ok(size) => size.min(place::SCAN_BYTES_MAX),
            Err(_) => place::SCAN_BYTES_MAX,
        };
        let code = around.file.code(address, len)?;
        let name = best_name(&group.names);
        let subject = Subject {
            code: &code,
            address,
            family: group.family,
            role: group.role,
        };
        let forward = match facts.elf.machine {
            Machine::X86_64 => ends_in(subject, &mut around),
            Machine::Aarch64 => None,
        };
        if let Some(target) = forward {
            facts.skipped.push(Skipped {
                name,
                ends_in: target,
            });
            continue;
        }
        // An unknown allocator may well be a layer over another one, reached
        // through pointers that the code does not show.
        let layered = group.role == Role::Free
            && (facts.allocators.contains(&Allocator::Other)
                || (facts.elf.machine == Machine::X86_64 && calls_another(subject, &mut around)));
        let role = if layered {
            Role::Allocate(AllocCall::Release)
        } else {
            group.role
        };
        let placement = place::choose(&code, address, facts.elf.machine, role.needs());
        // The place is behind the symbol in the same segment, whose bytes were
        // just read.
        let offset = around
            .file
            .code_offset(address.wrapping_add(placement.offset))
            .unwrap_or(group.offset);
        facts.functions.push(Function {
            aliases: group
                .names
                .into_iter()
                .filter(|alias| *alias != name)
                .collect(),
            name,
            role,
            offset,
            symbol_offset: group.offset,
            placement,
        });
    }
    facts
        .functions
        .sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    Ok(())
}

/// Of several names of one function, the one that people know best: a standard
/// one before an allocator's own, the shortest of them.
fn best_name(names: &[String]) -> String {
    names
        .iter()
        .min_by_key(|name| {
            let rank = match classify(name) {
                Some((Family::Standard, _)) if !name.starts_with('_') => 0,
                Some((Family::Jemalloc | Family::Tcmalloc | Family::Mimalloc, _)) => 1,
                Some((Family::Standard, _)) => 2,
                Some((Family::Operator, _)) => 3,
                None => 4,
            };
            (rank, name.len(), *name)
        })
        .cloned()
        .unwrap_or_default()
}
