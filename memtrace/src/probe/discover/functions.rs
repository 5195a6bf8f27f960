//! The functions that allocators are called through.
//!
//! A symbol's name comes in; what the function takes and gives, and whose it is,
//! goes out. Names alone are judged here: whether a file that defines one is an
//! allocator at all, and whether the function merely leads to another, is
//! decided by whoever has the file.
//!
//! Deliberately absent, because they end in a function that is listed:
//! Rust's `__rust_alloc` family, `strdup` and its like, mimalloc's
//! `mi_heap_reallocn` and `mi_heap_recalloc`, and `mi_cfree`, which frees only
//! what is its own.

use std::fmt;

use memtrace_common::event::AllocCall;

use crate::probe::place::Needs;

/// What a probed function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Its entry and its return are probed: it hands out or resizes a block, or
    /// takes one back ([`AllocCall::Release`]) with other probed functions
    /// perhaps called inside.
    Allocate(AllocCall),
    /// Its entry alone is probed: it takes back the block that its first argument
    /// points to, and calls no other probed function.
    Free,
}

impl Role {
    /// What a probe of such a function must find untouched.
    pub fn needs(self) -> Needs {
        match self {
            Role::Free => Needs {
                arguments: 1,
                returns: false,
            },
            Role::Allocate(call) => Needs {
                arguments: match call {
                    AllocCall::Size | AllocCall::Release => 1,
                    AllocCall::CountSize
                    | AllocCall::OldSize
                    | AllocCall::SkipSize
                    | AllocCall::ResizeInPlace => 2,
                    AllocCall::OldCountSize
                    | AllocCall::OutAlignSize
                    | AllocCall::SkipCountSize
                    | AllocCall::SkipOldSize => 3,
                },
                returns: true,
            },
        }
    }
}

/// Whose functions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allocator {
    /// The GNU C library's.
    Glibc,
    /// The musl C library's.
    Musl,
    /// jemalloc, under whichever prefix.
    Jemalloc,
    /// tcmalloc, of gperftools or Google's own.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
    /// None of those.
    Other,
}

impl fmt::Display for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Allocator::Glibc => "glibc",
            Allocator::Musl => "musl",
            Allocator::Jemalloc => "jemalloc",
            Allocator::Tcmalloc => "tcmalloc",
            Allocator::Mimalloc => "mimalloc",
            Allocator::Other => "other",
        })
    }
}

/// Which set of names a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The C and POSIX names, and glibc's other names for the same.
    Standard,
    /// C++'s `operator new` and `operator delete`.
    Operator,
    /// Names that jemalloc alone has.
    Jemalloc,
    /// Names that tcmalloc alone has.
    Tcmalloc,
    /// Names that mimalloc alone has.
    Mimalloc,
}

const SIZE: Role = Role::Allocate(AllocCall::Size);
const COUNT_SIZE: Role = Role::Allocate(AllocCall::CountSize);
const OLD_SIZE: Role = Role::Allocate(AllocCall::OldSize);
const OLD_COUNT_SIZE: Role = Role::Allocate(AllocCall::OldCountSize);
const SKIP_SIZE: Role = Role::Allocate(AllocCall::SkipSize);
const OUT_ALIGN_SIZE: Role = Role::Allocate(AllocCall::OutAlignSize);
const RESIZE_IN_PLACE: Role = Role::Allocate(AllocCall::ResizeInPlace);
const SKIP_COUNT_SIZE: Role = Role::Allocate(AllocCall::SkipCountSize);
const SKIP_OLD_SIZE: Role = Role::Allocate(AllocCall::SkipOldSize);

