//! What a small function returns, by its code.
//!
//! In: the code of a function of one flag that returns a word of a structure
//! behind a variable, one for either value of the flag. Out: which word it
//! returns for 0. The code is followed instruction by instruction; whatever is
//! not understood gives no answer.

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};

use crate::probe::symbols::Machine;

/// Instructions followed.
const INSTRUCTIONS_MAX: usize = 64;
/// No member is as far into the structure, bytes.
const OFFSET_MAX: u64 = 1 << 16;

/// A word of the structure that a variable points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Address of the variable, in the file's own numbering.
    pub pointer_at: u64,
    /// Bytes into the structure.
    pub offset: u32,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing that is known.
    Unknown,
    /// The flag: 0.
    Flag,
    /// This address.
    Address(u64),
    /// What the variable at this address points to.
    Structure(u64),
    /// A word of such a structure.
    Word(Field),
}

/// The word that the function returns when its flag is 0.
pub fn returned_field(code: &[u8], address: u64, machine: Machine) -> Option<Field> {
    match machine {
        Machine::X86_64 => Walk::new(code, address).run(),
        Machine::Aarch64 => None,
    }
}

struct Walk<'a> {
    decoder: Decoder<'a>,
    address: u64,
    facts: InstructionInfoFactory,
    held: [Held; 16],
    /// The last comparison was of the flag with itself or with 0: equal.
    equal: bool,
}

impl<'a> Walk<'a> {
    fn new(code: &'a [u8], address: u64) -> Self {
        let mut held = [Held::Unknown; 16];
        held[Register::RDI.number()] = Held::Flag;
        Walk {
            decoder: Decoder::with_ip(64, code, address, DecoderOptions::NONE),
            address,
            facts: InstructionInfoFactory::new(),
            held,
            equal: false,
        }
    }

    fn run(mut self) -> Option<Field> {
        for _ in 0..INSTRUCTIONS_MAX {
            let instruction = self.decoder.decode();
            if instruction.is_invalid() {
                return None;
            }
            match instruction.flow_control() {
                FlowControl::Next => self.step(&instruction),
                FlowControl::Return => {
                    return match self.held[Register::RAX.number()] {
                        Held::Word(field) => Some(field),
                        Held::Unknown | Held::Flag | Held::Address(_) | Held::Structure(_) => None,
                    };
                }
                FlowControl::UnconditionalBranch => self.jump(&instruction)?,
                FlowControl::ConditionalBranch => match instruction.condition_code() {
                    ConditionCode::e if self.equal => self.jump(&instruction)?,
                    ConditionCode::ne if self.equal => {}
                    // Condition codes are the architecture's, not ours.
                    _ => return None,
                },
                // Calls and the like: not this function any more.
                FlowControl::IndirectBranch
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::Interrupt
                | FlowControl::XbeginXabortXend
                | FlowControl::Exception => return None,
            }
        }
        None
    }

    fn jump(&mut self, instruction: &Instruction) -> Option<()> {
        let target = crate::probe::place::near_target(instruction)?;
        let position = usize::try_from(target.checked_sub(self.address)?).ok()?;
        self.decoder.set_position(position).ok()?;
        self.decoder.set_ip(target);
        Some(())
    }

    /// An instruction that does not branch.
    fn step(&mut self, instruction: &Instruction) {
        let result = match instruction.code() {
            Code::Mov_r64_rm64 => self.source(instruction),
            Code::Lea_r64_m if instruction.is_ip_rel_memory_operand() => {
                Held::Address(instruction.ip_rel_memory_address())
            }
            Code::Cmove_r64_rm64 if self.equal => self.source(instruction),
            // The register keeps what it holds.
            Code::Cmovne_r64_rm64 if self.equal => return,
            _ => Held::Unknown,
        };
        self.compare(instruction);
        let info = self.facts.info(instruction);
        for used in info.used_registers() {
            let full = used.register().full_register();
            let is_written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            if is_written && full.is_gpr64() {
                self.held[full.number()] = Held::Unknown;
            }
        }
        if result != Held::Unknown && instruction.op0_kind() == OpKind::Register {
            self.held[instruction.op0_register().number()] = result;
        }
    }

    /// What a 64-bit source operand holds.
    fn source(&self, instruction: &Instruction) -> Held {
        if instruction.op1_kind() == OpKind::Register {
            return self.held[instruction.op1_register().number()];
        }
        if instruction.segment_prefix() != Register::None {
            return Held::Unknown;
        }
        if instruction.is_ip_rel_memory_operand() {
            return Held::Structure(instruction.ip_rel_memory_address());
        }
        let base = instruction.memory_base();
        if instruction.memory_index() != Register::None {
            return Held::Unknown;
        }
        let displacement = instruction.memory_displacement64();
        if base == Register::None {
            return Held::Structure(displacement);
        }
        match self.held[base.number()] {
            Held::Address(address) => Held::Structure(address.wrapping_add(displacement)),
            Held::Structure(pointer_at) if displacement < OFFSET_MAX => Held::Word(Field {
                pointer_at,
                offset: displacement as u32,
            }),
            Held::Structure(_) | Held::Unknown | Held::Flag | Held::Word(_) => Held::Unknown,
        }
    }

