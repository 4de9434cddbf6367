//! What an autoscaler measures: five sources, each with a target.

use super::v2::{Group, reference};
use crate::checks::{check, required_check};
use crate::core::pod::requirements::container_resource;
use crate::resource::quantity_text;
use canopus_api::{Errors, Field, Quantity, Value, names};

/// A source's type, its field, its rules; in the order in which upstream looks for them.
type Rules = fn(&Field, Group, &mut Errors);
const SOURCES: &[(&str, &str, Rules)] = &[
    ("Object", "object", object),
    ("External", "external", external),
    ("Pods", "pods", pods),
    ("Resource", "resource", resource),
    ("ContainerResource", "containerResource", container_resource_source),
];

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

/// `spec.metrics`.
pub fn validate(list: &Field, to_zero: bool, group: Group, errors: &mut Errors) {
    list.items().for_each(|metric| metric_spec(&metric, group, errors));
    let outside = |metric: &Value| matches!(metric["type"].str(), "Object" | "External");
    if to_zero && !list.value.items().iter().any(outside) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(list, why);
    }
}

fn metric_spec(metric: &Field, group: Group, errors: &mut Errors) {
    let kind = metric.at("type");
    let shown: Value = kind.str().into();
    let known = SOURCES.iter().find(|(name, ..)| *name == kind.str());
    if kind.str().is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    if known.is_none() {
        errors.not_supported(&kind.with(&shown), TYPES);
    }
    let mut present = SOURCES.iter().filter(|(_, field, _)| !metric.value[*field].is_null());
    if let Some((_, field, validate)) = present.next() {
        validate(&metric.at(field), group, errors);
    }
    match known {
        Some((_, field, _)) if metric.value[*field].is_null() => {
            errors.required(&metric.at(field), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => errors.not_supported(&kind.with(&shown), TYPES),
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, field, _)| *field).filter(|f| !metric.value[*f].is_null()).collect();
    if present.len() != 1 {
        for field in present.iter().filter(|f| known.is_none_or(|(_, expected, _)| *f != expected)) {
            errors.forbidden(&metric.at(field), "must populate the given metric source only");
        }
    }
}

fn object(source: &Field, group: Group, errors: &mut Errors) {
    reference(&source.at("describedObject"), group, errors);
    identifier(&source.at("metric"), errors);
    let goal = target(source, errors);
    if goal.value.is_null() && goal.average.is_null() {
        errors.required(&source.at("target").at("averageValue"), "must set either a target value or averageValue");
    }
}

fn external(source: &Field, _: Group, errors: &mut Errors) {
    identifier(&source.at("metric"), errors);
    let goal = target(source, errors);
    match (goal.value.is_null(), goal.average.is_null()) {
        (true, true) => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.required(&source.at("target").at("averageValue"), why);
        }
        (false, false) => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&source.at("target").at("value"), why);
        }
        _ => {}
    }
}

fn pods(source: &Field, _: Group, errors: &mut Errors) {
    identifier(&source.at("metric"), errors);
    if target(source, errors).average.is_null() {
        errors.required(&source.at("target").at("averageValue"), "must specify a positive target averageValue");
    }
}

fn resource(source: &Field, _: Group, errors: &mut Errors) {
    if source.value["name"].str().is_empty() {
        errors.required(&source.at("name"), "must specify a resource name");
    }
    raw_or_utilization(source, errors);
}

fn container_resource_source(source: &Field, _: Group, errors: &mut Errors) {
    let (name, container) = (source.at("name"), source.at("container"));
    if name.str().is_empty() {
        errors.required(&name, "must specify a resource name");
    } else {
        container_resource(&name, name.str(), errors);
    }
    if container.str().is_empty() {
        errors.required(&container, "must specify a container");
    } else {
        check(&container, names::dns1123_label, errors);
    }
    raw_or_utilization(source, errors);
}

fn raw_or_utilization(source: &Field, errors: &mut Errors) {
    let goal = target(source, errors);
    match (goal.utilization.is_null(), goal.average.is_null()) {
        (true, true) => {
            let why = "must set either a target raw value or a target utilization";
            errors.required(&source.at("target").at("averageUtilization"), why);
        }
        (false, false) => {
            let why = "may not set both a target raw value and a target utilization";
            errors.forbidden(&source.at("target").at("averageValue"), why);
        }
        _ => {}
    }
}

struct Target<'a> {
    value: &'a Value,
    average: &'a Value,
    utilization: &'a Value,
}

fn target<'a>(source: &Field<'a>, errors: &mut Errors) -> Target<'a> {
    let target = source.at("target");
    let kind = target.at("type");
    if kind.str().is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
        errors.invalid(&kind.with(&kind.str().into()), "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let field = target.at(field);
        if field.is_set() && Quantity::from_value(field.value).is_none_or(|q| q <= Quantity::default()) {
            errors.invalid(&field, "must be positive");
        }
    }
    let utilization = target.at("averageUtilization");
    if utilization.is_set() && utilization.int() < 1 {
        errors.invalid(&utilization, "must be greater than 0");
    }
    let all = source.value.at("target");
    Target { value: all.at("value"), average: all.at("averageValue"), utilization: all.at("averageUtilization") }
}

