//! Which instruction of a function to put the probe on.
//!
//! A function's code comes in, a [`Placement`] goes out: an offset from the
//! function's start and why it was chosen. Nothing is read or attached here.
//!
//! A breakpoint on an instruction that the kernel can carry out itself costs a
//! fifth to a sixth of one whose instruction must be stepped (x86-64, measured:
//! 0.8 µs against 4.3-5.2 µs), and allocators open with either kind. So the
//! probe goes on the first instruction which
//! - the kernel emulates,
//! - every call passes exactly once: nothing before it leaves the straight line,
//!   and no branch of the function comes back to it,
//! - still sees the call's arguments, and the stack pointer where the probe of
//!   the return needs it.
//!
//! Where there is none, the function's own start is taken: always right, and
//! dear.

use std::collections::BTreeSet;
use std::fmt;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess,
    OpKind, Register,
};

use super::symbols::Machine;

/// Code scanned for branches that come back to the place, bytes. Longer
/// functions are scanned this far.
pub const SCAN_BYTES_MAX: usize = 64 << 10;
/// Code scanned of a function whose length its file does not tell, bytes.
pub const SCAN_BYTES_UNSIZED: usize = 256;
/// Instructions looked at before the search for a place ends.
const OPENING_INSTRUCTIONS_MAX: usize = 64;

/// What a probe needs to find untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The call's first so many integer arguments are read, 0..=4.
    pub arguments: usize,
    /// The function's return is probed too: the return address must be on top of
    /// the stack.
    pub returns: bool,
}

/// Where to put a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Bytes from the function's start.
    pub offset: u64,
    /// The instruction there, for people.
    pub instruction: String,
    /// The kernel carries the instruction out itself.
    pub emulated: bool,
    /// Why there.
    pub why: Why,
}

/// Why a place was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is the first instruction that the kernel emulates.
    Emulated,
    /// The start: an argument is overwritten before such an instruction.
    ArgumentLost,
    /// The start: the stack pointer moves before such an instruction.
    StackMoved,
    /// The start: the function branches before such an instruction.
    Branches,
    /// The start: such an instruction is reached again by a branch.
    Revisited,
    /// The start: the code cannot be decoded, or has no such instruction near.
    Unknown,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Emulated => "the kernel emulates it",
            Why::ArgumentLost => "an argument is overwritten before a cheaper instruction",
            Why::StackMoved => "the stack pointer moves before a cheaper instruction",
            Why::Branches => "the code branches before a cheaper instruction",
            Why::Revisited => "the cheaper instruction is reached again by a branch",
            Why::Unknown => "no cheaper instruction was recognised",
        })
    }
}

/// Chooses the place in the function at virtual address `address` whose code
/// begins with `code`.
pub fn choose(code: &[u8], address: u64, machine: Machine, needs: Needs) -> Placement {
    let code = &code[..code.len().min(SCAN_BYTES_MAX)];
    match machine {
        Machine::X86_64 => choose_x86_64(code, address, needs),
        Machine::Aarch64 => choose_aarch64(code),
    }
}

/// The integer argument registers of the x86-64 calling convention, in order.
const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];

fn choose_x86_64(code: &[u8], address: u64, needs: Needs) -> Placement {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut facts = InstructionInfoFactory::new();
    let kept = &ARGUMENTS[..needs.arguments.min(ARGUMENTS.len())];
    let mut opening = String::from("unknown");
    let mut opening_emulated = false;
    let mut why = Why::Unknown;
    for index in 0..OPENING_INSTRUCTIONS_MAX {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            break;
        }
        let offset = instruction.ip().wrapping_sub(address);
        let emulated = emulated_x86_64(
            &instruction,
            code.get(offset as usize..).unwrap_or_default(),
        );
        if index == 0 {
            opening = text(&instruction);
            opening_emulated = emulated;
        }
        if emulated {
            if !branch_targets(code, address).contains(&instruction.ip()) {
                return Placement {
                    offset,
                    instruction: text(&instruction),
                    emulated: true,
                    why: Why::Emulated,
                };
            }
            why = Why::Revisited;
        }
        if instruction.flow_control() != FlowControl::Next {
            if why == Why::Unknown {
                why = Why::Branches;
            }
            break;
        }
        let info = facts.info(&instruction);
        let writes = |register: Register| {
            info.used_registers().iter().any(|used| {
                used.register().full_register() == register
                    && matches!(
                        used.access(),
                        OpAccess::Write
                            | OpAccess::CondWrite
                            | OpAccess::ReadWrite
                            | OpAccess::ReadCondWrite
                    )
            })
        };
        let lost = if kept.iter().any(|register| writes(*register)) {
            Why::ArgumentLost
        } else if needs.returns && writes(Register::RSP) {
            Why::StackMoved
        } else {
            continue;
        };
        if why == Why::Unknown {
            why = lost;
        }
        break;
    }
    Placement {
        offset: 0,
        instruction: opening,
        emulated: opening_emulated,
        why,
    }
}

