//! StorageClass: how volumes are made that claims ask for.

use crate::checks::{self, Seen, immutable};
use crate::core::pod::warnings::old_label;
use crate::resource::{Column, Context, Info, Resource, age};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct StorageClass;

static INFO: Info = Info {
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    ..Info::stored("storage.k8s.io", "v1", "StorageClass", "storageclasses")
};

/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

/// Whether this is the class of claims that name none.
pub fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    [DEFAULT_CLASS, BETA_DEFAULT_CLASS].iter().any(|key| annotations[*key].str() == "true")
}

impl Resource for StorageClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        object.set_default("reclaimPolicy", "Delete");
        object.set_default("volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        provisioner(&object.at("provisioner"), errors);
        parameters(&object.at("parameters"), errors);
        let policy = object.at("reclaimPolicy");
        if !policy.str().is_empty() {
            checks::one_of(&policy, &["Delete", "Retain"], errors);
        }
        let mode = object.at("volumeBindingMode");
        if mode.is_unset() {
            errors.required(&mode, "");
        } else {
            checks::one_of(&mode, &["Immediate", "WaitForFirstConsumer"], errors);
        }
        topologies(&object.at("allowedTopologies"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(&new.at(field), &old[field], errors);
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (root, mut out) = (Field::root(object), Vec::new());
        for term in root.at("allowedTopologies").items() {
            for expression in term.at("matchLabelExpressions").items() {
                let key = expression.at("key");
                out.extend(old_label(key.str()).map(|why| format!("{}: {why}", key.path())));
            }
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Provisioner", "string", "provisioner indicates the type of the provisioner."),
                Column::new("ReclaimPolicy", "string", "What becomes of the volumes that are no longer claimed"),
                Column::new("VolumeBindingMode", "string", "When claims are provisioned and bound"),
                Column::new("AllowVolumeExpansion", "string", "Whether volumes of this class can grow"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let or = |field: &str, otherwise: &'static str| object[field].as_str().unwrap_or(otherwise).into();
        let mut name = object["metadata"]["name"].str().to_string();
        if is_default(object) {
            name += " (default)";
        }
        vec![
            name.into(),
            object["provisioner"].str().into(),
            or("reclaimPolicy", "Delete"),
            or("volumeBindingMode", "Immediate"),
            object["allowVolumeExpansion"].bool().into(),
            age(object, now),
        ]
    }
}

/// The name of who makes the volumes: a qualified name, whatever its case.
pub(super) fn provisioner(field: &Field, errors: &mut Errors) {
    if checks::required(field, errors) {
        for why in names::qualified_name(&field.str().to_lowercase()) {
            errors.invalid(&field.with(&field.str().to_lowercase().into()), why);
        }
    }
}

/// The parameters for whoever makes the volumes: not too many, not too long.
pub(super) fn parameters(field: &Field, errors: &mut Errors) {
    let entries = || field.value.entries();
    if entries().count() > MAX_PARAMETERS {
        return errors.too_long(field, MAX_PARAMETERS);
    }
    if entries().any(|(key, _)| key.is_empty()) {
        errors.invalid(&field.with(&"".into()), "field can not be empty.");
    }
    if entries().map(|(key, value)| key.len() + value.str().len()).sum::<usize>() > MAX_PARAMETERS_SIZE {
        errors.too_long(field, MAX_PARAMETERS_SIZE);
    }
}

/// `TopologySelectorTerm`s, none of which says the same as another.
fn topologies(list: &Field, errors: &mut Errors) {
    let mut known: Vec<Vec<(&str, Vec<&str>)>> = Vec::new();
    for (term, value) in list.items().zip(list.value.items()) {
        let (expressions, mut keys) = (term.at("matchLabelExpressions"), Seen::new());
        for expression in expressions.items() {
            topology(&expression, errors);
            let key = expression.at("key");
            if !keys.insert(key.str().into()) {
                errors.duplicate(&key);
            }
        }
        let means = meaning(&value["matchLabelExpressions"]);
        if means.is_empty() || known.contains(&means) {
            errors.duplicate(&expressions.with(&"".into()));
        }
        known.push(means);
    }
}

fn topology(expression: &Field, errors: &mut Errors) {
    let (key, values, mut seen) = (expression.at("key"), expression.at("values"), Seen::new());
    checks::required(&values, errors);
    for value in values.items() {
        if !seen.insert(value.str().into()) {
            errors.duplicate(&value);
        }
    }
    checks::check(&key.with(&key.str().into()), names::qualified_name, errors);
}

/// What a term's expressions say, whatever their order.
fn meaning(expressions: &Value) -> Vec<(&str, Vec<&str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = expressions
        .items()
        .iter()
        .map(|e| {
            let mut values: Vec<&str> = e["values"].items().iter().map(Value::str).collect();
            values.sort_unstable();
            values.dedup();
            (e["key"].str(), values)
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn classes() {
        let zone = value!({"key": "zone", "values": ["a", "b"]});
        let again = value!({"key": "zone", "values": ["b", "a", "a"]});
        let cases: &[(Value, &[&str])] = &[
            (value!({"provisioner": "example.com/Disks", "parameters": {"a": ""}}), &[]),
            (
                value!({"reclaimPolicy": "Recycle", "volumeBindingMode": "Later", "parameters": {"": "x"}}),
                &[
                    "provisioner: Required value",
                    "parameters: Invalid value: \"\": field can not be empty.",
                    "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                    "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
            (
                value!({"provisioner": "p", "allowedTopologies": [
                    {"matchLabelExpressions": [zone]}, {"matchLabelExpressions": [again]}]}),
                &[
                    "allowedTopologies[1].matchLabelExpressions[0].values[2]: Duplicate value: \"a\"",
                    "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&StorageClass, object.clone()), *expected, "{object:?}");
        }
    }

    #[test]
    fn what_volumes_are_made_of_does_not_change() {
        let class = |provisioner: &str, grows: bool| value!({"metadata": {"name": "fast", "annotations": {(DEFAULT_CLASS): "true"}}, "provisioner": provisioner, "allowVolumeExpansion": grows});
        assert!(update(&StorageClass, "", class("p", false), class("p", true)).is_empty());
        assert_eq!(
            update(&StorageClass, "", class("p", false), class("q", false)),
            ["provisioner: Invalid value: \"q\": field is immutable"]
        );
        assert_eq!(
            cells(&StorageClass, &class("p", true)),
            ["fast (default)", "p", "Delete", "Immediate", "true", "<unknown>"]
        );
    }
}
