//! HorizontalPodAutoscaler: as many replicas of something scalable as its metrics ask for.

use super::convert::drop_annotations;
use super::metrics;
use crate::checks::{self, nonnegative};
use crate::core::pod::defaults::{fill, with};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names, value};

pub struct HorizontalPodAutoscaler;

/// What both versions have in common.
pub const COMMON: Info = Info {
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[Subresource::status("autoscaling", "v2", "HorizontalPodAutoscaler")],
    ..Info::stored("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
};

static INFO: Info = COMMON;

const MAX_PERIOD: i64 = 1800;
const MAX_WINDOW: i64 = 3600;

impl Resource for HorizontalPodAutoscaler {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        drop_annotations(object);
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("minReplicas", 1);
        if spec["metrics"].is_empty() {
            spec.set("metrics", value!([(default_metric())]));
        }
        with(spec, "behavior", |behavior| {
            let most = value!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let up = behavior.ensure_object().entry("scaleUp", Value::object);
            up.set_default("stabilizationWindowSeconds", 0);
            rules(up, value!([{"type": "Pods", "value": 4, "periodSeconds": 15}, (&most)]));
            rules(behavior.ensure_object().entry("scaleDown", Value::object), value!([most]));
        });
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        match cx.subresource {
            "status" => strategy::only_status(new, old, &[]),
            _ => strategy::keep(new, old, "status"),
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate_spec(&object.at("spec"), None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            let status = new.at("status");
            return ["currentReplicas", "desiredReplicas"].iter().for_each(|c| nonnegative(&status.at(c), errors));
        }
        validate_spec(&new.at("spec"), Some(&old["spec"]), errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Reference",
                    "string",
                    "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
                ),
                Column::new(
                    "Targets",
                    "string",
                    "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
                ),
                Column::new(
                    "MinPods",
                    "string",
                    "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
                ),
                Column::new(
                    "MaxPods",
                    "string",
                    "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
                ),
                Column::new(
                    "Replicas",
                    "string",
                    "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
                ),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let least = spec["minReplicas"].as_i64().map_or("<unset>".to_string(), |n| n.to_string());
        vec![
            name(object),
            format!("{}/{}", target["kind"].str(), target["name"].str()).into(),
            metrics::cell(&spec["metrics"], &status["currentMetrics"]).into(),
            least.into(),
            spec["maxReplicas"].int().into(),
            status["currentReplicas"].int().into(),
            age(object, now),
        ]
    }
}

/// Processors used to four fifths.
pub fn default_metric() -> Value {
    value!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}})
}

fn rules(rules: &mut Value, policies: Value) {
    fill(rules, "selectPolicy", "Max");
    rules.set_default("policies", policies);
}

/// `old` is the spec before, of an update.
pub fn validate_spec(spec: &Field, old: Option<&Value>, errors: &mut Errors) {
    let (least, most) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    // HPAScaleToZero is off; who has zero may keep it.
    let had_zero = old.is_some_and(|old| old["minReplicas"].as_i64() == Some(0));
    let bound = i64::from(!had_zero);
    if least.is_set() && least.int() < bound {
        errors.invalid(&least, format!("must be greater than or equal to {bound}"));
    }
    match most.int() {
        0 => errors.required(&most, "must be set and greater than 0"),
        negative if negative < 0 => errors.invalid(&most, "must be greater than or equal to 1"),
        _ => {}
    }
    if least.is_set() && most.int() < least.int() {
        errors.invalid(&most.with(&most.int().into()), "must be greater than or equal to `minReplicas`");
    }
    let target = spec.at("scaleTargetRef");
    let same = |old: &Value| ["apiVersion", "kind"].iter().all(|f| old["scaleTargetRef"][*f] == target.value[*f]);
    let group = match () {
        _ if old.is_some_and(same) => Group::Any,
        _ if target.value["kind"].str() == "ReplicationController" => Group::MayBeEmpty,
        _ => Group::Required,
    };
    reference(&target, group, errors);
    let bad = |metric: &Value| {
        metric["type"].str() == "Object"
            && api_version_problem(metric["object"]["describedObject"]["apiVersion"].str(), Group::MayBeEmpty).is_some()
    };
    let had_bad = old.is_some_and(|old| old["metrics"].items().iter().any(bad));
    let group = if had_bad { Group::Any } else { Group::MayBeEmpty };
    metrics::validate(&spec.at("metrics"), least.value.as_i64() == Some(0), group, errors);
    let behavior = spec.at("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(&behavior.at(direction), errors);
    }
}

