//! What mutating and validating webhooks have in common, and what every `clientConfig` may say.

use super::{policy, rule};
use crate::checks;
use canopus_api::{Errors, Field, Value, names};
use std::collections::BTreeSet;

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// Fills in what the webhooks of a configuration leave out.
pub fn default(configuration: &mut Value, mutating: bool) {
    let Some(hooks) = configuration.get_mut("webhooks").and_then(Value::as_array_mut) else { return };
    for hook in hooks {
        hook.set_default("failurePolicy", "Fail");
        hook.set_default("matchPolicy", "Equivalent");
        hook.set_default("namespaceSelector", Value::object());
        hook.set_default("objectSelector", Value::object());
        hook.set_default("timeoutSeconds", 10);
        if mutating {
            hook.set_default("reinvocationPolicy", "Never");
        }
        if let Some(rules) = hook.get_mut("rules").and_then(Value::as_array_mut) {
            rules.iter_mut().for_each(rule::default);
        }
        if let Some(service) = hook.get_mut("clientConfig").and_then(|c| c.get_mut("service")).filter(|s| !s.is_null())
        {
            service.set_default("port", 443);
        }
    }
}

/// What was bad before may stay.
#[derive(Default)]
struct Lenient {
    side_effects: bool,
    review_versions: bool,
    names: bool,
}

impl Lenient {
    fn towards(old: &Value) -> Lenient {
        let hooks = old["webhooks"].items();
        let harmless = |h: &Value| NO_SIDE_EFFECTS.contains(&h["sideEffects"].str());
        let understood = |h: &Value| {
            let versions = h["admissionReviewVersions"].items();
            versions.is_empty() || versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.str()))
        };
        let mut seen = BTreeSet::new();
        Lenient {
            side_effects: !hooks.iter().all(harmless),
            review_versions: !hooks.iter().all(understood),
            names: !hooks.iter().all(|h| seen.insert(h["name"].str())),
        }
    }
}

/// All that is wrong with the webhooks of a configuration that changes from `old`, or is new.
pub fn validate(configuration: &Field, old: Option<&Value>, errors: &mut Errors) {
    let lenient = old.map(Lenient::towards).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for hook in configuration.at("webhooks").items() {
        validate_one(&hook, &lenient, errors);
        review_versions(&hook.at("admissionReviewVersions"), lenient.review_versions, errors);
        let name = hook.at("name");
        let known = hook.value["name"].str();
        if !lenient.names && !known.is_empty() && !seen.insert(known) {
            errors.duplicate(&name);
        }
    }
}

fn validate_one(hook: &Field, lenient: &Lenient, errors: &mut Errors) {
    qualified_name(&hook.at("name"), errors);
    hook.at("rules").items().for_each(|r| rule::validate_any(&r, errors));
    checks::optional_one_of(&hook.at("failurePolicy"), &["Fail", "Ignore"], errors);
    checks::optional_one_of(&hook.at("matchPolicy"), &["Equivalent", "Exact"], errors);
    let (effects, allowed) =
        (hook.at("sideEffects"), if lenient.side_effects { SIDE_EFFECTS } else { NO_SIDE_EFFECTS });
    match effects.is_set() {
        true => checks::one_of(&effects, allowed, errors),
        false => errors.required(&effects, format!("must specify one of {}", allowed.join(", "))),
    }
    let timeout = hook.at("timeoutSeconds");
    if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    checks::label_selector(&hook.at("namespaceSelector"), errors);
    checks::label_selector(&hook.at("objectSelector"), errors);
    checks::optional_one_of(&hook.at("reinvocationPolicy"), &["IfNeeded", "Never"], errors);
    client_config(&hook.at("clientConfig"), errors);
    policy::match_conditions(&hook.at("matchConditions"), false, errors);
}

