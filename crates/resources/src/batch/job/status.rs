//! What may become of a Job's status, whoever manages it (upstream `ValidateJobUpdateStatus`, KEP-4368).
//! What a write does not touch is not held against it.

use super::{has, indexes, is_true};
use crate::apps::workload::counts;
use crate::semantic;
use canopus_api::{Errors, Field, Time, Value};
use std::collections::BTreeSet;

struct Change<'a> {
    /// `status`, as it will be.
    status: Field<'a>,
    spec: &'a Value,
    old: &'a Value,
}

impl Change<'_> {
    fn is(&self, condition: &str) -> bool {
        is_true(self.status.value, condition)
    }
    fn was(&self, condition: &str) -> bool {
        is_true(self.old, condition)
    }
    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    /// Whether any of these conditions has begun or ended to be true.
    fn turned(&self, conditions: &[&str]) -> bool {
        conditions.iter().any(|c| self.is(c) != self.was(c))
    }
    fn turned_finished(&self) -> bool {
        self.finished() != (self.was("Complete") || self.was("Failed"))
    }
    fn changed(&self, field: &str) -> bool {
        !semantic::equal(&self.status.value[field], &self.old[field])
    }
    fn time(&self, field: &str) -> Option<Time> {
        Time::parse(self.status.value[field].str())
    }
    fn indexed(&self) -> bool {
        self.spec["completionMode"].str() == "Indexed"
    }
}

pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    let status = new.at("status");
    let change = Change { status, spec: new.value.at("spec"), old: old.at("status") };
    numbers(&change, errors);
    conditions(&change, errors);
    times(&change, errors);
    finish(&change, errors);
    index_sets(&change, errors);
    criteria(&change, errors);
    against_old(&change, errors);
}

fn numbers(change: &Change, errors: &mut Errors) {
    let status = &change.status;
    counts(status, &["active", "succeeded", "failed", "ready", "terminating"], errors);
    let uncounted = status.at("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.at(list).items() {
            if uid.str().is_empty() {
                errors.invalid(&uid, "must not be empty");
            } else if !seen.insert(uid.str().to_string()) {
                errors.duplicate(&uid);
            }
        }
    }
    let ready = status.at("ready");
    if (change.changed("ready") || change.changed("active")) && ready.int() > status.value["active"].int() {
        errors.invalid(&ready, "cannot set more ready pods than active");
    }
}

