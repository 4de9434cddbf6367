//! Functions of strings. Positions count characters.

use crate::eval::{Context, EvalError, Function, Outcome};
use crate::val::{List, Text, Val};
use regex::Regex;
use std::borrow::Cow;

/// No function makes a longer string.
const LONGEST: usize = 10 << 20;

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "contains" => |_, a| text2(a).map(|(s, t)| Val::Bool(s.contains(t))),
        "startsWith" => |_, a| text2(a).map(|(s, t)| Val::Bool(s.starts_with(t))),
        "endsWith" => |_, a| text2(a).map(|(s, t)| Val::Bool(s.ends_with(t))),
        "matches" => matches,
        "find" => first_match,
        "findAll" => all_matches,
        "charAt" => char_at,
        "indexOf" => |c, a| index_of(c, a, false),
        "lastIndexOf" => |c, a| index_of(c, a, true),
        "lowerAscii" => |_, a| text(a).map(|s| s.to_ascii_lowercase().into()),
        "upperAscii" => |_, a| text(a).map(|s| s.to_ascii_uppercase().into()),
        "trim" => |_, a| text(a).map(|s| s.trim().to_string().into()),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "format" => super::text_format::format,
        "strings.quote" => |_, a| text(a).map(|s| quote(s).into()),
        "jsonpatch.escapeKey" => |_, a| text(a).map(|s| s.replace('~', "~0").replace('/', "~1").into()),
        _ => return None,
    })
}

fn text<'v>(args: &'v [Val]) -> Result<&'v str, EvalError> {
    match args {
        [Val::Str(s)] => Ok(s),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn text2<'v>(args: &'v [Val]) -> Result<(&'v str, &'v str), EvalError> {
    match args {
        [Val::Str(s), Val::Str(t)] => Ok((s, t)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A value as it is shown within messages.
pub(crate) fn plain(value: &Val) -> String {
    match value {
        Val::Null => "null".into(),
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(d) => double(*d),
        Val::Str(s) => s.to_string(),
        Val::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Val::Timestamp(t) => t.rfc3339(),
        Val::Duration(d) => crate::time::duration_text(*d),
        Val::Type(t) => t.name().to_string(),
        other => other.ty().name().to_string(),
    }
}

/// A double in full, without an exponent.
pub(crate) fn double(d: f64) -> String {
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    d.to_string()
}

/// The regular expression of the last argument: known beforehand, or compiled now.
fn regex<'c>(context: &Context<'_, 'c>, pattern: &str) -> Result<Cow<'c, Regex>, String> {
    match context.regex {
        Some(regex) => Ok(Cow::Borrowed(regex)),
        None => crate::regexp::compile(pattern).map(Cow::Owned),
    }
}

fn matches<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, pattern) = text2(args)?;
    let regex = regex(context, pattern).map_err(EvalError::new)?;
    Ok(Val::Bool(regex.is_match(s)))
}

fn illegal(why: String) -> EvalError {
    EvalError::new(format!("Illegal regex: {why}"))
}

fn first_match<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, pattern) = text2(args)?;
    let regex = regex(context, pattern).map_err(illegal)?;
    Ok(regex.find(s).map_or("", |m| m.as_str()).to_string().into())
}

fn all_matches<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, pattern, most) = match args {
        [Val::Str(s), Val::Str(p)] => (s, p, -1),
        [Val::Str(s), Val::Str(p), Val::Int(n)] => (s, p, *n),
        _ => return Err(EvalError::no_such_overload()),
    };
    let regex = regex(context, pattern).map_err(illegal)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found: Vec<Val> = regex.find_iter(s).take(most).map(|m| m.as_str().to_string().into()).collect();
    Ok(found.into())
}

fn out_of_range(i: i64) -> EvalError {
    EvalError::new(format!("index out of range: {i}"))
}

/// The byte at which the character `i` begins; the end of the string counts.
fn byte_of(s: &str, i: i64) -> Result<usize, EvalError> {
    let at = usize::try_from(i).map_err(|_| out_of_range(i))?;
    s.char_indices().map(|(b, _)| b).chain([s.len()]).nth(at).ok_or_else(|| out_of_range(i))
}

