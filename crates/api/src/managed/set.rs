//! Sets of fields, in the encoded form they have in `managedFields` (`fieldsV1`).
//!
//! A set is a trie whose nodes are JSON objects and whose steps are encoded path elements: `f:name`, `k:{"key":…}`,
//! `v:value`, `i:index`. A node is a member when it is empty or has a "." entry. Because our encoding is canonical,
//! elements are equal when their text is, so the algebra works on the encoded trees and unchanged sets are never
//! decoded, copied or encoded again.

use crate::json;
use crate::value::{Map, Value};
use compact_str::CompactString;

/// The entry that makes a node with children a member.
const SELF: &str = ".";

/// A set of fields: the root of the trie, which is itself never a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(Map);

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("key must be 2 characters long:")]
    TooShort,
    #[error("missing colon: {0}")]
    NoColon(CompactString),
    #[error("malformed path element: {0}")]
    Malformed(CompactString),
    #[error("expected an object in a field set")]
    NotAnObject,
}

impl Set {
    pub fn new() -> Set {
        Set::default()
    }

    /// Of a trie known to be canonical, such as one that this module made.
    pub fn trusted(root: Map) -> Set {
        Set(root)
    }

    /// Reads a set that a client sent, making it canonical. Unknown kinds of path elements are dropped, as upstream does.
    pub fn decode(value: &Value) -> Result<Set, DecodeError> {
        match value {
            Value::Null => Ok(Set::default()),
            Value::Object(map) => Ok(Set(decode_children(map)?.0)),
            _ => Err(DecodeError::NotAnObject),
        }
    }

    /// The `fieldsV1` tree.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn as_map(&self) -> &Map {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the field at `path`; its parents do not become members.
    pub fn insert(&mut self, path: &[CompactString]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut at = &mut self.0;
        for step in parents {
            let fresh = !at.contains_key(step);
            let node = at.entry(step, Value::object).ensure_object();
            if !fresh && node.is_empty() {
                node.insert(SELF, Value::object());
            }
            at = node;
        }
        let node = at.entry(last, Value::object).ensure_object();
        if !node.is_empty() {
            node.insert(SELF, Value::object());
        }
    }

    pub fn has(&self, path: &[CompactString]) -> bool {
        let mut at = &self.0;
        for step in path {
            match at.get(step) {
                Some(Value::Object(node)) => at = node,
                _ => return false,
            }
        }
        !path.is_empty() && is_member(at)
    }

    /// The trie below one step; None when nothing is there.
    pub fn below(&self, step: &str) -> Option<&Map> {
        self.0.get(step).and_then(Value::as_object)
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Set) {
        add(&mut self.0, &other.0);
    }

    /// Removes what `other` has. Removing a parent leaves its children and the other way round.
    pub fn subtract(&mut self, other: &Set) {
        subtract(&mut self.0, &other.0, false);
    }

    /// Removes what `other` has with everything below it.
    pub fn subtract_trees(&mut self, other: &Set) {
        subtract(&mut self.0, &other.0, true);
    }

    /// What both have.
    pub fn intersection(&self, other: &Set) -> Set {
        Set(intersection(&self.0, &other.0))
    }

    /// Whether any field is in both; allocates nothing.
    pub fn overlaps(&self, other: &Set) -> bool {
        overlaps(&self.0, &other.0)
    }

    /// Removes the field at `names` with everything below it.
    pub fn remove_field(&mut self, names: &[&str]) {
        remove_field(&mut self.0, names);
    }

    /// Keeps only the fields at `paths`, whose parts may be `*`, with everything below them, and the members on the way.
    pub fn keep_fields(&mut self, paths: &[&[&str]]) {
        self.0 = keep_fields(&self.0, paths);
    }

    /// Every member's path as text (`.spec.replicas`), in upstream's order: the members of a node before its children.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        collect_paths(&self.0, "", &mut out);
        out
    }
}

pub(crate) fn is_member(node: &Map) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The entry for a field's name.
pub fn field(name: &str) -> CompactString {
    let mut out = CompactString::with_capacity(name.len() + 2);
    out.push_str("f:");
    out.push_str(name);
    out
}

/// The entry for an item of an associative list; `keys` sorted by name.
pub fn key<'a>(keys: impl Iterator<Item = (&'a str, &'a Value)>) -> CompactString {
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(b"k:{");
    for (i, (name, value)) in keys.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write_str(name, &mut out);
        out.push(b':');
        write_html_safe(value, &mut out);
    }
    out.push(b'}');
    CompactString::from_utf8(out).unwrap_or_default()
}

