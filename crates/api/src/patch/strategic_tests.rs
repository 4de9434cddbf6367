use super::*;
use crate::json;
use crate::schema::testing::{deployment, merge_item};
use crate::value;
use crate::yaml::parse;

/// (original, patch, result) in YAML's flow style.
const CASES: &[(&str, &str, &str)] = &[
    ("{name: a}", "{value: b}", "{name: a, value: b}"),
    ("{name: a, value: b}", "{value: null, other: null}", "{name: a}"),
    ("{name: a, value: b}", "{$patch: replace}", "{}"),
    ("{name: a, value: b}", "{other: c, $patch: replace}", "{other: c}"),
    ("{simpleMap: {a: 1, b: 1}}", "{simpleMap: {$patch: delete}}", "{simpleMap: {}}"),
    ("{simpleMap: {a: 1}}", "{simpleMap: {b: 2, a: null}}", "{simpleMap: {b: 2}}"),
    ("{}", "{simpleMap: {a: null, b: 1}}", "{simpleMap: {b: 1}}"),
    ("{}", "{mergingList: [{name: 1, simpleMap: {x: null}}]}", "{mergingList: [{name: 1, simpleMap: {}}]}"),
    // Lists by key: merged, appended, deleted, replaced.
    (
        "{mergingList: [{name: 1, value: a}, {name: 2}]}",
        "{mergingList: [{name: 1, other: x}, {name: 3}]}",
        "{mergingList: [{name: 1, value: a, other: x}, {name: 3}, {name: 2}]}",
    ),
    (
        "{mergingList: [{name: 1}, {name: 1}, {name: 2, value: a}, {name: 3}]}",
        "{mergingList: [{name: 1, $patch: delete}, {name: 3, $patch: delete}]}",
        "{mergingList: [{name: 2, value: a}]}",
    ),
    ("{mergingList: [{name: 1}]}", "{mergingList: [{$patch: replace}]}", "{mergingList: []}"),
    ("{mergingList: [{name: 1}]}", "{mergingList: [{name: 2}, {$patch: replace}]}", "{mergingList: [{name: 2}]}"),
    ("{}", "{mergingList: [{name: 1, $patch: delete}, {name: 2}]}", "{mergingList: [{name: 2}]}"),
    ("{mergingList: []}", "{mergingList: []}", "{mergingList: []}"),
    (
        "{mergingList: [{name: 1}, {name: 2, value: b}, {name: 3}]}",
        "{mergingList: [{name: 3, value: c}, {name: 1, value: a}]}",
        "{mergingList: [{name: 2, value: b}, {name: 3, value: c}, {name: 1, value: a}]}",
    ),
    (
        "{mergingList: [{name: 1, mergingIntList: [1, 2]}]}",
        "{mergingList: [{name: 1, mergingIntList: [3]}]}",
        "{mergingList: [{name: 1, mergingIntList: [3, 1, 2]}]}",
    ),
    // Lists without a strategy are replaced.
    ("{nonMergingList: [{name: 1}]}", "{nonMergingList: [{name: 2}]}", "{nonMergingList: [{name: 2}]}"),
    ("{nonMergingIntList: [1]}", "{nonMergingIntList: [2]}", "{nonMergingIntList: [2]}"),
    // Lists of scalars.
    ("{mergingIntList: [1, 2]}", "{mergingIntList: [2, 3]}", "{mergingIntList: [1, 2, 3]}"),
    ("{mergingIntList: [1, 2, 3]}", "{$deleteFromPrimitiveList/mergingIntList: [1, 4]}", "{mergingIntList: [2, 3]}"),
    (
        "{mergingIntList: [1, 2, 3]}",
        "{$deleteFromPrimitiveList/mergingIntList: [3], mergingIntList: [4]}",
        "{mergingIntList: [4, 1, 2]}",
    ),
    ("{}", "{$deleteFromPrimitiveList/mergingIntList: [1]}", "{}"),
    // Orders.
    ("{mergingIntList: [1, 2, 3]}", "{$setElementOrder/mergingIntList: [3, 1, 2]}", "{mergingIntList: [3, 1, 2]}"),
    (
        "{mergingList: [{name: 1}, {name: 2}, {name: 3}]}",
        "{$setElementOrder/mergingList: [{name: 3}, {name: 4}, {name: 1}], mergingList: [{name: 4}]}",
        "{mergingList: [{name: 2}, {name: 3}, {name: 4}, {name: 1}]}",
    ),
    (
        "{mergingList: [{name: 1}, {name: 2, other: b}, {name: 4, other: c}]}",
        "{$setElementOrder/mergingList: [{name: 2}, {name: 3}], mergingList: [{name: 3}, {$patch: delete, name: 1}]}",
        "{mergingList: [{name: 2, other: b}, {name: 4, other: c}, {name: 3}]}",
    ),
    ("{}", "{$setElementOrder/mergingList: [{name: 2}, {name: 1}], mergingList: [{name: 1}, {name: 2}]}", "error"),
    // Retained keys.
    (
        "{retainKeysMap: {name: a, value: b, other: c}}",
        "{retainKeysMap: {$retainKeys: [name, value], value: d}}",
        "{retainKeysMap: {name: a, value: d}}",
    ),
    (
        "{retainKeysMergingList: [{name: x}, {name: y, value: a}]}",
        "{retainKeysMergingList: [{$retainKeys: [name, other], name: y, other: z}]}",
        "{retainKeysMergingList: [{name: x}, {name: y, other: z}]}",
    ),
    // A field that is replaced as a whole, and one of another type.
    ("{replacingItem: {a: 1, b: 2}}", "{replacingItem: {c: 3}}", "{replacingItem: {c: 3}}"),
    ("{simpleMap: {a: 1}}", "{simpleMap: [1]}", "{simpleMap: [1]}"),
];

