//! The audit log: who did what, when, and what came of it (upstream `audit.k8s.io/v1`). A policy says what is recorded; without
//! one there is nothing here to do.

pub mod log;
pub mod policy;
pub mod webhook;

use crate::authz::Attributes;
use crate::notes;
use crate::reviews::user_info;
use crate::surroundings::Surroundings;
use crate::user::User;
use canopus_api::{Object, Result, Status, Time, Value, json, value};
use http::{HeaderMap, header};
use log::Log;
use parking_lot::Mutex;
use policy::{Level, Policy, Stage, Verdict};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use webhook::Webhook;

const USER_AGENT: usize = 1024;

pub struct Audit {
    pub policy: Policy,
    pub log: Option<Log>,
    pub webhook: Option<Webhook>,
    pub clock: Arc<dyn Surroundings>,
    pub counts: Counts,
}

#[derive(Default)]
pub struct Counts {
    events: AtomicU64,
    errors: AtomicU64,
    levels: [AtomicU64; 4],
}

/// What is known of a request when it comes.
pub struct Incoming<'a> {
    pub id: &'a str,
    pub uri: &'a str,
    pub headers: &'a HeaderMap,
    pub peer: Option<IpAddr>,
    pub received: Time,
}

/// The event of one request in the making.
pub struct Record {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Mutex<Value>,
}

impl Audit {
    /// The record of a request; None when the policy wants none.
    pub fn begin(self: &Arc<Self>, attributes: &Attributes, incoming: &Incoming) -> Option<Arc<Record>> {
        let verdict = self.policy.verdict(attributes).clone();
        self.counts.levels[verdict.level as usize].fetch_add(1, Ordering::Relaxed);
        if verdict.level == Level::None {
            return None;
        }
        let mut event = value!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": verdict.level.name(), "auditID": incoming.id,
            "requestURI": incoming.uri, "verb": attributes.verb, "user": user_info(attributes.user),
            "requestReceivedTimestamp": incoming.received.rfc3339_micro(),
        });
        let sources = sources(incoming);
        if !sources.is_empty() {
            event.set("sourceIPs", sources.into_iter().collect::<Value>());
        }
        let agent = incoming.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        if agent.len() > USER_AGENT {
            event.set("userAgent", format!("{}...TRUNCATED", &agent[..USER_AGENT]));
        } else if !agent.is_empty() {
            event.set("userAgent", agent);
        }
        if attributes.is_resource {
            let mut reference = value!({});
            for (field, text) in [
                ("resource", attributes.resource),
                ("namespace", attributes.namespace),
                ("name", attributes.name),
                ("apiGroup", attributes.group),
                ("apiVersion", attributes.version),
                ("subresource", attributes.subresource),
            ] {
                if !text.is_empty() {
                    reference.set(field, text);
                }
            }
            event.set("objectRef", reference);
        }
        let record = Arc::new(Record { audit: self.clone(), verdict, event: Mutex::new(event) });
        record.stage(Stage::RequestReceived);
        Some(record)
    }

    fn emit(&self, event: Value) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        if let Some(log) = &self.log
            && let Err(error) = log.write(&event, self.clock.now())
            && self.counts.errors.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!(%error, "failed to write to the audit log");
        }
        if let Some(webhook) = &self.webhook {
            webhook.send(event);
        }
    }

    pub fn render(&self, out: &mut String) {
        let counts = &self.counts;
        let events = counts.events.load(Ordering::Relaxed);
        out.push_str("# HELP apiserver_audit_event_total [ALPHA] Counter of audit events generated and sent to the audit backend.\n# TYPE apiserver_audit_event_total counter\n");
        let _ = writeln!(out, "apiserver_audit_event_total {events}");
        let dropped = self.webhook.as_ref().map_or(0, Webhook::dropped);
        let errors = counts.errors.load(Ordering::Relaxed);
        out.push_str("# HELP apiserver_audit_error_total [ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.\n# TYPE apiserver_audit_error_total counter\n");
        let _ = writeln!(out, "apiserver_audit_error_total{{plugin=\"log\"}} {errors}");
        let _ = writeln!(out, "apiserver_audit_error_total{{plugin=\"webhook\"}} {dropped}");
        out.push_str("# HELP apiserver_audit_level_total [ALPHA] Counter of policy levels for audit events (1 per request).\n# TYPE apiserver_audit_level_total counter\n");
        for (level, count) in Level::ALL.iter().zip(&counts.levels) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_audit_level_total{{level=\"{}\"}} {count}", level.name());
        }
    }
}

/// Whom the request says that it comes from, and whom it comes from (upstream `utilnet.SourceIPs`).
fn sources(incoming: &Incoming) -> Vec<String> {
    let text = |name: &str| incoming.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut all: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    let real = text("x-real-ip").trim().parse().ok();
    all.extend(real.filter(|ip| !all.contains(ip)));
    all.extend(incoming.peer.map(|ip| ip.to_canonical()).filter(|ip| all.last() != Some(ip)));
    all.iter().map(IpAddr::to_string).collect()
}

