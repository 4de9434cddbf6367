//! When a Job has failed, succeeded, and replaces its pods: the rules its author wrote (KEP-3329, KEP-3998, KEP-3939).

use super::indexes;
use crate::checks::{self, nonnegative};
use canopus_api::{Errors, Field, names};
use std::collections::BTreeSet;

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_INDEXES_TEXT: usize = 64 * 1024;

/// `podFailurePolicy`.
pub fn failure(spec: &Field, errors: &mut Errors) {
    let policy = spec.at("podFailurePolicy");
    let rules = policy.at("rules");
    at_most(&rules, MAX_RULES, errors);
    let pods = &spec.value["template"]["spec"];
    let containers: BTreeSet<&str> =
        ["containers", "initContainers"].iter().flat_map(|l| pods[*l].items()).map(|c| c["name"].str()).collect();
    for rule in rules.items() {
        failure_rule(&rule, spec.at("backoffLimitPerIndex").is_set(), &containers, errors);
    }
}

fn at_most(list: &Field, max: usize, errors: &mut Errors) {
    let count = list.value.items().len();
    if count > max {
        errors.too_many(list, count, max);
    }
}

/// One of a list of words, all of which the message of a missing one names.
fn word(field: &Field, supported: &[&str], errors: &mut Errors) {
    if field.str().is_empty() {
        let all: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        errors.required(field, format!("valid values: [{}]", all.join(" ")));
    } else {
        checks::one_of(field, supported, errors);
    }
}

fn failure_rule(rule: &Field, per_index: bool, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let action = rule.at("action");
    if action.str() == "FailIndex" {
        if !per_index {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
    } else {
        word(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
    }
    let (codes, conditions) = (rule.at("onExitCodes"), rule.at("onPodConditions"));
    if codes.is_set() {
        exit_codes(&codes, containers, errors);
    }
    at_most(&conditions, MAX_PATTERNS, errors);
    for pattern in conditions.items() {
        let kind = pattern.at("type");
        checks::check(&kind.with(&kind.str().into()), names::qualified_name, errors);
        word(&pattern.at("status"), &["False", "True", "Unknown"], errors);
    }
    match (codes.is_set(), conditions.value.is_empty()) {
        (true, false) => {
            errors.invalid_unshown(rule, "specifying both OnExitCodes and OnPodConditions is not supported");
        }
        (false, true) => {
            errors.invalid_unshown(rule, "specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

fn exit_codes(codes: &Field, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let (operator, container, values) = (codes.at("operator"), codes.at("containerName"), codes.at("values"));
    word(&operator, &["In", "NotIn"], errors);
    if container.is_set() && !containers.contains(container.str()) {
        errors.invalid(&container, "must be one of the container or initContainer names in the pod template");
    }
    if values.value.is_empty() {
        errors.invalid(&values, "at least one value is required");
    }
    at_most(&values, MAX_EXIT_CODES, errors);
    let mut seen = BTreeSet::new();
    for value in values.items() {
        if operator.str() == "In" && value.int() == 0 {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(value.int()) {
            errors.duplicate(&value);
        }
    }
    if !values.value.items().is_sorted_by_key(|v| v.int()) {
        errors.invalid(&values, "must be ordered");
    }
}

/// `successPolicy`.
pub fn success(spec: &Field, errors: &mut Errors) {
    let policy = spec.at("successPolicy");
    if policy.is_unset() {
        return;
    }
    if spec.value["completionMode"].str() != "Indexed" {
        return errors.invalid(&policy, "requires indexed completion mode");
    }
    let rules = policy.at("rules");
    if rules.value.is_empty() {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    at_most(&rules, MAX_RULES, errors);
    rules.items().for_each(|rule| success_rule(&rule, spec.value["completions"].int(), errors));
}

fn success_rule(rule: &Field, completions: i64, errors: &mut Errors) {
    let (count, which) = (rule.at("succeededCount"), rule.at("succeededIndexes"));
    if count.is_unset() && which.is_unset() {
        errors.required(rule, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut indexes = 0;
    if which.is_set() {
        if which.str().len() > MAX_INDEXES_TEXT {
            errors.too_long(&which, MAX_INDEXES_TEXT);
        }
        match indexes::count(which.str(), completions) {
            Ok(count) => indexes = count,
            Err(why) => errors.invalid(&which, format!("error parsing succeededIndexes: {why}")),
        }
    }
    nonnegative(&count, errors);
    if count.int() > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&count, why);
    }
    if which.is_set() && count.int() > indexes {
        errors.invalid(&count, format!("must be less than or equal to {indexes} (the number of indexes in the specified succeededIndexes field)"));
    }
}

/// `podReplacementPolicy`.
pub fn replacement(spec: &Field, errors: &mut Errors) {
    let supported: &[&str] = match spec.at("podFailurePolicy").is_set() {
        true => &["Failed"],
        false => &["Failed", "TerminatingOrFailed"],
    };
    checks::optional_one_of(&spec.at("podReplacementPolicy"), supported, errors);
}
