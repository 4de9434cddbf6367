//! How a PodCertificateRequest ends: denied, failed, or with a certificate that is what was asked for.

use super::keys;
use crate::checks;
use crate::policy::poddisruptionbudget;
use crate::semantic;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Errors, Field, Time, Value};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

pub const STATES: &[&str] = &["Issued", "Denied", "Failed"];

const MAX_CHAIN: usize = 100 * 1024;
const MINUTE: i64 = 60;

/// Upstream's `ValidatePodCertificateRequestStatusUpdate`.
pub fn status(new: &Field, old: &Value, now: Time, errors: &mut Errors) {
    let (status, before) = (new.at("status"), &old["status"]);
    let count = errors.len();
    let list = status.at("conditions");
    conditions(&list, errors);
    if errors.len() > count {
        return;
    }
    let is = |status: &Value, state: &str| {
        status["conditions"].items().iter().any(|c| c["type"].str() == state && c["status"].str() == "True")
    };
    let same = |wanted: &Value, why: &str, errors: &mut Errors| {
        if !semantic::equal(status.value, wanted) {
            errors.invalid_unshown(&status, why);
        }
    };
    if STATES.iter().any(|state| is(before, state)) {
        same(before, "immutable after PodCertificateRequest is issued, denied, or failed", errors);
    } else if is(status.value, "Denied") || is(status.value, "Failed") {
        let mut bare = Value::object();
        bare.set("conditions", list.value);
        same(
            &bare,
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
            errors,
        );
    } else if is(status.value, "Issued") {
        issued(&status, old, now, errors);
    } else {
        same(before, "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"", errors);
    }
}

fn conditions(list: &Field, errors: &mut Errors) {
    let mut known = 0;
    for condition in list.items() {
        let kind = condition.at("type");
        if !STATES.contains(&kind.str()) {
            errors.not_supported(&kind, &["Denied", "Failed", "Issued"]);
            continue;
        }
        known += 1;
        if known > 1 {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.invalid(&kind, why);
        }
        checks::one_of(&condition.at("status"), &["True"], errors);
    }
    poddisruptionbudget::conditions(list, errors);
}

fn issued(status: &Field, old: &Value, now: Time, errors: &mut Errors) {
    let chain = status.at("certificateChain");
    if chain.str().len() > MAX_CHAIN {
        return errors.too_long(&chain, MAX_CHAIN);
    }
    let blocks: Vec<Pem> = Pem::iter_from_buffer(chain.str().as_bytes()).map_while(Result::ok).collect();
    let Some((first, rest)) = blocks.split_first() else {
        return errors.invalid(&chain, "issued certificate chain must contain at least one certificate");
    };
    if first.label != "CERTIFICATE" {
        return errors.invalid(&chain, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Ok(([], leaf)) = X509Certificate::from_der(&first.contents) else {
        return errors.invalid(&chain, "leaf certificate does not parse as valid X.509");
    };
    names(&leaf, &chain, errors);
    if !is_for(leaf.public_key(), &old["spec"]) {
        return errors.invalid(&chain, "leaf certificate was not issued to the requested public key");
    }
    if !times(status, &leaf, old["spec"]["maxExpirationSeconds"].int(), now, errors) {
        return;
    }
    for block in rest {
        if block.label != "CERTIFICATE" {
            // Upstream's spelling.
            return errors.invalid(&chain, "issued certificate chain must consist entirely of CERTFICATE PEM blocks");
        }
        if !matches!(X509Certificate::from_der(&block.contents), Ok(([], _))) {
            return errors.invalid(&chain, "intermediate certificate does not parse as valid X.509");
        }
    }
}

/// Names in a certificate that nobody should have asked for.
fn names(leaf: &X509Certificate, chain: &Field, errors: &mut Errors) {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(dns) => {
                let shown = Value::from(*dns);
                let mut bad = |why: &str| errors.invalid(&chain.with(&shown), why);
                if dns.is_empty() {
                    bad("leaf certificate should not contain empty DNSName");
                }
                if dns.contains("..") {
                    bad("leaf certificate's DNSName should not contain '..'");
                }
                if dns.starts_with('.') || dns.ends_with('.') {
                    bad("leaf certificate's DNSName should not start or end with '.'");
                }
            }
            GeneralName::RFC822Name(mail) if !is_address(mail) => {
                errors
                    .invalid(&chain.with(&(*mail).into()), "leaf certificate should not contain invalid EmailAddress");
            }
            _ => {}
        }
    }
}

/// `local@domain`, of what may be in either.
fn is_address(text: &str) -> bool {
    let part = |part: &str| {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "()<>[]:;@\\,\"".contains(c);
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.contains("..")
            && !part.contains(odd)
    };
    text.rsplit_once('@').is_some_and(|(local, domain)| part(local) && part(domain))
}

/// Whether this is the key that a request is about.
fn is_for(key: &SubjectPublicKeyInfo, spec: &Value) -> bool {
    let bytes = |field: &str| STANDARD.decode(spec[field].str()).unwrap_or_default();
    let request = bytes("stubPKCS10Request");
    if request.is_empty() {
        return keys::parse(&bytes("pkixPublicKey")).is_some_and(|(wanted, _)| keys::same(key, &wanted));
    }
    X509CertificationRequest::from_der(&request)
        .is_ok_and(|(_, request)| keys::same(key, &request.certification_request_info.subject_pki))
}

/// Whether the times in the status are those of the certificate, and fit what was asked for.
fn times(status: &Field, leaf: &X509Certificate, most: i64, now: Time, errors: &mut Errors) -> bool {
    let (from, until, refresh) = (status.at("notBefore"), status.at("notAfter"), status.at("beginRefreshAt"));
    let count = errors.len();
    let range = "must be present and in the range [notbefore+10min, notafter-10min]";
    let consistent = "must be present and consistent with the issued certificate";
    let mut time = |field: &Field, why: &str| {
        let time = Time::parse(field.str());
        if time.is_none() {
            errors.required(field, why);
        }
        time.unwrap_or_default().unix()
    };
    let (start, end, begin) = (time(&from, consistent), time(&until, consistent), time(&refresh, range));
    if errors.len() > count {
        return false;
    }
    let (chain, validity) = (status.at("certificateChain"), leaf.validity());
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    let shown = Value::from(duration(lifetime));
    let (field, why) = if start != validity.not_before.timestamp() {
        (from, "must be set to the NotBefore time encoded in the leaf certificate".to_string())
    } else if (start - now.unix()).abs() >= 5 * MINUTE {
        (from, "must be set to within 5 minutes of kube-apiserver's current time".into())
    } else if end != validity.not_after.timestamp() {
        (until, "must be set to the NotAfter time encoded in the leaf certificate".into())
    } else if lifetime < 60 * MINUTE {
        (chain.with(&shown), "leaf certificate lifetime must be >= 1 hour".into())
    } else if lifetime > most {
        (chain.with(&shown), format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"))
    } else if begin < start.saturating_add(10 * MINUTE) {
        (refresh, "must be at least 10 minutes after status.notBefore".into())
    } else if begin > end.saturating_sub(10 * MINUTE) {
        (refresh, "must be at least 10 minutes before status.notAfter".into())
    } else {
        return errors.len() == count;
    };
    errors.invalid(&field, why);
    false
}

/// As Go prints seconds: `1h30m0s`.
fn duration(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
