//! Which members of structures a function's code reads.
//!
//! In: x86-64 code. Out: displacements of loads, by which a layout that was assumed
//! is seen to be the program's own. What the structures are is not known here.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

/// The displacements of the words that the code reads through a pointer: of
/// structures' members.
pub fn members(address: u64, code: &[u8]) -> Vec<u64> {
    instructions(address, code)
        .iter()
        .filter_map(reads)
        .collect()
}

/// The code, instruction by instruction, as far as it can be decoded.
pub fn instructions(address: u64, code: &[u8]) -> Vec<Instruction> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .into_iter()
        .take_while(|instruction| !instruction.is_invalid())
        .collect()
}

/// The displacement of a load of a word through a register.
pub fn reads(instruction: &Instruction) -> Option<u64> {
    let through_register = instruction.op1_kind() == OpKind::Memory
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().is_gpr64()
        && instruction.memory_base().is_gpr64()
        && instruction.memory_index() == Register::None
        && instruction.segment_prefix() == Register::None;
    through_register.then(|| instruction.memory_displacement64())
}
