//! JSON patch (RFC 6902), as upstream's library applies it: negative indices count from the end, and `replace` of an
//! object's missing key adds it.

use super::rejected;
use crate::status::{Result, Status};
use crate::value::Value;

/// More operations than this are refused with 413.
pub const MAX_OPERATIONS: usize = 10_000;
/// The bytes of JSON that the `copy` operations of one patch may add in sum (upstream's default).
const MAX_COPIED: usize = 3 << 20;

/// Applies the operations `ops` to a copy of `doc`.
///
/// 400 for what is not a patch, 413 for too many operations, 422 for one that does not apply.
pub fn json_patch(doc: &Value, ops: &Value) -> Result<Value> {
    let ops = match ops {
        Value::Array(ops) => ops,
        Value::Null => return Ok(doc.clone()),
        other => return Err(undecodable(other, "[]handlers.jsonPatchOp")),
    };
    for op in ops {
        check_operation(op)?;
    }
    if ops.len() > MAX_OPERATIONS {
        return Err(Status::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            ops.len()
        )));
    }
    let mut out = doc.clone();
    let mut copied = 0;
    for op in ops {
        apply(&mut out, op, &mut copied).ok_or_else(rejected)?;
    }
    Ok(out)
}

/// What strict field validation says of a patch's own fields: `json patch unknown field "[0].x"`.
pub fn unknown_fields(ops: &Value) -> Vec<String> {
    let known = ["op", "path", "from", "value"];
    let of_one = |(i, op): (usize, &Value)| {
        let unknown = op.entries().filter(|(key, _)| !known.contains(&key.as_str()));
        unknown.map(|(key, _)| format!("json patch unknown field \"[{i}].{key}\"")).collect::<Vec<_>>()
    };
    ops.items().iter().enumerate().flat_map(of_one).collect()
}

/// What Go's decoder calls a JSON value of this kind.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Float(_) => "number",
        Value::Str(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn undecodable(found: &Value, wanted: &str) -> Status {
    let kind = go_kind(found);
    Status::bad_request(format!("error decoding patch: json: cannot unmarshal {kind} into Go value of type {wanted}"))
}

fn check_operation(op: &Value) -> Result<()> {
    if op.is_null() {
        return Ok(());
    }
    if op.as_object().is_none() {
        return Err(undecodable(op, "handlers.jsonPatchOp"));
    }
    for name in ["op", "path", "from"] {
        let value = op.at(name);
        if !matches!(value, Value::Null | Value::Str(_)) {
            let kind = go_kind(value);
            return Err(Status::bad_request(format!(
                "error decoding patch: json: cannot unmarshal {kind} into Go struct field jsonPatchOp.{name} of type string"
            )));
        }
    }
    Ok(())
}

/// None when the operation does not apply.
fn apply(doc: &mut Value, op: &Value, copied: &mut usize) -> Option<()> {
    let path = || op.at("path").as_str();
    match op.at("op").str() {
        "add" => add(doc, path()?, op.at("value").clone()),
        "remove" => remove(doc, path()?).map(|_| ()),
        "replace" => replace(doc, path()?, op.get("value")),
        "move" => {
            let value = remove(doc, op.at("from").as_str()?)?;
            add(doc, path()?, value)
        }
        "copy" => {
            let value = read(doc, op.at("from").as_str()?)?.clone();
            *copied += size(&value);
            if *copied > MAX_COPIED {
                return None;
            }
            add(doc, path()?, value)
        }
        "test" => {
            let path = path()?;
            let there = if path.is_empty() { &*doc } else { read(doc, path)? };
            same(there, op.at("value")).then_some(())
        }
        _ => None,
    }
}

/// Splits off the last token of a pointer; the first token (before the first slash) is ignored, as upstream does.
fn split(path: &str) -> Option<(impl Iterator<Item = String> + '_, String)> {
    let (_, tokens) = path.split_once('/')?;
    let (parents, last) = match tokens.rsplit_once('/') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, tokens),
    };
    Some((parents.into_iter().flat_map(|p| p.split('/')).map(unescape), unescape(last)))
}

