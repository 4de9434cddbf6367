//! JSON Web Tokens (RFC 7515, 7517, 7519): compact, signed with RSA or an elliptic curve, by a key that an id in the header names.

use crate::der::{bits, sequence};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaKeyPair, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use canopus_api::{Value, json, value};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;

/// Longer tokens are not read.
const MAX_LENGTH: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the key is not usable: {0}")]
    Key(String),
    #[error("failed to sign a token")]
    Sign,
    #[error("invalid signature, no keys found")]
    NoKey,
    #[error("invalid signature")]
    Signature,
    #[error("the token is malformed")]
    Malformed,
}

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::Key(why.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Name, algorithm and bytes of a coordinate.
    fn facts(self) -> (&'static str, &'static str, usize) {
        match self {
            Curve::P256 => ("P-256", "ES256", 32),
            Curve::P384 => ("P-384", "ES384", 48),
            Curve::P521 => ("P-521", "ES512", 66),
        }
    }

    fn named(name: &str) -> Option<Curve> {
        [Curve::P256, Curve::P384, Curve::P521].into_iter().find(|c| c.facts().0 == name)
    }

    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// Of an uncompressed point.
    fn of_point(point: &[u8]) -> Option<Curve> {
        let curves = [Curve::P256, Curve::P384, Curve::P521];
        curves.into_iter().find(|c| point.len() == 1 + 2 * c.facts().2 && point[0] == 4)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Material {
    /// An uncompressed point.
    Ec(Curve, Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
}

/// A key that verifies tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicKey {
    id: String,
    /// The one algorithm it is for, if its JWK says.
    only: Option<String>,
    material: Material,
}

impl PublicKey {
    /// All keys in a PEM file: public keys, the public halves of private ones, and those of certificates.
    pub fn all_from_pem(pem: &str) -> Result<Vec<PublicKey>, Error> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            let (kind, der) = section.map_err(unusable)?;
            match kind {
                SectionKind::PublicKey => keys.push(PublicKey::from_spki(&der)?),
                SectionKind::Certificate => {
                    let der = CertificateDer::from(der);
                    let (_, certificate) = X509Certificate::from_der(&der).map_err(unusable)?;
                    keys.push(PublicKey::from_spki(certificate.tbs_certificate.subject_pki.raw)?);
                }
                SectionKind::RsaPrivateKey => keys.push(SigningKey::new(PrivateKeyDer::Pkcs1(der.into()))?.public),
                SectionKind::EcPrivateKey => keys.push(SigningKey::new(PrivateKeyDer::Sec1(der.into()))?.public),
                SectionKind::PrivateKey => keys.push(SigningKey::new(PrivateKeyDer::Pkcs8(der.into()))?.public),
                _ => {}
            }
        }
        if keys.is_empty() {
            Err(unusable("data does not contain any valid RSA or ECDSA public keys"))
        } else {
            Ok(keys)
        }
    }

    /// Of a SubjectPublicKeyInfo (RFC 5280). Its id is upstream's: a hash of it.
    fn from_spki(der: &[u8]) -> Result<PublicKey, Error> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(unusable)?;
        let material = match info.parsed().map_err(unusable)? {
            Parsed::RSA(key) => Material::Rsa(trimmed(key.modulus).into(), trimmed(key.exponent).into()),
            Parsed::EC(point) => {
                let point = point.data();
                Material::Ec(Curve::of_point(point).ok_or_else(|| unusable("unknown curve"))?, point.into())
            }
            _ => return Err(unusable("neither RSA nor ECDSA")),
        };
        Ok(PublicKey { id: BASE64.encode(Sha256::digest(der)), only: None, material })
    }

    /// Of a JSON Web Key (RFC 7517) for signatures. None: another kind of key.
    pub fn from_jwk(jwk: &Value) -> Option<PublicKey> {
        if !["", "sig"].contains(&jwk["use"].str()) {
            return None;
        }
        let bytes = |field: &str| BASE64.decode(jwk[field].str()).ok().filter(|b| !b.is_empty() && b.len() <= 1024);
        let material = match jwk["kty"].str() {
            "RSA" => Material::Rsa(trimmed(&bytes("n")?).into(), trimmed(&bytes("e")?).into()),
            "EC" => {
                let curve = Curve::named(jwk["crv"].str())?;
                let size = curve.facts().2;
                let mut point = vec![4];
                for coordinate in [bytes("x")?, bytes("y")?] {
                    point.resize(point.len() + size.checked_sub(coordinate.len())?, 0);
                    point.extend(coordinate);
                }
                Material::Ec(curve, point)
            }
            _ => return None,
        };
        let only = jwk["alg"].as_str().filter(|a| !a.is_empty()).map(str::to_string);
        Some(PublicKey { id: jwk["kid"].str().into(), only, material })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn jwk(&self) -> Value {
        let mut jwk = value!({"use": "sig", "kid": &self.id, "alg": self.algorithm()});
        match &self.material {
            Material::Rsa(n, e) => {
                for (field, text) in [("kty", "RSA".to_string()), ("n", BASE64.encode(n)), ("e", BASE64.encode(e))] {
                    jwk.set(field, text);
                }
            }
            Material::Ec(curve, point) => {
                let (name, _, size) = curve.facts();
                let (x, y) = (point.get(1..=size).unwrap_or_default(), point.get(1 + size..).unwrap_or_default());
                let (x, y) = (BASE64.encode(x), BASE64.encode(y));
                for (field, text) in [("kty", "EC".to_string()), ("crv", name.into()), ("x", x), ("y", y)] {
                    jwk.set(field, text);
                }
            }
        }
        jwk
    }

    /// The algorithm tokens are signed with by such a key.
    pub fn algorithm(&self) -> &'static str {
        match &self.material {
            Material::Rsa(..) => "RS256",
            Material::Ec(curve, _) => curve.facts().1,
        }
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        if self.only.as_ref().is_some_and(|only| only != algorithm) {
            return false;
        }
        match &self.material {
            Material::Ec(curve, point) => {
                algorithm == curve.facts().1
                    && UnparsedPublicKey::new(curve.algorithm(), point).verify(signed, signature).is_ok()
            }
            Material::Rsa(n, e) => {
                let parameters: &RsaParameters = match algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
        }
    }
}

