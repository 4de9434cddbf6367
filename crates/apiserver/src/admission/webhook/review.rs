//! AdmissionReview (`admission.k8s.io/v1` and `v1beta1`, which differ in what is checked): the question and the verdict.

use crate::admission::matching::Version;
use crate::admission::{Operation, Request};
use crate::reviews::user_info;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Gvk, Gvr, Status, Value, value};

/// The request as a webhook sees it.
pub fn question(
    review: &str,
    uid: &str,
    version: &Version,
    request: &Request<'_>,
    object: &Value,
    old: &Value,
) -> Value {
    let mut asked = about(version, request);
    asked.set("uid", uid);
    asked.set("object", typed(object, &version.kind));
    asked.set("oldObject", typed(old, &version.kind));
    value!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{review}"), "request": asked})
}

/// What is to be said about a request besides its objects.
pub fn about(version: &Version, request: &Request<'_>) -> Value {
    let kind = |k: &Gvk| value!({"group": &k.group, "version": &k.version, "kind": &k.kind});
    let resource = |r: &Gvr| value!({"group": &r.group, "version": &r.version, "resource": &r.resource});
    let own = Version::of(request);
    let mut asked = value!({
        "kind": kind(&version.kind),
        "resource": resource(&version.gvr),
        "requestKind": kind(&own.kind),
        "requestResource": resource(&own.gvr),
        "operation": request.operation.name(),
        "userInfo": user_info(request.user),
        "dryRun": request.dry_run,
        "options": request.options.to_value(request.operation),
    });
    // A namespace is in itself.
    let itself = own.gvr.group.is_empty() && own.gvr.resource == "namespaces";
    let namespace = if itself { request.name } else { request.namespace };
    for (field, text) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", namespace),
    ] {
        if !text.is_empty() {
            asked.set(field, text);
        }
    }
    asked
}

pub fn typed(object: &Value, kind: &Gvk) -> Value {
    let mut object = object.clone();
    if !object.is_null() {
        object.set("kind", &kind.kind);
        object.set("apiVersion", kind.api_version());
    }
    object
}

/// What a webhook answered.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    allowed: bool,
    status: Option<Value>,
    pub patch: Vec<u8>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Reads an answer to the question `uid`.
pub fn verdict(answer: &Value, review: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let wanted = format!("admission.k8s.io/{review}");
    let response = &answer["response"];
    let (api_version, kind) = (answer["apiVersion"].str(), answer["kind"].str());
    let v1 = review == "v1";
    let expected =
        |got: &str| format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}");
    if response.is_null() {
        return Err("webhook response was absent".into());
    }
    if v1 && response["uid"].str() != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].str()));
    }
    if v1 && (api_version != wanted || kind != "AdmissionReview") {
        return Err(expected(&format!("{api_version}, Kind={kind}")));
    }
    let (patch, patch_type) = (response["patch"].str(), &response["patchType"]);
    if v1 && mutating {
        match (patch.is_empty(), patch_type.as_str()) {
            (false, None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (false, Some("")) => return Err("webhook returned invalid response.patchType of \"\"".into()),
            (false, Some(other)) if other != "JSONPatch" => return Err(format!("unsupported patch type {other:?}")),
            _ => {}
        }
    }
    if v1 && !mutating {
        if !patch.is_empty() {
            return Err("validating webhook may not return response.patch".into());
        }
        if !patch_type.is_null() {
            return Err("validating webhook may not return response.patchType".into());
        }
    }
    let patch = if mutating { STANDARD.decode(patch).map_err(|e| e.to_string())? } else { Vec::new() };
    Ok(Verdict {
        allowed: response["allowed"].bool(),
        status: Some(&response["status"]).filter(|s| !s.is_null()).cloned(),
        patch,
        warnings: response["warnings"].items().iter().map(|w| w.str().to_string()).collect(),
        annotations: response["auditAnnotations"]
            .entries()
            .map(|(k, v)| (k.to_string(), v.str().to_string()))
            .collect(),
    })
}

