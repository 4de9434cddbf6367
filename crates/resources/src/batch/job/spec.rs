//! What a Job's spec may say (upstream `ValidateJobSpec`).

use super::{NAMES, UIDS, policies};
use crate::checks::{self, nonnegative};
use crate::core::pod::template;
use canopus_api::{Errors, Field, LabelSelector, Value, names, value};

/// Beyond so many completions the status can no longer tell which have failed.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_INDEXED: i64 = 100_000;
const MAX_WITH_MANY: i64 = 10_000;
const MAX_MANAGED_BY: usize = 63;

/// The spec of a Job, whose selector is there and selects its pods.
pub fn validate_with_selector(spec: &Field, errors: &mut Errors) {
    validate(spec, errors);
    let selector = spec.at("selector");
    if selector.is_unset() {
        errors.required(&selector, "");
    } else {
        checks::label_selector(&selector, errors);
    }
    let pods = spec.at("template");
    let meta = pods.at("metadata");
    let parsed = LabelSelector::from_value(selector.value);
    if parsed.is_ok_and(|parsed| !parsed.matches_value(&meta.value["labels"])) {
        errors.invalid(&meta.at("labels"), "`selector` does not match template `labels`");
    }
}

/// A selector that the server has made is still what it made.
pub fn generated_selector(job: &Field, prefixed_labels: bool, errors: &mut Errors) {
    let (meta, spec) = (job.at("metadata"), job.at("spec"));
    let selector = spec.at("selector");
    if spec.value["manualSelector"].bool() || selector.is_unset() {
        return;
    }
    let (name, uid) = (meta.value["name"].str(), meta.value["uid"].str());
    if uid.is_empty() {
        errors.required(&meta.at("uid"), "");
    }
    let mut expected = value!({(UIDS[0]): uid, (NAMES[0]): name});
    let template = spec.at("template");
    let template_meta = template.at("metadata");
    let labels = template_meta.at("labels");
    has_label(&labels, UIDS[0], uid, errors);
    has_label(&labels, NAMES[0], name, errors);
    if prefixed_labels {
        has_label(&labels, UIDS[1], uid, errors);
        has_label(&labels, NAMES[1], name, errors);
        expected.set(UIDS[1], uid);
        expected.set(NAMES[1], name);
    }
    if LabelSelector::from_value(selector.value).is_ok_and(|parsed| !parsed.matches_value(&expected)) {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn has_label(labels: &Field, key: &str, expected: &str, errors: &mut Errors) {
    let (place, why) = (labels.key(key), format!("must be '{expected}'"));
    match place.value.as_str() {
        None => errors.required(&place, why),
        Some(value) if value != expected => errors.invalid(&place.with(labels.value), why),
        Some(_) => {}
    }
}

/// The spec of a Job, or of the template of one, but for its selector.
pub fn validate(spec: &Field, errors: &mut Errors) {
    for count in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        nonnegative(&spec.at(count), errors);
    }
    let per_index = spec.at("backoffLimitPerIndex");
    if spec.at("maxFailedIndexes").is_set() && per_index.is_unset() {
        errors.required(&per_index, "when maxFailedIndexes is specified");
    }
    managed_by(&spec.at("managedBy"), errors);
    completion_mode(spec, errors);
    policies::failure(spec, errors);
    policies::success(spec, errors);
    policies::replacement(spec, errors);
    let pods = spec.at("template");
    template::validate(&pods, errors);
    let pod_spec = pods.at("spec");
    let restart = pod_spec.at("restartPolicy");
    match restart.str() {
        "" | "Always" => errors.required(&restart, r#"valid values: "OnFailure", "Never""#),
        "OnFailure" if spec.at("podFailurePolicy").is_set() => {
            errors.invalid(&restart, r#"only "Never" is supported when podFailurePolicy is specified"#);
        }
        "OnFailure" | "Never" => {}
        _ => errors.not_supported(&restart, &["OnFailure", "Never"]),
    }
}

/// `example.com/controller` (upstream `IsDomainPrefixedPath`).
fn managed_by(field: &Field, errors: &mut Errors) {
    if field.is_unset() || !checks::required(field, errors) {
        return;
    }
    match field.str().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) {
        None => errors.invalid(field, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((host, path)) => {
            checks::check(&field.with(&host.into()), names::dns1123_subdomain, errors);
            let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(good) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.invalid(&field.with(&path.into()), why);
            }
        }
    }
    if field.str().len() > MAX_MANAGED_BY {
        errors.too_long(field, MAX_MANAGED_BY);
    }
}

fn completion_mode(spec: &Field, errors: &mut Errors) {
    let mode = spec.at("completionMode");
    checks::optional_one_of(&mode, &["NonIndexed", "Indexed"], errors);
    match mode.value.as_str() {
        Some("Indexed") => indexed(spec, errors),
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                let field = spec.at(field);
                if field.is_set() {
                    errors.invalid(&field, "requires indexed completion mode");
                }
            }
        }
        Some(_) => {}
    }
}

fn indexed(spec: &Field, errors: &mut Errors) {
    let (completions, parallelism, failed) =
        (spec.at("completions"), spec.at("parallelism"), spec.at("maxFailedIndexes"));
    if completions.is_unset() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    if parallelism.int() > MAX_INDEXED {
        let why = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
        errors.invalid(&parallelism, why);
    }
    if completions.is_set() && failed.int() > completions.int() {
        errors.invalid(&failed, "must be less than or equal to completions");
    }
    if failed.int() > MAX_INDEXED {
        errors.invalid(&failed, format!("must be less than or equal to {MAX_INDEXED}"));
    }
    if completions.int() <= MANY_COMPLETIONS || spec.at("backoffLimitPerIndex").is_unset() {
        return;
    }
    if failed.is_unset() {
        errors.required(&failed, format!("must be specified when completions is above {MANY_COMPLETIONS}"));
    }
    for field in [parallelism, failed] {
        if field.int() > MAX_WITH_MANY {
            errors.invalid(&field, format!("must be less than or equal to {MAX_WITH_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"));
        }
    }
}

/// Whether two specs' templates are the same but for what a suspended Job's may change.
pub fn without_scheduling(old: &Value, new: &Value) -> Value {
    let mut old = old.clone();
    let keep = |to: &mut Value, from: &Value, field: &str| crate::strategy::keep(to, from, field);
    let of_new = &new["spec"]["affinity"]["nodeAffinity"];
    let spec = old.ensure_object().entry("spec", Value::object);
    match (new["spec"]["affinity"].is_null(), spec["affinity"].is_null()) {
        (true, false) => {
            spec.remove_path(&["affinity", "nodeAffinity"]);
            if spec["affinity"].is_empty() {
                spec.remove("affinity");
            }
        }
        (false, _) if of_new.is_null() => {
            spec.remove_path(&["affinity", "nodeAffinity"]);
            spec.ensure_object().entry("affinity", Value::object);
        }
        (false, _) => spec.set_path(&["affinity", "nodeAffinity"], of_new),
        (true, true) => {}
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        keep(spec, &new["spec"], field);
    }
    let meta = old.ensure_object().entry("metadata", Value::object);
    for field in ["annotations", "labels"] {
        keep(meta, &new["metadata"], field);
    }
    old
}
