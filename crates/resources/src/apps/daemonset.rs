//! DaemonSet: one pod of a template on every node that takes it.

use super::workload::{self, container_cells, counts, not_decremented, selector_cell};
use crate::checks::{self, nonnegative};
use crate::core::pod::{defaults, template, warnings};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, labels_cell, name};
use crate::{semantic, strategy};
use canopus_api::{Errors, Field, LabelSelector, Time, Value};

pub struct DaemonSet;

static INFO: Info = Info {
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource::status("apps", "v1", "DaemonSet")],
    generation: true,
    ..Info::stored("apps", "v1", "DaemonSet", "daemonsets")
};

/// How often the template has changed: a field of spec in older versions, whose value only the server sets.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Resource for DaemonSet {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        let how = spec.ensure_object().entry("updateStrategy", Value::object);
        defaults::fill(how, "type", "RollingUpdate");
        if how["type"].str() == "RollingUpdate" {
            how.set_default("rollingUpdate", Value::object());
            let rolling = how.ensure_object().entry("rollingUpdate", Value::object);
            rolling.set_default("maxUnavailable", 1);
            rolling.set_default("maxSurge", 0);
        }
        spec.set_default("revisionHistoryLimit", 10);
        defaults::template(spec.ensure_object().entry("template", Value::object));
        // Upstream's own form has it as a field, so that whoever writes the object writes it.
        if object["metadata"]["annotations"][TEMPLATE_GENERATION].is_null() {
            set_template_generation(object, 0);
        }
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.remove("status");
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        let generation = template_generation(old);
        if cx.subresource == "status" {
            strategy::only_status(new, old, &[]);
            return set_template_generation(new, generation);
        }
        strategy::keep(new, old, "status");
        let changed = !semantic::equal(&new["spec"]["template"], &old["spec"]["template"]);
        set_template_generation(new, generation + i64::from(changed));
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let (selector, pods) = (spec.at("selector"), spec.at("template"));
        checks::label_selector(&selector, errors);
        let (meta, parsed) = (pods.at("metadata"), LabelSelector::from_value(selector.value));
        if parsed.is_ok_and(|parsed| !parsed.matches_value(&meta.value["labels"])) {
            errors.invalid(&meta.at("labels"), "`selector` does not match template `labels`");
        }
        workload::not_empty(&selector, "daemonset", errors);
        template::validate(&pods, errors);
        workload::restarts_always(&pods, "DaemonSet", errors);
        nonnegative(&spec.at("minReadySeconds"), errors);
        update_strategy(&spec.at("updateStrategy"), errors);
        nonnegative(&spec.at("revisionHistoryLimit"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return validate_status(&new.at("status"), &old["status"], errors);
        }
        checks::immutable(&new.at("spec").at("selector"), &old["spec"]["selector"], errors);
        self.validate(new, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        match old {
            Some(old) if template_generation(old) == template_generation(object) => Vec::new(),
            _ => warnings::of(&Field::root(object).at("spec").at("template"), false),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Desired",
                    "integer",
                    "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
                ),
                Column::new(
                    "Current",
                    "integer",
                    "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
                ),
                Column::new(
                    "Ready",
                    "integer",
                    "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
                ),
                Column::new("Up-to-date", "integer", "The total number of nodes that are running updated daemon pod"),
                Column::new(
                    "Available",
                    "integer",
                    "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
                ),
                Column::new(
                    "Node Selector",
                    "string",
                    "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
                ),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images] = container_cells(&spec["template"]["spec"]);
        let [desired, current, ready, updated, available] = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ]
        .map(|count| status[count].int().into());
        let nodes = labels_cell(&spec["template"]["spec"]["nodeSelector"]);
        let selector = selector_cell(&spec["selector"], "<none>", "<error>");
        vec![
            name(object),
            desired,
            current,
            ready,
            updated,
            available,
            nodes,
            age(object, now),
            containers,
            images,
            selector,
        ]
    }
}

fn template_generation(object: &Value) -> i64 {
    object["metadata"]["annotations"][TEMPLATE_GENERATION].str().parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    object.set_path(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

fn update_strategy(how: &Field, errors: &mut Errors) {
    let rolling = how.at("rollingUpdate");
    match how.value["type"].str() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_unset() => errors.required(&rolling, ""),
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.not_supported(how, &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_update(rolling: &Field, errors: &mut Errors) {
    let both = [rolling.at("maxUnavailable"), rolling.at("maxSurge")];
    both.iter().for_each(|field| checks::count_or_percent(field, errors));
    both.iter().for_each(|field| checks::at_most_all(field, errors));
    let [unavailable, surge] = both;
    match [unavailable.value, surge.value].map(|v| checks::count_or_percent_value(v) != 0) {
        [true, true] => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
        [false, false] => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn validate_status(status: &Field, old: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(status, COUNTS, errors);
    not_decremented(&status.at("collisionCount"), &old["collisionCount"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, context, create, update};
    use canopus_api::value;

    /// A good DaemonSet with these fields of its spec changed.
    fn with(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({}), &[]),
            (value!({"updateStrategy": {"type": "OnDelete"}}), &[]),
            (
                value!({"selector": {"matchLabels": {"x": "y"}}}),
                &[
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ],
            ),
            (
                value!({"updateStrategy": {"rollingUpdate": {"maxSurge": "10%"}}}),
                &[
                    r#"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "10%": may not be set when maxUnavailable is non-zero"#,
                ],
            ),
            (
                value!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&DaemonSet, with(spec)), expected);
        }
        let status = |count: i64| {
            let mut object = with(value!({}));
            object.set("status", value!({"collisionCount": count}));
            object
        };
        assert_eq!(
            update(&DaemonSet, "status", status(2), status(1)),
            ["status.collisionCount: Invalid value: 1: cannot be decremented"]
        );
    }

    #[test]
    fn the_server_counts_changes_of_the_template() {
        let mut old = with(value!({}));
        DaemonSet.prepare_create(&mut old, &context(""));
        assert_eq!(template_generation(&old), 1);
        let mut same = with(value!({"minReadySeconds": 3}));
        DaemonSet.prepare_update(&mut same, &old, &context(""));
        let mut changed = with(value!({}));
        changed.set_path(&["spec", "template", "spec", "hostname"], "h");
        DaemonSet.prepare_update(&mut changed, &old, &context(""));
        assert_eq!([template_generation(&same), template_generation(&changed)], [1, 2]);
    }

    #[test]
    fn rows() {
        let mut object = with(value!({}));
        object.set("status", value!({"desiredNumberScheduled": 3, "numberReady": 2}));
        assert_eq!(
            cells(&DaemonSet, &object),
            ["d", "3", "0", "2", "0", "0", "<none>", "<unknown>", "c", "i:1", "a=b"]
        );
    }
}