/// The entry for an item of a set.
pub fn value(value: &Value) -> CompactString {
    let mut out = b"v:".to_vec();
    write_html_safe(value, &mut out);
    CompactString::from_utf8(out).unwrap_or_default()
}

/// Go's encoder escapes `<`, `>` and `&`, which can only occur in strings.
fn write_html_safe(value: &Value, out: &mut Vec<u8>) {
    let from = out.len();
    json::write(value, out);
    if out[from..].iter().any(|b| matches!(b, b'<' | b'>' | b'&')) {
        let text = out.split_off(from);
        for b in text {
            match b {
                b'<' => out.extend_from_slice(b"\\u003c"),
                b'>' => out.extend_from_slice(b"\\u003e"),
                b'&' => out.extend_from_slice(b"\\u0026"),
                _ => out.push(b),
            }
        }
    }
}

fn decode_children(map: &Map) -> Result<(Map, bool), DecodeError> {
    let mut out = Map::new();
    let mut member = false;
    for (name, child) in map.iter() {
        if name == SELF {
            member = true;
            continue;
        }
        let Some(element) = decode_element(name)? else { continue };
        let (mut node, child_is_member) = match child {
            Value::Null => (Map::new(), true),
            Value::Object(child) => decode_children(child)?,
            _ => return Err(DecodeError::NotAnObject),
        };
        if child_is_member && !node.is_empty() {
            node.insert(SELF, Value::object());
        }
        out.insert(element, node);
    }
    let member = member || out.is_empty();
    Ok((out, member))
}

/// The canonical text of a path element; None for a kind this version does not know.
fn decode_element(text: &CompactString) -> Result<Option<CompactString>, DecodeError> {
    let bytes = text.as_bytes();
    if bytes.len() < 2 {
        return Err(DecodeError::TooShort);
    }
    if bytes[1] != b':' {
        return Err(DecodeError::NoColon(text.clone()));
    }
    let malformed = || DecodeError::Malformed(text.clone());
    match bytes[0] {
        b'f' => Ok(Some(text.clone())),
        b'i' => text[2..].parse::<i64>().map(|i| Some(compact_str::format_compact!("i:{i}"))).map_err(|_| malformed()),
        b'v' => json::parse(&bytes[2..]).map(|v| Some(value(&v))).map_err(|_| malformed()),
        b'k' => match json::parse(&bytes[2..]) {
            Ok(Value::Object(keys)) => Ok(Some(key(keys.iter().map(|(k, v)| (k.as_str(), v))))),
            _ => Err(malformed()),
        },
        _ => Ok(None),
    }
}

fn add(into: &mut Map, from: &Map) {
    for (step, node) in from.iter() {
        let Value::Object(node) = node else { continue };
        match into.get_mut(step) {
            None => {
                into.insert(step.clone(), node.clone());
            }
            Some(Value::Object(have)) => match (have.is_empty(), node.is_empty()) {
                (true, true) => {}
                (true, false) => {
                    *have = node.clone();
                    have.insert(SELF, Value::object());
                }
                (false, true) => {
                    have.insert(SELF, Value::object());
                }
                (false, false) => add(have, node),
            },
            Some(_) => {}
        }
    }
}

fn subtract(from: &mut Map, what: &Map, trees: bool) {
    if what.is_empty() {
        return;
    }
    from.retain(|step, node| {
        let (Some(Value::Object(what)), Value::Object(node)) = (what.get(step), node) else { return true };
        let (was, removed) = (is_member(node), is_member(what));
        if trees && removed {
            return false;
        }
        node.remove(SELF);
        subtract(node, what, trees);
        match (was && !removed, node.is_empty()) {
            (stays, true) => stays,
            (true, false) => {
                node.insert(SELF, Value::object());
                true
            }
            (false, false) => true,
        }
    });
}

fn intersection(a: &Map, b: &Map) -> Map {
    let mut out = Map::new();
    for (step, x) in a.iter().filter(|(step, _)| *step != SELF) {
        let (Value::Object(x), Some(Value::Object(y))) = (x, b.get(step)) else { continue };
        let mut both = intersection(x, y);
        match (is_member(x) && is_member(y), both.is_empty()) {
            (false, true) => continue,
            (true, false) => {
                both.insert(SELF, Value::object());
            }
            _ => {}
        }
        out.insert(step.clone(), both);
    }
    out
}

fn overlaps(a: &Map, b: &Map) -> bool {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    few.iter().filter(|(step, _)| *step != SELF).any(|(step, x)| match (x, many.get(step)) {
        (Value::Object(x), Some(Value::Object(y))) => (is_member(x) && is_member(y)) || overlaps(x, y),
        _ => false,
    })
}

