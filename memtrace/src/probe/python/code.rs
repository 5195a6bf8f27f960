//! What CPython's own code tells of it.
//!
//! In: the code of two exported functions. Out: the function that makes copies
//! of contexts, and whether the code finds a thread's context where the layout
//! says. x86-64 only, like all reading of contexts.
//!
//! `PyContext_CopyCurrent` is `context_new_from_vars(current->ctx_vars)`
//! (Python/context.c, 3.7 and later). Where a build is optimised at link time,
//! it is inlined wherever the interpreter itself copies a context, and a probe
//! in it would see only the copies that extension modules make; the function
//! behind it makes them all.

use iced_x86::{FlowControl, OpKind, Register};

use crate::probe::{
    members::{instructions, reads},
    place::near_target,
};

/// `ctx_vars` in `struct _pycontextobject` (pycore_context.h, 3.7 to 3.15):
/// behind the object's header and `ctx_prev`.
const CTX_VARS: u64 = 24;
/// Code looked at of a function, bytes: both are shorter.
pub const LOOKED_AT: u64 = 160;
/// What a function calls to find the running thread's context is shorter still.
pub const CALLED_LOOKED_AT: usize = 48;

/// The function to which both hand a context's variables as their first
/// argument, if there is one and the same: `context_new_from_vars`.
pub fn maker(copy_current: (u64, &[u8]), copy: (u64, &[u8])) -> Option<u64> {
    let of_current = given_variables(copy_current.0, copy_current.1)?;
    let of_given = given_variables(copy.0, copy.1)?;
    (of_current == of_given).then_some(of_current)
}

/// Where the first direct call or jump leads that follows the loading of a
/// context's variables into the first argument's register.
fn given_variables(address: u64, code: &[u8]) -> Option<u64> {
    let mut loaded = false;
    for instruction in instructions(address, code) {
        match near_target(&instruction) {
            Some(target)
                if loaded && !(instruction.is_jcc_short() || instruction.is_jcc_near()) =>
            {
                return Some(target);
            }
            Some(_) => {}
            None if instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == Register::RDI =>
            {
                loaded = reads(&instruction) == Some(CTX_VARS);
            }
            None => {}
        }
    }
    None
}

/// Where the code's direct calls lead.
pub fn calls(address: u64, code: &[u8]) -> Vec<u64> {
    instructions(address, code)
        .iter()
        .filter(|instruction| instruction.flow_control() == FlowControl::Call)
        .filter_map(near_target)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::members::members;

    /// Debian 12's python3.11: `PyContext_CopyCurrent`.
    const COPY_CURRENT: [u8; 28] = [
        0x56, // push rsi
        0xe8, 0x1a, 0x00, 0x00, 0x00, // call get_current_context
        0x48, 0x85, 0xc0, // test rax, rax
        0x0f, 0x84, 0x00, 0x01, 0x00, 0x00, // je
        0x48, 0x8b, 0x78, 0x18, // mov rdi, [rax+24]
        0x59, // pop rcx
        0xe9, 0x37, 0x02, 0x00, 0x00, // jmp context_new_from_vars
        0x90, 0x90, 0x90,
    ];
    /// The same build's `PyContext_Copy`, moved so that both jump to one place.
    const COPY: [u8; 19] = [
        0x48, 0x81, 0x7f, 0x08, 0x40, 0x83, 0x94, 0x00, // cmp qword [rdi+8], type
        0x75, 0x09, // jne
        0x48, 0x8b, 0x7f, 0x18, // mov rdi, [rdi+24]
        0xe9, 0x3d, 0x02, 0x00, 0x00, // jmp context_new_from_vars
    ];

    #[test]
    fn the_maker_is_what_both_hand_the_variables_to() {
        assert_eq!(
            maker((0x1000, &COPY_CURRENT), (0x1000, &COPY)),
            given_variables(0x1000, &COPY)
        );
        assert_eq!(given_variables(0x1000, &COPY), Some(0x1250));
        assert_eq!(calls(0x1000, &COPY_CURRENT), [0x1020]);
        assert_eq!(members(0x1000, &COPY_CURRENT), [24]);
    }

    #[test]
    fn where_they_differ_there_is_none() {
        assert_eq!(maker((0x1000, &COPY_CURRENT), (0x2000, &COPY)), None);
        assert_eq!(maker((0x1000, &[0xc3]), (0x1000, &COPY)), None);
        assert_eq!(maker((0, &[]), (0, &[])), None);
    }
}
