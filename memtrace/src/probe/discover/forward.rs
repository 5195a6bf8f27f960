//! Functions that only lead to another allocator function.
//!
//! A function's code comes in; the name of the function that it ends in goes
//! out. Probing both would cost twice and tell nothing new. Only what can be
//! told with certainty from the first branch is told, except for `reallocarray`,
//! whose overflow check comes first and which otherwise ends in `realloc`. Code
//! for 64-bit ARM is not looked at: its forwarders are probed, which costs but
//! does not count twice.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use memtrace_common::event::AllocCall;

use super::functions::{Family, Role};
use crate::probe::place::near_target;

/// Instructions looked at before the first branch.
const OPENING_INSTRUCTIONS_MAX: usize = 32;
/// Bytes of a linkage table entry that are looked at.
pub const STUB_BYTES: usize = 16;

/// A function to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its code.
    pub code: &'a [u8],
    /// Its virtual address.
    pub address: u64,
    /// The set of names it belongs to.
    pub family: Family,
    /// What it does.
    pub role: Role,
}

/// What is known of the object around the function.
pub trait Surroundings {
    /// The allocator function at this address.
    fn function_at(&self, address: u64) -> Option<(&str, Role)>;
    /// The allocator function that the loader puts into this pointer.
    fn import_at(&self, pointer: u64) -> Option<(&str, Role)>;
    /// The first [`STUB_BYTES`] of code at this address.
    fn stub_at(&mut self, address: u64) -> Vec<u8>;
}

/// The name of the allocator function that every call of `subject` which hands
/// out or takes back a block ends in.
pub fn ends_in(subject: Subject<'_>, around: &mut dyn Surroundings) -> Option<String> {
    if subject.role == Role::Allocate(AllocCall::OldCountSize) {
        // It multiplies, then calls or jumps to a reallocation.
        return first_led_to(subject, around);
    }
    let decoder = Decoder::with_ip(64, subject.code, subject.address, DecoderOptions::NONE);
    let mut arguments_kept = true;
    for instruction in decoder.into_iter().take(OPENING_INSTRUCTIONS_MAX) {
        match instruction.flow_control() {
            FlowControl::Next => arguments_kept &= moves_only(&instruction),
            // A C function might ask for more than it was asked for before it
            // jumps on; then its own request is the one to record.
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
                if arguments_kept || subject.family == Family::Operator =>
            {
                return leads_to(&instruction, subject, around);
            }
            // `operator new` calls `malloc`, and looks at the result.
            FlowControl::Call | FlowControl::IndirectCall if subject.family == Family::Operator => {
                return leads_to(&instruction, subject, around);
            }
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::ConditionalBranch
            | FlowControl::Return
            | FlowControl::Interrupt
            | FlowControl::XbeginXabortXend
            | FlowControl::Exception => return None,
        }
    }
    None
}

/// The first allocator function of its kind that any branch leads to.
fn first_led_to(subject: Subject<'_>, around: &mut dyn Surroundings) -> Option<String> {
    Decoder::with_ip(64, subject.code, subject.address, DecoderOptions::NONE)
        .into_iter()
        .find_map(|instruction| leads_to(&instruction, subject, around))
}

/// Whether the function calls or jumps to another allocator function of its kind
/// anywhere.
pub fn calls_another(subject: Subject<'_>, around: &mut dyn Surroundings) -> bool {
    first_led_to(subject, around).is_some()
}

/// The allocator function of the same kind (handing out, taking back, resizing)
/// that a branch leads to, directly or through the linkage table.
fn leads_to(
    instruction: &Instruction,
    subject: Subject<'_>,
    around: &mut dyn Surroundings,
) -> Option<String> {
    let outside = |target: u64| {
        target < subject.address || target - subject.address >= subject.code.len() as u64
    };
    let of_kind = |found: Option<(&str, Role)>| {
        found
            .filter(|(_, role)| resizes(*role) == resizes(subject.role))
            .filter(|(_, role)| (*role == Role::Free) == (subject.role == Role::Free))
            .map(|(name, _)| name.to_owned())
    };
    if let Some(pointer) = pointer_used(instruction) {
        return of_kind(around.import_at(pointer));
    }
    let target = near_target(instruction).filter(|target| outside(*target))?;
    if let Some(name) = of_kind(around.function_at(target)) {
        return Some(name);
    }
    let stub = around.stub_at(target);
    let pointer = Decoder::with_ip(64, &stub, target, DecoderOptions::NONE)
        .into_iter()
        .take(2)
        .find(|instruction| instruction.code() != Code::Endbr64)
        .as_ref()
        .and_then(pointer_used)?;
    of_kind(around.import_at(pointer))
}

