//! StorageVersionMigration: the wish that all objects of a resource be written again (KEP-4192).

use crate::checks;
use crate::policy::poddisruptionbudget::conditions;
use crate::resource::{Column, Context, Info, Resource, Subresource, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct StorageVersionMigration;

const GROUP: &str = "storagemigration.k8s.io";

static INFO: Info = Info {
    singular: "storageversionmigration",
    namespaced: false,
    unconditional_update: false,
    gate: "StorageVersionMigrator",
    subresources: &[Subresource::status(GROUP, "v1beta1", "StorageVersionMigration")],
    ..Info::stored(GROUP, "v1beta1", "StorageVersionMigration", "storageversionmigrations")
};

impl Resource for StorageVersionMigration {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, strategy::STATUS_METADATA);
        } else {
            strategy::keep(new, old, "status");
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let target = spec.at("resource");
        let (group, resource) = (target.at("group"), target.at("resource"));
        let joined = |field: &Field, why: Vec<String>, errors: &mut Errors| {
            if !why.is_empty() {
                errors.invalid(field, why.join(","));
            }
        };
        match resource.str().is_empty() {
            true => errors.required(&resource, "resource is required to be set"),
            false => joined(&resource, names::dns1035_label(resource.str()), errors),
        }
        if !group.str().is_empty() {
            joined(&group, names::dns1123_subdomain(group.str()), errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return status(&new.at("status"), &old["status"], errors);
        }
        self.validate(new, errors);
        checks::immutable(&new.at("spec"), &old["spec"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column { format: "", ..Column::NAME },
                Column::new("Resource", "string", "GroupResource to migrate"),
                Column::new("Status", "string", "Status of the migration"),
            ]
        }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let target = &object["spec"]["resource"];
        let resource = match (target["group"].str(), target["resource"].str()) {
            ("", resource) => resource.to_string(),
            (group, resource) => format!("{resource}.{group}"),
        };
        let found = |kind: &&&str| is(&object["status"], kind);
        let state = ["Succeeded", "Failed", "Running"].iter().find(found).unwrap_or(&"Unknown");
        vec![name(object), resource.into(), (*state).into()]
    }
}

fn is(status: &Value, kind: &str) -> bool {
    status["conditions"].items().iter().any(|c| c["type"].str() == kind && c["status"].str() == "True")
}

fn status(status: &Field, old: &Value, errors: &mut Errors) {
    let revision = status.at("resourceVersion");
    let number = |text: &str| !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if !revision.str().is_empty() && !number(revision.str()) {
        errors.invalid(&revision, "resource version is not well formed");
    }
    let list = status.at("conditions");
    conditions(&list, errors);
    let before = old["resourceVersion"].str();
    if !before.is_empty() && before != revision.str() {
        errors.invalid(&revision, "field is immutable");
    }
    if is(status.value, "Succeeded") && is(status.value, "Failed") {
        errors.invalid(&list, "Both success and failed conditions cannot be true at the same time");
    }
    for (kind, word) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(old, kind) && !is(status.value, kind) {
            errors.invalid(&list, format!("{word} condition cannot be set to false once it is true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn migrations() {
        let of = |resource: Value| value!({"metadata": {"name": "m"}, "spec": {"resource": resource}});
        let crons = of(value!({"group": "a.b", "resource": "crons"}));
        assert_eq!(create(&StorageVersionMigration, crons.clone()), [""; 0]);
        assert_eq!(
            create(&StorageVersionMigration, of(value!({}))),
            ["spec.resource.resource: Required value: resource is required to be set"]
        );
        assert_eq!(update(&StorageVersionMigration, "", crons.clone(), of(value!({"resource": "pods"}))).len(), 1);
        let with = |kind: &str, revision: &str| {
            let mut migration = crons.clone();
            migration.set(
                "status",
                value!({"resourceVersion": revision, "conditions": [{"type": kind, "status": "True",
                "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
            );
            migration
        };
        let status = |old: &Value, new: Value| update(&StorageVersionMigration, "status", old.clone(), new);
        assert_eq!(status(&crons, with("Running", "12")), [""; 0]);
        assert_eq!(status(&with("Running", "12"), with("Running", "13")).len(), 1);
        assert_eq!(status(&with("Succeeded", "12"), with("Running", "12")).len(), 1);
        assert_eq!(cells(&StorageVersionMigration, &with("Failed", "1")), ["m", "crons.a.b", "Failed"]);
    }
}
