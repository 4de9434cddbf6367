//! Semantic versions (semver.org, 2.0.0).

use super::kubernetes::Opaque;
use crate::eval::{Context, EvalError, Outcome};
use crate::val::Val;
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) patch: u64,
    /// Identifiers of a pre-release.
    pre: Vec<String>,
}

impl Semver {
    pub(crate) fn compare(&self, other: &Semver) -> Ordering {
        let core = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        core.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_release(&self.pre, &other.pre),
        })
    }
}

fn pre_release(a: &[String], b: &[String]) -> Ordering {
    let each = a.iter().zip(b).map(|(a, b)| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    });
    each.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    let parts: Vec<&str> = core.splitn(3, '.').collect();
    let [major, minor, patch] = parts.as_slice() else {
        return Err("No Major.Minor.Patch elements found".into());
    };
    let number = |name: &str, s: &str| {
        if s.is_empty() || !s.bytes().all(|c| c.is_ascii_digit()) {
            return Err(format!("Invalid character(s) found in {name} number {s:?}"));
        }
        if s.len() > 1 && s.starts_with('0') {
            return Err(format!("{name} number must not contain leading zeroes {s:?}"));
        }
        s.parse::<u64>().map_err(|e| e.to_string())
    };
    let identifiers = |what: &str, s: &str| -> Result<Vec<String>, String> {
        s.split('.')
            .map(|part| {
                if part.is_empty() {
                    return Err(format!("{what} is empty"));
                }
                if !part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
                    return Err(format!("Invalid character(s) found in {what} {part:?}"));
                }
                Ok(part.to_string())
            })
            .collect()
    };
    let version = Semver {
        major: number("Major", major)?,
        minor: number("Minor", minor)?,
        patch: number("Patch", patch)?,
        pre: pre.map_or(Ok(Vec::new()), |p| identifiers("prerelease", p))?,
    };
    if let Some(part) =
        version.pre.iter().find(|p| p.len() > 1 && p.starts_with('0') && p.bytes().all(|c| c.is_ascii_digit()))
    {
        return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
    }
    build.map_or(Ok(Vec::new()), |b| identifiers("build meta data", b))?;
    Ok(version)
}

/// `v1.02` as `1.2.0`.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut parts: Vec<String> = core
        .splitn(3, '.')
        .map(|p| {
            let trimmed = p.trim_start_matches('0');
            if trimmed.is_empty() && !p.is_empty() { "0".to_string() } else { trimmed.to_string() }
        })
        .collect();
    if parts.len() < 3 {
        if !rest.is_empty() {
            return Err("Short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    Ok(parts.join(".") + rest)
}

fn read(args: &[Val]) -> Result<Result<Semver, String>, EvalError> {
    match args {
        [Val::Str(s)] | [Val::Str(s), Val::Bool(false)] => Ok(parse(s)),
        [Val::Str(s), Val::Bool(true)] => Ok(normalized(s).and_then(|s| parse(&s))),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn parse_function<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    read(args)?.map(|v| Val::opaque(Opaque::Semver(v))).map_err(EvalError::new)
}

pub(crate) fn is_semver<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    Ok(Val::Bool(read(args)?.is_ok()))
}
