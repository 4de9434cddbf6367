//! LeaseCandidate: who would lead if asked, for coordinated leader election (KEP-4355).

use crate::checks;
use crate::dra::device::is_semver;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};
use std::cmp::Ordering;

pub struct LeaseCandidate;

static INFO: Info = Info {
    singular: "leasecandidate",
    name: names::config_map_key,
    unconditional_update: false,
    create_on_update: true,
    selectable_fields: &["spec.leaseName"],
    deprecated: "coordination.k8s.io/v1beta1 LeaseCandidate is deprecated in v1.36+, unavailable in v1.39+",
    ..Info::stored("coordination.k8s.io", "v1beta1", "LeaseCandidate", "leasecandidates")
};

const OLDEST: &str = "OldestEmulationVersion";

impl Resource for LeaseCandidate {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        checks::required(&spec.at("leaseName"), errors);
        let (emulation, binary) = (spec.at("emulationVersion"), spec.at("binaryVersion"));
        for version in [&emulation, &binary].into_iter().filter(|v| !v.str().is_empty() && !is_semver(v.str())) {
            errors.invalid(version, "must be a valid semantic version");
        }
        checks::required(&binary, errors);
        if !binary.str().is_empty() && compare(binary.str(), emulation.str()) == Ordering::Less {
            errors.invalid(&binary, "must be greater than or equal to `emulationVersion`");
        }
        let strategy = spec.at("strategy");
        if !checks::required(&strategy, errors) {
            return;
        }
        if strategy.str() == OLDEST && core(emulation.str()) == [0; 3] {
            errors.required(&emulation, "must be specified when `strategy` is 'OldestEmulationVersion'");
        }
        // As upstream: the field is named twice.
        let inner = strategy.at("strategy");
        let strategy = inner.with(strategy.value);
        match strategy.str().contains('/') {
            true => checks::check(&strategy, names::qualified_name, errors),
            false => checks::one_of(&strategy, &[OLDEST], errors),
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        checks::immutable(&new.at("spec").at("leaseName"), &old["spec"]["leaseName"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("LeaseName", "string", "The lease for which this candidate is contending"),
                Column::new("BinaryVersion", "string", ""),
                Column::new("EmulationVersion", "string", ""),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let text = |field: &str| -> Value { object["spec"][field].str().into() };
        vec![name(object), text("leaseName"), text("binaryVersion"), text("emulationVersion"), age(object, now)]
    }
}

/// Major, minor and patch; 0 where there is nothing to read.
fn core(version: &str) -> [u64; 3] {
    let mut parts = version.split(['-', '+']).next().unwrap_or("").split('.').map(|n| n.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// By precedence (semver.org), but for the words of pre-releases, which are compared as they are.
fn compare(a: &str, b: &str) -> Ordering {
    let pre = |version: &str| version.split('+').next().and_then(|v| v.split_once('-')).map(|(_, pre)| pre.to_string());
    core(a).cmp(&core(b)).then_with(|| match (pre(a), pre(b)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(&b),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create, update};
    use canopus_api::value;

    #[test]
    fn candidates() {
        let candidate = |spec: Value| value!({"metadata": {"name": "c"}, "spec": spec});
        let good =
            value!({"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.36.0", "strategy": OLDEST});
        assert_eq!(create(&LeaseCandidate, candidate(good.clone())), [""; 0]);
        let cases: &[(Value, &[&str])] = &[
            (
                value!({}),
                &[
                    "spec.leaseName: Required value",
                    "spec.binaryVersion: Required value",
                    "spec.strategy: Required value",
                ],
            ),
            (
                value!({"leaseName": "l", "binaryVersion": "1.2.3", "emulationVersion": "1.3.0", "strategy": "a.b/c"}),
                &["spec.binaryVersion: Invalid value: \"1.2.3\": must be greater than or equal to `emulationVersion`"],
            ),
            (
                value!({"leaseName": "l", "binaryVersion": "one", "strategy": OLDEST}),
                &[
                    "spec.binaryVersion: Invalid value: \"one\": must be a valid semantic version",
                    "spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
                ],
            ),
            (
                value!({"leaseName": "l", "binaryVersion": "1.0.0", "strategy": "Best"}),
                &["spec.strategy.strategy: Unsupported value: \"Best\": supported values: \"OldestEmulationVersion\""],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&LeaseCandidate, candidate(spec.clone())), *expected, "{spec:?}");
        }
        let mut other = good.clone();
        other.set("leaseName", "m");
        assert_eq!(update(&LeaseCandidate, "", candidate(good), candidate(other)).len(), 1);
    }
}
