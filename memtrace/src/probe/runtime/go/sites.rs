//! Which instruction of a Go function to probe.
//!
//! Code comes in, offsets go out. Go functions open with a check whether the
//! stack has room for them, and a branch to where it is grown; the branch is an
//! instruction that the kernel carries out itself, it comes before anything has
//! been pushed, and the arguments are untouched there. A call whose stack must
//! grow begins anew and passes it once more: its condition tells the two apart.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use crate::probe::{place::near_target, symbols::Machine};

/// Instructions of a stack check, the branch included.
const CHECK_INSTRUCTIONS_MAX: usize = 4;
/// `g.stackguard0`, behind the two words of `g.stack` (runtime/runtime2.go).
const STACK_GUARD: u64 = 16;

/// Offset of the branch of the stack check with which this code opens; `None`
/// if it does not open with one.
pub fn stack_check(code: &[u8], address: u64, machine: Machine) -> Option<u64> {
    match machine {
        Machine::X86_64 => stack_check_x86_64(code, address),
        Machine::Aarch64 => stack_check_aarch64(code),
    }
}

/// `cmp rsp, [r14+16]; jbe`, for large frames with `lea r12, [rsp-N]` in front
/// (cmd/internal/obj/x86/obj6.go, `stacksplit`).
fn stack_check_x86_64(code: &[u8], address: u64) -> Option<u64> {
    let mut compared = false;
    for instruction in decoded(code, address).take(CHECK_INSTRUCTIONS_MAX) {
        match instruction.code() {
            Code::Lea_r64_m if instruction.op0_register() == Register::R12 => {}
            Code::Cmp_r64_rm64
                if instruction.memory_base() == Register::R14
                    && instruction.memory_displacement64() == STACK_GUARD =>
            {
                compared = true;
            }
            Code::Jbe_rel8_64 | Code::Jbe_rel32_64 if compared => {
                return Some(instruction.ip().wrapping_sub(address));
            }
            // Instruction codes are the architecture's, not ours.
            _ => return None,
        }
    }
    None
}

/// `ldr x16, [x28, #16]; cmp sp, x16; b.ls`, for large frames with `sub x17, sp,
/// #N; cmp x17, x16` (cmd/internal/obj/arm64/obj7.go, `stacksplit`).
fn stack_check_aarch64(code: &[u8]) -> Option<u64> {
    const LOAD_GUARD: u32 = 0xf940_0b90;
    let mut words = code.chunks_exact(4).map(|word| {
        word.first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word))
    });
    if words.next()? != LOAD_GUARD {
        return None;
    }
    let branch = words
        .take(CHECK_INSTRUCTIONS_MAX)
        .position(|word| word & 0xff00_001f == 0x5400_0009)?;
    Some((branch as u64 + 1) * 4)
}

/// Offset of the one call to `target`; `None` if there is none, or several.
pub fn only_call(code: &[u8], address: u64, machine: Machine, target: u64) -> Option<u64> {
    let calls: Vec<u64> = match machine {
        Machine::X86_64 => decoded(code, address)
            .filter(|instruction| {
                instruction.code() == Code::Call_rel32_64
                    && instruction.op0_kind() == OpKind::NearBranch64
                    && near_target(instruction) == Some(target)
            })
            .map(|instruction| instruction.ip())
            .collect(),
        Machine::Aarch64 => code
            .chunks_exact(4)
            .enumerate()
            .map(|(index, word)| (address.wrapping_add(index as u64 * 4), word))
            .filter(|(ip, word)| linked_branch(word, *ip) == Some(target))
            .map(|(ip, _)| ip)
            .collect(),
    };
    match calls.as_slice() {
        [call] => Some(call.wrapping_sub(address)),
        [] | [_, ..] => None,
    }
}

/// Where a `bl` at `ip` leads.
fn linked_branch(word: &[u8], ip: u64) -> Option<u64> {
    let word = u32::from_le_bytes(*word.first_chunk()?);
    if word & 0xfc00_0000 != 0x9400_0000 {
        return None;
    }
    // 26 bits, signed, in instructions.
    let away = i64::from((word << 6).cast_signed() >> 6) * 4;
    Some(ip.wrapping_add_signed(away))
}

