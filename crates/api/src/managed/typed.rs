//! Walks of one object by its type: does it conform, which fields does it set, what is left without some of them
//! (structured-merge-diff's `Validate`, `ToFieldSet`, `RemoveItems`).

use super::list::{item_key, item_keys};
use super::set::{self, Set, field, is_member};
use crate::gofmt;
use crate::schema::{Atom, ItemKind, Scalar, Schema};
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::collections::HashSet;

/// What is wrong with an object, by upstream's paths and words; empty when it conforms to `ty`.
pub(super) fn nonconformities(ty: Schema<'_>, value: &Value, allow_duplicates: bool) -> Vec<String> {
    let mut errors = Vec::new();
    check(Atom::root(ty), value, "", allow_duplicates, &mut errors);
    errors
}

/// All errors in one text, as upstream joins them.
pub(super) fn join_errors(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => many.iter().fold("errors:".into(), |all, e| format!("{all}\n  {e}")),
    }
}

fn check(atom: Atom, value: &Value, path: &str, duplicates: bool, errors: &mut Vec<String>) {
    let wrong = |message: String| if path.is_empty() { message } else { format!("{path}: {message}") };
    match (atom, value) {
        (_, Value::Null) | (Atom::Deduced, _) => {}
        (Atom::Scalar(scalar), value) => errors.extend(scalar_error(scalar, value).map(wrong)),
        (Atom::Object { .. } | Atom::Map { .. }, Value::Object(map)) => {
            for (name, value) in map.iter() {
                let below = format!("{path}.{name}");
                match atom.entry(name) {
                    Some(place) => check(place.atom(), value, &below, duplicates, errors),
                    None => {
                        errors.push(format!("{below}: field not declared in schema"));
                        break;
                    }
                }
            }
        }
        (Atom::List { item, kind }, Value::Array(items)) => {
            check_items(item.atom(), kind, items, path, duplicates, errors)
        }
        (Atom::List { .. }, other) => errors.push(wrong(format!("expected list, got &{{{}}}", gofmt::plain(other)))),
        (_, other) => errors.push(wrong(format!("expected map, got &{{{}}}", gofmt::plain(other)))),
    }
}

fn check_items(item: Atom, kind: ItemKind, items: &[Value], path: &str, duplicates: bool, errors: &mut Vec<String>) {
    let wrong = |message: String| if path.is_empty() { message } else { format!("{path}: {message}") };
    let mut seen: HashSet<CompactString> = HashSet::new();
    for (i, value) in items.iter().enumerate() {
        let step = if kind.is_atomic() {
            format!("[{i}]")
        } else {
            match item_key(item, kind, value) {
                Ok(key) => {
                    let step = set::display(&key);
                    if !seen.insert(key) && !duplicates {
                        errors.push(wrong(format!("duplicate entries for key {step}")));
                    }
                    step
                }
                Err(why) => return errors.push(wrong(format!("element {i}: {why}"))),
            }
        };
        check(item, value, &format!("{path}{step}"), duplicates, errors);
    }
}

fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    let shown = || format!("&{{{}}}", gofmt::plain(value));
    match (scalar, value) {
        (Scalar::Numeric, Value::Int(_) | Value::Float(_)) => None,
        (Scalar::Numeric, _) => Some(format!("expected numeric (int or float), got {}", gofmt::type_name(value))),
        (Scalar::String, Value::Str(_)) => None,
        (Scalar::String, _) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", gofmt::go_syntax(value)))
        }
        (Scalar::Boolean, Value::Bool(_)) => None,
        (Scalar::Boolean, _) => Some(format!("expected boolean, got {}", shown())),
        (Scalar::Untyped, Value::Array(_) | Value::Object(_)) => Some(format!("expected any scalar, got {}", shown())),
        (Scalar::Untyped, _) => None,
    }
}

/// Every leaf field and list item that the object sets.
pub(super) fn field_set(ty: Schema<'_>, value: &Value) -> Set {
    Set::trusted(fields_of(Atom::root(ty), value).0)
}

/// The fields below a place, and whether the place itself is one.
fn fields_of(atom: Atom, value: &Value) -> (Map, bool) {
    match (atom, value) {
        (Atom::Scalar(_), _) => (Map::new(), true),
        (Atom::Map { atomic: true, .. } | Atom::Object { atomic: true, .. }, _) => (Map::new(), true),
        (Atom::List { kind: ItemKind::Atomic, .. }, _) => (Map::new(), true),
        (Atom::Deduced, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Array(_)) => {
            (Map::new(), true)
        }
        (Atom::List { item, kind }, Value::Array(items)) => (fields_of_items(item.atom(), kind, items), false),
        (Atom::Map { .. } | Atom::Object { .. } | Atom::Deduced, Value::Object(map)) => {
            (fields_of_entries(atom, map), false)
        }
        _ => (Map::new(), false),
    }
}

fn node(mut below: Map, member: bool) -> Option<Value> {
    match (below.is_empty(), member) {
        (true, false) => None,
        (false, true) => {
            below.insert(".", Value::object());
            Some(Value::Object(below))
        }
        _ => Some(Value::Object(below)),
    }
}

