//! Offsets of kernel structure members, from the kernel's own BTF.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`. Out: byte offsets by structure
//! and member name. The format is Documentation/bpf/btf.rst of the kernel.
//! Members of anonymous structures and unions inside a structure count as its
//! own, as they do in C.

use std::collections::HashMap;

use memtrace_common::config::KernelOffsets;
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Anonymous structures nest a few levels deep; more is damage.
const DEPTH_MAX: u32 = 8;

/// Why an offset cannot be told.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are not BTF, or end too early.
    #[error("the kernel's type information is damaged at byte {0}")]
    Damaged(usize),
    /// The kernel has no such member.
    #[error("this kernel has no {0}.{1}, which memtrace needs to read")]
    Missing(&'static str, &'static str),
}

/// Parsed BTF: where each type's record is, and structures by name.
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: usize,
    /// Byte offset of the record of each type; index 0 is void.
    types: Vec<usize>,
    structures: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Reads the type table.
    ///
    /// # Errors
    /// The bytes are not whole BTF of this machine's byte order.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if u16_at(bytes, 0)? != MAGIC {
            return Err(BtfError::Damaged(0));
        }
        let header = u32_at(bytes, 4)? as usize;
        let section = |at: usize| -> Result<(usize, usize), BtfError> {
            let start = header
                .checked_add(u32_at(bytes, at)? as usize)
                .ok_or(BtfError::Damaged(at))?;
            let end = start
                .checked_add(u32_at(bytes, at + 4)? as usize)
                .ok_or(BtfError::Damaged(at))?;
            if end > bytes.len() {
                return Err(BtfError::Damaged(at));
            }
            Ok((start, end))
        };
        let (types_start, types_end) = section(8)?;
        let (strings, _) = section(16)?;
        let mut btf = Btf {
            bytes,
            strings,
            types: vec![0],
            structures: HashMap::new(),
        };
        let mut at = types_start;
        while at < types_end {
            let info = u32_at(bytes, at + 4)?;
            let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let extra = match kind {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                // STRUCT, UNION, DATASEC, ENUM64
                4 | 5 | 15 | 19 => 12 * members,
                // ENUM, FUNC_PROTO
                6 | 13 => 8 * members,
                // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT,
                // TYPE_TAG
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(BtfError::Damaged(at)),
            };
            if kind == KIND_STRUCT {
                let name = btf.string(u32_at(bytes, at)?)?;
                if !name.is_empty() {
                    // The first definition counts: duplicates belong to
                    // drivers that reuse a core name.
                    let id = btf.types.len() as u32;
                    btf.structures.entry(name).or_insert(id);
                }
            }
            btf.types.push(at);
            at += 12 + extra;
        }
        Ok(btf)
    }

    /// Byte offset of a member, or `None` if the structure or member does not
    /// exist.
    ///
    /// # Errors
    /// The type records are damaged.
    pub fn offset(&self, structure: &str, member: &str) -> Result<Option<u32>, BtfError> {
        match self.structures.get(structure.as_bytes()) {
            Some(&id) => self.find(id, member.as_bytes(), 0),
            None => Ok(None),
        }
    }

    fn find(&self, id: u32, member: &[u8], depth: u32) -> Result<Option<u32>, BtfError> {
        let Some(&at) = self.types.get(id as usize) else {
            return Err(BtfError::Damaged(0));
        };
        let info = u32_at(self.bytes, at + 4)?;
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if depth > DEPTH_MAX || (kind != KIND_STRUCT && kind != KIND_UNION) {
            return Ok(None);
        }
        for index in 0..members {
            let record = at + 12 + index * 12;
            let name = self.string(u32_at(self.bytes, record)?)?;
            let bits = u32_at(self.bytes, record + 8)?;
            // With the kind flag the upper 8 bits are a bit field's size.
            let bits = if info >> 31 == 1 {
                bits & 0xff_ffff
            } else {
                bits
            };
            if name == member {
                return Ok(Some(bits / 8));
            }
            if name.is_empty() {
                let inner = u32_at(self.bytes, record + 4)?;
                if let Some(offset) = self.find(inner, member, depth + 1)? {
                    return Ok(Some(bits / 8 + offset));
                }
            }
        }
        Ok(None)
    }

    fn string(&self, offset: u32) -> Result<&'a [u8], BtfError> {
        let start = self.strings.saturating_add(offset as usize);
        let rest = self.bytes.get(start..).ok_or(BtfError::Damaged(start))?;
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(BtfError::Damaged(start))?;
        Ok(&rest[..end])
    }
}

