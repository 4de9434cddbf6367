//! Client certificates: the common name is the user, every organization a group (upstream `x509.CommonNameUserConversion`).

use super::{Authenticator, Credentials, Unauthenticated};
use crate::surroundings::Surroundings;
use crate::user::{AUTHENTICATED, User};
use compact_str::{CompactString, format_compact};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates remembered, so that a connection's is parsed once and not on every request.
const REMEMBERED: usize = 1024;
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Trusts what TLS has verified against the client CA; checks the time again, since connections live long.
pub struct ClientCertificates {
    clock: Arc<dyn Surroundings>,
    known: Mutex<HashMap<Box<[u8]>, Arc<Identity>>>,
}

#[derive(Debug, PartialEq)]
struct Identity {
    user: Arc<User>,
    /// Unix seconds.
    not_before: i64,
    not_after: i64,
}

impl ClientCertificates {
    pub fn new(clock: Arc<dyn Surroundings>) -> ClientCertificates {
        ClientCertificates { clock, known: Mutex::default() }
    }

    fn identity(&self, der: &[u8]) -> Result<Option<Arc<Identity>>, Unauthenticated> {
        if let Some(known) = self.known.lock().get(der) {
            return Ok(Some(known.clone()));
        }
        let Some(identity) = identity(der)?.map(Arc::new) else { return Ok(None) };
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(der.into(), identity.clone());
        Ok(Some(identity))
    }
}

/// None: a certificate without a common name is nobody's.
fn identity(der: &[u8]) -> Result<Option<Identity>, Unauthenticated> {
    let bad = |e: String| Unauthenticated(format!("the client certificate cannot be read: {e}"));
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue| a.as_str().map(CompactString::from);
    // Of several common names the last counts, as in Go.
    let Some(name) = subject.iter_common_name().last() else { return Ok(None) };
    let name = text(name).map_err(|e| bad(e.to_string()))?;
    if name.is_empty() {
        return Ok(None);
    }
    let groups: Result<Vec<CompactString>, _> = subject.iter_organization().map(text).collect();
    let mut groups = groups.map_err(|e| bad(e.to_string()))?;
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let mut id = CompactString::from("X509SHA256=");
    for byte in Sha256::digest(der) {
        id.push_str(&format_compact!("{byte:02x}"));
    }
    let extra = vec![(CREDENTIAL_ID.into(), vec![id])];
    let validity = certificate.validity();
    Ok(Some(Identity {
        user: Arc::new(User { name, groups, extra, ..User::default() }),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    }))
}

impl Authenticator for ClientCertificates {
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        let Some(der) = credentials.client_certificate else { return Ok(None) };
        let Some(identity) = self.identity(der)? else { return Ok(None) };
        let now = self.clock.now().unix();
        if now < identity.not_before || now > identity.not_after {
            return Err(Unauthenticated("x509: certificate has expired or is not yet valid".into()));
        }
        Ok(Some(identity.user.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::Time;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    struct At(i64);

    impl Surroundings for At {
        fn now(&self) -> Time {
            Time::from_unix(self.0)
        }
        fn random(&self) -> u128 {
            0
        }
    }

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in names {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn ask(der: Option<&[u8]>, now: &str) -> Result<Option<Arc<User>>, Unauthenticated> {
        let clock = At(Time::parse(now).unwrap().unix());
        let credentials = Credentials { client_certificate: der, authorization: None };
        ClientCertificates::new(Arc::new(clock)).authenticate(&credentials)
    }

    #[test]
    fn name_and_groups() {
        let der =
            certificate(&[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "kubernetes-admin")]);
        let user = ask(Some(&der), "2026-01-01T00:00:00Z").unwrap().unwrap();
        assert_eq!(user.name, "kubernetes-admin");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert!(user.extra[0].1[0].starts_with("X509SHA256="));
    }

    #[test]
    fn not_ours_or_bad() {
        let nameless = certificate(&[(DnType::OrganizationName, "system:masters")]);
        let named = certificate(&[(DnType::CommonName, "x")]);
        assert_eq!(ask(None, "2026-01-01T00:00:00Z"), Ok(None));
        assert_eq!(ask(Some(&nameless), "2026-01-01T00:00:00Z"), Ok(None));
        for (der, now) in [
            (&named[..], "2031-01-01T00:00:00Z"),
            (&named[..], "2019-01-01T00:00:00Z"),
            (b"junk", "2026-01-01T00:00:00Z"),
        ] {
            assert!(ask(Some(der), now).is_err(), "{now}");
        }
    }
}
