//! JSON Web Tokens (RFC 7519) as service accounts have them: compact, ES256, with the key's id in the header.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use canopus_api::{Value, json, value};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// Longer tokens are not read: they do not come from us.
const MAX_LENGTH: usize = 16 << 10;

/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the signing key is not a P-256 key in PKCS#8: {0}")]
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

/// The private key that signs service-account tokens, and by its public half verifies them.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl SigningKey {
    /// Of a P-256 private key in PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<SigningKey, Error> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Key(e.to_string()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(|e| Error::Key(e.to_string()))?;
        let mut hash = Sha256::new();
        hash.update(P256_SPKI);
        hash.update(pair.public_key().as_ref());
        Ok(SigningKey { id: BASE64.encode(hash.finalize()), pair })
    }

    /// What upstream calls the key id: a hash of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The signed, compact token of these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = value!({"alg": "ES256", "kid": &self.id});
        let mut token = format!("{}.{}", BASE64.encode(json::to_vec(&header)), BASE64.encode(json::to_vec(claims)));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| Error::Sign)?;
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// The claims of a token that this key has signed.
    pub fn verify(&self, token: &str) -> Result<Value, Error> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        let header = part(header).ok_or(Error::Malformed)?;
        let id = header["kid"].str();
        if !id.is_empty() && id != self.id {
            return Err(Error::NoKey);
        }
        if header["alg"].str() != "ES256" {
            return Err(Error::Signature);
        }
        let signature = BASE64.decode(signature).map_err(|_| Error::Malformed)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).map_err(|_| Error::Signature)?;
        part(payload).ok_or(Error::Malformed)
    }

    /// The public key as a JSON Web Key Set, served at `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        // 4, then the two coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
        value!({"keys": [{
            "use": "sig", "kty": "EC", "kid": &self.id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    #[test]
    fn only_its_own_tokens() {
        let (key, other) = (key(), key());
        let claims = value!({"sub": "x", "exp": 5});
        let token = key.sign(&claims).unwrap();
        assert_eq!(key.verify(&token), Ok(claims.clone()));
        assert_eq!(unverified_claims(&token), Some(claims));
        assert_eq!(other.verify(&token), Err(Error::NoKey));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", BASE64.encode(r#"{"sub":"y"}"#));
        assert_eq!(key.verify(&forged), Err(Error::Signature));
        let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(r#"{"sub":"y"}"#));
        assert_eq!(key.verify(&unsigned), Err(Error::Signature));
        for junk in ["", ".", "..", "a.b.c", "a.b.c.d", "e30.e30.e30"] {
            assert!(key.verify(junk).is_err(), "{junk}");
        }
        assert_eq!(unverified_claims("a.b.c.d"), None);
    }

    #[test]
    fn public_half() {
        let key = key();
        let jwk = &key.jwks()["keys"][0];
        assert_eq!(jwk["kid"].str(), key.id());
        assert_eq!((jwk["x"].str().len(), jwk["y"].str().len()), (43, 43));
    }
}
