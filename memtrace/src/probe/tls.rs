//! The TLS libraries that a process has mapped or was linked with, and what of
//! them to probe.
//!
//! A file's functions come in; [`TlsFacts`] go out: the functions that move a
//! session's plaintext, and those that end a session, each address once. Names
//! alone are judged: a library must have functions for both directions. What is
//! stripped of its symbols, or has no functions that every byte passes (Java's own
//! TLS, rustls where the compiler has merged them into their callers), is not
//! found; that connections carry TLS is seen on the wire. Go's crypto/tls is not
//! looked for here.
//!
//! Deliberately absent: `SSL_peek`, which only looks; `SSL_write_ex2`, which
//! `SSL_write_ex` calls and nothing else needs on a stream socket;
//! `gnutls_record_recv_packet`, whose result is not a buffer.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Seek},
};

use memtrace_common::event::{RustlsCall, TlsCall};

use super::{
    object::ProbedObject,
    place::{self, Needs, Placement},
    symbols::{ElfError, ElfFile, Symbol},
};

/// Whose functions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Library {
    /// OpenSSL, or a library with its interface.
    OpenSsl,
    /// BoringSSL.
    BoringSsl,
    /// GnuTLS.
    GnuTls,
    /// rustls, which is always linked in.
    Rustls,
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Library::OpenSsl => "OpenSSL",
            Library::BoringSsl => "BoringSSL",
            Library::GnuTls => "GnuTLS",
            Library::Rustls => "rustls",
        })
    }
}

/// What a probed function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It moves plaintext or goes on with a handshake: its entry and its return
    /// are probed.
    Move(TlsCall),
    /// It ends the session of its first argument: its entry is probed.
    End,
    /// It is one of rustls, whose sessions are told by their sockets: its entry is
    /// probed, and the return of those that send.
    Rustls(RustlsCall),
}

impl Role {
    /// What a probe of such a function must find untouched.
    fn needs(self) -> Needs {
        match self {
            Role::End => Needs {
                arguments: 1,
                returns: false,
            },
            Role::Rustls(call) => Needs {
                arguments: match call {
                    RustlsCall::End => 1,
                    RustlsCall::Received | RustlsCall::SendSlice | RustlsCall::SendChunks => 2,
                },
                returns: matches!(call, RustlsCall::SendSlice | RustlsCall::SendChunks),
            },
            Role::Move(call) => Needs {
                arguments: match call {
                    TlsCall::SendFile | TlsCall::Flush | TlsCall::Handshake => 1,
                    TlsCall::Read | TlsCall::Write => 2,
                    TlsCall::ReadOut | TlsCall::WriteOut => 4,
                },
                returns: true,
            },
        }
    }

    /// Whether its return is probed as well.
    pub fn has_result(self) -> bool {
        self.needs().returns
    }
}

/// Functions that only BoringSSL has.
const BORING_MARK: &str = "SSL_CTX_set_grease_enabled";

