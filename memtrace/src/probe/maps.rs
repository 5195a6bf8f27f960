//! The file mappings of a process, from the text of `/proc/PID/maps`.
//!
//! Bytes come in, [`Mapping`]s go out. Lines that do not have the kernel's form
//! are passed over: the text is also read while the process changes it. Nothing
//! is opened here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The device and inode number of a mapped file, as `/proc/PID/maps` shows them:
/// what the kernel itself compares, whichever path leads to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Inode number, never 0.
    pub inode: u64,
}

/// One mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// The mapping may be executed.
    pub executable: bool,
    /// Where in the file it begins, bytes.
    pub offset: u64,
    /// Which file.
    pub file: FileIdentity,
    /// The file's path inside the process's own root, without the kernel's
    /// mark for deleted files.
    pub path: PathBuf,
    /// The path no longer leads to the file.
    pub deleted: bool,
}

impl Mapping {
    /// The name of the mapping's entry in `/proc/PID/map_files`.
    pub fn map_files_name(&self) -> String {
        format!("{:x}-{:x}", self.start, self.end)
    }
}

/// Every file mapping that the text describes, in its order.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// The file mapping that one line describes; `None` for anonymous memory, for
/// the kernel's own areas and for anything else.
pub fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let range = std::str::from_utf8(next_field(&mut rest)?).ok()?;
    let perms = next_field(&mut rest)?;
    let offset = std::str::from_utf8(next_field(&mut rest)?).ok()?;
    let device = std::str::from_utf8(next_field(&mut rest)?).ok()?;
    let inode = std::str::from_utf8(next_field(&mut rest)?).ok()?;

    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end || perms.len() != 4 {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    let inode: u64 = inode.parse().ok().filter(|inode| *inode != 0)?;
    let (path, deleted) = parse_path(rest.trim_ascii_start())?;
    Some(Mapping {
        start,
        end,
        executable: perms[2] == b'x',
        offset: hex(offset)?,
        file: FileIdentity {
            major: u32::try_from(hex(major)?).ok()?,
            minor: u32::try_from(hex(minor)?).ok()?,
            inode,
        },
        path,
        deleted,
    })
}

/// Takes the next field off a line whose fields are separated by spaces.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.trim_ascii_start();
    let end = text
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(text.len());
    let (field, remainder) = text.split_at(end);
    *rest = remainder;
    (!field.is_empty()).then_some(field)
}

/// A hexadecimal number without sign or prefix.
fn hex(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// A file's path and whether it was deleted. The kernel writes a line feed as
/// `\012` and escapes nothing else.
fn parse_path(text: &[u8]) -> Option<(PathBuf, bool)> {
    const DELETED: &[u8] = b" (deleted)";
    if text.first() != Some(&b'/') {
        return None;
    }
    let (path, deleted) = match text.strip_suffix(DELETED) {
        Some(path) => (path, true),
        None => (text, false),
    };
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(br"\012") {
            Some(after) => {
                bytes.push(b'\n');
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Some((PathBuf::from(OsString::from_vec(bytes)), deleted))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const LINE: &[u8] =
        b"7f12a000-7f12b000 r-xp 00001000 fe:01 4242                  /usr/lib/libc.so.6";

    #[test]
    fn a_library_line_is_read_whole() {
        let mapping = parse_line(LINE).expect("a file mapping");
        assert_eq!(
            mapping,
            Mapping {
                start: 0x7f12_a000,
                end: 0x7f12_b000,
                executable: true,
                offset: 0x1000,
                file: FileIdentity {
                    major: 0xfe,
                    minor: 1,
                    inode: 4242
                },
                path: PathBuf::from("/usr/lib/libc.so.6"),
                deleted: false,
            }
        );
        assert_eq!(mapping.map_files_name(), "7f12a000-7f12b000");
    }

    #[test]
    fn deleted_spaced_and_escaped_paths() {
        let line = b"1000-2000 rw-p 0 00:2f 7 /srv/my app/lib\\012x (deleted).so (deleted)";
        let mapping = parse_line(line).expect("a file mapping");
        assert!(mapping.deleted);
        assert!(!mapping.executable);
        assert_eq!(mapping.path, Path::new("/srv/my app/lib\nx (deleted).so"));
    }

    #[test]
    fn memory_without_a_file_is_passed_over() {
        for line in [
            &b"1000-2000 rw-p 00000000 00:00 0"[..],
            b"1000-2000 rw-p 00000000 00:00 0                          [heap]",
            b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]",
            b"1000-2000 rw-p 00000000 00:0e 1 anon_inode:[perf_event]",
            b"2000-1000 r-xp 00000000 08:01 5 /backwards",
            b"1000-2000 r-xp 00000000 08:01",
            b"+1000-2000 r-xp 00000000 08:01 5 /signed",
            b"",
        ] {
            assert_eq!(parse_line(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn this_process_maps_its_own_program() {
        let text = std::fs::read("/proc/self/maps").expect("own maps");
        let program = std::fs::metadata("/proc/self/exe").expect("own program");
        let found = parse(&text)
            .into_iter()
            .filter(|mapping| mapping.executable)
            .any(|mapping| mapping.file.inode == program.ino());
        assert!(found);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for mapping in parse(&bytes) {
                prop_assert!(mapping.start < mapping.end);
            }
        }

        #[test]
        fn a_damaged_line_is_survived(at in 0..LINE.len(), byte: u8, cut in 0..LINE.len()) {
            let mut line = LINE.to_vec();
            line[at] = byte;
            for mapping in parse(&line).into_iter().chain(parse(&line[..cut])) {
                prop_assert!(mapping.start < mapping.end);
                prop_assert!(mapping.file.inode != 0);
            }
        }

        #[test]
        fn what_the_kernel_prints_is_read_back(
            start in 0u64..u64::MAX / 2, len in 1u64..1 << 40, offset: u64,
            major in 0u32..4096, minor in 0u32..1 << 20, inode in 1u64.., executable: bool,
            name in "[a-z .()-]{1,30}x",
        ) {
            let line = format!(
                "{:08x}-{:08x} r-{}p {:08x} {:02x}:{:02x} {} /{}",
                start, start + len, if executable { 'x' } else { '-' }, offset, major, minor,
                inode, name,
            );
            let mapping = parse_line(line.as_bytes()).expect("a well-formed line");
            prop_assert_eq!(mapping.start, start);
            prop_assert_eq!(mapping.end, start + len);
            prop_assert_eq!(mapping.offset, offset);
            prop_assert_eq!(mapping.executable, executable);
            prop_assert_eq!(mapping.file, FileIdentity { major, minor, inode });
            prop_assert_eq!(mapping.path, PathBuf::from(format!("/{name}")));
        }
    }
}
