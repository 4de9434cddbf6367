//! Where etcd is and how we prove who we are.

use crate::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One of `--etcd-servers`.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `host:port`.
    pub(super) address: Box<str>,
    server_name: Option<ServerName<'static>>,
}

impl Endpoint {
    /// `http://host:port` or `https://host:port`.
    pub(super) fn parse(text: &str) -> Result<Endpoint, Error> {
        let bad = || Error::Configuration(format!("{text:?} is not the URL of an etcd server").into());
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let server_name = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(ServerName::try_from(host.to_owned()).map_err(|_| bad())?),
            _ => return Err(bad()),
        };
        let port = authority.port_u16().unwrap_or(2379);
        let address = format!("{}:{port}", authority.host()).into();
        Ok(Endpoint { address, server_name })
    }

    pub(super) fn base(&self) -> String {
        let scheme = if self.server_name.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        self.server_name.clone()
    }
}

/// The files of a TLS client. They are read at every connection, so that they may be replaced at any time.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whom to trust (`--etcd-cafile`).
    pub ca_file: Option<PathBuf>,
    /// Who we are (`--etcd-certfile`, `--etcd-keyfile`).
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Tls {
    pub(super) async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config().map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Whether the files are there and fit.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<ClientConfig, Error> {
        let fail = |what: &str, error: &dyn std::fmt::Display| Error::Configuration(format!("{what}: {error}").into());
        let path = |file: &Option<PathBuf>| file.as_ref().map_or_else(String::new, |path| path.display().to_string());
        let Some(ca) = &self.ca_file else {
            return Err(Error::Configuration("an https etcd server needs --etcd-cafile".into()));
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| fail(&path(&self.ca_file), &e))? {
            let certificate = certificate.map_err(|e| fail(&path(&self.ca_file), &e))?;
            roots.add(certificate).map_err(|e| fail(&path(&self.ca_file), &e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| fail("TLS", &e))?
            .with_root_certificates(roots);
        let mut config = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_file_iter(certificate).and_then(|certificates| certificates.collect());
                let chain = chain.map_err(|e| fail(&path(&self.certificate_file), &e))?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(&path(&self.key_file), &e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| fail(&path(&self.certificate_file), &e))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(Error::Configuration("--etcd-certfile and --etcd-keyfile go together".into())),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, address, base) in [
            ("http://127.0.0.1:2379", "127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("https://etcd.example", "etcd.example:2379", "https://etcd.example:2379"),
            ("https://[::1]:7", "[::1]:7", "https://[::1]:7"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((&*endpoint.address, &*endpoint.base()), (address, base));
        }
        for bad in ["", "127.0.0.1:2379", "ftp://a", "unix://x", "http://"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
