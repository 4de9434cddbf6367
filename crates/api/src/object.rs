//! The encoded, shared form of an object: bytes, and the facts about it that are extracted once per revision.

use crate::json;
use crate::time::Time;
use crate::value::Value;
use bytes::Bytes;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// What everybody asks of an object, extracted once when it is written and shared beside its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: CompactString,
    pub labels: Box<[(CompactString, CompactString)]>,
    /// The uid of the owner that has `controller: true`.
    pub controller: Option<CompactString>,
    /// All owners' uids.
    pub owners: Box<[CompactString]>,
    /// Selectable fields besides metadata.name and metadata.namespace, sorted by name.
    pub fields: Box<[(CompactString, CompactString)]>,
    pub deleting: bool,
    pub generation: i64,
    /// Since when the condition `Ready` holds; None when it does not.
    pub ready: Option<Time>,
    pub(crate) layout: Layout,
}

/// Where in its bytes an object has what: known of those that this process has encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Layout {
    places: Places,
    /// The value of spec, from and to.
    spec: (u32, u32),
}

/// Where the bytes are cut for clients. 0: it isn't there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Places {
    /// Just behind the `{` of metadata.
    metadata: u32,
    /// The names of these two members, which come before metadata.
    api_version: u32,
    kind: u32,
}

impl Facts {
    /// Extracts the facts of `value`; `fields` names the resource's selectable fields (`spec.nodeName`).
    pub fn extract(value: &Value, fields: &[&str]) -> Facts {
        let meta = &value["metadata"];
        let owners = meta["ownerReferences"].items();
        let text = |v: &Value| match v {
            Value::Str(s) => s.clone(),
            Value::Bool(b) => CompactString::const_new(if *b { "true" } else { "false" }),
            Value::Int(i) => compact_str::format_compact!("{i}"),
            _ => CompactString::default(),
        };
        let mut fields: Vec<_> = fields
            .iter()
            .map(|name| (CompactString::from(*name), text(name.split('.').fold(value, |v, step| v.at(step)))))
            .collect();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Facts {
            namespace: meta["namespace"].str().into(),
            name: meta["name"].str().into(),
            uid: meta["uid"].str().into(),
            labels: meta["labels"].entries().map(|(k, v)| (k.clone(), v.str().into())).collect(),
            controller: owners.iter().find(|o| o["controller"].bool()).map(|o| o["uid"].str().into()),
            owners: owners.iter().map(|o| o["uid"].str().into()).collect(),
            fields: fields.into(),
            deleting: !meta["deletionTimestamp"].is_null(),
            generation: meta["generation"].int(),
            ready: Facts::ready(&value["status"]["conditions"]),
            layout: Layout::default(),
        }
    }

    fn ready(conditions: &Value) -> Option<Time> {
        let ready = conditions.items().iter().find(|c| c["type"].str() == "Ready")?;
        let since = || Time::parse(ready["lastTransitionTime"].str()).unwrap_or_default();
        (ready["status"].str() == "True").then(since)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(k, _)| k.as_str().cmp(key));
        found.ok().map(|i| self.labels[i].1.as_str())
    }

    /// A selectable field; None when the resource does not have it.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()),
        }
    }
}

/// One revision of an object. The bytes are JSON without `metadata.resourceVersion`, because they are encoded
/// before the store has given the revision; [`Object::write_json`] splices it in.
#[derive(Debug)]
pub struct Object {
    pub facts: Arc<Facts>,
    pub revision: u64,
    body: Bytes,
    places: Places,
    derived: Mutex<Derived>,
}

/// What was made of the bytes, for who asks next.
#[derive(Debug, Default)]
struct Derived {
    tree: Weak<Value>,
    /// The same, if it is to stay although nobody holds it.
    kept: Option<Arc<Value>>,
    /// Encoded for clients, by what the server calls the form. Mostly there are none.
    forms: Vec<(u8, Bytes)>,
}

/// How much of a thread's buffer for encoding stays.
const MAX_SCRATCH: usize = 64 << 10;

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

