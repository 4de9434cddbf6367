//! ServiceAccount: who a pod is.

use crate::resource::{Column, Context, Info, Resource, Subresource, Verb, age, name};
use canopus_api::{Time, Value, value};

pub struct ServiceAccount;

static INFO: Info = Info {
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        kind: ("authentication.k8s.io", "v1", "TokenRequest"),
        verbs: Verb::CREATE,
    }],
    ..Info::stored("", "v1", "ServiceAccount", "serviceaccounts")
};

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Resource for ServiceAccount {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        only_names(object);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value, _cx: &Context) {
        only_names(new);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let set = |object: &Value| !object["metadata"]["annotations"][ENFORCE_MOUNTABLE].is_null();
        if set(object) && !old.is_some_and(set) {
            let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
            return vec![format!("metadata.annotations[{ENFORCE_MOUNTABLE}]: {why}")];
        }
        Vec::new()
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), age(object, now)]
    }
}

/// Of references to secrets only the names are kept.
fn only_names(object: &mut Value) {
    for secret in object.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        *secret = match secret.get("name") {
            Some(name) => value!({"name": name}),
            None => Value::object(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    #[test]
    fn secrets_are_names_and_the_old_annotation_is_warned_about_once() {
        let mut object = value!({"secrets": [{"name": "a", "namespace": "b"}],
            "metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
        ServiceAccount.prepare_create(&mut object, &context(""));
        assert_eq!(object["secrets"], value!([{"name": "a"}]));
        assert_eq!(ServiceAccount.warnings(&object, None).len(), 1);
        assert_eq!(ServiceAccount.warnings(&object, Some(&object)).len(), 0);
    }
}