/// What the function with this name does, if it is an allocator's. A name does
/// not tell what is called inside, so [`AllocCall::Release`] is never the answer.
pub fn classify(name: &str) -> Option<(Family, Role)> {
    if let Some(role) = standard(name) {
        return Some((Family::Standard, role));
    }
    if let Some(role) = jemalloc_extra(name) {
        return Some((Family::Jemalloc, role));
    }
    if let Some(rest) = name.strip_prefix("_Zn").or(name.strip_prefix("_Zd")) {
        return operator(name.starts_with("_Zn"), rest).map(|role| (Family::Operator, role));
    }
    if let Some(rest) = name.strip_prefix("mi_") {
        return mimalloc(rest).map(|role| (Family::Mimalloc, role));
    }
    if let Some(rest) = name.strip_prefix("tc_") {
        return tcmalloc(rest).map(|role| (Family::Tcmalloc, role));
    }
    if let Some(rest) = name.strip_prefix("TCMallocInternal") {
        return google_tcmalloc(rest).map(|role| (Family::Tcmalloc, role));
    }
    if name.starts_with("tcmalloc_size_returning_operator_new")
        || matches!(
            name,
            "__size_returning_new"
                | "__size_returning_new_hot_cold"
                | "__size_returning_new_aligned"
                | "__size_returning_new_aligned_hot_cold"
        )
    {
        return Some((Family::Tcmalloc, SIZE));
    }
    // jemalloc is built with a prefix of the builder's choice; `je_` and Rust's
    // `_rjem_` are the common ones, and others end alike (`duckdb_je_`).
    // (Looked for by their one rare letter: every name of a file comes by here.)
    let rest = name.match_indices('j').find_map(|(at, _)| {
        let rest = &name[at..];
        rest.strip_prefix("je_").or(rest.strip_prefix("jem_"))
    })?;
    jemalloc_extra(rest)
        .or_else(|| jemalloc_standard(rest))
        .map(|role| (Family::Jemalloc, role))
}

/// C, POSIX, and the other names glibc has for them.
fn standard(name: &str) -> Option<Role> {
    Some(match name {
        "malloc" | "valloc" | "pvalloc" => SIZE,
        "__libc_malloc" | "__libc_valloc" | "__libc_pvalloc" => SIZE,
        "calloc" | "__libc_calloc" => COUNT_SIZE,
        "realloc" | "__libc_realloc" | "reallocf" => OLD_SIZE,
        "reallocarray" | "__libc_reallocarray" => OLD_COUNT_SIZE,
        "memalign" | "aligned_alloc" | "__libc_memalign" => SKIP_SIZE,
        "posix_memalign" | "__posix_memalign" => OUT_ALIGN_SIZE,
        "free" | "cfree" | "__libc_free" | "__libc_cfree" => Role::Free,
        "free_sized" | "free_aligned_sized" => Role::Free,
        _ => return None,
    })
}

/// The standard functions that a prefixed jemalloc has.
fn jemalloc_standard(name: &str) -> Option<Role> {
    if name.starts_with("__") || name == "cfree" {
        return None;
    }
    standard(name)
}

/// What jemalloc has beyond the standard functions.
fn jemalloc_extra(name: &str) -> Option<Role> {
    Some(match name {
        "mallocx" => SIZE,
        "rallocx" => OLD_SIZE,
        "xallocx" => RESIZE_IN_PLACE,
        "dallocx" | "sdallocx" => Role::Free,
        _ => return None,
    })
}

/// `operator new` and `operator delete` for 64-bit sizes, by what follows `_Zn`
/// or `_Zd`: w (one object) or a (array), then the parameters. Placement forms
/// (`Pv` as last parameter) allocate nothing.
fn operator(new: bool, rest: &str) -> Option<Role> {
    const NOTHROW: &str = "RKSt9nothrow_t";
    const ALIGNED: &str = "St11align_val_t";
    const HOT_COLD: &str = "12__hot_cold_t";
    if new {
        let rest = rest.strip_prefix("wm").or(rest.strip_prefix("am"))?;
        let rest = rest.strip_prefix(ALIGNED).unwrap_or(rest);
        let rest = rest.strip_prefix(NOTHROW).unwrap_or(rest);
        let rest = rest.strip_prefix(HOT_COLD).unwrap_or(rest);
        rest.is_empty().then_some(SIZE)
    } else {
        let rest = rest.strip_prefix("lPv").or(rest.strip_prefix("aPv"))?;
        let rest = rest.strip_prefix('m').unwrap_or(rest);
        let rest = rest.strip_prefix(ALIGNED).unwrap_or(rest);
        let rest = rest.strip_prefix(NOTHROW).unwrap_or(rest);
        rest.is_empty().then_some(Role::Free)
    }
}

