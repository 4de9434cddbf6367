//! CBOR (RFC 8949) as Kubernetes speaks it (KEP-4222): what JSON can say, in fewer bytes. Strings travel as byte strings,
//! bytes as themselves, and every body begins with the tag by which stored CBOR is told from JSON and protobuf. Bodies are bounded and not
//! trusted.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::{encode, list_head, watch_frame, write};

/// The head of tag 55799 (RFC 8949, 3.4.6): all that is encoded is enclosed in it.
pub const MAGIC: &[u8] = &[0xd9, 0xd9, 0xf7];

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// The tag of bytes that are base64 in text (RFC 8949, 3.4.5.2).
const BASE64: u64 = 22;

const FALSE: u8 = SIMPLE << 5 | 20;
const TRUE: u8 = SIMPLE << 5 | 21;
const NULL: u8 = SIMPLE << 5 | 22;
const HALF: u8 = 25;
const SINGLE: u8 = 26;
const DOUBLE: u8 = 27;

/// Why bytes are not CBOR that an object can be made of, in the words of the library that upstream uses.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("EOF")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Extraneous(usize, usize),
    #[error("cbor: exceeded max nested level {0}")]
    TooDeep(usize),
    #[error("cbor: invalid additional information {0} for type {1}")]
    Information(u8, &'static str),
    #[error("cbor: unexpected \"break\" code")]
    Break,
    #[error("cbor: wrong element type {0} for indefinite-length {1}")]
    Element(&'static str, &'static str),
    #[error("cbor: indefinite-length {0} chunk is not definite-length")]
    Chunk(&'static str),
    #[error("cbor: invalid UTF-8 string")]
    NotUtf8,
    #[error("cbor: cannot unmarshal {kind} into Go value of type int64 ({number} overflows Go's int64)")]
    Overflow { kind: &'static str, number: i128 },
    #[error("cbor: cannot unmarshal {0} into Go value of type string")]
    Key(&'static str),
    #[error("cbor: found duplicate map key {key:?} at map element index {index}")]
    Duplicate { key: String, index: usize },
    #[error("cbor: invalid simple value {0} for type primitives")]
    ReservedSimple(u8),
    #[error("cbor: data item of cbor type primitives is not accepted by protocol: simple value {0} is not recognized")]
    Simple(u8),
    #[error("cbor: data item of cbor type primitives is not accepted by protocol: floating-point {0}")]
    Float(&'static str),
    #[error("cbor: data item of cbor type tag is not accepted by protocol: bignum")]
    Bignum,
    #[error("cbor: tag number {0} must be followed by {1}, got {2}")]
    Tagged(u64, &'static str, &'static str),
    #[error("cbor: cannot set {0} for time.Time")]
    Time(String),
    #[error(
        "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision: Time.MarshalText: \
         year outside of range [0,9999]"
    )]
    Year,
}

/// What a major type is called in errors.
fn name(major: u8) -> &'static str {
    match major {
        UNSIGNED => "positive integer",
        NEGATIVE => "negative integer",
        BYTES => "byte string",
        TEXT => "UTF-8 text string",
        ARRAY => "array",
        MAP => "map",
        TAG => "tag",
        _ => "primitives",
    }
}
