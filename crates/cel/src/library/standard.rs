//! Operators, conversions, times, optional values.

use super::strings::plain;
use crate::eval::{Context, EvalError, Function, Outcome};
use crate::time::{Civil, Timestamp, duration_text, parse_duration, zone};
use crate::val::{List, Val};
use std::cmp::Ordering;
use std::sync::Arc;

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "!_" => not,
        "_==_" => |_, a| two(a).map(|(x, y)| Val::Bool(x.equals(y))),
        "_!=_" => |_, a| two(a).map(|(x, y)| Val::Bool(!x.equals(y))),
        "_<_" => |_, a| compare(a, Ordering::is_lt),
        "_<=_" => |_, a| compare(a, Ordering::is_le),
        "_>_" => |_, a| compare(a, Ordering::is_gt),
        "_>=_" => |_, a| compare(a, Ordering::is_ge),
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "-_" => negate,
        "@in" => is_in,
        "size" => size,
        "type" => |_, a| one(a).map(|v| Val::Type(v.ty())),
        "dyn" => |_, a| one(a).cloned(),
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "int" => to_int,
        "uint" => to_uint,
        "string" => to_string,
        "timestamp" => to_timestamp,
        "duration" => to_duration,
        "getFullYear" => |_, a| calendar(a, |c| c.year),
        "getMonth" => |_, a| calendar(a, |c| c.month - 1),
        "getDayOfYear" => |_, a| calendar(a, |c| c.day_of_year),
        "getDayOfMonth" => |_, a| calendar(a, |c| c.day - 1),
        "getDate" => |_, a| calendar(a, |c| c.day),
        "getDayOfWeek" => |_, a| calendar(a, |c| c.day_of_week),
        "getHours" => |_, a| clock(a, 3_600_000_000_000, |c| c.hour),
        "getMinutes" => |_, a| clock(a, 60_000_000_000, |c| c.minute),
        "getSeconds" => |_, a| clock(a, 1_000_000_000, |c| c.second),
        "getMilliseconds" => milliseconds,
        "optional.of" => |_, a| one(a).map(|v| Val::some(v.clone())),
        "optional.ofNonZeroValue" => {
            |_, a| one(a).map(|v| if is_zero(v) { Val::Optional(None) } else { Val::some(v.clone()) })
        }
        "optional.none" => |_, _| Ok(Val::Optional(None)),
        "optional.unwrap" | "unwrapOpt" => unwrap,
        "value" => value,
        "hasValue" => has_value,
        _ => return None,
    })
}

fn one<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v Val<'a>, EvalError> {
    args.first().ok_or_else(EvalError::no_such_overload)
}

