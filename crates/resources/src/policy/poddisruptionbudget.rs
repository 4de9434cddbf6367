//! PodDisruptionBudget: how many pods of a set may be taken away on purpose at a time.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct PodDisruptionBudget;

static INFO: Info = Info {
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[Subresource::status("policy", "v1", "PodDisruptionBudget")],
    generation: true,
    unconditional_update: false,
    ..Info::stored("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
};

/// Means all or nothing in an older version; with anything else it means nothing and goes.
const OLD_LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

impl Resource for PodDisruptionBudget {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let Some(selector) = object.get_mut("spec").and_then(|spec| spec.get_mut("selector")) else { return };
        let expressions = selector["matchExpressions"].items();
        let only = selector["matchLabels"].is_empty() && expressions.len() == 1;
        if only && expressions[0]["key"].str() == OLD_LABEL && expressions[0]["operator"].str() == "Exists" {
            return;
        }
        if let Some(list) = selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
            list.retain(|expression| expression["key"].str() != OLD_LABEL);
        }
        if let Some(labels) = selector.get_mut("matchLabels").and_then(Value::as_object_mut) {
            labels.remove(OLD_LABEL);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let (least, most) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
        if least.is_set() && most.is_set() {
            errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for count in [least, most] {
            if count.is_set() {
                checks::count_or_percent(&count, errors);
                checks::at_most_all(&count, errors);
            }
        }
        checks::label_selector(&spec.at("selector"), errors);
        let policy = spec.at("unhealthyPodEvictionPolicy");
        checks::optional_one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"], errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource != "status" {
            return self.validate(new, errors);
        }
        let status = new.at("status");
        conditions(&status.at("conditions"), errors);
        for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            checks::nonnegative(&status.at(count), errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Min Available", "string", "The minimum number of pods that must be available."),
                Column::new("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
                Column::new(
                    "Allowed Disruptions",
                    "integer",
                    "Calculated number of pods that may be disrupted at this time.",
                ),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let count = |field: &str| -> Value {
            match &object["spec"][field] {
                Value::Null => "N/A".into(),
                Value::Str(share) => share.clone().into(),
                number => number.int().to_string().into(),
            }
        };
        let allowed = object["status"]["disruptionsAllowed"].int();
        vec![name(object), count("minAvailable"), count("maxUnavailable"), allowed.into(), age(object, now)]
    }
}

/// A list of `metav1.Condition` (upstream `ValidateConditions`).
pub fn conditions(list: &Field, errors: &mut Errors) {
    const MAX_REASON: usize = 1024;
    const MAX_MESSAGE: usize = 32 * 1024;
    let mut seen = checks::Seen::new();
    for condition in list.items() {
        let (kind, reason, message) = (condition.at("type"), condition.at("reason"), condition.at("message"));
        if !seen.insert(kind.str().into()) {
            errors.duplicate(&kind);
        }
        checks::check(&kind.with(&kind.str().into()), names::qualified_name, errors);
        checks::one_of(&condition.at("status"), &["False", "True", "Unknown"], errors);
        let generation = condition.at("observedGeneration");
        if generation.int() < 0 {
            errors.invalid(&generation, "must be greater than or equal to zero");
        }
        checks::required(&condition.at("lastTransitionTime"), errors);
        if checks::required(&reason, errors) {
            if !is_reason(reason.str()) {
                errors.invalid(&reason, "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')");
            }
            if reason.str().len() > MAX_REASON {
                errors.too_long(&reason, MAX_REASON);
            }
        }
        if message.str().len() > MAX_MESSAGE {
            errors.too_long(&message, MAX_MESSAGE);
        }
    }
}

fn is_reason(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_,:".contains(&b);
    let last = text.bytes().next_back().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.bytes().all(inner) && last && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({"minAvailable": "50%", "selector": {}}), &[]),
            (
                value!({"minAvailable": "150%", "maxUnavailable": (-1), "unhealthyPodEvictionPolicy": "X"}),
                &[
                    r#"spec: Invalid value: {"maxUnavailable":-1,"minAvailable":"150%","unhealthyPodEvictionPolicy":"X"}: minAvailable and maxUnavailable cannot be both set"#,
                    r#"spec.minAvailable: Invalid value: "150%": must not be greater than 100%"#,
                    "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
                    r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "X": supported values: "AlwaysAllow", "IfHealthyBudget""#,
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&PodDisruptionBudget, value!({"spec": spec})), expected);
        }
        let status = value!({"status": {"currentHealthy": (-1), "conditions": [{"type": "A", "status": "True", "reason": "x-", "lastTransitionTime": "t"}]}});
        let found = update(&PodDisruptionBudget, "status", value!({}), status);
        assert!(found[0].starts_with(r#"status.conditions[0].reason: Invalid value: "x-": a condition reason must"#));
        assert_eq!(found[1..], ["status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"]);
    }

    #[test]
    fn the_old_label_counts_only_alone() {
        let selector = |extra: Value| value!({"spec": {"selector": {"matchLabels": extra, "matchExpressions": [{"key": OLD_LABEL, "operator": "Exists"}]}}});
        let (mut alone, mut not) = (selector(value!({})), selector(value!({"a": "b"})));
        PodDisruptionBudget.default(&mut alone);
        PodDisruptionBudget.default(&mut not);
        let count = |object: &Value| object["spec"]["selector"]["matchExpressions"].items().len();
        assert_eq!((count(&alone), count(&not)), (1, 0));
    }

    #[test]
    fn rows() {
        let object =
            value!({"metadata": {"name": "p"}, "spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(cells(&PodDisruptionBudget, &object), ["p", "2", "N/A", "1", "<unknown>"]);
    }
}