const METADATA: &[u8] = b"\"metadata\":{";
const API_VERSION: &[u8] = b"\"apiVersion\":\"";
const KIND: &[u8] = b"\"kind\":\"";

impl Object {
    /// Of bytes that [`Object::encode`] made. `None` when they have no metadata object.
    pub fn from_bytes(body: Bytes, facts: Arc<Facts>, revision: u64) -> Option<Object> {
        let places = match facts.layout.places {
            unknown if unknown.metadata == 0 => Places::find(&body)?,
            known => known,
        };
        Some(Object { facts, revision, body, places, derived: Mutex::default() })
    }

    /// Of a tree. `metadata.resourceVersion` in it is ignored in favour of `revision` (0: it has none).
    pub fn from_value(mut value: Value, fields: &[&str], revision: u64) -> Object {
        let facts = Arc::new(Facts::extract(&value, fields));
        value.obj_mut("metadata").remove("resourceVersion");
        let body = Bytes::from(json::to_vec(&value));
        let places = Places::find(&body).unwrap_or_default();
        Object { facts, revision, body, places, derived: Mutex::default() }
    }

    /// The bytes to store for `value`: canonical JSON without a resourceVersion.
    pub fn encode(value: &mut Value) -> Bytes {
        Object::encode_with(value, &mut Facts::default(), None)
    }

    /// The same. `facts` are told where in them is what.
    /// `old`, the object that it was made of, saves encoding a spec that the two share.
    pub fn encode_with(value: &mut Value, facts: &mut Facts, old: Option<(&Object, &Value)>) -> Bytes {
        value.obj_mut("metadata").remove("resourceVersion");
        let spec = |new: &Value| {
            let (old, tree) = old?;
            let (from, to) = old.facts.layout.spec;
            let same = matches!((new, &tree["spec"]), (Value::Object(a), Value::Object(b)) if a.is_shared_with(b));
            old.body.get(from as usize..to as usize).filter(|bytes| same && !bytes.is_empty())
        };
        SCRATCH.with_borrow_mut(|out| {
            out.clear();
            facts.layout = Layout::default();
            let at = |out: &Vec<u8>| u32::try_from(out.len()).unwrap_or(0);
            for (i, (name, member)) in value.entries().enumerate() {
                out.push(if i == 0 { b'{' } else { b',' });
                let named = at(out);
                json::write_str(name, out);
                out.push(b':');
                let from = at(out);
                match (name.as_str(), spec(member)) {
                    ("spec", Some(bytes)) => out.extend_from_slice(bytes),
                    _ => json::write(member, out),
                }
                match name.as_str() {
                    "apiVersion" => facts.layout.places.api_version = named,
                    "kind" => facts.layout.places.kind = named,
                    "metadata" => facts.layout.places.metadata = from + 1,
                    "spec" => facts.layout.spec = (from, at(out)),
                    _ => {}
                }
            }
            out.push(b'}');
            let bytes = Bytes::copy_from_slice(out);
            out.shrink_to(MAX_SCRATCH);
            bytes
        })
    }

    /// The same object at another revision (a deletion has a revision of its own).
    pub fn at_revision(&self, revision: u64) -> Object {
        let (facts, body) = (self.facts.clone(), self.body.clone());
        Object { facts, revision, body, places: self.places, derived: Mutex::default() }
    }

