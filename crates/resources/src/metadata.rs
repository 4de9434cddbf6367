//! What metadata may look like, and how it may change (upstream `api/validation/objectmeta.go`).

use crate::checks;
use crate::resource::InfoOf;
use canopus_api::{Errors, Field, Time, Value, labels, names};

/// Finalizers without a domain that Kubernetes itself defines.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", labels::FINALIZER_ORPHAN, labels::FINALIZER_FOREGROUND];
/// The groups whose objects may have others, too: upstream's validation of theirs is not the core group's.
const ANY_FINALIZER: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];
const MAX_MANAGER: usize = 128;
const MAX_SUBRESOURCE: usize = 256;

/// All that is wrong with the metadata of a new object. Its name has been generated and its namespace filled in.
pub fn validate(meta: &Field, info: &InfoOf, errors: &mut Errors) {
    let (generate, name) = (meta.at("generateName"), meta.at("name"));
    if !generate.str().is_empty() {
        for why in (info.name)(&mask_trailing_dash(generate.str())) {
            errors.invalid(&generate, why);
        }
    }
    if name.str().is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        checks::check(&name, info.name, errors);
    }
    let namespace = meta.at("namespace");
    match (info.namespaced, namespace.str()) {
        (true, "") => errors.required(&namespace, ""),
        (true, _) => checks::check(&namespace, names::dns1123_label, errors),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    checks::nonnegative(&meta.at("generation"), errors);
    common(meta, errors);
    finalizers(meta, info, errors);
}

/// All that is wrong with changing the metadata `old` into `new`. Finalizers' names are [`finalizers`]' matter.
pub fn validate_update(new: &Field, old: &Value, errors: &mut Errors) {
    if !old["deletionTimestamp"].is_null() {
        no_new_finalizers(&new.at("finalizers"), &old["finalizers"], errors);
    }
    let (version, generation) = (new.at("resourceVersion"), new.at("generation"));
    if version.str().is_empty() {
        errors.invalid(&version.with(&"".into()), "must be specified for an update");
    }
    if generation.int() < old["generation"].int() {
        errors.invalid(&generation.with(&generation.int().into()), "must not be decremented");
    }
    for text in ["name", "namespace", "uid"] {
        let field = new.at(text);
        if field.str() != old[text].str() {
            errors.invalid(&field.with(&field.str().into()), checks::IMMUTABLE);
        }
    }
    for time in ["creationTimestamp", "deletionTimestamp"] {
        let field = new.at(time);
        if Time::parse(field.str()) != Time::parse(old[time].str()) {
            errors.invalid(&field, checks::IMMUTABLE);
        }
    }
    checks::immutable(&new.at("deletionGracePeriodSeconds"), &old["deletionGracePeriodSeconds"], errors);
    common(new, errors);
}

