//! The threads of an imagined virtual machine, and of any memory at all.

use proptest::prelude::*;

use super::*;
use crate::probe::runtime::memory::tests::Pieces;

const LIST_AT: u64 = 0x1000;
const LIST: u64 = 0x2000;
const ARRAY: u64 = 0x3000;

const LAYOUT: JvmTarget = JvmTarget {
    java_thread: 0,
    os_thread: 560,
    pthread_id: 24,
    allocated: 376,
    buffer_start: 256,
    buffer_top: 264,
    continuation: 0,
    carriers_met: 0,
    java_thread_bytes: 0,
    reserved: 0,
};

fn list(memory: Pieces) -> ThreadList<Pieces> {
    ThreadList {
        memory,
        layout: LAYOUT,
        list_at: LIST_AT,
        length: 4,
        threads: 16,
        thread_id: 208,
    }
}

/// What a thread keeps at its `pthread_t`: its `JavaThread` at these places.
fn thread(java_thread: u64, places: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0; THREAD_BYTES];
    for place in places {
        bytes[*place..*place + 8].copy_from_slice(&java_thread.to_ne_bytes());
    }
    bytes
}

fn word(bytes: &mut [u8], offset: u32, value: u64) {
    bytes[offset as usize..offset as usize + 8].copy_from_slice(&value.to_ne_bytes());
}

/// A machine whose threads keep their `JavaThread`s at these places, each.
fn machine(places: &[&[usize]]) -> Pieces {
    let mut memory = Pieces::default();
    memory.put(LIST_AT, &LIST.to_ne_bytes());
    let mut header = vec![0; 24];
    header[4..8].copy_from_slice(&(places.len() as u32).to_ne_bytes());
    word(&mut header, 16, ARRAY);
    memory.put(LIST, &header);
    let mut array = Vec::new();
    for (index, places) in places.iter().enumerate() {
        let java_thread = 0x10_0000 + index as u64 * 0x1_0000;
        let (os_thread, pthread) = (java_thread + 0x2000, java_thread + 0x4000);
        array.extend(java_thread.to_ne_bytes());
        let mut bytes = vec![0; 1024];
        word(&mut bytes, LAYOUT.os_thread, os_thread);
        word(&mut bytes, LAYOUT.allocated, 5000);
        word(&mut bytes, LAYOUT.buffer_start, 0x9_0000);
        word(&mut bytes, LAYOUT.buffer_top, 0x9_0000 + index as u64);
        memory.put(java_thread, &bytes);
        let mut bytes = vec![0; 256];
        word(&mut bytes, LAYOUT.pthread_id, pthread);
        word(&mut bytes, 208, 700 + index as u64);
        memory.put(os_thread, &bytes);
        memory.put(pthread, &thread(java_thread, places));
    }
    memory.put(ARRAY, &array);
    memory
}

#[test]
fn what_each_thread_has_allocated() {
    let threads = list(machine(&[&[792], &[792], &[792]]));
    let all = threads.all();
    let told: Vec<_> = all
        .iter()
        .map(|thread| (threads.id(*thread), threads.allocated(*thread)))
        .collect();
    assert_eq!(
        told,
        [
            (Some(700), Some(5000)),
            (Some(701), Some(5001)),
            (Some(702), Some(5002)),
        ]
    );
}

/// Between two buffers a thread has none, or one of which only an end is known.
#[test]
fn a_buffer_that_is_being_replaced_is_none() {
    for (start, top) in [(0, 0), (0, 0x9_0000), (0x9_0000, 0), (0x9_0000, u64::MAX)] {
        let mut memory = machine(&[&[792]]);
        let bytes = memory.0.get_mut(&0x10_0000).expect("the thread");
        word(bytes, LAYOUT.buffer_start, start);
        word(bytes, LAYOUT.buffer_top, top);
        assert_eq!(list(memory).allocated(0x10_0000), Some(5000));
    }
}

#[test]
fn the_place_that_all_threads_agree_on() {
    let told = |places: &[&[usize]]| list(machine(places)).own_pointer();
    assert_eq!(told(&[&[792, 64], &[792], &[8, 792]]).ok(), Some(Some(792)));
    // One may be about to end.
    assert_eq!(told(&[&[792], &[792], &[], &[792]]).ok(), Some(Some(792)));
    assert_eq!(told(&[&[792], &[792]]).ok(), Some(None));
    assert_eq!(told(&[]).ok(), Some(None));
    assert!(matches!(
        told(&[&[8], &[16], &[24], &[32]]),
        Err(JvmError::Mismatch)
    ));
}

proptest! {
    #[test]
    fn any_memory_is_survived(
        words in proptest::collection::vec(
            prop_oneof![
                Just(LIST), Just(ARRAY), 0..10_u64, any::<u64>(), (0..9_u64).prop_map(|n| n << 32),
            ],
            3 * 64,
        ),
    ) {
        let mut memory = Pieces::default();
        for (index, words) in words.chunks(64).enumerate() {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            memory.put(LIST_AT + index as u64 * 0x1000, &bytes);
        }
        let threads = list(memory);
        for thread in threads.all() {
            threads.id(thread);
            threads.allocated(thread);
        }
        prop_assert!(threads.own_pointer().is_ok_and(|place| place.is_none()));
    }
}
