//! The claim that a generic ephemeral volume brings along, and claim specs in general.

use crate::checks::{self, label_selector, optional_one_of, required};
use canopus_api::{Errors, Field, Quantity, names};

/// A `PersistentVolumeClaimTemplate`.
pub fn validate(template: &Field, errors: &mut Errors) {
    metadata(&template.at("metadata"), errors);
    spec(&template.at("spec"), errors);
}

/// What a template's metadata may not have. The names are upstream's, made of Go field names.
const NOT_ALLOWED: &[(&str, &str)] = &[
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

pub fn metadata(meta: &Field, errors: &mut Errors) {
    checks::annotations(&meta.at("annotations"), errors);
    checks::labels(&meta.at("labels"), errors);
    for (field, shown) in NOT_ALLOWED {
        if !meta.value[*field].is_empty() {
            errors.forbidden(&meta.at(shown), "cannot be set");
        }
    }
}

pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// A `PersistentVolumeClaimSpec` (upstream `ValidatePersistentVolumeClaimSpec`).
pub fn spec(spec: &Field, errors: &mut Errors) {
    let modes = spec.at("accessModes");
    if modes.value.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    access_modes(&modes, errors);
    label_selector(&spec.at("selector"), errors);
    let resources = spec.at("resources");
    let storage = resources.key("storage");
    let requested = resources.value.path(&["requests", "storage"]);
    if requested.is_null() {
        errors.required(&storage, "");
    } else if Quantity::from_value(requested).is_none_or(|q| q.is_negative() || q.is_zero()) {
        errors.invalid(&storage.with(requested), "must be greater than zero");
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.at(class);
        if !class.str().is_empty() {
            checks::check(&class, names::dns1123_subdomain, errors);
        }
    }
    optional_one_of(&spec.at("volumeMode"), &["Block", "Filesystem"], errors);
    data_source(&spec.at("dataSource"), errors);
    data_source(&spec.at("dataSourceRef"), errors);
    both_sources(spec, errors);
}

/// Known modes, and the exclusive one alone.
pub fn access_modes(modes: &Field, errors: &mut Errors) {
    for mode in modes.value.items() {
        checks::one_of(&modes.with(mode), ACCESS_MODES, errors);
    }
    let known = || modes.value.items().iter().filter(|m| ACCESS_MODES.contains(&m.str()));
    let (alone, others) =
        (known().any(|m| m.str() == "ReadWriteOncePod"), known().any(|m| m.str() != "ReadWriteOncePod"));
    if alone && others {
        errors.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn data_source(source: &Field, errors: &mut Errors) {
    if source.is_unset() {
        return;
    }
    let (group, kind) = (source.at("apiGroup"), source.at("kind"));
    required(&source.at("name"), errors);
    required(&kind, errors);
    if group.str().is_empty() && kind.str() != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(&source.with(&kind.str().into()), why);
    }
    if !group.str().is_empty() {
        checks::check(&group, names::dns1123_subdomain, errors);
    }
    let namespace = source.at("namespace");
    if !namespace.str().is_empty() {
        checks::check(&namespace, names::dns1123_label, errors);
    }
}

fn both_sources(spec: &Field, errors: &mut Errors) {
    let (source, reference) = (spec.value.at("dataSource"), spec.value.at("dataSourceRef"));
    if source.is_null() || reference.is_null() {
        return;
    }
    let blamed = spec.at("dataSource").path().into();
    if !reference["namespace"].str().is_empty() {
        errors.invalid(&spec.with(&blamed), "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source[*f] != reference[*f]) {
        errors.invalid(&spec.with(&blamed), "must match dataSourceRef");
    }
}
