//! CertificateSigningRequest: somebody's wish for a certificate, whether it was approved, and what came of it.

use super::pkcs;
use crate::checks::{self, Seen};
use crate::resource::{Column, Context, Info, Resource, Subresource, Verb, age, name};
use crate::strategy::{self, keep};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Errors, Field, Time, Value, names};
use std::time::Duration;

pub struct CertificateSigningRequest;

const KIND: (&str, &str, &str) = ("certificates.k8s.io", "v1", "CertificateSigningRequest");

static INFO: Info = Info {
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        Subresource { name: "approval", kind: KIND, verbs: Verb::STATUS },
        Subresource::status(KIND.0, KIND.1, KIND.2),
    ],
    selectable_fields: &["spec.signerName"],
    name: names::path_segment,
    ..Info::stored(KIND.0, KIND.1, KIND.2, "certificatesigningrequests")
};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

impl Resource for CertificateSigningRequest {
    fn info(&self) -> &'static Info {
        &INFO
    }

    /// Who asks is what the server knows, not what the request says.
    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        let spec = object.obj_mut("spec");
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        let mut set = |field: &str, value: Value| {
            if !value.is_empty() {
                spec.insert(field, value);
            }
        };
        set("username", cx.user.into());
        set("uid", cx.requester.uid.into());
        set("groups", cx.requester.groups.iter().map(|g| g.as_str()).collect());
        let mut extra = Value::object();
        for (key, values) in cx.requester.extra {
            extra.set(key, values.iter().map(|v| v.as_str()).collect::<Value>());
        }
        set("extra", extra);
        object.set("status", Value::object());
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        keep(new, old, "spec");
        match cx.subresource {
            "status" => {
                preserve(new, old, APPROVED);
                preserve(new, old, DENIED);
                timestamps(new, old, cx.now);
            }
            "approval" => {
                timestamps(new, old, cx.now);
                let conditions = new["status"]["conditions"].clone();
                strategy::keep(new, old, "status");
                let status = new.obj_mut("status");
                match conditions.is_null() {
                    true => status.remove("conditions"),
                    false => status.insert("conditions", conditions),
                };
            }
            _ => keep(new, old, "status"),
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        request(object, &Value::Null, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        request(new, old, errors);
        changes(new, old, cx.subresource, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::AGE,
                Column::new("SignerName", "string", "Who is to sign: a qualified name"),
                Column::new("Requestor", "string", "Who asked for the certificate"),
                Column::new("RequestedDuration", "string", "How long the certificate is wished to be valid"),
                Column::new("Condition", "string", "Whether the request was approved and signed"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let seconds = |n: i64| canopus_api::time::human_duration(Duration::from_secs(u64::try_from(n).unwrap_or(0)));
        vec![
            name(object),
            age(object, now),
            if spec["signerName"].is_empty() { "<none>".into() } else { spec["signerName"].clone() },
            spec["username"].str().into(),
            spec["expirationSeconds"].as_i64().map_or("<none>".into(), |n| seconds(n).into()),
            condition_cell(&object["status"]).into(),
        ]
    }
}

fn has(status: &Value, kind: &str) -> bool {
    status["conditions"].items().iter().any(|c| c["type"].str() == kind)
}

fn condition_cell(status: &Value) -> String {
    let mut text = String::from(match (has(status, DENIED), has(status, APPROVED)) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    });
    if has(status, FAILED) {
        text += ",Failed";
    }
    if !status["certificate"].is_empty() {
        text += ",Issued";
    }
    text
}

/// Where the conditions of one type are.
fn places(object: &Value, kind: &str) -> Vec<usize> {
    let conditions = object["status"]["conditions"].items();
    (0..conditions.len()).filter(|i| conditions[*i]["type"].str() == kind).collect()
}

/// Puts back conditions of a type, unless some were added or removed, which validation will refuse.
fn preserve(new: &mut Value, old: &Value, kind: &str) {
    let (from, to) = (places(old, kind), places(new, kind));
    if from.len() != to.len() || from.is_empty() {
        return;
    }
    let conditions = new.obj_mut("status").entry("conditions", || Value::Null).ensure_array();
    for (from, to) in from.into_iter().zip(to) {
        conditions[to] = old["status"]["conditions"][from].clone();
    }
}

/// When a condition was written and when it changed, where the writer doesn't say.
fn timestamps(new: &mut Value, old: &Value, now: Time) {
    let conditions = new.get_mut("status").and_then(|s| s.get_mut("conditions")).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition.set("lastUpdateTime", now);
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |c: &&Value| {
                c["type"] == condition["type"]
                    && c["status"] == condition["status"]
                    && !c["lastTransitionTime"].is_null()
            };
            let before = old["status"]["conditions"].items().iter().find(same);
            let since = before.map_or(Value::from(now), |c| c["lastTransitionTime"].clone());
            condition.set("lastTransitionTime", since);
        }
    }
}