fn unescape(token: &str) -> String {
    let mut out = String::with_capacity(token.len());
    let mut rest = token;
    while let Some(at) = rest.find('~') {
        out.push_str(&rest[..at]);
        let (plain, taken) = match rest.as_bytes().get(at + 1) {
            Some(b'0') => ('~', 2),
            Some(b'1') => ('/', 2),
            _ => ('~', 1),
        };
        out.push(plain);
        rest = &rest[at + taken..];
    }
    out + rest
}

/// An index in `0..bound`; negative ones count from the end.
fn index(token: &str, bound: usize) -> Option<usize> {
    let i: i64 = token.parse().ok()?;
    let bound = i64::try_from(bound).ok()?;
    let i = if i < 0 { i + bound } else { i };
    (0..bound).contains(&i).then(|| usize::try_from(i).ok())?
}

fn parent<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parents, last) = split(path)?;
    let mut at = doc;
    for token in parents {
        at = match at {
            Value::Object(map) => map.get_mut(&token)?,
            Value::Array(items) => {
                let i = index(&token, items.len())?;
                items.get_mut(i)?
            }
            _ => return None,
        };
    }
    matches!(at, Value::Object(_) | Value::Array(_)).then_some((at, last))
}

/// The value at `path`; an object's missing key reads as null, as upstream's library has it.
fn read<'a>(doc: &'a Value, path: &str) -> Option<&'a Value> {
    let (parents, last) = split(path)?;
    let mut at = doc;
    for token in parents {
        at = match at {
            Value::Object(map) => map.get(&token)?,
            Value::Array(items) => &items[index(&token, items.len())?],
            _ => return None,
        };
    }
    match at {
        Value::Object(_) => Some(at.at(&last)),
        Value::Array(items) => items.get(index(&last, items.len())?),
        _ => None,
    }
}

