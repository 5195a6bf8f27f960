//! Openings of real allocators, byte for byte, and code that must not mislead.

use proptest::prelude::*;

use super::*;

const FREE: Needs = Needs {
    arguments: 1,
    returns: false,
};
const MALLOC: Needs = Needs {
    arguments: 1,
    returns: true,
};
const CALLOC: Needs = Needs {
    arguments: 2,
    returns: true,
};

fn x86(code: &[u8], needs: Needs) -> Placement {
    choose(code, 0x1000, Machine::X86_64, needs)
}

#[test]
fn openings_of_known_allocators() {
    // glibc 2.36 free: test rdi,rdi; je; push rbp.
    let free = x86(
        &[0x48, 0x85, 0xff, 0x0f, 0x84, 0xb8, 0, 0, 0, 0x55, 0xc3],
        FREE,
    );
    assert_eq!((free.offset, free.emulated), (3, true));
    assert_eq!(free.instruction, "je .+0xbe");
    // The same on a CET build: endbr64 first.
    let free = x86(
        &[
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x74, 0x20, 0x55, 0xc3,
        ],
        FREE,
    );
    assert_eq!((free.offset, free.emulated), (7, true));
    // malloc: push r12.
    let malloc = x86(&[0x41, 0x54, 0x55, 0xc3], MALLOC);
    assert_eq!(
        (malloc.offset, malloc.instruction.as_str()),
        (0, "push r12")
    );
    // musl: jmp rel32.
    let malloc = x86(&[0xe9, 0x6b, 0x19, 0, 0], MALLOC);
    assert_eq!((malloc.offset, malloc.emulated), (0, true));
    // glibc 2.43 calloc: mov rax,rdi; mul rsi (overwrites rdx, which calloc
    // does not have); jo.
    let calloc = x86(
        &[
            0x48, 0x89, 0xf8, 0x48, 0xf7, 0xe6, 0x0f, 0x80, 0x40, 0, 0, 0, 0xc3,
        ],
        CALLOC,
    );
    assert_eq!((calloc.offset, calloc.emulated), (6, true));
    // glibc 2.31 free: sub rsp,24; mov rax,[rip]; mov rax,[rax];
    // test rax,rax; jne.
    let old_free = &[
        0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x05, 1, 2, 3, 0, 0x48, 0x8b, 0, 0x48, 0x85, 0xc0,
        0x0f, 0x85, 0x10, 0, 0, 0, 0xc3,
    ];
    assert_eq!(x86(old_free, FREE).offset, 17);
    let refused = x86(old_free, MALLOC);
    assert_eq!((refused.offset, refused.why), (0, Why::StackMoved));
}

#[test]
fn what_makes_a_place_unfit() {
    // mov rdi,rsi; push rbp.
    let place = x86(&[0x48, 0x89, 0xf7, 0x55, 0xc3], MALLOC);
    assert_eq!((place.offset, place.why), (0, Why::ArgumentLost));
    // xor edi,edi counts as well: it clears all of rdi.
    let place = x86(&[0x31, 0xff, 0x55, 0xc3], MALLOC);
    assert_eq!((place.offset, place.why), (0, Why::ArgumentLost));
    // mov eax,1; jrcxz +1; push rbp: the push can be jumped over.
    let place = x86(&[0xb8, 1, 0, 0, 0, 0xe3, 1, 0x55, 0xc3], MALLOC);
    assert_eq!((place.offset, place.why), (0, Why::Branches));
    // mov eax,1; push rbp; pop rbp; jmp to the push.
    let place = x86(&[0xb8, 1, 0, 0, 0, 0x55, 0x5d, 0xeb, 0xfc], MALLOC);
    assert_eq!((place.offset, place.why), (0, Why::Revisited));
    // test rdi,rdi; ret.
    let place = x86(&[0x48, 0x85, 0xff, 0xc3], MALLOC);
    assert_eq!(
        (place.offset, place.why, place.emulated),
        (0, Why::Branches, false)
    );
    assert_eq!(x86(&[], MALLOC).why, Why::Unknown);
}

#[test]
fn what_the_kernel_does_not_emulate() {
    for (name, code) in [
        ("push of a segment register", &[0x0f, 0xa0, 0xc3][..]),
        ("push of 16 bits", &[0x66, 0x55, 0xc3]),
        ("push of memory", &[0xff, 0x37, 0xc3]),
        ("push with a needless prefix", &[0x48, 0x55, 0xc3]),
        ("indirect jump", &[0xff, 0xe0]),
        ("indirect jump without tracking", &[0x3e, 0xff, 0xe0]),
        ("16 bit call", &[0x66, 0xe8, 0, 0, 0, 0, 0xc3]),
        ("five byte no-operation", &[0x0f, 0x1f, 0x44, 0, 0, 0xc3]),
        ("endbr64", &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3]),
        ("pause", &[0xf3, 0x90, 0xc3]),
    ] {
        assert!(!x86(code, MALLOC).emulated, "{name}");
    }
    for (name, code) in [
        ("no-operation", &[0x90, 0xc3][..]),
        ("no-operation of four bytes", &[0x0f, 0x1f, 0x40, 0, 0xc3]),
        ("bounded jump", &[0xf2, 0xe9, 0, 1, 0, 0]),
        ("call", &[0xe8, 0, 1, 0, 0, 0xc3]),
    ] {
        let place = x86(code, MALLOC);
        assert!(place.emulated && place.offset == 0, "{name}");
    }
}

#[test]
fn arm_openings() {
    let arm = |words: &[u32]| {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        choose(&code, 0x1000, Machine::Aarch64, MALLOC)
    };
    // cbz x0, +0x40
    assert!(arm(&[0xb400_0200, 0xd65f_03c0]).emulated);
    // bti c; cbz
    assert_eq!(arm(&[0xd503_245f, 0xb400_0200]).offset, 4);
    // paciasp; cbz: the start, before the return address is signed.
    let place = arm(&[0xd503_233f, 0xb400_0200]);
    assert_eq!((place.offset, place.emulated), (0, false));
    // stp x29, x30, [sp, #-32]!
    assert!(!arm(&[0xa9be_7bfd]).emulated);
    // nop; cbz; b back to the cbz
    assert_eq!(
        arm(&[0xd503_201f, 0xb400_0200, 0x17ff_ffff]).why,
        Why::Unknown
    );
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        code in proptest::collection::vec(any::<u8>(), 0..300), address: u64,
        arguments in 0usize..=5, returns: bool, arm: bool,
    ) {
        let machine = if arm { Machine::Aarch64 } else { Machine::X86_64 };
        let place = choose(&code, address, machine, Needs { arguments, returns });
        prop_assert!(place.offset == 0 || (place.offset as usize) < code.len());
        prop_assert!(place.emulated || place.why != Why::Emulated);
    }
}
