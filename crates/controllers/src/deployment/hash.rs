//! The pod-template-hash: names a version of a template.

use canopus_api::{Value, json};

/// Upstream's alphabet for generated names: no vowels, no look-alikes, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash of the template's canonical JSON (FNV-1a, 32 bits), spelt as upstream's `rand.SafeEncodeString` does.
pub(super) fn template_hash(template: &Value, collisions: Option<i64>) -> String {
    let mut bytes = Vec::from(json::to_string(template).as_bytes());
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = bytes.iter().fold(0x811c_9dc5, step);
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}