fn two<'v, 'a>(args: &'v [Val<'a>]) -> Result<(&'v Val<'a>, &'v Val<'a>), EvalError> {
    match args {
        [a, b] => Ok((a, b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn not<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Bool(b)] => Ok(Val::Bool(!b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn compare<'a>(args: &[Val<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let (a, b) = two(args)?;
    if let (Val::Double(x), _) | (_, Val::Double(x)) = (a, b)
        && x.is_nan()
    {
        return Err(EvalError::new("NaN values cannot be ordered"));
    }
    a.order(b).map(|o| Val::Bool(holds(o))).ok_or_else(EvalError::no_such_overload)
}

fn overflow(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

fn int<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Val::Int).ok_or_else(|| overflow("integer"))
}

fn uint<'a>(result: Option<u64>) -> Outcome<'a> {
    result.map(Val::Uint).ok_or_else(|| overflow("unsigned integer"))
}

fn duration<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Val::Duration).ok_or_else(|| overflow("duration"))
}

fn timestamp<'a>(result: Option<Timestamp>) -> Outcome<'a> {
    result.map(Val::Timestamp).ok_or_else(|| overflow("timestamp"))
}

fn add<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_add(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_add(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a + b)),
        [Val::Str(a), Val::Str(b)] => {
            let mut out = String::with_capacity(a.len() + b.len());
            out.push_str(a);
            out.push_str(b);
            Ok(out.into())
        }
        [Val::Bytes(a), Val::Bytes(b)] => Ok(Val::Bytes(a.iter().chain(b.iter()).copied().collect())),
        [Val::List(a), Val::List(b)] if a.is_keyed() => Ok(crate::keyed::union(a, b)),
        [Val::List(a), Val::List(b)] if b.is_empty() => Ok(Val::List(a.clone())),
        [Val::List(a), Val::List(b)] => Ok(a.iter().chain(b.iter()).collect::<Vec<_>>().into()),
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_add(*b)),
        [Val::Timestamp(t), Val::Duration(d)] | [Val::Duration(d), Val::Timestamp(t)] => {
            timestamp(t.plus(i128::from(*d)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn subtract<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_sub(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_sub(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a - b)),
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_sub(*b)),
        [Val::Timestamp(t), Val::Duration(d)] => timestamp(t.plus(-i128::from(*d))),
        [Val::Timestamp(a), Val::Timestamp(b)] => duration(a.since(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn multiply<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_mul(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_mul(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a * b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn divide<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => Err(EvalError::new("division by zero")),
        [Val::Int(a), Val::Int(b)] => int(a.checked_div(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_div(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a / b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn modulo<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => Err(EvalError::new("modulus by zero")),
        [Val::Int(a), Val::Int(b)] => int(a.checked_rem(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_rem(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn negate<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a)] => int(a.checked_neg()),
        [Val::Double(a)] => Ok(Val::Double(-a)),
        [Val::Duration(a)] => duration(a.checked_neg()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_in<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [item, Val::List(list)] => Ok(Val::Bool(list.iter().any(|v| item.equals(&v)))),
        [key, Val::Map(map)] => Ok(Val::Bool(map.get(key).is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ (Val::Str(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_))] => Ok(Val::Int(v.size() as i64)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_bool<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Bool(b)] => Ok(Val::Bool(*b)),
        [Val::Str(s)] => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            other => Err(EvalError::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_bytes<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Bytes(_)] => Ok(v.clone()),
        [Val::Str(s)] => Ok(Val::Bytes(s.as_bytes().into())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse<'a, T: std::str::FromStr>(function: &str, text: &str, make: fn(T) -> Val<'a>, range: bool) -> Outcome<'a> {
    text.parse().map(make).map_err(|_| {
        let why = if range && text.trim_start_matches(['-', '+']).bytes().all(|c| c.is_ascii_digit()) && text.len() > 1
        {
            "value out of range"
        } else {
            "invalid syntax"
        };
        EvalError::new(format!("strconv.{function}: parsing {text:?}: {why}"))
    })
}

fn to_double<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Double(_)] => Ok(v.clone()),
        [Val::Int(i)] => Ok(Val::Double(*i as f64)),
        [Val::Uint(u)] => Ok(Val::Double(*u as f64)),
        [Val::Str(s)] => parse("ParseFloat", s, Val::Double, false),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_int<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Int(_)] => Ok(v.clone()),
        [Val::Uint(u)] => int(i64::try_from(*u).ok()),
        [Val::Double(d)] => int((d.is_finite() && d.abs() < 9_223_372_036_854_775_807.0).then_some(*d as i64)),
        [Val::Duration(d)] => Ok(Val::Int(*d)),
        [Val::Timestamp(t)] => Ok(Val::Int(t.seconds)),
        [Val::Str(s)] => parse("ParseInt", s, Val::Int, true),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_uint<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Uint(_)] => Ok(v.clone()),
        [Val::Int(i)] => uint(u64::try_from(*i).ok()),
        [Val::Double(d)] => {
            uint((d.is_finite() && *d >= 0.0 && *d < 18_446_744_073_709_551_615.0).then_some(*d as u64))
        }
        [Val::Str(s)] => parse("ParseUint", s, Val::Uint, true),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_string<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Str(_)] => Ok(v.clone()),
        [Val::Bytes(b)] => match std::str::from_utf8(b) {
            Ok(text) => Ok(text.to_string().into()),
            Err(_) => Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Val::Duration(d)] => Ok(duration_text(*d).into()),
        [v @ (Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Timestamp(_))] => Ok(plain(v).into()),
        [Val::Opaque(o)] => o.text().map(Val::from).ok_or_else(EvalError::no_such_overload),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_timestamp<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Timestamp(_)] => Ok(v.clone()),
        [Val::Int(i)] => timestamp(Timestamp::new(*i, 0)),
        [Val::Str(s)] => Timestamp::parse(s).map(Val::Timestamp).ok_or_else(|| {
            let format = "2006-01-02T15:04:05Z07:00";
            EvalError::new(format!("parsing time {:?} as {format:?}: cannot parse {:?}", &**s, &**s))
        }),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_duration<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [v @ Val::Duration(_)] => Ok(v.clone()),
        [Val::Int(i)] => Ok(Val::Duration(*i)),
        [Val::Str(s)] => parse_duration(s)
            .map(Val::Duration)
            .ok_or_else(|| EvalError::new(format!("time: invalid duration {:?}", &**s))),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The calendar of a time, in a zone if one is given.
fn civil(args: &[Val]) -> Result<Civil, EvalError> {
    match args {
        [Val::Timestamp(t)] => Ok(t.civil(0)),
        [Val::Timestamp(t), Val::Str(tz)] => Ok(t.civil(zone(tz, *t).map_err(EvalError::new)?)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn calendar<'a>(args: &[Val<'a>], part: fn(&Civil) -> i64) -> Outcome<'a> {
    civil(args).map(|c| Val::Int(part(&c)))
}

/// Hours, minutes or seconds: of a duration all of them, of a time those on the clock.
fn clock<'a>(args: &[Val<'a>], unit: i64, part: fn(&Civil) -> i64) -> Outcome<'a> {
    match args {
        [Val::Duration(d)] => Ok(Val::Int(d / unit)),
        _ => calendar(args, part),
    }
}

fn milliseconds<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Duration(d)] => Ok(Val::Int(d / 1_000_000 % 1000)),
        [Val::Timestamp(t), ..] => civil(args).map(|_| Val::Int(i64::from(t.nanos / 1_000_000))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_zero(value: &Val) -> bool {
    match value {
        Val::Null | Val::Optional(None) => true,
        Val::Bool(b) => !b,
        Val::Int(i) | Val::Duration(i) => *i == 0,
        Val::Uint(u) => *u == 0,
        Val::Double(d) => *d == 0.0,
        Val::Str(s) => s.is_empty(),
        Val::Bytes(b) => b.is_empty(),
        Val::List(l) => l.is_empty(),
        Val::Map(m) => m.is_empty(),
        Val::Struct(s) => s.fields.is_empty(),
        Val::Timestamp(t) => t.seconds == -62_135_596_800 && t.nanos == 0,
        _ => false,
    }
}

fn unwrap<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Val::Optional(Some(v)) => out.push((*v).clone()),
            Val::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {} is not optional", plain(&other)))),
        }
    }
    Ok(Val::List(List::Made(Arc::new(out))))
}

fn value<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Optional(Some(v))] => Ok((**v).clone()),
        [Val::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn has_value<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Optional(v)] => Ok(Val::Bool(v.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}
