//! A definition with two versions, and a webhook that really listens and converts between them: `hostPort` is `host` and `port`.

use crate::testing::{listen, server};
use crate::user::MASTERS;
use crate::{LocalApi, Server, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{
    Api, DeleteOptions, FieldSelector, Gvr, LabelSelector, ListOptions, Patch, Result, Target, Value, WatchEvent,
    WriteOptions, json, value,
};
use futures::StreamExt;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "stable.example.com";
const NAME: &str = "hosts.stable.example.com";

/// What the webhook answers, in place of what it should.
type Answer = fn(&Value, Value) -> (u16, Value);

/// How many objects were converted to which version, call by call.
type Asked = Arc<Mutex<Vec<(String, usize)>>>;

struct Cluster {
    server: Arc<Server>,
    api: Arc<dyn Api>,
    client: Value,
    answer: Arc<Mutex<Answer>>,
    asked: Asked,
}

fn definitions() -> Target {
    Target::new(&Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions"), "", NAME)
}

fn at(version: &str, name: &str) -> Target {
    Target::new(&Gvr::new(GROUP, version, "hosts"), "default", name)
}

fn object(version: &str, name: &str, spec: Value) -> Value {
    value!({"apiVersion": format!("{GROUP}/{version}"), "kind": "Host", "metadata": {"name": name}, "spec": spec})
}

fn v1(name: &str) -> Value {
    object("v1", name, value!({"hostPort": "h:1"}))
}

fn manager(name: &str) -> WriteOptions {
    WriteOptions { field_manager: name.into(), ..WriteOptions::default() }
}

fn version(name: &str, storage: &str, spec: Value) -> Value {
    value!({"name": name, "served": true, "storage": name == storage,
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": spec},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }}}})
}

fn versions(storage: &str) -> Value {
    let v1 = value!({"hostPort": {"type": "string"}, "replicas": {"type": "integer"}});
    let v2 = value!({"host": {"type": "string"}, "port": {"type": "string", "default": "80"}, "replicas": {"type": "integer"}});
    let (v1, mut v2) = (version("v1", storage, v1), version("v2", storage, v2));
    v2.set("selectableFields", value!([{"jsonPath": ".spec.host"}]));
    value!([v1, v2])
}

fn converted(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    object.set("apiVersion", to);
    object.set_path(&["metadata", "labels", "converted-to"], to.rsplit('/').next().unwrap_or_default());
    let mut spec = object["spec"].clone();
    if to.ends_with("/v2") {
        let joined = spec["hostPort"].str().to_string();
        let (host, port) = joined.split_once(':').unwrap_or((&joined, ""));
        spec.set("host", host);
        spec.set("port", port);
        spec.remove("hostPort");
    } else {
        let joined = format!("{}:{}", spec["host"].str(), spec["port"].str());
        spec.set("hostPort", joined);
        spec.remove("host");
        spec.remove("port");
    }
    object.set("spec", spec);
    object
}

impl Cluster {
    async fn new(review: &str) -> Cluster {
        let server = server().await;
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(|_, right| (200, right)));
        let asked = Asked::default();
        let (answers, kept): (_, Asked) = (answer.clone(), asked.clone());
        let (port, ca, _) = listen(move |_, review| {
            let request = &review["request"];
            let to = request["desiredAPIVersion"].str();
            let objects: Vec<Value> = request["objects"].items().iter().map(|o| converted(o, to)).collect();
            kept.lock().push((to.rsplit('/').next().unwrap_or_default().into(), objects.len()));
            let right = value!({"kind": "ConversionReview", "apiVersion": &review["apiVersion"], "response": {
                "uid": &request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}});
            let answer = *answers.lock();
            let (code, answer) = answer(request, right);
            (code, json::to_string(&answer))
        })
        .await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let client = value!({"url": format!("https://127.0.0.1:{port}/convert"), "caBundle": STANDARD.encode(ca)});
        let cluster = Cluster { server, api, client, answer, asked };
        let webhook = value!({"clientConfig": &cluster.client, "conversionReviewVersions": [review]});
        let definition = value!({"metadata": {"name": NAME}, "spec": {"group": GROUP, "scope": "Namespaced",
            "versions": versions("v1"), "names": {"plural": "hosts", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": webhook}}});
        cluster.api.create(&definitions(), definition, &manager("m")).await.unwrap();
        cluster.until(|| cluster.server.served(&at("v2", "").gvr).is_ok()).await;
        cluster
    }

    async fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn create(&self, version: &str, body: Value) -> Value {
        let name = body["metadata"]["name"].str().to_string();
        (*self.api.create(&at(version, &name), body, &manager("m")).await.unwrap().value()).clone()
    }

    async fn get(&self, version: &str, name: &str) -> Result<Value> {
        Ok((*self.api.get(&at(version, name)).await?.value()).clone())
    }

    async fn change(&self, patch: Value) {
        let old = self.server.served(&at("v1", "").gvr).unwrap();
        self.api.patch(&definitions(), Patch::Merge(patch), &manager("m")).await.unwrap();
        self.until(|| self.server.served(&at("v1", "").gvr).is_ok_and(|now| !Arc::ptr_eq(&old, &now))).await;
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_written_in_both_versions() {
    for review in ["v1", "v1beta1"] {
        let c = Cluster::new(review).await;
        let made = c.create("v1", v1("a")).await;
        assert_eq!(c.asked.lock().len(), 0, "what is stored is not converted");
        let seen = c.get("v2", "a").await.unwrap();
        assert_eq!(seen["apiVersion"].str(), "stable.example.com/v2");
        assert_eq!(seen["spec"], value!({"host": "h", "port": "1"}));
        assert_eq!(seen["metadata"]["labels"], value!({"converted-to": "v2"}));
        assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);

        let made = c.create("v2", object("v2", "b", value!({"host": "g"}))).await;
        assert_eq!(
            (made["apiVersion"].str(), &made["spec"]),
            ("stable.example.com/v2", &value!({"host": "g", "port": "80"}))
        );
        assert_eq!(c.get("v1", "b").await.unwrap()["spec"], value!({"hostPort": "g:80"}));

        let mut changed = c.get("v2", "a").await.unwrap();
        changed.set_path(&["spec", "port"], "2");
        c.api.update(&at("v2", "a"), changed, &manager("n")).await.unwrap();
        assert_eq!(c.get("v1", "a").await.unwrap()["spec"], value!({"hostPort": "h:2"}));
        let patch = Patch::Merge(value!({"spec": {"hostPort": "i:3"}}));
        c.api.patch(&at("v1", "a"), patch, &manager("n")).await.unwrap();
        assert_eq!(c.get("v2", "a").await.unwrap()["spec"], value!({"host": "i", "port": "3"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_are_converted() {
    let c = Cluster::new("v1").await;
    c.create("v1", v1("a")).await;
    let status = Patch::Merge(value!({"status": {"replicas": 4}, "spec": {"host": "ignored"}}));
    c.api.patch(&at("v2", "a").subresource("status"), status, &manager("n")).await.unwrap();
    let scale = Patch::Merge(value!({"spec": {"replicas": 5}}));
    let scaled = c.api.patch(&at("v2", "a").subresource("scale"), scale, &manager("n")).await.unwrap().value();
    assert_eq!((scaled["spec"]["replicas"].int(), scaled["status"]["replicas"].int()), (5, 4));
    let seen = c.get("v1", "a").await.unwrap();
    assert_eq!((seen["spec"]["hostPort"].str(), seen["spec"]["replicas"].int()), ("h:1", 5));
    assert_eq!(seen["status"], value!({"replicas": 4}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_one_question_and_selectors_see_what_comes_of_it() {
    let c = Cluster::new("v1").await;
    for (name, host) in [("a", "x:1"), ("b", "y:1"), ("c", "x:2")] {
        c.create("v1", object("v1", name, value!({"hostPort": host}))).await;
    }
    let list = c.api.list(&at("v2", ""), &ListOptions::default()).await.unwrap();
    let hosts: Vec<String> = list.items.iter().map(|o| o.value()["spec"]["host"].str().to_string()).collect();
    assert_eq!(hosts, ["x", "y", "x"]);
    assert_eq!(*c.asked.lock(), [("v2".to_string(), 3)]);
    let selected =
        |fields: FieldSelector, labels: LabelSelector| ListOptions { fields, labels, ..ListOptions::default() };
    for (options, expected) in [
        (selected(FieldSelector::equal("spec.host", "x"), LabelSelector::default()), 2),
        (selected(FieldSelector::default(), LabelSelector::parse("converted-to=v2").unwrap()), 3),
        (selected(FieldSelector::default(), LabelSelector::parse("converted-to=v1").unwrap()), 0),
    ] {
        assert_eq!(c.api.list(&at("v2", ""), &options).await.unwrap().items.len(), expected, "{options:?}");
    }
    assert_eq!(c.asked.lock().len(), 1, "what was converted is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_are_watched() {
    let c = Cluster::new("v1").await;
    let mut watches = Vec::new();
    for version in ["v1", "v2"] {
        watches.push((version, c.api.watch(&at(version, ""), &ListOptions::default()).await.unwrap()));
    }
    c.create("v1", v1("a")).await;
    let patch = Patch::Merge(value!({"spec": {"port": "9"}}));
    c.api.patch(&at("v2", "a"), patch, &manager("n")).await.unwrap();
    c.api.delete(&at("v2", "a"), &DeleteOptions::default()).await.unwrap();
    for (version, watch) in &mut watches {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (kind, object) = match watch.next().await.unwrap().unwrap() {
                WatchEvent::Added(o) => ("added", o),
                WatchEvent::Modified(o) => ("modified", o),
                WatchEvent::Deleted(o) => ("deleted", o),
                other => panic!("{other:?}"),
            };
            let object = object.value();
            assert!(object["apiVersion"].str().ends_with(*version), "{object:?}");
            seen.push(format!("{kind} {}{}", object["spec"]["hostPort"].str(), object["spec"]["port"].str()));
        }
        let expected = match *version {
            "v1" => ["added h:1", "modified h:9", "deleted h:9"],
            _ => ["added 1", "modified 9", "deleted 9"],
        };
        assert_eq!(seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_of_fields_crosses_versions() {
    let c = Cluster::new("v1").await;
    let apply = |body: Value, who: &str, force| {
        let (api, options) = (c.api.clone(), WriteOptions { force, ..manager(who) });
        let target = at(body["apiVersion"].str().rsplit('/').next().unwrap(), "a");
        async move { api.patch(&target, Patch::Apply(body), &options).await }
    };
    apply(object("v1", "a", value!({"hostPort": "h:1", "replicas": 1})), "one", false).await.unwrap();
    let two = || object("v2", "a", value!({"host": "g"}));
    let conflict = apply(two(), "two", false).await.unwrap_err();
    assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "one": .spec.hostPort"#);
    apply(two(), "two", true).await.unwrap();
    let seen = c.get("v2", "a").await.unwrap();
    assert_eq!(seen["spec"], value!({"host": "g", "port": "1", "replicas": 1}));
    // What it does not apply any more goes, in the version it applies now.
    apply(object("v2", "a", value!({"port": "1"})), "one", true).await.unwrap();
    let seen = c.get("v2", "a").await.unwrap();
    assert_eq!(seen["spec"], value!({"host": "g", "port": "1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_converted_is_an_error() {
    const FAILED: &str = "conversion webhook for stable.example.com/v1, Kind=Host ";
    let cases: &[(Answer, &str)] = &[
        (
            |_, _| (500, Value::Null),
            "failed: an error on the server (\"null\") has prevented the request from succeeding",
        ),
        (
            |_, mut right| {
                right.set_path(&["response", "result"], value!({"status": "Failure", "message": "no idea"}));
                (200, right)
            },
            "failed: no idea",
        ),
        (
            |_, mut right| {
                right.set_path(&["response", "convertedObjects"], value!([]));
                (200, right)
            },
            "returned 0 objects, expected 1",
        ),
        (
            |request, mut right| {
                right.set_path(&["response", "convertedObjects"], &request["objects"]);
                (200, right)
            },
            "returned invalid object at index 0: invalid groupVersion (expected stable.example.com/v2, received stable.example.com/v1)",
        ),
    ];
    let c = Cluster::new("v1").await;
    c.create("v1", v1("a")).await;
    for (answer, why) in cases {
        c.answers(*answer);
        let expected = (500, format!("{FAILED}{why}"));
        let got = c.get("v2", "a").await.unwrap_err();
        assert_eq!((got.code, got.message), expected);
        let got = c.api.list(&at("v2", ""), &ListOptions::default()).await.unwrap_err();
        assert_eq!((got.code, got.message), expected);
        let mut watch = c.api.watch(&at("v2", ""), &ListOptions::default()).await.unwrap();
        let got = watch.next().await.unwrap().unwrap_err();
        assert_eq!((got.code, got.message), expected);
        let patch = Patch::Merge(value!({"spec": {"port": "9"}}));
        let got = c.api.patch(&at("v2", "a"), patch, &manager("n")).await.unwrap_err();
        assert_eq!((got.code, got.message), expected);
        assert_eq!(c.get("v1", "a").await.unwrap()["spec"]["hostPort"].str(), "h:1");
    }
    let text = crate::metrics::text(&c.server);
    for line in [
        "apiserver_conversion_webhook_request_total{failure_type=\"conversion_webhook_partial_response_failure\",result=\"failure\"}",
        "apiserver_crd_conversion_webhook_duration_seconds_count{crd_name=\"hosts.stable.example.com\",from_version=\"v1\",succeeded=\"false\",to_version=\"v2\"}",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // Nothing was remembered of it.
    c.answers(|_, right| (200, right));
    assert_eq!(c.get("v2", "a").await.unwrap()["spec"]["host"].str(), "h");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_version_changes_and_the_conversion_too() {
    let c = Cluster::new("v1").await;
    c.create("v1", v1("a")).await;
    c.change(value!({"spec": {"versions": versions("v2")}})).await;
    let stored = c.api.get(&definitions()).await.unwrap().value()["status"]["storedVersions"].clone();
    assert_eq!(stored, value!(["v1", "v2"]));
    c.create("v1", v1("b")).await;
    for version in ["v1", "v2"] {
        let list = c.api.list(&at(version, ""), &ListOptions::default()).await.unwrap();
        let key = if version == "v1" { "hostPort" } else { "host" };
        let of = |o: &Arc<canopus_api::Object>| o.value()["spec"][key].str().to_string();
        let seen: Vec<String> = list.items.iter().map(of).collect();
        assert_eq!(seen, if version == "v1" { ["h:1", "h:1"] } else { ["h", "h"] });
    }
    // Renaming is what is left when there is no webhook: what the other version does not know is pruned.
    c.change(value!({"spec": {"conversion": {"strategy": "None", "webhook": null}}})).await;
    let before = c.asked.lock().len();
    assert_eq!(c.get("v2", "a").await.unwrap()["spec"], value!({}));
    assert_eq!(c.asked.lock().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_holds_up_the_deletion_of_what_is_stored_in_another_version() {
    let c = Cluster::new("v1").await;
    c.create("v1", v1("a")).await;
    c.change(value!({"spec": {"versions": versions("v2")}})).await;
    c.answers(|_, _| (500, Value::Null));
    c.api.delete(&definitions(), &DeleteOptions::default()).await.unwrap();
    let terminating = || async {
        let definition = c.api.get(&definitions()).await.ok()?.value();
        let found =
            definition["status"]["conditions"].items().iter().find(|c| c["type"].str() == "Terminating").cloned();
        Some(found.unwrap_or_default())
    };
    loop {
        let condition = terminating().await.expect("the definition is there");
        if condition["reason"].str() == "InstanceDeletionFailed" {
            let message = condition["message"].str();
            assert!(
                message.starts_with(
                    "could not list instances: conversion webhook for stable.example.com/v1, Kind=Host failed: "
                ),
                "{message}"
            );
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    c.answers(|_, right| (200, right));
    while terminating().await.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_webhooks_see_the_version_they_ask_for() {
    let c = Cluster::new("v1").await;
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = asked.clone();
    let (port, ca, _) = listen(move |_, review| {
        kept.lock().push(review["request"].clone());
        let patch = STANDARD.encode(r#"[{"op": "replace", "path": "/spec/port", "value": "8080"}]"#);
        let response =
            value!({"uid": &review["request"]["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch});
        (
            200,
            json::to_string(
                &value!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}),
            ),
        )
    })
    .await;
    let hook = value!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "matchPolicy": "Equivalent", "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": STANDARD.encode(ca)},
        "rules": [{"operations": ["*"], "apiGroups": [GROUP], "apiVersions": ["v2"], "resources": ["hosts"]}]});
    let hooks = Target::new(&Gvr::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"), "", "w");
    c.api.create(&hooks, value!({"metadata": {"name": "w"}, "webhooks": [hook]}), &manager("m")).await.unwrap();
    let dry = WriteOptions { dry_run: true, ..manager("m") };
    while asked.lock().is_empty() {
        c.api.create(&at("v1", "try"), v1("try"), &dry).await.unwrap();
    }
    asked.lock().clear();
    let made = c.create("v1", v1("a")).await;
    assert_eq!(made["spec"], value!({"hostPort": "h:8080"}));
    let question = asked.lock()[0].clone();
    assert_eq!(question["object"]["spec"], value!({"host": "h", "port": "1"}));
    assert_eq!((question["kind"]["version"].str(), question["requestKind"]["version"].str()), ("v2", "v1"));
}