/// Whether the kernel carries the instruction out without stepping it:
/// `branch_setup_xol_ops` and `push_setup_xol_ops` of arch/x86/kernel/uprobes.c
/// (jumps and calls since 3.16, pushes since 5.0, no-operations of several bytes
/// since 6.17; before that they are stepped, which is right too).
fn emulated_x86_64(instruction: &Instruction, bytes: &[u8]) -> bool {
    // Segment, lock and operand size prefixes are refused or stepped. `bnd` (f2)
    // is let through on branches.
    let opcode = match bytes {
        [0xf2, rest @ ..] => rest.first(),
        _ => bytes.first(),
    };
    let Some(opcode) = opcode else {
        return false;
    };
    match instruction.code() {
        Code::Push_r64 => match bytes {
            [first, ..] if (0x50..=0x57).contains(first) => true,
            [0x41, second, ..] => (0x50..=0x57).contains(second),
            _ => false,
        },
        Code::Jmp_rel8_64 => *opcode == 0xeb,
        Code::Jmp_rel32_64 => *opcode == 0xe9,
        Code::Call_rel32_64 => *opcode == 0xe8,
        Code::Nopd | Code::Nopw | Code::Nopq => instruction.len() == 1,
        // Not the five byte form: kernels since 6.18 turn that into a call,
        // which writes below the stack pointer, where a leaf function may keep
        // its data.
        Code::Nop_rm16 | Code::Nop_rm32 | Code::Nop_rm64 => {
            instruction.len() != 5 && matches!(bytes, [0x0f | 0x66, ..])
        }
        _ if instruction.is_jcc_short() => (0x70..=0x7f).contains(opcode),
        _ if instruction.is_jcc_near() => *opcode == 0x0f,
        // Instruction codes are the architecture's, not ours.
        _ => false,
    }
}

/// Where the direct jumps of this code lead. A call back to the place is a call
/// like any other, one level deeper.
fn branch_targets(code: &[u8], address: u64) -> BTreeSet<u64> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .into_iter()
        .filter(|instruction| instruction.flow_control() != FlowControl::Call)
        .filter_map(|instruction| near_target(&instruction))
        .collect()
}

/// Where a direct branch or call leads; `None` for every other instruction.
pub fn near_target(instruction: &Instruction) -> Option<u64> {
    let is_near = instruction.op_count() == 1
        && matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
    is_near.then(|| instruction.near_branch_target())
}

/// The instruction for people: mnemonic, then register or target where that is
/// all there is to it.
fn text(instruction: &Instruction) -> String {
    let mnemonic = format!("{:?}", instruction.mnemonic()).to_lowercase();
    if let Some(target) = near_target(instruction) {
        let away = target.wrapping_sub(instruction.ip()) as i64;
        let sign = if away < 0 { '-' } else { '+' };
        return format!("{mnemonic} .{sign}{:#x}", away.unsigned_abs());
    }
    if instruction.op_count() == 1 && instruction.op0_kind() == OpKind::Register {
        return format!("{mnemonic} {:?}", instruction.op0_register()).to_lowercase();
    }
    mnemonic
}

/// 64-bit ARM: only landing pads and no-operations are looked past, because
/// telling what other instructions overwrite takes a decoder. Signing of the
/// return address in particular must not happen before a probe of the return.
fn choose_aarch64(code: &[u8]) -> Placement {
    const NOP: u32 = 0xd503_201f;
    /// `bti` with any target kind.
    const BTI: u32 = 0xd503_241f;
    const BTI_MASK: u32 = 0xffff_ff3f;
    let words = || {
        code.chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    let first = words().position(|word| word != NOP && word & BTI_MASK != BTI);
    if let Some((index, name)) =
        first.and_then(|index| Some((index, simulated_aarch64(words().nth(index)?)?)))
    {
        let back = words().enumerate().any(|(at, word)| {
            aarch64_branch(word).is_some_and(|away| at as i64 + away == index as i64)
        });
        if !back {
            return Placement {
                offset: index as u64 * 4,
                instruction: name.to_owned(),
                emulated: true,
                why: Why::Emulated,
            };
        }
    }
    Placement {
        offset: 0,
        instruction: words()
            .next()
            .map_or_else(|| "unknown".to_owned(), |word| format!("{word:08x}")),
        emulated: false,
        why: Why::Unknown,
    }
}

/// The name of an instruction that the kernel simulates
/// (arch/arm64/kernel/probes/decode-insn.c, since 4.10) and that leaves both the
/// arguments and the return address alone.
fn simulated_aarch64(word: u32) -> Option<&'static str> {
    Some(match word {
        _ if word & 0xfc00_0000 == 0x1400_0000 => "b",
        _ if word & 0xff00_0010 == 0x5400_0000 => "b.cond",
        _ if word & 0x7e00_0000 == 0x3400_0000 => "cbz",
        _ if word & 0x7e00_0000 == 0x3600_0000 => "tbz",
        _ if word & 0x1f00_0000 == 0x1000_0000 => "adr",
        // Instruction words are the architecture's, not ours.
        _ => return None,
    })
}

/// How many instructions away a direct branch leads.
fn aarch64_branch(word: u32) -> Option<i64> {
    let signed = |bits: u32, shift: u32| {
        let field = i64::from(word >> shift) & ((1 << bits) - 1);
        (field << (64 - bits)) >> (64 - bits)
    };
    match word {
        _ if word & 0x7c00_0000 == 0x1400_0000 => Some(signed(26, 0)),
        _ if word & 0xff00_0010 == 0x5400_0000 => Some(signed(19, 5)),
        _ if word & 0x7e00_0000 == 0x3400_0000 => Some(signed(19, 5)),
        _ if word & 0x7e00_0000 == 0x3600_0000 => Some(signed(14, 5)),
        // Instruction words are the architecture's, not ours.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
