//! URLs, as Go's `net/url` reads the URI of a request: absolute, or an absolute path.

use super::kubernetes::Opaque;
use crate::eval::{EvalError, Outcome};
use crate::val::{Map, Val};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Url {
    pub(crate) text: String,
    pub(crate) scheme: String,
    /// With the port, if there is one.
    pub(crate) host: String,
    /// Escaped.
    pub(crate) path: String,
    query: String,
}

impl Url {
    fn split(&self) -> (&str, &str) {
        let colon = match self.host.rfind(']') {
            Some(end) => self.host[end..].find(':').map(|i| i + end),
            None => self.host.rfind(':'),
        };
        colon.map_or((self.host.as_str(), ""), |i| (&self.host[..i], &self.host[i + 1..]))
    }

    pub(crate) fn hostname(&self) -> &str {
        let (name, _) = self.split();
        name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name)
    }

    pub(crate) fn port(&self) -> &str {
        self.split().1
    }

    /// Each key's values. What is malformed is left out.
    pub(crate) fn query<'a>(&self) -> Outcome<'a> {
        let mut found: BTreeMap<String, Vec<Val<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) {
                found.entry(key).or_default().push(value.into());
            }
        }
        Map::made(found.into_iter().map(|(k, v)| (k.into(), v.into())).collect()).map(Val::Map)
    }
}

fn unescape(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let digit = |b: Option<u8>| (b? as char).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus => out.push(b' '),
            b => out.push(b),
        }
    }
    Some(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

pub(crate) fn parse<'a>(text: &str) -> Outcome<'a> {
    read(text)
        .map(|url| Val::opaque(Opaque::Url(url)))
        .map_err(|why| EvalError::new(format!("URL parse error during conversion from string: parse {text:?}: {why}")))
}

/// The URL of a request's URI; the error is Go's.
pub(crate) fn read(text: &str) -> Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() {
        return Err("empty url".into());
    }
    let (scheme, rest) = scheme(text)?;
    // A fragment is no part of a request's URI, but of the URL.
    let rest = rest.split('#').next().unwrap_or("");
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        text: text.into(),
        scheme: scheme.to_ascii_lowercase(),
        host: String::new(),
        path: String::new(),
        query: query.into(),
    };
    if !rest.starts_with('/') {
        if scheme.is_empty() {
            return Err("invalid URI for request".into());
        }
        return Ok(url);
    }
    let path = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() => {
            let end = after.find('/').unwrap_or(after.len());
            url.host = authority(&after[..end])?;
            &after[end..]
        }
        _ => rest,
    };
    url.path = escaped_path(path)?;
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn authority(text: &str) -> Result<String, String> {
    let host = match text.rsplit_once('@') {
        Some((user, host)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
            if !user.bytes().all(plain) {
                return Err("net/url: invalid userinfo".into());
            }
            host
        }
        None => text,
    };
    let port = match host.strip_prefix('[') {
        Some(inner) => {
            let end = inner.rfind(']').ok_or("missing ']' in host")?;
            &inner[end + 1..]
        }
        None => host.find(':').map_or("", |i| &host[i..]),
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:[]<>\"%".contains(c);
    if let Some(bad) = host.chars().find(|c| !allowed(*c)) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    Ok(host.to_string())
}

/// The path as it is, if it is escaped well; otherwise escaped.
fn escaped_path(path: &str) -> Result<String, String> {
    if let Some(at) = path.bytes().enumerate().find_map(|(i, b)| {
        let hex = |i: usize| path.as_bytes().get(i).is_some_and(u8::is_ascii_hexdigit);
        (b == b'%' && !(hex(i + 1) && hex(i + 2))).then_some(i)
    }) {
        let end = (at + 3).min(path.len());
        return Err(format!("invalid URL escape {:?}", String::from_utf8_lossy(&path.as_bytes()[at..end])));
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&b);
    if path.bytes().all(fine) {
        return Ok(path.to_string());
    }
    let mut out = String::new();
    for b in unescape(path, false).unwrap_or_default().bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    Ok(out)
}
