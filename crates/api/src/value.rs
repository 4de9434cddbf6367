//! The object tree: what an API object is while a request is being handled.
//!
//! A tree is made of [`Value`]s; objects are [`Map`]s whose keys are kept sorted, so that look-ups are
//! binary searches, equality is structural, and encoding is canonical.

use compact_str::CompactString;
use std::ops::Index;
use std::sync::Arc;

/// A JSON value. Integers and floats are kept apart, as Kubernetes does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(CompactString),
    Array(Vec<Value>),
    Object(Map),
}

/// A JSON object: entries sorted by key, no duplicates. Cloning shares them until one of the two is changed, so that an
/// update of a status does not copy the spec beside it, and what two revisions have in common is seen at once to be
/// equal.
#[derive(Clone, Default)]
pub struct Map(Option<Arc<Vec<Entry>>>);

type Entry = (CompactString, Value);

static NULL: Value = Value::Null;

/// Up to so many entries a map is searched from its beginning.
const SMALL: usize = 12;

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The entries as nobody else has them.
    fn own(&mut self) -> &mut Vec<Entry> {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    pub fn len(&self) -> usize {
        self.entries().len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Whether the two are known to be equal without a look at what they hold. False says nothing.
    pub fn is_shared_with(&self, other: &Map) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.entries().binary_search_by(|(k, _)| k.as_str().cmp(key))
    }

    fn find(&self, key: &str) -> Option<usize> {
        let entries = self.entries();
        // Most maps are small, and most keys differ in length already: that is cheaper to see than which is greater.
        if entries.len() <= SMALL {
            return entries.iter().position(|(k, _)| k.as_str() == key);
        }
        self.position(key).ok()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|i| &self.entries()[i].1)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).map(|i| &mut self.own()[i].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Sets `key`, returning what was there.
    pub fn insert(&mut self, key: impl Into<CompactString>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.position(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.own()[i].1, value)),
            Err(i) => {
                self.own().insert(i, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).map(|i| self.own().remove(i).1)
    }

    /// The value at `key`, made by `make` when it is absent.
    pub fn entry(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let i = match self.position(key) {
            Ok(i) => i,
            Err(i) => {
                self.own().insert(i, (key.into(), make()));
                i
            }
        };
        &mut self.own()[i].1
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&CompactString, &Value)> + ExactSizeIterator {
        self.entries().iter().map(|(k, v)| (k, v))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&CompactString, &mut Value)> {
        self.own().iter_mut().map(|(k, v)| (&*k, v))
    }

    pub fn keys(&self) -> impl Iterator<Item = &CompactString> {
        self.entries().iter().map(|(k, _)| k)
    }

    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries().iter().map(|(_, v)| v)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.own().iter_mut().map(|(_, v)| v)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.own().retain_mut(|(k, v)| keep(k, v));
    }

    /// Takes entries in any order. Of duplicate keys the last wins; the others are handed to `duplicate`.
    pub(crate) fn from_unsorted(mut entries: Vec<Entry>, mut duplicate: impl FnMut(&str)) -> Map {
        let sorted = entries.windows(2).all(|w| w[0].0 < w[1].0);
        if !sorted {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
            for entry in entries {
                match kept.last_mut() {
                    Some(last) if last.0 == entry.0 => {
                        duplicate(&entry.0);
                        *last = entry;
                    }
                    _ => kept.push(entry),
                }
            }
            entries = kept;
        }
        entries.shrink_to_fit();
        Map((!entries.is_empty()).then(|| Arc::new(entries)))
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.is_shared_with(other) || self.entries() == other.entries()
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<CompactString>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Map {
        Map::from_unsorted(iter.into_iter().map(|(k, v)| (k.into(), v.into())).collect(), |_| ())
    }
}

impl IntoIterator for Map {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default().into_iter()
    }
}

impl Value {
    pub fn object() -> Value {
        Value::Object(Map::new())
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The field `key`, or Null when this is not an object or has no such field.
    pub fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Object(m) => m.get(key),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match self {
            Value::Object(m) => m.get_mut(key),
            _ => None,
        }
    }

    /// Walks field names: `v.path(&["spec", "nodeName"])`. Null when any is missing.
    pub fn path(&self, names: &[&str]) -> &Value {
        names.iter().fold(self, |v, name| v.at(name))
    }

    /// The field `key` as a mutable object, created (replacing any other thing) when absent.
    pub fn obj_mut(&mut self, key: &str) -> &mut Map {
        self.ensure_object().entry(key, Value::object).ensure_object()
    }

