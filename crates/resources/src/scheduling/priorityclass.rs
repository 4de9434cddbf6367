//! PriorityClass: how much a pod matters.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct PriorityClass;

static INFO: Info = Info {
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    generation: true,
    ..Info::stored("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
};

pub const SYSTEM_PREFIX: &str = "system-";
/// What users may give at most.
const HIGHEST: i64 = 1_000_000_000;
/// The system's own classes: name, value, description.
pub const SYSTEM: &[(&str, i64, &str)] = &[
    (
        "system-node-critical",
        2 * HIGHEST + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2 * HIGHEST,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];
const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];

impl Resource for PriorityClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        object.set_default("preemptionPolicy", "PreemptLowerPriority");
    }

    /// It has a generation, but nobody counts.
    fn raises_generation(&self, _new: &Value, _old: &Value) -> bool {
        false
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (meta, value, policy) = (object.at("metadata"), object.at("value"), object.at("preemptionPolicy"));
        let name = meta.at("name");
        if name.str().starts_with(SYSTEM_PREFIX) {
            if let Err(why) = known(object.value) {
                let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
                errors.forbidden(&name, format!("{reserved}{why}"));
            }
        } else if value.int() > HIGHEST {
            errors.forbidden(&value, format!("maximum allowed value of a user defined priority is {HIGHEST}"));
        }
        if policy.is_set() {
            checks::required_one_of(&policy, POLICIES, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        let value = new.at("value");
        if value.int() != old["value"].int() {
            errors.forbidden(&value, "may not be changed in an update.");
        }
        checks::immutable(&new.at("preemptionPolicy"), &old["preemptionPolicy"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Value", "integer", "The priority of pods of this class"),
                Column::new("Global-Default", "boolean", "Whether pods without a class are of this one"),
                Column::AGE,
                Column::new("PreemptionPolicy", "string", "Whether pods of this class drive others out"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let default = object["globalDefault"].bool();
        let policy = object["preemptionPolicy"].str();
        vec![name(object), object["value"].int().into(), default.into(), age(object, now), policy.into()]
    }
}

/// Whether a class with a system name is exactly one of the system's.
fn known(object: &Value) -> Result<(), String> {
    let name = object["metadata"]["name"].str();
    let Some((_, value, _)) = SYSTEM.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if object["value"].int() != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if object["globalDefault"].bool() {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn class(name: &str, number: i64) -> Value {
        value!({"metadata": {"name": name}, "value": number})
    }

    #[test]
    fn names_and_values() {
        let cases: &[(Value, &[&str])] = &[
            (class("a", HIGHEST), &[]),
            (
                class("a", HIGHEST + 1),
                &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            (class("system-node-critical", 2_000_001_000), &[]),
            (
                class("system-node-critical", 1),
                &[
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
                ],
            ),
            (
                class("system-mine", 1),
                &[
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&PriorityClass, object.clone()), *expected);
        }
    }

    #[test]
    fn only_description_and_global_default_change() {
        let mut new = class("a", 1);
        new.set("globalDefault", true);
        assert_eq!(update(&PriorityClass, "", class("a", 1), new.clone()), Vec::<String>::new());
        assert_eq!(cells(&PriorityClass, &new), ["a", "1", "true", "<unknown>", ""]);
        new.set("value", 2);
        new.set("preemptionPolicy", "Never");
        assert_eq!(
            update(&PriorityClass, "", class("a", 1), new),
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ]
        );
    }
}
