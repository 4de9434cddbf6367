//! Job: pods that run to their end, so many times.

mod indexes;
mod policies;
pub mod spec;
mod status;
mod update;

use crate::apps::workload::{container_cells, selector_cell};
use crate::core::pod::{defaults, warnings};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name, since};
use crate::strategy;
use canopus_api::{Errors, Facts, Field, Time, Value, names, time::human_duration};

pub struct Job;

static INFO: Info = Info {
    singular: "job",
    categories: &["all"],
    subresources: &[Subresource::status("batch", "v1", "Job")],
    selectable_fields: &["status.successful"],
    generation: true,
    ..Info::stored("batch", "v1", "Job", "jobs")
};

/// Labels of a Job's pods. The ones without a domain are older.
const NAMES: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UIDS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

impl Resource for Job {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        if spec["completions"].is_null() && spec["parallelism"].is_null() {
            spec.set("completions", 1);
        }
        spec.set_default("parallelism", 1);
        let per_index = !spec["backoffLimitPerIndex"].is_null();
        spec.set_default("backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
        spec.set_default("completionMode", "NonIndexed");
        spec.set_default("suspend", false);
        let strict = !spec["podFailurePolicy"].is_null();
        spec.set_default("podReplacementPolicy", if strict { "Failed" } else { "TerminatingOrFailed" });
        spec.set_default("manualSelector", false);
        template_defaults(spec);
        let labels = spec["template"]["metadata"]["labels"].clone();
        if !labels.is_null() && object["metadata"]["labels"].is_empty() {
            object.set_path(&["metadata", "labels"], labels);
        }
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        if !object["spec"]["manualSelector"].bool() {
            // Labels that came from the template keep following it, as upstream's do, which are one map.
            let (own, pods) = (&object["metadata"]["labels"], &object["spec"]["template"]["metadata"]["labels"]);
            let follow = own.is_empty()
                || matches!((own, pods), (Value::Object(own), Value::Object(pods)) if own.is_shared_with(pods));
            generate_selector(object);
            if follow {
                let labels = object["spec"]["template"]["metadata"]["labels"].clone();
                object.set_path(&["metadata", "labels"], labels);
            }
        }
        object.remove("status");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, &[]);
        }
        strategy::keep(new, old, "status");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate_job(object, true, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return status::validate(new, old, errors);
        }
        let labels = &old["spec"]["template"]["metadata"]["labels"];
        validate_job(new, labels.get(NAMES[1]).is_some() && labels.get(UIDS[1]).is_some(), errors);
        update::validate(new, old, errors);
    }

    /// Upstream calls the count of successes another name here.
    fn facts(&self, object: &Value) -> Facts {
        let mut facts = Facts::extract(object, INFO.selectable_fields);
        for (_, value) in &mut facts.fields {
            *value = object["status"]["succeeded"].int().to_string().into();
        }
        facts
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let root = Field::root(object);
        let mut out = Vec::new();
        match old {
            None => out.extend(name_warning(object["metadata"]["name"].str())),
            Some(old) if old["metadata"]["generation"] == object["metadata"]["generation"] => return out,
            Some(_) => {}
        }
        spec_warnings(&root.at("spec"), &mut out);
        out
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn deletion_warning(&self) -> &'static str {
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Status", "string", "Status of the job."),
                Column::new(
                    "Completions",
                    "string",
                    "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
                ),
                Column::new("Duration", "string", "Time required to complete the job."),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let [containers, images] = container_cells(&spec["template"]["spec"]);
        vec![
            name(object),
            state(object).into(),
            completions(object).into(),
            duration(&object["status"], now),
            age(object, now),
            containers,
            images,
            selector_cell(&spec["selector"], "<none>", "<error>"),
        ]
    }
}

/// The defaults of what both a Job and the template of one have.
pub fn template_defaults(spec: &mut Value) {
    defaults::template(spec.ensure_object().entry("template", Value::object));
    defaults::with(spec, "podFailurePolicy", |policy| {
        defaults::each(policy, "rules", |rule| {
            defaults::each(rule, "onPodConditions", |pattern| defaults::fill(pattern, "status", "True"));
        });
    });
}

/// Names end in pods' names, which should be DNS labels.
pub fn name_warning(name: &str) -> Option<String> {
    let why = names::dns1123_label(name);
    (!why.is_empty()).then(|| format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", why.join(" ")))
}

/// Warnings about a `JobSpec`.
pub fn spec_warnings(spec: &Field, out: &mut Vec<String>) {
    let many = spec.value["completions"].int() > 100_000 && spec.value["parallelism"].int() > 10_000;
    if many && spec.value["completionMode"].str() == "Indexed" {
        out.push(format!("{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", spec.path()));
    }
    out.extend(warnings::of(&spec.at("template"), false));
}

/// Labels that no other Job's pods have, and a selector of them. What the author wrote there stays, to be refused.
fn generate_selector(object: &mut Value) {
    let (name, uid) = (object["metadata"]["name"].str().to_string(), object["metadata"]["uid"].str().to_string());
    let spec = object.ensure_object().entry("spec", Value::object);
    let labels = spec
        .ensure_object()
        .entry("template", Value::object)
        .ensure_object()
        .entry("metadata", Value::object)
        .obj_mut("labels");
    for (keys, value) in [(NAMES, &name), (UIDS, &uid)] {
        keys.iter().for_each(|key| {
            labels.entry(key, || value.into());
        });
    }
    let selector = spec.ensure_object().entry("selector", Value::object);
    selector.obj_mut("matchLabels").entry(UIDS[1], || uid.into());
}

fn validate_job(job: &Field, prefixed_labels: bool, errors: &mut Errors) {
    spec::generated_selector(job, prefixed_labels, errors);
    let spec = job.at("spec");
    spec::validate_with_selector(&spec, errors);
    let completions = spec.value["completions"].int();
    if spec.value["completionMode"].str() == "Indexed" && completions > 0 {
        let meta = job.at("metadata");
        let name = meta.at("name");
        let last = format!("{}-{}", name.str(), completions - 1);
        if !names::dns1123_label(&last).is_empty() {
            errors.invalid(&name, format!("will not able to create pod with invalid DNS label: {last}"));
        }
    }
}

fn is_true(status: &Value, condition: &str) -> bool {
    has(status, condition, "True")
}

fn has(status: &Value, condition: &str, state: &str) -> bool {
    status["conditions"].items().iter().any(|c| c["type"].str() == condition && c["status"].str() == state)
}

fn state(job: &Value) -> &'static str {
    let is = |condition| is_true(&job["status"], condition);
    match () {
        _ if is("Complete") => "Complete",
        _ if is("Failed") => "Failed",
        _ if !job["metadata"]["deletionTimestamp"].is_null() => "Terminating",
        _ if is("Suspended") => "Suspended",
        _ if is("FailureTarget") => "FailureTarget",
        _ if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    }
}

fn completions(job: &Value) -> String {
    let (spec, succeeded) = (&job["spec"], job["status"]["succeeded"].int());
    match (spec["completions"].as_i64(), spec["parallelism"].int()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value, now: Time) -> Value {
    match (Time::parse(status["startTime"].str()), Time::parse(status["completionTime"].str())) {
        (None, _) => "".into(),
        (Some(_), None) => since(status["startTime"].str(), now),
        (Some(start), Some(end)) => human_duration(end.since(start)).into(),
    }
}

#[cfg(test)]
mod tests;
