//! Whether a process's code is as its files have it.
//!
//! A probe is a byte (or a few) of machine code that the kernel replaced in the
//! process's memory; the file on disk keeps the original. In: a pid. Out: the
//! places that differ. Deliberately not here: bpftool and its like; the
//! target's own memory is the judge.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::Context;

/// A place where code in memory is not what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The mapped file.
    pub file: String,
    /// Offset in that file, in bytes.
    pub offset: u64,
    /// The byte in memory; 0xcc is a breakpoint.
    pub in_memory: u8,
}

/// Every changed byte of executable code mapped from a file.
pub fn changed_code(pid: u32) -> anyhow::Result<Vec<Difference>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
        .with_context(|| format!("cannot read the mappings of process {pid}"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))
        .with_context(|| format!("cannot open the memory of process {pid}"))?;
    let mut differences = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights), Some(offset), Some(_device), Some(inode)) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            continue;
        };
        if !rights.contains('x') || inode == "0" {
            continue;
        }
        let (start, end) = range
            .split_once('-')
            .with_context(|| format!("no range in {line:?}"))?;
        let start = u64::from_str_radix(start, 16)?;
        let end = u64::from_str_radix(end, 16)?;
        let offset = u64::from_str_radix(offset, 16)?;

        // By range, not by path: the path may mean another file out here.
        let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
            .with_context(|| format!("cannot open the file behind {line:?}"))?;
        let in_file = read_at_most(&file, offset, end - start)?;
        let in_memory = read_at_most(&memory, start, in_file.len() as u64)?;
        let name = fields.next().unwrap_or_default();
        for (index, (was, is)) in in_file.iter().zip(&in_memory).enumerate() {
            if was != is {
                differences.push(Difference {
                    file: name.to_owned(),
                    offset: offset + index as u64,
                    in_memory: *is,
                });
            }
        }
    }
    Ok(differences)
}

/// Up to `bytes` from `offset`: the last page of a mapping may end past its file.
fn read_at_most(file: &File, offset: u64, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes)?];
    let mut filled = 0;
    while filled < buffer.len() {
        let read = file
            .read_at(&mut buffer[filled..], offset + filled as u64)
            .context("cannot read code")?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    buffer.truncate(filled);
    Ok(buffer)
}
