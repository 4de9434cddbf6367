//! Environment variables and the downward API's selectors.

use super::paths::no_backsteps;
use crate::checks::{self, check, required, required_check};
use canopus_api::{Errors, Field, Quantity, names};

/// Checks `env`.
pub fn env(list: &Field, errors: &mut Errors) {
    for variable in list.items() {
        required_check(&variable.at("name"), variable_name, errors);
        value_from(&variable, errors);
    }
}

/// Any printable ASCII but `=` (KEP-4369).
pub fn variable_name(name: &str) -> Vec<String> {
    let mut why = Vec::new();
    if name.is_empty() {
        why.push("environment variable name must be non-empty".into());
    }
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        why.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    why
}

fn value_from(variable: &Field, errors: &mut Errors) {
    let source = variable.at("valueFrom");
    if source.is_unset() {
        return;
    }
    let mut kinds = 0;
    let mut part = |name: &str, validate: &dyn Fn(&Field, &mut Errors)| {
        let part = source.at(name);
        if part.is_set() {
            kinds += 1;
            validate(&part, errors);
        }
    };
    part("fieldRef", &|f, e| field_selector(f, ENV_FIELDS, e));
    part("resourceFieldRef", &|f, e| resource_selector(f, false, e));
    part("configMapKeyRef", &key_selector);
    part("secretKeyRef", &key_selector);
    part("fileKeyRef", &file_selector);
    let blame = source.with(&EMPTY);
    if kinds == 0 {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(&blame, why);
    } else if !variable.at("value").str().is_empty() {
        errors.invalid(&blame, "may not be specified when `value` is not empty");
    } else if kinds > 1 {
        errors.invalid(&blame, "may not have more than one field specified at a time");
    }
}

static EMPTY: canopus_api::Value = canopus_api::Value::Str(compact_str::CompactString::const_new(""));

fn key_selector(selector: &Field, errors: &mut Errors) {
    let name = selector.at("name");
    check(&name.with(&name.str().into()), names::dns1123_subdomain, errors);
    required_check(&selector.at("key"), names::config_map_key, errors);
}

fn file_selector(selector: &Field, errors: &mut Errors) {
    required_check(&selector.at("key"), variable_name, errors);
    required_check(&selector.at("volumeName"), names::dns1123_label, errors);
    let path = selector.at("path");
    if required(&path, errors) {
        no_backsteps(&path, errors);
    }
}

/// Checks `envFrom`.
pub fn env_from(list: &Field, errors: &mut Errors) {
    for source in list.items() {
        let prefix = source.at("prefix");
        if !prefix.str().is_empty() {
            check(&prefix, variable_name, errors);
        }
        let mut kinds = 0;
        for kind in ["configMapRef", "secretRef"] {
            let part = source.at(kind);
            if part.is_set() {
                kinds += 1;
                required_check(&part.at("name"), names::dns1123_subdomain, errors);
            }
        }
        match kinds {
            0 => errors.invalid(&list.with(&EMPTY), "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&list.with(&EMPTY), "may not have more than one field specified at a time"),
        }
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Everything of a pod that the downward API can name; not all of it may be used everywhere.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `metadata.labels['a']` as (`metadata.labels`, `a`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// An `ObjectFieldSelector` that may name one of `allowed`.
pub fn field_selector(selector: &Field, allowed: &[&str], errors: &mut Errors) {
    let (version, path) = (selector.at("apiVersion"), selector.at("fieldPath"));
    if !required(&version, errors) || !required(&path, errors) {
        return;
    }
    let cannot = |why: String, errors: &mut Errors| errors.invalid(&path, format!("error converting fieldPath: {why}"));
    if version.str() != "v1" {
        return cannot(format!("unsupported pod version: {}", version.str()), errors);
    }
    match subscript(path.str()) {
        Some(("metadata.annotations", key)) => {
            check(&selector.with(&key.to_lowercase().into()), names::qualified_name, errors)
        }
        Some(("metadata.labels", key)) => check(&selector.with(&key.into()), names::qualified_name, errors),
        Some(_) => cannot(format!("field label does not support subscript: {}", path.str()), errors),
        None => {
            let name = if path.str() == "spec.host" { "spec.nodeName" } else { path.str() };
            if !FIELDS.contains(&name) {
                return cannot(format!("field label not supported: {name}"), errors);
            }
            checks::one_of(&path.with(&name.into()), allowed, errors);
        }
    }
}

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A `ResourceFieldSelector`; in a volume it must name its container.
pub fn resource_selector(selector: &Field, in_volume: bool, errors: &mut Errors) {
    let (container, resource) = (selector.at("containerName"), selector.at("resource"));
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.str().starts_with(p));
    if in_volume && container.str().is_empty() {
        errors.required(&container, "");
    } else if required(&resource, errors) && !huge {
        checks::one_of(&resource, RESOURCES, errors);
    }
    divisor(selector, resource.str(), huge, errors);
}

fn divisor(selector: &Field, resource: &str, huge: bool, errors: &mut Errors) {
    const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let divisor = selector.at("divisor");
    let Some(quantity) = Quantity::from_value(divisor.value).filter(|q| !q.is_zero()) else { return };
    let (allowed, listed, of) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"][..], "1m and 1", "cpu"),
        "memory" => (BYTES, "", "memory"),
        "ephemeral-storage" => (BYTES, "", "local ephemeral storage"),
        _ if huge => (BYTES, "", "hugepages"),
        _ => return,
    };
    if !allowed.contains(&quantity.to_string().as_str()) {
        let listed = if listed.is_empty() { allowed.join(", ") } else { listed.into() };
        let resource_kind = if of == "hugepages" { "hugepages resource".into() } else { format!("{of} resource") };
        let why = format!("only divisor's values {listed} are supported with the {resource_kind}");
        errors.invalid(&divisor.with(&resource.into()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::{Value, value};

    #[test]
    fn variables() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({"name": "a.b c", "value": "x"}), &[]),
            (value!({"name": ""}), &["env[0].name: Required value"]),
            (
                value!({"name": "a=b"}),
                &[
                    r#"env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
                ],
            ),
            (
                value!({"name": "a", "valueFrom": {}}),
                &[
                    r#"env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#,
                ],
            ),
            (
                value!({"name": "a", "value": "b", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}),
                &[r#"env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#],
            ),
            (
                value!({"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['x']"}}}),
                &[],
            ),
            (
                value!({"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "nope"}}}),
                &[
                    r#"env[0].valueFrom.fieldRef.fieldPath: Invalid value: "nope": error converting fieldPath: field label not supported: nope"#,
                ],
            ),
            (
                value!({"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}),
                &[
                    r#"env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#,
                ],
            ),
            (
                value!({"name": "a", "valueFrom": {"secretKeyRef": {"name": "s"}}}),
                &["env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
        ];
        for (variable, expected) in cases {
            let root = value!({"env": [variable]});
            let mut errors = Errors::new();
            env(&Field::root(&root).at("env"), &mut errors);
            assert_eq!(texts(&errors), expected);
        }
    }

    #[test]
    fn sources() {
        let root = value!({"envFrom": [{"prefix": "P="}, {"secretRef": {"name": "s"}}, {"configMapRef": {}, "secretRef": {"name": "x"}}]});
        let mut errors = Errors::new();
        env_from(&Field::root(&root).at("envFrom"), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                r#"envFrom[0].prefix: Invalid value: "P=": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
                r#"envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
                "envFrom[2].configMapRef.name: Required value",
                r#"envFrom: Invalid value: "": may not have more than one field specified at a time"#,
            ]
        );
    }
}
