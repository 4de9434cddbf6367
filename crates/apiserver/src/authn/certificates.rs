//! Client certificates: the common name is the user, every organization a group (upstream `x509.CommonNameUserConversion`).

use super::{Authenticator, Credentials, Unauthenticated};
use crate::surroundings::Surroundings;
use crate::user::User;
use compact_str::{CompactString, format_compact};
use parking_lot::{Mutex, RwLock};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates remembered, so that one is checked once and not on every request: those of more nodes than a cluster has.
const REMEMBERED: usize = 16 << 10;
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// A certificate may bear its user's uid (upstream's object identifier for it).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// Those whose certificates are believed: one or more certificates, which may change.
pub struct Authority(RwLock<Arc<Roots>>);

struct Roots {
    pem: Arc<str>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authority {
    /// Of certificates in PEM; "" believes nobody.
    pub fn new(pem: &str) -> Result<Arc<Authority>, String> {
        Ok(Arc::new(Authority(RwLock::new(roots(pem)?))))
    }

    /// From now on these are believed.
    pub fn replace(&self, pem: &str) -> Result<(), String> {
        let new = roots(pem)?;
        *self.0.write() = new;
        Ok(())
    }

    pub fn pem(&self) -> Arc<str> {
        self.0.read().pem.clone()
    }

    fn roots(&self) -> Arc<Roots> {
        self.0.read().clone()
    }
}

impl Roots {
    fn verify(&self, chain: &[CertificateDer<'static>], now: i64) -> Result<(), Unauthenticated> {
        let unknown = || Unauthenticated("x509: certificate signed by unknown authority".into());
        let verifier = self.verifier.as_ref().ok_or_else(unknown)?;
        let (leaf, intermediates) = chain.split_first().ok_or_else(unknown)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
        let checked = verifier.verify_client_cert(leaf, intermediates, now);
        checked.map(|_| ()).map_err(|e| Unauthenticated(format!("x509: {e}")))
    }
}

fn roots(pem: &str) -> Result<Arc<Roots>, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match store.is_empty() {
        true if pem.trim().is_empty() => None,
        true => return Err("no certificates found".into()),
        false => {
            let built = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
            Some(built.map_err(|e| e.to_string())?)
        }
    };
    Ok(Arc::new(Roots { pem: pem.into(), verifier }))
}

/// Whom certificates name, as far as an authority vouches for it. TLS has only seen that the client has the key.
pub struct ClientCertificates {
    clock: Arc<dyn Surroundings>,
    authority: Arc<Authority>,
    known: Mutex<Known>,
}

/// What holds while the authority stays the same.
#[derive(Default)]
struct Known {
    roots: Option<Arc<Roots>>,
    by_leaf: HashMap<Box<[u8]>, Arc<Identity>>,
}

#[derive(Debug, PartialEq)]
struct Identity {
    user: Arc<User>,
    /// Unix seconds.
    not_before: i64,
    not_after: i64,
}

impl ClientCertificates {
    pub fn new(clock: Arc<dyn Surroundings>, authority: Arc<Authority>) -> ClientCertificates {
        ClientCertificates { clock, authority, known: Mutex::default() }
    }