fn fields_of_entries(atom: Atom, map: &Map) -> Map {
    let entry = |(name, value): (&CompactString, &Value)| {
        let (below, member) = fields_of(atom.entry(name)?.atom(), value);
        let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        Some((field(name), node(below, member || bare || !atom.names(name))?))
    };
    map.iter().filter_map(entry).collect()
}

fn fields_of_items(item: Atom, kind: ItemKind, items: &[Value]) -> Map {
    let mut out = Map::new();
    for (key, value) in item_keys(item, kind, items).into_iter().zip(items) {
        let Some(key) = key else { continue };
        // Of duplicates only the item itself is owned.
        let below = if out.contains_key(&key) { Map::new() } else { fields_of(item, value).0 };
        out.insert(key, node(below, true).unwrap_or_default());
    }
    out
}

/// The object without the items and fields of `gone`. None when nothing is left of a place.
pub(super) fn without(ty: Schema<'_>, value: &Value, gone: &Set) -> Value {
    remove(Atom::root(ty), value, gone.as_map()).unwrap_or_default()
}

fn remove(atom: Atom, value: &Value, gone: &Map) -> Option<Value> {
    match (atom, value) {
        (Atom::Scalar(_), value) => Some(value.clone()),
        (Atom::Deduced, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_)) => Some(value.clone()),
        (Atom::Map { atomic: true, .. } | Atom::Object { atomic: true, .. }, _) => None,
        (Atom::Map { .. } | Atom::Object { .. } | Atom::Deduced, Value::Object(map)) if !map.is_empty() => {
            remove_entries(atom, map, gone)
        }
        (Atom::List { item, kind }, Value::Array(items)) if !kind.is_atomic() && !items.is_empty() => {
            remove_items(item.atom(), kind, items, gone)
        }
        _ => None,
    }
}

/// How a place inside a container fares: kept whole, gone, or kept with something below it gone.
enum Fate<'a> {
    Kept,
    Gone,
    Changed(&'a Map),
}

fn fate<'a>(gone: &'a Map, step: &str) -> Fate<'a> {
    match gone.get(step) {
        Some(Value::Object(node)) if is_member(node) => Fate::Gone,
        Some(Value::Object(node)) => Fate::Changed(node),
        _ => Fate::Kept,
    }
}

/// What is left of a container whose insides were removed is an empty container, not nothing.
fn remove_below(atom: Atom, value: &Value, gone: &Map) -> Value {
    remove(atom, value, gone).unwrap_or_else(|| match value {
        Value::Object(_) => Value::object(),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}

fn remove_entries(atom: Atom, map: &Map, gone: &Map) -> Option<Value> {
    let mut changed = false;
    let mut out: Vec<(CompactString, Value)> = Vec::with_capacity(map.len());
    for (name, value) in map.iter() {
        match fate(gone, &field(name)) {
            Fate::Gone => {}
            Fate::Kept => out.push((name.clone(), value.clone())),
            Fate::Changed(below) => {
                changed = true;
                let place = atom.entry(name).unwrap_or(crate::schema::Place::any());
                out.push((name.clone(), remove_below(place.atom(), value, below)));
            }
        }
    }
    (changed || !out.is_empty()).then(|| Value::Object(out.into_iter().collect()))
}

fn remove_items(item: Atom, kind: ItemKind, items: &[Value], gone: &Map) -> Option<Value> {
    let mut changed = false;
    let mut out = Vec::with_capacity(items.len());
    for (key, value) in item_keys(item, kind, items).into_iter().zip(items) {
        match key.as_deref().map_or(Fate::Kept, |key| fate(gone, key)) {
            Fate::Gone => {}
            Fate::Kept => out.push(value.clone()),
            Fate::Changed(below) => {
                changed = true;
                out.push(remove_below(item, value, below));
            }
        }
    }
    (changed || !out.is_empty()).then_some(Value::Array(out))
}

/// The set with every named field that has members below it made a member too: owning `a.b` means owning `a`.
pub(super) fn with_named_parents(ty: Schema<'_>, set: &Set) -> Set {
    Set::trusted(name_parents(Some(Atom::root(ty)), set.as_map()))
}

fn name_parents(atom: Option<Atom>, map: &Map) -> Map {
    let mut out = Map::new();
    for (step, value) in map.iter().filter(|(step, _)| *step != ".") {
        let Value::Object(below) = value else { continue };
        let name = step.strip_prefix("f:");
        let child = match (atom, name) {
            (Some(atom), Some(name)) => atom.entry(name).map(crate::schema::Place::atom),
            (Some(Atom::List { item, .. }), None) if step.starts_with("k:") => Some(item.atom()),
            _ => None,
        };
        let named = name.is_some_and(|name| atom.is_some_and(|atom| atom.names(name)));
        let member = is_member(below) || (named && !below.is_empty());
        if let Some(node) = node(name_parents(child, below), member) {
            out.insert(step.clone(), node);
        }
    }
    out
}
