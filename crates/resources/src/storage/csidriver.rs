//! CSIDriver: what the cluster is to know about a driver of volumes.

use crate::checks::{self, Seen};
use crate::resource::{Column, Context, Info, Resource, age, joined, name};
use crate::semantic;
use canopus_api::{Errors, Field, Time, Value, value};

pub struct CSIDriver;

static INFO: Info = Info {
    singular: "csidriver",
    namespaced: false,
    generation: true,
    unconditional_update: false,
    ..Info::stored("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
};

const SECRETS_ADVICE: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

impl Resource for CSIDriver {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            spec.set_default(field, false);
        }
        spec.set_default("fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec["volumeLifecycleModes"].is_empty() {
            spec.set("volumeLifecycleModes", value!(["Persistent"]));
        }
    }

    /// Generations count from the first change.
    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.obj_mut("metadata").remove("generation");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let policy = spec.at("fsGroupPolicy");
        checks::optional_one_of(&policy, &["File", "None", "ReadWriteOnceWithFSType"], errors);
        token_requests(&spec.at("tokenRequests"), errors);
        let modes = spec.at("volumeLifecycleModes");
        for mode in modes.value.items() {
            checks::one_of(&modes.with(mode), &["Persistent", "Ephemeral"], errors);
        }
        let period = spec.at("nodeAllocatableUpdatePeriodSeconds");
        if period.is_set() && period.int() < 10 {
            errors.invalid(&period, "must be greater than or equal to 10 seconds");
        }
        let secrets = spec.at("serviceAccountTokenInSecrets");
        if secrets.is_set() && spec.value["tokenRequests"].is_empty() {
            errors.invalid(&secrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        let spec = new.at("spec");
        // As upstream spells it.
        let attach = spec.at("attachedRequired");
        checks::immutable(&attach.with(&spec.value["attachRequired"]), &old["spec"]["attachRequired"], errors);
        checks::immutable(&spec.at("volumeLifecycleModes"), &old["spec"]["volumeLifecycleModes"], errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let requests = &object["spec"]["tokenRequests"];
        let changed = old.is_none_or(|old| !semantic::equal(requests, &old["spec"]["tokenRequests"]));
        let advise = changed && !requests.is_empty() && object["spec"]["serviceAccountTokenInSecrets"].is_null();
        if advise { vec![SECRETS_ADVICE.into()] } else { Vec::new() }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("AttachRequired", "boolean", "Whether volumes have to be attached before they are mounted"),
                Column::new("PodInfoOnMount", "boolean", "Whether the driver is told about the pod"),
                Column::new("StorageCapacity", "boolean", "Whether scheduling considers the capacity that is left"),
                Column::new("TokenRequests", "string", "Audiences of the service account tokens that the driver gets"),
                Column::new("RequiresRepublish", "boolean", "Whether volumes are published again and again"),
                Column::new("Modes", "string", "What kinds of volumes the driver supports"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let audiences: Vec<&str> = spec["tokenRequests"].items().iter().map(|t| t["audience"].str()).collect();
        vec![
            name(object),
            spec["attachRequired"].as_bool().unwrap_or(true).into(),
            spec["podInfoOnMount"].bool().into(),
            spec["storageCapacity"].bool().into(),
            if spec["tokenRequests"].is_null() { "<unset>".into() } else { audiences.join(",").into() },
            spec["requiresRepublish"].bool().into(),
            joined(spec["volumeLifecycleModes"].items().iter().map(Value::str)),
            age(object, now),
        ]
    }
}

/// Each audience once, for ten minutes at least.
fn token_requests(list: &Field, errors: &mut Errors) {
    let mut seen = Seen::new();
    for request in list.items() {
        let (audience, lifetime) = (request.at("audience"), request.at("expirationSeconds"));
        if !seen.insert(audience.str().into()) {
            errors.duplicate(&audience.with(&audience.str().into()));
            continue;
        }
        if lifetime.is_set() && lifetime.int() < 600 {
            errors.invalid(&lifetime, "may not specify a duration less than 10 minutes");
        }
        if lifetime.int() > 1 << 32 {
            errors.invalid(&lifetime, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};

    #[test]
    fn drivers() {
        let driver = |spec: Value| value!({"metadata": {"name": "d"}, "spec": spec});
        let cases: &[(Value, &[&str])] = &[
            (value!({}), &[]),
            (
                value!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Short"], "nodeAllocatableUpdatePeriodSeconds": 9,
                    "serviceAccountTokenInSecrets": true}),
                &[
                    "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                    "spec.volumeLifecycleModes: Unsupported value: \"Short\": supported values: \"Persistent\", \"Ephemeral\"",
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                    "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
                ],
            ),
            (
                value!({"tokenRequests": [{"audience": "a"}, {"audience": "a"}, {"expirationSeconds": 1}]}),
                &[
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                    "spec.tokenRequests[2].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&CSIDriver, driver(spec.clone())), *expected, "{spec:?}");
        }
        let old = driver(value!({}));
        assert_eq!(
            update(&CSIDriver, "", old, driver(value!({"attachRequired": false, "podInfoOnMount": true}))),
            ["spec.attachedRequired: Invalid value: false: field is immutable"]
        );
        let mut object = driver(value!({"tokenRequests": [{"audience": "a"}, {"audience": "b"}]}));
        CSIDriver.default(&mut object);
        assert_eq!(CSIDriver.warnings(&object, None), [SECRETS_ADVICE]);
        assert!(CSIDriver.warnings(&object, Some(&object)).is_empty());
        assert_eq!(
            cells(&CSIDriver, &object),
            ["d", "true", "false", "false", "a,b", "false", "Persistent", "<unknown>"]
        );
    }
}
