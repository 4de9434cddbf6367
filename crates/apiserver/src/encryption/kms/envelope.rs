//! What is stored of a value that a key management service protects (upstream's `EncryptedObject`): the value, encrypted with
//! a key of its own, and that key's source, encrypted by the service.

use crate::authz::chain::aggregate;
use crate::metrics::reloads::hash;
use crate::outgoing::message::Message;
use canopus_api::names;
use canopus_api::protobuf::{Fields, Wire};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const MAX_KEY_ID: usize = 1 << 10;
const MAX_SOURCE: usize = 1 << 10;
const MAX_ANNOTATIONS: usize = 32 << 10;

/// The source is the key of AES-GCM itself: what upstream wrote before it derived keys.
pub const KEY: u64 = 0;
/// The source is a seed, of which HKDF makes a key of AES-GCM for each value.
pub const SEED: u64 = 1;

/// Where a value's key comes from, as the service encrypted it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    pub encrypted: Vec<u8>,
    pub key_id: String,
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// [`KEY`] or [`SEED`].
    pub kind: u64,
}

impl Source {
    /// What it is kept under after it was decrypted.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.kind.to_be_bytes());
        let pairs = self.annotations.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_slice()]);
        for part in [self.encrypted.as_slice(), self.key_id.as_bytes()].into_iter().chain(pairs) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// The stored value; `data` is encrypted already.
    pub fn seal(&self, data: &[u8]) -> Vec<u8> {
        let message = Message::default().bytes(1, data).bytes(2, self.key_id.as_bytes()).bytes(3, &self.encrypted);
        with_annotations(message, 4, &self.annotations).number(5, self.kind).finish()
    }

    /// A stored value's source, and the encrypted data.
    pub fn unseal(stored: &[u8]) -> Result<(Source, &[u8]), String> {
        let (mut source, mut data) = (Source::default(), &[][..]);
        for field in Fields::of(stored) {
            match field.map_err(|e| e.to_string())? {
                (1, Wire::Bytes(bytes)) => data = bytes,
                (2, Wire::Bytes(bytes)) => source.key_id = text(bytes)?,
                (3, Wire::Bytes(bytes)) => source.encrypted = bytes.into(),
                (4, Wire::Bytes(bytes)) => annotation(bytes, &mut source.annotations)?,
                (5, Wire::Varint(kind)) => source.kind = kind,
                _ => {}
            }
        }
        if data.is_empty() {
            return Err("encrypted data is empty".into());
        }
        source.check()?;
        Ok((source, data))
    }

    /// # Errors
    /// Why a service must not have made it so, or nobody may have stored it.
    pub fn check(&self) -> Result<(), String> {
        if !matches!(self.kind, KEY | SEED) {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.kind));
        }
        match self.encrypted.len() {
            0 => return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".into()),
            1..=MAX_SOURCE => {}
            size => {
                return Err(format!(
                    "failed to validate encrypted DEK source: encrypted DEK source is {size} bytes, which exceeds the max size of {MAX_SOURCE}"
                ));
            }
        }
        check_key_id(&self.key_id).map_err(|(_, why)| format!("failed to validate key id: {why}"))?;
        let mut problems: Vec<String> = self.annotations.keys().filter_map(|key| qualified(key).err()).collect();
        let size: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_ANNOTATIONS {
            problems
                .push(format!("total size of annotations is {size}, which exceeds the max size of {MAX_ANNOTATIONS}"));
        }
        match aggregate(&problems) {
            None => Ok(()),
            Some(why) => Err(format!("failed to validate annotations: {why}")),
        }
    }
}

/// # Errors
/// What metrics call it, and why it cannot be a key's name.
pub fn check_key_id(id: &str) -> Result<(), (&'static str, String)> {
    match id.len() {
        0 => Err(("empty", "keyID is empty".into())),
        1..=MAX_KEY_ID => Ok(()),
        size => Err(("too_long", format!("keyID is {size} bytes, which exceeds the max size of {MAX_KEY_ID}"))),
    }
}

