//! What a call did cost, by its arguments and its result.

use super::{CHECK, LIST, REGEX_FACTOR, STRING_FACTOR, Size, by_factor, selector};
use crate::library::kubernetes::Opaque;
use crate::val::Val;

/// The cost of a call beyond that of its arguments.
pub(crate) fn actual(function: &str, overload: &str, args: &[Val], result: Option<&Val>) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, Val::size);
    let text = |i: usize, factor: f64| by_factor(size(i), factor * STRING_FACTOR);
    match function {
        "check" => CHECK,
        "fieldSelector" | "labelSelector" => selector(Size::fixed(size(1))).max,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, |v| traversal(v, 0)),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "startsWith"
        | "endsWith"
        | "strings.quote"
        | "format" => text(0, 1.0),
        "replace" | "split" | "ip.isCanonical" => text(0, 2.0),
        "join" => by_factor(result.map_or(1, Val::size), 2.0 * STRING_FACTOR),
        "find" | "findAll" | "matches" => regex(size(0), size(1)),
        "ip" if overload == "cidr_ip" => 1,
        "ip" => text(0, 1.0),
        "containsIP" => by_factor(size(0) * 2, STRING_FACTOR) + parsed(args),
        "containsCIDR" => by_factor(size(0) * 2, STRING_FACTOR) + text(0, 1.0) + 1 + parsed(args),
        "validate" => match args.first() {
            Some(Val::Opaque(o)) => match &**o {
                Opaque::Format(format) => regex(size(1), format.regex_size),
                _ => 1,
            },
            _ => 1,
        },
        "bytes" | "string" => match (function, args.first()) {
            ("bytes", Some(Val::Str(_))) | ("string", Some(Val::Bytes(_))) => text(0, 1.0),
            _ => 1,
        },
        "contains" => text(0, 1.0) * text(1, 1.0),
        "@in" if matches!(args.get(1), Some(Val::List(_))) => size(1),
        "_==_" | "_!=_" => match args.first() {
            Some(Val::Opaque(_)) => 1,
            _ => by_factor(size(0).min(size(1)), STRING_FACTOR),
        },
        "_<_" | "_<=_" | "_>_" | "_>=_" => match args.first() {
            Some(Val::Str(_) | Val::Bytes(_)) => by_factor(size(0).min(size(1)), STRING_FACTOR),
            _ => 1,
        },
        "_+_" => match args.first() {
            Some(Val::Str(_) | Val::Bytes(_)) => by_factor(size(0) + size(1), STRING_FACTOR),
            _ => 1,
        },
        "slice" | "lists.range" | "reverse" => list_call(1.0, result.map_or(1, Val::size)),
        "flatten" => {
            let depth = match args.get(1) {
                Some(Val::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            list_call(depth, size(0))
        }
        "distinct" | "sort" => self_compare(args.first()),
        "@sortByAssociatedKeys" => self_compare(args.get(1)),
        "sets.contains" | "sets.intersects" => 1 + size(0).saturating_mul(size(1)),
        "sets.equivalent" => 1 + size(0).saturating_mul(size(1)).saturating_mul(2),
        _ => 1,
    }
}

fn regex(text: u64, pattern: u64) -> u64 {
    by_factor(text.saturating_add(1), STRING_FACTOR).saturating_mul(by_factor(pattern, REGEX_FACTOR))
}

/// What it costs to read the second argument, if it is text.
fn parsed(args: &[Val]) -> u64 {
    match args.get(1) {
        Some(v @ Val::Str(_)) => by_factor(v.size(), STRING_FACTOR),
        _ => 0,
    }
}

fn list_call(factor: f64, size: u64) -> u64 {
    by_factor(size, factor).saturating_add(1 + LIST)
}

fn self_compare(list: Option<&Val>) -> u64 {
    let Some(Val::List(list)) = list else { return 1 };
    let factor = match list.get(0) {
        Some(Val::Str(_) | Val::Bytes(_)) => 2.0 + STRING_FACTOR,
        _ => 2.0,
    };
    let size = list.len() as u64;
    list_call(factor, size.saturating_mul(size))
}

/// What it costs to go through a whole value. Values are nested no deeper than what was read or the expression is high.
fn traversal(value: &Val, spent: u64) -> u64 {
    // More than any budget: no need to know by how much.
    if spent > 100_000_000 {
        return spent;
    }
    match value {
        Val::Str(s) => spent + (s.len() as f64 * STRING_FACTOR) as u64,
        Val::Bytes(b) => spent + (b.len() as f64 * STRING_FACTOR) as u64,
        Val::List(list) => list.iter().fold(spent, |spent, v| traversal(&v, spent)),
        Val::Map(map) => map.iter().fold(spent, |spent, (k, v)| traversal(&v, traversal(&k, spent))),
        _ => spent + 1,
    }
}
