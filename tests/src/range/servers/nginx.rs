//! nginx: files, a proxy, and a web server in front of FastCGI.
//!
//! In: locations. Out: subjects, and nginx in front of others. nginx runs no
//! code of the user's; what a request allocates is known by the size of its
//! buffers, which each location sets.

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::{directory, php};
use crate::paths;
use crate::process::{self, wait_until};
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, Serving, free_port};
use crate::shim::CountingShim;

/// Large beside the 8 KiB or so that nginx needs for any request.
const BUFFERS: [u64; 3] = [1_000_000, 1_500_000, 2_200_000];

/// The nginx subjects.
pub fn subjects() -> Vec<Subject> {
    let subject = |name, model, endpoints, start| Subject {
        name,
        model,
        bytes: Bytes::Libc,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints,
        start,
    };
    vec![
        subject("nginx static", "event loop", files, |backends| {
            let server = start(FILES, backends.shim())?;
            Ok(Started::direct(
                server,
                Vec::new(),
                Counts::Log("access.log"),
            ))
        }),
        Subject {
            driver: Driver::Https2,
            lengths: Lengths::InOrder,
            ..subject(
                "nginx HTTP/2 TLS",
                "event loop, TLS, streams",
                files,
                |backends| {
                    let certificate = backends.certificate();
                    let locations = format!(
                        "ssl_certificate {}; ssl_certificate_key {}; {FILES}",
                        certificate.certificate().display(),
                        certificate.key().display()
                    );
                    let server = start_speaking("ssl http2", &locations, backends.shim())?;
                    Ok(Started::direct(
                        server,
                        Vec::new(),
                        Counts::Log("access.log"),
                    ))
                },
            )
        },
        subject(
            "nginx proxy",
            "event loop, upstream HTTP",
            || {
                vec![
                    Endpoint::overhead("/plain"),
                    Endpoint::fixed("/small/alloc/1000", BUFFERS[0]),
                    Endpoint::fixed("/medium/later/1000", BUFFERS[1]),
                    Endpoint::fixed("/large/later/1000", BUFFERS[2]),
                ]
            },
            |backends| {
                let backend = Server::alloc_server(Serving::Epoll, None)?;
                let port = backend.port();
                let to = |path: &str, buffer: u64| {
                    format!(
                        "location {path} {{ proxy_pass http://127.0.0.1:{port}/; \
                         proxy_buffer_size {buffer}; proxy_buffers 8 {buffer}; }}"
                    )
                };
                let server = start(&locations(to), backends.shim())?;
                Ok(Started::direct(
                    server,
                    vec![backend],
                    Counts::Log("access.log"),
                ))
            },
        ),
        subject(
            "nginx FastCGI",
            "event loop, upstream FastCGI",
            || {
                vec![
                    Endpoint::overhead("/plain"),
                    Endpoint::fixed("/small/freed/1000", BUFFERS[0]),
                    Endpoint::fixed("/medium/sleep/1000", BUFFERS[1]),
                    Endpoint::fixed("/large/cache/1000", BUFFERS[2]),
                ]
            },
            |backends| {
                let backend = php::fpm(backends)?;
                let port = backend.port();
                let to = |path: &str, buffer: u64| {
                    format!(
                        "location ~ ^{path}(?<rest>.*)$ {{ {} fastcgi_param REQUEST_URI /$rest; \
                         fastcgi_buffer_size {buffer}; fastcgi_buffers 8 {buffer}; }}",
                        php::pass(port)
                    )
                };
                let server = start(&locations(to), backends.shim())?;
                Ok(Started::direct(
                    server,
                    vec![backend],
                    Counts::Log("access.log"),
                ))
            },
        ),
    ]
}

/// A file is read into one buffer as large as itself.
const FILES: &str = "sendfile off; output_buffers 1 4m; location /plain { return 200 plain; }";

fn files() -> Vec<Endpoint> {
    let [small, medium, large] = BUFFERS;
    vec![
        Endpoint::overhead("/plain"),
        Endpoint::fixed("/small.bin", small),
        Endpoint::fixed("/medium.bin", medium),
        Endpoint::fixed("/large.bin", large),
    ]
}

fn locations(to: impl Fn(&str, u64) -> String) -> String {
    let [small, medium, large] = BUFFERS;
    format!(
        "location /plain {{ return 200 plain; }} {} {} {}",
        to("/small/", small),
        to("/medium/", medium),
        to("/large/", large)
    )
}

/// nginx with these locations; ready when both workers run.
pub fn start(locations: &str, shim: Option<&CountingShim>) -> anyhow::Result<Server> {
    start_speaking("", locations, shim)
}

/// The same; `protocols` is what `listen` says beyond the port.
fn start_speaking(
    protocols: &str,
    locations: &str,
    shim: Option<&CountingShim>,
) -> anyhow::Result<Server> {
    let directory = directory("nginx")?;
    let port = free_port()?;
    let source = paths::program_source("range/nginx/nginx.conf");
    let configuration = fs::read_to_string(&source)
        .with_context(|| format!("cannot read {}", source.display()))?
        .replace("{{directory}}", &directory.path().to_string_lossy())
        .replace("{{port}}", &port.to_string())
        .replace("{{protocols}}", protocols)
        .replace("{{locations}}", locations);
    let path = directory.path().join("nginx.conf");
    fs::write(&path, configuration).context("cannot write nginx's configuration")?;
    let files = directory.path().join("www");
    fs::create_dir(&files)?;
    for (name, bytes) in ["small.bin", "medium.bin", "large.bin"].iter().zip(BUFFERS) {
        fs::write(files.join(name), vec![b'x'; usize::try_from(bytes)?])?;
    }
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
    // Else it opens the system's error log before it reads its configuration.
    command.arg("-e").arg(directory.path().join("error.log"));
    let server = Server::start("nginx", command, directory, port, shim)?;
    wait_until("nginx's two workers", || {
        Ok(process::children(server.pid()).len() == 2)
    })?;
    Ok(server)
}