/// Offsets of a function's return instructions, if where they are its first two
/// arguments are still known: the function keeps them in the places that its
/// caller has left for them, right behind the return address
/// (cmd/compile/abi-internal.md, "spill space"). `None` if it does not, and on
/// machines for which that was not checked.
pub fn returns_with_arguments(code: &[u8], address: u64, machine: Machine) -> Option<Vec<u64>> {
    match machine {
        Machine::X86_64 => {
            let mut returns = Vec::new();
            let mut kept = Kept::default();
            for instruction in decoded(code, address) {
                kept.see(&instruction);
                if instruction.flow_control() == FlowControl::Return {
                    returns.push(instruction.ip().wrapping_sub(address));
                }
            }
            (kept.both() && !returns.is_empty()).then_some(returns)
        }
        Machine::Aarch64 => None,
    }
}

/// What a function's opening, up to its first call or jump behind the stack
/// check, does with its first two arguments.
#[derive(Debug, Default)]
struct Kept {
    /// How far the stack pointer is below the return address, bytes.
    below: u64,
    first: bool,
    second: bool,
    /// The opening is over, or was not understood.
    over: bool,
}

impl Kept {
    fn both(&self) -> bool {
        self.first && self.second
    }

    fn see(&mut self, instruction: &Instruction) {
        if self.over {
            return;
        }
        match instruction.code() {
            Code::Push_r64 => self.below += 8,
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32
                if instruction.op0_register() == Register::RSP =>
            {
                self.below = self.below.saturating_add(instruction.immediate(1));
            }
            Code::Mov_rm64_r64
                if instruction.memory_base() == Register::RSP
                    && instruction.memory_index() == Register::None =>
            {
                let above = instruction.memory_displacement64().wrapping_sub(self.below);
                match instruction.op1_register() {
                    Register::RAX if above == 8 => self.first = true,
                    Register::RBX if above == 16 => self.second = true,
                    // Other values, or arguments put elsewhere.
                    _ => {}
                }
            }
            // The stack check.
            Code::Jbe_rel8_64 | Code::Jbe_rel32_64 if self.below == 0 => {}
            // Instruction codes are the architecture's, not ours.
            _ => {
                // An argument that is overwritten before it is kept is lost.
                let overwrites = |register: Register| {
                    instruction.op0_kind() == OpKind::Register
                        && instruction.op0_register().full_register() == register
                        && instruction.code() != Code::Cmp_r64_rm64
                };
                self.over = instruction.flow_control() != FlowControl::Next
                    || (overwrites(Register::RAX) && !self.first)
                    || (overwrites(Register::RBX) && !self.second);
            }
        }
    }
}

