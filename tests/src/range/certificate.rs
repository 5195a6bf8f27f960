//! A certificate for the TLS servers of the range.
//!
//! In: nothing. Out: a key and a certificate, signed by an authority made for
//! the purpose, and what a client needs to trust it. All of it is gone with the
//! value. Deliberately not here: connections.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::client::SERVER_NAME;

/// A server's key and certificate, and who trusts it.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
    roots: RootCertStore,
}

impl Certificate {
    /// Makes one, for [`SERVER_NAME`].
    pub fn new() -> anyhow::Result<Self> {
        let directory = TempDir::new().context("no directory for a certificate")?;
        let openssl = |arguments: &[&str]| -> anyhow::Result<()> {
            let output = Command::new("openssl")
                .args(["req", "-x509", "-noenc", "-days", "2"])
                .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(arguments)
                .current_dir(directory.path())
                .output()
                .context("cannot run openssl: run `cargo xtask setup`")?;
            if !output.status.success() {
                bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        };
        openssl(&[
            "-subj",
            "/CN=range authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ])?;
        let name = format!("/CN={SERVER_NAME}");
        let names = format!("subjectAltName=DNS:{SERVER_NAME}");
        openssl(&[
            "-subj",
            &name,
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
        ])?;
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(directory.path().join("ca.pem"))
            .context("openssl made no certificate")?;
        roots.add(authority).context("openssl made no authority")?;
        Ok(Self { directory, roots })
    }

    /// The file of the key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }

    /// The file of the certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }

    /// A client that trusts it and speaks this protocol (`h2`, `http/1.1`).
    pub fn client(&self, protocol: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no TLS version")?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Arc::new(client))
    }
}