/// The functions probed, by name.
const FUNCTIONS: [(&str, Library, Role); 21] = [
    // OpenSSL, and with it LibreSSL and BoringSSL (include/openssl/ssl.h).
    ("SSL_read", Library::OpenSsl, Role::Move(TlsCall::Read)),
    ("SSL_write", Library::OpenSsl, Role::Move(TlsCall::Write)),
    // Since OpenSSL 1.1.1.
    (
        "SSL_read_ex",
        Library::OpenSsl,
        Role::Move(TlsCall::ReadOut),
    ),
    (
        "SSL_write_ex",
        Library::OpenSsl,
        Role::Move(TlsCall::WriteOut),
    ),
    // Both return 1 for bytes moved; the former 2 when there are no more.
    (
        "SSL_read_early_data",
        Library::OpenSsl,
        Role::Move(TlsCall::ReadOut),
    ),
    (
        "SSL_write_early_data",
        Library::OpenSsl,
        Role::Move(TlsCall::WriteOut),
    ),
    // Since OpenSSL 3.0.
    (
        "SSL_sendfile",
        Library::OpenSsl,
        Role::Move(TlsCall::SendFile),
    ),
    // The first two call the third.
    (
        "SSL_accept",
        Library::OpenSsl,
        Role::Move(TlsCall::Handshake),
    ),
    (
        "SSL_connect",
        Library::OpenSsl,
        Role::Move(TlsCall::Handshake),
    ),
    (
        "SSL_do_handshake",
        Library::OpenSsl,
        Role::Move(TlsCall::Handshake),
    ),
    ("SSL_free", Library::OpenSsl, Role::End),
    // lib/includes/gnutls/gnutls.h.in.
    (
        "gnutls_record_recv",
        Library::GnuTls,
        Role::Move(TlsCall::Read),
    ),
    (
        "gnutls_record_recv_seq",
        Library::GnuTls,
        Role::Move(TlsCall::Read),
    ),
    (
        "gnutls_record_recv_early_data",
        Library::GnuTls,
        Role::Move(TlsCall::Read),
    ),
    (
        "gnutls_record_send",
        Library::GnuTls,
        Role::Move(TlsCall::Write),
    ),
    (
        "gnutls_record_send2",
        Library::GnuTls,
        Role::Move(TlsCall::Write),
    ),
    (
        "gnutls_record_send_range",
        Library::GnuTls,
        Role::Move(TlsCall::Write),
    ),
    (
        "gnutls_record_send_file",
        Library::GnuTls,
        Role::Move(TlsCall::SendFile),
    ),
    // Sends, by calls of gnutls_record_send without a buffer, what calls with
    // one have taken before.
    (
        "gnutls_record_uncork",
        Library::GnuTls,
        Role::Move(TlsCall::Flush),
    ),
    (
        "gnutls_handshake",
        Library::GnuTls,
        Role::Move(TlsCall::Handshake),
    ),
    ("gnutls_deinit", Library::GnuTls, Role::End),
];

/// Functions of rustls by the parts that their names have in either of the
/// compiler's manglings: the parts, what it is called here, what it does.
///
/// All are of `CommonState` (rustls/src/common_state.rs): plaintext comes out by
/// the first, since 0.20; goes in by the second until 0.22, by the third since
/// 0.23.
const RUSTLS: [([&str; 2], &str, RustlsCall); 4] = [
    (
        ["11CommonState", "23take_received_plaintext"],
        "CommonState::take_received_plaintext",
        RustlsCall::Received,
    ),
    (
        ["11CommonState", "19send_some_plaintext"],
        "CommonState::send_some_plaintext",
        RustlsCall::SendSlice,
    ),
    (
        ["11CommonState", "16buffer_plaintext"],
        "CommonState::buffer_plaintext",
        RustlsCall::SendChunks,
    ),
    (
        ["drop_in_place", "CommonState"],
        "drop_in_place<CommonState>",
        RustlsCall::End,
    ),
];

/// The name of the state's module, as a path of names has it and as a name within
/// angle brackets does.
const RUSTLS_MODULES: [&str; 2] = ["6rustls12common_state", "LT$rustls..common_state"];

/// Which function of rustls a mangled name means.
fn of_rustls(name: &str) -> Option<(&'static str, RustlsCall)> {
    // Of a program's symbols most are turned away by these two bytes.
    if !name.starts_with("_ZN") && !name.starts_with("_R") {
        return None;
    }
    if !RUSTLS_MODULES.iter().any(|module| name.contains(module)) {
        return None;
    }
    RUSTLS
        .iter()
        .find(|(parts, _, _)| parts.iter().all(|part| name.contains(part)))
        .map(|(_, name, call)| (*name, *call))
}

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFunction {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub role: Role,
    /// Where in the file the probe goes.
    pub offset: u64,
    /// How the place was chosen.
    pub placement: Placement,
}

/// What a file holds of TLS libraries; empty of most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The libraries.
    pub libraries: Vec<Library>,
    /// What to probe, in the order of their addresses.
    pub functions: Vec<TlsFunction>,
}

/// A mapped file that holds a TLS library.
pub type TlsObject = ProbedObject<TlsFacts>;

impl TlsObject {
    /// The libraries in it and its path, such as
    /// `OpenSSL (/usr/lib/x86_64-linux-gnu/libssl.so.3)`.
    pub fn describe(&self) -> String {
        let names: Vec<String> = self
            .facts
            .libraries
            .iter()
            .map(ToString::to_string)
            .collect();
        format!("{} ({})", names.join(" + "), self.path.display())
    }
}

