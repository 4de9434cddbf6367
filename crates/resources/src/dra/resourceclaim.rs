//! ResourceClaim: devices that pods ask for, and which they got.

use super::{request, status};
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value};

pub struct ResourceClaim;

static INFO: Info = Info {
    singular: "resourceclaim",
    subresources: &[Subresource::status("resource.k8s.io", "v1", "ResourceClaim")],
    ..Info::stored("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
};

impl Resource for ResourceClaim {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            request::default(spec);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource != "status" {
            return strategy::keep(new, old, "status");
        }
        strategy::only_status(new, old, strategy::STATUS_METADATA);
        drop_deallocated(new, &old["status"]);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        request::spec(&object.at("spec"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource != "status" {
            return checks::immutable(&new.at("spec"), &old["spec"], errors);
        }
        let requests = request::names_of(&new.value["spec"]["devices"]);
        let deleting = !new.value["metadata"]["deletionTimestamp"].is_null();
        status::validate(&new.at("status"), &old["status"], deleting, &requests, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const STATE: &str = "A summary of the current state (allocated, pending, reserved, etc.).";
        const { &[Column::NAME, Column::new("State", "string", STATE), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (status, deleted) = (&object["status"], !object["metadata"]["deletionTimestamp"].is_null());
        let mut states = Vec::new();
        states.extend(deleted.then_some("deleted"));
        if status["allocation"].is_null() {
            states.extend((!deleted).then_some("pending"));
        } else {
            states.push("allocated");
            states.extend((!status["reservedFor"].is_empty()).then_some("reserved"));
        }
        vec![name(object), states.join(",").into(), age(object, now)]
    }
}

/// What drivers said about devices that are no longer the claim's goes.
fn drop_deallocated(new: &mut Value, old: &Value) {
    let (before, now) = (status::allocated(old), status::allocated(&new["status"]));
    let Some(status) = new.get_mut("status") else { return };
    let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    let gone = |device: &Value| {
        let id = status::device_id(device);
        before.contains(&id) && !now.contains(&id)
    };
    devices.retain(|device| !gone(device));
    if devices.is_empty() {
        status.remove("devices");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn claim(devices: Value) -> Value {
        value!({"metadata": {"name": "c"}, "spec": {"devices": devices}})
    }

    fn simple() -> Value {
        claim(value!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}},
            {"name": "nic", "firstAvailable": [{"name": "fast", "deviceClassName": "a"}, {"name": "slow", "deviceClassName": "b", "allocationMode": "All"}]}],
            "constraints": [{"requests": ["gpu", "nic/fast"], "matchAttribute": "a.b/numa"}],
            "config": [{"requests": ["gpu"], "opaque": {"driver": "a.b", "parameters": {}}}]}))
    }

    #[test]
    fn defaults_and_rules() {
        let mut object = simple();
        ResourceClaim.default(&mut object);
        let requests = &object["spec"]["devices"]["requests"];
        assert_eq!(requests[0]["exactly"]["count"].int(), 1);
        assert_eq!(
            requests[1]["firstAvailable"][1],
            value!({"name": "slow", "deviceClassName": "b", "allocationMode": "All"})
        );
        let cases: &[(Value, &[&str])] = &[
            (simple(), &[]),
            (
                claim(
                    value!({"requests": [{"name": "a"}, {"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "Some"}}]}),
                ),
                &[
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                    "spec.devices.requests[1].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
                    "spec.devices.requests[1]: Duplicate value: \"a\"",
                ],
            ),
            (
                claim(value!({"constraints": [{"requests": ["x"], "matchAttribute": "numa"}, {}]})),
                &[
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"x\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a domain and a name separated by a slash",
                    "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                ],
            ),
            (
                claim(
                    value!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Exists", "value": "v", "effect": "Never"}]}}]}),
                ),
                &[
                    "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
                    "spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&ResourceClaim, object.clone()), *expected, "{object:?}");
        }
        let mut other = simple();
        other.set_path(&["spec", "devices", "config"], value!([]));
        assert_eq!(update(&ResourceClaim, "", simple(), other).len(), 1, "the spec never changes");
    }

    #[test]
    fn status() {
        let result = value!({"request": "gpu", "driver": "a.b", "pool": "node-1", "device": "gpu-0"});
        let device =
            value!({"driver": "a.b", "pool": "node-1", "device": "gpu-0", "networkData": {"ips": ["10.0.0.1/24"]}});
        let user = value!({"resource": "pods", "name": "p", "uid": "u"});
        let with = |status: Value| {
            let mut object = simple();
            object.set("status", status);
            object
        };
        let run = |old: Value, new: Value| update(&ResourceClaim, "status", with(old), with(new));
        let allocation = value!({"devices": {"results": [result]}});
        let good = value!({"allocation": allocation, "reservedFor": [(&user)], "devices": [(&device)]});
        assert!(run(value!({}), good.clone()).is_empty());
        assert_eq!(cells(&ResourceClaim, &with(good.clone())), ["c", "allocated,reserved", "<unknown>"]);
        assert_eq!(cells(&ResourceClaim, &simple())[1], "pending");
        assert_eq!(
            run(value!({}), value!({"reservedFor": [(&user), (&user)], "devices": [(&device)]})),
            [
                "status.reservedFor[1]: Duplicate value: \"u\"",
                "status.devices[0]: Invalid value: \"a.b/node-1/gpu-0\": must be an allocated device in the claim",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ]
        );
        let mut other = good.clone();
        other.set_path(&["allocation", "devices", "results"], value!([]));
        let found = run(good.clone(), other);
        assert!(found.len() == 1 && found[0].ends_with("field is immutable"), "{found:?}");
        let mut freed = with(value!({"devices": [device]}));
        ResourceClaim.prepare_update(&mut freed, &with(good), &crate::testing::context("status"));
        assert_eq!(freed["status"], value!({}), "nothing is said about devices that are gone");
    }
}
