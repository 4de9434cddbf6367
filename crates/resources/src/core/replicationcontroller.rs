//! ReplicationController: so many pods of one template, with a selector of plain labels. ReplicaSets followed it.

use super::pod::{defaults, template};
use crate::apps::workload::{self, container_cells, counts};
use crate::checks::{self, nonnegative};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, labels_cell, name};
use crate::strategy;
use canopus_api::{Errors, Facts, Field, LabelSelector, Time, Value};

pub struct ReplicationController;

static INFO: Info = Info {
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("", "v1", "ReplicationController")],
    selectable_fields: &["status.replicas"],
    generation: true,
    ..Info::stored("", "v1", "ReplicationController", "replicationcontrollers")
};

impl Resource for ReplicationController {
    fn info(&self) -> &'static Info {
        &INFO
    }

    /// The template's labels select its pods and label the controller itself, when nothing else is said.
    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("replicas", 1);
        if spec["template"].is_null() {
            return;
        }
        defaults::template(spec.ensure_object().entry("template", Value::object));
        let labels = spec["template"]["metadata"]["labels"].clone();
        if labels.is_null() {
            return;
        }
        if spec["selector"].is_empty() {
            spec.set("selector", &labels);
        }
        if object["metadata"]["labels"].is_empty() {
            object.set_path(&["metadata", "labels"], labels);
        }
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
        let (selector, replicas, pods) = (spec.at("selector"), spec.at("replicas"), spec.at("template"));
        nonnegative(&spec.at("minReadySeconds"), errors);
        checks::required(&selector, errors);
        nonnegative(&replicas, errors);
        if pods.is_unset() {
            return errors.required(&pods, "");
        }
        let parsed = LabelSelector::from_map(selector.value);
        template::validate_for_selector(&pods, &parsed, "ReplicationController", errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource != "status" {
            return self.validate(new, errors);
        }
        const PARTS: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        let status = new.at("status");
        counts(&status, &["replicas"], errors);
        counts(&status, PARTS, errors);
        counts(&status, &["observedGeneration"], errors);
        workload::at_most_replicas(&status, PARTS, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    /// A count is selectable even before it was ever reported.
    fn facts(&self, object: &Value) -> Facts {
        let mut facts = Facts::extract(object, INFO.selectable_fields);
        for (_, value) in &mut facts.fields {
            *value = object["status"]["replicas"].int().to_string().into();
        }
        facts
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Desired",
                    "integer",
                    "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
                ),
                Column::new(
                    "Current",
                    "integer",
                    "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
                ),
                Column::new("Ready", "integer", "The number of ready replicas for this replication controller."),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
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
            labels_cell(&spec["selector"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn with(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "r"}, "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn labels_come_from_the_template() {
        let mut object = with(value!({}));
        ReplicationController.default(&mut object);
        assert_eq!(object["spec"]["selector"], value!({"a": "b"}));
        assert_eq!(object["metadata"]["labels"], value!({"a": "b"}));
        assert_eq!(cells(&ReplicationController, &object), ["r", "1", "0", "0", "<unknown>", "c", "i:1", "a=b"]);
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({}), &[]),
            (value!({"template": null}), &["spec.selector: Required value", "spec.template: Required value"]),
            (
                value!({"replicas": -1, "selector": {"x": "y"}}),
                &[
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&ReplicationController, with(spec)), expected);
        }
        let mut new = with(value!({}));
        new.set("status", value!({"replicas": 1, "readyReplicas": 2}));
        assert_eq!(
            update(&ReplicationController, "status", with(value!({})), new),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }
}
