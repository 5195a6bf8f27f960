//! Any text in the place of a file of `/proc`, and any bytes in the place of
//! the kernel's type information, are read or passed over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::probe::target::process::{Stat, Status};
use memtrace::probe::target::{cgroup, container, runtime, sockets};
use memtrace::probe::{btf, maps};

fuzz_target!(|input: &[u8]| {
    for mapping in maps::parse(input) {
        assert!(mapping.start < mapping.end, "{mapping:?}");
        assert!(!mapping.map_files_name().is_empty());
    }
    let _ = btf::kernel_offsets(input);
    let text = String::from_utf8_lossy(input);
    for line in text.lines() {
        let _ = sockets::parse_link(line);
        let _ = sockets::parse_tcp_line(line);
        let _ = sockets::parse_unix_line(line);
        let _ = runtime::guess(line.as_ref(), &[line.into()], false);
    }
    let _ = Stat::parse(&text);
    let _ = Status::parse(&text);
    let _ = cgroup::parse_mounts(&text);
    let (wanted, text) = text.split_once('\n').unwrap_or(("0123456789ab", &text));
    let _ = container::cgroup_path(wanted, text);
    let _ = container::find(wanted, &[(1, text.to_owned()), (2, text.to_owned())]);
});