/// Without leading zeros.
fn trimmed(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|b| **b == 0).count()..]
}

/// The claims of a token that one of `keys` has signed: the one its header names or, if it names none, any.
pub fn verify(keys: &[PublicKey], token: &str) -> Result<Value, Error> {
    let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= MAX_LENGTH).ok_or(Error::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
    let header = part(header).ok_or(Error::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| Error::Malformed)?;
    let id = header["kid"].str();
    let mut candidates = keys.iter().filter(|key| id.is_empty() || key.id == id).peekable();
    if candidates.peek().is_none() {
        return Err(Error::NoKey);
    }
    // What a header declares critical must be understood (RFC 7515, 4.1.11); nothing is.
    let critical = !header["crit"].is_null();
    if critical || !candidates.any(|key| key.verify(header["alg"].str(), signed.as_bytes(), &signature)) {
        return Err(Error::Signature);
    }
    part(payload).ok_or(Error::Malformed)
}

/// What a token's header says that it is signed with.
pub fn algorithm(token: &str) -> Option<String> {
    Some(part(token.split('.').next()?)?["alg"].str().into())
}

/// The claims of a token whose signature has not been checked: good only to see whose it may be.
pub fn unverified_claims(token: &str) -> Option<Value> {
    if token.len() > MAX_LENGTH {
        return None;
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() { None } else { part(payload) }
}

fn part(text: &str) -> Option<Value> {
    json::parse(&BASE64.decode(text).ok()?).ok().filter(|v| v.as_object().is_some())
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The private key that signs service-account tokens.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

impl SigningKey {
    /// Of a private key in PEM: PKCS#8, PKCS#1 or SEC 1; RSA, P-256 or P-384.
    pub fn from_pem(pem: &str) -> Result<SigningKey, Error> {
        SigningKey::new(PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(unusable)?)
    }

    fn new(key: PrivateKeyDer) -> Result<SigningKey, Error> {
        let der = key.secret_der();
        let rsa = match &key {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der).ok(),
            PrivateKeyDer::Pkcs8(_) => RsaKeyPair::from_pkcs8(der).ok(),
            _ => None,
        };
        if let Some(pair) = rsa {
            let raw = pair.public_key().as_ref().to_vec();
            return Ok(SigningKey { public: PublicKey::from_spki(&rsa_spki(&raw))?, pair: Pair::Rsa(pair) });
        }
        for (algorithm, curve) in
            [(&ECDSA_P256_SHA256_FIXED_SIGNING, Curve::P256), (&ECDSA_P384_SHA384_FIXED_SIGNING, Curve::P384)]
        {
            let pair = match &key {
                PrivateKeyDer::Pkcs8(_) => EcdsaKeyPair::from_pkcs8(algorithm, der).ok(),
                PrivateKeyDer::Sec1(_) => EcdsaKeyPair::from_private_key_der(algorithm, der).ok(),
                _ => None,
            };
            if let Some(pair) = pair {
                let spki = ec_spki(curve, pair.public_key().as_ref());
                return Ok(SigningKey { public: PublicKey::from_spki(&spki)?, pair: Pair::Ec(pair) });
            }
        }
        Err(unusable("not an RSA, P-256 or P-384 private key"))
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signed, compact token of these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = value!({"alg": self.public.algorithm(), "kid": &self.public.id});
        let mut token = format!("{}.{}", BASE64.encode(json::to_vec(&header)), BASE64.encode(json::to_vec(claims)));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, token.as_bytes()).map_err(|_| Error::Sign)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature);
                signed.map_err(|_| Error::Sign)?;
                signature
            }
        };
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    sequence(&[&sequence(&[algorithm]), &bits(key)])
}

