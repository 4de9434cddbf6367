//! The cluster's own certificate authority and what it signs: created once, kept in a directory under kubeadm's names,
//! renewed when close to expiry or when the names they must cover change. Keys are P-256 and readable by their owner only.

use base64::Engine;
use canopus_api::Time;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: u64 = 24 * 3600;
const CA_LIFETIME: Duration = Duration::from_secs(3650 * DAY);
const LIFETIME: Duration = Duration::from_secs(365 * DAY);
/// A certificate that expires within this time is renewed at the next start.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * DAY);
/// Clocks of other hosts may be behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The name in the certificate that vouches for names in headers.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to access {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is missing, though the other half of the pair is there")]
    Half(PathBuf),
    #[error("{path} is not usable: {why}")]
    Unusable { path: PathBuf, why: String },
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("failed to set up TLS: {0}")]
    Tls(String),
}

type Result<T> = std::result::Result<T, Error>;

/// A certificate and its private key, in PEM: what a kubeconfig embeds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

pub struct Pki {
    dir: PathBuf,
    now: Time,
    ca_pem: String,
    /// The CA's subject key identifier: certificates of another CA are replaced.
    ca_id: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
struct Wanted<'a> {
    /// Its files are `file.crt` and `file.key`.
    file: &'a str,
    common_name: &'a str,
    organizations: &'a [&'a str],
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    usage: ExtendedKeyUsagePurpose,
}

impl Pki {
    /// The authority in `dir`, made if there is none yet.
    pub fn open(dir: &Path, now: Time) -> Result<Pki> {
        Pki::open_as(dir, now, "ca", "kubernetes")
    }

    /// The authority that vouches for who passes on somebody's name in headers, beside the other one. It must be another:
    /// who holds one of its certificates may be anybody.
    pub fn open_front_proxy(dir: &Path, now: Time) -> Result<Pki> {
        Pki::open_as(dir, now, "front-proxy-ca", "front-proxy-ca")
    }

    fn open_as(dir: &Path, now: Time, file: &str, common_name: &str) -> Result<Pki> {
        fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.into(), source })?;
        let (crt, key) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        let (ca_pem, key) = match (read(&crt)?, read(&key)?) {
            (Some(ca_pem), Some(pem)) => (ca_pem, load_key(&key, &pem)?),
            (None, None) => {
                let pair = KeyPair::generate()?;
                let pem = authority(now, common_name).self_signed(&pair)?.pem();
                write(&key, &pair.serialize_pem(), 0o600)?;
                write(&crt, &pem, 0o644)?;
                (pem, pair)
            }
            (None, Some(_)) => return Err(Error::Half(crt)),
            (Some(_), None) => return Err(Error::Half(key)),
        };
        let unusable = |why: String| Error::Unusable { path: crt.clone(), why };
        let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| unusable(e.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| unusable(e.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(unusable(format!("it does not belong to {file}.key")));
        }
        let ca_id = key_identifier(&parsed).unwrap_or_default();
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Pki { dir: dir.into(), now, ca_pem, ca_id, issuer })
    }

    /// The CA's certificate, in PEM: `ca.crt` in pods, `certificate-authority-data` in a kubeconfig.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// The authority's own key identifier.
    pub(crate) fn ca_id(&self) -> &[u8] {
        &self.ca_id
    }

    pub(crate) fn ca_der(&self) -> Result<CertificateDer<'static>> {
        let unusable = |e: rustls_pki_types::pem::Error| Error::Unusable { path: "ca.crt".into(), why: e.to_string() };
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(unusable)
    }

    /// The API server's serving certificate, for its well-known names and `addresses` (the service IP among them).
    pub fn api_server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Identity> {
        let well_known = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let names = well_known.iter().map(|n| n.to_string()).chain(names.iter().cloned()).collect();
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        self.identity(&Wanted {
            file: "apiserver",
            common_name: "kube-apiserver",
            organizations: &[],
            names,
            addresses: loopback.into_iter().chain(addresses.iter().copied()).collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        })
    }

    /// The administrator's client certificate.
    pub fn admin(&self) -> Result<Identity> {
        self.client("admin", "kubernetes-admin", &["system:masters"])
    }

    /// What the API server shows to nodes.
    pub fn kubelet_client(&self) -> Result<Identity> {
        self.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])
    }

    /// A node's client certificate, for nodes that speak to the API over the network.
    pub fn node_client(&self, node: &str) -> Result<Identity> {
        self.client(&format!("node-{node}-client"), &format!("system:node:{node}"), &["system:nodes"])
    }

    /// A node's serving certificate, for its port 10250.
    pub fn kubelet_serving(&self, node: &str, addresses: &[IpAddr]) -> Result<Identity> {
        self.identity(&Wanted {
            file: &format!("node-{node}-serving"),
            common_name: &format!("system:node:{node}"),
            organizations: &["system:nodes"],
            names: vec![node.into()],
            addresses: addresses.to_vec(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        })
    }

    /// What the API server shows to extension servers when it says in headers who asks. Of the front-proxy authority.
    pub fn front_proxy_client(&self) -> Result<Identity> {
        self.client(FRONT_PROXY_CLIENT, FRONT_PROXY_CLIENT, &[])
    }

    /// Any client certificate, kept under `file`.
    pub fn client(&self, file: &str, common_name: &str, organizations: &[&str]) -> Result<Identity> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.identity(&Wanted { file, common_name, organizations, names: vec![], addresses: vec![], usage })
    }

    /// The private key that signs service-account tokens, as PKCS#8 PEM.
    pub fn service_account_key(&self) -> Result<String> {
        let path = self.dir.join("sa.key");
        if let Some(pem) = read(&path)? {
            load_key(&path, &pem)?;
            return Ok(pem);
        }
        let pair = KeyPair::generate()?;
        write(&path, &pair.serialize_pem(), 0o600)?;
        write(&self.dir.join("sa.pub"), &pair.public_key_pem(), 0o644)?;
        Ok(pair.serialize_pem())
    }

    fn identity(&self, wanted: &Wanted) -> Result<Identity> {
        if !wanted.file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(Error::Unusable { path: wanted.file.into(), why: "not a good name for a file".into() });
        }
        let crt = self.dir.join(format!("{}.crt", wanted.file));
        let key = self.dir.join(format!("{}.key", wanted.file));
        if let (Some(certificate_pem), Some(key_pem)) = (read(&crt)?, read(&key)?)
            && self.still_good(&certificate_pem, &key_pem, wanted)
        {
            return Ok(Identity { certificate_pem, key_pem });
        }
        let pair = KeyPair::generate()?;
        let params = leaf(wanted, self.now)?;
        let certificate_pem = params.signed_by(&pair, &self.issuer)?.pem();
        let key_pem = pair.serialize_pem();
        write(&key, &key_pem, 0o600)?;
        write(&crt, &certificate_pem, 0o644)?;
        Ok(Identity { certificate_pem, key_pem })
    }

    /// Whether a certificate found on disk is of this CA, says what is wanted and lasts a while.
    fn still_good(&self, certificate_pem: &str, key_pem: &str, wanted: &Wanted) -> bool {
        let Ok(key) = KeyPair::from_pem(key_pem) else { return false };
        let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else { return false };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
        let validity = certificate.validity();
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        let mut authority = Vec::new();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(all) => {
                    for name in &all.general_names {
                        match name {
                            GeneralName::DNSName(name) => names.push((*name).to_string()),
                            GeneralName::IPAddress(ip) => addresses.extend(address(ip)),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
                }
                _ => {}
            }
        }
        let subject = certificate.subject();
        let text = |a: &x509_parser::x509::AttributeTypeAndValue| a.as_str().unwrap_or_default().to_string();
        let organizations: Vec<String> = subject.iter_organization().map(text).collect();
        validity.not_before.timestamp() <= self.now.unix()
            && validity.not_after.timestamp() > self.now.plus(RENEW_BEFORE).unix()
            && certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && authority == self.ca_id
            && subject.iter_common_name().map(text).eq([wanted.common_name])
            && organizations == wanted.organizations
            && sorted(&names) == sorted(&wanted.names)
            && sorted(&addresses) == sorted(&wanted.addresses)
    }
}

fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn key_identifier(certificate: &X509Certificate) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn lasting(params: &mut CertificateParams, now: Time, lifetime: Duration) {
    let start = Duration::from_secs(now.unix().unsigned_abs());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + start.saturating_sub(BACKDATED);
    params.not_after = epoch + start + lifetime;
}

fn authority(now: Time, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    lasting(&mut params, now, CA_LIFETIME);
    params
}

fn leaf(wanted: &Wanted, now: Time) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for organization in wanted.organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, wanted.common_name);
    for name in sorted(&wanted.names) {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.subject_alt_names.extend(sorted(&wanted.addresses).into_iter().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![wanted.usage.clone()];
    params.use_authority_key_identifier_extension = true;
    lasting(&mut params, now, LIFETIME);
    Ok(params)
}

/// One PEM section (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn load_key(path: &Path, pem: &str) -> Result<KeyPair> {
    KeyPair::from_pem(pem).map_err(|e| Error::Unusable { path: path.into(), why: e.to_string() })
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.into(), source }),
    }
}

/// All or nothing, and never readable by others on the way.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = |source| Error::File { path: path.into(), source };
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(tls)?).map_err(tls)?;
    }
    Ok(Arc::new(roots))
}

pub(crate) fn parts(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect();
    Ok((chain.map_err(tls)?, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(tls)?))
}

/// TLS for a server: HTTP/2 and HTTP/1.1; a client certificate is optional, but must be of `client_ca_pem` when shown.
pub fn server_config(identity: &Identity, client_ca_pem: &str) -> Result<Arc<rustls::ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client_ca_pem)?, provider());
    let verifier = verifier.allow_unauthenticated().build().map_err(tls)?;
    let (chain, key) = parts(identity)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for a client that trusts `ca_pem` and shows `identity`, if it has one. Offers no ALPN: add what you speak.
pub fn client_config(ca_pem: &str, identity: Option<&Identity>) -> Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots(ca_pem)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = parts(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(tls)
        }
    }
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