fn add(doc: &mut Value, path: &str, value: Value) -> Option<()> {
    let (at, key) = parent(doc, path)?;
    match at {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let i = index(&key, items.len() + 1)?;
            items.insert(i, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(doc: &mut Value, path: &str) -> Option<Value> {
    let (at, key) = parent(doc, path)?;
    match at {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            let i = index(&key, items.len())?;
            Some(items.remove(i))
        }
        _ => None,
    }
}

fn replace(doc: &mut Value, path: &str, value: Option<&Value>) -> Option<()> {
    if path.is_empty() {
        let value = value.filter(|v| matches!(v, Value::Object(_) | Value::Array(_)))?;
        *doc = value.clone();
        return Some(());
    }
    let value = value.cloned().unwrap_or_default();
    let (at, key) = parent(doc, path)?;
    match at {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) => {
            let i = index(&key, items.len())?;
            items[i] = value;
        }
        _ => return None,
    }
    Some(())
}

/// Equality as JSON text has it: `1` and `1.0` differ, order of keys does not matter.
fn same(a: &Value, b: &Value) -> bool {
    a == b
}

/// About the length of the value's JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Str(s) => s.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>(),
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use proptest::prelude::*;

    fn run(doc: &str, ops: &str) -> std::result::Result<String, u16> {
        let parse = |text: &str| json::parse(text.as_bytes()).unwrap();
        json_patch(&parse(doc), &parse(ops)).map(|v| json::to_string(&v)).map_err(|s| s.code)
    }

    #[test]
    fn applies() {
        let cases = [
            (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz","value":"qux"}]"#, r#"{"baz":"qux","foo":"bar"}"#),
            (r#"{"a":["b","c"]}"#, r#"[{"op":"add","path":"/a/1","value":"x"}]"#, r#"{"a":["b","x","c"]}"#),
            (r#"{"a":["b"]}"#, r#"[{"op":"add","path":"/a/-","value":["x"]}]"#, r#"{"a":["b",["x"]]}"#),
            (r#"{"a":["b"]}"#, r#"[{"op":"add","path":"/a/-1","value":"x"}]"#, r#"{"a":["b","x"]}"#),
            (r#"{"a":["b","c"]}"#, r#"[{"op":"remove","path":"/a/-1"}]"#, r#"{"a":["b"]}"#),
            (r#"{"a":["b","c"]}"#, r#"[{"op":"remove","path":"/a/0"}]"#, r#"{"a":["c"]}"#),
            (r#"{"a":1,"b":2}"#, r#"[{"op":"remove","path":"/b"}]"#, r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/a","value":null}]"#, r#"{"a":null}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/new","value":2}]"#, r#"{"a":1,"new":2}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":{"b":2}}]"#, r#"{"b":2}"#),
            (r#"{"a":{"b":1},"c":{}}"#, r#"[{"op":"move","from":"/a/b","path":"/c/d"}]"#, r#"{"a":{},"c":{"d":1}}"#),
            (r#"{"a":[1,2,3]}"#, r#"[{"op":"move","from":"/a/0","path":"/a/2"}]"#, r#"{"a":[2,3,1]}"#),
            (r#"{"a":{"b":1}}"#, r#"[{"op":"copy","from":"/a","path":"/a/c"}]"#, r#"{"a":{"b":1,"c":{"b":1}}}"#),
            (r#"{"a~/":{"":1}}"#, r#"[{"op":"test","path":"/a~0~1/","value":1}]"#, r#"{"a~/":{"":1}}"#),
            (r#"{"~1":1}"#, r#"[{"op":"remove","path":"/~01"}]"#, r#"{}"#),
            (
                r#"{"a":{"x":1,"y":[1]}}"#,
                r#"[{"op":"test","path":"/a","value":{"y":[1],"x":1}}]"#,
                r#"{"a":{"x":1,"y":[1]}}"#,
            ),
            (r#"{}"#, r#"[{"op":"test","path":"/a","value":null}]"#, r#"{}"#),
            (r#"{"a":1}"#, "[]", r#"{"a":1}"#),
            (r#"{"a":1}"#, "null", r#"{"a":1}"#),
        ];
        for (doc, ops, want) in cases {
            assert_eq!(run(doc, ops).as_deref(), Ok(want), "{doc} {ops}");
        }
    }

    #[test]
    fn refuses() {
        let cases = [
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/a/b","value":2}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/x","value":2}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"remove","path":"/x"}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/x/y","value":1}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"","value":{}}]"#, 422),
            (r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/2","value":1}]"#, 422),
            (r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/x","value":1}]"#, 422),
            (r#"{"a":[1]}"#, r#"[{"op":"replace","path":"/a/1","value":1}]"#, 422),
            (r#"{"a":[1]}"#, r#"[{"op":"remove","path":"/a/-2"}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"move","from":"/x","path":"/y"}]"#, 422),
            (r#"{"a":{"b":1}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"nope","path":"/y"}]"#, 422),
            (r#"{"a":1}"#, r#"[{"op":"add","value":1}]"#, 422),
            (r#"{"a":1}"#, r#"[null]"#, 422),
            (r#"{"a":1}"#, r#"{}"#, 400),
            (r#"{"a":1}"#, r#"["x"]"#, 400),
            (r#"{"a":1}"#, r#"[{"op":1,"path":"/y"}]"#, 400),
        ];
        for (doc, ops, code) in cases {
            assert_eq!(run(doc, ops), Err(code), "{doc} {ops}");
        }
        let refused = json_patch(&Value::object(), &crate::value!([{"op": "remove", "path": "/x"}])).unwrap_err();
        assert_eq!(refused.message, "the server rejected our request due to an error in our request");
    }

    #[test]
    fn limits() {
        let many: Value = (0..=MAX_OPERATIONS).map(|_| crate::value!({"op": "test", "path": "/a"})).collect();
        let refused = json_patch(&Value::object(), &many).unwrap_err();
        assert_eq!(refused.code, 413);
        assert!(refused.message.ends_with("in a JSON patch is 10000, got 10001"));
        // Each copy doubles the document: 2^40 without a limit.
        let bomb: Value =
            (0..40).map(|i| crate::value!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
        assert_eq!(json_patch(&crate::value!({"a": {"x": "y"}}), &bomb).unwrap_err().code, 422);
    }

    #[test]
    fn unknown_fields_are_named() {
        let ops = crate::value!([{"op": "remove", "path": "/a", "foo": 1}]);
        assert_eq!(unknown_fields(&ops), [r#"json patch unknown field "[0].foo""#]);
    }

    proptest! {
        #[test]
        fn never_panics(op in "add|remove|replace|test|move|copy", path in "(/(a|b|0|1|-1|-|~0|))*", from in "(/(a|b|0))*") {
            let doc = crate::value!({"a": {"b": [1, {"a": null}]}, "b": [[], 2], "~": {}});
            let _ = json_patch(&doc, &crate::value!([{"op": op, "path": path, "from": from, "value": 1}]));
        }
    }
}
