//! `metav1.Status`: the one error a client ever sees, with upstream's codes, reasons and texts.

use crate::api::{Gvk, Gvr};
use crate::field;
use crate::value::Value;
use compact_str::CompactString;

pub type Result<T> = std::result::Result<T, Status>;

/// A failure as `metav1.Status` describes it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: u16,
    pub reason: CompactString,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// A token with which an expired list goes on, at another revision (`metadata.continue`); "" when there is none.
    pub continue_token: CompactString,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: CompactString,
    pub group: CompactString,
    pub kind: CompactString,
    pub uid: CompactString,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: CompactString,
    pub message: String,
    pub field: String,
}

impl Status {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_token: CompactString::default(),
        }
    }

    fn about(mut self, gvr: &Gvr, name: &str) -> Status {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: gvr.group.clone(),
            kind: gvr.resource.clone(),
            ..Details::default()
        }));
        self
    }

    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Status {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn not_found(gvr: &Gvr, name: &str) -> Status {
        Status::new(404, "NotFound", format!("{} {name:?} not found", gvr.group_resource())).about(gvr, name)
    }

    /// The path itself does not exist: upstream's answer for unknown resources and routes.
    pub fn no_such_resource() -> Status {
        let mut status = Status::new(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// The path exists, but not for this method: upstream's answer by its router.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Status::new(405, "MethodNotAllowed", message);
        status.details = Some(Box::default());
        status
    }

    pub fn already_exists(gvr: &Gvr, name: &str) -> Status {
        Status::new(409, "AlreadyExists", format!("{} {name:?} already exists", gvr.group_resource())).about(gvr, name)
    }

    pub fn conflict(gvr: &Gvr, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", gvr.group_resource());
        Status::new(409, "Conflict", message).about(gvr, name)
    }

    /// A write whose resourceVersion is not the current one.
    pub fn modified(gvr: &Gvr, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(gvr, name, why)
    }

    pub fn forbidden(gvr: &Gvr, name: &str, why: &str) -> Status {
        let message = match (gvr.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (_, true) => format!("{} is forbidden: {why}", gvr.group_resource()),
            _ => format!("{} {name:?} is forbidden: {why}", gvr.group_resource()),
        };
        Status::new(403, "Forbidden", message).about(gvr, name)
    }

    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    pub fn method_not_supported(gvr: &Gvr, verb: &str) -> Status {
        let message = format!("{verb} is not supported on resources of kind {:?}", gvr.group_resource());
        Status::new(405, "MethodNotAllowed", message).about(gvr, "")
    }

    pub fn not_acceptable(accepted: &str) -> Status {
        let message = format!("only the following media types are accepted: {accepted}");
        Status::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(accepted: &str) -> Status {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// A media type of which the path knows nothing: upstream's answer by its router.
    pub fn unknown_media_type() -> Status {
        let mut status = Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
        status.details = Some(Box::default());
        status
    }

    pub fn too_large(why: &str) -> Status {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }

    pub fn timeout(why: &str) -> Status {
        Status::new(504, "Timeout", format!("Timeout: {why}"))
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Status {
        Status::new(429, "TooManyRequests", message).with_retry_after(retry_after)
    }

    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::new(503, "ServiceUnavailable", message)
    }

    pub fn internal(why: impl std::fmt::Display) -> Status {
        Status::new(500, "InternalError", format!("Internal error occurred: {why}")).with_cause_only(why.to_string())
    }

    fn with_cause_only(mut self, message: String) -> Status {
        let cause = Cause { reason: CompactString::default(), message, field: String::new() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// All field errors of one object at once (upstream `NewInvalid`).
    pub fn invalid(gvk: &Gvk, name: &str, errors: field::Errors) -> Status {
        let kind = if gvk.group.is_empty() { gvk.kind.to_string() } else { format!("{}.{}", gvk.kind, gvk.group) };
        let causes = errors.iter().map(field::Error::cause).collect();
        Status {
            code: 422,
            reason: "Invalid".into(),
            message: format!("{kind} {name:?} is invalid: {}", errors.aggregate()),
            details: Some(Box::new(Details {
                name: name.into(),
                group: gvk.group.clone(),
                kind: gvk.kind.clone(),
                causes,
                ..Details::default()
            })),
            continue_token: CompactString::default(),
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// The tree a client gets.
    pub fn to_value(&self) -> Value {
        let mut v = crate::value!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": &self.message, "reason": &self.reason, "code": self.code,
        });
        if self.reason.is_empty() {
            v.remove("reason");
        }
        if let Some(details) = &self.details {
            v.set("details", details.to_value());
        }
        if !self.continue_token.is_empty() {
            v.obj_mut("metadata").insert("continue", &self.continue_token);
        }
        v
    }

    /// Reads a Status back from an answer's body; None when it is none.
    pub fn from_value(v: &Value) -> Option<Status> {
        if v["kind"].str() != "Status" || v["status"].str() == "Success" {
            return None;
        }
        let details = v.get("details").map(|d| {
            let causes = d["causes"].items().iter().map(|c| Cause {
                reason: c["reason"].str().into(),
                message: c["message"].str().into(),
                field: c["field"].str().into(),
            });
            Box::new(Details {
                name: d["name"].str().into(),
                group: d["group"].str().into(),
                kind: d["kind"].str().into(),
                uid: d["uid"].str().into(),
                causes: causes.collect(),
                retry_after_seconds: u32::try_from(d["retryAfterSeconds"].int()).unwrap_or(0),
            })
        });
        Some(Status {
            code: u16::try_from(v["code"].int()).unwrap_or(500),
            reason: v["reason"].str().into(),
            message: v["message"].str().into(),
            details,
            continue_token: v["metadata"]["continue"].str().into(),
        })
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut v = Value::object();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                v.set(key, text);
            }
        }
        if !self.causes.is_empty() {
            v.set("causes", self.causes.iter().map(Cause::to_value).collect::<Value>());
        }
        if self.retry_after_seconds > 0 {
            v.set("retryAfterSeconds", self.retry_after_seconds);
        }
        v
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut v = Value::object();
        for (key, text) in [("reason", self.reason.as_str()), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                v.set(key, text);
            }
        }
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let deployments = Gvr::new("apps", "v1", "deployments");
        let pods = Gvr::new("", "v1", "pods");
        assert_eq!(Status::not_found(&deployments, "x").message, r#"deployments.apps "x" not found"#);
        assert_eq!(Status::already_exists(&pods, "x").message, r#"pods "x" already exists"#);
        assert!(
            Status::modified(&pods, "x")
                .message
                .starts_with(r#"Operation cannot be fulfilled on pods "x": the object"#)
        );
    }

    #[test]
    fn survives_its_own_encoding() {
        let status = Status::not_found(&Gvr::new("", "v1", "pods"), "x").with_cause("R", "m", "f").with_retry_after(3);
        assert_eq!(Status::from_value(&status.to_value()), Some(status));
    }
}
