//! `--authorization-config`: AuthorizationConfiguration of apiserver.config.k8s.io (KEP-3221), read and validated as upstream does.

use super::abac::Policies;
use super::webhook::{self, Conditions};
use crate::strict::{self, Shape};
use canopus_api::{Errors, Field, Value, cron, names, value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KIND: &str = "AuthorizationConfiguration";
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const MAX_CONDITIONS: usize = 64;
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

const WEBHOOK: Shape = Shape::Object(&[
    ("authorizedTTL", Shape::Text),
    ("cacheAuthorizedRequests", Shape::Flag),
    ("unauthorizedTTL", Shape::Text),
    ("cacheUnauthorizedRequests", Shape::Flag),
    ("timeout", Shape::Text),
    ("subjectAccessReviewVersion", Shape::Text),
    ("matchConditionSubjectAccessReviewVersion", Shape::Text),
    ("failurePolicy", Shape::Text),
    ("connectionInfo", Shape::Object(&[("type", Shape::Text), ("kubeConfigFile", Shape::Text)])),
    ("matchConditions", Shape::List(&Shape::Object(&[("expression", Shape::Text)]))),
]);
const SHAPE: &[(&str, Shape)] = &[(
    "authorizers",
    Shape::List(&Shape::Object(&[("type", Shape::Text), ("name", Shape::Text), ("webhook", WEBHOOK)])),
)];

/// An authorizer, in the order in which they are asked.
pub enum Configured {
    AlwaysAllow,
    AlwaysDeny,
    /// Only flags can ask for it.
    Abac(Policies),
    Node,
    Rbac,
    /// Whom to ask is in a kubeconfig.
    Webhook(PathBuf, webhook::Options),
}

impl Configured {
    /// What the file calls those that are no webhooks.
    pub fn kind(&self) -> &'static str {
        match self {
            Configured::AlwaysAllow => "AlwaysAllow",
            Configured::AlwaysDeny => "AlwaysDeny",
            Configured::Abac(_) => "ABAC",
            Configured::Node => "Node",
            Configured::Rbac => "RBAC",
            Configured::Webhook(..) => "Webhook",
        }
    }
}

/// Reads a file.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Configured>, String> {
    let mut file = strict::parse(text, KIND, &["v1", "v1beta1", "v1alpha1"], SHAPE)?;
    default(&mut file);
    of(&file)
}

/// What the flags `--authorization-mode`, `--authorization-policy-file` and `--authorization-webhook-*` amount to.
///
/// # Errors
/// What is wrong with them.
pub fn of_modes(modes: &[String], policies: Option<Policies>, webhook: &Value) -> Result<Vec<Configured>, String> {
    let mut all = Vec::new();
    for (i, mode) in modes.iter().enumerate() {
        if !TYPES.contains(&mode.as_str()) && mode != "ABAC" {
            return Err(format!("authorization-mode {mode:?} is not a valid mode"));
        }
        if modes[..i].contains(mode) {
            return Err(format!("authorization-mode {modes:?} has mode specified more than once"));
        }
        match mode.as_str() {
            "Webhook" if webhook["connectionInfo"]["kubeConfigFile"].str().is_empty() => {
                return Err("authorization-mode Webhook's authorization config file not passed".into());
            }
            "Webhook" => all.push(value!({"type": "Webhook", "name": "default", "webhook": webhook.clone()})),
            "ABAC" => {}
            mode => all.push(value!({"type": mode, "name": mode.to_lowercase()})),
        }
    }
    if modes.is_empty() {
        return Err("at least one authorization-mode must be passed".into());
    }
    if !webhook["connectionInfo"]["kubeConfigFile"].str().is_empty() && !modes.iter().any(|m| m == "Webhook") {
        return Err("cannot specify --authorization-webhook-config-file without mode Webhook".into());
    }
    let abac = modes.iter().position(|mode| mode == "ABAC");
    if policies.is_some() && abac.is_none() {
        return Err("cannot specify --authorization-policy-file without mode ABAC".into());
    }
    let mut all = all.iter().map(configured).collect::<Result<Vec<_>, _>>()?;
    if let Some(at) = abac {
        let policies = policies.ok_or("authorization-mode ABAC's authorization policy file not passed")?;
        all.insert(at, Configured::Abac(policies));
    }
    Ok(all)
}