fn identifier(metric: &Field, errors: &mut Errors) {
    let name = metric.at("name");
    if name.str().is_empty() {
        errors.required(&name, "must specify a metric name");
    } else {
        required_check(&name, names::path_segment, errors);
    }
}

/// `cpu: 10%/80%, 5/10 (avg) + 1 more...`
pub fn cell(specs: &Value, statuses: &Value) -> String {
    const SHOWN: usize = 2;
    let specs = specs.items();
    if specs.is_empty() {
        return "<none>".into();
    }
    let texts: Vec<String> = specs.iter().enumerate().map(|(i, spec)| one(spec, &statuses[i])).collect();
    match specs.len().saturating_sub(SHOWN) {
        0 => texts.join(", "),
        more => format!("{} + {more} more...", texts[..SHOWN].join(", ")),
    }
}

fn one(spec: &Value, status: &Value) -> String {
    let Some((_, field, _)) = SOURCES.iter().find(|(kind, ..)| *kind == spec["type"].str()) else {
        return "<unknown type>".into();
    };
    let (source, known, target) = (&spec[*field], !status[*field].is_null(), &spec[*field]["target"]);
    let current = &status[*field]["current"];
    let amount = |value: &Value| quantity_text(value);
    let unknown = || "<unknown>".to_string();
    let average = !target["averageValue"].is_null();
    match *field {
        "pods" => {
            let now = if known { amount(&current["averageValue"]) } else { unknown() };
            format!("{now}/{}", amount(&target["averageValue"]))
        }
        "object" | "external" if average => {
            let now = if current["averageValue"].is_null() { unknown() } else { amount(&current["averageValue"]) };
            format!("{now}/{} (avg)", amount(&target["averageValue"]))
        }
        "object" | "external" => {
            let now = if known { amount(&current["value"]) } else { unknown() };
            format!("{now}/{}", amount(&target["value"]))
        }
        _ if average => {
            let now = if known { amount(&current["averageValue"]) } else { unknown() };
            format!("{}: {now}/{}", source["name"].str(), amount(&target["averageValue"]))
        }
        _ => {
            let percent = |value: &Value, none: &str| match value.as_i64() {
                Some(percent) => format!("{percent}%"),
                None => none.to_string(),
            };
            let now = percent(&current["averageUtilization"], "<unknown>");
            format!("{}: {now}/{}", source["name"].str(), percent(&target["averageUtilization"], "<auto>"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn errors(metrics: Value) -> Vec<String> {
        let mut errors = Errors::new();
        let root = value!({"metrics": metrics});
        validate(&Field::root(&root).at("metrics"), false, Group::MayBeEmpty, &mut errors);
        crate::checks::texts(&errors)
    }

    #[test]
    fn sources() {
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!([{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": 1}}}]),
                &[],
            ),
            (
                value!([{"type": "X"}]),
                &[
                    r#"metrics[0].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
                    r#"metrics[0].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
                ],
            ),
            (
                value!([{"type": "Resource", "resource": {"target": {"type": "Value", "averageUtilization": 0, "averageValue": 0}},
                    "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": 1}}}]),
                &["metrics[0].external: Forbidden: must populate the given metric source only"],
            ),
            (
                value!([{"type": "Resource", "resource": {"target": {"averageUtilization": 0, "averageValue": 0}}}]),
                &[
                    "metrics[0].resource.name: Required value: must specify a resource name",
                    "metrics[0].resource.target.type: Required value: must specify a metric target type",
                    r#"metrics[0].resource.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue"#,
                    "metrics[0].resource.target.averageValue: Invalid value: 0: must be positive",
                    "metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                    "metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
                ],
            ),
        ];
        for (metrics, expected) in cases {
            assert_eq!(errors(metrics), expected);
        }
    }

    #[test]
    fn cells() {
        let cpu = value!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
        let pods = value!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}});
        let outside = value!({"type": "External", "external": {"target": {"averageValue": "5"}}});
        let used = value!([{"resource": {"current": {"averageUtilization": 10}}}, {"pods": {"current": {"averageValue": "500m"}}}]);
        let cases = [
            (value!([]), "<none>"),
            (value!([(&cpu)]), "cpu: 10%/80%"),
            (value!([(&cpu), (&pods), (&outside)]), "cpu: 10%/80%, 500m/10 + 1 more..."),
            (value!([(&cpu), outside]), "cpu: 10%/80%, <unknown>/5 (avg)"),
        ];
        for (specs, expected) in cases {
            assert_eq!(cell(&specs, &used), expected);
        }
    }
}