fn char_at<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Str(s), Val::Int(i)] = args else { return Err(EvalError::no_such_overload()) };
    let at = byte_of(s, *i)?;
    Ok(s[at..].chars().next().map(String::from).unwrap_or_default().into())
}

fn index_of<'a>(context: &Context<'a, '_>, args: &[Val<'a>], last: bool) -> Outcome<'a> {
    let (s, t, from) = match args {
        [Val::Str(s), Val::Str(t)] => (s, t, None),
        [Val::Str(s), Val::Str(t), Val::Int(i)] => (s, t, Some(*i)),
        [Val::List(_), _] => return super::lists::index_of(context, args, last),
        _ => return Err(EvalError::no_such_overload()),
    };
    if t.is_empty() {
        let end = s.chars().count() as i64;
        return Ok(Val::Int(from.unwrap_or(if last { end } else { 0 })));
    }
    let found = match (last, from) {
        (false, None) => s.find(&**t),
        (false, Some(i)) => {
            let at = byte_of(s, i)?;
            s[at..].find(&**t).map(|b| b + at)
        }
        (true, None) => s.rfind(&**t),
        (true, Some(i)) => {
            // Occurrences that begin no later than there.
            let end = (byte_of(s, i)? + t.len()).min(s.len());
            let end = (end..=s.len()).find(|e| s.is_char_boundary(*e)).unwrap_or(s.len());
            s[..end].rfind(&**t)
        }
    };
    Ok(Val::Int(found.map_or(-1, |b| s[..b].chars().count() as i64)))
}

fn replace<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, old, new, most) = match args {
        [Val::Str(s), Val::Str(old), Val::Str(new)] => (s, old, new, -1),
        [Val::Str(s), Val::Str(old), Val::Str(new), Val::Int(n)] => (s, old, new, *n),
        _ => return Err(EvalError::no_such_overload()),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = s.matches(&**old).count().min(most);
    let grown = count.saturating_mul(new.len().saturating_sub(old.len())).saturating_add(s.len());
    if grown > LONGEST {
        return Err(EvalError::over_budget());
    }
    Ok(s.replacen(&**old, new, most).into())
}

fn split<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, sep, most) = match args {
        [Val::Str(s), Val::Str(sep)] => (s, sep, -1),
        [Val::Str(s), Val::Str(sep), Val::Int(n)] => (s, sep, *n),
        _ => return Err(EvalError::no_such_overload()),
    };
    if most == 0 {
        return Ok(Vec::new().into());
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Vec<Val> = if sep.is_empty() {
        // Go splits after each character, and leaves the rest whole.
        let mut parts = Vec::new();
        let mut rest = &**s;
        while let Some(c) = rest.chars().next() {
            if parts.len() + 1 == most {
                parts.push(rest.to_string().into());
                break;
            }
            parts.push(c.to_string().into());
            rest = &rest[c.len_utf8()..];
        }
        parts
    } else {
        s.splitn(most, &**sep).map(|p| p.to_string().into()).collect()
    };
    Ok(parts.into())
}

fn substring<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Str(s), Val::Int(start)] => {
            let start = byte_of(s, *start)?;
            Ok(s[start..].to_string().into())
        }
        [Val::Str(s), Val::Int(start), Val::Int(end)] => {
            if start > end {
                return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
            }
            let (start, end) = (byte_of(s, *start)?, byte_of(s, *end)?);
            Ok(s[start..end].to_string().into())
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn join<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (list, separator): (&List, &str) = match args {
        [Val::List(list)] => (list, ""),
        [Val::List(list), Val::Str(separator)] => (list, separator),
        _ => return Err(EvalError::no_such_overload()),
    };
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        let Val::Str(item) = &item else {
            return Err(EvalError::new(format!("join: invalid input: {}", plain(&item))));
        };
        out.push_str(item);
        if out.len() > LONGEST {
            return Err(EvalError::over_budget());
        }
    }
    Ok(Val::Str(Text::Shared(out.into())))
}

fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
