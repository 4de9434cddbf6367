//! A certificate authority for the tests: the node's serving certificate and clients'.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Pki {
    pub fn new() -> Pki {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("root").der().clone();
        Pki { issuer: Issuer::new(params, key), root }
    }

    fn leaf(&self, names: &[&str], common_name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let made = params.signed_by(&key, &self.issuer).expect("certificate");
        (made.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("root");
        roots
    }

    /// TLS for the node.
    pub fn server(&self) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let verifier = verifier.allow_unauthenticated().build().expect("verifier");
        let (certificate, key) = self.leaf(&["node"], "node");
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_client_cert_verifier(verifier);
        Arc::new(config.with_single_cert(vec![certificate], key).expect("tls"))
    }

    /// TLS for a client: `user` by certificate, or nobody.
    pub fn client(&self, user: Option<&str>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(self.roots());
        Arc::new(match user {
            None => config.with_no_client_auth(),
            Some(user) => {
                let (certificate, key) = self.leaf(&[], user);
                config.with_client_auth_cert(vec![certificate], key).expect("client certificate")
            }
        })
    }
}