/// The bytes of a base64 field; nothing when it is none.
fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.str()).unwrap_or_default()
}

/// The whole request. What `old` has wrong already may stay.
fn request(object: &Field, old: &Value, errors: &mut Errors) {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let text = spec.at("request");
    if let Err(why) = pkcs::check_request(&bytes(text.value)) {
        errors.invalid(&text, why);
    }
    usages(&spec.at("usages"), &old["spec"]["usages"], errors);
    let signer = spec.at("signerName");
    if signer.str() == LEGACY_SIGNER && old["spec"]["signerName"].str() != LEGACY_SIGNER {
        errors.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        checks::signer_name(&signer, errors);
    }
    let expiration = spec.at("expirationSeconds");
    if expiration.is_set() && expiration.int() < 600 {
        errors.invalid(&expiration, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(&status.at("conditions"), &old["status"]["conditions"], errors);
    let (certificate, before) = (status.at("certificate"), &old["status"]["certificate"]);
    let tolerated = !old.is_null()
        && (certificate.value.str() == before.str() || pkcs::check_certificates(&bytes(before)).is_err());
    if !tolerated && let Err(why) = pkcs::check_certificates(&bytes(certificate.value)) {
        errors.invalid(&certificate.with(&"<certificate data>".into()), why);
    }
}

fn usages(list: &Field, old: &Value, errors: &mut Errors) {
    let known = |usage: &Value| USAGES.contains(&usage.str());
    let any_unknown = old.items().iter().any(|usage| !known(usage));
    let any_twice = (0..old.items().len()).any(|i| old.items()[..i].contains(&old[i]));
    checks::required(list, errors);
    for usage in list.items().filter(|usage| !any_unknown && !known(usage.value)) {
        errors.not_supported(&usage, USAGES);
    }
    let mut seen = Seen::new();
    for usage in list.items() {
        if !seen.insert(usage.str().into()) && !any_twice {
            errors.duplicate(&usage);
        }
    }
}

fn conditions(list: &Field, old: &Value, errors: &mut Errors) {
    let types: Vec<&str> = old.items().iter().map(|c| c["type"].str()).collect();
    let any_empty = types.contains(&"");
    let any_twice = (0..types.len()).any(|i| types[..i].contains(&types[i]));
    let both = types.contains(&APPROVED) && types.contains(&DENIED);
    let mut seen = Seen::new();
    for condition in list.items() {
        let (kind, status) = (condition.at("type"), condition.at("status"));
        if !any_empty {
            checks::required(&kind, errors);
        }
        let always = [APPROVED, DENIED, FAILED].contains(&kind.str());
        checks::required_one_of(&status, if always { &["True"] } else { &["False", "True", "Unknown"] }, errors);
        let other = match kind.str() {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if !both && !other.is_empty() && seen.contains(other) {
            errors.invalid(&list.with(kind.value), "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind.str().into()) && !any_twice {
            errors.duplicate(&kind);
        }
    }
}

/// Approval is for `approval` to change, the certificate for `status`, and neither is taken back.
fn changes(new: &Field, old: &Value, subresource: &str, errors: &mut Errors) {
    let status = new.at("status");
    let (conditions, certificate) = (status.at("conditions"), status.at("certificate"));
    let count = |object: &Value, kind: &str| places(object, kind).len();
    for kind in [APPROVED, DENIED, FAILED] {
        if count(new.value, kind) < count(old, kind) {
            errors.forbidden(&conditions, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in [APPROVED, DENIED] {
        if subresource != "approval" && count(new.value, kind) > count(old, kind) {
            errors.forbidden(&conditions, format!("updates may not add a condition of type {kind:?}"));
        }
    }
    let before = old["status"]["certificate"].str();
    if certificate.value.str() == before {
        return;
    }
    if subresource != "status" {
        errors.forbidden(&certificate, "updates may not set certificate content");
    } else if !before.is_empty() {
        errors.forbidden(&certificate, "updates may not modify existing certificate content");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Requester;
    use crate::testing::{cells, context, create, update};
    use canopus_api::value;

    /// A request of `CN=jane,O=devs`, signed by a key of P-256.
    const REQUEST: &str = include_str!("request.pem");

    fn csr(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "jane"}, "spec": {
            "request": STANDARD.encode(REQUEST), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    fn with_conditions(conditions: Value) -> Value {
        let mut object = csr(value!({}));
        object.set_path(&["status", "conditions"], conditions);
        object
    }

    #[test]
    fn creation() {
        let forged = REQUEST.replace("MIH", "MIG");
        let cases: &[(Value, &[&str])] = &[
            (value!({}), &[]),
            (
                value!({"request": "YQ=="}),
                &["spec.request: Invalid value: \"YQ==\": PEM block type must be CERTIFICATE REQUEST"],
            ),
            (value!({"usages": []}), &["spec.usages: Required value"]),
            (value!({"usages": ["signing", "signing"]}), &["spec.usages[1]: Duplicate value: \"signing\""]),
            (
                value!({"signerName": "nodots/x", "expirationSeconds": 599}),
                &[
                    "spec.signerName: Invalid value: \"nodots\": should be a domain with at least two segments separated by dots",
                    "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
                ],
            ),
            (
                value!({"signerName": LEGACY_SIGNER}),
                &[
                    "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&CertificateSigningRequest, csr(spec.clone())), *expected, "{spec:?}");
        }
        assert_eq!(create(&CertificateSigningRequest, csr(value!({"usages": ["flying"]}))).len(), 1);
        assert_eq!(create(&CertificateSigningRequest, csr(value!({"request": STANDARD.encode(forged)}))).len(), 1);
    }

    #[test]
    fn who_asks_is_not_for_the_request_to_say() {
        let mut object = csr(value!({"username": "root", "groups": ["system:masters"], "extra": {"a": ["b"]}}));
        let (groups, extra) = (["devs".into()], [("k".into(), vec!["v".into()])]);
        let requester = Requester { uid: "u", groups: &groups, extra: &extra };
        CertificateSigningRequest.prepare_create(&mut object, &Context { requester, ..context("") });
        let spec = &object["spec"];
        assert_eq!((spec["username"].str(), spec["uid"].str()), ("tester", "u"));
        assert_eq!((&spec["groups"], &spec["extra"]), (&value!(["devs"]), &value!({"k": ["v"]})));
    }

    #[test]
    fn approval_belongs_to_its_subresource() {
        let approved = with_conditions(value!([{"type": "Approved", "status": "True"}]));
        let plain = with_conditions(value!([]));
        let run = |subresource: &str, old: &Value, new: &Value| {
            update(&CertificateSigningRequest, subresource, old.clone(), new.clone())
        };
        assert!(run("approval", &plain, &approved).is_empty());
        assert_eq!(
            run("status", &plain, &approved),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            run("approval", &approved, &plain),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert!(run("", &approved, &plain).is_empty(), "an update of the object leaves its status alone");
        let both =
            with_conditions(value!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "False"}]));
        assert_eq!(
            run("approval", &plain, &both),
            [
                "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ]
        );
    }

    #[test]
    fn certificates_are_set_once_through_status() {
        let old = with_conditions(value!([]));
        let mut new = old.clone();
        new.set_path(&["status", "certificate"], STANDARD.encode("nothing"));
        let run = |subresource: &str, old: &Value, new: &Value| {
            update(&CertificateSigningRequest, subresource, old.clone(), new.clone())
        };
        assert_eq!(
            run("status", &old, &new),
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
            ]
        );
        assert!(run("approval", &old, &new).is_empty(), "approval leaves the certificate alone");
        let other = with_conditions(value!([]));
        assert_eq!(
            run("status", &new, &other),
            ["status.certificate: Forbidden: updates may not modify existing certificate content"]
        );
    }

    #[test]
    fn times_and_cells() {
        let old = with_conditions(
            value!([{"type": "Approved", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}]),
        );
        let mut new =
            with_conditions(value!([{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]));
        CertificateSigningRequest.prepare_update(&mut new, &old, &context("approval"));
        let conditions = &new["status"]["conditions"];
        assert_eq!(conditions[0]["lastTransitionTime"].str(), "2025-01-01T00:00:00Z");
        assert_eq!(conditions[1]["lastTransitionTime"].str(), "1970-01-01T00:00:00Z");
        new.set_path(&["spec", "expirationSeconds"], 3600);
        new.set_path(&["spec", "username"], "jane");
        assert_eq!(
            cells(&CertificateSigningRequest, &new),
            ["jane", "<unknown>", "kubernetes.io/kube-apiserver-client", "jane", "60m", "Approved,Failed"]
        );
    }
}
