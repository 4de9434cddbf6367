//! PersistentVolumeClaim: storage that somebody asks for, and the volume that was bound to it.

use super::persistentvolume::{access_modes_cell, class};
use super::pod::amounts::is_native;
use super::pod::claim_template;
use super::pod::defaults::{fill, resource_list, resource_lists, with};
use super::pod::requirements::resource_quantity;
use super::pod::update::differences;
use crate::checks::{self, IMMUTABLE};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, facts_with_name, name, quantity_text};
use crate::{semantic, strategy};
use canopus_api::{Errors, Facts, Field, Quantity, Time, Value, names, value};

pub struct PersistentVolumeClaim;

static INFO: Info = Info {
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[Subresource::status("", "v1", "PersistentVolumeClaim")],
    selectable_fields: &["name"],
    ..Info::stored("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
};

/// Names a claim's or volume's class as the oldest clients do.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Resource for PersistentVolumeClaim {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        claim_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.set("status", value!({"phase": "Pending"}));
        data_sources(object.ensure_object().entry("spec", Value::object), &Value::Null);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, &[]);
        }
        strategy::keep(new, old, "status");
        data_sources(new.ensure_object().entry("spec", Value::object), &old["spec"]);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        claim_template::spec(&object.at("spec"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return validate_status(new, errors);
        }
        self.validate(new, errors);
        immutability(new, old, errors);
    }

    fn facts(&self, object: &Value) -> Facts {
        facts_with_name(object, INFO.selectable_fields)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = Field::root(object);
        let (meta, spec) = (root.at("metadata"), root.at("spec"));
        let annotations = meta.at("annotations");
        let mut out = Vec::new();
        let beta = annotations.key(BETA_CLASS);
        if beta.is_set() {
            out.push(format!("{}: deprecated since v1.8; use \"storageClassName\" attribute instead", beta.path()));
        }
        storage_warnings(&spec, &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Status", "string", "phase represents the current phase of PersistentVolumeClaim."),
                Column::new(
                    "Volume",
                    "string",
                    "volumeName is the binding reference to the PersistentVolume backing this claim.",
                ),
                Column::new("Capacity", "string", "capacity represents the actual resources of the underlying volume."),
                Column::new(
                    "Access Modes",
                    "string",
                    "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
                ),
                Column::new("StorageClass", "string", "StorageClass of the pvc"),
                Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
                Column::AGE,
                Column::wide(
                    "VolumeMode",
                    "string",
                    "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let (mut capacity, mut modes) = (String::new(), String::new());
        if !spec["volumeName"].str().is_empty() {
            capacity = quantity_text(&status["capacity"]["storage"]);
            modes = access_modes_cell(&status["accessModes"]);
        }
        vec![
            name(object),
            if deleting { "Terminating" } else { status["phase"].str() }.into(),
            spec["volumeName"].str().into(),
            capacity.into(),
            modes.into(),
            class(object).into(),
            spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
            age(object, now),
            spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// The defaults of a claim, by itself or as a template.
pub fn claim_defaults(claim: &mut Value) {
    let spec = claim.ensure_object().entry("spec", Value::object);
    spec.set_default("volumeMode", "Filesystem");
    spec.set_default("resources", Value::object());
    with(spec, "resources", resource_lists);
    let status = claim.ensure_object().entry("status", Value::object);
    fill(status, "phase", "Pending");
    with(status, "capacity", resource_list);
    with(status, "allocatedResources", resource_list);
}

/// What there is to say about the size that the spec of a claim asks for.
pub fn storage_warnings(spec: &Field, out: &mut Vec<String>) {
    let resources = spec.at("resources");
    for list in ["requests", "limits"] {
        let list = resources.at(list);
        let storage = list.key("storage");
        if let Some(amount) = Quantity::from_value(storage.value).filter(|q| q.milli_value() % 1000 != 0) {
            let text = amount.to_string();
            let path = storage.path();
            out.push(format!("{path}: fractional byte value {text:?} is invalid, must be an integer"));
        }
    }
}

/// `dataSource` and `dataSourceRef` say the same where both can (KEP-1495). Only claims and snapshots were ever
/// sources by the older name; others were, and are, dropped without a word.
fn data_sources(spec: &mut Value, old: &Value) {
    // CrossNamespaceVolumeDataSource is off.
    if !spec["dataSourceRef"]["namespace"].str().is_empty() && old["dataSourceRef"].is_null() {
        spec.remove("dataSourceRef");
    }
    let known = |source: &Value| match source["kind"].str() {
        "PersistentVolumeClaim" => source["apiGroup"].str().is_empty(),
        "VolumeSnapshot" => source["apiGroup"].str() == "snapshot.storage.k8s.io",
        _ => false,
    };
    let in_use = !old["dataSource"].is_null() || !old["dataSourceRef"].is_null();
    if !in_use && spec["dataSourceRef"].is_null() && !known(&spec["dataSource"]) {
        spec.remove("dataSource");
    }
    let copy = |source: &Value| {
        let mut copy = Value::object();
        for field in ["apiGroup", "kind", "name"] {
            if let Some(value) = source.get(field) {
                copy.set(field, value);
            }
        }
        copy
    };
    match (spec["dataSource"].is_null(), spec["dataSourceRef"].is_null()) {
        (false, true) => spec.set("dataSourceRef", copy(&spec["dataSource"])),
        (true, false) if spec["dataSourceRef"]["namespace"].str().is_empty() => {
            spec.set("dataSource", copy(&spec["dataSourceRef"]));
        }
        _ => {}
    }
}

/// What of a claim may change: its volume once, its class from none, and of a bound claim its size and attributes.
fn immutability(new: &Field, old: &Value, errors: &mut Errors) {
    let (spec, before) = (new.at("spec"), &old["spec"]);
    let mut undone = spec.value.clone();
    if before["volumeName"].str().is_empty() {
        strategy::keep(&mut undone, before, "volumeName");
    }
    let class_of = |object: &Value| object["metadata"]["annotations"][BETA_CLASS].as_str().map(str::to_string);
    let (old_beta, new_beta, new_class) = (class_of(old), class_of(new.value), spec.value["storageClassName"].as_str());
    let had_none = before["storageClassName"].is_null();
    let matches_beta = old_beta.is_some() && new_class == old_beta.as_deref();
    let from_annotation = had_none && matches_beta && (new_beta.is_none() || new_beta == old_beta);
    if !from_annotation && new_beta != old_beta && (new_beta.is_some() || old_beta.is_some()) {
        let (meta, shown) = (new.at("metadata"), Value::from(new_beta.unwrap_or_default()));
        let annotations = meta.at("annotations");
        errors.invalid(&annotations.at(BETA_CLASS).with(&shown), IMMUTABLE);
    }
    if from_annotation || had_none && new_class.is_some() && (old_beta.is_none() || matches_beta) {
        undone.remove("storageClassName");
    }
    let size = |spec: &Value| Quantity::from_value(&spec["resources"]["requests"]["storage"]).unwrap_or_default();
    if new.value["status"]["phase"].str() == "Bound" {
        if let Some(storage) = before["resources"]["requests"].get("storage") {
            undone.set_path(&["resources", "requests", "storage"], storage);
        }
        strategy::keep(&mut undone, before, "volumeAttributesClassName");
    }
    if !semantic::equal(&undone, before) {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&spec, format!("{why}\n{}", differences(before, &undone)));
    }
    let granted = Quantity::from_value(&old["status"]["capacity"]["storage"]).unwrap_or_default();
    if size(spec.value) < size(before) && size(spec.value) <= granted {
        let (resources, why) = (spec.at("resources"), "field can not be less than status.capacity");
        let requests = resources.at("requests");
        errors.forbidden(&requests.at("storage"), why);
    }
    checks::immutable(&new.at("volumeMode").with(&spec.value["volumeMode"]), &before["volumeMode"], errors);
    let attributes = spec.at("volumeAttributesClassName");
    if attributes.value != &before["volumeAttributesClassName"]
        && !old["status"]["currentVolumeAttributesClassName"].is_null()
    {
        let what = if attributes.is_unset() { "nil" } else { "empty string" };
        if attributes.str().is_empty() {
            let why = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
            errors.forbidden(&attributes, why);
        }
    }
}

const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_status(object: &Field, errors: &mut Errors) {
    let status = object.at("status");
    for (_, amount) in status.at("capacity").entries() {
        basic(&amount, errors);
    }
    let statuses = status.at("allocatedResourceStatuses");
    for (key, state) in statuses.value.entries() {
        resource_key(&statuses, key, errors);
        if !RESIZE_STATUSES.contains(&state.str()) {
            let mut sorted = RESIZE_STATUSES.to_vec();
            sorted.sort_unstable();
            errors.not_supported(&statuses.with(&key.into()), &sorted);
        }
    }
    let allocated = status.at("allocatedResources");
    for (key, amount) in allocated.entries() {
        if resource_key(&allocated, key, errors) && basic(&amount, errors) {
            resource_quantity(&amount, "storage", errors);
        }
    }
}

/// Upstream `validateBasicResource`.
pub fn basic(amount: &Field, errors: &mut Errors) -> bool {
    let bad = Quantity::from_value(amount.value).filter(Quantity::is_negative);
    if let Some(quantity) = bad {
        errors.invalid(&amount.with(&quantity.value().into()), "must be a valid resource quantity");
    }
    bad.is_none()
}

fn resource_key(field: &Field, key: &str, errors: &mut Errors) -> bool {
    let (before, shown) = (errors.len(), Value::from(key));
    checks::check(&field.with(&shown), names::qualified_name, errors);
    if errors.len() == before && is_native(key) && key != "storage" {
        errors.not_supported(&field.with(&shown), &["storage"]);
    }
    errors.len() == before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};

    /// A good claim with these fields of its spec changed.
    fn with_spec(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    fn bound(size: &str, class: Value) -> Value {
        let mut object = with_spec(value!({"volumeName": "v", "resources": {"requests": {"storage": size}}}));
        object.set_path(&["spec", "volumeAttributesClassName"], class);
        object.set(
            "status",
            value!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "currentVolumeAttributesClassName": "a"}),
        );
        object
    }

    #[test]
    fn data_sources_are_two_names_of_one() {
        let snapshot = value!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        let other = value!({"apiGroup": "x.y", "kind": "Z", "name": "s"});
        let cases = [
            (value!({"dataSource": &snapshot}), value!({"dataSource": &snapshot, "dataSourceRef": &snapshot})),
            (value!({"dataSourceRef": &other}), value!({"dataSource": &other, "dataSourceRef": &other})),
            (value!({"dataSource": other}), value!({})),
            (value!({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "c", "namespace": "n"}}), value!({})),
        ];
        for (mut spec, expected) in cases {
            data_sources(&mut spec, &Value::Null);
            assert_eq!(spec, expected);
        }
    }

    #[test]
    fn rules() {
        assert_eq!(create(&PersistentVolumeClaim, with_spec(value!({}))), [""; 0]);
        let updates: Vec<(Value, Value, &[&str])> = vec![
            (with_spec(value!({})), with_spec(value!({"volumeName": "v", "storageClassName": "fast"})), &[]),
            (
                with_spec(value!({"storageClassName": "slow"})),
                with_spec(value!({"storageClassName": "fast"})),
                &[
                    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n-storageClassName: \"slow\"\n+storageClassName: \"fast\"",
                ],
            ),
            (bound("1Gi", Value::Null), bound("2Gi", "b".into()), &[]),
            (
                bound("2Gi", "a".into()),
                bound("1Gi", Value::Null),
                &[
                    "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
                    "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
                ],
            ),
        ];
        for (old, new, expected) in updates {
            assert_eq!(update(&PersistentVolumeClaim, "", old, new), expected);
        }
        let mut grown = with_spec(value!({}));
        grown.set(
            "status",
            value!({"allocatedResourceStatuses": {"cpu": "X"}, "allocatedResources": {"storage": "-1"}}),
        );
        assert_eq!(
            update(&PersistentVolumeClaim, "status", with_spec(value!({})), grown),
            [
                r#"status.allocatedResourceStatuses: Unsupported value: "cpu": supported values: "storage""#,
                r#"status.allocatedResourceStatuses: Unsupported value: "cpu": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending""#,
                "status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity",
            ]
        );
    }

    #[test]
    fn rows() {
        let mut object = bound("1Gi", Value::Null);
        object.set_path(&["status", "accessModes"], value!(["ReadWriteMany", "ReadWriteOnce"]));
        assert_eq!(
            cells(&PersistentVolumeClaim, &object),
            ["c", "Bound", "v", "1Gi", "RWO,RWX", "", "<unset>", "<unknown>", "<unset>"]
        );
    }
}
