//! JSON to and from [`Value`] trees: bounded, duplicate keys reported with their path.

use crate::value::{Map, Value};
use compact_str::CompactString;

/// Deeper nesting than this is refused (upstream's limit for request bodies).
pub const MAX_DEPTH: usize = 100;

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{message} at offset {offset}")]
pub struct ParseError {
    pub message: &'static str,
    pub offset: usize,
}

/// A parsed document and the paths of its duplicate fields (`spec.replicas`), which strict field validation reports.
#[derive(Debug)]
pub struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// Parses one JSON document, dropping reports of duplicates.
pub fn parse(bytes: &[u8]) -> Result<Value, ParseError> {
    parse_strict(bytes).map(|p| p.value)
}

/// Parses one JSON document. At most 100 duplicates are reported.
pub fn parse_strict(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let mut parser = Parser { bytes, at: 0, depth: 0, path: Vec::new(), duplicates: Vec::new(), scratch: Vec::new() };
    parser.space();
    let value = parser.value()?;
    parser.space();
    if parser.at != bytes.len() {
        return Err(parser.error("invalid character after top-level value"));
    }
    Ok(Parsed { value, duplicates: parser.duplicates })
}

enum Step {
    Key(CompactString),
    Index(usize),
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    path: Vec<Step>,
    duplicates: Vec<String>,
    scratch: Vec<u8>,
}

impl Parser<'_> {
    fn error(&self, message: &'static str) -> ParseError {
        ParseError { message, offset: self.at }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value, ParseError> {
        match self.bytes.get(self.at) {
            None => Err(self.error("unexpected end of JSON input")),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Value::Str(self.string()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("invalid character looking for beginning of value")),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Value, ParseError>) -> Result<Value, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("exceeded max depth"));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, ParseError> {
        let mut entries = Vec::new();
        if self.eat(b'}') {
            return Ok(Value::object());
        }
        loop {
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.error("invalid character looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.space();
            if !self.eat(b':') {
                return Err(self.error("invalid character after object key"));
            }
            self.space();
            self.path.push(Step::Key(key.clone()));
            let value = self.value()?;
            self.path.pop();
            entries.push((key, value));
            self.space();
            if self.eat(b',') {
                self.space();
            } else if self.eat(b'}') {
                break;
            } else {
                return Err(self.error("invalid character after object key:value pair"));
            }
        }
        let (path, duplicates) = (&self.path, &mut self.duplicates);
        Ok(Value::Object(Map::from_unsorted(entries, |key| {
            if duplicates.len() < 100 {
                duplicates.push(dotted(path, key));
            }
        })))
    }

    fn array(&mut self) -> Result<Value, ParseError> {
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.path.push(Step::Index(items.len()));
            items.push(self.value()?);
            self.path.pop();
            self.space();
            if self.eat(b',') {
                self.space();
            } else if self.eat(b']') {
                items.shrink_to_fit();
                return Ok(Value::Array(items));
            } else {
                return Err(self.error("invalid character after array element"));
            }
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(hit);
        hit
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, ParseError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("invalid character in literal"))
        }
    }

    fn number(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        self.eat(b'-');
        let first = self.at;
        self.digits()?;
        if self.at - first > 1 && self.bytes[first] == b'0' {
            return Err(self.error("invalid character after top-level value"));
        }
        let mut float = false;
        if self.eat(b'.') {
            float = true;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            float = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0");
        if !float && let Ok(int) = text.parse() {
            return Ok(Value::Int(int));
        }
        match text.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Value::Float(f)),
            _ => Err(self.error("number out of range")),
        }
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if start == self.at { Err(self.error("invalid character in numeric literal")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<CompactString, ParseError> {
        self.at += 1;
        let start = self.at;
        while let Some(&b) = self.bytes.get(self.at) {
            match b {
                b'"' => {
                    let text = std::str::from_utf8(&self.bytes[start..self.at]);
                    let text = text.map_err(|_| self.error("invalid UTF-8 in string"))?;
                    self.at += 1;
                    return Ok(CompactString::new(text));
                }
                b'\\' => return self.escaped(start),
                0..0x20 => return Err(self.error("invalid control character in string literal")),
                _ => self.at += 1,
            }
        }
        Err(self.error("unexpected end of JSON input"))
    }

    fn escaped(&mut self, start: usize) -> Result<CompactString, ParseError> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.bytes[start..self.at]);
        loop {
            let Some(&b) = self.bytes.get(self.at) else {
                return Err(self.error("unexpected end of JSON input"));
            };
            self.at += 1;
            match b {
                b'"' => {
                    let text = std::str::from_utf8(&self.scratch);
                    return text.map(CompactString::new).map_err(|_| self.error("invalid UTF-8 in string"));
                }
                b'\\' => {
                    let c = self.escape()?;
                    self.scratch.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return Err(self.error("invalid control character in string literal")),
                _ => self.scratch.push(b),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ParseError> {
        let Some(&b) = self.bytes.get(self.at) else {
            return Err(self.error("unexpected end of JSON input"));
        };
        self.at += 1;
        Ok(match b {
            b'"' | b'\\' | b'/' => b as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(self.error("invalid character in string escape code")),
        })
    }

    /// A `\uXXXX` escape; surrogate pairs are joined, lone surrogates become U+FFFD as in Go.
    fn unicode(&mut self) -> Result<char, ParseError> {
        let high = self.hex4()?;
        if !(0xd800..0xe000).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or('\u{fffd}'));
        }
        if high < 0xdc00 && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(joined).unwrap_or('\u{fffd}'));
            }
            self.at = before;
        }
        Ok('\u{fffd}')
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let code = digits.and_then(|d| d.iter().try_fold(0u32, |n, b| Some(n * 16 + (*b as char).to_digit(16)?)));
        self.at += 4;
        code.ok_or_else(|| self.error("invalid character in \\u hexadecimal character escape"))
    }
}

