//! What the writer of a new object owns depends on its shape alone: which fields it has and which keys, not on what they
//! hold. A ReplicaSet's pods all have one shape, so it is worked out once (DESIGN: cached per manager and shape; a set
//! does not even depend on the manager).

use super::list::item_key;
use super::reset::Reset;
use super::set::Set;
use crate::schema::{Atom, Schema};
use crate::value::{Map, Value};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// How many shapes are remembered; when there are more, it begins anew.
const REMEMBERED: usize = 256;
/// Larger ones are not.
const LARGEST: usize = 16 << 10;

static SHAPES: Mutex<BTreeMap<Box<[u8]>, Set>> = Mutex::new(BTreeMap::new());

/// The set of a new object of this type, from memory or by `make`. `reset` belongs to what tells shapes apart.
pub(super) fn remembered(ty: Schema, reset: Reset, new: &Value, make: impl FnOnce() -> Set) -> Set {
    let Some(shape) = shape(ty, reset, new) else { return make() };
    if let Some(known) = SHAPES.lock().get(&*shape) {
        return known.clone();
    }
    let set = make();
    let mut shapes = SHAPES.lock();
    if shapes.len() >= REMEMBERED {
        shapes.clear();
    }
    shapes.insert(shape.into(), set.clone());
    set
}

/// None for what is large, or out of the ordinary.
fn shape(ty: Schema, reset: Reset, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(2048);
    // Those who may own little make nothing new.
    let Reset::But(paths) = reset else { return None };
    for path in paths {
        path.iter().for_each(|name| word(name, &mut out));
        out.push(b'!');
    }
    place(Atom::root(ty), value, &mut out)?;
    Some(out)
}

fn word(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    // In no name, since JSON would have to escape it.
    out.push(0);
}

/// A field that is one thing. Whether it is empty makes a difference: it may be what the field is from the beginning.
fn leaf(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    out.push(if value.is_empty() { b'0' } else { b'1' });
    Some(())
}

fn place(atom: Atom, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    if out.len() > LARGEST {
        return None;
    }
    match (atom, value) {
        (Atom::Scalar(_), _) => leaf(value, out),
        // One that says nothing may be equal to what such a struct is from the beginning, fields and all.
        (Atom::Object { atomic: true, ty: Schema::Table(ty) }, _) if ty.fields.iter().any(|f| f.required) => {
            let says = |v: &Value| !v.is_empty() && !matches!(v, Value::Object(_) | Value::Array(_));
            value.entries().any(|(_, v)| says(v)).then(|| out.push(b'1'))
        }
        (Atom::Object { atomic: true, .. } | Atom::Map { atomic: true, .. }, _) => leaf(value, out),
        (Atom::Object { .. } | Atom::Map { .. }, Value::Object(map)) => entries(atom, map, out),
        (Atom::List { kind, .. }, _) if kind.is_atomic() => leaf(value, out),
        (Atom::List { item, kind }, Value::Array(items)) if !items.is_empty() => {
            out.push(b'[');
            let mut keys = Vec::with_capacity(items.len());
            for value in items {
                let key = item_key(item.atom(), kind, value).ok()?;
                word(&key, out);
                keys.push(key);
                place(item.atom(), value, out)?;
            }
            out.push(b']');
            keys.sort_unstable();
            // Duplicates have rules of their own.
            keys.windows(2).all(|pair| pair[0] != pair[1]).then_some(())
        }
        (Atom::Deduced, Value::Object(map)) => entries(atom, map, out),
        (Atom::Deduced, Value::Null) => None,
        _ => leaf(value, out),
    }
}

fn entries(atom: Atom, map: &Map, out: &mut Vec<u8>) -> Option<()> {
    out.push(b'{');
    for (name, value) in map.iter() {
        if let Some(below) = atom.entry(name) {
            word(name, out);
            place(below.atom(), value, out)?;
        }
    }
    out.push(b'}');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::deployment;
    use crate::value;

    #[test]
    fn shapes_tell_apart_what_sets_tell_apart() {
        let of = |value: Value| shape(deployment().into(), Reset::But(&[&["status"]]), &value);
        let spec = |spec: Value| of(value!({"spec": spec}));
        let containers = |list: Value| spec(value!({"template": {"spec": {"containers": list}}}));
        let owned_by = |owner: Value| of(value!({"metadata": {"ownerReferences": [owner]}}));
        let same = [
            (owned_by(value!({"uid": "u", "kind": "K"})), owned_by(value!({"uid": "u", "kind": "L"}))),
            (spec(value!({"replicas": 1})), spec(value!({"replicas": 2}))),
            (containers(value!([{"name": "a", "image": "x"}])), containers(value!([{"name": "a", "image": "y"}]))),
        ];
        let different = [
            (spec(value!({"replicas": 1})), spec(value!({"replicas": 0}))),
            (spec(value!({"replicas": 1})), spec(value!({"paused": true}))),
            (containers(value!([{"name": "a"}])), containers(value!([{"name": "b"}]))),
            (containers(value!([{"name": "a"}])), containers(value!([{"name": "a"}, {"name": "b"}]))),
            (of(value!({"metadata": {"labels": {"a": "1"}}})), of(value!({"metadata": {"labels": {"b": "1"}}}))),
            (owned_by(value!({"uid": "u", "kind": "K"})), owned_by(value!({"uid": "v", "kind": "K"}))),
            (owned_by(value!({"uid": "u", "kind": "K"})), owned_by(value!({"uid": "", "kind": ""}))),
        ];
        for (a, b) in same {
            assert!(a.is_some() && a == b);
        }
        for (a, b) in different {
            assert_ne!(a, b);
        }
        assert_eq!(containers(value!([{"name": "a"}, {"name": "a"}])), None);
    }
}
