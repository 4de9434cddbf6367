//! Merging an applied configuration into the live object (structured-merge-diff's `Merge`).

use super::list::item_key;
use super::set;
use crate::schema::{Atom, ItemKind, Schema};
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::collections::{HashMap, HashSet, VecDeque};

/// `live` with everything that `config` sets; items of lists are in `config`'s order where both have them.
pub fn merge(ty: Schema<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    Ok(merge_place(Atom::root(ty), Some(live), Some(config))?.unwrap_or_default())
}

fn leaf(left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    right.or(left).cloned()
}

fn merge_place(atom: Atom, left: Option<&Value>, right: Option<&Value>) -> Result<Option<Value>, String> {
    match atom {
        Atom::Scalar(_) => Ok(leaf(left, right)),
        Atom::List { item, kind } => merge_lists(item.atom(), kind, left, right),
        Atom::Map { atomic, .. } | Atom::Object { atomic, .. } => merge_maps(atom, atomic, left, right),
        Atom::Deduced => match right.or(left) {
            Some(Value::Object(_) | Value::Null) => merge_maps(atom, false, left, right),
            _ => Ok(leaf(left, right)),
        },
    }
}

fn merge_maps(atom: Atom, atomic: bool, left: Option<&Value>, right: Option<&Value>) -> Result<Option<Value>, String> {
    let (l, r) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
    if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
        return Ok(leaf(left, right));
    }
    let mut out = Map::new();
    let mut put = |name: &CompactString, left: Option<&Value>, right: Option<&Value>| -> Result<(), String> {
        let place = atom.entry(name).unwrap_or(crate::schema::Place::any());
        if let Some(value) = merge_place(place.atom(), left, right)? {
            out.insert(name.clone(), value);
        }
        Ok(())
    };
    for (name, value) in l.into_iter().flat_map(Map::iter) {
        put(name, Some(value), r.and_then(|r| r.get(name)))?;
    }
    for (name, value) in r.into_iter().flat_map(Map::iter) {
        if !l.is_some_and(|l| l.contains_key(name)) {
            put(name, None, Some(value))?;
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

/// A list with its items' keys; `by_key` has null for keys that occur twice, which are not merged.
struct Indexed<'a> {
    items: &'a [Value],
    keys: Vec<CompactString>,
    by_key: HashMap<CompactString, Option<&'a Value>>,
}

fn index<'a>(item: Atom, kind: ItemKind, items: &'a [Value], duplicates: bool) -> Result<Indexed<'a>, String> {
    let mut out = Indexed { items, keys: Vec::with_capacity(items.len()), by_key: HashMap::new() };
    for (i, value) in items.iter().enumerate() {
        let key = item_key(item, kind, value).map_err(|why| format!("element {i}: {why}"))?;
        let twice = out.by_key.contains_key(&key);
        if twice && !duplicates {
            return Err(format!("duplicate entries for key {}", set::display(&key)));
        }
        out.by_key.insert(key.clone(), (!twice).then_some(value));
        out.keys.push(key);
    }
    Ok(out)
}

fn merge_lists(
    item: Atom,
    kind: ItemKind,
    left: Option<&Value>,
    right: Option<&Value>,
) -> Result<Option<Value>, String> {
    let (l, r) = (left.map_or(&[][..], Value::items), right.map_or(&[][..], Value::items));
    if kind.is_atomic() || (l.is_empty() && r.is_empty()) {
        return Ok(leaf(left, right));
    }
    let r = index(item, kind, r, false)?;
    let l = index(item, kind, l, true)?;
    let out = interleave(item, &l, &r)?;
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}

/// Walks both lists: items of the left alone stay where they are, shared ones come in the right's order.
fn interleave(item: Atom, l: &Indexed<'_>, r: &Indexed<'_>) -> Result<Vec<Value>, String> {
    let mut shared: VecDeque<&CompactString> = r.keys.iter().filter(|k| l.by_key.contains_key(*k)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged: HashSet<&CompactString> = HashSet::new();
    let mut out = Vec::with_capacity(l.items.len().max(r.items.len()));
    let (mut i, mut j) = (0, 0);
    while i < l.keys.len() || j < r.keys.len() {
        if let (Some(left), Some(right)) = (l.keys.get(i), r.keys.get(j)) {
            if left == right {
                merged.insert(right);
                out.extend(merge_pair(item, l, r, right)?);
                (i, j) = (i + 1, j + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if r.by_key.contains_key(left) && next_shared.is_some_and(|next| next != left) {
                i += 1;
                continue;
            }
        }
        if let Some(left) = l.keys.get(i) {
            if !r.by_key.contains_key(left) {
                // By position, not by key: duplicates are each kept.
                out.extend(merge_place(item, Some(&l.items[i]), None)?);
                i += 1;
                continue;
            } else if merged.contains(left) {
                i += 1;
            }
        }
        if let Some(right) = r.keys.get(j) {
            merged.insert(right);
            out.extend(merge_pair(item, l, r, right)?);
            j += 1;
            if next_shared == Some(right) {
                next_shared = shared.pop_front();
            }
        }
    }
    Ok(out)
}

/// Merges the items that both sides have at `key`. A key twice on the left reads as null: the right replaces it.
fn merge_pair(item: Atom, l: &Indexed<'_>, r: &Indexed<'_>, key: &CompactString) -> Result<Option<Value>, String> {
    static NULL: Value = Value::Null;
    let left = l.by_key.get(key).map(|found| found.unwrap_or(&NULL));
    merge_place(item, left, r.by_key.get(key).copied().flatten())
}
