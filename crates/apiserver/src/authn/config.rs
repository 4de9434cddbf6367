//! `--authentication-config`: AuthenticationConfiguration of apiserver.config.k8s.io (KEP-3331), read and validated as upstream does.

use super::Anonymous;
use super::oidc::claims::{Claims, Mapping, Rule};
use super::oidc::{self, Settings};
use crate::outgoing::Trust;
use crate::strict::{self, Shape};
use canopus_api::{Errors, Field, Value, names};
use http::Uri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;

const KIND: &str = "AuthenticationConfiguration";
const MAX_ISSUERS: usize = 64;

const MAPPING: Shape = Shape::Object(&[("claim", Shape::Text), ("prefix", Shape::Text), ("expression", Shape::Text)]);
const JWT: Shape = Shape::Object(&[
    (
        "issuer",
        Shape::Object(&[
            ("url", Shape::Text),
            ("discoveryURL", Shape::Text),
            ("certificateAuthority", Shape::Text),
            ("audiences", Shape::List(&Shape::Text)),
            ("audienceMatchPolicy", Shape::Text),
            ("egressSelectorType", Shape::Text),
        ]),
    ),
    (
        "claimValidationRules",
        Shape::List(&Shape::Object(&[
            ("claim", Shape::Text),
            ("requiredValue", Shape::Text),
            ("expression", Shape::Text),
            ("message", Shape::Text),
        ])),
    ),
    (
        "claimMappings",
        Shape::Object(&[
            ("username", MAPPING),
            ("groups", MAPPING),
            ("uid", Shape::Object(&[("claim", Shape::Text), ("expression", Shape::Text)])),
            ("extra", Shape::List(&Shape::Object(&[("key", Shape::Text), ("valueExpression", Shape::Text)]))),
        ]),
    ),
    ("userValidationRules", Shape::List(&Shape::Object(&[("expression", Shape::Text), ("message", Shape::Text)]))),
]);
const SHAPE: &[(&str, Shape)] = &[
    ("jwt", Shape::List(&JWT)),
    (
        "anonymous",
        Shape::Object(&[
            ("enabled", Shape::Flag),
            ("conditions", Shape::List(&Shape::Object(&[("path", Shape::Text)]))),
        ]),
    ),
];

/// What the file says.
pub struct Configuration {
    pub issuers: Vec<Settings>,
    /// None: the file says nothing about it.
    pub anonymous: Option<Anonymous>,
}

impl Configuration {
    /// Reads a file. No issuer may be one of `own`, whose tokens are those of service accounts.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, own: &[String]) -> Result<Configuration, String> {
        let file = strict::parse(text, KIND, &["v1", "v1beta1", "v1alpha1"], SHAPE)?;
        Configuration::of(&file, own, &oidc::ALGORITHMS)
    }

    /// Reads what a file or flags amount to; tokens must be signed with one of `algorithms`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of(file: &Value, own: &[String], algorithms: &[&str]) -> Result<Configuration, String> {
        let (mut errors, root) = (Errors::new(), Field::root(file));
        let jwt = root.at("jwt");
        let count = jwt.value.items().len();
        if count > MAX_ISSUERS {
            errors.too_many(&jwt, count, MAX_ISSUERS);
            return Err(errors.aggregate());
        }
        let (mut urls, mut discovery) = (BTreeSet::new(), BTreeSet::new());
        let mut issuers = Vec::new();
        for entry in jwt.items() {
            issuers.push(authenticator(&entry, own, algorithms, &mut errors));
            let issuer = entry.at("issuer");
            if !urls.insert(issuer.at("url").str().to_string()) {
                errors.duplicate(&issuer.at("url"));
            }
            let found = issuer.at("discoveryURL");
            if !found.str().is_empty() && !discovery.insert(found.str().to_string()) {
                errors.duplicate(&found);
            }
        }
        let anonymous = anonymous(&root.at("anonymous"), &mut errors);
        if errors.is_empty() { Ok(Configuration { issuers, anonymous }) } else { Err(errors.aggregate()) }
    }
}

fn anonymous(field: &Field, errors: &mut Errors) -> Option<Anonymous> {
    let enabled = field.at("enabled").bool();
    let conditions = field.at("conditions");
    if !enabled && !conditions.value.items().is_empty() {
        errors.invalid(&conditions, "enabled should be set to true when conditions are defined");
    }
    let paths = conditions.value.items().iter().map(|c| c["path"].str().to_string()).collect();
    field.is_set().then_some(Anonymous { enabled, paths })
}