    /// The user of a verified certificate that is valid now. None: nobody's certificate.
    pub fn user(&self, chain: &[CertificateDer<'static>]) -> Result<Option<Arc<User>>, Unauthenticated> {
        let Some(leaf) = chain.first() else { return Ok(None) };
        let now = self.clock.now().unix();
        let roots = self.authority.roots();
        let identity = match self.remembered(&roots, leaf) {
            Some(known) => known,
            None => {
                roots.verify(chain, now)?;
                let Some(identity) = identity(leaf)?.map(Arc::new) else { return Ok(None) };
                let mut known = self.known.lock();
                if known.by_leaf.len() >= REMEMBERED {
                    known.by_leaf.clear();
                }
                if known.roots.as_ref().is_some_and(|r| Arc::ptr_eq(r, &roots)) {
                    known.by_leaf.insert(leaf.as_ref().into(), identity.clone());
                }
                identity
            }
        };
        if now < identity.not_before || now > identity.not_after {
            return Err(Unauthenticated("x509: certificate has expired or is not yet valid".into()));
        }
        Ok(Some(identity.user.clone()))
    }

    fn remembered(&self, roots: &Arc<Roots>, leaf: &[u8]) -> Option<Arc<Identity>> {
        let mut known = self.known.lock();
        if known.roots.as_ref().is_none_or(|r| !Arc::ptr_eq(r, roots)) {
            *known = Known { roots: Some(roots.clone()), ..Known::default() };
        }
        known.by_leaf.get(leaf).cloned()
    }
}

/// None: a certificate without a common name is nobody's.
fn identity(der: &[u8]) -> Result<Option<Identity>, Unauthenticated> {
    let bad = |e: String| Unauthenticated(format!("the client certificate cannot be read: {e}"));
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
    if certificate
        .extensions()
        .iter()
        .any(|e| matches!(e.parsed_extension(), ParsedExtension::BasicConstraints(basic) if basic.ca))
    {
        return Err(Unauthenticated("an authority's certificate is no client's".into()));
    }
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue| a.as_str().map(CompactString::from);
    // Of several common names the last counts, as in Go.
    let Some(name) = subject.iter_common_name().last() else { return Ok(None) };
    let name = text(name).map_err(|e| bad(e.to_string()))?;
    if name.is_empty() {
        return Ok(None);
    }
    let groups: Result<Vec<CompactString>, _> = subject.iter_organization().map(text).collect();
    let groups = groups.map_err(|e| bad(e.to_string()))?;
    let uids = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID_OID);
    let uids: Result<Vec<CompactString>, _> = uids.map(text).collect();
    let uid = match uids.map_err(|e| bad(e.to_string()))?.as_slice() {
        [] => CompactString::default(),
        [uid] if !uid.is_empty() => uid.clone(),
        _ => return Err(Unauthenticated("unable to parse UID: it is empty or there are several".into())),
    };
    let mut id = CompactString::from("X509SHA256=");
    for byte in Sha256::digest(der) {
        id.push_str(&format_compact!("{byte:02x}"));
    }
    let extra = vec![(CREDENTIAL_ID.into(), vec![id])];
    let validity = certificate.validity();
    Ok(Some(Identity {
        user: Arc::new(User { name, uid, groups, extra }.authenticated()),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    }))
}

impl Authenticator for ClientCertificates {
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        self.user(credentials.certificates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::At;
    use canopus_api::Time;
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        date_time_ymd,
    };

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    impl Ca {
        fn sign(&self, names: &[(DnType, &str)], usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, text) in names {
                params.distinguished_name.push(kind.clone(), *text);
            }
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2030, 1, 1);
            params.extended_key_usages = vec![usage];
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }
    }

    const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

    fn ask(
        authority: &Arc<Authority>,
        der: &[CertificateDer<'static>],
        now: &str,
    ) -> Result<Option<Arc<User>>, Unauthenticated> {
        let clock = At(Time::parse(now).unwrap().unix());
        ClientCertificates::new(Arc::new(clock), authority.clone()).user(der)
    }

    #[test]
    fn name_and_groups() {
        let ca = ca();
        let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        let der = ca.sign(
            &[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "kubernetes-admin"), (uid, "u-1")],
            CLIENT,
        );
        let user = ask(&Authority::new(&ca.pem).unwrap(), &[der], "2026-01-01T00:00:00Z").unwrap().unwrap();
        assert_eq!(user.name, "kubernetes-admin");
        assert_eq!(user.uid, "u-1");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert!(user.extra[0].1[0].starts_with("X509SHA256="));
    }

    #[test]
    fn not_ours_or_bad() {
        let (ca, other) = (ca(), ca());
        let authority = Authority::new(&ca.pem).unwrap();
        let name = [(DnType::CommonName, "x")];
        let nameless = ca.sign(&[(DnType::OrganizationName, "system:masters")], CLIENT);
        let named = ca.sign(&name, CLIENT);
        assert_eq!(ask(&authority, &[], "2026-01-01T00:00:00Z"), Ok(None));
        assert_eq!(ask(&authority, &[nameless], "2026-01-01T00:00:00Z"), Ok(None));
        let bad = [
            (named.clone(), "2031-01-01T00:00:00Z"),
            (named, "2019-01-01T00:00:00Z"),
            (other.sign(&name, CLIENT), "2026-01-01T00:00:00Z"),
            (ca.sign(&name, ExtendedKeyUsagePurpose::ServerAuth), "2026-01-01T00:00:00Z"),
            (CertificateDer::from(b"junk".to_vec()), "2026-01-01T00:00:00Z"),
        ];
        for (der, now) in bad {
            assert!(ask(&authority, &[der], now).is_err(), "{now}");
        }
    }

    #[test]
    fn a_new_authority_counts_at_once() {
        let (old, new) = (ca(), ca());
        let authority = Authority::new(&old.pem).unwrap();
        let clock = At(Time::parse("2026-01-01T00:00:00Z").unwrap().unix());
        let certificates = ClientCertificates::new(Arc::new(clock), authority.clone());
        let name = [(DnType::CommonName, "x")];
        let (a, b) = ([old.sign(&name, CLIENT)], [new.sign(&name, CLIENT)]);
        assert!(certificates.user(&a).is_ok() && certificates.user(&b).is_err());
        authority.replace(&new.pem).unwrap();
        assert!(certificates.user(&a).is_err() && certificates.user(&b).is_ok());
        assert!(authority.replace("junk").is_err());
        assert!(certificates.user(&b).is_ok(), "what cannot be read changes nothing");
    }
}
