//! PodGroup: pods that are scheduled together (KEP-4671).

use crate::checks;
use crate::policy::poddisruptionbudget::conditions;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct PodGroup;

const GROUP: &str = "scheduling.k8s.io";

static INFO: Info = Info {
    singular: "podgroup",
    gate: "GenericWorkload",
    subresources: &[Subresource::status(GROUP, "v1alpha2", "PodGroup")],
    ..Info::stored(GROUP, "v1alpha2", "PodGroup", "podgroups")
};

const MAX_CLAIMS: usize = 4;
/// Upstream `HighestUserDefinablePriority`.
const HIGHEST: i64 = 1_000_000_000;

impl Resource for PodGroup {
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
        let template = spec.at("podGroupTemplateRef");
        if template.is_set() {
            let workload = template.at("workload");
            match workload.is_set() {
                false => errors.invalid(&template.with(&"".into()), "must specify one of: `workload`"),
                true => {
                    checks::required_check(&workload.at("workloadName"), names::dns1123_subdomain, errors);
                    checks::required_check(&workload.at("podGroupTemplateName"), names::dns1123_label, errors);
                }
            }
        }
        group(&spec, errors);
    }

    /// Nothing of the spec changes.
    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            let status = new.at("status");
            conditions(&status.at("conditions"), errors);
            let claims = new.value["spec"]["resourceClaims"].items();
            for claim in status.at("resourceClaimStatuses").items() {
                let name = claim.at("name");
                if !claims.iter().any(|c| c["name"].str() == name.str()) {
                    errors.invalid(&name, "must match the name of an entry in `spec.resourceClaims`");
                }
            }
            return;
        }
        immutable(&new.at("spec"), &old["spec"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Policy",
                    "string",
                    "SchedulingPolicy defines the scheduling policy for this instance of the PodGroup.",
                ),
                Column::new("Workload", "string", "Name of the referenced Workload object"),
                Column::new("Status", "string", "Status of the PodGroup"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, list) = (&object["spec"], object["status"]["conditions"].items());
        let policy = if spec["schedulingPolicy"]["gang"].is_null() { "Basic" } else { "Gang" };
        let found = |kind: &str| list.iter().find(|c| c["type"].str() == kind);
        let status = match (found("DisruptionTarget"), found("PodGroupScheduled")) {
            (Some(target), _) => target["reason"].str(),
            (None, Some(scheduled)) if scheduled["status"].str() == "True" => "Scheduled",
            (None, Some(_)) => "Unschedulable",
            (None, None) => "Pending",
        };
        let workload = spec["podGroupTemplateRef"]["workload"]["workloadName"].str();
        let workload = if workload.is_empty() { "<none>" } else { workload };
        vec![name(object), policy.into(), workload.into(), status.into(), age(object, now)]
    }
}

/// One error for each field that is not what it was.
pub(super) fn immutable(spec: &Field, old: &Value, errors: &mut Errors) {
    let mut fields: Vec<&str> = spec.value.entries().chain(old.entries()).map(|(field, _)| field.as_str()).collect();
    fields.sort_unstable();
    fields.dedup();
    fields.into_iter().for_each(|field| checks::immutable(&spec.at(field), &old[field], errors));
}

/// What groups and templates of groups have in common.
pub(super) fn group(spec: &Field, errors: &mut Errors) {
    let policy = spec.at("schedulingPolicy");
    let gang = policy.at("gang");
    match (policy.at("basic").is_set(), gang.is_set()) {
        (false, false) => errors.invalid(&policy.with(&"".into()), "must specify one of: `basic`, `gang`"),
        (true, true) => {
            let why = "must specify exactly one of: `basic`, `gang`";
            errors.invalid(&policy.with(&"{`basic`, `gang`}".into()), why);
        }
        _ => {}
    }
    if gang.is_set() {
        let least = gang.at("minCount");
        match least.int() {
            0 => errors.required(&least, ""),
            count if count < 0 => errors.invalid(&least, "must be greater than or equal to 1"),
            _ => {}
        }
    }
    let constraints = spec.at("schedulingConstraints");
    let topology = constraints.at("topology");
    let count = topology.value.items().len();
    if count > 1 {
        return errors.too_many(&topology, count, 1);
    }
    topology.items().for_each(|one| checks::required_check(&one.at("key"), names::qualified_name, errors));
    claims(&spec.at("resourceClaims"), errors);
    checks::optional_one_of(&spec.at("disruptionMode"), &["Pod", "PodGroup"], errors);
    let class = spec.at("priorityClassName");
    if !class.str().is_empty() {
        checks::check(&class, names::dns1123_subdomain, errors);
    }
    let priority = spec.at("priority");
    if priority.is_set() && priority.int() > HIGHEST {
        errors.invalid(&priority, format!("must be less than or equal to {HIGHEST}"));
    }
}

fn claims(list: &Field, errors: &mut Errors) {
    let count = list.value.items().len();
    if count > MAX_CLAIMS {
        return errors.too_many(list, count, MAX_CLAIMS);
    }
    let mut seen = checks::Seen::new();
    for claim in list.items() {
        let own = claim.at("name");
        checks::required_check(&own, names::dns1123_label, errors);
        if !seen.insert(own.str().into()) {
            errors.duplicate(&claim);
        }
        let (named, template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        const BOTH: &str = "`resourceClaimName`, `resourceClaimTemplateName`";
        match (named.is_set(), template.is_set()) {
            (false, false) => errors.invalid(&claim.with(&"".into()), format!("must specify one of: {BOTH}")),
            (true, true) => {
                let shown = format!("{{{BOTH}}}").into();
                errors.invalid(&claim.with(&shown), format!("must specify exactly one of: {BOTH}"));
            }
            _ => {}
        }
        for name in [&named, &template].into_iter().filter(|n| n.is_set()) {
            checks::check(name, names::dns1123_subdomain, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn groups() {
        let of = |spec: Value| value!({"metadata": {"name": "g"}, "spec": spec});
        let gang = |count: i64| of(value!({"schedulingPolicy": {"gang": {"minCount": count}}}));
        assert_eq!(create(&PodGroup, gang(2)), [""; 0]);
        let cases: &[(Value, &[&str])] = &[
            (gang(0), &["spec.schedulingPolicy.gang.minCount: Required value"]),
            (gang(-1), &["spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"]),
            (of(value!({})), &["spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"]),
            (
                of(
                    value!({"schedulingPolicy": {"basic": {}}, "podGroupTemplateRef": {"workload": {"workloadName": "w"}},
                    "resourceClaims": [{"name": "a", "resourceClaimName": "x"}, {"name": "a"}]}),
                ),
                &[
                    "spec.podGroupTemplateRef.workload.podGroupTemplateName: Required value",
                    "spec.resourceClaims[1]: Duplicate value: {\"name\":\"a\"}",
                    "spec.resourceClaims[1]: Invalid value: \"\": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&PodGroup, object.clone()), *expected, "{object:?}");
        }
        assert_eq!(update(&PodGroup, "", gang(2), gang(3)).len(), 1);
        assert_eq!(cells(&PodGroup, &gang(2))[1..4], ["Gang", "<none>", "Pending"]);
    }
}