/// A key's name as it may be shown.
pub fn hashed(key_id: &str) -> String {
    if key_id.is_empty() { String::new() } else { hash(key_id) }
}

/// A map in a message.
pub fn with_annotations(message: Message, field: u32, annotations: &BTreeMap<String, Vec<u8>>) -> Message {
    annotations.iter().fold(message, |message, (key, value)| {
        message.message(field, Message::default().bytes(1, key.as_bytes()).bytes(2, value))
    })
}

/// One entry of such a map.
pub fn annotation(entry: &[u8], into: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let (mut key, mut value) = (String::new(), Vec::new());
    for field in Fields::of(entry) {
        match field.map_err(|e| e.to_string())? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes.into(),
            _ => {}
        }
    }
    into.insert(key, value);
    Ok(())
}

pub fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.into()).map_err(|_| "proto: invalid UTF-8".into())
}

/// A fully qualified domain name.
fn qualified(name: &str) -> Result<(), String> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let why = match plain {
        "" => return Err("annotations: Required value".into()),
        plain => names::dns1123_subdomain(plain),
    };
    let invalid = |why: &str| Err(format!("annotations: Invalid value: {plain:?}: {why}"));
    match why.first() {
        Some(why) => invalid(why),
        None if !plain.contains('.') => invalid("should be a domain with at least two segments separated by dots"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let annotations = [("version.encryption.remote.io".to_string(), b"1".to_vec())].into();
        Source { encrypted: b"sealed".to_vec(), key_id: "1".into(), annotations, kind: SEED }
    }

    /// As Go's library writes it.
    const STORED: &[u8] =
        b"\x0a\x04data\x12\x011\x1a\x06sealed\x22\x21\x0a\x1cversion.encryption.remote.io\x12\x011\x28\x01";

    #[test]
    fn upstreams_format() {
        assert_eq!(source().seal(b"data"), STORED);
        assert_eq!(Source::unseal(STORED), Ok((source(), &b"data"[..])));
        for cut in 0..STORED.len() {
            // Cut short it is refused, or lacks what stood at the end.
            assert_ne!(Source::unseal(&STORED[..cut]), Ok((source(), &b"data"[..])));
        }
    }

    #[test]
    fn what_is_refused() {
        let with = |change: fn(&mut Source)| {
            let mut changed = source();
            change(&mut changed);
            changed.check().unwrap_err()
        };
        for (why, change) in [
            ("unknown encryptedDEKSourceType: 2", (|s| s.kind = 2) as fn(&mut Source)),
            ("failed to validate encrypted DEK source: encrypted DEK source is empty", |s| s.encrypted.clear()),
            (
                "failed to validate encrypted DEK source: encrypted DEK source is 1025 bytes, which exceeds the max size of 1024",
                |s| s.encrypted = vec![0; 1025],
            ),
            ("failed to validate key id: keyID is empty", |s| s.key_id.clear()),
            ("failed to validate key id: keyID is 1025 bytes, which exceeds the max size of 1024", |s| {
                s.key_id = "k".repeat(1025);
            }),
            (
                "failed to validate annotations: annotations: Invalid value: \"flat\": should be a domain with at least two segments separated by dots",
                |s| drop(s.annotations.insert("flat".into(), vec![])),
            ),
            (
                "failed to validate annotations: total size of annotations is 32804, which exceeds the max size of 32768",
                |s| {
                    s.annotations.insert("a.example".into(), vec![0; (32 << 10) - 2]);
                },
            ),
        ] {
            assert_eq!(with(change), why);
        }
        assert_eq!(Source::unseal(&STORED[6..]), Err("encrypted data is empty".into()));
    }

    #[test]
    fn sources_differ() {
        let mut moved = source();
        (moved.encrypted, moved.key_id) = (b"seale".to_vec(), "d1".into());
        assert_ne!(source().digest(), moved.digest());
        assert_eq!(source().digest(), source().digest());
    }
}
