//! `"%d of %s".format([…])`.

use super::strings::plain;
use crate::eval::{Context, EvalError, Outcome};
use crate::val::Val;
use std::cell::Cell;
use std::fmt::Write;

const MOST_DECIMALS: usize = 100;
/// So many values are shown within one.
const MOST_VALUES: u32 = 100_000;

pub(crate) fn format<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Str(template), Val::List(values)] = args else { return Err(EvalError::no_such_overload()) };
    let mut out = String::new();
    let mut rest: &str = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Err(EvalError::new("unexpected end of string"));
        }
        let value = values.get(next).ok_or_else(|| EvalError::new(format!("index {next} out of range")))?;
        next += 1;
        rest = clause(&mut out, rest, &value)?;
    }
    out.push_str(rest);
    Ok(out.into())
}

/// Writes one value as the clause says and returns what comes after the clause.
fn clause<'t>(out: &mut String, text: &'t str, value: &Val) -> Result<&'t str, EvalError> {
    let (precision, text) = match text.strip_prefix('.') {
        Some(after) => {
            let end = after.bytes().take_while(u8::is_ascii_digit).count();
            if end == after.len() {
                return Err(parsing("error while parsing precision: could not find end of precision specifier"));
            }
            let precision = if end == 0 { 0 } else { after[..end].parse().unwrap_or(usize::MAX) };
            if precision > MOST_DECIMALS {
                return Err(parsing("error while parsing precision: precision is too large"));
            }
            (Some(precision), &after[end..])
        }
        None => (None, text),
    };
    let kind = text.chars().next().ok_or_else(|| EvalError::new("unexpected end of string"))?;
    let formatted = match kind {
        's' => shown(value, &Cell::new(MOST_VALUES)),
        'd' => decimal(value),
        'f' => fixed(value, precision.unwrap_or(6)),
        'e' => scientific(value, precision.unwrap_or(6)),
        'b' => binary(value),
        'x' => hex(value).map(|h| h.to_lowercase()),
        'X' => hex(value).map(|h| h.to_uppercase()),
        'o' => octal(value),
        other => return Err(parsing(&format!("unrecognized formatting clause \"{other}\""))),
    };
    out.push_str(&formatted.map_err(|why| EvalError::new(format!("error during formatting: {why}")))?);
    Ok(&text[kind.len_utf8()..])
}

fn parsing(why: &str) -> EvalError {
    EvalError::new(format!("could not parse formatting clause: {why}"))
}

fn given(what: &str, value: &Val) -> String {
    format!("{what}, was given {}", value.ty().name())
}

fn shown(value: &Val, left: &Cell<u32>) -> Result<String, String> {
    left.set(left.get().checked_sub(1).ok_or("value is too large")?);
    Ok(match value {
        Val::List(list) => {
            let items: Vec<String> = list.iter().map(|v| nested(&v, left)).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Val::Map(map) => {
            let mut entries: Vec<(String, String)> =
                map.iter().map(|(k, v)| Ok((nested(&k, left)?, nested(&v, left)?))).collect::<Result<_, String>>()?;
            entries.sort();
            let entries: Vec<String> = entries.into_iter().map(|(k, v)| format!("{k}: {v}")).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Val::Optional(_) | Val::Struct(_) | Val::Opaque(_) | Val::Lazy(_) => {
            return Err(given(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, \
                 and timestamps",
                value,
            ));
        }
        other => plain(other),
    })
}

/// A value within a list or map, as the language would write it.
fn nested(value: &Val, left: &Cell<u32>) -> Result<String, String> {
    let text = shown(value, left)?;
    Ok(match value {
        Val::Str(_) => format!("{text:?}"),
        Val::Bytes(_) => format!("b{text:?}"),
        Val::Timestamp(_) => format!("timestamp({text:?})"),
        Val::Duration(_) => format!("duration({text:?})"),
        Val::Double(d) if d.is_finite() => format!("{d:.6}"),
        Val::Double(_) => format!("{text:?}"),
        _ => text,
    })
}

fn decimal(value: &Val) -> Result<String, String> {
    match value {
        Val::Int(_) | Val::Uint(_) => Ok(plain(value)),
        _ => Err(given("decimal clause can only be used on integers", value)),
    }
}

/// A double; the names of those that are no numbers are taken too.
fn number(value: &Val, what: &str) -> Result<f64, String> {
    match value {
        Val::Double(d) => Ok(*d),
        Val::Str(s) if &**s == "NaN" => Ok(f64::NAN),
        Val::Str(s) if &**s == "Infinity" => Ok(f64::INFINITY),
        Val::Str(s) if &**s == "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => Err(given(&format!("{what} clause can only be used on doubles"), value)),
    }
}

fn special(d: f64) -> Option<String> {
    match d {
        d if d.is_nan() => Some("NaN".into()),
        d if d.is_infinite() => Some(if d > 0.0 { "∞" } else { "-∞" }.into()),
        _ => None,
    }
}

/// As English writes it: thousands apart.
fn fixed(value: &Val, precision: usize) -> Result<String, String> {
    let d = number(value, "fixed-point")?;
    if let Some(text) = special(d) {
        return Ok(text);
    }
    let text = format!("{:.precision$}", d.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::from(if d.is_sign_negative() { "-" } else { "" });
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    Ok(out + rest)
}

/// As English writes it: `3.14×10⁰²`.
fn scientific(value: &Val, precision: usize) -> Result<String, String> {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let d = number(value, "scientific")?;
    if let Some(text) = special(d) {
        return Ok(text);
    }
    let text = format!("{d:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |d| ("⁻", d));
    let raised: String =
        format!("{digits:0>2}").chars().filter_map(|c| c.to_digit(10)).map(|d| DIGITS[d as usize]).collect();
    Ok(format!("{mantissa}×10{sign}{raised}"))
}

fn binary(value: &Val) -> Result<String, String> {
    match value {
        Val::Int(i) if *i < 0 => Ok(format!("-{:b}", i.unsigned_abs())),
        Val::Int(i) => Ok(format!("{i:b}")),
        Val::Uint(u) => Ok(format!("{u:b}")),
        Val::Bool(b) => Ok(if *b { "1" } else { "0" }.into()),
        _ => Err(given("only integers and bools can be formatted as binary", value)),
    }
}

fn hex(value: &Val) -> Result<String, String> {
    let bytes = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        })
    };
    match value {
        Val::Int(i) if *i < 0 => Ok(format!("-{:x}", i.unsigned_abs())),
        Val::Int(i) => Ok(format!("{i:x}")),
        Val::Uint(u) => Ok(format!("{u:x}")),
        Val::Str(s) => Ok(bytes(s.as_bytes())),
        Val::Bytes(b) => Ok(bytes(b)),
        _ => Err(given("only integers, byte buffers, and strings can be formatted as hex", value)),
    }
}

fn octal(value: &Val) -> Result<String, String> {
    match value {
        Val::Int(i) if *i < 0 => Ok(format!("-{:o}", i.unsigned_abs())),
        Val::Int(i) => Ok(format!("{i:o}")),
        Val::Uint(u) => Ok(format!("{u:o}")),
        _ => Err(given("octal clause can only be used on integers", value)),
    }
}
