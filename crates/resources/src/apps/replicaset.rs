//! ReplicaSet: so many pods of one template.

use super::workload::{self, container_cells, counts, selector_cell};
use crate::checks;
use crate::core::pod::defaults;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value};

pub struct ReplicaSet;

static INFO: Info = Info {
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "ReplicaSet")],
    generation: true,
    ..Info::stored("apps", "v1", "ReplicaSet", "replicasets")
};

impl Resource for ReplicaSet {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("replicas", 1);
        defaults::template(spec.ensure_object().entry("template", Value::object));
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.remove("status");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, &[]);
        }
        strategy::keep(new, old, "status");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        counts(&spec, &["replicas", "minReadySeconds"], errors);
        workload::selector_and_template(&spec, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return validate_status(&new.at("status"), errors);
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
                Column::new(
                    "Desired",
                    "integer",
                    "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
                ),
                Column::new(
                    "Current",
                    "integer",
                    "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
                ),
                Column::new(
                    "Ready",
                    "integer",
                    "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
                ),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images] = container_cells(&spec["template"]["spec"]);
        vec![
            name(object),
            spec["replicas"].int().into(),
            status["replicas"].int().into(),
            status["readyReplicas"].int().into(),
            age(object, now),
            containers,
            images,
            selector_cell(&spec["selector"], "<none>", "<error>"),
        ]
    }
}

fn validate_status(status: &Field, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    counts(status, COUNTS, errors);
    workload::at_most_replicas(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn with(spec: Value, status: Value) -> Value {
        let mut object = value!({"metadata": {"name": "r", "creationTimestamp": "2025-12-31T23:59:00Z"}, "status": status, "spec": {
            "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn creation_and_updates() {
        assert_eq!(create(&ReplicaSet, with(value!({}), value!({}))), [""; 0]);
        assert_eq!(
            create(&ReplicaSet, with(value!({"replicas": -1, "selector": {"matchLabels": {"a": "c"}}}), value!({}))),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#
            ]
        );
        let changed = value!({"selector": {"matchLabels": {"a": "b"}}});
        assert_eq!(
            update(&ReplicaSet, "", with(value!({}), value!({})), with(changed, value!({}))),
            [r#"spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: field is immutable"#]
        );
        let status = value!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2});
        assert_eq!(
            update(&ReplicaSet, "status", with(value!({}), value!({})), with(value!({}), status)),
            [
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"
            ]
        );
    }

    #[test]
    fn rows() {
        let object = with(value!({"replicas": 3}), value!({"replicas": 2, "readyReplicas": 1}));
        assert_eq!(cells(&ReplicaSet, &object), ["r", "3", "2", "1", "60s", "c", "i:1", "a in (b)"]);
    }
}
