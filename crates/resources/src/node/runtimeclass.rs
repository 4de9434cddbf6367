//! RuntimeClass: which of a node's container runtimes runs a pod, what that costs, and where it is to be had (KEP-585).

use crate::checks;
use crate::core::pod::warnings::old_label;
use crate::core::pod::{requirements, scheduling};
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct RuntimeClass;

static INFO: Info = Info {
    singular: "runtimeclass",
    namespaced: false,
    unconditional_update: false,
    create_on_update: true,
    ..Info::stored("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
};

impl Resource for RuntimeClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        checks::required_check(&object.at("handler"), names::dns1123_label, errors);
        let (overhead, scheduling) = (object.at("overhead"), object.at("scheduling"));
        if overhead.is_set() {
            requirements::overhead(&overhead.with(&overhead.value["podFixed"]), errors);
        }
        checks::labels(&scheduling.at("nodeSelector"), errors);
        tolerations(&scheduling.at("tolerations"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        checks::immutable(&new.at("handler"), &old["handler"], errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let keys = object["scheduling"]["nodeSelector"].entries().map(|(key, _)| key);
        keys.filter_map(|key| old_label(key)).map(|why| format!("scheduling.nodeSelector: {why}")).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Handler", "string", ""), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["handler"].str().into(), age(object, now)]
    }
}

/// Tolerations that are pods' and no two of which are the same but for their time.
fn tolerations(list: &Field, errors: &mut Errors) {
    scheduling::tolerations(list, errors);
    let key = |t: &Value| ["key", "operator", "value", "effect"].map(|field| t[field].str().to_string());
    let mut seen = std::collections::BTreeSet::new();
    for toleration in list.items() {
        if !seen.insert(key(toleration.value)) {
            errors.duplicate(&toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn classes() {
        let cases: &[(Value, &[&str])] = &[
            (
                value!({"handler": "runc", "overhead": {"podFixed": {"memory": "1Mi"}}, "scheduling": {"nodeSelector": {"a": "b"},
                    "tolerations": [{"key": "a", "operator": "Exists"}]}}),
                &[],
            ),
            (value!({}), &["handler: Required value"]),
            (
                value!({"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}, "scheduling": {
                    "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]}}),
                &[
                    "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "scheduling.tolerations[1]: Duplicate value: {\"key\":\"a\",\"operator\":\"Exists\"}",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&RuntimeClass, object.clone()), *expected, "{object:?}");
        }
        let class = |handler: &str| value!({"metadata": {"name": "r"}, "handler": handler});
        assert_eq!(
            update(&RuntimeClass, "", class("a"), class("b")),
            ["handler: Invalid value: \"b\": field is immutable"]
        );
        assert_eq!(cells(&RuntimeClass, &class("a")), ["r", "a", "<unknown>"]);
        let old = value!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}});
        assert_eq!(
            RuntimeClass.warnings(&old, None),
            ["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
        );
    }
}
