//! Equality of meaning (upstream `equality.Semantic`): what an empty value, a missing one and another way of writing
//! the same quantity have in common.

use canopus_api::{Map, Quantity, Value};

/// Booleans and numbers whose zero value means the same as their absence (they are no pointers upstream).
/// `false` or `0` elsewhere, as in `automountServiceAccountToken` or `runAsUser`, is a choice of its own.
const PLAIN: &[&str] = &[
    "containerPort",
    "discoveryDuration",
    "failureThreshold",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "partition",
    "paused",
    "periodSeconds",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "unschedulable",
];

/// Maps from strings to strings: the same empty as missing, but an empty entry is an entry.
const STRING_MAPS: &[&str] = &[
    "annotations",
    "data",
    "labels",
    "matchLabels",
    "nodeSelector",
    "options",
    "parameters",
    "stringData",
    "volumeAttributes",
];

/// Maps of quantities.
const QUANTITIES: &[&str] = &["allocatable", "capacity", "limits", "overhead", "requests"];

/// Structs that are no pointers upstream: without a field set they are the same as missing.
const STRUCTS: &[&str] = &["metadata", "resources"];

fn absent(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b && PLAIN.contains(&key),
        Value::Int(i) => *i == 0 && PLAIN.contains(&key),
        Value::Str(s) => s.is_empty() && key != "storageClassName",
        Value::Array(a) => a.is_empty(),
        Value::Object(m) if STRUCTS.contains(&key) => m.iter().all(|(k, v)| absent(k, v)),
        Value::Object(m) => m.is_empty() && (STRING_MAPS.contains(&key) || QUANTITIES.contains(&key)),
        Value::Float(_) => false,
    }
}

/// Whether two trees of one type mean the same.
pub fn equal(a: &Value, b: &Value) -> bool {
    same("", a, b)
}

fn same(key: &str, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.is_shared_with(b) || same_objects(key, a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same("", a, b)),
        _ if a == b => true,
        _ if matches!(key, "sizeLimit" | "divisor") => same_quantity(a, b),
        _ => absent(key, a) && absent(key, b),
    }
}

fn same_objects(key: &str, a: &Map, b: &Map) -> bool {
    if QUANTITIES.contains(&key) {
        return a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_quantity(a, b)));
    }
    if STRING_MAPS.contains(&key) {
        return a == b;
    }
    let there = |name: &str, a: &Value, b: &Map| match b.get(name) {
        Some(b) => same(name, a, b),
        None => absent(name, a),
    };
    a.iter().all(|(name, v)| there(name, v, b)) && b.iter().all(|(name, v)| a.contains_key(name) || absent(name, v))
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    a == b || Quantity::from_value(a).is_some_and(|a| Quantity::from_value(b) == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn meaning() {
        let equal_ones = [
            (value!({"a": null, "hostNetwork": false, "env": [], "labels": {}}), value!({})),
            (value!({"limits": {"cpu": "1000m"}}), value!({"limits": {"cpu": 1}})),
            (value!({"resources": {"limits": {}}}), value!({})),
            (value!([{"tty": false}]), value!([{}])),
        ];
        for (a, b) in equal_ones {
            assert!(equal(&a, &b) && equal(&b, &a), "{a:?} {b:?}");
        }
        let different = [
            (value!({"runAsUser": 0}), value!({})),
            (value!({"hostUsers": false}), value!({})),
            (value!({"emptyDir": {}}), value!({})),
            (value!({"limits": {"cpu": "1"}}), value!({"limits": {"cpu": "2"}})),
            (value!({"labels": {"a": ""}}), value!({"labels": {}})),
            (value!([1, 2]), value!([1])),
        ];
        for (a, b) in different {
            assert!(!equal(&a, &b) && !equal(&b, &a), "{a:?} {b:?}");
        }
    }
}