/// Whether a function's name tells of a TLS library.
pub fn is_of_interest(name: &str) -> bool {
    name == BORING_MARK
        || FUNCTIONS.iter().any(|(known, _, _)| *known == name)
        || of_rustls(name).is_some()
}

/// What a file with these functions holds.
///
/// # Errors
/// Its code could not be read.
pub fn examine<R: Read + Seek>(
    file: &mut ElfFile<R>,
    symbols: &[Symbol],
) -> Result<TlsFacts, ElfError> {
    let has = |name: &str| symbols.iter().any(|symbol| symbol.name == name);
    let whole = |library: Library| match library {
        Library::OpenSsl | Library::BoringSsl => has("SSL_read") && has("SSL_write"),
        Library::GnuTls => has("gnutls_record_recv") && has("gnutls_record_send"),
        Library::Rustls => {
            let calls = || symbols.iter().filter_map(|symbol| of_rustls(&symbol.name));
            calls().any(|(_, call)| call == RustlsCall::Received)
                && calls()
                    .any(|(_, call)| matches!(call, RustlsCall::SendSlice | RustlsCall::SendChunks))
        }
    };
    let mut facts = TlsFacts::default();
    // One name for each address: forms may share their code.
    let mut chosen: BTreeMap<u64, (&Symbol, &'static str, Library, Role)> = BTreeMap::new();
    for (name, library, role) in FUNCTIONS {
        if !whole(library) {
            continue;
        }
        for symbol in symbols.iter().filter(|symbol| symbol.name == name) {
            chosen
                .entry(symbol.address)
                .or_insert((symbol, name, library, role));
        }
    }
    if whole(Library::Rustls) {
        for symbol in symbols {
            if let Some((name, call)) = of_rustls(&symbol.name) {
                let function = (symbol, name, Library::Rustls, Role::Rustls(call));
                chosen.entry(symbol.address).or_insert(function);
            }
        }
    }
    for (address, (symbol, name, library, role)) in chosen {
        let library = match library {
            Library::OpenSsl | Library::BoringSsl if has(BORING_MARK) => Library::BoringSsl,
            Library::OpenSsl | Library::BoringSsl | Library::GnuTls | Library::Rustls => library,
        };
        if !facts.libraries.contains(&library) {
            facts.libraries.push(library);
        }
        let len = match usize::try_from(symbol.size) {
            Ok(0) => place::SCAN_BYTES_UNSIZED,
            Ok(size) => size.min(place::SCAN_BYTES_MAX),
            Err(_) => place::SCAN_BYTES_MAX,
        };
        let code = file.code(address, len)?;
        let placement = place::choose(&code, address, file.facts().machine, role.needs());
        let offset = file
            .code_offset(address.wrapping_add(placement.offset))
            .unwrap_or(symbol.file_offset);
        facts.functions.push(TlsFunction {
            name,
            role,
            offset,
            placement,
        });
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_rustls_are_known_in_both_manglings() {
        let known = [
            (
                "_ZN6rustls12common_state11CommonState23take_received_plaintext17h9cdb5e78c8aa2a2aE",
                RustlsCall::Received,
            ),
            (
                "_ZN6rustls12common_state11CommonState19send_some_plaintext17h0123456789abcdefE",
                RustlsCall::SendSlice,
            ),
            (
                "_RNvMs2_NtCs9Zz1_6rustls12common_stateNtB5_11CommonState16buffer_plaintext",
                RustlsCall::SendChunks,
            ),
            (
                "_ZN4core3ptr56drop_in_place$LT$rustls..common_state..CommonState$GT$17h0E",
                RustlsCall::End,
            ),
            (
                "_RINvNtCs1_4core3ptr13drop_in_placeNtNtCs9_6rustls12common_state11CommonStateECs2_1x",
                RustlsCall::End,
            ),
        ];
        for (name, call) in known {
            assert_eq!(of_rustls(name).map(|(_, call)| call), Some(call), "{name}");
        }
        let others = [
            "_ZN6rustls6server11server_conn14EarlyDataState23take_received_plaintext17h56E",
            "_ZN6rustls12common_state11CommonState20send_appdata_encrypt17h0E",
            "16buffer_plaintext",
        ];
        for name in others {
            assert_eq!(of_rustls(name), None, "{name}");
        }
    }
}
