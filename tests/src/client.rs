//! A client that says exactly the bytes it is given: pipelines, chunks, pieces
//! of heads, heads that are none, connections cut short.
//!
//! In: bytes. Out: [`Response`]s. Deliberately not here: building correct
//! requests, but for the shortest one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::process::DEADLINE;

/// One connection.
#[derive(Debug)]
pub struct RawConnection {
    stream: Stream,
    unread: Vec<u8>,
}

/// A connection's bytes, in TLS or not.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// The name by which TLS servers are asked for.
pub const SERVER_NAME: &str = "range.test";

impl Stream {
    /// Connects to a port of this machine; within TLS if a configuration says how.
    pub fn open(port: u16, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let Some(tls) = tls else {
            return Ok(Self::Plain(stream));
        };
        let name = ServerName::try_from(SERVER_NAME).context("the server's name is no name")?;
        let session = ClientConnection::new(Arc::clone(tls), name).context("no TLS session")?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// One final response (not 100).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head as it came, without the empty line.
    pub head: String,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
}

impl RawConnection {
    /// Connects to a port of this machine.
    pub fn open(port: u16) -> anyhow::Result<Self> {
        Self::open_with(port, None)
    }

    /// The same, within TLS if a configuration says how.
    pub fn open_with(port: u16, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        Ok(Self {
            stream: Stream::open(port, tls)?,
            unread: Vec::new(),
        })
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.stream
            .write_all(bytes.as_ref())
            .and_then(|()| self.stream.flush())
            .context("cannot send to the server")
    }

    /// Sends these pieces, with time for the server to read each by itself.
    /// Nothing may depend on its doing so: the pause makes it likely, no more.
    pub fn send_in_pieces<P: AsRef<[u8]>>(
        &mut self,
        pieces: impl IntoIterator<Item = P>,
    ) -> anyhow::Result<()> {
        for piece in pieces {
            self.send(piece)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks for a path and reads the answer.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        self.response_to("GET")
    }

    /// Reads the next final response; interim ones are passed over.
    pub fn response_to(&mut self, method: &str) -> anyhow::Result<Response> {
        loop {
            let head = self.head()?;
            let status: u16 = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .with_context(|| format!("no status in {head:?}"))?;
            if status == 100 {
                continue;
            }
            let has_body = method != "HEAD" && status >= 200 && status != 204 && status != 304;
            let body = if !has_body {
                Vec::new()
            } else if let Some(length) = header(&head, "content-length") {
                self.take(length.parse().context("a Content-Length that is none")?)?
            } else if header(&head, "transfer-encoding").is_some() {
                self.chunks()?
            } else {
                self.read_to_end()?
            };
            return Ok(Response { status, head, body });
        }
    }

    /// Reads so many bytes, whatever they mean.
    pub fn take(&mut self, bytes: usize) -> anyhow::Result<Vec<u8>> {
        while self.unread.len() < bytes {
            self.read_more()?;
        }
        Ok(self.unread.drain(..bytes).collect())
    }

    /// Reads until the server closes.
    pub fn read_to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.unread);
        self.stream
            .read_to_end(&mut bytes)
            .context("cannot read to the end")?;
        Ok(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> anyhow::Result<()> {
        self.stream
            .socket()
            .shutdown(Shutdown::Write)
            .context("cannot shut the connection down")
    }

    fn head(&mut self) -> anyhow::Result<String> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            self.read_more()?;
        };
        let head = self.take(end + 4)?;
        Ok(String::from_utf8_lossy(&head[..end]).into_owned())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                break end;
            }
            self.read_more()?;
        };
        let line = self.take(end + 2)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .with_context(|| format!("{line:?} is no chunk size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.line()?;
        }
    }

    fn read_more(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let bytes = self
            .stream
            .read(&mut buffer)
            .context("cannot read from the server")?;
        if bytes == 0 {
            bail!(
                "the server closed in the middle; {} bytes unread",
                self.unread.len()
            );
        }
        self.unread.extend_from_slice(&buffer[..bytes]);
        Ok(())
    }
}

/// Asks for a path over a connection of its own; the body of a 200.
pub fn get_body(port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut connection = RawConnection::open(port)?;
    connection.send(format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    ))?;
    let response = connection.response_to("GET")?;
    if response.status != 200 {
        bail!("{path} answered {}", response.head);
    }
    Ok(response.body)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
