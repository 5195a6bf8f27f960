//! An HTTPS server on rustls: `rustls_server MODEL PORT KEY CERTIFICATE`.
//!
//! In: GET requests, over HTTP/1.1 and, from tasks, over HTTP/2. Out:
//! `/alloc/N` allocates N bytes and gives them back, `/keep/N` keeps them,
//! `/sleep/N` allocates half of them before it sleeps and half after;
//! `/count` tells how many requests were answered but for such. The model is
//! `threads`, a thread for each connection on blocking sockets, or `tasks`: hyper
//! on a pool of tokio's threads. Deliberately not here: robustness beyond a test's.

mod tasks;
mod threads;

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

type Failure = Box<dyn Error + Send + Sync>;

static ANSWERED: AtomicU64 = AtomicU64::new(0);
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// How long `/sleep/N` sleeps.
const PAUSE: Duration = Duration::from_millis(5);

/// Half of the bytes that a request allocates in two halves.
fn halved(path: &str) -> Option<usize> {
    let bytes: usize = path.strip_prefix("/sleep/")?.parse().ok()?;
    Some(bytes / 2)
}

/// Allocates so many bytes and gives them back.
fn allocate(bytes: usize) {
    drop(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// The answer to a request for this path: its status and its body.
fn answer(path: &str) -> (u16, String) {
    if path == "/count" {
        return (200, format!("{}\n", ANSWERED.load(Ordering::Relaxed)));
    }
    ANSWERED.fetch_add(1, Ordering::Relaxed);
    let bytes = |prefix| Some(path.strip_prefix(prefix)?.parse().unwrap_or(0));
    if let Some(bytes) = bytes("/alloc/") {
        allocate(bytes);
    } else if let Some(bytes) = bytes("/keep/") {
        let block = black_box(Vec::with_capacity(bytes));
        KEPT.lock().expect("no thread has failed").push(block);
    } else if !path.starts_with("/sleep/") {
        return (404, "no such thing\n".to_owned());
    }
    (200, "done\n".to_owned())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, port, key, certificate] = &arguments[..] else {
        return Err("usage: rustls_server threads|tasks PORT KEY CERTIFICATE".into());
    };
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
    let port = port.parse()?;
    match &**model {
        "threads" => threads::serve(&Arc::new(config), port),
        "tasks" => {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            tasks::serve(config, port)
        }
        _ => Err("the model is threads or tasks".into()),
    }
}
