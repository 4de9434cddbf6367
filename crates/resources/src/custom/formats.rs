//! The string formats that schemas of custom resources may name (upstream `apiextensions-apiserver/pkg/apiserver/validation/
//! formats.go` and go-openapi's strfmt). Others are ignored.

use canopus_api::{Time, names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const KNOWN: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "date-time",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8s-long-name",
    "k8s-short-name",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// The format of this name, if it is one that is checked.
pub fn known(name: &str) -> Option<&'static str> {
    KNOWN.iter().copied().find(|known| *known == name)
}

/// Whether a text is what `format` says.
pub fn conforms(format: &str, text: &str) -> bool {
    match format {
        "bsonobjectid" => text.len() == 24 && hex(text),
        "byte" => base64(text),
        "cidr" => cidr(text),
        "creditcard" => credit_card(text),
        "date" => date(text),
        "date-time" | "datetime" => Time::parse(text).is_some(),
        "duration" => duration(text),
        "email" => email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "hostname" => hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8s-long-name" => names::dns1123_subdomain(text).is_empty(),
        "k8s-short-name" => names::dns1123_label(text).is_empty(),
        "mac" => mac(text),
        "rgbcolor" => rgb(text),
        "ssn" => ssn(text),
        "uri" => uri(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn base64(text: &str) -> bool {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    digits(bits) && bits.parse::<u32>().is_ok_and(|bits| bits <= max)
}

fn credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    let luhn: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let digit = u32::from(b - b'0');
            if i % 2 == 0 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } }
        })
        .sum();
    (13..=16).contains(&number.len()) && luhn.is_multiple_of(10)
}

fn date(text: &str) -> bool {
    text.len() == 10 && Time::parse(&format!("{text}T00:00:00Z")).is_some()
}

/// Go's durations, and Scala's (`22 ns`, `3 days`).
fn duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "m",
        "min",
        "mins",
        "minute",
        "minutes",
        "h",
        "hr",
        "hour",
        "hours",
        "d",
        "day",
        "days",
        "w",
        "wk",
        "week",
        "weeks",
    ];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let after = rest[number..].trim_start();
        let unit = after.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(after.len());
        if number == 0 || !UNITS.contains(&&after[..unit]) {
            return false;
        }
        rest = after[unit..].trim_start();
    }
    !text.is_empty()
}

fn email(text: &str) -> bool {
    let address = text.rsplit_once('<').map_or(text, |(_, rest)| rest.trim_end_matches('>'));
    let Some((user, host)) = address.rsplit_once('@') else { return false };
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>' | '(' | ')' | ',' | ';' | ':');
    !user.is_empty() && !host.is_empty() && user.chars().all(good) && host.chars().all(good) && !host.contains('@')
}

fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    !text.is_empty() && text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn isbn10(text: &str) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'-' | b' ')).collect();
    let value = |(i, b): (usize, &u8)| match b {
        b'0'..=b'9' => Some((i as u32 + 1) * u32::from(b - b'0')),
        b'X' if i == 9 => Some(100),
        _ => None,
    };
    let sum: Option<u32> = plain.iter().enumerate().map(value).sum();
    plain.len() == 10 && sum.is_some_and(|sum| sum.is_multiple_of(11))
}

fn isbn13(text: &str) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'-' | b' ')).collect();
    let weigh = |(i, b): (usize, &u8)| b.is_ascii_digit().then(|| u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 3 });
    let sum: Option<u32> = plain.iter().enumerate().map(weigh).sum();
    plain.len() == 13 && sum.is_some_and(|sum| sum.is_multiple_of(10))
}

fn mac(text: &str) -> bool {
    let pairs = |separator: char| {
        let parts: Vec<&str> = text.split(separator).collect();
        matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && hex(p))
    };
    let quads: Vec<&str> = text.split('.').collect();
    pairs(':') || pairs('-') || matches!(quads.len(), 3 | 4 | 10) && quads.iter().all(|p| p.len() == 4 && hex(p))
}

fn rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or("").split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|p| p.parse::<u8>().is_ok())
}

fn ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    plain.len() == 9 && digits(&plain)
}

/// As Go's `url.ParseRequestURI`: absolute, or an absolute path.
fn uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    match text.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        }
        _ => text.starts_with('/'),
    }
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let variant = matches!(plain.chars().nth(16), Some('8' | '9' | 'a' | 'b' | 'A' | 'B'));
    plain.len() == 32
        && hex(&plain)
        && text.len() <= 36
        && version.is_none_or(|v| plain.chars().nth(12) == Some(v) && (v == '3' || variant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let cases = [
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23:45"),
            ("uuid", "a8098c1a-f86e-11da-bd1a-00112444be1e", "a8098c1a"),
            ("uuid4", "025b0d74-00a2-4048-bf57-227c5111bb34", "a8098c1a-f86e-11da-bd1a-00112444be1e"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("hexcolor", "#FFFFFF", "#FF"),
            ("rgbcolor", "rgb(255,255,255)", "rgb(255,255)"),
            ("ssn", "111-11-1111", "111-11"),
            ("byte", "aGVsbG8=", "%"),
            ("date", "2006-01-02", "2006-13-02"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15"),
            ("duration", "3 days", "3 apples"),
            ("email", "a@example.com", "a"),
            ("hostname", "example.com", "-a"),
            ("uri", "http://example.com/a", "example com"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "a_b"),
        ];
        for (format, good, bad) in cases {
            assert!(conforms(known(format).unwrap(), good), "{format} {good}");
            assert!(!conforms(format, bad), "{format} {bad}");
        }
        assert_eq!(known("int-or-string"), None);
    }
}
