//! ResourceSlice: devices of a driver on a node, or reachable from some.

use super::device;
use super::rules::{driver, fits, label, pool, unique};
use crate::checks;
use crate::core::pod::scheduling::node_selector;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct ResourceSlice;

static INFO: Info = Info {
    singular: "resourceslice",
    namespaced: false,
    generation: true,
    selectable_fields: &["spec.driver", "spec.nodeName"],
    ..Info::stored("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
};

const MAX_DEVICES: usize = 128;
/// Where taints, counters or lists of attributes make the devices larger.
const MAX_LARGE_DEVICES: usize = 64;

impl Resource for ResourceSlice {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let devices = object.get_mut("spec").and_then(|spec| spec.get_mut("devices")).and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            let mappings = device.get_mut("nodeAllocatableResourceMappings").and_then(Value::as_object_mut);
            mappings.into_iter().flat_map(|m| m.values_mut()).for_each(|m| m.set_default("allocationMultiplier", "1"));
        }
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        date_taints(object, cx.now);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value, cx: &Context) {
        date_taints(new, cx.now);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        slice(&object.at("spec"), &Value::Null, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        slice(&new.at("spec"), &old["spec"], errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = object["spec"]["driver"].str();
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Node", "string", "The node that has the devices, if it is one"),
                Column::new("Driver", "string", "The driver that offers the devices"),
                Column::new("Pool", "string", "The pool that the devices are of"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name(object),
            spec["nodeName"].str().into(),
            spec["driver"].str().into(),
            spec["pool"]["name"].str().into(),
            age(object, now),
        ]
    }
}

/// When a taint came, where the driver doesn't say.
fn date_taints(object: &mut Value, now: Time) {
    let devices = object.get_mut("spec").and_then(|spec| spec.get_mut("devices")).and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten() {
        for taint in device.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
            taint.set_default("timeAdded", now);
        }
    }
}

fn slice(spec: &Field, old: &Value, errors: &mut Errors) {
    driver(&spec.at("driver"), errors);
    let group = spec.at("pool");
    pool(&group.at("name"), errors);
    let (count, generation) = (group.at("resourceSliceCount"), group.at("generation"));
    if count.int() <= 0 {
        errors.invalid(&count.with(&count.int().into()), "must be greater than zero");
    }
    if generation.int() < 0 {
        errors.invalid(&generation, "must be greater than or equal to zero");
    }
    if !old.is_null() {
        checks::immutable(&group.at("name"), &old["pool"]["name"], errors);
        for field in ["driver", "nodeName"] {
            checks::immutable(&spec.at(field), &old[field], errors);
        }
    }
    where_it_is(spec, errors);
    let (counters, devices) = (spec.at("sharedCounters"), spec.at("devices"));
    if counters.is_set() && devices.is_set() {
        errors.invalid(&spec.with(&"".into()), "only one of `sharedCounters` or `devices` is allowed");
    }
    let large = devices.value.items().iter().any(device::is_large);
    if fits(&devices, if large { MAX_LARGE_DEVICES } else { MAX_DEVICES }, errors) {
        let per_device = spec.value["perDeviceNodeSelection"].bool();
        for one in devices.items() {
            let before = old["devices"].items().iter().find(|d| d["name"] == one.value["name"]);
            device::validate(&one, before, per_device, errors);
        }
        unique(&devices, |one| one["name"].str().into(), errors);
    }
    if fits(&counters, 8, errors) {
        for set in counters.items() {
            if checks::required(&set.at("name"), errors) {
                label(&set.at("name"), errors);
            }
            device::counters(&set.at("counters"), errors);
        }
        unique(&counters, |set| set["name"].str().into(), errors);
    }
}

