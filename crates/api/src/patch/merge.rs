//! JSON merge patch (RFC 7386), with the habits of the library upstream uses.

use crate::status::{Result, Status};
use crate::value::{Map, Value};

/// Merges `patch` into a copy of `doc`. A patch that is not an object is a 400.
pub fn merge_patch(doc: &Value, patch: &Value) -> Result<Value> {
    let Value::Object(patch) = patch else {
        let found = super::json::go_kind(patch);
        return Err(Status::bad_request(match patch {
            Value::Null => "Invalid JSON Patch".to_string(),
            _ => format!(
                "error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
            ),
        }));
    };
    let mut out = doc.clone();
    merge_into(out.ensure_object(), patch);
    Ok(out)
}

fn merge_into(doc: &mut Map, patch: &Map) {
    for (key, new) in patch.iter() {
        match (doc.get_mut(key), new) {
            (_, Value::Null) => {
                doc.remove(key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge_into(old, new),
            // Upstream's library prunes nulls from what it puts in place of anything but an object.
            (Some(old @ Value::Object(_)), new) => *old = new.clone(),
            (_, new) => {
                doc.insert(key.clone(), without_nulls(new));
            }
        }
    }
}

/// A copy without the null fields of objects, at any depth. Null items of arrays stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn cases() {
        // (document, patch, result); the first are those of RFC 7386, appendix A.
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"a":[1]}"#, r#"{"a":[null,{"x":null,"y":1}]}"#, r#"{"a":[null,{"y":1}]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":[{"x":null}]}"#, r#"{"a":[{"x":null}]}"#),
            (r#"{"a":null}"#, r#"{"a":{"b":null,"c":1}}"#, r#"{"a":{"c":1}}"#),
        ];
        for (doc, patch, want) in cases {
            let parse = |text: &str| json::parse(text.as_bytes()).unwrap();
            let got = merge_patch(&parse(doc), &parse(patch)).unwrap();
            assert_eq!(json::to_string(&got), want, "{doc} + {patch}");
        }
    }

    #[test]
    fn a_patch_is_an_object() {
        assert_eq!(merge_patch(&Value::object(), &Value::Null).unwrap_err().message, "Invalid JSON Patch");
        let refused = merge_patch(&Value::object(), &crate::value!([1])).unwrap_err();
        assert_eq!(refused.code, 400);
        assert_eq!(
            refused.message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }
}