fn conditions(change: &Change, errors: &mut Errors) {
    let place = change.status.at("conditions");
    let complete = change.is("Complete");
    let mut refuse = |wrong: bool, why: &str| {
        if wrong {
            errors.invalid_unshown(&place, why);
        }
    };
    refuse(
        change.turned(&["Complete", "Failed"]) && complete && change.is("Failed"),
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        change.turned(&["Complete", "FailureTarget"]) && complete && change.is("FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        (change.turned(&["Failed"]) || change.changed("failedIndexes"))
            && change.is("Failed")
            && !change.is("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        change.turned(&["Complete", "SuccessCriteriaMet"]) && complete && !change.is("SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
}

fn times(change: &Change, errors: &mut Errors) {
    let (end, complete) = (change.status.at("completionTime"), change.is("Complete"));
    let about_end = change.turned(&["Complete"]) || change.changed("completionTime");
    if about_end && end.is_set() && !complete {
        errors.invalid(&end, "cannot set completionTime when there is no Complete=True condition");
    }
    if about_end && end.is_unset() && complete {
        errors.required(&end, "completionTime is required for Complete jobs");
    }
    let moved = change.changed("startTime") || change.changed("completionTime");
    if moved && change.time("startTime").zip(change.time("completionTime")).is_some_and(|(start, end)| end < start) {
        errors.invalid(&end, "must be equal to or after `startTime`");
    }
}

fn finish(change: &Change, errors: &mut Errors) {
    if !change.finished() {
        return;
    }
    let (status, turned) = (&change.status, change.turned_finished());
    let about = |field: &str| turned || change.changed(field);
    let active = status.at("active");
    if about("active") && active.int() > 0 {
        errors.invalid(&active, "active>0 is invalid for finished job");
    }
    let never_ran = change.spec["suspend"].bool() && change.spec["completions"].as_i64() == Some(0);
    if about("startTime") && !never_ran && status.at("startTime").is_unset() {
        errors.required(&status.at("startTime"), "startTime is required for finished job");
    }
    let uncounted = status.at("uncountedTerminatedPods");
    let some = ["failed", "succeeded"].iter().any(|list| !uncounted.value[*list].is_empty());
    if about("uncountedTerminatedPods") && some {
        errors.invalid(&uncounted, "must be empty for finished job");
    }
    let terminating = status.at("terminating");
    if about("terminating") && terminating.int() > 0 {
        errors.invalid(&terminating, "terminating>0 is invalid for finished job");
    }
}

fn index_sets(change: &Change, errors: &mut Errors) {
    let (done, failed) = (change.status.at("completedIndexes"), change.status.at("failedIndexes"));
    let (about_done, about_failed) = (change.changed("completedIndexes"), change.changed("failedIndexes"));
    let per_index = !change.spec["backoffLimitPerIndex"].is_null();
    let completions = change.spec["completions"].as_i64();
    if let Some(completions) = completions {
        if about_done && let Err(why) = indexes::count(done.str(), completions) {
            errors.invalid(&done, format!("error parsing completedIndexes: {why}"));
        }
        if about_failed
            && per_index
            && let Err(why) = indexes::count(failed.str(), completions)
        {
            errors.invalid(&failed, format!("error parsing failedIndexes: {why}"));
        }
    }
    if about_done && !done.str().is_empty() && !change.indexed() {
        errors.invalid(&done, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if about_failed && failed.is_set() && !per_index {
        errors.invalid(&failed, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if let Some(completions) = completions.filter(|_| about_done || about_failed)
        && let Some(index) = indexes::overlap(done.str(), failed.str(), completions)
    {
        errors.invalid(&failed, format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

fn criteria(change: &Change, errors: &mut Errors) {
    let (place, met) = (change.status.at("conditions"), change.is("SuccessCriteriaMet"));
    for (other, name) in [("Failed", "Failed=true"), ("FailureTarget", "FailureTarget=true")] {
        if met && change.is(other) {
            errors.invalid_unshown(&place, format!("cannot set SuccessCriteriaMet=True and {name} conditions"));
        }
    }
    if !change.spec["successPolicy"].is_null() && !met && change.is("Complete") {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.invalid_unshown(&place, why);
    }
}

fn against_old(change: &Change, errors: &mut Errors) {
    let (status, old) = (&change.status, change.old);
    let place = status.at("conditions");
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if change.was(condition) && !change.is(condition) {
            errors.invalid_unshown(&place, format!("cannot disable the terminal {condition}=True condition"));
        }
    }
    let scalable = change.indexed() && change.spec["completions"] == change.spec["parallelism"];
    for (count, only_grows) in [("failed", true), ("succeeded", !scalable)] {
        let field = status.at(count);
        if only_grows && field.int() < old[count].int() {
            errors.invalid(&field.with(&field.int().into()), format!("cannot decrease the {count} counter"));
        }
    }
    let end = status.at("completionTime");
    if end.is_set() && !old["completionTime"].is_null() && change.changed("completionTime") {
        errors.invalid(&end, "field is immutable");
    }
    let resuming = is_true(old, "Suspended") && has(status.value, "Suspended", "False");
    let start = status.at("startTime");
    if change.changed("startTime") && !resuming && !old["startTime"].is_null() && !change.spec["suspend"].bool() {
        errors.invalid(&start, "field is immutable for unsuspended job once set");
    }
    let (was_met, met) = (change.was("SuccessCriteriaMet"), change.is("SuccessCriteriaMet"));
    if was_met && !met {
        errors.invalid_unshown(&place, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if change.was("Complete") && !was_met && met {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.invalid_unshown(&place, why);
    }
}
