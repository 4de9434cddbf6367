//! Deployment: a ReplicaSet that is replaced, step by step, when its template changes.

use super::workload::{self, container_cells, counts, selector_cell};
use crate::checks::{self, nonnegative};
use crate::core::pod::defaults;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::{semantic, strategy};
use canopus_api::{Errors, Field, Time, Value};

pub struct Deployment;

static INFO: Info = Info {
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "Deployment")],
    generation: true,
    ..Info::stored("apps", "v1", "Deployment", "deployments")
};

impl Resource for Deployment {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("replicas", 1);
        let how = spec.ensure_object().entry("strategy", Value::object);
        if how["type"].str().is_empty() {
            how.set("type", "RollingUpdate");
        }
        if how["type"].str() == "RollingUpdate" {
            how.set_default("rollingUpdate", Value::object());
            let rolling = how.ensure_object().entry("rollingUpdate", Value::object);
            rolling.set_default("maxUnavailable", "25%");
            rolling.set_default("maxSurge", "25%");
        }
        spec.set_default("revisionHistoryLimit", 10);
        spec.set_default("progressDeadlineSeconds", 600);
        defaults::template(spec.ensure_object().entry("template", Value::object));
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.remove("status");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, &["labels"]);
        }
        strategy::keep(new, old, "status");
    }

    /// Annotations are copied to ReplicaSets, so they count as well.
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        !semantic::equal(&new["spec"], &old["spec"])
            || new["metadata"]["annotations"].entries().ne(old["metadata"]["annotations"].entries())
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        nonnegative(&spec.at("replicas"), errors);
        workload::selector_and_template(&spec, errors);
        update_strategy(&spec.at("strategy"), errors);
        counts(&spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
        let deadline = spec.at("progressDeadlineSeconds");
        if deadline.is_set() {
            nonnegative(&deadline, errors);
            if deadline.int() <= spec.value["minReadySeconds"].int() {
                errors.invalid(&deadline, "must be greater than minReadySeconds");
            }
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return validate_status(&new.at("status"), &old["status"], errors);
        }
        self.validate(new, errors);
        checks::immutable(&new.at("spec").at("selector"), &old["spec"]["selector"], errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Ready", "string", "Number of the pod with ready state"),
                Column::new(
                    "Up-to-date",
                    "string",
                    "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
                ),
                Column::new(
                    "Available",
                    "string",
                    "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
                ),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images] = container_cells(&spec["template"]["spec"]);
        vec![
            name(object),
            format!("{}/{}", status["readyReplicas"].int(), spec["replicas"].int()).into(),
            status["updatedReplicas"].int().into(),
            status["availableReplicas"].int().into(),
            age(object, now),
            containers,
            images,
            selector_cell(&spec["selector"], "", "<invalid>"),
        ]
    }
}

fn update_strategy(how: &Field, errors: &mut Errors) {
    let rolling = how.at("rollingUpdate");
    match how.value["type"].str() {
        "Recreate" if rolling.is_set() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_unset() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.not_supported(how, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Field, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
    checks::count_or_percent(&unavailable, errors);
    checks::count_or_percent(&surge, errors);
    if checks::count_or_percent_value(unavailable.value) == 0 && checks::count_or_percent_value(surge.value) == 0 {
        errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    checks::at_most_all(&unavailable, errors);
}

fn validate_status(status: &Field, old: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    counts(status, COUNTS, errors);
    workload::at_most_replicas(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
    workload::not_decremented(&status.at("collisionCount"), &old["collisionCount"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    /// A good Deployment with these fields of its spec changed.
    fn with(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "d", "creationTimestamp": "2025-12-31T00:00:00Z"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:2"}]}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn defaults() {
        let mut object = with(value!({}));
        Deployment.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(
            spec["strategy"],
            value!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let numbers = ["replicas", "revisionHistoryLimit", "progressDeadlineSeconds"].map(|f| spec[f].int());
        assert_eq!(numbers, [1, 10, 600]);
        assert_eq!(spec["template"]["spec"]["restartPolicy"].str(), "Always");
        assert!(spec["template"]["spec"]["enableServiceLinks"].is_null());
    }

    #[test]
    fn creation() {
        let template = |spec: Value| value!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}});
        let one = value!([{"name": "c", "image": "i"}]);
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({}), &[]),
            (
                value!({"selector": null}),
                &[
                    "spec.selector: Required value",
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ],
            ),
            (value!({"selector": {}}), &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
            (
                value!({"selector": {"matchLabels": {"x": "y"}}}),
                &[
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ],
            ),
            (
                template(value!({"containers": [{"name": "c"}]})),
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            (
                template(value!({"containers": &one, "restartPolicy": "Never", "activeDeadlineSeconds": 3})),
                &[
                    r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                value!({"replicas": -1, "minReadySeconds": 700}),
                &[
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
                ],
            ),
            (
                value!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                value!({"strategy": {"type": "X"}}),
                &[r#"spec.strategy: Unsupported value: {"type":"X"}: supported values: "Recreate", "RollingUpdate""#],
            ),
            (
                value!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                value!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%", "maxSurge": "x"}}}),
                &[
                    r#"spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#,
                    r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#,
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&Deployment, with(spec)), expected);
        }
    }

    #[test]
    fn updates() {
        let other = value!({"selector": {"matchLabels": {"a": "b", "c": "d"}},
            "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}});
        assert_eq!(
            update(&Deployment, "", with(value!({})), with(other)),
            [r#"spec.selector: Invalid value: {"matchLabels":{"a":"b","c":"d"}}: field is immutable"#]
        );
        let status = |status: Value| {
            let mut object = with(value!({}));
            object.set("status", status);
            object
        };
        assert_eq!(
            update(
                &Deployment,
                "status",
                status(value!({"collisionCount": 2})),
                status(value!({"replicas": 1, "readyReplicas": 2, "collisionCount": 1}))
            ),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented"
            ]
        );
    }

    #[test]
    fn generations() {
        let mut annotated = with(value!({}));
        annotated.set_path(&["metadata", "annotations", "x"], "y");
        assert!(Deployment.raises_generation(&annotated, &with(value!({}))));
        assert!(Deployment.raises_generation(&with(value!({"replicas": 2})), &with(value!({}))));
        assert!(!Deployment.raises_generation(&with(value!({"paused": false})), &with(value!({}))));
    }

    #[test]
    fn rows() {
        let mut object = with(value!({"replicas": 3}));
        object.set("status", value!({"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}));
        assert_eq!(cells(&Deployment, &object), ["d", "2/3", "3", "1", "24h", "c,d", "i:1,j:2", "a=b"]);
    }
}