impl Record {
    pub fn wants_response(&self) -> bool {
        self.verdict.level == Level::RequestResponse
    }

    pub fn impersonated(&self, user: &User, constraint: &str) {
        let mut event = self.event.lock();
        event.set("impersonatedUser", user_info(user));
        if !constraint.is_empty() {
            event.set("authenticationMetadata", value!({"impersonationConstraint": constraint}));
        }
    }

    /// What was sent. Of it the event may also learn which object this is about.
    pub fn request(&self, body: &Value) {
        let mut event = self.event.lock();
        for field in ["namespace", "name", "uid", "resourceVersion"] {
            let text = body["metadata"][field].str();
            if !text.is_empty() && !event["objectRef"].is_null() && event["objectRef"][field].str().is_empty() {
                event.set_path(&["objectRef", field], text);
            }
        }
        if self.verdict.level >= Level::Request {
            event.set("requestObject", self.presentable(body));
        }
    }

    pub fn response(&self, body: &Value) {
        if self.wants_response() {
            self.event.lock().set("responseObject", self.presentable(body));
        }
    }

    /// How it ended. `status` is what an error says.
    pub fn status(&self, code: u16, status: Option<&Status>) {
        let mut answer = value!({"metadata": {}, "code": i64::from(code)});
        if let Some(status) = status {
            for (field, text) in [("status", "Failure"), ("message", &status.message), ("reason", &status.reason)] {
                if !text.is_empty() {
                    answer.set(field, text);
                }
            }
            let whole = status.to_value();
            if !whole["details"].is_null() {
                answer.set("details", &whole["details"]);
            }
        }
        self.event.lock().set("responseStatus", answer);
    }

    fn presentable(&self, body: &Value) -> Value {
        let mut body = body.clone();
        if self.verdict.omit_managed_fields {
            without_managed_fields(&mut body);
            if let Some(items) = body.get_mut("items") {
                items.ensure_array().iter_mut().for_each(without_managed_fields);
            }
        }
        body
    }

    /// Writes the event as it is now, unless the policy leaves this stage out.
    pub fn stage(&self, stage: Stage) {
        if self.verdict.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.event.lock().clone();
        event.set("stage", stage.name());
        event.set("stageTimestamp", self.audit.clock.now().rfc3339_micro());
        self.audit.emit(event);
    }

    /// Adds what authorization, admission and others have noted.
    pub fn annotate(&self, annotations: Vec<(String, String)>) {
        let mut event = self.event.lock();
        for (key, text) in annotations {
            event.set_path(&["annotations", &key], text);
        }
    }
}

fn without_managed_fields(object: &mut Value) {
    object.remove_path(&["metadata", "managedFields"]);
}

/// Ends a record when the last of a long answer has been sent, or nobody wants it any more.
pub struct Ending(pub Arc<Record>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

/// Shows the request's object to its record, if it has one.
pub fn request(body: &Value) {
    notes::record(|record| record.request(body));
}

/// Notes what the authorizers said of the request itself.
pub fn decision(allowed: bool, reason: &str) {
    notes::annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
    notes::annotate("authorization.k8s.io/reason", reason);
}

/// Records a call within the process as if it had come over the network.
pub async fn local<T>(
    audit: &Arc<Audit>,
    attributes: &Attributes<'_>,
    uri: &str,
    body: Option<&Value>,
    work: impl Future<Output = Result<T>>,
    object: impl FnOnce(&T) -> Option<Arc<Object>>,
) -> Result<T> {
    let (headers, id) = (HeaderMap::new(), crate::surroundings::uuid(audit.clock.random()));
    let incoming = Incoming { id: &id, uri, headers: &headers, peer: None, received: audit.clock.now() };
    let Some(record) = audit.begin(attributes, &incoming) else { return work.await };
    if let Some(body) = body {
        record.request(body);
    }
    let notes = Arc::new(notes::Notes::default());
    let done = notes::noting(notes.clone(), work).await;
    match &done {
        Ok(answer) => {
            record.status(200, None);
            if let Some(object) = object(answer).filter(|_| record.wants_response()) {
                record.response(&object.value());
            }
        }
        Err(status) => record.status(status.code, Some(status)),
    }
    record.annotate(notes.take_annotations());
    record.stage(Stage::ResponseComplete);
    done
}

/// The tree in an answer's body, whatever its encoding.
pub fn decoded(kind: &str, body: &[u8]) -> Option<Value> {
    if kind.starts_with("application/vnd.kubernetes.protobuf") {
        return canopus_api::protobuf::decode(body).ok();
    }
    if kind == "application/cbor" {
        return canopus_api::cbor::decode(body).ok();
    }
    json::parse(body).ok()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
