//! The client of the range: many connections, each asking for whatever is next
//! in the plan.
//!
//! In: a port and a [`Plan`]. Out: [`Sent`]: the answers, and how many bytes each
//! request had on the wire, by which it is found again: no two requests of an
//! endpoint are equally long. A request that fails, or has another status than
//! 200, fails the run. Deliberately not here: judging.

mod http2;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, anyhow, bail};
use rustls::ClientConfig;

use crate::client::{RawConnection, SERVER_NAME, Stream};
use crate::range::certificate::Certificate;
use crate::range::endpoint::{Plan, Request};
use crate::server::RequestCounts;
use http2::Http2;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// HTTP/1.1, connections kept as long as the server keeps them.
    Http1,
    /// The same within TLS.
    Https1,
    /// HTTP/2 with prior knowledge, up to `STREAMS` requests on a connection at
    /// once.
    Http2,
    /// The same within TLS.
    Https2,
}

/// Requests at once on an HTTP/2 connection.
const STREAMS: usize = 8;

/// What was sent: for each request of the plan, in its order.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Bytes of the request on the wire, before encryption.
    pub request_bytes: Vec<u64>,
    /// Status of the answer.
    pub statuses: Vec<u16>,
}

impl Sent {
    /// What the server should have counted.
    #[must_use]
    pub fn counts(&self, plan: &Plan) -> RequestCounts {
        let mut counts = RequestCounts::new();
        for (request, status) in plan.requests.iter().zip(&self.statuses) {
            *counts
                .entry(request.path.clone())
                .or_default()
                .entry(status.to_string())
                .or_default() += 1;
        }
        counts
    }
}

/// Length of the shortest request.
const REQUEST_BYTES_MIN: usize = 160;

/// What the next request of its endpoint is longer by: FastCGI pads its records
/// to multiples of eight, and of two requests the longer one should stay it.
const REQUEST_BYTES_STEP: usize = 8;

/// The request's head, as long as its number says.
fn head(path: &str, number: usize) -> anyhow::Result<String> {
    let opening = format!("GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nX-Length: ");
    let padding = (REQUEST_BYTES_MIN + number * REQUEST_BYTES_STEP)
        .checked_sub(opening.len() + "\r\n\r\n".len())
        .with_context(|| format!("{path} is too long a path"))?;
    Ok(format!("{opening}{}\r\n\r\n", "x".repeat(padding)))
}

/// The length of a request and the status of its answer.
type Answer = (u64, u16);

/// What the clients of a run share.
struct Run<'a> {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    plan: &'a Plan,
    next: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

impl Driver {
    /// Asks everything in the plan, so many requests at once.
    pub fn drive(
        self,
        port: u16,
        certificate: &Certificate,
        plan: &Plan,
        clients: usize,
    ) -> anyhow::Result<Sent> {
        let run = Run {
            port,
            tls: self.tls(certificate)?,
            plan,
            next: AtomicUsize::new(0),
            answers: Mutex::new(vec![(0, 0); plan.requests.len()]),
        };
        match self {
            Self::Http1 | Self::Https1 => run.over(clients, Run::http1)?,
            Self::Http2 | Self::Https2 => {
                let streams = clients.min(STREAMS);
                run.over(clients / streams, |run| run.http2(streams))?;
            }
        }
        let answers = run
            .answers
            .into_inner()
            .map_err(|_| anyhow!("a client of the range panicked"))?;
        let (request_bytes, statuses) = answers.into_iter().unzip();
        Ok(Sent {
            request_bytes,
            statuses,
        })
    }

    /// The body of one path, over a connection of its own.
    pub fn get(self, port: u16, certificate: &Certificate, path: &str) -> anyhow::Result<Vec<u8>> {
        let tls = self.tls(certificate)?;
        match self {
            Self::Http1 | Self::Https1 => {
                let response = RawConnection::open_with(port, tls.as_ref())?.get(path)?;
                if response.status != 200 {
                    bail!("{path} answered {}", response.head);
                }
                Ok(response.body)
            }
            Self::Http2 | Self::Https2 => {
                let mut connection = Http2::new(Stream::open(port, tls.as_ref())?)?;
                connection.ask(0, path, 0)?;
                Ok(connection.answer()?.1)
            }
        }
    }

    fn tls(self, certificate: &Certificate) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        match self {
            Self::Http1 | Self::Http2 => Ok(None),
            Self::Https1 => certificate.client("http/1.1").map(Some),
            Self::Https2 => certificate.client("h2").map(Some),
        }
    }
}

impl Run<'_> {
    /// So many connections at once; the first failure is that of the run.
    fn over(
        &self,
        connections: usize,
        client: impl Fn(&Self) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let running: Vec<_> = (0..connections)
                .map(|_| scope.spawn(|| client(self)))
                .collect();
            running.into_iter().try_for_each(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a client of the range panicked")))
            })
        })
    }

    fn next(&self) -> Option<(usize, &Request)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        Some((index, self.plan.requests.get(index)?))
    }

    fn answered(&self, index: usize, answer: Answer) {
        if let Ok(mut answers) = self.answers.lock() {
            answers[index] = answer;
        }
    }

    fn http1(&self) -> anyhow::Result<()> {
        let mut connection = None;
        while let Some((index, request)) = self.next() {
            let open = match connection.take() {
                Some(open) => open,
                None => RawConnection::open_with(self.port, self.tls.as_ref())?,
            };
            connection = self
                .ask(open, index, request)
                .with_context(|| format!("asking for {}", request.path))?;
        }
        Ok(())
    }

    /// Asks and reads the answer; the connection, if the server keeps it.
    fn ask(
        &self,
        mut connection: RawConnection,
        index: usize,
        request: &Request,
    ) -> anyhow::Result<Option<RawConnection>> {
        let head = head(&request.path, request.number)?;
        connection.send(&head)?;
        let response = connection.response_to("GET")?;
        if response.status != 200 {
            let body = String::from_utf8_lossy(&response.body);
            bail!("{}: {body}", response.head);
        }
        self.answered(index, (head.len() as u64, response.status));
        let closes = response
            .head
            .lines()
            .any(|line| line.eq_ignore_ascii_case("connection: close"));
        Ok((!closes).then_some(connection))
    }

    fn http2(&self, streams: usize) -> anyhow::Result<()> {
        let mut connection = Http2::new(Stream::open(self.port, self.tls.as_ref())?)?;
        loop {
            while connection.in_flight() < streams {
                let Some((index, request)) = self.next() else {
                    break;
                };
                let padding = request.number * REQUEST_BYTES_STEP;
                let bytes = connection.ask(index, &request.path, padding)?;
                // Any other status is an error.
                self.answered(index, (bytes, 200));
            }
            if connection.in_flight() == 0 {
                return Ok(());
            }
            connection.answer()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_of_an_endpoint_has_its_own_length() -> anyhow::Result<()> {
        assert_eq!(head("/plain", 0)?.len(), REQUEST_BYTES_MIN);
        assert_eq!(
            head("/freed/6000000", 79)?.len(),
            REQUEST_BYTES_MIN + 79 * 8
        );
        assert!(head("/plain", 0)?.ends_with("x\r\n\r\n"));
        assert!(head(&"/x".repeat(100), 0).is_err());
        Ok(())
    }
}
