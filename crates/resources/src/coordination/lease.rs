//! Lease: who leads, and which nodes are alive.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct Lease;

static INFO: Info = Info {
    singular: "lease",
    unconditional_update: false,
    create_on_update: true,
    ..Info::stored("coordination.k8s.io", "v1", "Lease", "leases")
};

/// Fields of CoordinatedLeaderElection, which 1.36 leaves off by default.
const COORDINATED: &[&str] = &["preferredHolder", "strategy"];

impl Resource for Lease {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        COORDINATED.iter().for_each(|field| drop(object.remove_path(&["spec", field])));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _cx: &Context) {
        for field in COORDINATED.iter().filter(|field| old["spec"][**field].is_null()) {
            new.remove_path(&["spec", field]);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let (duration, transitions) = (spec.at("leaseDurationSeconds"), spec.at("leaseTransitions"));
        if duration.is_set() && duration.int() <= 0 {
            errors.invalid(&duration, "must be greater than 0");
        }
        checks::nonnegative(&transitions, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Holder", "string", "Who holds the lease"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["spec"]["holderIdentity"].str().into(), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, context, create};
    use canopus_api::value;

    #[test]
    fn durations() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"leaseDurationSeconds": 15, "leaseTransitions": 0}), &[]),
            (
                value!({"leaseDurationSeconds": 0, "leaseTransitions": (-1)}),
                &[
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&Lease, value!({"spec": spec})), *expected);
        }
    }

    #[test]
    fn coordination_is_off() {
        let mut lease =
            value!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "strategy": "OldestEmulationVersion"}});
        Lease.prepare_create(&mut lease, &context(""));
        assert_eq!(lease["spec"], value!({"holderIdentity": "me"}));
        assert_eq!(cells(&Lease, &lease), ["l", "me", "<unknown>"]);
    }
}