/// The instructions of straight-line code, up to the first that is none.
fn decoded(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || {
        let instruction = decoder.can_decode().then(|| decoder.decode())?;
        (!instruction.is_invalid()).then_some(instruction)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(code: &[u8]) -> Option<u64> {
        stack_check(code, 0x40_0000, Machine::X86_64)
    }

    /// The openings of runtime.mallocgc as the toolchains write them.
    #[test]
    fn the_branch_of_the_stack_check_is_found() {
        // 1.19: cmp rsp, [r14+16]; jbe; sub rsp, 0x70
        let sub = b"\x49\x3b\x66\x10\x0f\x86\xbe\x08\x00\x00\x48\x83\xec\x70";
        assert_eq!(check(sub), Some(4));
        // 1.27: cmp rsp, [r14+16]; jbe; push rbp
        let push = b"\x49\x3b\x66\x10\x0f\x86\x9c\x01\x00\x00\x55\x48\x89\xe5";
        assert_eq!(check(push), Some(4));
        // 1.23: lea r12, [rsp-0x18]; cmp r12, [r14+16]; jbe; push rbp
        let large = b"\x4c\x8d\x64\x24\xe8\x4d\x3b\x66\x10\x0f\x86\xbc\x09\x00\x00\x55";
        assert_eq!(check(large), Some(9));
        // A short jump.
        assert_eq!(check(b"\x49\x3b\x66\x10\x76\x30\x55"), Some(4));
    }

    #[test]
    fn other_openings_are_none() {
        // push rbp; mov rbp, rsp: a function without a check.
        assert_eq!(check(b"\x55\x48\x89\xe5\x48\x83\xec\x10"), None);
        // cmp rsp, [r14+24]: another guard.
        assert_eq!(check(b"\x49\x3b\x66\x18\x76\x30\x55"), None);
        // cmp rsp, [r14+16]; ja.
        assert_eq!(check(b"\x49\x3b\x66\x10\x77\x30\x55"), None);
        // jbe without a comparison.
        assert_eq!(check(b"\x76\x30\x55"), None);
        assert_eq!(check(b""), None);
        assert_eq!(stack_check(b"", 0, Machine::Aarch64), None);
    }

    /// ldr x16, [x28, #16]; cmp sp, x16; b.ls
    #[test]
    fn the_branch_is_found_in_code_for_arm() {
        let code: Vec<u8> = [0xf940_0b90_u32, 0xeb30_63ff, 0x5400_0b29, 0xf81a_0ffe]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(stack_check(&code, 0, Machine::Aarch64), Some(8));
        assert_eq!(stack_check(&code[4..], 0, Machine::Aarch64), None);
    }

    #[test]
    fn the_only_call_is_found() {
        // call 0x1010; nop; call 0x1020, at 0x1000.
        let code = b"\xe8\x0b\x00\x00\x00\x90\xe8\x15\x00\x00\x00";
        let call = |target| only_call(code, 0x1000, Machine::X86_64, target);
        assert_eq!(call(0x1010), Some(0));
        assert_eq!(call(0x1020), Some(6));
        assert_eq!(call(0x1030), None);
        // Twice the same.
        let twice = b"\xe8\x0b\x00\x00\x00\xe8\x06\x00\x00\x00";
        assert_eq!(only_call(twice, 0x1000, Machine::X86_64, 0x1010), None);
        // bl .+8; bl .-4
        let arm = [0x9400_0002_u32, 0x97ff_ffff]
            .map(u32::to_le_bytes)
            .concat();
        assert_eq!(only_call(&arm, 0x1000, Machine::Aarch64, 0x1008), Some(0));
        assert_eq!(only_call(&arm, 0x1000, Machine::Aarch64, 0x1000), Some(4));
    }

    /// The opening of crypto/tls.(*Conn).Read by 1.27, cut to two returns.
    #[test]
    fn returns_are_found_where_arguments_are_kept() {
        let code = b"\x49\x3b\x66\x10\x76\x30\x55\x48\x89\xe5\x48\x83\xec\x58\
            \x66\x44\x0f\xd6\x7c\x24\x50\x48\x89\x44\x24\x68\x48\x89\x4c\x24\x78\
            \x48\x89\x5c\x24\x70\xc3\x31\xc0\xc3";
        let returns = |code: &[u8]| returns_with_arguments(code, 0x1000, Machine::X86_64);
        assert_eq!(returns(code), Some(vec![36, 39]));
        // The second goes elsewhere.
        let mut other = code.to_vec();
        other[35] = 0x60;
        assert_eq!(returns(&other), None);
        // 1.19: sub rsp, 0x68 without a push.
        let old = b"\x49\x3b\x66\x10\x76\x30\x48\x83\xec\x68\x48\x89\x6c\x24\x60\
            \x48\x89\x5c\x24\x78\x48\x89\x44\x24\x70\xc3";
        assert_eq!(returns(old), Some(vec![25]));
        // xor eax, eax before it is kept.
        let lost = b"\x48\x83\xec\x68\x31\xc0\x48\x89\x5c\x24\x78\x48\x89\x44\x24\x70\xc3";
        assert_eq!(returns(lost), None);
        assert_eq!(returns(b"\xc3"), None);
        assert_eq!(returns_with_arguments(code, 0, Machine::Aarch64), None);
    }

    proptest! {
        #[test]
        fn any_code_is_survived(
            code in prop::collection::vec(any::<u8>(), 0..64), address: u64, target: u64,
        ) {
            for machine in [Machine::X86_64, Machine::Aarch64] {
                if let Some(at) = stack_check(&code, address, machine) {
                    prop_assert!(at < code.len() as u64);
                }
                if let Some(at) = only_call(&code, address, machine, target) {
                    prop_assert!(at < code.len() as u64);
                }
                for at in returns_with_arguments(&code, address, machine).unwrap_or_default() {
                    prop_assert!(at < code.len() as u64);
                }
            }
        }
    }
}
