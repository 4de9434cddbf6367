//! DeviceTaintRule: taints of all devices that a selector matches, as an administrator wants them (KEP-5055).

use super::rules;
use crate::policy::poddisruptionbudget::conditions;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name, since};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value};

pub struct DeviceTaintRule;

static INFO: Info = Info {
    singular: "devicetaintrule",
    namespaced: false,
    generation: true,
    subresources: &[Subresource::status("resource.k8s.io", "v1beta2", "DeviceTaintRule")],
    ..Info::stored("resource.k8s.io", "v1beta2", "DeviceTaintRule", "devicetaintrules")
};

const MAX_CONDITIONS: usize = 8;

impl Resource for DeviceTaintRule {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        object.remove("status");
        date(object, cx.now);
    }

    /// The time of a taint is that of its effect.
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, strategy::STATUS_METADATA);
        }
        strategy::keep(new, old, "status");
        let (taint, before) = (&new["spec"]["taint"], &old["spec"]["taint"]);
        if taint["effect"] != before["effect"] && taint["timeAdded"] == before["timeAdded"] {
            new.set_path(&["spec", "taint", "timeAdded"], cx.now);
        }
        date(new, cx.now);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let selector = spec.at("deviceSelector");
        type Check = fn(&Field, &mut Errors);
        for (field, check) in [("driver", rules::driver as Check), ("pool", rules::pool), ("device", rules::label)] {
            if selector.at(field).is_set() {
                check(&selector.at(field), errors);
            }
        }
        rules::taint(&spec.at("taint"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            let status = new.at("status");
            let list = status.at("conditions");
            conditions(&list, errors);
            let count = list.value.items().len();
            if count > MAX_CONDITIONS {
                errors.too_many(&list, count, MAX_CONDITIONS);
            }
            return;
        }
        // An effect that stays may be what it is.
        if new.value["spec"]["taint"]["effect"] != old["spec"]["taint"]["effect"] {
            return self.validate(new, errors);
        }
        let mut tolerated = new.value.clone();
        tolerated.set_path(&["spec", "taint", "effect"], "None");
        self.validate(&Field::root(&tolerated), errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Key", "string", "The taint key to be applied to a device. Must be a label name."),
                Column::new(
                    "Value",
                    "string",
                    "The taint value corresponding to the taint key. Must be a label value.",
                ),
                Column::new("Effect", "string", "What the taint does to claims and pods that do not tolerate it."),
                Column::new("TimeAdded", "string", "Since when the taint is there."),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let taint = &object["spec"]["taint"];
        let text = |field: &str| -> Value { taint[field].str().into() };
        let added = if taint["timeAdded"].is_null() { "".into() } else { since(taint["timeAdded"].str(), now) };
        vec![name(object), text("key"), text("value"), text("effect"), added, age(object, now)]
    }
}

fn date(object: &mut Value, now: Time) {
    if let Some(taint) = object.get_mut("spec").and_then(|s| s.get_mut("taint")).filter(|t| !t.is_null()) {
        taint.set_default("timeAdded", now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, create, update};
    use canopus_api::value;

    #[test]
    fn rules() {
        let rule = |selector: Value, effect: &str| value!({"metadata": {"name": "r"}, "spec": {"deviceSelector": selector, "taint": {"key": "a/b", "effect": effect}}});
        assert_eq!(
            create(&DeviceTaintRule, rule(value!({"driver": "a.b", "pool": "p/q", "device": "d"}), "None")),
            [""; 0]
        );
        assert_eq!(create(&DeviceTaintRule, rule(value!({"device": "A"}), "Never")).len(), 2);
        let old = rule(Value::Null, "NoSchedule");
        assert_eq!(update(&DeviceTaintRule, "", old.clone(), rule(Value::Null, "NoExecute")), [""; 0]);
        let odd = rule(Value::Null, "Odd");
        assert_eq!(update(&DeviceTaintRule, "", odd.clone(), odd), [""; 0]);
        let mut new = rule(Value::Null, "NoExecute");
        DeviceTaintRule.prepare_update(&mut new, &old, &context(""));
        assert_eq!(new["spec"]["taint"]["timeAdded"].str(), "1970-01-01T00:00:00Z");
    }
}