    /// This value as a mutable object; anything else becomes an empty one.
    pub fn ensure_object(&mut self) -> &mut Map {
        if !matches!(self, Value::Object(_)) {
            *self = Value::object();
        }
        match self {
            Value::Object(m) => m,
            _ => unreachable!("just made an object"),
        }
    }

    /// This value as a mutable array; anything else becomes an empty one.
    pub fn ensure_array(&mut self) -> &mut Vec<Value> {
        if !matches!(self, Value::Array(_)) {
            *self = Value::Array(Vec::new());
        }
        match self {
            Value::Array(a) => a,
            _ => unreachable!("just made an array"),
        }
    }

    /// Sets the field `key` of an object (made one if it is not).
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.ensure_object().insert(key, value);
    }

    /// Sets a nested field, creating the objects on the way.
    pub fn set_path(&mut self, names: &[&str], value: impl Into<Value>) {
        match names {
            [] => *self = value.into(),
            [first, rest @ ..] => self.ensure_object().entry(first, || Value::Null).set_path(rest, value),
        }
    }

    /// Sets the field `key` when it is absent or null.
    pub fn set_default(&mut self, key: &str, value: impl Into<Value>) {
        let slot = self.ensure_object().entry(key, || Value::Null);
        if slot.is_null() {
            *slot = value.into();
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        match self {
            Value::Object(m) => m.remove(key),
            _ => None,
        }
    }

    /// Removes a nested field; a missing one is fine.
    pub fn remove_path(&mut self, names: &[&str]) -> Option<Value> {
        match names {
            [] => None,
            [last] => self.remove(last),
            [first, rest @ ..] => self.get_mut(first)?.remove_path(rest),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The string, or "" for anything else: Go's zero value.
    pub fn str(&self) -> &str {
        self.as_str().unwrap_or("")
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e15 => Some(*f as i64),
            _ => None,
        }
    }

    /// The integer, or 0 for anything else: Go's zero value.
    pub fn int(&self) -> i64 {
        self.as_i64().unwrap_or(0)
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The boolean, or false for anything else: Go's zero value.
    pub fn bool(&self) -> bool {
        self.as_bool().unwrap_or(false)
    }

    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    /// The items of an array; nothing for anything else.
    pub fn items(&self) -> &[Value] {
        self.as_array().unwrap_or(&[])
    }

    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Value::Object(m) => Some(m),
            _ => None,
        }
    }

    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Object(m) => Some(m),
            _ => None,
        }
    }

    /// The entries of an object; nothing for anything else.
    pub fn entries(&self) -> impl Iterator<Item = (&CompactString, &Value)> {
        self.as_object().into_iter().flat_map(Map::iter)
    }

    /// Null, false, 0, "", [] or {}: what Go's `omitempty` leaves out.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(i) => *i == 0,
            Value::Float(f) => *f == 0.0,
            Value::Str(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(m) => m.is_empty(),
        }
    }

    /// What kind of JSON value this is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::Float(_) => "number",
            Value::Str(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

/// `value["spec"]["nodeName"]`: Null when missing, never a panic.
impl Index<&str> for Value {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        self.at(key)
    }
}

