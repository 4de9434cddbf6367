//! What RoleBindings and ClusterRoleBindings have in common.

use super::GROUP;
use crate::checks;
use crate::resource::{Column, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

/// Fills in the groups that roles, users and groups are of.
pub fn default(object: &mut Value) {
    if object["roleRef"]["apiGroup"].is_empty() {
        object.obj_mut("roleRef").insert("apiGroup", GROUP);
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["apiGroup"].is_empty() && matches!(subject["kind"].str(), "User" | "Group") {
            subject.set("apiGroup", GROUP);
        }
    }
}

/// `roles` are the kinds that may be bound.
pub fn validate(object: &Field, roles: &[&str], namespaced: bool, errors: &mut Errors) {
    let role = object.at("roleRef");
    checks::one_of(&role.at("apiGroup"), &[GROUP], errors);
    checks::one_of(&role.at("kind"), roles, errors);
    checks::required_check(&role.at("name"), names::path_segment, errors);
    object.at("subjects").items().for_each(|item| subject(&item, namespaced, errors));
}

/// A binding is to one role for good.
pub fn validate_update(new: &Field, old: &Value, errors: &mut Errors) {
    let role = new.at("roleRef");
    if ["apiGroup", "kind", "name"].iter().any(|key| role.value[*key].str() != old["roleRef"][*key].str()) {
        errors.invalid(&role, "cannot change roleRef");
    }
}

fn subject(subject: &Field, namespaced: bool, errors: &mut Errors) {
    let (name, group, kind) = (subject.at("name"), subject.at("apiGroup"), subject.at("kind"));
    let named = checks::required(&name, errors);
    match kind.str() {
        "ServiceAccount" => {
            if named {
                checks::check(&name, names::dns1123_subdomain, errors);
            }
            checks::one_of(&group, &[""], errors);
            if !namespaced {
                checks::required(&subject.at("namespace"), errors);
            }
        }
        "User" | "Group" => checks::one_of(&group, &[GROUP], errors),
        _ => checks::one_of(&kind, &["ServiceAccount", "User", "Group"], errors),
    }
}

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::new("Role", "string", "The role that is bound"),
    Column::AGE,
    Column::wide("Users", "string", "Users in the binding"),
    Column::wide("Groups", "string", "Groups in the binding"),
    Column::wide("ServiceAccounts", "string", "ServiceAccounts in the binding"),
];

pub fn row(object: &Value, now: Time) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let subjects = object["subjects"].items().iter().filter(|s| s["kind"].str() == kind);
        let names: Vec<String> = subjects.map(shown).collect();
        names.join(", ").into()
    };
    let role = &object["roleRef"];
    let role = format!("{}/{}", role["kind"].str(), role["name"].str());
    vec![name(object), role.into(), age(object, now), of("User"), of("Group"), of("ServiceAccount")]
}

fn shown(subject: &Value) -> String {
    match subject["kind"].str() {
        "ServiceAccount" => format!("{}/{}", subject["namespace"].str(), subject["name"].str()),
        _ => subject["name"].str().to_string(),
    }
}
