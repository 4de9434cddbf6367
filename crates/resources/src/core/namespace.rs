//! Namespace: a scope for names. It lives until its controller has emptied it and taken the finalizers from its spec.

use crate::resource::{Column, Context, Info, Resource, Subresource, Verb, age, facts_with_name, name};
use crate::strategy::keep;
use crate::{checks, metadata};
use canopus_api::{Errors, Facts, Field, Time, Value, labels, names, value};

pub struct Namespace;

static INFO: Info = Info {
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
    subresources: &[
        Subresource { name: "finalize", kind: ("", "v1", "Namespace"), verbs: &[Verb::Update] },
        Subresource::status("", "v1", "Namespace"),
    ],
    selectable_fields: &["name", "status.phase"],
    name: names::dns1123_label,
    ..Info::stored("", "v1", "Namespace", "namespaces")
};

const FINALIZER: &str = "kubernetes";

impl Resource for Namespace {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let name = object["metadata"]["name"].clone();
        if !name.is_empty() {
            object.set_path(&["metadata", "labels", labels::METADATA_NAME], name);
        }
        let status = object.ensure_object().entry("status", Value::object);
        if status["phase"].is_empty() {
            status.set("phase", "Active");
        }
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        // The name may have been generated since.
        self.default(object);
        object.set("status", value!({"phase": "Active"}));
        let finalizers = object.obj_mut("spec").entry("finalizers", || Value::Null).ensure_array();
        if !finalizers.iter().any(|f| f.str() == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        match cx.subresource {
            "status" => keep(new, old, "spec"),
            "finalize" => keep(new, old, "status"),
            _ => ["spec", "status"].iter().for_each(|field| keep(new, old, field)),
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (spec, field) = (object.at("spec"), "finalizers");
        for finalizer in spec.value[field].items() {
            finalizer_name(&spec.at(field).with(finalizer), errors);
        }
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        match cx.subresource {
            "status" => phase(new, errors),
            "finalize" => {
                new.at("spec").at("finalizers").items().for_each(|finalizer| finalizer_name(&finalizer, errors));
            }
            _ => self.validate(new, errors),
        }
    }

    fn facts(&self, object: &Value) -> Facts {
        facts_with_name(object, INFO.selectable_fields)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Status", "string", "The status of the namespace"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["status"]["phase"].str().into(), age(object, now)]
    }

    fn finalizing(&self, object: &Value) -> bool {
        !object["spec"]["finalizers"].is_empty()
    }
}

fn finalizer_name(finalizer: &Field, errors: &mut Errors) {
    checks::check(finalizer, names::qualified_name, errors);
    metadata::finalizer_name(finalizer, errors);
}

fn phase(object: &Field, errors: &mut Errors) {
    let (status, deleting) = (object.at("status"), !object.value["metadata"]["deletionTimestamp"].is_null());
    let phase = status.value["phase"].str();
    // Upstream's path says `Phase`.
    let field = status.at("Phase");
    let shown: Value = phase.into();
    if !deleting && phase != "Active" {
        errors.invalid(&field.with(&shown), "may only be 'Active' if `deletionTimestamp` is empty");
    } else if deleting && phase != "Terminating" {
        errors.invalid(&field.with(&shown), "may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, context, create, update};

    #[test]
    fn new_namespaces_are_active_and_finalized_by_kubernetes() {
        let mut object = value!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x.y/z"]}});
        Namespace.prepare_create(&mut object, &context(""));
        assert_eq!(
            object,
            value!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["x.y/z", "kubernetes"]}, "status": {"phase": "Active"}})
        );
        assert!(Namespace.finalizing(&object));
        assert_eq!(Namespace.facts(&object).field("name"), Some("a"));
        assert_eq!(cells(&Namespace, &object), ["a", "Active", "<unknown>"]);
        assert_eq!(
            create(&Namespace, value!({"spec": {"finalizers": ["x"]}})),
            [
                "spec.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
    }

    #[test]
    fn each_subresource_changes_its_own() {
        let old =
            value!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let sent = value!({"metadata": {"name": "a", "annotations": {"b": "c"}}, "spec": {"finalizers": []},
            "status": {"phase": "Terminating"}});
        for (subresource, spec, phase) in [("", 1, "Active"), ("finalize", 0, "Active"), ("status", 1, "Terminating")] {
            let mut new = sent.clone();
            Namespace.prepare_update(&mut new, &old, &context(subresource));
            assert_eq!(new["spec"]["finalizers"].items().len(), spec, "{subresource}");
            assert_eq!(new["status"]["phase"].str(), phase, "{subresource}");
            assert_eq!(new["metadata"]["annotations"]["b"].str(), "c", "{subresource}");
        }
        let why = "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
        assert_eq!(update(&Namespace, "status", old, sent), [why]);
    }
}