/// Whether finalizers are qualified names. Built-in kinds also refuse names without a domain that aren't Kubernetes' own;
/// custom resources only warn about them.
pub fn finalizers(meta: &Field, info: &InfoOf, errors: &mut Errors) {
    let field = meta.at("finalizers");
    if field.value.is_empty() {
        return;
    }
    let known_only =
        !ANY_FINALIZER.contains(&info.group) && crate::find(info.group, info.version, info.plural).is_some();
    let mut both = 0;
    for finalizer in field.items() {
        for why in names::qualified_name(finalizer.str()) {
            errors.invalid(&field.with(finalizer.value), why);
        }
        if known_only {
            finalizer_name(&finalizer, errors);
        }
        both |= match finalizer.str() {
            labels::FINALIZER_ORPHAN => 1,
            labels::FINALIZER_FOREGROUND => 2,
            _ => 0,
        };
    }
    if both == 3 {
        errors.invalid(&field, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// A finalizer without a domain must be one that Kubernetes defines.
pub fn finalizer_name(finalizer: &Field, errors: &mut Errors) {
    if !finalizer.str().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.str()) {
        errors.invalid(finalizer, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn common(meta: &Field, errors: &mut Errors) {
    checks::labels(&meta.at("labels"), errors);
    checks::annotations(&meta.at("annotations"), errors);
    owners(&meta.at("ownerReferences"), errors);
    meta.at("managedFields").items().for_each(|entry| managed_fields(&entry, errors));
}

fn no_new_finalizers(new: &Field, old: &Value, errors: &mut Errors) {
    let known = |name: &Value| old.items().contains(name);
    let mut extra: Vec<&str> = new.value.items().iter().filter(|f| !known(f)).map(Value::str).collect();
    if extra.is_empty() {
        return;
    }
    extra.sort_unstable();
    extra.dedup();
    let list = extra.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
    errors.forbidden(new, format!("{why} []string{{{list}}}"));
}

/// As upstream, errors name the list, not the entry.
pub fn owners(field: &Field, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in field.value.items() {
        let api_version = owner["apiVersion"].str();
        let version = match api_version.matches('/').count() {
            0 | 1 => api_version.rsplit('/').next().unwrap_or(""),
            _ => "",
        };
        if version.is_empty() {
            errors.invalid(&field.at("apiVersion").with(&api_version.into()), "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if owner[key].str().is_empty() {
                errors.invalid(&field.at(key).with(&"".into()), "must not be empty");
            }
        }
        if api_version == "v1" && owner["kind"].str() == "Event" {
            errors.invalid(&field.with(owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"].bool() {
            let this = format!("{}/{}", owner["kind"].str(), owner["name"].str());
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let why = "Only one reference can have Controller set to true. Found \"true\" in references for";
                    errors.invalid(field, format!("{why} {first} and {this}"));
                }
            }
        }
    }
}

fn managed_fields(entry: &Field, errors: &mut Errors) {
    let (operation, kind) = (entry.at("operation"), entry.at("fieldsType"));
    if !matches!(operation.str(), "Apply" | "Update") {
        errors.invalid(&operation.with(&operation.str().into()), "must be `Apply` or `Update`");
    }
    if !matches!(kind.str(), "" | "FieldsV1") {
        errors.invalid(&kind, "must be `FieldsV1`");
    }
    field_manager(&entry.at("manager"), errors);
    let subresource = entry.at("subresource");
    if subresource.str().len() > MAX_SUBRESOURCE {
        errors.too_long(&subresource, MAX_SUBRESOURCE);
    }
}

/// The name of a field manager, in managedFields or as the option of a write: at most 128 bytes, all printable.
pub fn field_manager(field: &Field, errors: &mut Errors) {
    let name = field.str();
    if name.len() > MAX_MANAGER {
        errors.too_long(field, MAX_MANAGER);
    }
    for (at, c) in name.char_indices() {
        if c.is_control() || c.is_whitespace() && c != ' ' {
            errors.invalid(field, format!("invalid character U+{:04X} (at position {at})", u32::from(c)));
        }
    }
}

/// A prefix that ends in a dash is judged as if a letter followed.
fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut masked = rest.to_string();
            masked.pop();
            masked.push('a');
            masked
        }
        _ => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Info;
    use canopus_api::value;

    static POD: Info = Info::stored("", "v1", "ConfigMap", "configmaps");
    static NODE: Info = Info { namespaced: false, ..Info::stored("example.com", "v1", "Node", "nodes") };

    #[test]
    fn new_objects() {
        let cases: &[(&Info, Value, &[&str])] = &[
            (&POD, value!({"name": "a", "namespace": "b"}), &[]),
            (&POD, value!({"name": "a-x", "generateName": "a-", "namespace": "b"}), &[]),
            (
                &POD,
                value!({"generation": (-1)}),
                &[
                    "metadata.name: Required value: name or generateName is required",
                    "metadata.namespace: Required value",
                    "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                &NODE,
                value!({"name": "a", "namespace": "b", "finalizers": ["x"]}),
                &["metadata.namespace: Forbidden: not allowed on this type"],
            ),
            (
                &POD,
                value!({"name": "a", "namespace": "b", "finalizers": ["x", "orphan", "foregroundDeletion"]}),
                &[
                    "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
                    "metadata.finalizers: Invalid value: [\"x\",\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
                ],
            ),
            (
                &NODE,
                value!({"name": "a", "managedFields": [{"operation": "Guess", "fieldsType": "V2", "manager": "a\n"}]}),
                &[
                    "metadata.managedFields[0].operation: Invalid value: \"Guess\": must be `Apply` or `Update`",
                    "metadata.managedFields[0].fieldsType: Invalid value: \"V2\": must be `FieldsV1`",
                    "metadata.managedFields[0].manager: Invalid value: \"a\\n\": invalid character U+000A (at position 1)",
                ],
            ),
        ];
        for (info, meta, expected) in cases {
            let object = value!({"metadata": (meta.clone())});
            let (root, mut errors) = (Field::root(&object), Errors::new());
            validate(&root.at("metadata"), info, &mut errors);
            assert_eq!(checks::texts(&errors), *expected, "{meta:?}");
        }
    }

    #[test]
    fn owner_references() {
        let object = value!({"metadata": {"name": "a", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "2", "controller": true},
            {"apiVersion": "apps/"},
        ]}});
        let (root, mut errors) = (Field::root(&object), Errors::new());
        validate(&root.at("metadata"), &NODE, &mut errors);
        let found: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.detail)).collect();
        assert_eq!(
            found,
            [
                "metadata.ownerReferences: /v1, Kind=Event is disallowed from being an owner",
                "metadata.ownerReferences: Only one reference can have Controller set to true. Found \"true\" in references for ReplicaSet/r and Event/e",
                "metadata.ownerReferences.apiVersion: version must not be empty",
                "metadata.ownerReferences.kind: must not be empty",
                "metadata.ownerReferences.name: must not be empty",
                "metadata.ownerReferences.uid: must not be empty",
            ]
        );
    }

    #[test]
    fn updates() {
        let old = value!({"name": "a", "uid": "u", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["x/y"]});
        let object = value!({"metadata": {"name": "b", "uid": "u", "generation": 1, "finalizers": ["x/z", "a/b", "x/y"],
            "creationTimestamp": "2026-01-01T01:00:00+01:00", "deletionTimestamp": "2026-01-03T00:00:00Z"}});
        let (root, mut errors) = (Field::root(&object), Errors::new());
        validate_update(&root.at("metadata"), &old, &mut errors);
        assert_eq!(
            checks::texts(&errors),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a/b\", \"x/z\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: \"2026-01-03T00:00:00Z\": field is immutable",
            ]
        );
    }

    #[test]
    fn prefixes_may_end_in_a_dash() {
        assert_eq!(["a-", "ab-", "-", "ab"].map(mask_trailing_dash), ["a", "aa", "-", "ab"]);
    }
}
