//! A thread for each connection, on blocking sockets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Failure, PAUSE, allocate, answer, halved};

/// Serves for ever.
pub fn serve(config: &Arc<ServerConfig>, port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for stream in listener.incoming() {
        let (config, stream) = (Arc::clone(config), stream?);
        // A client that goes away ends its thread, not the server.
        std::thread::spawn(move || talk(config, stream));
    }
    Ok(())
}

fn talk(config: Arc<ServerConfig>, stream: TcpStream) -> Result<(), Failure> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..got]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&request);
        let path = text.split(' ').nth(1).unwrap_or_default();
        if let Some(bytes) = halved(path) {
            allocate(bytes);
            std::thread::sleep(PAUSE);
            allocate(bytes);
        }
        let (status, body) = answer(path);
        let persists = text.contains(" HTTP/1.1\r\n");
        request.clear();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} As It Is\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        stream.flush()?;
        if !persists {
            stream.conn.send_close_notify();
            stream.flush()?;
            return Ok(());
        }
    }
}
