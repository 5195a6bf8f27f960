//! The connected stream sockets that a process holds.
//!
//! A process id comes in; one [`OpenSocket`] for each goes out, joined from the
//! process's descriptors and its network namespace's socket tables. Sockets that
//! listen, datagram sockets and those still connecting are left out: the first
//! bytes of new connections are seen when they move.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use memtrace_common::event::Addresses;

use super::proc_path;
use crate::event::SocketFact;
use crate::id::SocketId;

/// A connection that was open when it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Its identity, its lowest descriptor, and its ends.
    pub fact: SocketFact,
    /// This side accepted it, as far as can be told: something listens on its
    /// local port, or (unix) it bears the name that was listened on.
    pub accepted: bool,
}

/// One line of `/proc/net/tcp` or `tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpLine {
    /// The socket's inode; 0 if no process holds it any more.
    pub inode: u64,
    /// Both ends.
    pub addresses: Addresses,
    /// What it is doing.
    pub state: TcpState,
}

/// What of a TCP socket's state matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Bytes can still move, in one direction at least.
    Connected,
    /// It waits for connections.
    Listening,
    /// Anything else: being opened, or closed on both sides.
    Other,
}

/// One line of `/proc/net/unix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixLine {
    /// The socket's inode.
    pub inode: u64,
    /// It is a connected stream.
    pub connected_stream: bool,
    /// It has a name, which an accepted socket shares with the listening one.
    pub named: bool,
}

/// The descriptors that a process has of sockets: inode → lowest descriptor.
fn descriptors(pid: u32) -> io::Result<BTreeMap<u64, i32>> {
    let mut lowest: BTreeMap<u64, i32> = BTreeMap::new();
    for entry in std::fs::read_dir(proc_path(pid, "fd"))? {
        // Descriptors come and go while they are listed.
        let Ok(entry) = entry else { continue };
        let fd = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let inode = std::fs::read_link(entry.path())
            .ok()
            .and_then(|link| parse_link(link.to_str()?));
        if let (Some(fd), Some(inode)) = (fd, inode) {
            let known = lowest.entry(inode).or_insert(fd);
            *known = (*known).min(fd);
        }
    }
    Ok(lowest)
}

/// The connected stream sockets of a process, by descriptor.
pub fn open_sockets(pid: u32) -> io::Result<Vec<OpenSocket>> {
    let descriptors = descriptors(pid)?;
    if descriptors.is_empty() {
        return Ok(Vec::new());
    }
    let mut listening = HashSet::new();
    let mut connected: HashMap<u64, (Addresses, bool)> = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        each_line(pid, table, |line| {
            let Some(tcp) = parse_tcp_line(line) else {
                return;
            };
            match tcp.state {
                TcpState::Listening => {
                    listening.insert(tcp.addresses.local_port);
                }
                TcpState::Connected if descriptors.contains_key(&tcp.inode) => {
                    connected.insert(tcp.inode, (tcp.addresses, false));
                }
                TcpState::Connected | TcpState::Other => {}
            }
        })?;
    }
    for (addresses, accepted) in connected.values_mut() {
        *accepted = listening.contains(&addresses.local_port);
    }
    each_line(pid, "net/unix", |line| {
        if let Some(unix) = parse_unix_line(line)
            && unix.connected_stream
            && descriptors.contains_key(&unix.inode)
        {
            let addresses = Addresses {
                family: libc::AF_UNIX as u16,
                ..Addresses::default()
            };
            connected.insert(unix.inode, (addresses, unix.named));
        }
    })?;

    let mut sockets: Vec<OpenSocket> = descriptors
        .into_iter()
        .filter_map(|(inode, fd)| {
            let (addresses, accepted) = *connected.get(&inode)?;
            Some(OpenSocket {
                fact: SocketFact {
                    socket: SocketId(inode),
                    fd,
                    addresses,
                },
                accepted,
            })
        })
        .collect();
    sockets.sort_by_key(|socket| socket.fact.fd);
    Ok(sockets)
}