#[test]
fn merges() {
    for (original, patch, want) in CASES {
        let [original, patch] = [original, patch].map(|text| parse(text).unwrap().value);
        let got = strategic_merge(&original, &patch, merge_item()).map_or("error".into(), |v| json::to_string(&v));
        let want = if *want == "error" { want.to_string() } else { json::to_string(&parse(want).unwrap().value) };
        assert_eq!(got, want, "{} + {}", json::to_string(&original), json::to_string(&patch));
    }
}

#[test]
fn errors_are_upstreams() {
    let cases = [
        ("{}", "[]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("{}", "{$patch: merge, name: x}", 500, "unknown patch type: merge in map: map[$patch:merge name:x]"),
        (
            "{mergingList: [{name: 1}]}",
            "{mergingList: [{value: b}]}",
            500,
            "map: map[value:b] does not contain declared merge key: name",
        ),
        ("{mergingIntList: [1]}", "{mergingIntList: [a]}", 500, "list element types are not identical: [[1] [a]]"),
        (
            "{mergingIntList: [[1]]}",
            "{mergingIntList: [[2]]}",
            422,
            "the server rejected our request due to an error in our request",
        ),
        ("{}", "{$deleteFromPrimitiveListx: [1]}", 400, "invalid patch format of primitive list"),
        ("{}", "{$setElementOrderx: [1]}", 400, "invalid patch format of setElementOrder list"),
        (
            "{retainKeysMap: {name: a}}",
            "{retainKeysMap: {$retainKeys: [name], value: x}}",
            400,
            "invalid patch format of retainKeys",
        ),
        (
            "{simpleMap: {a: {}}}",
            "{simpleMap: {a: {b: 1}}}",
            500,
            "merging an object in json but data type is not struct, instead is: map",
        ),
        (
            "{unknown: {a: 1}}",
            "{unknown: {a: 2}}",
            500,
            r#"unable to find api field in struct MergeItem for the json field "unknown""#,
        ),
        (
            "{mergingIntList: [1, 2]}",
            "{$setElementOrder/mergingIntList: [1, 2], mergingIntList: [2, 1]}",
            500,
            "The order in patch list:\n[2 1]\n doesn't match $setElementOrder list:\n[1 2]\n",
        ),
    ];
    for (original, patch, code, message) in cases {
        let [original, patch] = [original, patch].map(|text| parse(text).unwrap().value);
        let refused = strategic_merge(&original, &patch, merge_item()).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (code, message), "{}", json::to_string(&patch));
    }
}

#[test]
fn a_kubectl_patch_of_a_deployment() {
    let original = value!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {"containers": [
            {"name": "a", "image": "1", "args": ["x"], "env": [{"name": "E", "value": "1"}]}, {"name": "b"}]}}}});
    let patch = value!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "template": {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "a", "image": "2", "args": ["y"], "env": [{"name": "E", "$patch": "delete"}]}]}}}});
    assert_eq!(
        strategic_merge(&original, &patch, deployment()).unwrap(),
        value!({"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [
            {"name": "a", "image": "2", "args": ["y"], "env": []}, {"name": "b"}]}}}})
    );
}
