//! Certificate signing requests (PKCS #10): what they ask for, and the certificates made of them (upstream
//! `controller/certificates/authority`). Subject, key and alternative names are taken over byte by byte.

use crate::der::{bits, oid, sequence, tlv};
use crate::pki::{Error, Pki, pem};
use canopus_api::Time;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SigningKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest lifetime (`--cluster-signing-duration`), and the shortest one may wish for.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);
/// Certificates begin a little before now, since clocks differ; short-lived ones end no earlier for that.
const BACKDATED: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requested {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
    subject: Vec<u8>,
    key: Vec<u8>,
    /// The content of the subjectAltName extension.
    names: Vec<u8>,
}

impl Requested {
    pub fn parse(pem: &[u8]) -> Result<Requested, String> {
        let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_string();
        let section = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next().ok_or_else(wrong)?;
        let (SectionKind::Csr, der) = section.map_err(|_| wrong())? else { return Err(wrong()) };
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| format!("asn1: {e}"))?;
        request.verify_signature().map_err(|e| format!("x509: {e}"))?;
        let info = &request.certification_request_info;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue| a.as_str().unwrap_or_default().to_string();
        let mut requested = Requested {
            common_name: info.subject.iter_common_name().last().map(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            ..Requested::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(wished) = attribute.parsed_attribute() else { continue };
            for extension in &wished.extensions {
                let ParsedExtension::SubjectAlternativeName(all) = extension.parsed_extension() else { continue };
                requested.names = extension.value.to_vec();
                for name in &all.general_names {
                    match name {
                        GeneralName::DNSName(_) => requested.dns_names += 1,
                        GeneralName::IPAddress(_) => requested.addresses += 1,
                        GeneralName::RFC822Name(_) => requested.emails += 1,
                        GeneralName::URI(_) => requested.uris += 1,
                        _ => {}
                    }
                }
            }
        }
        Ok(requested)
    }
}

/// Whether the first certificate has run out.
pub fn expired(pem: &[u8], now: Time) -> bool {
    let Some(Ok(der)) = CertificateDer::pem_slice_iter(pem).next() else { return false };
    X509Certificate::from_der(&der).is_ok_and(|(_, c)| c.validity().not_after.timestamp() < now.unix())
}

/// How long a certificate lasts for which somebody wishes so many seconds.
fn lifetime(wished: Option<i64>) -> Duration {
    let wished = wished.map(|s| Duration::from_secs(s.max(0).unsigned_abs()));
    wished.map_or(LONGEST, |wished| wished.clamp(SHORTEST, LONGEST))
}

/// Bit of keyUsage, or the key purpose, by upstream's name (RFC 5280).
fn usage(name: &str) -> Option<Usage> {
    let purpose = |n: u64| Some(Usage::Purpose(vec![1, 3, 6, 1, 5, 5, 7, 3, n]));
    match name {
        "signing" | "digital signature" => Some(Usage::Bit(0)),
        "content commitment" => Some(Usage::Bit(1)),
        "key encipherment" => Some(Usage::Bit(2)),
        "data encipherment" => Some(Usage::Bit(3)),
        "key agreement" => Some(Usage::Bit(4)),
        "cert sign" => Some(Usage::Bit(5)),
        "crl sign" => Some(Usage::Bit(6)),
        "encipher only" => Some(Usage::Bit(7)),
        "decipher only" => Some(Usage::Bit(8)),
        "any" => Some(Usage::Purpose(vec![2, 5, 29, 37, 0])),
        "server auth" => purpose(1),
        "client auth" => purpose(2),
        "code signing" => purpose(3),
        "email protection" | "s/mime" => purpose(4),
        "ipsec end system" => purpose(5),
        "ipsec tunnel" => purpose(6),
        "ipsec user" => purpose(7),
        "timestamping" => purpose(8),
        "ocsp signing" => purpose(9),
        "microsoft sgc" => Some(Usage::Purpose(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
        "netscape sgc" => Some(Usage::Purpose(vec![2, 16, 840, 1, 113730, 4, 1])),
        _ => None,
    }
}

enum Usage {
    Bit(usize),
    Purpose(Vec<u64>),
}

fn extension(id: u64, critical: bool, value: &[u8]) -> Vec<u8> {
    let mark: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&oid(&[2, 5, 29, id]), mark, &tlv(0x04, value)])
}

fn extensions(requested: &Requested, usages: &[&str], ca_id: &[u8]) -> Result<Vec<u8>, String> {
    let (mut mask, mut purposes) = (0u16, Vec::new());
    for name in usages {
        match usage(name).ok_or_else(|| format!("unrecognized usage values: {name:?}"))? {
            Usage::Bit(bit) => mask |= 0x8000 >> bit,
            Usage::Purpose(arcs) => {
                let id = oid(&arcs);
                if !purposes.contains(&id) {
                    purposes.push(id);
                }
            }
        }
    }
    let mut all = Vec::new();
    if mask != 0 {
        let bytes = mask.to_be_bytes();
        let bytes = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
        let unused = bytes.last().map_or(0, |b| b.trailing_zeros() as u8);
        all.extend(extension(15, true, &tlv(0x03, &[&[unused], bytes].concat())));
    }
    if !purposes.is_empty() {
        all.extend(extension(37, false, &tlv(0x30, &purposes.concat())));
    }
    all.extend(extension(19, true, &sequence(&[])));
    if !ca_id.is_empty() {
        all.extend(extension(35, false, &sequence(&[&tlv(0x80, ca_id)])));
    }
    if !requested.names.is_empty() {
        // Without a subject the names are all there is (RFC 5280, 4.2.1.6).
        all.extend(extension(17, requested.subject == [0x30, 0], &requested.names));
    }
    Ok(tlv(0xa3, &tlv(0x30, &all)))
}