/// Hands every line of one of the process's tables on. Tables are read line by
/// line: on a busy machine they have megabytes. One that the kernel lacks (IPv6
/// switched off) counts as empty.
fn each_line(pid: u32, table: &str, mut take: impl FnMut(&str)) -> io::Result<()> {
    let file = match File::open(proc_path(pid, table)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? != 0 {
        take(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

/// The inode of the socket that a descriptor's link names: `socket:[N]`.
pub fn parse_link(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Takes a line of `/proc/net/tcp` or `tcp6` apart; `None` for the heading and
/// for anything else. Addresses stand there as hexadecimal 32-bit words in the
/// machine's byte order, ports as plain numbers.
pub fn parse_tcp_line(line: &str) -> Option<TcpLine> {
    let mut fields = line.split_ascii_whitespace();
    fields.next()?.strip_suffix(':')?;
    let (local, local_port, local_len) = parse_end(fields.next()?)?;
    let (peer, peer_port, peer_len) = parse_end(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    // Queues, timer, retransmits, owner, timeout.
    let inode = fields.nth(5)?.parse().ok()?;
    if local_len != peer_len {
        return None;
    }
    let family = if local_len == 4 {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    Some(TcpLine {
        inode,
        addresses: Addresses {
            family: family as u16,
            local_port,
            peer_port,
            reserved: 0,
            local,
            peer,
        },
        // The kernel's TCP_ESTABLISHED, TCP_FIN_WAIT1 and 2, TCP_CLOSE_WAIT,
        // TCP_LISTEN.
        state: match state {
            1 | 4 | 5 | 8 => TcpState::Connected,
            10 => TcpState::Listening,
            _ => TcpState::Other,
        },
    })
}

/// One end: address in network order, port, address length in bytes.
fn parse_end(text: &str) -> Option<([u8; 16], u16, usize)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let len = match address.len() {
        8 => 4,
        32 => 16,
        _ => return None,
    };
    let mut bytes = [0; 16];
    for (word, out) in bytes[..len].chunks_exact_mut(4).enumerate() {
        let digits = address.get(word * 8..word * 8 + 8)?;
        out.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    Some((bytes, port, len))
}

/// Takes a line of `/proc/net/unix` apart; `None` for the heading and for
/// anything else.
pub fn parse_unix_line(line: &str) -> Option<UnixLine> {
    /// SOCK_STREAM, and the state of a connected socket (SS_CONNECTED).
    const STREAM: u16 = 1;
    const CONNECTED: u8 = 3;
    let mut fields = line.split_ascii_whitespace();
    fields.next()?.strip_suffix(':')?;
    // References and protocol.
    let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
    let kind = u16::from_str_radix(fields.next()?, 16).ok()?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.next()?.parse().ok()?;
    /// It listens (__SO_ACCEPTCON).
    const ACCEPTS: u32 = 0x1_0000;
    Some(UnixLine {
        inode,
        connected_stream: kind == STREAM && state == CONNECTED && flags & ACCEPTS == 0,
        named: fields.next().is_some(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::*;

    const TCP: &str = "   2: 0100007F:1F90 0A00020F:D431 01 00000000:00000000 00:00000000 00000000  \
                       1000        0 54321 1 0000000000000000 20 4 30 10 -1\n";

    #[test]
    fn a_tcp_line() {
        let line = parse_tcp_line(TCP).expect("the known form");
        assert_eq!(line.inode, 54321);
        assert_eq!(line.state, TcpState::Connected);
        assert_eq!(line.addresses.family, 2);
        assert_eq!(line.addresses.local_port, 8080);
        assert_eq!(line.addresses.peer_port, 54321);
        if cfg!(target_endian = "little") {
            assert_eq!(line.addresses.local[..4], [127, 0, 0, 1]);
            assert_eq!(line.addresses.peer[..4], [15, 2, 0, 10]);
        }
        assert_eq!(line.addresses.local[4..], [0; 12]);
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when";
        assert_eq!(parse_tcp_line(heading), None);
        let listening = parse_tcp_line(&TCP.replace(" 01 ", " 0A ")).expect("the known form");
        assert_eq!(listening.state, TcpState::Listening);
        let waiting = parse_tcp_line(&TCP.replace(" 01 ", " 06 ")).expect("the known form");
        assert_eq!(waiting.state, TcpState::Other);
    }

    #[test]
    fn a_tcp6_line() {
        let line = TCP
            .replace("0100007F", "00000000000000000000000001000000")
            .replace("0A00020F", "0000000000000000FFFF00000100007F");
        let line = parse_tcp_line(&line).expect("the known form");
        assert_eq!(line.addresses.family, 10);
        if cfg!(target_endian = "little") {
            assert_eq!(line.addresses.local[15], 1);
            assert_eq!(line.addresses.peer[10..], [0xff, 0xff, 127, 0, 0, 1]);
        }
    }

    #[test]
    fn unix_lines() {
        let told = |line: &str| parse_unix_line(line).expect("the known form");
        let accepted =
            told("ffff8880: 00000003 00000000 00000000 0001 03 777 /run/php/php fpm.sock");
        assert_eq!(
            (accepted.inode, accepted.connected_stream, accepted.named),
            (777, true, true)
        );
        let client = told("ffff8880: 00000003 00000000 00000000 0001 03 778");
        assert!(client.connected_stream && !client.named);
        let listener = told("ffff8880: 00000002 00000000 00010000 0001 01 779 /run/x.sock");
        assert!(!listener.connected_stream);
        let datagram = told("ffff8880: 00000002 00000000 00000000 0002 03 780 @x");
        assert!(!datagram.connected_stream);
        assert_eq!(
            parse_unix_line("Num       RefCount Protocol Flags    Type St Inode Path"),
            None
        );
    }

    #[test]
    fn own_connections_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("its other end");
        let second = server.try_clone().expect("a second descriptor");
        let path = std::env::temp_dir().join(format!("memtrace-sockets-{}", std::process::id()));
        let unix_listener = UnixListener::bind(&path).expect("a unix listener");
        let unix_client = UnixStream::connect(&path).expect("a unix connection");
        let (unix_server, _) = unix_listener.accept().expect("its other end");
        std::fs::remove_file(&path).expect("its name removed");

        let found = open_sockets(std::process::id()).expect("own sockets");
        let of = |fd: i32| found.iter().find(|socket| socket.fact.fd == fd);
        let lowest = server.as_raw_fd().min(second.as_raw_fd());
        let accepted = of(lowest).expect("the accepted end");
        assert!(accepted.accepted);
        assert_eq!(accepted.fact.addresses.local_port, address.port());
        assert_eq!(accepted.fact.addresses.local[..4], [127, 0, 0, 1]);
        assert_eq!(of(server.as_raw_fd().max(second.as_raw_fd())), None);
        let opened = of(client.as_raw_fd()).expect("the connecting end");
        assert!(!opened.accepted);
        assert_eq!(opened.fact.addresses.peer_port, address.port());
        assert_eq!(of(listener.as_raw_fd()), None);
        let unix_accepted = of(unix_server.as_raw_fd()).expect("the accepted unix end");
        assert!(unix_accepted.accepted);
        assert_eq!(unix_accepted.fact.addresses.family, 1);
        assert!(
            !of(unix_client.as_raw_fd())
                .expect("the other unix end")
                .accepted
        );
    }

    proptest! {
        #[test]
        fn any_line_is_survived(text in ".{0,200}", at in 0..TCP.len() - 1, byte: u8) {
            parse_tcp_line(&text);
            parse_unix_line(&text);
            parse_link(&text);
            let mut damaged = TCP.as_bytes().to_vec();
            damaged[at] = byte;
            parse_tcp_line(&String::from_utf8_lossy(&damaged));
        }

        #[test]
        fn ends_are_read_back(address: [u8; 16], port: u16, wide: bool) {
            let len = if wide { 16 } else { 4 };
            let digits: String = address[..len]
                .chunks_exact(4)
                .map(|word| {
                    format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
                })
                .collect();
            let (bytes, read, got) = parse_end(&format!("{digits}:{port:04X}")).expect("an end");
            prop_assert_eq!(&bytes[..len], &address[..len]);
            prop_assert_eq!((read, got), (port, len));
        }
    }
}
