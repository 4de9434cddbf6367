//! Lists that are sets or maps by declaration: their order does not matter, and adding merges.

use crate::decl::ListType;
use crate::val::{List, Val};
use std::collections::BTreeMap;

/// What makes an item the same as another one.
fn key(item: &Val, list_type: &ListType) -> String {
    let part = |v: &Val| format!("{}:{}", v.ty().name(), crate::library::strings::plain(v));
    match (list_type, item) {
        (ListType::Map(fields), Val::Map(map)) => {
            let parts: Vec<String> = fields
                .iter()
                .map(|field| {
                    let name = crate::escape::escape(field).unwrap_or_else(|| field.clone());
                    map.field(&name).map_or_else(String::new, |v| part(&v))
                })
                .collect();
            parts.join("\u{0}")
        }
        (_, item) => part(item),
    }
}

/// Whether the two hold the same, in whatever order.
pub(crate) fn equal<'a>(a: &List<'a>, b: &List<'a>) -> bool {
    let (keyed, other) = if a.is_keyed() { (a, b) } else { (b, a) };
    let list_type = keyed.list_type();
    if keyed.len() != other.len() {
        return false;
    }
    let known: BTreeMap<String, Val> = keyed.iter().map(|v| (key(&v, list_type), v)).collect();
    other.iter().all(|v| match known.get(&key(&v, list_type)) {
        Some(same) => matches!(list_type, ListType::Set) || same.equals(&v),
        None => false,
    })
}

/// The items of `a`, those of a map replaced by what is the same in `b`, and then what only `b` has.
pub(crate) fn union<'a>(a: &List<'a>, b: &List<'a>) -> Val<'a> {
    let list_type = a.list_type();
    let mut items: Vec<Val> = a.iter().collect();
    let mut places: BTreeMap<String, usize> = items.iter().enumerate().map(|(i, v)| (key(v, list_type), i)).collect();
    for item in b.iter() {
        match places.get(&key(&item, list_type)) {
            Some(i) if matches!(list_type, ListType::Map(_)) => items[*i] = item,
            Some(_) => {}
            None => {
                places.insert(key(&item, list_type), items.len());
                items.push(item);
            }
        }
    }
    items.into()
}