/// Whether the group of a reference's apiVersion matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Required,
    MayBeEmpty,
    Any,
}

/// A `CrossVersionObjectReference`.
pub fn reference(target: &Field, group: Group, errors: &mut Errors) {
    for field in ["kind", "name"] {
        checks::required_check(&target.at(field), names::path_segment, errors);
    }
    let version = target.at("apiVersion");
    if let Some(why) = api_version_problem(version.str(), group) {
        errors.invalid(&version.with(&version.str().into()), why);
    }
}

fn api_version_problem(text: &str, group: Group) -> Option<String> {
    match (group, text.matches('/').count()) {
        (Group::Any, _) => None,
        (_, 2..) => Some(format!("unexpected GroupVersion string: {text}")),
        (Group::Required, 0) => Some("apiVersion must specify API group".into()),
        (Group::Required, _) if text.starts_with('/') => Some("apiVersion must specify API group".into()),
        _ => None,
    }
}

fn scaling_rules(rules: &Field, errors: &mut Errors) {
    if rules.is_unset() {
        return;
    }
    let (window, policies, tolerance) =
        (rules.at("stabilizationWindowSeconds"), rules.at("policies"), rules.at("tolerance"));
    if window.int() < 0 {
        errors.invalid(&window, "must be greater than or equal to zero");
    }
    if window.int() > MAX_WINDOW {
        errors.invalid(&window, format!("must be less than or equal to {MAX_WINDOW}"));
    }
    checks::optional_one_of(&rules.at("selectPolicy"), &["Disabled", "Max", "Min"], errors);
    if policies.value.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        checks::one_of(&policy.at("type"), &["Percent", "Pods"], errors);
        for field in ["value", "periodSeconds"] {
            let field = policy.at(field);
            if field.int() <= 0 {
                errors.invalid(&field.with(&field.int().into()), "must be greater than zero");
            }
        }
        let period = policy.at("periodSeconds");
        if period.int() > MAX_PERIOD {
            errors.invalid(&period, format!("must be less than or equal to {MAX_PERIOD}"));
        }
    }
    if tolerance.is_set() {
        checks::quantity(&tolerance, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};

    /// A good autoscaler with these fields of its spec changed.
    fn with_spec(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn defaults() {
        let mut object = with_spec(value!({"behavior": {"scaleDown": {"selectPolicy": "Min"}}}));
        HorizontalPodAutoscaler.default(&mut object);
        let spec = &object["spec"];
        assert_eq!((spec["minReplicas"].int(), &spec["metrics"][0]), (1, &default_metric()));
        assert_eq!(
            spec["behavior"],
            value!({"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}})
        );
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({}), &[]),
            (
                value!({"minReplicas": 0, "maxReplicas": 0}),
                &[
                    "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                    "spec.maxReplicas: Required value: must be set and greater than 0",
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                value!({"minReplicas": 5, "scaleTargetRef": {"kind": "Deployment"}}),
                &[
                    "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
                    "spec.scaleTargetRef.name: Required value",
                    r#"spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group"#,
                ],
            ),
            (value!({"scaleTargetRef": {"kind": "ReplicationController", "name": "r"}}), &[]),
            (
                value!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000, "policies": [{"type": "X", "value": 1, "periodSeconds": 2000}]}}}),
                &[
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
                    r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "X": supported values: "Percent", "Pods""#,
                    "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 2000: must be less than or equal to 1800",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&HorizontalPodAutoscaler, with_spec(spec)), expected);
        }
        let old = || with_spec(value!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}}));
        assert_eq!(update(&HorizontalPodAutoscaler, "", old(), old()), [""; 0]);
    }

    #[test]
    fn rows() {
        let mut object = with_spec(value!({"metrics": [(default_metric())]}));
        object.set("status", value!({"currentReplicas": 2}));
        assert_eq!(
            cells(&HorizontalPodAutoscaler, &object),
            ["h", "Deployment/d", "cpu: <unknown>/80%", "<unset>", "3", "2", "<unknown>"]
        );
    }
}