    /// The stored bytes, without resourceVersion.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Appends the object's JSON, with its resourceVersion.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let at = self.places.metadata as usize;
        out.extend_from_slice(&self.body[..at]);
        self.write_rest(at, out);
    }

    /// The same without `apiVersion` and `kind`: as an item of a list, which says for all its items what they are.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        let at = self.places.metadata as usize;
        let mut from = 0;
        for named in [self.places.api_version, self.places.kind] {
            let named = named as usize;
            // Of `"name":"value",` the comma is there because metadata follows.
            let comma = self.body[named..at].iter().position(|b| *b == b',').unwrap_or(0);
            if named > 0 && comma > 0 {
                out.extend_from_slice(&self.body[from..named]);
                from = named + comma + 1;
            }
        }
        out.extend_from_slice(&self.body[from..at]);
        self.write_rest(at, out);
    }

    fn write_rest(&self, at: usize, out: &mut Vec<u8>) {
        if self.revision > 0 {
            out.extend_from_slice(b"\"resourceVersion\":\"");
            json::write_int(i64::try_from(self.revision).unwrap_or(i64::MAX), out);
            out.push(b'"');
            if self.body.get(at) != Some(&b'}') {
                out.push(b',');
            }
        }
        out.extend_from_slice(&self.body[at..]);
    }

    /// The object's tree, with its resourceVersion. Parsed at most once while anybody holds it.
    pub fn value(&self) -> Arc<Value> {
        let mut slot = self.derived.lock();
        if let Some(tree) = slot.tree.upgrade() {
            return tree;
        }
        // The bytes are our own encoding; should a disk have changed them, readers see an empty object.
        let mut value = json::parse(&self.body).unwrap_or_else(|_| Value::object());
        if self.revision > 0 {
            value.obj_mut("metadata").insert("resourceVersion", self.revision.to_string());
        }
        let tree = Arc::new(value);
        slot.tree = Arc::downgrade(&tree);
        tree
    }

    /// Keeps a tree that the writer has at hand, so that readers need not parse. It must carry the resourceVersion.
    pub fn keep(&self, tree: Arc<Value>) {
        let mut derived = self.derived.lock();
        derived.tree = Arc::downgrade(&tree);
        derived.kept = Some(tree);
    }

    /// Whether a tree is kept.
    pub fn keeps(&self) -> bool {
        self.derived.lock().kept.is_some()
    }

    /// Lets the kept tree go, if there is one: it lives on while others hold it.
    pub fn release(&self) -> Option<Arc<Value>> {
        self.derived.lock().kept.take()
    }

    /// The encoded form called `form`, if it was remembered and not yet forgotten.
    pub fn form(&self, form: u8) -> Option<Bytes> {
        let derived = self.derived.lock();
        derived.forms.iter().find(|(known, _)| *known == form).map(|(_, bytes)| bytes.clone())
    }

    /// Keeps an encoded form, until [`Object::forget_forms`].
    pub fn remember_form(&self, form: u8, bytes: Bytes) {
        self.derived.lock().forms.push((form, bytes));
    }

    pub fn forget_forms(&self) {
        self.derived.lock().forms = Vec::new();
    }

    pub fn name(&self) -> &str {
        &self.facts.name
    }
    pub fn namespace(&self) -> &str {
        &self.facts.namespace
    }
    /// `namespace/name`, or `name` when cluster-scoped.
    pub fn key(&self) -> CompactString {
        match self.facts.namespace.as_str() {
            "" => self.facts.name.clone(),
            namespace => compact_str::format_compact!("{namespace}/{}", self.facts.name),
        }
    }
}

