//! Bytes from outside as trees: what upstream's decoding mode accepts, which is more than its encoder writes.

use super::{ARRAY, BASE64, BYTES, DOUBLE, Error, HALF, MAGIC, MAP, NEGATIVE, SINGLE, TAG, TEXT, UNSIGNED, name};
use crate::json::MAX_DEPTH;
use crate::time::Time;
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::borrow::Cow;

/// The tags for times (RFC 8949, 3.4.1 and 3.4.2), for big integers, and for what byte strings are to become in text.
const DATE: u64 = 0;
const EPOCH: u64 = 1;
const BIGNUMS: std::ops::RangeInclusive<u64> = 2..=3;
const BASE64_URL: u64 = 21;
const BASE16: u64 = 23;

/// Seconds since 1970 of the first and the last second that RFC 3339 can write.
const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// Decodes exactly one item, with or without the tag that says it is CBOR. Unlike in JSON, a map that has a key twice is
/// refused whoever asks.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let at = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    let mut decoder = Decoder { bytes, at, depth: 0, later: None };
    let value = decoder.item()?;
    match bytes.len() - decoder.at {
        0 => Ok(value),
        left => Err(Error::Extraneous(left, decoder.at)),
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// The innermost tag that says what byte strings become.
    later: Option<u64>,
}

/// The first byte of an item and the argument behind it.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl Head {
    /// How many items or bytes follow; None when that is said by a break behind the last.
    fn count(self) -> Option<u64> {
        (self.info != 31).then_some(self.argument)
    }
}

impl<'a> Decoder<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let count = usize::try_from(count).map_err(|_| Error::Truncated)?;
        let taken = self.bytes[self.at..].get(..count).ok_or(Error::Truncated)?;
        self.at += count;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Error> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..24 => info.into(),
            24..28 => self.take(1 << (info - 24))?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
            31 if (BYTES..=MAP).contains(&major) => 0,
            31 if major > TAG => return Err(Error::Break),
            _ => return Err(Error::Information(info, name(major))),
        };
        Ok(Head { major, info, argument })
    }

    /// The major type of what comes next.
    fn next(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).map(|b| b >> 5).ok_or(Error::Truncated)
    }

    /// Whether one more of `count` comes.
    fn more(&mut self, count: Option<u64>, done: u64) -> Result<bool, Error> {
        if let Some(count) = count {
            return Ok(done < count);
        }
        let ends = *self.bytes.get(self.at).ok_or(Error::Truncated)? == 0xff;
        self.at += usize::from(ends);
        Ok(!ends)
    }

    fn item(&mut self) -> Result<Value, Error> {
        let head = self.head()?;
        match head.major {
            UNSIGNED | NEGATIVE => integer(head).map(Value::Int),
            BYTES => {
                let bytes = self.string(head)?;
                Ok(Value::Str(self.in_text(&bytes)))
            }
            TEXT => self.text(head).map(Value::Str),
            ARRAY => self.nested(head, Self::array),
            MAP => self.nested(head, Self::map),
            TAG => self.tagged(head.argument),
            _ => simple(head),
        }
    }

    fn nested(&mut self, head: Head, inner: fn(&mut Self, Head) -> Result<Value, Error>) -> Result<Value, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep(MAX_DEPTH));
        }
        self.depth += 1;
        let value = inner(self, head);
        self.depth -= 1;
        value
    }

    // What a head claims to follow is not made room for: each item takes a byte at least, which has to be there.

    fn array(&mut self, head: Head) -> Result<Value, Error> {
        let mut items = Vec::new();
        while self.more(head.count(), items.len() as u64)? {
            items.push(self.item()?);
        }
        items.shrink_to_fit();
        Ok(Value::Array(items))
    }

    fn map(&mut self, head: Head) -> Result<Value, Error> {
        let (start, mut entries, mut twice) = (self.at, Vec::new(), None);
        while self.more(head.count(), entries.len() as u64)? {
            let key = self.key()?;
            entries.push((key, self.item()?));
        }
        let map = Map::from_unsorted(entries, |key| twice = twice.take().or(Some(key.to_string())));
        let Some(key) = twice else { return Ok(Value::Object(map)) };
        self.at = start;
        let (mut index, mut seen) = (0, false);
        // It is there twice.
        while self.more(head.count(), index as u64)? {
            let again = self.key()? == key;
            if again && seen {
                break;
            }
            seen |= again;
            self.item()?;
            index += 1;
        }
        Err(Error::Duplicate { key, index })
    }

    fn key(&mut self) -> Result<CompactString, Error> {
        let kind = name(self.next()?);
        match self.item()? {
            Value::Str(key) => Ok(key),
            _ => Err(Error::Key(kind)),
        }
    }

    /// The bytes of a string, be it in one piece or in several.
    fn string(&mut self, head: Head) -> Result<Cow<'a, [u8]>, Error> {
        let checked = |bytes: &'a [u8]| match std::str::from_utf8(bytes) {
            Err(_) if head.major == TEXT => Err(Error::NotUtf8),
            _ => Ok(bytes),
        };
        if let Some(length) = head.count() {
            return checked(self.take(length)?).map(Cow::Borrowed);
        }
        let mut all = Vec::new();
        while self.more(None, 0)? {
            let chunk = self.head()?;
            if chunk.major != head.major {
                return Err(Error::Element(name(chunk.major), name(head.major)));
            }
            let length = chunk.count().ok_or(Error::Chunk(name(head.major)))?;
            all.extend_from_slice(checked(self.take(length)?)?);
        }
        Ok(Cow::Owned(all))
    }

    fn text(&mut self, head: Head) -> Result<CompactString, Error> {
        let bytes = self.string(head)?;
        std::str::from_utf8(&bytes).map(CompactString::new).map_err(|_| Error::NotUtf8)
    }

    /// A byte string as the text that JSON has in its place. Go's strings may be any bytes, and are not when they are JSON.
    fn in_text(&self, bytes: &[u8]) -> CompactString {
        match self.later {
            Some(BASE64_URL) => {
                let padded = crate::protobuf::base64(bytes).replace('+', "-").replace('/', "_");
                padded.trim_end_matches('=').into()
            }
            Some(BASE16) => {
                let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
                digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
            }
            Some(_) => crate::protobuf::base64(bytes).into(),
            None => String::from_utf8_lossy(bytes).into(),
        }
    }

    /// What is behind a tag, and perhaps behind more of them. A tag that means nothing here is passed over.
    fn tagged(&mut self, mut tag: u64) -> Result<Value, Error> {
        let outer = self.later;
        loop {
            match tag {
                DATE | EPOCH => {
                    self.later = outer;
                    return self.time(tag);
                }
                _ if BIGNUMS.contains(&tag) => return Err(Error::Bignum),
                BASE64_URL | BASE64 | BASE16 => self.later = Some(tag),
                _ => {}
            }
            if self.next()? != TAG {
                break;
            }
            tag = self.head()?.argument;
        }
        let value = self.item();
        self.later = outer;
        value
    }

    /// A time, which is text in JSON.
    fn time(&mut self, tag: u64) -> Result<Value, Error> {
        let head = self.head()?;
        match (tag, head.major, head.info) {
            (DATE, TEXT, _) => {
                let text = self.text(head)?;
                Time::parse(&text).map(|_| Value::Str(text.clone())).ok_or_else(|| Error::Time(text.to_string()))
            }
            (DATE, major, _) => Err(Error::Tagged(DATE, "text string", name(major))),
            (_, UNSIGNED | NEGATIVE, _) => since_1970(integer(head)?, 0),
            (_, super::SIMPLE, HALF | SINGLE | DOUBLE) => {
                let seconds = float(head)?;
                since_1970(seconds.trunc() as i64, (seconds.fract() * 1e9) as i64)
            }
            (_, major, _) => Err(Error::Tagged(EPOCH, "integer or floating-point number", name(major))),
        }
    }
}

