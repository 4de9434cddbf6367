//! The keys of the items of sets and associative lists.

use super::set;
use crate::schema::{Atom, ItemKind, Keys};
use crate::value::Value;
use compact_str::CompactString;

/// The encoded key of each item; None for those that cannot have one, which conforming objects do not contain.
pub(super) fn item_keys(item: Atom, kind: ItemKind, items: &[Value]) -> Vec<Option<CompactString>> {
    items.iter().map(|value| item_key(item, kind, value).ok()).collect()
}

/// The encoded key of one item, or why it has none in upstream's words.
pub(super) fn item_key(item: Atom, kind: ItemKind, value: &Value) -> Result<CompactString, String> {
    match kind {
        ItemKind::Atomic => Err("invalid indexing of non-associative list".into()),
        ItemKind::Set => match value {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(set::value(scalar)),
        },
        ItemKind::Map(keys) => keyed(item, keys, value),
    }
}

fn keyed(item: Atom, keys: Keys, value: &Value) -> Result<CompactString, String> {
    match value {
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        Value::Object(_) => {}
        _ => return Err("associative list with keys may not have non-map elements".into()),
    }
    let mut found: Vec<(&str, std::borrow::Cow<'_, Value>)> = Vec::new();
    for name in keys.iter() {
        if let Some(present) = value.get(name) {
            found.push((name, std::borrow::Cow::Borrowed(present)));
        } else if let Atom::Object { ty, .. } = item
            && let Some(default) = ty.default_of(name)
        {
            found.push((name, std::borrow::Cow::Owned(default)));
        }
    }
    if found.is_empty() && keys.iter().next().is_some() {
        let names: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    found.sort_by_key(|(name, _)| *name);
    Ok(set::key(found.iter().map(|(name, value)| (*name, value.as_ref()))))
}
