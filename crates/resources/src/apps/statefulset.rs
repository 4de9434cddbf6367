//! StatefulSet: pods with a number each, that keep their names and volumes.

use super::workload::{self, container_cells, counts, not_decremented};
use crate::checks::{self, nonnegative};
use crate::core::persistentvolumeclaim::{claim_defaults, storage_warnings};
use crate::core::pod::{claim_template, defaults, template, warnings};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::{semantic, strategy};
use canopus_api::{Errors, Field, LabelSelector, Time, Value, names, value};

pub struct StatefulSet;

static INFO: Info = Info {
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "StatefulSet")],
    name: names::dns1123_label,
    generation: true,
    ..Info::stored("apps", "v1", "StatefulSet", "statefulsets")
};

/// What of a spec may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

impl Resource for StatefulSet {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        defaults::fill(spec, "podManagementPolicy", "OrderedReady");
        let how = spec.ensure_object().entry("updateStrategy", Value::object);
        if how["type"].str().is_empty() {
            how.set("type", "RollingUpdate");
            how.set_default("rollingUpdate", Value::object());
        }
        if how["type"].str() == "RollingUpdate" {
            defaults::with(how, "rollingUpdate", |rolling| rolling.set_default("partition", 0));
        }
        spec.set_default("persistentVolumeClaimRetentionPolicy", Value::object());
        defaults::with(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
            defaults::fill(policy, "whenDeleted", "Retain");
            defaults::fill(policy, "whenScaled", "Retain");
        });
        spec.set_default("replicas", 1);
        spec.set_default("revisionHistoryLimit", 10);
        defaults::template(spec.ensure_object().entry("template", Value::object));
        defaults::each(spec, "volumeClaimTemplates", |claim| {
            claim.set("apiVersion", "v1");
            claim.set("kind", "PersistentVolumeClaim");
            claim_defaults(claim);
        });
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
        spec.at("volumeClaimTemplates").items().for_each(|claim| claim_template::spec(&claim.at("spec"), errors));
        validate_spec(&spec, errors);
        let service = spec.at("serviceName");
        if !service.str().is_empty() {
            checks::check(&service, names::dns1123_label, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return validate_status(&new.at("status"), &old["status"], errors);
        }
        let spec = new.at("spec");
        validate_spec(&spec, errors);
        let mut undone = spec.value.clone();
        MUTABLE.iter().for_each(|field| strategy::keep(&mut undone, &old["spec"], field));
        if !semantic::equal(&undone, &old["spec"]) {
            errors.forbidden(&spec, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let root = Field::root(object);
        let spec = root.at("spec");
        let changed = old.is_none_or(|old| old["metadata"]["generation"] != object["metadata"]["generation"]);
        let mut out = if changed { warnings::of(&spec.at("template"), false) } else { Vec::new() };
        for claim in spec.at("volumeClaimTemplates").items() {
            let of = claim.value.at("spec");
            // The paths are upstream's.
            match old {
                None => storage_warnings(&claim.with(of), &mut out),
                Some(_) => storage_warnings(&claim.at("Spec").with(of), &mut out),
            }
        }
        if spec.value["revisionHistoryLimit"].int() < 0 {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Ready", "string", "Number of the pod with ready state"),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images] = container_cells(&spec["template"]["spec"]);
        let ready = format!("{}/{}", status["readyReplicas"].int(), spec["replicas"].int());
        vec![name(object), ready.into(), age(object, now), containers, images]
    }
}

fn validate_spec(spec: &Field, errors: &mut Errors) {
    let policy = spec.at("podManagementPolicy");
    if checks::required(&policy, errors) && !["OrderedReady", "Parallel"].contains(&policy.str()) {
        errors.invalid(&policy, "must be 'OrderedReady' or 'Parallel'");
    }
    update_strategy(&spec.at("updateStrategy"), errors);
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for when in ["whenDeleted", "whenScaled"] {
            checks::one_of(&retention.at(when), &["Retain", "Delete"], errors);
        }
    }
    counts(spec, &["replicas", "minReadySeconds"], errors);
    nonnegative(&spec.at("ordinals.start").with(&spec.value["ordinals"]["start"]), errors);
    let selector = spec.at("selector");
    if selector.is_unset() {
        errors.required(&selector, "");
    } else {
        checks::label_selector(&selector, errors);
        workload::not_empty(&selector, "statefulset", errors);
    }
    let pods = spec.at("template");
    match LabelSelector::from_value(selector.value) {
        Err(_) => errors.invalid(&selector, ""),
        Ok(parsed) => {
            let meta = pods.at("metadata");
            if !parsed.is_everything() && !parsed.matches_value(&meta.value["labels"]) {
                errors.invalid(&meta.at("labels"), "`selector` does not match template `labels`");
            }
            template::validate(&pods.with(&as_the_controller_makes_it(spec.value)), errors);
        }
    }
    workload::restarts_always(&pods, "StatefulSet", errors);
}

/// The controller sets the host name and the subdomain itself, and mounts the claims it makes.
fn as_the_controller_makes_it(spec: &Value) -> Value {
    let mut pods = spec["template"].clone();
    let claims = spec["volumeClaimTemplates"].items();
    let pod_spec = pods.ensure_object().entry("spec", Value::object);
    pod_spec.remove("hostname");
    pod_spec.remove("subdomain");
    if !claims.is_empty() {
        let name = |claim: &Value| claim["metadata"]["name"].clone();
        let mut volumes: Vec<Value> = claims
            .iter()
            .map(|claim| value!({"name": (name(claim)), "persistentVolumeClaim": {"claimName": (name(claim))}}))
            .collect();
        let made: Vec<Value> = claims.iter().map(name).collect();
        volumes.extend(pod_spec["volumes"].items().iter().filter(|v| !made.contains(&v["name"])).cloned());
        pod_spec.set("volumes", Value::Array(volumes));
    }
    pods
}

fn update_strategy(how: &Field, errors: &mut Errors) {
    let rolling = how.at("rollingUpdate");
    match how.value["type"].str() {
        "" => errors.required(how, ""),
        "OnDelete" if rolling.is_set() => errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            let most = rolling.at("maxUnavailable");
            nonnegative(&rolling.at("partition"), errors);
            if most.is_set() {
                checks::count_or_percent(&most, errors);
                if checks::count_or_percent_value(most.value) == 0 {
                    errors.invalid(&most, "cannot be 0");
                }
                checks::at_most_all(&most, errors);
            }
        }
        _ => errors.invalid(how, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_status(status: &Field, old: &Value, errors: &mut Errors) {
    const PARTS: &[&str] = &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    counts(status, &["replicas"], errors);
    counts(status, PARTS, errors);
    counts(status, &["observedGeneration", "collisionCount"], errors);
    workload::parts_of_replicas(status, PARTS, "status.readyReplicas", errors);
    not_decremented(&status.at("collisionCount"), &old["collisionCount"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};

    /// A good StatefulSet with these fields of its spec changed.
    fn with(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
                "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn defaults() {
        let mut object = with(value!({}));
        StatefulSet.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["updateStrategy"], value!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            value!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!((claim["kind"].str(), claim["status"]["phase"].str()), ("PersistentVolumeClaim", "Pending"));
        assert_eq!([&spec["replicas"], &spec["revisionHistoryLimit"]].map(Value::int), [1, 10]);
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({}), &[]),
            (
                value!({"volumeClaimTemplates": []}),
                &[r#"spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data""#],
            ),
            (
                value!({"podManagementPolicy": "X", "serviceName": "a.b", "ordinals": {"start": (-1)}, "updateStrategy": {"type": "X"}}),
                &[
                    r#"spec.podManagementPolicy: Invalid value: "X": must be 'OrderedReady' or 'Parallel'"#,
                    r#"spec.updateStrategy: Invalid value: {"type":"X"}: must be 'RollingUpdate' or 'OnDelete'"#,
                    "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
                    r#"spec.serviceName: Invalid value: "a.b": must not contain dots"#,
                ],
            ),
            (
                value!({"selector": {}}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                value!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&StatefulSet, with(spec)), expected);
        }
        assert_eq!(
            update(&StatefulSet, "", with(value!({})), with(value!({"replicas": 3, "minReadySeconds": 1}))),
            [""; 0]
        );
        let forbidden = update(&StatefulSet, "", with(value!({})), with(value!({"serviceName": "t"})));
        assert!(
            forbidden[0].starts_with("spec: Forbidden: updates to statefulset spec for fields other than"),
            "{forbidden:?}"
        );
        let mut new = with(value!({}));
        new.set("status", value!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}));
        assert_eq!(
            update(&StatefulSet, "status", with(value!({})), new),
            ["status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"]
        );
    }

    #[test]
    fn rows() {
        assert_eq!(cells(&StatefulSet, &with(value!({"replicas": 2}))), ["s", "0/2", "<unknown>", "c", "i:1"]);
    }
}