/// Whether the function takes a block that it may replace.
fn resizes(role: Role) -> bool {
    match role {
        Role::Free => false,
        Role::Allocate(call) => match call {
            AllocCall::OldSize
            | AllocCall::OldCountSize
            | AllocCall::SkipOldSize
            | AllocCall::ResizeInPlace => true,
            AllocCall::Size
            | AllocCall::CountSize
            | AllocCall::SkipSize
            | AllocCall::SkipCountSize
            | AllocCall::OutAlignSize
            | AllocCall::Release => false,
        },
    }
}

/// The pointer through which an indirect jump or call goes, if its address is
/// known.
fn pointer_used(instruction: &Instruction) -> Option<u64> {
    let through_memory = matches!(instruction.code(), Code::Jmp_rm64 | Code::Call_rm64)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RIP;
    through_memory.then(|| instruction.ip_rel_memory_address())
}

/// Whether the instruction leaves every argument as large as it was.
fn moves_only(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Endbr64
            | Mnemonic::Nop
            | Mnemonic::Mov
            | Mnemonic::Xchg
            | Mnemonic::Push
            | Mnemonic::Pop
    ) || (instruction.mnemonic() == Mnemonic::Xor
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register())
        || (matches!(instruction.mnemonic(), Mnemonic::Add | Mnemonic::Sub)
            && instruction.op0_register() == Register::RSP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MALLOC: Role = Role::Allocate(AllocCall::Size);

    /// malloc at 0x500 and through the pointer 0x2000; realloc at 0x600.
    struct Object;

    impl Surroundings for Object {
        fn function_at(&self, address: u64) -> Option<(&str, Role)> {
            match address {
                0x500 => Some(("malloc", MALLOC)),
                0x600 => Some(("realloc", Role::Allocate(AllocCall::OldSize))),
                _ => None,
            }
        }
        fn import_at(&self, pointer: u64) -> Option<(&str, Role)> {
            (pointer == 0x2000).then_some(("malloc", MALLOC))
        }
        fn stub_at(&mut self, address: u64) -> Vec<u8> {
            match address {
                // endbr64; bnd jmp [0x2000]
                0x700 => vec![0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf5, 0x18, 0, 0],
                _ => Vec::new(),
            }
        }
    }

    fn judged(code: &[u8], family: Family, role: Role) -> Option<String> {
        let subject = Subject {
            code,
            address: 0x1000,
            family,
            role,
        };
        ends_in(subject, &mut Object)
    }

    #[test]
    fn tail_jumps() {
        // jmp 0x500
        let jump = [0xe9, 0xfb, 0xf4, 0xff, 0xff];
        assert_eq!(
            judged(&jump, Family::Standard, MALLOC).as_deref(),
            Some("malloc")
        );
        // A free that jumps to malloc is no forwarder of it.
        assert_eq!(judged(&jump, Family::Standard, Role::Free), None);
        // jmp 0x700, a linkage table entry.
        let through = [0xe9, 0xfb, 0xf6, 0xff, 0xff];
        assert_eq!(
            judged(&through, Family::Standard, MALLOC).as_deref(),
            Some("malloc")
        );
        // add rdi,16; jmp 0x500: asks for more.
        let more = [0x48, 0x83, 0xc7, 16, 0xe9, 0xf7, 0xf4, 0xff, 0xff];
        assert_eq!(judged(&more, Family::Standard, MALLOC), None);
        // test rdi,rdi; je +5; jmp 0x500: not every call jumps.
        let some = [0x48, 0x85, 0xff, 0x74, 5, 0xe9, 0xf6, 0xf4, 0xff, 0xff];
        assert_eq!(judged(&some, Family::Standard, MALLOC), None);
    }

    #[test]
    fn calls_count_for_operators_alone() {
        // push rbx; call 0x500; test rax,rax; pop rbx; ret
        let call = [
            0x53, 0xe8, 0xfa, 0xf4, 0xff, 0xff, 0x48, 0x85, 0xc0, 0x5b, 0xc3,
        ];
        assert_eq!(
            judged(&call, Family::Operator, MALLOC).as_deref(),
            Some("malloc")
        );
        assert_eq!(judged(&call, Family::Standard, MALLOC), None);
    }

    #[test]
    fn reallocarray_ends_in_realloc_behind_its_check() {
        let role = Role::Allocate(AllocCall::OldCountSize);
        // mov rax,rsi; mul rdx; jo +5; jmp 0x600; ret
        let code = [
            0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x70, 5, 0xe9, 0xf3, 0xf5, 0xff, 0xff, 0xc3,
        ];
        assert_eq!(
            judged(&code, Family::Standard, role).as_deref(),
            Some("realloc")
        );
    }

    proptest! {
        #[test]
        fn any_code_is_survived(
            code in proptest::collection::vec(any::<u8>(), 0..200), free: bool, operator: bool,
        ) {
            let family = if operator { Family::Operator } else { Family::Standard };
            judged(&code, family, if free { Role::Free } else { MALLOC });
            judged(&code, family, Role::Allocate(AllocCall::OldCountSize));
        }
    }
}
