//! Webhooks that really listen, asked by a server with all its gatekeepers.

use crate::notes::{Notes, noting};
use crate::server::Server;
use crate::testing::{listen, server};
use crate::user::MASTERS;
use crate::{LocalApi, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{
    Api, DeleteOptions, Gvr, Object, Patch, Result, Target, Value, WatchEvent, WriteOptions, json, value,
};
use futures::StreamExt;
use parking_lot::Mutex;
use std::sync::Arc;

type Asked = Arc<Mutex<Vec<Value>>>;

struct Cluster {
    server: Arc<Server>,
    api: Arc<dyn Api>,
    port: u16,
    bundle: String,
    asked: Asked,
}

fn maps(name: &str) -> Target {
    Target::new(&Gvr::new("", "v1", "configmaps"), "default", name)
}

fn map(name: &str) -> Value {
    value!({"metadata": {"name": name}, "data": {"a": "1"}})
}

impl Cluster {
    /// A server and a webhook that answers what `answer` makes of a path and a question.
    async fn new(answer: fn(&str, &Value) -> Value) -> Cluster {
        let server = server().await;
        let asked = Asked::default();
        let kept = asked.clone();
        let (port, ca, _) = listen(move |asked, review| {
            let question = &review["request"];
            kept.lock().push(question.clone());
            let mut response = answer(asked.uri.path(), question);
            response.set_default("uid", &question["uid"]);
            let api_version = review["apiVersion"].clone();
            let answer = value!({"kind": "AdmissionReview", "apiVersion": api_version, "response": response});
            (200, json::to_string(&answer))
        })
        .await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        Cluster { server, api, port, bundle: STANDARD.encode(ca), asked }
    }

    /// Makes a configuration of webhooks on ConfigMaps: each a path, changed by `change`.
    async fn configure(&self, kind: &str, name: &str, paths: &[&str], change: Value) {
        let hooks = paths.iter().map(|path| {
            let mut hook = value!({
                "name": format!("{}.example.com", path.trim_start_matches('/')), "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": &self.bundle},
                "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            });
            change.entries().for_each(|(field, with)| hook.set(field, with));
            hook
        });
        let object = value!({"metadata": {"name": name}, "webhooks": hooks.collect::<Value>()});
        let gvr = Gvr::new("admissionregistration.k8s.io", "v1", &format!("{kind}webhookconfigurations"));
        let made = self.api.create(&Target::new(&gvr, "", ""), object, &Default::default()).await.unwrap();
        let cache = self.server.cache(&gvr.group, "v1", &gvr.resource).unwrap();
        cache.reached(made.revision).await.unwrap();
    }

    async fn create(&self, object: Value) -> Result<Arc<Object>> {
        self.api.create(&maps(""), object, &Default::default()).await
    }

    fn questions(&self) -> Vec<Value> {
        std::mem::take(&mut self.asked.lock())
    }
}

/// `/add-x`: adds `x` to the data if there is `from` for `/add-x-if-from`.
fn adding(path: &str, question: &Value) -> Value {
    let what = path.trim_start_matches("/add-");
    let (what, condition) = what.split_once("-if-").unwrap_or((what, ""));
    let data = &question["object"]["data"];
    let has = |key: &str| data.get(key).is_some();
    if has(what) || !condition.is_empty() && !has(condition) {
        return value!({"allowed": true});
    }
    let patch = value!([{"op": "add", "path": format!("/data/{what}"), "value": "x"}]);
    value!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(json::to_string(&patch))})
}

fn allowing(_: &str, _: &Value) -> Value {
    value!({"allowed": true})
}

fn denying(_: &str, _: &Value) -> Value {
    value!({"allowed": false, "status": {"message": "not today", "code": 403, "reason": "Forbidden"},
        "warnings": ["mind the gap"], "auditAnnotations": {"why": "because"}})
}