impl Verdict {
    /// The Status of a denial; None when the request may pass.
    pub fn refusal(&self, name: &str) -> Option<Status> {
        if self.allowed {
            return None;
        }
        let denied = format!("admission webhook {name:?} denied the request");
        let mut said = self.status.clone().unwrap_or_else(Value::object);
        said.set("kind", "Status");
        said.set("status", "Failure");
        let mut status = Status::from_value(&said).unwrap_or_else(|| Status::bad_request(""));
        // Nothing that denies can be a success.
        if said["code"].int() < 400 {
            status.code = 400;
        }
        status.message = match (status.message.as_str(), status.reason.as_str()) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        Some(status)
    }
}

impl super::super::Options<'_> {
    /// The options as `meta.k8s.io` has them; null for a connection.
    pub fn to_value(self, operation: Operation) -> Value {
        use canopus_api::api::FieldValidation;
        let (mut options, dry_run) = match self {
            super::super::Options::None => return Value::Null,
            super::super::Options::Delete(delete) => {
                let mut options = value!({"kind": "DeleteOptions"});
                if let Some(seconds) = delete.grace_period_seconds {
                    options.set("gracePeriodSeconds", seconds);
                }
                if let Some(policy) = delete.propagation_policy {
                    options.set("propagationPolicy", format!("{policy:?}"));
                }
                for (field, given) in [("uid", &delete.uid), ("resourceVersion", &delete.resource_version)] {
                    if let Some(given) = given {
                        options.set_path(&["preconditions", field], given);
                    }
                }
                (options, delete.dry_run)
            }
            super::super::Options::Write(write) => {
                let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
                let mut options = value!({"kind": kind});
                if !write.field_manager.is_empty() {
                    options.set("fieldManager", &write.field_manager);
                }
                options.set(
                    "fieldValidation",
                    match write.field_validation {
                        FieldValidation::Ignore => "Ignore",
                        FieldValidation::Warn => "Warn",
                        FieldValidation::Strict => "Strict",
                    },
                );
                (options, write.dry_run)
            }
        };
        options.set("apiVersion", "meta.k8s.io/v1");
        if dry_run {
            options.set("dryRun", value!(["All"]));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        let mut response = response;
        response.set_default("uid", "u");
        value!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    #[test]
    fn verdicts_that_make_no_sense() {
        let patch = STANDARD.encode("[]");
        let cases = [
            (answer(value!({"uid": "x"})), true, "expected response.uid=\"u\", got \"x\""),
            (value!({}), true, "webhook response was absent"),
            (answer(value!({"patch": (&patch)})), true, "webhook returned response.patch but not response.patchType"),
            (
                answer(value!({"patchType": "JSONPatch"})),
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (answer(value!({"patch": (&patch), "patchType": "Merge"})), true, "unsupported patch type \"Merge\""),
            (answer(value!({"patch": (&patch)})), false, "validating webhook may not return response.patch"),
            (
                value!({"kind": "X", "apiVersion": "v1", "response": {"uid": "u"}}),
                true,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=X",
            ),
        ];
        for (answer, mutating, why) in cases {
            assert_eq!(verdict(&answer, "v1", "u", mutating), Err(why.to_string()));
        }
        let old = value!({"response": {"allowed": true, "patch": patch}});
        assert_eq!(verdict(&old, "v1beta1", "u", true).unwrap().patch, b"[]");
    }

    #[test]
    fn denials() {
        let cases = [
            (Value::Null, 400, "", "without explanation"),
            (value!({"message": "no"}), 400, "", ": no"),
            (value!({"reason": "Forbidden"}), 400, "Forbidden", ": Forbidden"),
            (value!({"message": "no", "code": 200}), 400, "", ": no"),
            (
                value!({"message": "no", "code": 403, "reason": "Forbidden", "status": "Success"}),
                403,
                "Forbidden",
                ": no",
            ),
        ];
        for (status, code, reason, ending) in cases {
            let given = verdict(&answer(value!({"allowed": false, "status": (&status)})), "v1", "u", false).unwrap();
            let refusal = given.refusal("a.b.c").unwrap();
            assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{status:?}");
            assert!(refusal.message.starts_with("admission webhook \"a.b.c\" denied the request"), "{refusal}");
            assert!(refusal.message.ends_with(ending), "{refusal}");
        }
    }
}