fn default(file: &mut Value) {
    let all = file.get_mut("authorizers").and_then(Value::as_array_mut);
    for webhook in all.into_iter().flatten().filter_map(|a| a.get_mut("webhook")).filter(|w| w.as_object().is_some()) {
        for (field, ttl) in [("authorizedTTL", "5m"), ("unauthorizedTTL", "30s")] {
            if duration(&webhook[field]).is_none_or(|d| d.is_zero()) && !webhook[field].str().starts_with('-') {
                webhook.set(field, ttl);
            }
        }
        webhook.set_default("cacheAuthorizedRequests", true);
        webhook.set_default("cacheUnauthorizedRequests", true);
    }
}

fn of(file: &Value) -> Result<Vec<Configured>, String> {
    let (mut errors, root) = (Errors::new(), Field::root(file));
    let all = root.at("authorizers");
    if all.value.items().is_empty() {
        errors.required(&all, "at least one authorization mode must be defined");
    }
    let (mut types, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for authorizer in all.items() {
        let (kind, name) = (authorizer.at("type"), authorizer.at("name"));
        match kind.str() {
            "" => errors.required(&kind, ""),
            text if !TYPES.contains(&text) => errors.not_supported(&kind, &TYPES),
            text if !types.insert(text.to_string()) && text != "Webhook" => errors.duplicate(&kind),
            text => {
                check_name(&name, &mut seen, &mut errors);
                check_webhook(text == "Webhook", &authorizer, &mut errors);
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors.aggregate());
    }
    for authorizer in all.value.items().iter().filter(|a| a["type"].str() != "Webhook") {
        let (kind, name) = (authorizer["type"].str(), authorizer["name"].str());
        if name != kind.to_lowercase() {
            return Err(format!("expected name {} for authorizer {kind} instead of {name}", kind.to_lowercase()));
        }
    }
    all.value.items().iter().map(configured).collect()
}

fn check_name(name: &Field, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    if name.str().is_empty() {
        return errors.required(name, "");
    }
    if !seen.insert(name.str().into()) {
        return errors.duplicate(name);
    }
    let wrong = names::dns1123_subdomain(name.str());
    if !wrong.is_empty() {
        errors.invalid(name, format!("authorizer name is invalid: {}", wrong.join(", ")));
    }
}

fn check_webhook(wanted: bool, authorizer: &Field, errors: &mut Errors) {
    let webhook = authorizer.at("webhook");
    match (wanted, webhook.is_set()) {
        (true, false) => return errors.required(&webhook, "required when type=Webhook"),
        (false, true) => {
            let shown = Value::from("non-null");
            return errors.invalid(&webhook.with(&shown), "may only be specified when type=Webhook");
        }
        (false, false) => return,
        (true, true) => {}
    }
    // Upstream names these as if they were the authorizer's own.
    let webhook = authorizer.with(webhook.value);
    check_times(&webhook, errors);
    check_words(&webhook, errors);
    check_connection(&webhook.at("connectionInfo"), errors);
    check_conditions(&webhook.at("matchConditions"), errors);
}

fn duration(value: &Value) -> Option<Duration> {
    if value.str() == "0" { Some(Duration::ZERO) } else { cron::duration(value.str()) }
}

fn check_times(webhook: &Field, errors: &mut Errors) {
    for (name, longest) in [("timeout", Some(LONGEST_TIMEOUT)), ("authorizedTTL", None), ("unauthorizedTTL", None)] {
        let field = webhook.at(name);
        let good = |d: &Duration| !d.is_zero() && longest.is_none_or(|most| *d <= most);
        match duration(field.value) {
            Some(time) if good(&time) => {}
            Some(time) if time.is_zero() => errors.required(&field, ""),
            None if field.str().is_empty() => errors.required(&field, ""),
            _ if longest.is_some() => errors.invalid(&field, "must be > 0s and <= 30s"),
            _ => errors.invalid(&field, "must be > 0s"),
        }
    }
}

fn check_words(webhook: &Field, errors: &mut Errors) {
    let conditions = !webhook.at("matchConditions").value.items().is_empty();
    for (name, known, missing) in [
        ("subjectAccessReviewVersion", &["v1", "v1beta1"][..], Some("")),
        (
            "matchConditionSubjectAccessReviewVersion",
            &["v1"],
            conditions.then_some("required if match conditions are specified"),
        ),
        ("failurePolicy", &["NoOpinion", "Deny"], Some("")),
    ] {
        let field = webhook.at(name);
        match (field.str(), missing) {
            ("", Some(detail)) => errors.required(&field, detail),
            ("", None) => {}
            (word, _) if known.contains(&word) => {}
            _ => errors.not_supported(&field, known),
        }
    }
}

fn check_connection(connection: &Field, errors: &mut Errors) {
    let (kind, file) = (connection.at("type"), connection.at("kubeConfigFile"));
    match kind.str() {
        "" => errors.required(&kind, ""),
        "KubeConfigFile" => {
            let path = Path::new(file.str());
            if file.str().is_empty() {
                errors.required(&file, "");
            } else if !path.is_absolute() {
                errors.invalid(&file, "must be an absolute path");
            } else {
                match std::fs::metadata(path) {
                    Err(error) => errors.invalid(&file, format!("error loading file: {error}")),
                    Ok(found) if !found.is_file() => errors.invalid(&file, "must be a regular file"),
                    Ok(_) => {}
                }
            }
        }
        // The server is in no pod.
        _ => errors.not_supported(&kind, &["KubeConfigFile"]),
    }
}

fn check_conditions(conditions: &Field, errors: &mut Errors) {
    let count = conditions.value.items().len();
    if count > MAX_CONDITIONS {
        return errors.too_many(conditions, count, MAX_CONDITIONS);
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let expression = condition.at("expression");
        match expression.str() {
            blank if blank.trim().is_empty() => errors.required(&expression, ""),
            source if !seen.insert(source.to_string()) => errors.duplicate(&expression),
            source => {
                if let Err(why) = Conditions::compile(source) {
                    errors.invalid(&expression, why);
                }
            }
        }
    }
}

fn configured(authorizer: &Value) -> Result<Configured, String> {
    let webhook = &authorizer["webhook"];
    Ok(match authorizer["type"].str() {
        "AlwaysAllow" => Configured::AlwaysAllow,
        "AlwaysDeny" => Configured::AlwaysDeny,
        "Node" => Configured::Node,
        "RBAC" => Configured::Rbac,
        _ => {
            let kept = |flag: &str, ttl: &str| match webhook[flag].as_bool() {
                Some(false) => Duration::ZERO,
                _ => duration(&webhook[ttl]).unwrap_or_default(),
            };
            let sources = webhook["matchConditions"].items().iter().map(|c| c["expression"].str());
            let options = webhook::Options {
                name: authorizer["name"].str().into(),
                version: webhook["subjectAccessReviewVersion"].str().into(),
                timeout: duration(&webhook["timeout"]).unwrap_or(LONGEST_TIMEOUT),
                authorized_ttl: kept("cacheAuthorizedRequests", "authorizedTTL"),
                unauthorized_ttl: kept("cacheUnauthorizedRequests", "unauthorizedTTL"),
                deny_on_error: webhook["failurePolicy"].str() == "Deny",
                conditions: Conditions::of(sources)?,
            };
            Configured::Webhook(webhook["connectionInfo"]["kubeConfigFile"].str().into(), options)
        }
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
