//! What a header block says: its fields come in, what is reported of a request,
//! a response or trailers goes out.
//!
//! Values of fields that are not reported do not get this far.

use crate::message::UNKNOWN;
use crate::protocol::{http1, target};

/// Names that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Of an entry that was not seen.
    Unknown,
    /// Not reported.
    Other,
    /// A pseudo-header that is not reported: `:scheme`, `:authority`,
    /// `:protocol`.
    Pseudo,
    Method,
    Path,
    Status,
    ContentType,
    GrpcStatus,
    Expect,
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Name {
        match name {
            b":method" => Name::Method,
            b":path" => Name::Path,
            b":status" => Name::Status,
            b"content-type" => Name::ContentType,
            b"grpc-status" => Name::GrpcStatus,
            b"expect" => Name::Expect,
            [b':', ..] => Name::Pseudo,
            _ => Name::Other,
        }
    }
}

/// A field as far as it is reported; `None` for a value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Refers to an entry that was not seen.
    Unknown,
    Other,
    Pseudo,
    /// `*` if it is not known by name.
    Method(Option<Box<str>>),
    /// Reduced; see [`target`].
    Path(Option<Box<str>>),
    Status(Option<u16>),
    /// Whether it is one of gRPC's.
    ContentType(Option<bool>),
    GrpcStatus(Option<u32>),
    /// Whether it is 100-continue.
    Expect(bool),
}

impl Field {
    /// A field with this name and value; `None` for a value that cannot be
    /// decoded.
    pub(super) fn read(name: Name, value: Option<&[u8]>) -> Field {
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        match name {
            Name::Unknown => Field::Unknown,
            Name::Other => Field::Other,
            Name::Pseudo => Field::Pseudo,
            Name::Method => {
                let name = |value| http1::method_name(http1::known_method(value));
                Field::Method(value.map(|value| name(value).into()))
            }
            Name::Path => Field::Path(value.map(|value| target::reduce(value, false).into())),
            Name::Status => Field::Status(
                text.filter(|text| text.len() == 3)
                    .and_then(|text| text.parse().ok())
                    .filter(|status| *status >= 100),
            ),
            Name::ContentType => {
                let is_grpc = |value: &[u8]| match value.strip_prefix(b"application/grpc") {
                    // `application/grpc-web` is another protocol.
                    Some(rest) => matches!(rest, [] | [b'+' | b';' | b' ', ..]),
                    None => false,
                };
                Field::ContentType(value.map(is_grpc))
            }
            Name::GrpcStatus => Field::GrpcStatus(text.and_then(|text| text.parse().ok())),
            Name::Expect => Field::Expect(value == Some(b"100-continue")),
        }
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Field::Unknown => Name::Unknown,
            Field::Other => Name::Other,
            Field::Pseudo => Name::Pseudo,
            Field::Method(_) => Name::Method,
            Field::Path(_) => Name::Path,
            Field::Status(_) => Name::Status,
            Field::ContentType(_) => Name::ContentType,
            Field::GrpcStatus(_) => Name::GrpcStatus,
            Field::Expect(_) => Name::Expect,
        }
    }

    /// Bytes of the value that are kept.
    pub(super) fn kept_len(&self) -> usize {
        match self {
            Field::Method(Some(text)) | Field::Path(Some(text)) => text.len(),
            Field::Unknown
            | Field::Other
            | Field::Pseudo
            | Field::Method(None)
            | Field::Path(None)
            | Field::Status(_)
            | Field::ContentType(_)
            | Field::GrpcStatus(_)
            | Field::Expect(_) => 0,
        }
    }
}

/// What the fields of a block say together.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    method: Option<Box<str>>,
    path: Option<Box<str>>,
    /// The status code of a response.
    pub(super) status: Option<u16>,
    /// It is a gRPC call.
    pub(super) grpc: bool,
    /// How a gRPC call ended.
    pub(super) grpc_status: Option<u32>,
    /// `expect: 100-continue`
    pub(super) expect_continue: bool,
    /// It has one of a request's pseudo-headers: it is no trailers.
    pub(super) opens_request: bool,
    /// Fields there were.
    pub(super) fields: u32,
    /// Some of them are not known.
    pub(super) unknown: bool,
    /// Its end was not seen.
    pub(super) cut: bool,
}

impl Head {
    pub(super) fn add(&mut self, field: &Field) {
        self.fields = self.fields.saturating_add(1);
        match field {
            Field::Unknown => self.unknown = true,
            Field::Other => {}
            Field::Pseudo => self.opens_request = true,
            Field::Method(method) => {
                self.method.clone_from(method);
                self.opens_request = true;
            }
            Field::Path(path) => {
                self.path.clone_from(path);
                self.opens_request = true;
            }
            Field::Status(status) => self.status = *status,
            Field::ContentType(grpc) => self.grpc = *grpc == Some(true),
            Field::GrpcStatus(status) => self.grpc_status = *status,
            Field::Expect(is_continue) => self.expect_continue = *is_continue,
        }
    }

    /// The request's method.
    pub(super) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or(UNKNOWN)
    }

    /// The request's target. Of a tunnel it is an authority, which is not shown
    /// (RFC 9113, 8.5).
    pub(super) fn target(&self) -> &str {
        match &self.path {
            Some(path) => path,
            None if self.method() == "CONNECT" && !self.unknown && !self.cut => "{authority}",
            None => UNKNOWN,
        }
    }
}