/// `value[3]`: Null when out of range, never a panic.
impl Index<usize> for Value {
    type Output = Value;
    fn index(&self, i: usize) -> &Value {
        self.items().get(i).unwrap_or(&NULL)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Value {
        Value::Bool(v)
    }
}
impl From<i64> for Value {
    fn from(v: i64) -> Value {
        Value::Int(v)
    }
}
impl From<i32> for Value {
    fn from(v: i32) -> Value {
        Value::Int(v.into())
    }
}
impl From<u32> for Value {
    fn from(v: u32) -> Value {
        Value::Int(v.into())
    }
}
impl From<u16> for Value {
    fn from(v: u16) -> Value {
        Value::Int(v.into())
    }
}
impl From<usize> for Value {
    fn from(v: usize) -> Value {
        Value::Int(i64::try_from(v).unwrap_or(i64::MAX))
    }
}
impl From<f64> for Value {
    fn from(v: f64) -> Value {
        Value::Float(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Value {
        Value::Str(v.into())
    }
}
impl From<&String> for Value {
    fn from(v: &String) -> Value {
        Value::Str(v.as_str().into())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Value {
        Value::Str(v.into())
    }
}
impl From<CompactString> for Value {
    fn from(v: CompactString) -> Value {
        Value::Str(v)
    }
}
impl From<&CompactString> for Value {
    fn from(v: &CompactString) -> Value {
        Value::Str(v.clone())
    }
}
impl From<Map> for Value {
    fn from(v: Map) -> Value {
        Value::Object(v)
    }
}
impl From<&Value> for Value {
    fn from(v: &Value) -> Value {
        v.clone()
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(v: Vec<T>) -> Value {
        Value::Array(v.into_iter().map(Into::into).collect())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Value {
        v.map_or(Value::Null, Into::into)
    }
}
impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(iter: I) -> Value {
        Value::Array(iter.into_iter().map(Into::into).collect())
    }
}

/// Builds a [`Value`] from JSON-like syntax: `value!({"a": [1, x], "b": {"c": null}})`.
/// Keys are string literals or parenthesised expressions; other values are expressions that convert `Into<Value>`.
#[macro_export]
macro_rules! value {
    (null) => { $crate::Value::Null };
    ([ $($tt:tt)* ]) => { $crate::Value::Array($crate::value_items!([] $($tt)*)) };
    ({ $($tt:tt)* }) => {{
        #[allow(unused_mut)]
        let mut map = $crate::Map::new();
        $crate::value_entries!(map $($tt)*);
        $crate::Value::Object(map)
    }};
    ($e:expr) => { $crate::Value::from($e) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! value_items {
    ([ $($done:expr,)* ]) => { vec![ $($done,)* ] };
    ([ $($done:expr,)* ] null $(, $($rest:tt)*)?) => { $crate::value_items!([ $($done,)* $crate::Value::Null, ] $($($rest)*)?) };
    ([ $($done:expr,)* ] [ $($tt:tt)* ] $(, $($rest:tt)*)?) => { $crate::value_items!([ $($done,)* $crate::value!([ $($tt)* ]), ] $($($rest)*)?) };
    ([ $($done:expr,)* ] { $($tt:tt)* } $(, $($rest:tt)*)?) => { $crate::value_items!([ $($done,)* $crate::value!({ $($tt)* }), ] $($($rest)*)?) };
    ([ $($done:expr,)* ] $e:expr $(, $($rest:tt)*)?) => { $crate::value_items!([ $($done,)* $crate::Value::from($e), ] $($($rest)*)?) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! value_entries {
    ($m:ident) => {};
    ($m:ident $k:tt : null $(, $($rest:tt)*)?) => { $m.insert($k, $crate::Value::Null); $crate::value_entries!($m $($($rest)*)?) };
    ($m:ident $k:tt : [ $($tt:tt)* ] $(, $($rest:tt)*)?) => { $m.insert($k, $crate::value!([ $($tt)* ])); $crate::value_entries!($m $($($rest)*)?) };
    ($m:ident $k:tt : { $($tt:tt)* } $(, $($rest:tt)*)?) => { $m.insert($k, $crate::value!({ $($tt)* })); $crate::value_entries!($m $($($rest)*)?) };
    ($m:ident $k:tt : $e:expr $(, $($rest:tt)*)?) => { $m.insert($k, $crate::Value::from($e)); $crate::value_entries!($m $($($rest)*)?) };
}

#[cfg(test)]
mod tests {

    #[test]
    fn macro_builds_sorted_objects() {
        let name = String::from("x");
        let v = value!({"b": [1, {"c": null}, "s"], "a": name, "n": {}, "e": []});
        assert_eq!(crate::json::to_string(&v), r#"{"a":"x","b":[1,{"c":null},"s"],"e":[],"n":{}}"#);
    }

    #[test]
    fn a_clone_shares_until_it_changes() {
        let old = value!({"spec": {"a": {"b": 1}, "c": {}}, "status": {"x": 1}});
        let mut new = old.clone();
        new.set_path(&["status", "x"], 2);
        let shared = |field: &str| new[field].as_object().unwrap().is_shared_with(old[field].as_object().unwrap());
        assert!(shared("spec") && !shared("status"));
        assert_eq!((old["status"]["x"].int(), new["status"]["x"].int()), (1, 2));
        let mut entries = new["spec"].as_object().unwrap().clone();
        assert_eq!((entries.remove("nope"), entries.get_mut("nope")), (None, None));
        assert!(entries.is_shared_with(new["spec"].as_object().unwrap()), "nothing was changed");
    }

    #[test]
    fn missing_paths_are_null() {
        let v = value!({"spec": {"nodeName": "n1"}});
        assert_eq!(v["spec"]["nodeName"].str(), "n1");
        assert!(v["spec"]["x"][3]["y"].is_null());
    }

    #[test]
    fn set_path_creates_and_replaces() {
        let mut v = value!({"a": 1});
        v.set_path(&["b", "c"], "x");
        v.set_path(&["a", "d"], true);
        assert_eq!(v, value!({"a": {"d": true}, "b": {"c": "x"}}));
        assert_eq!(v.remove_path(&["b", "c"]), Some("x".into()));
        assert_eq!(v.remove_path(&["b", "nope", "c"]), None);
    }
}
