//! Parsers of bytes from outside, as targets for input that nobody meant (`tests/targets.rs` makes it). A target may
//! refuse its input; it may not panic, nor take memory out of proportion, nor change what it claims to have understood.

use canopus_api::{FieldSelector, LabelSelector, Quantity, Time, Value, cbor, json, patch, protobuf, yaml};
use canopus_apiserver::{authn::jwt, encryption::Source, request_info, storage};

/// One parser and what its input looks like.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Pieces that its input is made of.
    pub words: &'static [&'static str],
}

const JSON: &[&str] =
    &["{", "}", "[", "]", ":", ",", "\"", "\\u", "\\ud83d", "null", "true", "-0", "1e999", "0.1", "\"a\":"];
const YAML: &[&str] = &[
    "a: ",
    "- ",
    "&a ",
    "*a",
    "!!binary ",
    "|\n ",
    ">-\n ",
    "---\n",
    "? ",
    "<<: ",
    "\t",
    "{",
    "[",
    "'",
    "\"",
    "# ",
    "%YAML 1.2\n",
];
const OPS: &[&str] = &[
    "{\"op\":\"",
    "add",
    "remove",
    "replace",
    "move",
    "copy",
    "test",
    "\",\"path\":\"/",
    "\",\"from\":\"/",
    "~0",
    "~1",
    "-",
    "\"},",
];
const DIRECTIVES: &[&str] = &[
    "\"$patch\":\"delete\"",
    "\"$patch\":\"replace\"",
    "\"$retainKeys\":[",
    "\"$setElementOrder/containers\":[",
    "\"$deleteFromPrimitiveList/finalizers\":[",
    "\"spec\":{",
    "\"containers\":[{",
    "\"name\":\"a\"",
];

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: json, words: JSON },
    Target { name: "yaml", run: yaml, words: YAML },
    Target {
        name: "protobuf",
        run: protobuf,
        words: &["k8s\0", "\n\x0f", "\n\x02v1", "\x12\x03Pod", "\x7f", "\u{80}"],
    },
    Target {
        name: "cbor",
        run: cbor,
        // Strings, integers, and (behind a tag) arrays, maps, floats and breaks.
        words: &["@", "Da", "aa", "_A", "\u{7f}a", "{", "\x18", "\x1a", ";", "\u{81}", "\u{a1}", "\u{bf}", "\u{3ff}"],
    },
    Target { name: "stored", run: stored, words: &["k8s\0", "{\"apiVersion\":", "\"metadata\":{", "}\n"] },
    Target {
        name: "sealed",
        run: sealed,
        words: &["\n\x04data", "\x12\x011", "\x1a\x01s", "\"\n\n\x03a.b\x12\x03abc", "(\x01", "\u{80}"],
    },
    Target {
        name: "label_selector",
        run: label_selector,
        words: &["a", "=", "!=", " in (", ")", ",", " notin (", "!", "x.y/z", "<", ">"],
    },
    Target {
        name: "field_selector",
        run: field_selector,
        words: &["metadata.name", "=", "==", "!=", ",", "\\,", "\\=", "\\"],
    },
    Target {
        name: "quantity",
        run: quantity,
        words: &["1", "-", "+", ".", "e", "E", "Ki", "m", "n", "u", "k", "Ei", "9223372036854775807"],
    },
    Target { name: "time", run: time, words: &["2024-01-01", "T", "00:00:00", "Z", "+14:00", ".999999999", "-"] },
    Target { name: "json_patch", run: json_patch, words: OPS },
    Target { name: "merge_patch", run: merge_patch, words: JSON },
    Target { name: "strategic_patch", run: strategic_patch, words: DIRECTIVES },
    Target {
        name: "path",
        run: path,
        words: &[
            "/",
            "api",
            "apis",
            "/v1/",
            "namespaces/",
            "watch/",
            "..",
            "%2e",
            "?watch=1",
            "/status",
            "//",
            "&limit=",
        ],
    },
    Target {
        name: "jwt",
        run: token,
        words: &["eyJhbGciOiJFUzI1NiJ9", ".", "e30", "=", "-", "_", "eyJhbGciOiJub25lIn0"],
    },
];

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn json(input: &[u8]) {
    let Ok(value) = json::parse(input) else { return };
    // Text, since 1e3 is a float and what is written of it, 1000, isn't; the second one, since -0.0 is written as -0, which
    // is the integer 0, as upstream has it.
    let rewritten = |text: &[u8]| json::parse(text).map(|value| json::to_vec(&value)).ok();
    let first = rewritten(&json::to_vec(&value)).expect("what is written can be read");
    assert_eq!(rewritten(&first), Some(first), "what is written is what was read");
    // Whoever reads strictly reads the same.
    let _ = json::parse_strict(input);
}

fn yaml(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let Ok(document) = yaml::parse(input) else { return };
    let _ = json::to_vec(&document.value);
}

fn protobuf(input: &[u8]) {
    if let Ok(value) = protobuf::decode(input) {
        assert!(json::parse(&json::to_vec(&value)).is_ok());
    }
}

fn cbor(input: &[u8]) {
    let Ok(value) = cbor::decode(input) else { return };
    let written = cbor::encode(&value);
    let again = cbor::decode(&written).expect("what is written can be read");
    assert_eq!(cbor::encode(&again), written, "there is one way to write it");
    assert!(json::parse(&json::to_vec(&value)).is_ok());
}

fn stored(input: &[u8]) {
    if let Ok((value, body)) = storage::decode(&input.to_vec().into()) {
        assert!(json::parse(&body).is_ok(), "{value:?}");
    }
}

/// What a key management service protects.
fn sealed(input: &[u8]) {
    let Ok((source, data)) = Source::unseal(input) else { return };
    let again = source.seal(data);
    assert_eq!(Source::unseal(&again), Ok((source, data)));
}

fn label_selector(input: &[u8]) {
    if let Some(Ok(selector)) = text(input).map(LabelSelector::parse) {
        let _ = selector.requirements();
    }
}

fn field_selector(input: &[u8]) {
    let _ = text(input).map(FieldSelector::parse);
}

fn quantity(input: &[u8]) {
    if let Some(Ok(quantity)) = text(input).map(Quantity::parse) {
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).map(|again| again.to_string());
        assert_eq!(again.ok(), Some(shown), "the canonical form is canonical");
    }
}

fn time(input: &[u8]) {
    if let Some(Some(time)) = text(input).map(Time::parse) {
        let _ = (time.rfc3339(), time.rfc3339_micro());
    }
}

fn pod() -> Value {
    canopus_api::value!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y", "x/z"]},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "j"}]},
    })
}

fn json_patch(input: &[u8]) {
    if let Ok(ops) = json::parse(input) {
        let _ = patch::json_patch(&pod(), &ops);
    }
}

fn merge_patch(input: &[u8]) {
    if let Ok(value) = json::parse(input) {
        let _ = patch::merge_patch(&pod(), &value);
    }
}

fn strategic_patch(input: &[u8]) {
    let (Ok(value), Some(schema)) = (json::parse(input), canopus_schema::kind("", "v1", "Pod")) else { return };
    let _ = patch::strategic_merge(&pod(), &value, schema.get());
}

fn path(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let (path, query) = input.split_once('?').unwrap_or((input, ""));
    for method in ["GET", "POST", "DELETE", "X"] {
        let _ = request_info::parse(method, path, query);
    }
}

fn token(input: &[u8]) {
    let _ = text(input).map(jwt::unverified_claims);
}