/// gperftools' own names, behind `tc_`.
fn tcmalloc(rest: &str) -> Option<Role> {
    Some(match rest {
        "malloc" | "malloc_skip_new_handler" | "valloc" | "pvalloc" => SIZE,
        "new" | "new_nothrow" | "new_aligned" | "new_aligned_nothrow" => SIZE,
        "newarray" | "newarray_nothrow" | "newarray_aligned" | "newarray_aligned_nothrow" => SIZE,
        "calloc" => COUNT_SIZE,
        "realloc" => OLD_SIZE,
        "memalign" | "aligned_alloc" => SKIP_SIZE,
        "posix_memalign" => OUT_ALIGN_SIZE,
        "free" | "cfree" | "free_sized" | "free_aligned_sized" => Role::Free,
        "delete" | "delete_nothrow" | "delete_sized" => Role::Free,
        "delete_aligned" | "delete_aligned_nothrow" | "delete_sized_aligned" => Role::Free,
        "deletearray" | "deletearray_nothrow" | "deletearray_sized" => Role::Free,
        "deletearray_aligned" | "deletearray_aligned_nothrow" | "deletearray_sized_aligned" => {
            Role::Free
        }
        _ => return None,
    })
}

/// The names of Google's newer tcmalloc, behind `TCMallocInternal`.
fn google_tcmalloc(rest: &str) -> Option<Role> {
    Some(match rest {
        "Malloc" | "Valloc" | "Pvalloc" => SIZE,
        "New" | "NewNothrow" | "NewAligned" | "NewAlignedNothrow" => SIZE,
        "NewArray" | "NewArrayNothrow" | "NewArrayAligned" | "NewArrayAlignedNothrow" => SIZE,
        "NewHotCold" | "NewNothrowHotCold" | "NewAlignedHotCold" | "NewAlignedNothrowHotCold" => {
            SIZE
        }
        "Calloc" => COUNT_SIZE,
        "Realloc" => OLD_SIZE,
        "ReallocArray" => OLD_COUNT_SIZE,
        "Memalign" | "AlignedAlloc" => SKIP_SIZE,
        "PosixMemalign" => OUT_ALIGN_SIZE,
        "Free" | "Cfree" | "FreeSized" | "FreeAlignedSized" | "SdallocX" => Role::Free,
        "Delete" | "DeleteNothrow" | "DeleteSized" => Role::Free,
        "DeleteAligned" | "DeleteAlignedNothrow" | "DeleteSizedAligned" => Role::Free,
        "DeleteArray" | "DeleteArrayNothrow" | "DeleteArraySized" => Role::Free,
        "DeleteArrayAligned" | "DeleteArrayAlignedNothrow" | "DeleteArraySizedAligned" => {
            Role::Free
        }
        _ => return None,
    })
}