/// Exactly one of the ways to say from where the devices can be reached.
fn where_it_is(spec: &Field, errors: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut set = Vec::new();
    let (node, nodes) = (spec.at("nodeName"), spec.at("nodeSelector"));
    if node.is_set() {
        if node.str().is_empty() {
            errors.invalid(&node, "must be either unset or set to a non-empty string");
        } else {
            set.push("`nodeName`");
            checks::check(&node, names::dns1123_subdomain, errors);
        }
    }
    if nodes.is_set() {
        set.push("`nodeSelector`");
        node_selector(&nodes, errors);
        let terms = nodes.at("nodeSelectorTerms");
        if terms.value.items().len() != 1 {
            errors.invalid(&terms, "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        let field = spec.at(field);
        match field.value.as_bool() {
            Some(true) => set.push(shown),
            Some(false) => errors.invalid(&field, "must be either unset or set to true"),
            None => {}
        }
    }
    match set.len() {
        0 => errors.required(spec, ONE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            errors.invalid(&spec.with(&shown.into()), format!("{ONE}, but multiple fields are set"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn with(change: Value) -> Value {
        let mut object = value!({"metadata": {"name": "s"}, "spec": {"driver": "a.b", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}}});
        change.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    fn device(change: Value) -> Value {
        let mut device = value!({"name": "d", "attributes": {"model": {"string": "x"}, "a.b/speed": {"int": 3}}, "capacity": {"memory": {"value": "1Gi"}}});
        change.entries().for_each(|(field, value)| device.set(field, value));
        with(value!({"devices": [device]}))
    }

    #[test]
    fn slices() {
        let policy = |policy: Value| {
            device(
                value!({"allowMultipleAllocations": true, "capacity": {"memory": {"value": "4", "requestPolicy": policy}}}),
            )
        };
        let cases: &[(Value, &[&str])] = &[
            (device(value!({})), &[]),
            (
                with(value!({"nodeName": null, "driver": "", "pool": {"name": "A", "resourceSliceCount": 0}})),
                &[
                    "spec.driver: Required value",
                    "spec.pool.name: Invalid value: \"A\"",
                    "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                    "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
                ],
            ),
            (
                with(value!({"allNodes": true, "sharedCounters": [{"name": "c"}], "devices": []})),
                &[
                    "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                    "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
                    "spec.sharedCounters[0].counters: Required value",
                ],
            ),
            (
                device(
                    value!({"attributes": {"1x": {}, "v": {"version": "1"}}, "taints": [{"key": "k", "effect": "Some"}], "nodeName": "n"}),
                ),
                &[
                    "spec.devices[0].attributes: Invalid value: \"1x\": a valid C identifier must start",
                    "spec.devices[0].attributes[1x]: Invalid value: \"\": exactly one value must be specified",
                    "spec.devices[0].attributes[v].version: Invalid value: \"1\": must be a string compatible with semver.org spec 2.0.0",
                    "spec.devices[0].taints[0].effect: Unsupported value: \"Some\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                    "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
            (policy(value!({"default": "2", "validRange": {"min": "1", "max": "3", "step": "1"}})), &[]),
            (
                policy(value!({"default": "5", "validValues": ["2", "1"]})),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                    "spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: \"5\": default value is not valid according to the requestPolicy",
                ],
            ),
            (
                policy(value!({"default": "2", "validRange": {"min": "1", "step": "2"}})),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"2\": value is not a multiple of a given step (2) from (1)",
                ],
            ),
        ];
        for (object, expected) in cases {
            let found = create(&ResourceSlice, object.clone());
            let same = found.len() == expected.len() && found.iter().zip(*expected).all(|(f, e)| f.starts_with(e));
            assert!(same, "{object:?}: {found:#?}");
        }
    }

    #[test]
    fn updates() {
        let found = update(&ResourceSlice, "", with(value!({})), with(value!({"driver": "c.d", "nodeName": "m"})));
        assert_eq!(
            found,
            [
                "spec.driver: Invalid value: \"c.d\": field is immutable",
                "spec.nodeName: Invalid value: \"m\": field is immutable",
            ]
        );
        assert_eq!(cells(&ResourceSlice, &with(value!({}))), ["s", "n", "a.b", "p", "<unknown>"]);
        assert_eq!(ResourceSlice.warnings(&with(value!({"driver": "A.b"})), None).len(), 1);
        let mut tainted = device(value!({"taints": [{"key": "k", "effect": "None"}]}));
        ResourceSlice.prepare_create(&mut tainted, &crate::testing::context(""));
        assert_eq!(tainted["spec"]["devices"][0]["taints"][0]["timeAdded"].str(), "1970-01-01T00:00:00Z");
    }
}