fn authenticator(field: &Field, own: &[String], algorithms: &[&str], errors: &mut Errors) -> Settings {
    let issuer = field.at("issuer");
    check_issuer(&issuer, own, errors);
    let mut claims = Claims::default();
    let mut verified = validation_rules(&field.at("claimValidationRules"), &mut claims, errors);
    let mappings = field.at("claimMappings");
    let username = mappings.at("username");
    let mapped = prefixed(&username, true, errors);
    let expression = username.at("expression").str();
    let email = mapped.is_some() && oidc::claims::selects(expression, "email");
    verified |= oidc::claims::selects(expression, "email_verified");
    claims.username = mapped.unwrap_or_default();
    claims.groups = prefixed(&mappings.at("groups"), false, errors);
    claims.uid = uid(&mappings.at("uid"), errors);
    verified |= extra(&mappings.at("extra"), &mut claims, errors);
    if email && !verified {
        errors.invalid(
            &username.at("expression"),
            "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        );
    }
    user_rules(&field.at("userValidationRules"), &mut claims, errors);
    Settings {
        source: field.value.clone(),
        issuer: issuer.at("url").str().into(),
        discovery: issuer.at("discoveryURL").str().into(),
        trust: Trust::bundle(issuer.at("certificateAuthority").str().as_bytes()),
        audiences: issuer.at("audiences").value.items().iter().map(|a| a.str().to_string()).collect(),
        algorithms: algorithms.iter().map(|a| a.to_string()).collect(),
        claims,
    }
}

fn check_issuer(issuer: &Field, own: &[String], errors: &mut Errors) {
    let (url, discovery) = (issuer.at("url"), issuer.at("discoveryURL"));
    match url.str() {
        "" => errors.required(&url, ""),
        _ => check_url(&url, own, errors),
    }
    if !discovery.str().is_empty() {
        if !url.str().is_empty() && url.str().trim_end_matches('/') == discovery.str().trim_end_matches('/') {
            errors.invalid(&discovery, "discoveryURL must be different from URL");
        }
        check_url(&discovery, &[], errors);
    }
    check_audiences(&issuer.at("audiences"), &issuer.at("audienceMatchPolicy"), errors);
    let authority = issuer.at("certificateAuthority");
    let bundle = authority.str();
    if !bundle.is_empty() && !CertificateDer::pem_slice_iter(bundle.as_bytes()).any(|c| c.is_ok()) {
        let omitted = Value::from("<omitted>");
        errors.invalid(&authority.with(&omitted), "data does not contain any valid RSA or ECDSA certificates");
    }
    let egress = issuer.at("egressSelectorType");
    match egress.str() {
        "" => {}
        // There is no egress selection here: what is asked for cannot be had.
        "controlplane" | "cluster" => errors.invalid(&egress, "egress selector is not configured"),
        _ => errors.invalid(&egress, "egress selector must be either controlplane or cluster"),
    }
}

fn check_url(field: &Field, own: &[String], errors: &mut Errors) {
    let text = field.str();
    if own.iter().any(|o| o == text) {
        let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
        all.sort_unstable();
        errors.invalid(field, format!("URL must not overlap with disallowed issuers: [{}]", all.join(" ")));
    }
    let without_fragment = text.split('#').next().unwrap_or("");
    let uri: Uri = match without_fragment.parse() {
        Ok(uri) => uri,
        Err(error) => return errors.invalid(field, format!("parse {text:?}: {error}")),
    };
    if uri.scheme_str() != Some("https") {
        errors.invalid(field, "URL scheme must be https");
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        errors.invalid(field, "URL must not contain a username or password");
    }
    if uri.query().is_some_and(|q| !q.is_empty()) {
        errors.invalid(field, "URL must not contain a query");
    }
    if text.len() > without_fragment.len() + 1 {
        errors.invalid(field, "URL must not contain a fragment");
    }
}

fn check_audiences(audiences: &Field, policy: &Field, errors: &mut Errors) {
    let count = audiences.value.items().len();
    if count == 0 {
        return errors.required(audiences, format!("at least one {} is required", audiences.path()));
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for audience in audiences.items() {
        if audience.str().is_empty() {
            errors.required(&audience, "");
        }
        if !seen.insert(audience.str().into()) {
            errors.duplicate(&audience);
        }
    }
    let said = Value::from(policy.str());
    let policy = &policy.with(&said);
    match (count, policy.str()) {
        (_, "MatchAny") | (1, "") => {}
        (1, _) => errors.invalid(policy, "audienceMatchPolicy must be empty or MatchAny for single audience"),
        _ => errors.invalid(policy, "audienceMatchPolicy must be MatchAny for multiple audiences"),
    }
}

/// Answers whether one of them looks at `claims.email_verified`.
fn validation_rules(rules: &Field, claims: &mut Claims, errors: &mut Errors) -> bool {
    let (mut names, mut expressions, mut verified) = (BTreeSet::new(), BTreeSet::new(), false);
    for rule in rules.items() {
        let (claim, expression) = (rule.at("claim"), rule.at("expression"));
        match (claim.str(), expression.str()) {
            ("", "") => errors.required(&rule, "claim or expression is required"),
            (name, "") => {
                if !rule.at("message").str().is_empty() {
                    errors.invalid(&rule.at("message"), "may not be specified when claim is set");
                }
                if !names.insert(name.to_string()) {
                    errors.duplicate(&claim);
                }
                claims.required.push((name.into(), rule.at("requiredValue").str().into()));
            }
            ("", source) => {
                if !rule.at("requiredValue").str().is_empty() {
                    errors.invalid(&rule.at("requiredValue"), "may not be specified when expression is set");
                }
                if !expressions.insert(source.to_string()) {
                    errors.duplicate(&expression);
                    continue;
                }
                verified |= oidc::claims::selects(source, "email_verified");
                let message = rule.at("message").str();
                claims.rules.extend(compiled(Rule::of_claims(source, message), &expression, errors));
            }
            (name, _) => errors.invalid(&rule.with(&Value::from(name)), "claim and expression can't both be set"),
        }
    }
    verified
}

fn compiled<T>(result: Result<T, String>, field: &Field, errors: &mut Errors) -> Option<T> {
    result.map_err(|why| errors.invalid(field, why)).ok()
}

fn prefixed(field: &Field, required: bool, errors: &mut Errors) -> Option<Mapping> {
    let (claim, prefix, expression) = (field.at("claim"), field.at("prefix"), field.at("expression"));
    let nothing = Value::from("");
    match (claim.str(), expression.str()) {
        ("", "") => {
            if required {
                errors.required(field, "claim or expression is required");
            }
            None
        }
        ("", source) => {
            if prefix.is_set() {
                errors.invalid(&prefix, "may not be specified when expression is set");
            }
            compiled(Mapping::expression(source), &expression, errors)
        }
        (name, "") => {
            if !prefix.is_set() {
                errors.required(
                    &prefix,
                    "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                );
            }
            Some(Mapping::Claim { name: name.into(), prefix: prefix.str().into() })
        }
        _ => {
            errors.invalid(&field.with(&nothing), "claim and expression can't both be set");
            None
        }
    }
}

fn uid(field: &Field, errors: &mut Errors) -> Option<Mapping> {
    let (claim, expression) = (field.at("claim"), field.at("expression"));
    match (claim.str(), expression.str()) {
        ("", "") => None,
        ("", source) => compiled(Mapping::expression(source), &expression, errors),
        (name, "") => Some(Mapping::Claim { name: name.into(), prefix: String::new() }),
        _ => {
            errors.invalid(&field.with(&Value::from("")), "claim and expression can't both be set");
            None
        }
    }
}

/// Answers whether one of them looks at `claims.email_verified`.
fn extra(all: &Field, claims: &mut Claims, errors: &mut Errors) -> bool {
    let (mut seen, mut verified) = (BTreeSet::new(), false);
    for mapping in all.items() {
        let (key, expression) = (mapping.at("key"), mapping.at("valueExpression"));
        check_key(&key, errors);
        if !seen.insert(key.str().to_string()) {
            errors.duplicate(&key);
            continue;
        }
        match expression.str() {
            "" => errors.required(&expression, ""),
            source => {
                verified |= oidc::claims::selects(source, "email_verified");
                let program = compiled(Mapping::expression(source), &expression, errors);
                claims.extra.extend(program.map(|mapping| (key.str().into(), mapping)));
            }
        }
    }
    verified
}

/// `example.org/foo`.
fn check_key(key: &Field, errors: &mut Errors) {
    let text = key.str();
    match text.split_once('/') {
        _ if text.is_empty() => errors.required(key, ""),
        None => errors.invalid(key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((domain, path)) => {
            for why in names::dns1123_subdomain(domain) {
                errors.invalid(&key.with(&Value::from(domain)), why);
            }
            let good = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if path.is_empty() || !path.chars().all(good) {
                errors.invalid(&key.with(&Value::from(path)), "Invalid path");
            }
            if ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}"))) {
                errors.invalid(key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
            }
        }
    }
    if text.to_lowercase() != text {
        errors.invalid(key, "must be lowercase");
    }
}

fn user_rules(rules: &Field, claims: &mut Claims, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for rule in rules.items() {
        let expression = rule.at("expression");
        match expression.str() {
            "" => errors.required(&expression, ""),
            source if !seen.insert(source.to_string()) => errors.duplicate(&expression),
            source => {
                let message = rule.at("message").str();
                claims.user_rules.extend(compiled(Rule::of_user(source, message), &expression, errors));
            }
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
