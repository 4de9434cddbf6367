//! What a plain scalar means (go-yaml v2's `resolve`).

use crate::value::Value;

/// The meaning of an unquoted scalar. None: a number JSON cannot express (`.nan`, `.inf`).
pub(super) fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    if matches!(text.trim_start_matches(['+', '-']), ".inf" | ".Inf" | ".INF") {
        return None;
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        let plain = text.replace('_', "");
        if let Some(number) = integer(&plain).or_else(|| float(&plain)) {
            return Some(number);
        }
    }
    Some(text.into())
}

/// Whether the text, unquoted, would be read as anything but that string.
pub(super) fn is_special(text: &str) -> bool {
    !matches!(resolve(text), Some(Value::Str(_))) || text == "<<" || is_timestamp(text) || is_base60(text)
}

/// Go's `ParseInt(s, 0, 64)`, falling back to what fits an unsigned integer as a float.
fn integer(text: &str) -> Option<Value> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let prefixed = |at: usize, radix: u32| (digits.get(at..).unwrap_or(""), radix);
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => prefixed(2, 16),
        Some("0o" | "0O") => prefixed(2, 8),
        Some("0b" | "0B") => prefixed(2, 2),
        Some(_) if digits.starts_with('0') => prefixed(1, 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match i64::try_from(sign * i128::from(magnitude)) {
        Ok(i) => Some(Value::Int(i)),
        Err(_) if sign > 0 => Some(Value::Float(magnitude as f64)),
        Err(_) => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; integral ones become integers, as JSON prints them.
fn float(text: &str) -> Option<Value> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let good = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e));
    let number: f64 = text.parse().ok().filter(|f: &f64| good && f.is_finite())?;
    Some(if number.fract() == 0.0 && number.abs() < 9.0e15 { Value::Int(number as i64) } else { Value::Float(number) })
}

/// `2001-12-14`, `2001-12-14 21:59:43.10`, `2001-12-14T21:59:43Z`: quoted when written, strings when read.
fn is_timestamp(text: &str) -> bool {
    let (date, rest) = text.split_at(text.find(['T', 't', ' ']).unwrap_or(text.len()));
    let mut parts = date.split('-');
    let number = |part: Option<&str>, lengths: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|p| lengths.contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    };
    let dated = number(parts.next(), 4..=4)
        && number(parts.next(), 1..=2)
        && number(parts.next(), 1..=2)
        && parts.next().is_none();
    dated && (rest.is_empty() || rest[1..].starts_with(|c: char| c.is_ascii_digit()) && rest.contains(':'))
}

/// `1:30`, which YAML 1.1 reads as ninety.
fn is_base60(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or("");
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && body.contains(':')
        && parts.all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing() {
        let cases = [
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("y", Value::Bool(true)),
            ("tRue", "tRue".into()),
            ("~", Value::Null),
            ("12", Value::Int(12)),
            ("-0x1F", Value::Int(-31)),
            ("0o17", Value::Int(15)),
            ("017", Value::Int(15)),
            ("08", Value::Int(8)),
            ("1_000", Value::Int(1000)),
            ("1.0", Value::Int(1)),
            ("1e3", Value::Int(1000)),
            ("1.5", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            ("1.2.3", "1.2.3".into()),
            ("2001-12-14", "2001-12-14".into()),
            ("1:30", "1:30".into()),
            ("100m", "100m".into()),
            ("-", "-".into()),
            ("0x", "0x".into()),
            ("18446744073709551615", Value::Float(18446744073709551615.0)),
        ];
        for (text, want) in cases {
            assert_eq!(resolve(text), Some(want), "{text}");
        }
        assert_eq!(resolve(".nan"), None);
        assert_eq!(resolve("-.Inf"), None);
    }

    #[test]
    fn what_must_be_quoted() {
        for text in ["yes", "1", "", "null", "2001-12-14", "2026-01-01T00:00:00Z", "1:30", "<<", "0x10", "1e3", ".inf"]
        {
            assert!(is_special(text), "{text}");
        }
        for text in ["a", "1.2.3", "v1", "100m", "2001-12", "10:x", "/x"] {
            assert!(!is_special(text), "{text}");
        }
    }
}
