//! An HTTPS server on rustls: `rustls_server PORT KEY CERTIFICATE`.
//!
//! In: GET requests, a thread for each keep-alive connection. Out:
//! `/alloc/N` allocates N bytes and gives them back; anything else is answered
//! as well. Deliberately not here: robustness beyond a test's.

use std::error::Error;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Failure = Box<dyn Error + Send + Sync>;

fn serve(config: Arc<ServerConfig>, stream: TcpStream) -> Result<(), Failure> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        request.extend_from_slice(buffer.get(..got).unwrap_or_default());
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&request).into_owned();
        if let Some(rest) = head.strip_prefix("GET /alloc/") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            black_box(vec![1u8; digits.parse()?]);
        }
        request.clear();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n")?;
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, key, certificate] = &arguments[..] else {
        return Err("usage: rustls_server PORT KEY CERTIFICATE".into());
    };
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    for stream in listener.incoming() {
        let (config, stream) = (Arc::clone(&config), stream?);
        // A client that goes away ends its thread, not the server.
        std::thread::spawn(move || serve(config, stream));
    }
    Ok(())
}
