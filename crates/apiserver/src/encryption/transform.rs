//! The ciphers, in upstream's formats: whatever upstream's API server has written is read, and the other way round.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};

const NONCE: usize = 12;
const IV: usize = 16;
const SECRETBOX_NONCE: usize = 24;

pub enum Transformer {
    /// As it is.
    Identity,
    AesGcm(Box<LessSafeKey>),
    AesCbc(Box<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>),
    Secretbox(XSalsa20Poly1305),
}

impl Transformer {
    /// None: no key of this length.
    pub fn aes_gcm(key: &[u8]) -> Option<Transformer> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Transformer::AesGcm(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))))
    }

    pub fn aes_cbc(key: &[u8]) -> Option<Transformer> {
        let algorithm = match key.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key).ok();
        let encrypt = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).ok()?;
        let decrypt = PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).ok()?;
        Some(Transformer::AesCbc(Box::new((encrypt, decrypt))))
    }

    pub fn secretbox(key: &[u8]) -> Option<Transformer> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(Transformer::Secretbox)
    }

    /// `context` is the key of the value in the store: it cannot be moved to another one.
    pub fn encrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        const FAILED: &str = "failed to encrypt";
        match self {
            Transformer::Identity => Ok(data.into()),
            Transformer::AesGcm(key) => {
                let nonce: [u8; NONCE] = random()?;
                let mut sealed = data.to_vec();
                let assumed = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(assumed, Aad::from(context), &mut sealed).map_err(|_| FAILED)?;
                Ok([&nonce[..], &sealed].concat())
            }
            Transformer::AesCbc(keys) => {
                let iv: [u8; IV] = random()?;
                let mut sealed = data.to_vec();
                let with = EncryptionContext::Iv128(FixedLength::from(&iv));
                keys.0.less_safe_encrypt(&mut sealed, with).map_err(|_| FAILED)?;
                Ok([&iv[..], &sealed].concat())
            }
            Transformer::Secretbox(key) => {
                let nonce: [u8; SECRETBOX_NONCE] = random()?;
                let sealed = key.encrypt(&nonce.into(), data).map_err(|_| FAILED)?;
                Ok([&nonce[..], &sealed].concat())
            }
        }
    }

    pub fn decrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        const SHORT: &str = "the stored data was shorter than the required size";
        match self {
            Transformer::Identity if data.starts_with(super::PREFIX) => {
                Err("identity transformer tried to read encrypted data")
            }
            Transformer::Identity => Ok(data.into()),
            Transformer::AesGcm(key) => {
                let (nonce, sealed) = data.split_first_chunk::<NONCE>().ok_or(SHORT)?;
                let mut open = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = key.open_in_place(nonce, Aad::from(context), &mut open);
                let length = length.map_err(|_| "cipher: message authentication failed")?.len();
                open.truncate(length);
                Ok(open)
            }
            Transformer::AesCbc(keys) => {
                let (iv, sealed) = data.split_first_chunk::<IV>().ok_or(SHORT)?;
                if sealed.len() % IV != 0 {
                    return Err("the stored data is not a multiple of the block size");
                }
                let mut open = sealed.to_vec();
                let with = DecryptionContext::Iv128(FixedLength::from(iv));
                let length = keys.1.decrypt(&mut open, with).map_err(|_| "invalid padding on input")?.len();
                open.truncate(length);
                Ok(open)
            }
            Transformer::Secretbox(key) => {
                let (nonce, sealed) = data.split_first_chunk::<SECRETBOX_NONCE>().ok_or(SHORT)?;
                let nonce = (*nonce).into();
                key.decrypt(&nonce, sealed).map_err(|_| "output array was not large enough for encryption")
            }
        }
    }
}

pub fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| "no randomness")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn round_trips_and_forgeries() {
        let (key, other) = ([7; 32], [8; 32]);
        for make in [Transformer::aes_gcm, Transformer::aes_cbc, Transformer::secretbox] {
            let (good, bad) = (make(&key).unwrap(), make(&other).unwrap());
            for data in [&b""[..], b"x", b"sixteen bytes!!!", &[0; 1000]] {
                let sealed = good.encrypt(data, b"/registry/secrets/a/b").unwrap();
                assert_eq!(good.decrypt(&sealed, b"/registry/secrets/a/b").unwrap(), data);
                assert_ne!(sealed, good.encrypt(data, b"/registry/secrets/a/b").unwrap(), "never the same twice");
                assert_ne!(bad.decrypt(&sealed, b"/registry/secrets/a/b").as_deref(), Ok(data));
                assert!(good.decrypt(&sealed[..5], b"").is_err());
            }
            assert!(make(&[1; 31]).is_none());
        }
        let gcm = Transformer::aes_gcm(&[7; 16]).unwrap();
        let sealed = gcm.encrypt(b"x", b"/registry/secrets/a/b").unwrap();
        assert!(gcm.decrypt(&sealed, b"/registry/secrets/a/c").is_err(), "it belongs to its key");
        assert!(Transformer::Identity.decrypt(b"k8s:enc:aescbc:v1:key1:x", b"").is_err());
    }

    /// The vectors of NIST SP 800-38A (F.2.5), with the padding that makes a block more, and of NaCl's own tests.
    #[test]
    fn known_answers() {
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let plain = hex("6bc1bee22e409f96e93d7e117393172a");
        let sealed = hex("f58c4c04d6e5f1ba779eabfb5f7bfbd6485a5c81519cf378fa36d42b8547edc0");
        let cbc = Transformer::aes_cbc(&key).unwrap();
        assert_eq!(cbc.decrypt(&[iv, sealed].concat(), b"").unwrap(), plain);
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let plain = hex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        );
        let sealed = hex(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
        );
        let secretbox = Transformer::secretbox(&key).unwrap();
        assert_eq!(secretbox.decrypt(&[nonce, sealed].concat(), b"").unwrap(), plain);
    }
}