#[tokio::test]
async fn each_sees_what_the_ones_before_made() {
    let c = Cluster::new(adding).await;
    c.configure("mutating", "a", &["/add-b-if-a", "/add-c-if-b", "/add-d-if-nothing"], value!({})).await;
    let made = c.create(map("x")).await.unwrap().value();
    assert_eq!(made["data"], value!({"a": "1", "b": "x", "c": "x"}));
    // What a webhook adds is nobody's.
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(owned, &value!({"f:data": {".": {}, "f:a": {}}}));
    let question = &c.questions()[0];
    assert_eq!(question["kind"], value!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(question["resource"], value!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((question["operation"].str(), question["name"].str()), ("CREATE", "x"));
    assert_eq!((question["namespace"].str(), question["dryRun"].bool()), ("default", false));
    assert_eq!(question["userInfo"]["username"].str(), "admin");
    assert_eq!(question["options"]["kind"].str(), "CreateOptions");
    assert_eq!((question["object"]["kind"].str(), question["oldObject"].is_null()), ("ConfigMap", true));
    assert!(question["object"]["metadata"].get("uid").is_none());
    let mut text = String::new();
    c.server.metrics.webhooks.render(&mut text);
    let counted = r#"apiserver_admission_webhook_request_total{code="200",name="add-b-if-a.example.com",operation="CREATE",rejected="false",type="admit"} 1"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn earlier_ones_are_asked_again_if_they_want() {
    let c = Cluster::new(adding).await;
    c.configure("mutating", "a", &["/add-c-if-b"], value!({"reinvocationPolicy": "IfNeeded"})).await;
    c.configure("mutating", "b", &["/add-d-if-b"], value!({})).await;
    c.configure("mutating", "c", &["/add-b"], value!({})).await;
    let made = c.create(map("x")).await.unwrap().value();
    assert_eq!(made["data"], value!({"a": "1", "b": "x", "c": "x"}), "only the one that said so is asked again");
    assert_eq!(c.questions().len(), 4);
}

#[tokio::test]
async fn a_denial_is_in_the_webhooks_words() {
    let c = Cluster::new(denying).await;
    c.create(map("there")).await.unwrap();
    c.configure("validating", "a", &["/no"], value!({})).await;
    let notes = Arc::new(Notes::default());
    // The task that writes is not this one; the handlers are asked directly.
    let (admin, options) = (User::new("admin", &[MASTERS]), WriteOptions::default());
    let target = maps("");
    let work = c.server.post(&admin, &target, map("x"), &options);
    let refused = noting(notes.clone(), work).await.unwrap_err();
    let why = r#"admission webhook "no.example.com" denied the request: not today"#;
    assert_eq!((refused.code, refused.reason.as_str(), refused.message.as_str()), (403, "Forbidden", why));
    assert_eq!(notes.take_warnings(), ["mind the gap"]);
    assert_eq!(notes.take_annotations(), [("no.example.com/why".to_string(), "because".to_string())]);
    let patch = Patch::Merge(value!({"data": {"a": "2"}}));
    assert_eq!(c.api.patch(&maps("there"), patch, &Default::default()).await.unwrap_err().message, why);
    assert_eq!(c.api.delete(&maps("there"), &DeleteOptions::default()).await.unwrap_err().message, why);
    let all = c.api.delete_collection(&maps(""), &Default::default(), &Default::default()).await;
    assert_eq!(all.unwrap_err().message, why);
    let asked = c.questions();
    let seen: Vec<_> =
        asked.iter().map(|q| (q["operation"].str(), q["object"].is_null(), q["oldObject"].is_null())).collect();
    assert_eq!(
        seen,
        [("CREATE", false, true), ("UPDATE", false, false), ("DELETE", true, false), ("DELETE", true, false)]
    );
    assert!(!asked[0]["object"]["metadata"]["uid"].is_null(), "what is validated is what would be stored");
    assert_eq!(asked[1]["object"]["data"]["a"].str(), "2");
}

#[tokio::test]
async fn configurations_themselves_are_exempt() {
    let c = Cluster::new(denying).await;
    let all =
        value!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    c.configure("validating", "a", &["/no"], all.clone()).await;
    c.configure("mutating", "b", &["/no"], all).await;
    let gvr = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    c.api.delete(&Target::new(&gvr, "", "a"), &DeleteOptions::default()).await.unwrap();
    assert!(c.questions().is_empty());
}

#[tokio::test]
async fn who_cannot_be_asked() {
    let c = Cluster::new(allowing).await;
    let closed = value!({"clientConfig": {"service": {"namespace": "n", "name": "s"}, "caBundle": &c.bundle}});
    c.configure("validating", "a", &["/closed"], closed.clone()).await;
    let refused = c.create(map("x")).await.unwrap_err();
    let why = r#"Internal error occurred: failed calling webhook "closed.example.com": failed to call webhook: Post "https://s.n.svc:443/?timeout=10s": service "s" not found"#;
    assert_eq!((refused.code, refused.message.as_str()), (500, why));
    let gvr = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    let target = Target::new(&gvr, "", "a");
    let ignore = value!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let changed = c.api.patch(&target, Patch::Json(ignore), &Default::default()).await.unwrap();
    c.server.cache(&gvr.group, "v1", &gvr.resource).unwrap().reached(changed.revision).await.unwrap();
    c.create(map("x")).await.unwrap();
    let mut text = String::new();
    c.server.metrics.webhooks.render(&mut text);
    assert!(
        text.contains(r#"apiserver_admission_webhook_fail_open_count{name="closed.example.com",type="validating"} 1"#)
    );
    let counted = r#"apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="closed.example.com",operation="CREATE",rejection_code="503",type="validating"} 1"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn dry_runs_and_side_effects() {
    let c = Cluster::new(allowing).await;
    c.configure("validating", "a", &["/yes"], value!({"sideEffects": "NoneOnDryRun"})).await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    c.api.create(&maps(""), map("x"), &dry).await.unwrap();
    let asked = &c.questions()[0];
    assert_eq!((asked["dryRun"].bool(), &asked["options"]["dryRun"]), (true, &value!(["All"])));
}

#[tokio::test]
async fn what_a_webhook_adds_is_checked() {
    fn odd(path: &str, _: &Value) -> Value {
        let op = match path {
            "/unknown" => value!({"op": "add", "path": "/dataa", "value": {"x": "y"}}),
            "/wrong" => value!({"op": "add", "path": "/data", "value": 5}),
            _ => value!({"op": "remove", "path": "/nothing"}),
        };
        value!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(json::to_string(&value!([op])))})
    }
    let c = Cluster::new(odd).await;
    let named = |name: &str| value!({"objectSelector": {"matchLabels": {"on": name}}});
    for name in ["unknown", "wrong", "missing"] {
        c.configure("mutating", name, &[&format!("/{name}")], named(name)).await;
    }
    let with = |on: &str| {
        let mut object = map(on);
        object.set_path(&["metadata", "labels", "on"], on);
        object
    };
    assert!(c.create(with("unknown")).await.unwrap().value().get("dataa").is_none());
    assert_eq!(c.create(with("wrong")).await.unwrap_err().code, 500);
    assert_eq!(c.create(with("missing")).await.unwrap_err().code, 500);
}

#[tokio::test]
async fn events_are_shown_in_the_group_that_was_asked_for() {
    let c = Cluster::new(allowing).await;
    let rules = value!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["events"]}]});
    c.configure("validating", "a", &["/yes"], rules).await;
    let event = value!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a/b", "note": "hello",
        "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal", "regarding": {"namespace": "default"},
    });
    let target = Target::new(&Gvr::new("events.k8s.io", "v1", "events"), "default", "");
    c.api.create(&target, event, &Default::default()).await.unwrap();
    let asked = &c.questions()[0];
    assert_eq!(asked["requestResource"]["group"].str(), "events.k8s.io");
    assert_eq!((asked["resource"]["group"].str(), asked["object"]["apiVersion"].str()), ("", "v1"));
    assert_eq!(asked["object"]["message"].str(), "hello");
}

#[tokio::test]
async fn an_object_without_a_name_has_none_yet() {
    let c = Cluster::new(allowing).await;
    c.configure("mutating", "a", &["/yes"], value!({})).await;
    let made = c.create(value!({"metadata": {"generateName": "x-"}})).await.unwrap();
    let asked = &c.questions()[0];
    assert!(asked.get("name").is_none() && asked["object"]["metadata"].get("name").is_none(), "{asked:?}");
    assert!(made.name().starts_with("x-") && made.name().len() == 7);
    let mut watch = c.api.watch(&maps(""), &Default::default()).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
}
