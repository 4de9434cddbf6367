//! PodCertificateRequest: a node's wish for a certificate for a pod, and what the signer made of it (KEP-4317).

use super::issued;
use super::keys::{self, Kind};
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, labels_cell, name};
use crate::strategy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Errors, Field, Time, Value, names};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

pub struct PodCertificateRequest;

static INFO: Info = Info {
    singular: "podcertificaterequest",
    unconditional_update: false,
    gate: "PodCertificateRequest",
    subresources: &[Subresource::status("certificates.k8s.io", "v1beta1", "PodCertificateRequest")],
    selectable_fields: &["spec.signerName", "spec.podName", "spec.nodeName"],
    ..Info::stored("certificates.k8s.io", "v1beta1", "PodCertificateRequest", "podcertificaterequests")
};

const DAY: i64 = 24 * 60 * 60;
const HOUR: i64 = 60 * 60;
const MAX_UID: usize = 128;
const MAX_KEY: usize = 10 * 1024;

impl Resource for PodCertificateRequest {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        object.ensure_object().entry("spec", Value::object).set_default("maxExpirationSeconds", DAY);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.set("status", Value::object());
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        match cx.subresource {
            "status" => strategy::only_status(new, old, strategy::STATUS_METADATA),
            _ => strategy::keep(new, old, "status"),
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        checks::signer_name(&spec.at("signerName"), errors);
        annotations(&spec.at("unverifiedUserAnnotations"), errors);
        for (named, uid) in
            [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
        {
            let (named, uid) = (spec.at(named), spec.at(uid));
            checks::check(&named.with(&named.str().into()), names::dns1123_subdomain, errors);
            match uid.str().len() {
                0 => errors.invalid(&uid.with(&"".into()), "must not be empty"),
                1..=MAX_UID => {}
                _ => errors.too_long(&uid, MAX_UID),
            }
        }
        let expiration = spec.at("maxExpirationSeconds");
        if expiration.is_unset() {
            return errors.required(&expiration, "must be set");
        }
        let most = if is_of_kubernetes(spec.at("signerName").str()) { DAY } else { 91 * DAY };
        if !(HOUR..=most).contains(&expiration.int()) {
            errors.invalid(&expiration, format!("must be in the range [{HOUR}, {most}]"));
        }
        let set = |field: &str| !spec.at(field).str().is_empty();
        match (set("stubPKCS10Request"), set("pkixPublicKey"), set("proofOfPossession")) {
            (true, false, false) => stub(&spec.at("stubPKCS10Request"), errors),
            (false, true, true) => proven(&spec, errors),
            _ => errors.invalid_unshown(
                &spec,
                "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
            ),
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        match cx.subresource {
            "status" => issued::status(new, old, cx.now, errors),
            _ => checks::immutable(&new.at("spec"), &old["spec"], errors),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("PodName", "string", "The pod that the certificate is for"),
                Column::new("ServiceAccountName", "string", "The service account that the pod runs as"),
                Column::new("NodeName", "string", "The node that the pod runs on"),
                Column::new("SignerName", "string", "Who is to sign: a qualified name"),
                Column::new("State", "string", "Is the request Pending, Issued, Denied, or Failed?"),
                Column::new("UnverifiedUserAnnotations", "string", "What the pod wants the signer to know, unchecked"),
            ]
        }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let (spec, conditions) = (&object["spec"], object["status"]["conditions"].items());
        let text = |field: &str| -> Value { spec[field].str().into() };
        let state = conditions.iter().map(|c| c["type"].str()).rfind(|kind| issued::STATES.contains(kind));
        vec![
            name(object),
            text("podName"),
            text("serviceAccountName"),
            text("nodeName"),
            text("signerName"),
            state.unwrap_or("Pending").into(),
            labels_cell(&spec["unverifiedUserAnnotations"]),
        ]
    }
}

fn is_of_kubernetes(signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// What pods say to signers: keys with a domain, whatever their case, as much of it as an object may have annotations.
fn annotations(map: &Field, errors: &mut Errors) {
    for (key, _) in map.value.entries() {
        let lower = Value::from(key.to_lowercase());
        checks::domain_prefixed_key(&map.with(&lower), errors);
    }
    checks::annotations_size(map, errors);
}

/// The bytes of a field, unless they are too many.
fn bytes(field: &Field, errors: &mut Errors) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(field.str()).unwrap_or_default();
    if bytes.len() > MAX_KEY {
        errors.too_long(field, MAX_KEY);
        return None;
    }
    Some(bytes)
}

/// A request that says nothing but the key, signed with it.
fn stub(field: &Field, errors: &mut Errors) {
    let Some(der) = bytes(field, errors) else { return };
    let request = match X509CertificationRequest::from_der(&der) {
        Ok(([], request)) => request,
        _ => return errors.invalid_unshown(field, "must be a valid PKCS#10 CSR"),
    };
    let Some(kind) = keys::kind(&request.certification_request_info.subject_pki) else {
        return errors.invalid_unshown(field, "must be a valid PKCS#10 CSR");
    };
    match kind {
        Kind::Other => {
            let why = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
            errors.invalid_unshown(field, why);
        }
        _ if !fit(kind, field, "elliptic public keys must use curve P256, P384, or P521", errors) => {}
        _ if keys::check_request(&request).is_err() => errors.invalid_unshown(field, "invalid signature"),
        _ => {}
    }
}

/// Whether a key is of a kind that is good enough; the error says so.
fn fit(kind: Kind, field: &Field, curves: &str, errors: &mut Errors) -> bool {
    match kind {
        Kind::Ec("P-224") => errors.invalid(&field.with(&"curve P-224".into()), curves),
        Kind::Rsa(bits) if bits != 3072 && bits != 4096 => {
            let shown = format!("{bits}-bit modulus");
            errors.invalid(&field.with(&shown.into()), "RSA keys must have modulus size 3072 or 4096");
        }
        _ => return true,
    }
    false
}

/// A key, and the pod's uid signed with it.
fn proven(spec: &Field, errors: &mut Errors) {
    let (key, proof) = (spec.at("pkixPublicKey"), spec.at("proofOfPossession"));
    let Some(der) = bytes(&key, errors) else { return };
    let Some(signature) = bytes(&proof, errors) else { return };
    match keys::parse(&der) {
        None => errors.invalid(&key, "must be a valid PKIX-serialized public key"),
        Some((_, Kind::Other)) => {
            errors.invalid(&key, "unknown public key type; supported types are Ed25519, ECDSA, and RSA");
        }
        Some((_, kind)) if !fit(kind, &key, "elliptic public keys must use curve P256 or P384", errors) => {}
        Some((parsed, kind)) => {
            if !keys::proves(&parsed, kind, spec.at("podUID").str().as_bytes(), &signature) {
                errors.invalid_unshown(&proof, "could not verify proof-of-possession signature");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SigningKey};

    const EPOCH: &str = "1970-01-01T00:00:00Z";

    fn params(names: &[&str], days: u8) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1 + days);
        params
    }

    fn request(key: &KeyPair) -> String {
        STANDARD.encode(params(&[], 1).serialize_request(key).unwrap().der())
    }

    fn asked(fields: Value) -> Value {
        let mut spec = value!({"signerName": "a.b/c", "podName": "p", "podUID": "uid", "serviceAccountName": "s",
            "serviceAccountUID": "s", "nodeName": "n", "nodeUID": "n"});
        fields.entries().for_each(|(field, value)| spec.set(field, value));
        value!({"metadata": {"name": "r", "namespace": "ns"}, "spec": spec})
    }

    fn told(fields: Value) -> Vec<String> {
        create(&PodCertificateRequest, asked(fields))
    }

    #[test]
    fn wishes() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(told(value!({"stubPKCS10Request": request(&key)})), [""; 0]);
        }
        let key = KeyPair::generate().unwrap();
        let (public, proof) = (STANDARD.encode(key.subject_public_key_info()), key.sign(b"uid").unwrap());
        let proven =
            |proof: &[u8]| told(value!({"pkixPublicKey": (&public), "proofOfPossession": STANDARD.encode(proof)}));
        assert_eq!(proven(&proof), [""; 0]);
        let forged = "spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature";
        assert_eq!(proven(&key.sign(b"other").unwrap()), [forged]);
        let good = request(&key);
        let one =
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        let mut der = STANDARD.decode(&good).unwrap();
        *der.last_mut().unwrap() ^= 1;
        let range =
            |most: i64| format!("spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, {most}]");
        let bare = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        for (fields, wrong) in [
            (value!({}), one.to_string()),
            (value!({"stubPKCS10Request": (&good), "pkixPublicKey": (&public)}), one.into()),
            (
                value!({"stubPKCS10Request": STANDARD.encode("x")}),
                "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR".into(),
            ),
            (
                value!({"stubPKCS10Request": STANDARD.encode(der)}),
                "spec.stubPKCS10Request: Invalid value: invalid signature".into(),
            ),
            (
                value!({"stubPKCS10Request": STANDARD.encode(vec![0; MAX_KEY + 1])}),
                "spec.stubPKCS10Request: Too long: may not be more than 10240 bytes".into(),
            ),
            (
                value!({"stubPKCS10Request": (&good), "signerName": "kubernetes.io/kube-apiserver-client-pod", "maxExpirationSeconds": 86401}),
                range(86400),
            ),
            (
                value!({"stubPKCS10Request": (&good), "podUID": ""}),
                "spec.podUID: Invalid value: \"\": must not be empty".into(),
            ),
            (
                value!({"stubPKCS10Request": (&good), "unverifiedUserAnnotations": {"Bare": "x"}}),
                format!("spec.unverifiedUserAnnotations: Invalid value: \"bare\": {bare}"),
            ),
        ] {
            assert_eq!(told(fields), [wrong]);
        }
        assert_eq!(told(value!({"stubPKCS10Request": (&good), "maxExpirationSeconds": 86401})), [""; 0]);
    }

    #[test]
    fn ends() {
        let key = KeyPair::generate().unwrap();
        let old = asked(
            value!({"stubPKCS10Request": request(&key), "maxExpirationSeconds": 86400, "unverifiedUserAnnotations": {"a/b": "c"}}),
        );
        let with = |fields: Value, state: &str| {
            let mut new = old.clone();
            let condition = value!({"type": state, "status": "True", "reason": "R", "lastTransitionTime": EPOCH});
            new.set("status", fields);
            new.set_path(&["status", "conditions"], value!([condition]));
            new
        };
        let told = |new: &Value| update(&PodCertificateRequest, "status", old.clone(), new.clone());
        let issued = |names: &[&str], days: u8, key: &KeyPair| {
            let chain = params(names, days).self_signed(key).unwrap().pem();
            let until = format!("1970-01-0{}T00:00:00Z", 1 + days);
            let times = value!({"notBefore": EPOCH, "notAfter": until, "beginRefreshAt": "1970-01-01T00:10:00Z"});
            let mut status = times;
            status.set("certificateChain", chain);
            with(status, "Issued")
        };
        let done = issued(&["a.example"], 1, &key);
        for good in [&done, &with(value!({}), "Denied"), &with(value!({}), "Failed")] {
            assert_eq!(told(good), [""; 0]);
        }
        assert_eq!(cells(&PodCertificateRequest, &done), ["r", "p", "s", "n", "a.b/c", "Issued", "a/b=c"]);
        assert!(told(&with(value!({"notBefore": EPOCH}), "Denied"))[0].contains("must be empty when denying"));
        assert!(told(&with(value!({}), "Odd"))[0].contains("supported values: \"Denied\", \"Failed\", \"Issued\""));
        assert!(told(&with(value!({}), "Issued"))[0].contains("must contain at least one certificate"));
        let other = issued(&[], 1, &KeyPair::generate().unwrap());
        assert!(told(&other)[0].ends_with("leaf certificate was not issued to the requested public key"));
        let long = "lifetime must be <= spec.maxExpirationSeconds (86400)";
        assert!(told(&issued(&[], 2, &key))[0].ends_with(long), "{:?}", told(&issued(&[], 2, &key)));
        assert!(told(&issued(&[".a"], 1, &key))[0].contains("should not start or end with '.'"));
        let mut late = done.clone();
        late.set_path(&["status", "beginRefreshAt"], "1970-01-01T23:50:01Z");
        assert!(told(&late)[0].ends_with("must be at least 10 minutes before status.notAfter"));
        let again = update(&PodCertificateRequest, "status", done, with(value!({}), "Failed"));
        assert!(again[0].ends_with("immutable after PodCertificateRequest is issued, denied, or failed"));
    }
}
