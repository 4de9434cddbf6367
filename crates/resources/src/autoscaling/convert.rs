//! Between `v2` and `v1`, which keeps what it has no fields for in annotations.

use super::v2::default_metric;
use canopus_api::{Quantity, Value, json, value};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The annotations that stand for parts of the spec, of the status.
pub const OF_SPEC: &[&str] = &[METRICS, BEHAVIOR];
pub const OF_STATUS: &[&str] = &[CURRENT, CONDITIONS];

/// A field of a metric in `v2`, and in `v1`.
type Pair = (&'static [&'static str], &'static str);

const NAME: Pair = (&["name"], "name");
const METRIC: Pair = (&["metric", "name"], "metricName");
const SELECTOR: Pair = (&["metric", "selector"], "selector");
const DESCRIBED: Pair = (&["describedObject"], "target");

/// What a metric's fields are called in its specification and in its status, by the kind of metric.
const FIELDS: &[(&str, &[Pair], &[Pair])] = &[
    (
        "resource",
        &[
            NAME,
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
        &[
            NAME,
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            NAME,
            (&["container"], "container"),
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
        &[
            NAME,
            (&["container"], "container"),
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "pods",
        &[METRIC, SELECTOR, (&["target", "averageValue"], "targetAverageValue")],
        &[METRIC, SELECTOR, (&["current", "averageValue"], "currentAverageValue")],
    ),
    (
        "object",
        &[
            DESCRIBED,
            METRIC,
            SELECTOR,
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "averageValue"),
        ],
        &[
            DESCRIBED,
            METRIC,
            SELECTOR,
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "averageValue"),
        ],
    ),
    (
        "external",
        &[
            METRIC,
            (&["metric", "selector"], "metricSelector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
        &[
            METRIC,
            (&["metric", "selector"], "metricSelector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
];

/// Removes the annotations, which mean nothing in `v2`.
pub fn drop_annotations(object: &mut Value) {
    keep_annotations(object, &Value::Null, OF_SPEC);
    keep_annotations(object, &Value::Null, OF_STATUS);
}

/// Puts back annotations as they were.
pub fn keep_annotations(new: &mut Value, old: &Value, keys: &[&str]) {
    for key in keys {
        match old["metadata"]["annotations"].get(key) {
            Some(value) => new.set_path(&["metadata", "annotations", key], value),
            None => drop(new.remove_path(&["metadata", "annotations", key])),
        }
    }
    if new["metadata"]["annotations"].as_object().is_some_and(|a| a.is_empty()) {
        new.remove_path(&["metadata", "annotations"]);
    }
}

/// Turns an object of `v2` into one of `v1`.
pub fn to_v1(object: &mut Value) {
    object.set("apiVersion", "autoscaling/v1");
    let spec = object.ensure_object().entry("spec", Value::object);
    let metrics = spec.remove("metrics").unwrap_or_default();
    let behavior = spec.remove("behavior").unwrap_or_default();
    let of_cpu = |metric: &&Value| is_cpu(metric) && !utilization(metric).is_null();
    if let Some(cpu) = metrics.items().iter().find(of_cpu) {
        spec.set("targetCPUUtilizationPercentage", utilization(cpu));
    }
    let others: Vec<Value> =
        metrics.items().iter().filter(|m| !of_cpu(m)).map(|m| older(m, |(_, spec, _)| spec)).collect();
    let status = object.get_mut("status").filter(|s| !s.is_null());
    let (mut current, mut conditions) = (Vec::new(), Value::Null);
    if let Some(status) = status {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        conditions = status.remove("conditions").unwrap_or_default();
        for metric in metrics.items().iter().filter(|m| is_cpu(m)) {
            if let Some(used) = metric["resource"]["current"].get("averageUtilization") {
                status.set("currentCPUUtilizationPercentage", used);
            }
        }
        current = metrics.items().iter().map(|m| older(m, |(_, _, status)| status)).collect();
    }
    drop_annotations(object);
    let kept = [
        (METRICS, Value::Array(others)),
        (CURRENT, Value::Array(current)),
        (BEHAVIOR, cased(&behavior, str::to_uppercase)),
        (CONDITIONS, conditions),
    ];
    for (key, value) in kept.into_iter().filter(|(_, value)| !value.is_empty()) {
        object.set_path(&["metadata", "annotations", key], json::to_string(&value));
    }
}

/// Turns an object of `v1` into one of `v2`. Annotations that cannot be read are dropped, as upstream.
pub fn to_v2(object: &mut Value) {
    object.set("apiVersion", "autoscaling/v2");
    let kept = |key: &str| {
        let text = object["metadata"]["annotations"][key].str();
        json::parse(text.as_bytes()).ok().filter(|_| !text.is_empty())
    };
    let (others, current, behavior, conditions) = (kept(METRICS), kept(CURRENT), kept(BEHAVIOR), kept(CONDITIONS));
    drop_annotations(object);
    let spec = object.ensure_object().entry("spec", Value::object);
    let mut metrics: Vec<Value> = others.iter().flat_map(Value::items).map(|m| newer(m, |(_, spec, _)| spec)).collect();
    metrics.iter_mut().for_each(add_target_type);
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
        let target = value!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(value!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if metrics.is_empty() {
        metrics.push(default_metric());
    }
    spec.set("metrics", Value::Array(metrics));
    if let Some(behavior) = behavior.filter(|b| !b.is_empty()) {
        spec.set("behavior", cased(&behavior, str::to_lowercase));
    }
    let status = object.get_mut("status").filter(|s| !s.is_null());
    let used = status.and_then(|s| s.remove("currentCPUUtilizationPercentage")).filter(|p| !p.is_null());
    let metrics: Option<Value> = match (&current, used) {
        (Some(current), _) => Some(current.items().iter().map(|m| newer(m, |(_, _, status)| status)).collect()),
        (None, Some(used)) => {
            Some(value!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}}]))
        }
        (None, None) => None,
    };
    for (field, value) in [("currentMetrics", metrics), ("conditions", conditions)] {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            object.set_path(&["status", field], value);
        }
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"].str() == "Resource" && metric["resource"]["name"].str() == "cpu"
}

fn utilization(metric: &Value) -> &Value {
    &metric["resource"]["target"]["averageUtilization"]
}

type Which = fn(&(&'static str, &'static [Pair], &'static [Pair])) -> &'static [Pair];

/// A metric of `v2` in `v1`.
fn older(metric: &Value, which: Which) -> Value {
    let mut out = value!({"type": (&metric["type"])});
    for entry in FIELDS.iter().filter(|(kind, ..)| !metric[*kind].is_null()) {
        let mut source = Value::object();
        for (new, old) in which(entry) {
            let value = metric[entry.0].path(new);
            if !value.is_null() {
                source.set(old, value);
            }
        }
        out.set(entry.0, source);
    }
    out
}

/// A metric of `v1` in `v2`.
fn newer(metric: &Value, which: Which) -> Value {
    let mut out = value!({"type": (&metric["type"])});
    for entry in FIELDS.iter().filter(|(kind, ..)| !metric[*kind].is_null()) {
        let mut source = Value::object();
        for (new, old) in which(entry) {
            if let Some(value) = metric[entry.0].get(old).filter(|v| !v.is_null()) {
                source.set_path(new, value);
            }
        }
        out.set(entry.0, source);
    }
    out
}

fn add_target_type(metric: &mut Value) {
    for (kind, ..) in FIELDS {
        let Some(source) = metric.get_mut(kind) else { continue };
        let target = source.ensure_object().entry("target", Value::object);
        let has = |field: &str| !target[field].is_null();
        let what = match *kind {
            "resource" | "containerResource" if has("averageUtilization") => "Utilization",
            "object" if !has("averageValue") => "Value",
            "external" if has("value") => "Value",
            _ => "AverageValue",
        };
        // v1 always writes the value of an object, if only as zero.
        if *kind == "object"
            && has("averageValue")
            && Quantity::from_value(&target["value"]).is_some_and(|q| q.is_zero())
        {
            target.remove("value");
        }
        target.set("type", what);
    }
}

/// Keys with another first letter: upstream keeps the behavior in the form of its internal type.
fn cased(value: &Value, case: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Value::object();
            for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let first = key.chars().next().map_or(0, char::len_utf8);
                out.set(&format!("{}{}", case(&key[..first]), &key[first..]), cased(value, case));
            }
            out
        }
        Value::Array(items) => items.iter().map(|item| cased(item, case)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_keep_everything() {
        let object = value!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h", "annotations": {"a": "b"}}, "spec": {
            "maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
            "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 5}}},
                {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                {"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": {"kind": "K", "name": "n"}, "target": {"type": "Value", "value": "2"}}},
                {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10, "averageValue": "100m"}}}]}});
        let mut v1 = object.clone();
        to_v1(&mut v1);
        assert_eq!(v1["spec"], value!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(v1["status"], value!({"currentReplicas": 1, "currentCPUUtilizationPercentage": 10}));
        let annotations = &v1["metadata"]["annotations"];
        assert_eq!(
            annotations[BEHAVIOR].str(),
            r#"{"ScaleUp":{"Policies":[{"PeriodSeconds":15,"Type":"Pods","Value":4}],"SelectPolicy":"Max"}}"#
        );
        assert!(annotations[METRICS].str().contains(
            r#"{"pods":{"metricName":"m","selector":{"matchLabels":{"a":"b"}},"targetAverageValue":"1"},"type":"Pods"}"#
        ));
        to_v2(&mut v1);
        assert_eq!(v1, object);
    }

    #[test]
    fn what_cannot_be_read_is_dropped() {
        let mut object = value!({"metadata": {"annotations": {(METRICS): "{", (BEHAVIOR): "x", "a": "b"}}, "spec": {}});
        to_v2(&mut object);
        assert_eq!(object["metadata"], value!({"annotations": {"a": "b"}}));
        assert_eq!(object["spec"], value!({"metrics": [(default_metric())]}));
    }
}
