//! What encrypts values, after the key management service has decrypted it.

use super::envelope::SEED;
use crate::encryption::transform::{Transformer, random};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};

/// How much of the stored data makes, with the seed, the data's key; and how long that is.
const INFO: usize = 32;
const DERIVED: usize = 32;
/// What a seed has at least, and at most by this implementation: upstream makes them of 32 bytes.
const MIN_SEED: usize = 32;
const MAX_SEED: usize = 64;

pub enum Key {
    /// AES-GCM with one key: only ever read.
    Fixed(Transformer),
    /// AES-GCM with a key for each value.
    Seed(Prk),
}

struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        DERIVED
    }
}

impl Key {
    pub fn new(kind: u64, plain: &[u8]) -> Result<Key, String> {
        match (kind, plain.len()) {
            (SEED, MIN_SEED..=MAX_SEED) => Ok(Key::Seed(Prk::new_less_safe(HKDF_SHA256, plain))),
            (SEED, length) => Err(format!("invalid seed length {length} used for key generation")),
            (_, length) => {
                let fixed = Transformer::aes_gcm(plain).map(Key::Fixed);
                fixed.ok_or_else(|| format!("crypto/aes: invalid key size {length}"))
            }
        }
    }

    pub fn encrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        let Key::Seed(seed) = self else { return Err("values are encrypted with derived keys only") };
        let info: [u8; INFO] = random()?;
        Ok([&info[..], &derive(seed, &info)?.encrypt(data, context)?].concat())
    }

    pub fn decrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Key::Fixed(transformer) => transformer.decrypt(data, context),
            Key::Seed(seed) => {
                let short = "the stored data was shorter than the required size";
                let (info, sealed) = data.split_first_chunk::<INFO>().ok_or(short)?;
                derive(seed, info)?.decrypt(sealed, context)
            }
        }
    }
}

fn derive(seed: &Prk, info: &[u8; INFO]) -> Result<Transformer, &'static str> {
    const FAILED: &str = "failed to KDF expand seed with info";
    let mut key = [0; DERIVED];
    let info = [&info[..]];
    seed.expand(&info, Derived).and_then(|okm| okm.fill(&mut key)).map_err(|_| FAILED)?;
    Transformer::aes_gcm(&key).ok_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::kms::envelope::KEY;

    #[test]
    fn keys_and_seeds() {
        let seed = Key::new(SEED, &[7; 32]).unwrap();
        let sealed = seed.encrypt(b"secret", b"/registry/secrets/a/b").unwrap();
        assert_ne!(sealed, seed.encrypt(b"secret", b"/registry/secrets/a/b").unwrap(), "never the same twice");
        let again = Key::new(SEED, &[7; 32]).unwrap();
        assert_eq!(again.decrypt(&sealed, b"/registry/secrets/a/b").unwrap(), b"secret");
        assert!(again.decrypt(&sealed, b"/registry/secrets/a/c").is_err(), "it belongs to its key");
        assert!(again.decrypt(&sealed[..40], b"/registry/secrets/a/b").is_err());
        assert!(again.decrypt(&sealed[..20], b"/registry/secrets/a/b").is_err());
        assert!(Key::new(SEED, &[8; 32]).unwrap().decrypt(&sealed, b"/registry/secrets/a/b").is_err());

        let gcm = Transformer::aes_gcm(&[9; 32]).unwrap().encrypt(b"old", b"k").unwrap();
        let fixed = Key::new(KEY, &[9; 32]).unwrap();
        assert_eq!(fixed.decrypt(&gcm, b"k").unwrap(), b"old");
        assert!(fixed.encrypt(b"new", b"k").is_err());
        for (kind, length) in [(SEED, 31), (SEED, 65), (KEY, 31), (KEY, 0)] {
            assert!(Key::new(kind, &vec![0; length]).is_err());
        }
    }

    /// The key that is derived is the first 32 bytes of RFC 5869's expansion (its first test case, whose pseudo-random key has 32
    /// bytes, expanded with zeroes for information by another implementation).
    #[test]
    fn derivation() {
        let prk = [
            0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f, 0x0d, 0xc4, 0x7b, 0xba, 0x63, 0x90, 0xb6,
            0xc7, 0x3b, 0xb5, 0x0f, 0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a, 0xd7, 0xc2, 0xb3, 0xe5,
        ];
        let expected = [
            0xe7, 0xf5, 0x3a, 0xeb, 0xa6, 0x57, 0x50, 0xb7, 0x63, 0x44, 0x26, 0xc0, 0x63, 0x52, 0x62, 0xc3, 0xd2, 0x3e,
            0xfb, 0x06, 0x7f, 0x96, 0x13, 0xd0, 0xa3, 0x3d, 0x3c, 0xe6, 0x49, 0xd5, 0x82, 0x8b,
        ];
        let sealed = Transformer::aes_gcm(&expected).unwrap().encrypt(b"x", b"k").unwrap();
        let seed = Key::new(SEED, &prk).unwrap();
        assert_eq!(seed.decrypt(&[&[0; INFO][..], &sealed].concat(), b"k").unwrap(), b"x");
    }
}