/// UTCTime up to 2049, GeneralizedTime from then on.
fn time(at: Time) -> Vec<u8> {
    let digits: String = at.rfc3339().chars().filter(char::is_ascii_digit).collect();
    match digits.get(..4) {
        Some(year) if year < "2050" => tlv(0x17, format!("{}Z", &digits[2..]).as_bytes()),
        _ => tlv(0x18, format!("{digits}Z").as_bytes()),
    }
}

impl Pki {
    /// The certificate in PEM that a request asks for, of this authority, with these usages and for so many seconds.
    pub fn sign_request(
        &self,
        requested: &Requested,
        usages: &[&str],
        seconds: Option<i64>,
        now: Time,
        random: u128,
    ) -> Result<String, Error> {
        let failed = |why: String| Error::Unusable { path: "the certificate request".into(), why };
        let (ca, key) = (self.ca_der()?, self.key());
        let (_, parsed) = X509Certificate::from_der(&ca).map_err(|e| failed(e.to_string()))?;
        let ca_end = parsed.validity().not_after.timestamp();
        if now.unix() >= ca_end {
            return Err(failed(format!("the signer has expired: NotAfter={ca_end}")));
        }
        let lifetime = lifetime(seconds);
        let start = now.unix() - BACKDATED.as_secs() as i64;
        let end = if lifetime < SHORT { now.unix() } else { start } + lifetime.as_secs() as i64;
        let validity = sequence(&[&time(Time::from_unix(start)), &time(Time::from_unix(end.min(ca_end)))]);
        let algorithm = if key.algorithm() == &PKCS_ECDSA_P256_SHA256 {
            sequence(&[&oid(&[1, 2, 840, 10045, 4, 3, 2])])
        } else if key.algorithm() == &PKCS_ECDSA_P384_SHA384 {
            sequence(&[&oid(&[1, 2, 840, 10045, 4, 3, 3])])
        } else if key.algorithm() == &PKCS_RSA_SHA256 {
            sequence(&[&oid(&[1, 2, 840, 113549, 1, 1, 11]), &[0x05, 0x00]])
        } else if key.algorithm() == &PKCS_ED25519 {
            sequence(&[&oid(&[1, 3, 101, 112])])
        } else {
            return Err(failed("the authority's key is of a kind that cannot sign here".into()));
        };
        // Positive, and never short of a byte.
        let serial = (random & (u128::MAX >> 1)) | (1 << 126);
        let to_be_signed = sequence(&[
            &tlv(0xa0, &tlv(0x02, &[2])),
            &tlv(0x02, &serial.to_be_bytes()),
            &algorithm,
            parsed.subject().as_raw(),
            &validity,
            &requested.subject,
            &requested.key,
            &extensions(requested, usages, self.ca_id()).map_err(failed)?,
        ]);
        let signature = key.sign(&to_be_signed)?;
        Ok(pem("CERTIFICATE", &sequence(&[&to_be_signed, &algorithm, &bits(&signature)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::certificates::{Authority, ClientCertificates};
    use crate::authn::{Authenticator, Credentials};
    use crate::testing::At;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::sync::Arc;

    const NOW: i64 = 1_800_000_000;

    fn request(names: &[&str]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.subject_alt_names = names.iter().map(|n| SanType::DnsName((*n).try_into().unwrap())).collect();
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_certificate_that_authenticates() {
        let dir = tempfile::tempdir().unwrap();
        let now = Time::from_unix(NOW);
        let pki = Pki::open(dir.path(), now).unwrap();
        let requested = Requested::parse(request(&["a.example"]).as_bytes()).unwrap();
        assert_eq!((requested.common_name.as_str(), requested.dns_names), ("jane", 1));
        assert_eq!(requested.organizations, ["dev"]);
        let usages = ["digital signature", "key encipherment", "client auth"];
        let pem = pki.sign_request(&requested, &usages, Some(3600), now, 7).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), NOW - 300);
        assert_eq!(validity.not_after.timestamp(), NOW + 3600, "short-lived ones are not cut");
        let key_usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(key_usage.digital_signature() && key_usage.key_encipherment() && !key_usage.key_cert_sign());
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names, [GeneralName::DNSName("a.example")]);
        assert!(!certificate.is_ca());
        let clients = ClientCertificates::new(Arc::new(At(NOW)), Authority::new(pki.ca_pem()).unwrap());
        let headers = http::HeaderMap::new();
        let user = clients.authenticate(&Credentials { certificates: &[der], token: None, headers: &headers });
        let user = user.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("jane", "dev"));
        assert!(!expired(pem.as_bytes(), Time::from_unix(NOW + 3600)));
        assert!(expired(pem.as_bytes(), Time::from_unix(NOW + 3601)));
        let server = pki.sign_request(&requested, &["server auth"], None, now, 8).unwrap();
        let der = CertificateDer::from_pem_slice(server.as_bytes()).unwrap();
        assert!(clients.user(&[der]).is_err(), "only for servers");
        assert!(pki.sign_request(&requested, &["juggling"], None, now, 8).is_err());
    }

    #[test]
    fn lifetimes() {
        let day = 24 * 3600;
        for (wished, lasts) in [(None, 365 * day), (Some(60), 600), (Some(3600), 3600), (Some(4000 * day), 365 * day)] {
            assert_eq!(lifetime(wished).as_secs() as i64, lasts);
        }
    }

    #[test]
    fn what_is_no_request() {
        let mut forged = request(&[]).into_bytes();
        let middle = forged.len() / 2;
        forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
        assert!(Requested::parse(&forged).is_err());
        assert!(Requested::parse(b"junk").is_err());
    }
}