fn dotted(path: &[Step], last: &str) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Step::Index(i) => out.push_str(&format!("[{i}]")),
        }
    }
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(last);
    out
}

pub fn to_string(value: &Value) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_default()
}

pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(value, &mut out);
    out
}

/// Appends `value` as compact JSON.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(i) => write_int(*i, out),
        Value::Float(f) => write_float(*f, out),
        Value::Str(s) => write_str(s, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => write_map(map, out),
    }
}

/// JSON for people: each entry on a line of its own, each level further in by `indent`.
pub fn pretty(value: &Value, indent: &str) -> String {
    let mut out = Vec::with_capacity(1024);
    write_pretty(value, indent, 0, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn write_pretty(value: &Value, indent: &str, depth: usize, out: &mut Vec<u8>) {
    let new_line = |depth: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        (0..depth).for_each(|_| out.extend_from_slice(indent.as_bytes()));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                out.push(if i == 0 { b'{' } else { b',' });
                new_line(depth + 1, out);
                write_str(key, out);
                out.extend_from_slice(b": ");
                write_pretty(value, indent, depth + 1, out);
            }
            new_line(depth, out);
            out.push(b'}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { b'[' } else { b',' });
                new_line(depth + 1, out);
                write_pretty(item, indent, depth + 1, out);
            }
            new_line(depth, out);
            out.push(b']');
        }
        scalar => write(scalar, out),
    }
}

pub fn write_map(map: &Map, out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_str(key, out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

pub fn write_int(i: i64, out: &mut Vec<u8>) {
    use std::io::Write;
    let _ = write!(out, "{i}");
}

fn write_float(f: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    let _ = if f.fract() == 0.0 && f.abs() < 1e15 { write!(out, "{f:.0}") } else { write!(out, "{f}") };
}

/// Appends a JSON string, escaping what must be and, like Go's encoder, U+2028 and U+2029.
pub fn write_str(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = s.as_bytes();
    // Nearly all strings are as they are: seen at once, without a branch for each byte.
    if !bytes.iter().fold(false, |found, b| found | (*b < 0x20) | (*b == b'"') | (*b == b'\\')) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut from = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let escape: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => {
                out.extend_from_slice(&bytes[from..i]);
                out.extend_from_slice(format!("\\u{b:04x}").as_bytes());
                from = i + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..i]);
        out.extend_from_slice(escape);
        from = i + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_json() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "1e",
            "tru",
            "\"\\x\"",
            "\"\u{1}\"",
            "\"a",
            "1 2",
            "\"\\u12\"",
            "nul",
            "1e999",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let ok = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert!(parse(ok.as_bytes()).is_ok());
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().message, "exceeded max depth");
    }

    #[test]
    fn duplicates_are_reported_with_their_path() {
        let p = parse_strict(br#"{"a":[{"b":1,"b":2}],"c":1,"c":{"x":1}}"#).unwrap();
        assert_eq!(p.duplicates, ["a[0].b", "c"]);
        assert_eq!(to_string(&p.value), r#"{"a":[{"b":2}],"c":{"x":1}}"#);
    }

    #[test]
    fn escapes() {
        let v = parse(br#""\ud83d\ude00\u00e9\/\n\ud800x""#).unwrap();
        assert_eq!(v.str(), "\u{1F600}\u{e9}/\n\u{fffd}x");
        assert_eq!(to_string(&Value::from("a\"\\\u{1}")), r#""a\"\\\u0001""#);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // A whole float is written without a point and read back as an integer, as in Go.
            (-1.0e12..1.0e12f64).prop_map(|f| Value::Float(if f.fract() == 0.0 { f + 0.5 } else { f })),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((".{0,30}", inner), 0..6).prop_map(|e| Value::Object(e.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trip(v in tree()) {
            let text = to_vec(&v);
            prop_assert_eq!(parse(&text).unwrap(), v);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
