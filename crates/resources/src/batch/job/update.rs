//! What of a Job may change (upstream `ValidateJobSpecUpdate`).

use super::{is_true, spec};
use crate::checks::immutable;
use crate::semantic;
use canopus_api::{Errors, Field, Value};

pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    let (job, before) = (new.at("spec"), &old["spec"]);
    completions(&job, before, errors);
    immutable(&job.at("selector"), &before["selector"], errors);
    template(&job, old, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&job.at(field), &before[field], errors);
    }
}

/// An indexed Job may grow or shrink, if it runs all its indexes at once.
fn completions(job: &Field, before: &Value, errors: &mut Errors) {
    let field = job.at("completions");
    if job.value["completionMode"].str() != "Indexed" {
        return immutable(&field, &before["completions"], errors);
    }
    if field.is_set() && field.value != &before["completions"] && field.int() != job.value["parallelism"].int() {
        errors.invalid(&field, "can only be modified in tandem with spec.parallelism");
    }
}

/// A suspended Job that runs no pods may be told how large they are and where they run (KEP-2926).
fn template(job: &Field, old: &Value, errors: &mut Errors) {
    let (pods, status) = (job.at("template"), &old["status"]);
    let suspended = old["spec"]["suspend"].bool();
    let idle = status["startTime"].is_null() || is_true(status, "Suspended");
    if !suspended || !idle || status["active"].int() != 0 {
        return immutable(&pods, &old["spec"]["template"], errors);
    }
    let mut before = spec::without_scheduling(&old["spec"]["template"], pods.value)["spec"].clone();
    let after = pods.value.at("spec");
    for list in ["containers", "initContainers"] {
        same_resources(&mut before, after, list);
    }
    if !semantic::equal(after, &before) {
        errors.invalid(&job.at("template.spec").with(after), crate::checks::IMMUTABLE);
    }
}

fn same_resources(before: &mut Value, after: &Value, list: &str) {
    let after = after[list].items();
    let Some(before) = before.get_mut(list).and_then(Value::as_array_mut).filter(|b| b.len() == after.len()) else {
        return;
    };
    for (before, after) in before.iter_mut().zip(after).filter(|(b, a)| b["name"] == a["name"]) {
        crate::strategy::keep(before, after, "resources");
    }
}
