//! A task for each connection, on two threads of a pool.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{Failure, PAUSE, allocate, answer, halved};

/// Serves for ever.
pub fn serve(config: ServerConfig, port: u16) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            // A client that goes away ends its task, not the server.
            tokio::spawn(talk(acceptor.clone(), stream));
        }
    })
}

async fn talk(acceptor: TlsAcceptor, stream: TcpStream) -> Result<(), Failure> {
    // The session moves from here into the connection.
    let stream = acceptor.accept(stream).await?;
    Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .await
}

async fn respond(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let path = request.uri().path();
    if let Some(bytes) = halved(path) {
        allocate(bytes);
        tokio::time::sleep(PAUSE).await;
        allocate(bytes);
    }
    let (status, body) = answer(path);
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    Ok(response)
}