fn remove_field(map: &mut Map, names: &[&str]) {
    let Some((first, rest)) = names.split_first() else { return };
    let step = field(first);
    if rest.is_empty() {
        map.remove(&step);
    } else if let Some(Value::Object(node)) = map.get_mut(&step) {
        let was = is_member(node);
        remove_field(node, rest);
        match (was, node.is_empty()) {
            (false, true) => {
                map.remove(&step);
            }
            (true, _) if node.len() == 1 => {
                node.remove(SELF);
            }
            _ => {}
        }
    }
}

fn keep_fields(map: &Map, paths: &[&[&str]]) -> Map {
    let mut kept = Map::new();
    for (step, node) in map.iter().filter(|(step, _)| *step != SELF) {
        let leads = |path: &&[&str]| path.first().is_some_and(|first| *first == "*" || *step == field(first));
        let rest: Vec<&[&str]> = paths.iter().copied().filter(leads).map(|path| &path[1..]).collect();
        if rest.is_empty() {
            continue;
        }
        let Some(below) = node.as_object().filter(|_| !rest.iter().any(|path| path.is_empty())) else {
            kept.insert(step.clone(), node.clone());
            continue;
        };
        let mut left = keep_fields(below, &rest);
        match (is_member(below), left.is_empty()) {
            (false, true) => continue,
            (true, false) => drop(left.insert(SELF, Value::object())),
            _ => {}
        }
        kept.insert(step.clone(), Value::Object(left));
    }
    kept
}

fn collect_paths(map: &Map, prefix: &str, out: &mut Vec<String>) {
    let nodes =
        || map.iter().filter(|(step, _)| *step != SELF).filter_map(|(s, v)| v.as_object().map(|node| (s, node)));
    for (step, _) in nodes().filter(|(_, node)| is_member(node)) {
        out.push(format!("{prefix}{}", display(step)));
    }
    for (step, node) in nodes().filter(|(_, node)| !node.is_empty()) {
        collect_paths(node, &format!("{prefix}{}", display(step)), out);
    }
}