fn qualified_name(name: &Field, errors: &mut Errors) {
    if !checks::required(name, errors) {
        return;
    }
    let why = names::dns1123_subdomain(name.str());
    if !why.is_empty() {
        errors.invalid(name, why.join(","));
    } else if name.str().split('.').count() < 3 {
        errors.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

/// Review versions in the order of the webhook's liking, of which the server must know one.
pub fn review_versions(field: &Field, lenient: bool, errors: &mut Errors) {
    let versions = field.value.items();
    if versions.is_empty() {
        return errors.required(field, format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    let mut seen = BTreeSet::new();
    for version in field.items() {
        if seen.insert(version.str()) {
            checks::check(&version, names::dns1035_label, errors);
        } else {
            errors.invalid(&version, "duplicate version");
        }
    }
    if !lenient && !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.str())) {
        errors.invalid(field, format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

/// A `clientConfig`: where a webhook is.
pub fn client_config(config: &Field, errors: &mut Errors) {
    let (at, service) = (config.at("url"), config.at("service"));
    match (at.is_set(), service.is_set()) {
        (true, false) => url(&at, errors),
        (false, true) => self::service(&service, errors),
        _ => errors.required(config, "exactly one of url or service is required"),
    }
}

/// The URL of a webhook: `https://host[/path]` and nothing more.
pub fn url(field: &Field, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = field.str();
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if !scheme.contains('/') => (scheme, rest),
        _ => ("", rest),
    };
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or(""));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        errors.invalid(&field.with(&scheme.into()), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(&field.with(&host.into()), format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(&field.with(&user.into()), "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(&field.with(&fragment.into()), "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(&field.with(&query.into()), "query parameters are not permitted in the URL");
    }
}

/// The Service of a webhook, with a path.
pub fn service(service: &Field, errors: &mut Errors) {
    checks::required(&service.at("name"), errors);
    checks::required(&service.at("namespace"), errors);
    let port = service.at("port");
    if !(1..=65535).contains(&port.int()) {
        errors.invalid(&port.with(&port.int().into()), "port is not valid: must be between 1 and 65535, inclusive");
    }
    let path = service.at("path");
    match path.str() {
        "" | "/" => {}
        "//" => errors.invalid(&path, "segment[0] may not be empty"),
        text => {
            if !text.starts_with('/') {
                errors.invalid(&path, "must start with a '/'");
            }
            let mut rest = text.chars();
            rest.next();
            let rest = rest.as_str();
            for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
                if step.is_empty() {
                    errors.invalid(&path, format!("segment[{i}] may not be empty"));
                    continue;
                }
                for why in names::dns1123_subdomain(step) {
                    errors.invalid(&path, format!("segment[{i}]: {why}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mutatingwebhookconfiguration::MutatingWebhookConfiguration;
    use super::*;
    use crate::Resource;
    use crate::testing::{create, update};
    use canopus_api::value;

    fn configuration(change: impl Fn(&mut Value)) -> Value {
        let mut hook = value!({
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "/mutate"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        change(&mut hook);
        let mut object = value!({"metadata": {"name": "x"}, "webhooks": [hook]});
        default(&mut object, true);
        object
    }

    #[test]
    fn defaults() {
        let object = configuration(|_| {});
        let hook = &object["webhooks"][0];
        assert_eq!(hook["failurePolicy"].str(), "Fail");
        assert_eq!((hook["timeoutSeconds"].int(), hook["reinvocationPolicy"].str()), (10, "Never"));
        assert_eq!((hook["rules"][0]["scope"].str(), hook["clientConfig"]["service"]["port"].int()), ("*", 443));
        assert_eq!(create(&MutatingWebhookConfiguration, object), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_webhook() {
        let cases: &[(&[&str], Value, &str)] = &[
            (
                &["name"],
                "a.b".into(),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                &["sideEffects"],
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                &["sideEffects"],
                "Some".into(),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                &["timeoutSeconds"],
                31.into(),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                &["admissionReviewVersions"],
                value!(["v2"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            (
                &["clientConfig"],
                value!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                &["clientConfig"],
                value!({"url": "http://x"}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                &["clientConfig"],
                value!({"url": "https://u:p@x/"}),
                "webhooks[0].clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
            ),
            (
                &["clientConfig"],
                value!({"url": "https://x/?a=b"}),
                "webhooks[0].clientConfig.url: Invalid value: \"a=b\": query parameters are not permitted in the URL",
            ),
            (&["clientConfig", "service", "path"], "x//y".into(), "must start with a '/'"),
            (
                &["matchConditions"],
                value!([{"name": "a", "expression": " "}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
        ];
        for (path, given, expected) in cases {
            let errors = create(&MutatingWebhookConfiguration, configuration(|hook| hook.set_path(path, given)));
            assert!(errors.iter().any(|e| e.contains(expected)), "{path:?}: {errors:?}");
        }
    }

    #[test]
    fn what_was_bad_may_stay() {
        let old = configuration(|hook| hook.set("sideEffects", "Unknown"));
        let mut new = old.clone();
        new.set_path(&["metadata", "labels"], value!({"a": "b"}));
        assert_eq!(update(&MutatingWebhookConfiguration, "", old, new), Vec::<String>::new());
        assert!(MutatingWebhookConfiguration.info().generation);
    }
}
