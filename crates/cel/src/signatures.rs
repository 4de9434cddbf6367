//! The functions there are: names, overloads, types. Read from a table when the first expression is compiled.

use crate::types::Type;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: String,
    /// Called on its first argument.
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The names of its type parameters.
    pub(crate) params: Vec<Arc<str>>,
}

pub(crate) type Functions = HashMap<String, Vec<Overload>>;

/// Functions of mutations alone.
pub(crate) const MUTATION_ONLY: [&str; 1] = ["jsonpatch.escapeKey"];

pub(crate) fn functions() -> &'static Functions {
    static TABLE: OnceLock<Functions> = OnceLock::new();
    TABLE.get_or_init(build)
}

/// The names that stand for types.
pub(crate) fn type_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "dyn" => Type::Dyn,
        "type" => Type::Type(None),
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "net.IP" | "net.CIDR" => Type::Opaque(name.into()),
        _ if is_kubernetes(name) => Type::object(name),
        _ => return None,
    })
}

fn is_kubernetes(name: &str) -> bool {
    matches!(name, "kubernetes.URL" | "kubernetes.Quantity" | "kubernetes.Semver" | "kubernetes.NamedFormat")
        || name.strip_prefix("kubernetes.authorization.").is_some_and(|rest| {
            matches!(rest, "Authorizer" | "PathCheck" | "GroupCheck" | "ResourceCheck" | "Decision")
        })
}

fn build() -> Functions {
    let mut table = Functions::new();
    for line in include_str!("signatures.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        add_line(&mut table, line);
    }
    comparisons(&mut table);
    for (name, ty) in [
        ("int", "int"),
        ("uint", "uint"),
        ("double", "double"),
        ("bool", "bool"),
        ("duration", "duration"),
        ("timestamp", "timestamp"),
        ("string", "string"),
        ("bytes", "bytes"),
    ] {
        for f in ["min", "max"] {
            add_line(&mut table, &format!("{f} list_{name}_{f}_{name} .(list({ty})) -> {ty}"));
        }
        add_line(&mut table, &format!("isSorted list_{name}_is_sorted_bool .(list({ty})) -> bool"));
        add_line(&mut table, &format!("sort list_{name}_sort .(list({ty})) -> list({ty})"));
        add_line(
            &mut table,
            &format!("@sortByAssociatedKeys list_{name}_sortByAssociatedKeys .(list(T), list({ty})) -> list(T)"),
        );
    }
    for name in ["int", "uint", "double", "duration"] {
        add_line(&mut table, &format!("sum list_{name}_sum_{name} .(list({name})) -> {name}"));
    }
    table
}

/// `<` and its like: within each type, and between numbers of two types.
fn comparisons(table: &mut Functions) {
    let names = [("_<_", "less"), ("_<=_", "less_equals"), ("_>_", "greater"), ("_>=_", "greater_equals")];
    let numbers = [("int64", "int"), ("uint64", "uint"), ("double", "double")];
    for (function, name) in names {
        add_line(table, &format!("{function} {name}_bool (bool, bool) -> bool"));
        for (a, a_type) in numbers {
            add_line(table, &format!("{function} {name}_{a} ({a_type}, {a_type}) -> bool"));
            for (b, b_type) in numbers.iter().filter(|(b, _)| *b != a) {
                add_line(table, &format!("{function} {name}_{a}_{b} ({a_type}, {b_type}) -> bool"));
            }
        }
        for other in ["string", "bytes", "timestamp", "duration"] {
            add_line(table, &format!("{function} {name}_{other} ({other}, {other}) -> bool"));
        }
    }
}

fn add_line(table: &mut Functions, line: &str) {
    let mut words = line.splitn(3, ' ');
    let (Some(function), Some(id), Some(rest)) = (words.next(), words.next(), words.next()) else { return };
    let (member, rest) = match rest.strip_prefix('.') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let Some((args, result)) = rest.split_once(") -> ") else { return };
    let mut params = Vec::new();
    let args = split(args.trim_start_matches('(')).into_iter().map(|a| read_type(a, &mut params)).collect();
    let result = read_type(result, &mut params);
    table.entry(function.into()).or_default().push(Overload { id: id.into(), member, args, result, params });
}

/// Types between commas that are not within brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        out.push(text[start..].trim());
    }
    out
}

fn read_type(text: &str, params: &mut Vec<Arc<str>>) -> Type {
    if let Some((outer, inner)) = text.split_once('(') {
        let inner: Vec<Type> =
            split(inner.strip_suffix(')').unwrap_or(inner)).into_iter().map(|t| read_type(t, params)).collect();
        return match (outer, inner.as_slice()) {
            ("list", [of]) => Type::list(of.clone()),
            ("map", [key, value]) => Type::map(key.clone(), value.clone()),
            ("optional", [of]) => Type::optional(of.clone()),
            ("type", [of]) => Type::Type(Some(Arc::new(of.clone()))),
            _ => Type::Dyn,
        };
    }
    match text {
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        _ if text.len() == 1 => {
            let name: Arc<str> = text.into();
            if !params.contains(&name) {
                params.push(name.clone());
            }
            Type::Param(name)
        }
        _ => type_name(text).unwrap_or(Type::Dyn),
    }
}
