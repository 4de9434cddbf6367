//! Public keys, and what was signed with them.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What a public key is for signing with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Ed25519,
    /// On a curve, by its name.
    Ec(&'static str),
    /// With so many bits.
    Rsa(usize),
    /// Something else that can be read.
    Other,
}

const CURVES: &[(Oid, &str)] = &[
    (oid!(1.2.840.10045.3.1.7), "P-256"),
    (oid!(1.3.132.0.34), "P-384"),
    (oid!(1.3.132.0.35), "P-521"),
    (oid!(1.3.132.0.33), "P-224"),
];
const ED25519: Oid = oid!(1.3.101.112);

/// The kind of a key; None for one that makes no sense.
pub fn kind(key: &SubjectPublicKeyInfo) -> Option<Kind> {
    if key.algorithm.algorithm == ED25519 {
        return (key.subject_public_key.data.len() == 32).then_some(Kind::Ed25519);
    }
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => Some(Kind::Rsa(rsa.key_size())),
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            CURVES.iter().find(|(oid, _)| *oid == curve).map(|(_, name)| Kind::Ec(name))
        }
        _ => Some(Kind::Other),
    }
}

/// A key on its own, in DER.
pub fn parse(der: &[u8]) -> Option<(SubjectPublicKeyInfo<'_>, Kind)> {
    let (rest, key) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let kind = kind(&key)?;
    rest.is_empty().then_some((key, kind))
}

/// Whether two keys are the same.
pub fn same(a: &SubjectPublicKeyInfo, b: &SubjectPublicKeyInfo) -> bool {
    a.algorithm.algorithm == b.algorithm.algorithm && kind(a) == kind(b) && a.subject_public_key == b.subject_public_key
}

/// Whether `signature` is of `data` by the key, as upstream wants possession of keys proven.
pub fn proves(key: &SubjectPublicKeyInfo, kind: Kind, data: &[u8], signature: &[u8]) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        Kind::Ed25519 => &signature::ED25519,
        Kind::Ec("P-256") => &signature::ECDSA_P256_SHA256_ASN1,
        Kind::Ec("P-384") => &signature::ECDSA_P384_SHA256_ASN1,
        Kind::Ec("P-521") => &signature::ECDSA_P521_SHA256_ASN1,
        Kind::Rsa(_) => &signature::RSA_PSS_2048_8192_SHA256,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data).verify(data, signature).is_ok()
}

/// Whether a request is signed with its own key. Knows the curves that x509-parser does not.
pub fn check_request(request: &X509CertificationRequest) -> Result<(), X509Error> {
    const SHA256: Oid = oid!(1.2.840.10045.4.3.2);
    const SHA384: Oid = oid!(1.2.840.10045.4.3.3);
    const SHA512: Oid = oid!(1.2.840.10045.4.3.4);
    let info = &request.certification_request_info;
    let key = &info.subject_pki;
    let digest = &request.signature_algorithm.algorithm;
    let algorithm: &'static dyn VerificationAlgorithm = match kind(key) {
        Some(Kind::Ec("P-384")) if *digest == SHA512 => &signature::ECDSA_P384_SHA512_ASN1,
        Some(Kind::Ec("P-256")) if *digest == SHA512 => &signature::ECDSA_P256_SHA512_ASN1,
        Some(Kind::Ec("P-521")) if *digest == SHA256 => &signature::ECDSA_P521_SHA256_ASN1,
        Some(Kind::Ec("P-521")) if *digest == SHA384 => &signature::ECDSA_P521_SHA384_ASN1,
        Some(Kind::Ec("P-521")) if *digest == SHA512 => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return request.verify_signature(),
    };
    let signed = UnparsedPublicKey::new(algorithm, &key.subject_public_key.data);
    signed.verify(info.raw, &request.signature_value.data).map_err(|_| X509Error::SignatureVerificationError)
}