/// An element as upstream prints it in messages: `.name`, `[name="x"]`, `[="x"]`, `[3]`.
pub fn display(step: &str) -> String {
    let body = step.get(2..).unwrap_or("");
    let parsed = || json::parse(body.as_bytes()).unwrap_or_default();
    match step.as_bytes().first() {
        Some(b'f') => format!(".{body}"),
        Some(b'i') => format!("[{body}]"),
        Some(b'v') => format!("[={}]", plain(&parsed())),
        Some(b'k') => {
            let keys = parsed();
            let keys: Vec<String> = keys.entries().map(|(k, v)| format!("{k}={}", plain(v))).collect();
            format!("[{}]", keys.join(","))
        }
        _ => "{{invalid path element}}".into(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Str(s) => format!("{s:?}"),
        other => json::to_string(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> Set {
        Set::decode(&json::parse(text.as_bytes()).unwrap()).unwrap()
    }

    fn text(set: &Set) -> String {
        json::to_string(&Value::Object(set.0.clone()))
    }

    #[test]
    fn algebra() {
        // (a, b, a + b, a - b, a - trees of b, both)
        let cases = [
            ("{}", r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, "{}", "{}", "{}"),
            (
                r#"{"f:a":{},"f:b":{"f:c":{}}}"#,
                r#"{"f:b":{}}"#,
                r#"{"f:a":{},"f:b":{".":{},"f:c":{}}}"#,
                r#"{"f:a":{},"f:b":{"f:c":{}}}"#,
                r#"{"f:a":{}}"#,
                "{}",
            ),
            (
                r#"{"f:b":{".":{},"f:c":{},"f:d":{}}}"#,
                r#"{"f:b":{"f:c":{}}}"#,
                r#"{"f:b":{".":{},"f:c":{},"f:d":{}}}"#,
                r#"{"f:b":{".":{},"f:d":{}}}"#,
                r#"{"f:b":{".":{},"f:d":{}}}"#,
                r#"{"f:b":{"f:c":{}}}"#,
            ),
            (
                r#"{"f:b":{}}"#,
                r#"{"f:b":{".":{},"f:c":{}}}"#,
                r#"{"f:b":{".":{},"f:c":{}}}"#,
                "{}",
                "{}",
                r#"{"f:b":{}}"#,
            ),
            (
                r#"{"f:b":{"f:c":{}}}"#,
                r#"{"f:b":{"f:c":{}}}"#,
                r#"{"f:b":{"f:c":{}}}"#,
                "{}",
                "{}",
                r#"{"f:b":{"f:c":{}}}"#,
            ),
        ];
        for (a, b, sum, difference, without_trees, both) in cases {
            let (a, b) = (set(a), set(b));
            let apply = |op: fn(&mut Set, &Set)| {
                let mut out = a.clone();
                op(&mut out, &b);
                text(&out)
            };
            assert_eq!(apply(Set::add), sum);
            assert_eq!(apply(Set::subtract), difference);
            assert_eq!(apply(Set::subtract_trees), without_trees);
            assert_eq!(text(&a.intersection(&b)), both);
            assert_eq!(a.overlaps(&b), both != "{}");
        }
    }

    #[test]
    fn decoding_makes_canonical() {
        let odd = set(r#"{"k:{ \"b\":1, \"a\" : \"x\" }":{"f:q":null,".":{}},"v: \"a<b\"":{},"z:new":{},"i:07":{}}"#);
        assert_eq!(text(&odd), r#"{"i:7":{},"k:{\"a\":\"x\",\"b\":1}":{".":{},"f:q":{}},"v:\"a\\u003cb\"":{}}"#);
        for bad in [r#"{"x":{}}"#, r#"{"fx":{}}"#, r#"{"i:x":{}}"#, r#"{"k:[]":{}}"#, r#"{"v:":{}}"#, r#"{"f:a":1}"#] {
            assert!(Set::decode(&json::parse(bad.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_read_like_upstreams() {
        let s = set(
            r#"{"f:spec":{"f:replicas":{},"f:c":{"k:{\"name\":\"x\",\"port\":80}":{".":{},"f:image":{}}},"f:f":{"v:\"y\"":{}}}}"#,
        );
        assert_eq!(
            s.paths(),
            [
                ".spec.replicas",
                r#".spec.c[name="x",port=80]"#,
                r#".spec.c[name="x",port=80].image"#,
                r#".spec.f[="y"]"#
            ]
        );
    }

    #[test]
    fn reset_fields_go_with_what_is_below() {
        let mut s = set(
            r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{".":{},"f:x":{}},"f:status":{".":{},"f:y":{}}}"#,
        );
        s.remove_field(&["status"]);
        s.remove_field(&["metadata", "labels"]);
        s.remove_field(&["spec", "x"]);
        s.remove_field(&["nope", "x"]);
        assert_eq!(text(&s), r#"{"f:spec":{}}"#);
    }

    #[test]
    fn some_fields_alone_may_be_kept() {
        let all = r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{},
            "f:resources":{".":{},"f:limits":{"f:cpu":{}}}},"k:{\"name\":\"b\"}":{"f:image":{}}},"f:x":{}}}"#;
        let cases: &[(&[&[&str]], &str)] = &[
            (
                &[&["spec", "containers", "*", "resources"], &["spec", "initContainers", "*", "resources"]],
                r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:resources":{".":{},"f:limits":{"f:cpu":{}}}}}}}"#,
            ),
            (&[&["spec", "x"], &["metadata"]], r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:x":{}}}"#),
            (&[&["status"]], "{}"),
        ];
        for (paths, expected) in cases {
            let mut s = set(all);
            s.keep_fields(paths);
            assert_eq!(text(&s), *expected);
        }
    }

    fn paths() -> impl Strategy<Value = Vec<Vec<CompactString>>> {
        prop::collection::vec(prop::collection::vec("f:[abc]".prop_map(CompactString::from), 1..4), 0..12)
    }

    fn of(paths: &[Vec<CompactString>]) -> Set {
        let mut out = Set::new();
        paths.iter().for_each(|p| out.insert(p));
        out
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_paths(a in paths(), b in paths(), probe in paths()) {
            let (x, y) = (of(&a), of(&b));
            let (mut sum, mut difference) = (x.clone(), x.clone());
            sum.add(&y);
            difference.subtract(&y);
            let both = x.intersection(&y);
            for p in a.iter().chain(&b).chain(&probe) {
                let (in_a, in_b) = (a.contains(p), b.contains(p));
                prop_assert_eq!(x.has(p), in_a);
                prop_assert_eq!(sum.has(p), in_a || in_b);
                prop_assert_eq!(difference.has(p), in_a && !in_b);
                prop_assert_eq!(both.has(p), in_a && in_b);
            }
            prop_assert_eq!(Set::decode(&sum.clone().into_value()).unwrap(), sum);
        }
    }
}