    /// Takes note of a comparison.
    fn compare(&mut self, instruction: &Instruction) {
        let is_flag = |operand: u32| {
            instruction.op_kind(operand) == OpKind::Register
                && instruction.op_register(operand).is_gpr()
                && self.held[instruction.op_register(operand).full_register().number()]
                    == Held::Flag
        };
        let with_zero = instruction.op_count() == 2
            && instruction.try_immediate(1).is_ok_and(|value| value == 0);
        match instruction.mnemonic() {
            Mnemonic::Test => self.equal = is_flag(0) && is_flag(1),
            Mnemonic::Cmp => self.equal = is_flag(0) && with_zero,
            // Whatever else changes the flags makes them unknown.
            _ if instruction.rflags_modified() != 0 => self.equal = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `zend_memory_peak_usage` of Debian 12's php-fpm8.2.
    const DEBIAN_12: &[u8] = &[
        0x48, 0x8b, 0x05, 0xc9, 0x9b, 0x2b, 0x00, // mov rax, [rip+0x2b9bc9]
        0x40, 0x84, 0xff, // test dil, dil
        0x74, 0x0c, // je +12
        0x48, 0x8b, 0x80, 0x18, 0x01, 0x00, 0x00, // mov rax, [rax+0x118]
        0xc3, // ret
        0x0f, 0x1f, 0x40, 0x00, // nop
        0x48, 0x8b, 0x40, 0x18, // mov rax, [rax+0x18]
        0xc3, // ret
    ];

    fn returned(code: &[u8]) -> Option<Field> {
        returned_field(code, 0x2c_8920, Machine::X86_64)
    }

    #[test]
    fn either_branch_may_be_the_one_for_zero() {
        let expected = Some(Field {
            pointer_at: 0x58_24f0,
            offset: 0x18,
        });
        assert_eq!(returned(DEBIAN_12), expected);
        // jne instead: the other word.
        let mut code = DEBIAN_12.to_vec();
        code[10] = 0x75;
        assert_eq!(returned(&code).map(|field| field.offset), Some(0x118));
        assert_eq!(returned_field(DEBIAN_12, 0, Machine::Aarch64), None);
    }

    #[test]
    fn a_conditional_move_and_a_pointer_in_a_table() {
        let code = [
            0xf3, 0x0f, 0x1e, 0xfa, // endbr64
            0x48, 0x8d, 0x15, 0x00, 0x01, 0x00, 0x00, // lea rdx, [rip+0x100]
            0x48, 0x8b, 0x4a, 0x08, // mov rcx, [rdx+8]
            0x48, 0x8b, 0x41, 0x10, // mov rax, [rcx+16]
            0x85, 0xff, // test edi, edi
            0x48, 0x0f, 0x45, 0x81, 0x10, 0x01, 0x00, 0x00, // cmovne rax, [rcx+0x110]
            0xc3,
        ];
        let expected = Some(Field {
            pointer_at: 0x2c_8920 + 11 + 0x100 + 8,
            offset: 16,
        });
        assert_eq!(returned(&code), expected);
    }

    #[test]
    fn what_is_not_understood_gives_no_answer() {
        // A value of a thread (fs:), a call, a comparison with something else, a
        // result that was changed, an end without a return.
        let thread: &[u8] = &[
            0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8b, 0x40, 0x10, 0xc3,
        ];
        let call: &[u8] = &[0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x40, 0x10, 0xc3];
        let mut compared = DEBIAN_12.to_vec();
        compared[9] = 0xf6; // test sil, dil
        let mut changed = DEBIAN_12[..28].to_vec();
        changed.extend([0x48, 0xff, 0xc0, 0xc3]); // inc rax; ret
        let endless: &[u8] = &[0xeb, 0xfe];
        for code in [
            thread,
            call,
            &compared,
            &changed,
            endless,
            &DEBIAN_12[..20],
            &[],
        ] {
            assert_eq!(returned(code), None, "{code:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_code_is_survived(
            code in proptest::collection::vec(any::<u8>(), 0..80), address: u64,
            at in 0..DEBIAN_12.len(), byte: u8,
        ) {
            returned_field(&code, address, Machine::X86_64);
            let mut damaged = DEBIAN_12.to_vec();
            damaged[at] = byte;
            returned_field(&damaged, address, Machine::X86_64);
        }
    }
}