/// mimalloc's own names, behind `mi_`. Alignment and offset come after the size,
/// except in the forms named after C's.
fn mimalloc(rest: &str) -> Option<Role> {
    Some(match rest {
        "malloc" | "zalloc" | "malloc_small" | "zalloc_small" => SIZE,
        "malloc_aligned" | "malloc_aligned_at" | "zalloc_aligned" | "zalloc_aligned_at" => SIZE,
        "valloc" | "pvalloc" | "new" | "new_nothrow" => SIZE,
        "new_aligned" | "new_aligned_nothrow" => SIZE,
        "calloc" | "mallocn" | "new_n" | "calloc_aligned" | "calloc_aligned_at" => COUNT_SIZE,
        "realloc" | "reallocf" | "rezalloc" | "new_realloc" | "expand" => OLD_SIZE,
        "realloc_aligned" | "realloc_aligned_at" | "rezalloc_aligned" | "rezalloc_aligned_at" => {
            OLD_SIZE
        }
        "reallocn" | "recalloc" | "reallocarray" | "new_reallocn" => OLD_COUNT_SIZE,
        "recalloc_aligned" | "recalloc_aligned_at" => OLD_COUNT_SIZE,
        "aligned_recalloc" | "aligned_offset_recalloc" => OLD_COUNT_SIZE,
        "memalign" | "aligned_alloc" => SKIP_SIZE,
        "heap_malloc" | "heap_zalloc" | "heap_malloc_small" | "heap_zalloc_small" => SKIP_SIZE,
        "heap_malloc_aligned" | "heap_malloc_aligned_at" => SKIP_SIZE,
        "heap_zalloc_aligned" | "heap_zalloc_aligned_at" | "heap_alloc_new" => SKIP_SIZE,
        "heap_calloc" | "heap_mallocn" | "heap_alloc_new_n" => SKIP_COUNT_SIZE,
        "heap_calloc_aligned" | "heap_calloc_aligned_at" => SKIP_COUNT_SIZE,
        "heap_realloc" | "heap_reallocf" | "heap_rezalloc" => SKIP_OLD_SIZE,
        "heap_realloc_aligned" | "heap_realloc_aligned_at" => SKIP_OLD_SIZE,
        "heap_rezalloc_aligned" | "heap_rezalloc_aligned_at" => SKIP_OLD_SIZE,
        "posix_memalign" => OUT_ALIGN_SIZE,
        "free" | "free_size" | "free_aligned" | "free_size_aligned" => Role::Free,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_shapes() {
        for (name, family, role) in [
            ("malloc", Family::Standard, SIZE),
            ("calloc", Family::Standard, COUNT_SIZE),
            ("aligned_alloc", Family::Standard, SKIP_SIZE),
            ("cfree", Family::Standard, Role::Free),
            ("__libc_memalign", Family::Standard, SKIP_SIZE),
            ("je_malloc", Family::Jemalloc, SIZE),
            ("_rjem_rallocx", Family::Jemalloc, OLD_SIZE),
            ("duckdb_je_sdallocx", Family::Jemalloc, Role::Free),
            ("xallocx", Family::Jemalloc, RESIZE_IN_PLACE),
            ("tc_deletearray_sized_aligned", Family::Tcmalloc, Role::Free),
            ("TCMallocInternalNewAligned", Family::Tcmalloc, SIZE),
            (
                "mi_heap_calloc_aligned_at",
                Family::Mimalloc,
                SKIP_COUNT_SIZE,
            ),
            ("mi_recalloc", Family::Mimalloc, OLD_COUNT_SIZE),
            ("_Znwm", Family::Operator, SIZE),
            ("_ZnamSt11align_val_tRKSt9nothrow_t", Family::Operator, SIZE),
            ("_ZdlPv", Family::Operator, Role::Free),
            ("_ZdaPvmSt11align_val_t", Family::Operator, Role::Free),
        ] {
            assert_eq!(classify(name), Some((family, role)), "{name}");
        }
    }

    #[test]
    fn look_alikes() {
        for name in [
            "",
            "_Znwmm",
            "_ZnwmPv",
            "_ZdlPvS_",
            "_ZnwmSt11align_val_tPv",
            "je_malloc_mutex_lock",
            "je_arena_malloc_hard",
            "_rjem_je_malloc_default",
            "je_bootstrap_malloc",
            "sallocx",
            "nallocx",
            "tc_nallocx",
            "mi_usable_size",
            "mi_heap_reallocn",
            "malloc_usable_size",
            "__rust_alloc",
            "je___libc_malloc",
            "g_malloc",
        ] {
            assert_eq!(classify(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_survived(name in ".*", mark in "(je_|jem_|mi_|tc_|_Zn|_Zd)?") {
            classify(&name);
            classify(&format!("{mark}{name}"));
            classify(&format!("{name}{mark}{name}"));
        }
    }
}