/// The offsets that the kernel programs need.
///
/// # Errors
/// The BTF is damaged or lacks one of them.
pub fn kernel_offsets(bytes: &[u8]) -> Result<KernelOffsets, BtfError> {
    let btf = Btf::parse(bytes)?;
    let need = |structure: &'static str, member: &'static str| {
        btf.offset(structure, member)?
            .ok_or(BtfError::Missing(structure, member))
    };
    // What a kernel can be built without, or has in a module: 0 if it is not
    // there, which none of these members is at.
    let may = |structure: &'static str, member: &'static str| -> Result<u32, BtfError> {
        Ok(btf.offset(structure, member)?.unwrap_or(0))
    };
    // file.f_count became file.f_ref in 6.13 (a9ad9a3b7bb6), which counts the
    // last reference as 0 (FILE_REF_ONEREF) instead of 1.
    let (file_count, file_count_one) = match btf.offset("file", "f_ref")? {
        Some(offset) => (offset, 0),
        None => (need("file", "f_count")?, 1),
    };
    Ok(KernelOffsets {
        task_pid: need("task_struct", "pid")?,
        task_tgid: need("task_struct", "tgid")?,
        // Named real_start_time before 5.5 (cf25e24db61c).
        task_start_boottime: match btf.offset("task_struct", "start_boottime")? {
            Some(offset) => offset,
            None => need("task_struct", "real_start_time")?,
        },
        task_group_leader: need("task_struct", "group_leader")?,
        task_signal: need("task_struct", "signal")?,
        task_files: need("task_struct", "files")?,
        signal_live: need("signal_struct", "live")?,
        files_fdt: need("files_struct", "fdt")?,
        fdtable_max_fds: need("fdtable", "max_fds")?,
        fdtable_fd: need("fdtable", "fd")?,
        file_inode: need("file", "f_inode")?,
        file_private_data: need("file", "private_data")?,
        file_count,
        file_count_one,
        inode_mode: need("inode", "i_mode")?,
        inode_ino: need("inode", "i_ino")?,
        socket_type: need("socket", "type")?,
        socket_sk: need("socket", "sk")?,
        sk_family: need("sock_common", "skc_family")?,
        sk_daddr: need("sock_common", "skc_daddr")?,
        sk_rcv_saddr: need("sock_common", "skc_rcv_saddr")?,
        sk_dport: need("sock_common", "skc_dport")?,
        sk_num: need("sock_common", "skc_num")?,
        sk_v6_daddr: need("sock_common", "skc_v6_daddr")?,
        sk_v6_rcv_saddr: need("sock_common", "skc_v6_rcv_saddr")?,
        // x86-64 alone; elsewhere thread ids are not compared.
        task_fsbase: match (
            btf.offset("task_struct", "thread")?,
            btf.offset("thread_struct", "fsbase")?,
        ) {
            (Some(thread), Some(fsbase)) => thread + fsbase,
            (None, _) | (_, None) => 0,
        },
        inode_pipe: need("inode", "i_pipe")?,
        pipe_head: need("pipe_inode_info", "head")?,
        pipe_tail: need("pipe_inode_info", "tail")?,
        file_flags: need("file", "f_flags")?,
        file_dentry: need("file", "f_path")? + need("path", "dentry")?,
        dentry_name: need("dentry", "d_name")? + need("qstr", "name")?,
        eventfd_count: may("eventfd_ctx", "count")?,
        eventfd_id: may("eventfd_ctx", "id")?,
        sock_queued: need("sock", "sk_receive_queue")? + need("sk_buff_head", "qlen")?,
        sock_socket: need("sock", "sk_socket")?,
        socket_inode: need("socket_alloc", "vfs_inode")?,
        unix_peer: may("unix_sock", "peer")?,
        unix_name: may("unix_sock", "addr")?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BtfError> {
    match bytes.get(at..at.saturating_add(2)) {
        Some(&[a, b]) => Ok(u16::from_ne_bytes([a, b])),
        _ => Err(BtfError::Damaged(at)),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    match bytes.get(at..at.saturating_add(4)) {
        Some(&[a, b, c, d]) => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => Err(BtfError::Damaged(at)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One structure `s { int a; union { int b; int c } }`, built by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0c\0";
        let mut types: Vec<u32> = Vec::new();
        // 1: int, 4 bytes
        types.extend([0, 1 << 24, 4, 32]);
        // 2: anonymous union { b, c }
        types.extend([0, 5 << 24 | 2, 4, 5, 1, 0, 7, 1, 0]);
        // 3: struct s { a at bit 0, union at bit 32 }
        types.extend([1, 4 << 24 | 2, 8, 3, 1, 0, 0, 2, 32]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend((word as u32).to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_of_anonymous_unions_are_found_at_their_place() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("sample parses");
        assert_eq!(btf.offset("s", "a"), Ok(Some(0)));
        assert_eq!(btf.offset("s", "c"), Ok(Some(4)));
        assert_eq!(btf.offset("s", "d"), Ok(None));
        assert_eq!(btf.offset("t", "a"), Ok(None));
    }

    proptest! {
        /// Damaged type information is an error, never a panic.
        #[test]
        fn damage_never_panics(at in 0usize..150, value: u8, cut in 0usize..150) {
            let mut bytes = sample();
            let index = at % bytes.len();
            bytes[index] = value;
            let cut = cut.min(bytes.len());
            for bytes in [&bytes[..], &bytes[..cut]] {
                if let Ok(btf) = Btf::parse(bytes) {
                    let _ = btf.offset("s", "c");
                }
                let _ = kernel_offsets(bytes);
            }
        }
    }
}
