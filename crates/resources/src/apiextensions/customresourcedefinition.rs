//! CustomResourceDefinition: a resource of the cluster's own making (upstream `apiextensions-apiserver`).

use super::conditions::{self, FINALIZER};
use super::rules;
use crate::resource::{Context, Info, Resource, Subresource};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, value};

pub struct CustomResourceDefinition;

static INFO: Info = Info {
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[Subresource::status("apiextensions.k8s.io", "v1", "CustomResourceDefinition")],
    generation: true,
    unconditional_update: false,
    ..Info::stored("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
};

impl Resource for CustomResourceDefinition {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.obj_mut("spec");
        let names = spec.entry("names", Value::object);
        let kind = names["kind"].str().to_string();
        if names["singular"].str().is_empty() {
            names.set("singular", kind.to_lowercase());
        }
        if names["listKind"].str().is_empty() && !kind.is_empty() {
            names.set("listKind", format!("{kind}List"));
        }
        let conversion = spec.entry("conversion", || value!({"strategy": "None"}));
        if let Some(service) = conversion.get_mut("webhook").and_then(|w| w.get_mut("clientConfig")?.get_mut("service"))
        {
            service.set_default("port", 443);
        }
        add_storage_version(object, true);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.set("status", value!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": null}));
        object.obj_mut("status").remove("conditions");
        add_storage_version(object, false);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, &[]);
        } else {
            strategy::keep(new, old, "status");
            add_storage_version(new, false);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        rules::validate(object, None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            rules::names(&new.at("status").at("acceptedNames"), errors);
        } else {
            rules::validate(new, Some(old), errors);
        }
    }

    /// Instances go first.
    fn before_delete(&self, object: &mut Value, now: Time) {
        let finalizers = object.obj_mut("metadata").entry("finalizers", || Value::Array(Vec::new())).ensure_array();
        if !finalizers.iter().any(|f| f.str() == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        conditions::set(object, "Terminating", "True", "InstanceDeletionPending", why, now);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(rules::unrecognized_formats).unwrap_or_default();
        let found = rules::unrecognized_formats(object).into_iter().filter(|f| !known.contains(f));
        found.map(|format| format!("unrecognized format {format:?}")).collect()
    }
}

/// The storage version is one that objects may be stored in.
fn add_storage_version(object: &mut Value, only_if_none: bool) {
    let versions = object["spec"]["versions"].items();
    let Some(storage) = versions.iter().find(|v| v["storage"].bool()).map(|v| v["name"].str().to_string()) else {
        return;
    };
    let stored = object.obj_mut("status").entry("storedVersions", || Value::Array(Vec::new())).ensure_array();
    if stored.is_empty() || !only_if_none && !stored.iter().any(|v| v.str() == storage) {
        stored.push(storage.into());
    }
}