impl Places {
    /// Finds them at the top level of canonical JSON, skipping strings and nested values. None without metadata.
    fn find(bytes: &[u8]) -> Option<Places> {
        let (mut places, mut depth, mut at) = (Places::default(), 0usize, 0usize);
        while at < bytes.len() {
            match bytes[at] {
                b'"' if depth == 1 && bytes[at..].starts_with(METADATA) => {
                    places.metadata = u32::try_from(at + METADATA.len()).ok()?;
                    return Some(places);
                }
                b'"' => {
                    if depth == 1 && bytes[at..].starts_with(API_VERSION) {
                        places.api_version = u32::try_from(at).ok()?;
                    } else if depth == 1 && bytes[at..].starts_with(KIND) {
                        places.kind = u32::try_from(at).ok()?;
                    }
                    at += 1;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn pod() -> Value {
        value!({
            "apiVersion": "v1", "kind": "Pod", "data": {"metadata": {"x": "\"metadata\":{"}},
            "metadata": {"name": "a", "namespace": "d", "uid": "u", "labels": {"b": "2", "a": "1"},
                "ownerReferences": [{"uid": "o1"}, {"uid": "o2", "controller": true}]},
            "spec": {"nodeName": "n1", "hostNetwork": true},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"}]},
        })
    }

    #[test]
    fn splices_the_revision() {
        let object = Object::from_value(pod(), &[], 42);
        let mut out = Vec::new();
        object.write_json(&mut out);
        let mut expected = pod();
        expected.set_path(&["metadata", "resourceVersion"], "42");
        assert_eq!(json::parse(&out).unwrap(), expected);
        assert_eq!(*object.value(), expected);
        assert!(!String::from_utf8_lossy(object.body()).contains("resourceVersion"));
    }

    #[test]
    fn a_shared_spec_is_copied_as_it_was_encoded() {
        let encode = |mut value: Value, old: Option<(&Object, &Value)>| {
            let mut facts = Facts::extract(&value, &[]);
            let bytes = Object::encode_with(&mut value, &mut facts, old);
            assert_eq!(bytes, json::to_vec(&value));
            assert_eq!(facts.layout.places, Places::find(&bytes).unwrap());
            Object::from_bytes(bytes, Arc::new(facts), 1).unwrap()
        };
        let tree = pod();
        let first = encode(tree.clone(), None);
        let mut changed = tree.clone();
        changed.set_path(&["metadata", "labels", "longer"], "than before");
        changed.set_path(&["status", "phase"], "Running");
        let second = encode(changed.clone(), Some((&first, &tree)));
        let mut moved = changed.clone();
        moved.set_path(&["spec", "nodeName"], "another");
        encode(moved, Some((&second, &changed)));
        encode(value!({"metadata": {}}), Some((&second, &changed)));
    }

    #[test]
    fn splices_into_empty_metadata() {
        let object = Object::from_value(value!({"kind": "X"}), &[], 7);
        let mut out = Vec::new();
        object.write_json(&mut out);
        assert_eq!(out, br#"{"kind":"X","metadata":{"resourceVersion":"7"}}"#);
    }

    #[test]
    fn items_do_not_say_what_they_are() {
        let item = |value: Value| {
            let mut out = Vec::new();
            Object::from_value(value, &[], 7).write_item(&mut out);
            String::from_utf8(out).unwrap()
        };
        let rest = r#""metadata":{"resourceVersion":"7"}}"#;
        assert_eq!(item(value!({"apiVersion": "v1", "kind": "X"})), format!("{{{rest}"));
        assert_eq!(
            item(value!({"addressType": "IPv4", "apiVersion": "g/v1", "data": {"kind": "a,b"}, "kind": "X"})),
            format!(r#"{{"addressType":"IPv4","data":{{"kind":"a,b"}},{rest}"#)
        );
        assert_eq!(
            item(value!({"a": "\",\"kind\":\"", "data": 1})),
            format!(r#"{{"a":"\",\"kind\":\"","data":1,{rest}"#)
        );
    }

    #[test]
    fn facts() {
        let facts = Facts::extract(&pod(), &["spec.nodeName", "spec.hostNetwork", "status.phase"]);
        assert_eq!(facts.label("b"), Some("2"));
        assert_eq!(facts.controller.as_deref(), Some("o2"));
        assert_eq!(facts.owners.len(), 2);
        assert_eq!(facts.field("spec.nodeName"), Some("n1"));
        assert_eq!(facts.field("spec.hostNetwork"), Some("true"));
        assert_eq!(facts.field("status.phase"), Some(""));
        assert_eq!(facts.field("nope"), None);
        assert_eq!(facts.ready, Some(Time::from_unix(7)));
    }

    #[test]
    fn a_tree_is_parsed_once_while_held() {
        let object = Object::from_value(pod(), &[], 1);
        let (a, b) = (object.value(), object.value());
        assert!(Arc::ptr_eq(&a, &b));
        object.keep(Arc::new(value!({"kept": true})));
        assert!(object.keeps() && object.value()["kept"].bool());
        assert!(object.release().is_some_and(|tree| Arc::strong_count(&tree) == 1));
        assert!(!object.keeps() && object.value()["kept"].is_null());
    }
}