fn integer(head: Head) -> Result<i64, Error> {
    let overflow = |number| Error::Overflow { kind: name(head.major), number };
    let number = i128::from(head.argument);
    let number = if head.major == NEGATIVE { -1 - number } else { number };
    i64::try_from(number).map_err(|_| overflow(number))
}

fn simple(head: Head) -> Result<Value, Error> {
    // The argument of a simple value is one byte.
    let value = head.argument as u8;
    match head.info {
        20 => Ok(Value::Bool(false)),
        21 => Ok(Value::Bool(true)),
        22 => Ok(Value::Null),
        HALF | SINGLE | DOUBLE => float(head).map(number),
        24 if value < 32 => Err(Error::ReservedSimple(value)),
        _ => Err(Error::Simple(value)),
    }
}

fn float(head: Head) -> Result<f64, Error> {
    let float = match head.info {
        HALF => half(head.argument as u16),
        SINGLE => f32::from_bits(head.argument as u32).into(),
        _ => f64::from_bits(head.argument),
    };
    match () {
        _ if float.is_nan() => Err(Error::Float("NaN")),
        _ if float.is_infinite() => Err(Error::Float("infinity")),
        _ => Ok(float),
    }
}

/// Objects are kept as JSON, which has one way to say 2: whoever sends an object again, with the floats of a Go client, has
/// not changed it.
fn number(float: f64) -> Value {
    let whole = float.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    if whole { Value::Int(float as i64) } else { Value::Float(float) }
}

/// IEEE 754's binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

fn since_1970(seconds: i64, nanos: i64) -> Result<Value, Error> {
    let seconds = if nanos < 0 { seconds.saturating_sub(1) } else { seconds };
    if !YEARS.contains(&seconds) {
        return Err(Error::Year);
    }
    let whole = Time::from_unix(seconds).rfc3339();
    if nanos == 0 {
        return Ok(Value::Str(whole.into()));
    }
    let fraction = format!("{:09}", nanos.rem_euclid(1_000_000_000));
    Ok(Value::Str(format!("{}.{}Z", whole.trim_end_matches('Z'), fraction.trim_end_matches('0')).into()))
}
