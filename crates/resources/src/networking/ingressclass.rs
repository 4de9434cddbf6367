//! IngressClass: which controller makes Ingresses real.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct IngressClass;

static INFO: Info = Info {
    singular: "ingressclass",
    namespaced: false,
    generation: true,
    ..Info::stored("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
};

/// Marks the class of Ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const MAX_CONTROLLER: usize = 250;

/// Whether this is the class of Ingresses that name none.
pub fn is_default(class: &Value) -> bool {
    class["metadata"]["annotations"][DEFAULT_CLASS].str() == "true"
}

impl Resource for IngressClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let Some(parameters) = object.get_mut("spec").and_then(|spec| spec.get_mut("parameters")) else { return };
        if !parameters.is_null() {
            parameters.set_default("scope", "Cluster");
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let controller = spec.at("controller");
        if controller.str().len() > MAX_CONTROLLER {
            errors.too_long(&controller, MAX_CONTROLLER);
        }
        checks::domain_prefixed_path(&controller, errors);
        let parameters = spec.at("parameters");
        if parameters.is_set() {
            reference(&parameters, errors);
            scope(&parameters, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        checks::immutable(&new.at("spec").at("controller"), &old["spec"]["controller"], errors);
        self.validate(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Controller", "string", "Controller that is responsible for handling this class"),
                Column::new("Parameters", "string", "A reference to a resource with additional parameters"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, mut name) = (&object["spec"], object["metadata"]["name"].str().to_string());
        if is_default(object) {
            name += " (default)";
        }
        let parameters = &spec["parameters"];
        let cell = match (parameters.is_null(), parameters["apiGroup"].as_str()) {
            (true, _) => "<none>".into(),
            (_, Some(group)) => format!("{}.{group}/{}", parameters["kind"].str(), parameters["name"].str()),
            (_, None) => format!("{}/{}", parameters["kind"].str(), parameters["name"].str()),
        };
        vec![name.into(), spec["controller"].str().into(), cell.into(), age(object, now)]
    }
}

/// A reference to an object of any kind: a `TypedLocalObjectReference`.
pub(super) fn reference(to: &Field, errors: &mut Errors) {
    let group = to.at("apiGroup");
    if group.is_set() {
        checks::check(&group, names::dns1123_subdomain, errors);
    }
    for field in ["kind", "name"] {
        checks::required_check(&to.at(field), names::path_segment, errors);
    }
}

fn scope(parameters: &Field, errors: &mut Errors) {
    let (scope, namespace) = (parameters.at("scope"), parameters.at("namespace"));
    match (scope.value.as_str(), namespace.is_set()) {
        (None, _) => errors.required(&scope, ""),
        (Some("Cluster"), true) => errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), false) => {}
        (Some("Namespace"), true) => checks::check(&namespace, names::dns1123_label, errors),
        (Some("Namespace"), false) => errors.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
        _ => errors.not_supported(&scope, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn class(controller: &str, parameters: Value) -> Value {
        value!({"metadata": {"name": "c"}, "spec": {"controller": controller, "parameters": parameters}})
    }

    #[test]
    fn classes() {
        let to = |scope: Value, namespace: Value| {
            class(
                "a.b/c",
                value!({"apiGroup": "x.y", "kind": "K", "name": "n", "scope": scope, "namespace": namespace}),
            )
        };
        let cases: &[(Value, &[&str])] = &[
            (to(Value::Null, Value::Null), &[]),
            (to("Namespace".into(), "n".into()), &[]),
            (class("", Value::Null), &["spec.controller: Required value"]),
            (
                class("nope", Value::Null),
                &["spec.controller: Invalid value: \"nope\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
            ),
            (
                class("a.b/c d", Value::Null),
                &[
                    "spec.controller: Invalid value: \"c d\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ],
            ),
            (
                to("Namespace".into(), Value::Null),
                &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
            (
                to("Cluster".into(), "n".into()),
                &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
            ),
            (
                to("Galaxy".into(), Value::Null),
                &["spec.parameters.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespace\""],
            ),
            (
                class("a.b/c", value!({})),
                &["spec.parameters.kind: Required value", "spec.parameters.name: Required value"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&IngressClass, object.clone()), *expected, "{object:?}");
        }
    }

    #[test]
    fn the_controller_stays() {
        let (mut old, new) = (class("a.b/c", Value::Null), class("a.b/d", Value::Null));
        assert_eq!(
            update(&IngressClass, "", old.clone(), new),
            ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]
        );
        old.set_path(&["metadata", "annotations", DEFAULT_CLASS], "true");
        assert_eq!(cells(&IngressClass, &old), ["c (default)", "a.b/c", "<none>", "<unknown>"]);
        old.set_path(&["spec", "parameters"], value!({"apiGroup": "x.y", "kind": "K", "name": "n"}));
        assert_eq!(cells(&IngressClass, &old)[2], "K.x.y/n");
    }
}