/// SubjectPublicKeyInfo of a point (RFC 5480).
fn ec_spki(curve: Curve, point: &[u8]) -> Vec<u8> {
    const PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let named: &[u8] = match curve {
        Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        Curve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        Curve::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
    };
    spki(&[PUBLIC_KEY, named].concat(), point)
}

/// SubjectPublicKeyInfo of an RSAPublicKey (RFC 3279).
fn rsa_spki(key: &[u8]) -> Vec<u8> {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    spki(RSA, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    #[test]
    fn only_its_own_tokens() {
        let (key, other) = (key(), key());
        let (own, others) = ([key.public().clone()], [other.public().clone()]);
        let claims = value!({"sub": "x", "exp": 5});
        let token = key.sign(&claims).unwrap();
        assert_eq!(verify(&own, &token), Ok(claims.clone()));
        assert_eq!(verify(&[others[0].clone(), own[0].clone()], &token), Ok(claims.clone()));
        assert_eq!(unverified_claims(&token), Some(claims));
        assert_eq!(verify(&others, &token), Err(Error::NoKey));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", BASE64.encode(r#"{"sub":"y"}"#));
        assert_eq!(verify(&own, &forged), Err(Error::Signature));
        // No algorithm, that of a shared secret, another curve's; something critical.
        for header in
            [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"ES384"}"#, r#"{"alg":"ES256","crit":["exp"]}"#]
        {
            let other = format!("{}.{}.{signature}", BASE64.encode(header), BASE64.encode(r#"{"sub":"y"}"#));
            assert_eq!(verify(&own, &other), Err(Error::Signature), "{header}");
        }
        let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(r#"{"sub":"y"}"#));
        assert_eq!(verify(&own, &unsigned), Err(Error::Signature));
        for junk in ["", ".", "..", "a.b.c", "a.b.c.d", "e30.e30.e30"] {
            assert!(verify(&own, junk).is_err(), "{junk}");
        }
        assert_eq!(unverified_claims("a.b.c.d"), None);
    }

    #[test]
    fn keys_of_every_kind() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let key = SigningKey::from_pem(&pair.serialize_pem()).unwrap();
            let public = PublicKey::all_from_pem(&pair.public_key_pem()).unwrap();
            assert_eq!(public, [key.public().clone()]);
            assert_eq!(PublicKey::all_from_pem(&pair.serialize_pem()).unwrap(), public);
            let mut again = PublicKey::from_jwk(&public[0].jwk()).unwrap();
            assert_eq!(again.only.as_deref(), Some(public[0].algorithm()));
            let token = key.sign(&value!({"sub": "x"})).unwrap();
            assert!(verify(&public, &token).is_ok() && verify(&[again.clone()], &token).is_ok());
            again.only = Some("RS512".into());
            assert_eq!(verify(&[again], &token), Err(Error::Signature));
        }
        assert!(PublicKey::all_from_pem("junk").is_err());
        assert_eq!(PublicKey::from_jwk(&value!({"kty": "oct", "k": "AAAA"})), None);
    }
}
