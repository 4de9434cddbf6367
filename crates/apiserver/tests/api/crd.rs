//! CustomResourceDefinitions and what they define: their life, their schemas, their subresources.

use crate::manager;
use crate::support::server;
use canopus_api::api::FieldValidation;
use canopus_api::{
    Api, DeleteOptions, FieldSelector, Gvr, ListOptions, Patch, Target, Value, WatchEvent, WriteOptions, value,
};
use canopus_apiserver::{LocalApi, Server, User};
use canopus_store::memory::MemoryStore;
use futures::StreamExt;
use std::sync::Arc;

const GROUP: &str = "stable.example.com";

fn definitions(name: &str) -> Target {
    Target::new(&Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions"), "", name)
}

fn crontab(name: &str) -> Target {
    Target::new(&Gvr::new(GROUP, "v1", "crontabs"), "default", name)
}

fn version(name: &str, storage: bool) -> Value {
    value!({"name": name, "served": true, "storage": storage,
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector"}},
    "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
    "selectableFields": [{"jsonPath": ".spec.color"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "blue"]},
            "image": {"type": "string", "default": "busybox"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }}}})
}

fn definition(versions: Value) -> Value {
    value!({"metadata": {"name": format!("crontabs.{GROUP}")}, "spec": {"group": GROUP, "scope": "Namespaced", "versions": versions,
        "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]}}})
}

fn object(name: &str, spec: Value) -> Value {
    value!({"apiVersion": format!("{GROUP}/v1"), "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

async fn cluster() -> (Arc<Server>, Arc<dyn Api>) {
    let server = server(Arc::new(MemoryStore::new(Default::default()).unwrap()), |_| true).await;
    canopus_apiserver::crd::start(&server).await.unwrap();
    let api: Arc<dyn Api> = LocalApi::shared(server.clone(), User::new("tester", &[]), "tests");
    (server, api)
}

/// Creates a definition and waits until it is established.
async fn define(api: &Arc<dyn Api>, body: Value) {
    let name = body["metadata"]["name"].str().to_string();
    let made = api.create(&definitions(&name), body, &manager("m")).await.unwrap();
    until(api, &name, made.revision, |d| condition(d, "Established") == "True").await;
}

fn condition(definition: &Value, kind: &str) -> String {
    let conditions = definition["status"]["conditions"].items();
    conditions.iter().find(|c| c["type"].str() == kind).map_or(String::new(), |c| c["status"].str().to_string())
}

async fn until(api: &Arc<dyn Api>, name: &str, revision: u64, wanted: impl Fn(&Value) -> bool) {
    let options = ListOptions {
        fields: FieldSelector::equal("metadata.name", name),
        resource_version: Some(revision - 1),
        ..ListOptions::default()
    };
    let mut watch = api.watch(&definitions(""), &options).await.unwrap();
    while let Some(event) = watch.next().await {
        match event.unwrap() {
            WatchEvent::Added(o) | WatchEvent::Modified(o) if wanted(&o.value()) => return,
            WatchEvent::Deleted(_) => return,
            _ => {}
        }
    }
    panic!("the watch ended");
}

#[tokio::test]
async fn the_life_of_a_definition() {
    let (server, api) = cluster().await;
    assert_eq!(api.get(&crontab("a")).await.unwrap_err().code, 404);
    define(&api, definition(value!([version("v1", true)]))).await;
    let made = api.get(&definitions("crontabs.stable.example.com")).await.unwrap().value();
    assert_eq!(made["status"]["acceptedNames"]["listKind"].str(), "CronTabList");
    assert_eq!(made["status"]["storedVersions"], value!(["v1"]));
    let table = server.catalog.table();
    let group = table.groups().into_iter().find(|g| g.name == GROUP).map(|g| g.versions[0].resources.len());
    assert_eq!(group, Some(1));

    let spec = value!({"cronSpec": "* * * * */5", "unknown": 1});
    let made = api.create(&crontab("a"), object("a", spec), &manager("m")).await.unwrap().value();
    assert_eq!(made["spec"], value!({"cronSpec": "* * * * */5", "image": "busybox"}));
    assert_eq!(made["metadata"]["generation"].int(), 1);
    let mut watch = api.watch(&crontab(""), &ListOptions::default()).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(o))) if o.name() == "a"));

    let before = api.get(&definitions("crontabs.stable.example.com")).await.unwrap().revision;
    api.delete(&definitions("crontabs.stable.example.com"), &DeleteOptions::default()).await.unwrap();
    until(&api, "crontabs.stable.example.com", before + 1, |_| false).await;
    let rest: Vec<_> = watch.collect().await;
    assert!(matches!(rest.first(), Some(Ok(WatchEvent::Deleted(o))) if o.name() == "a"), "{rest:?}");
    assert_eq!(api.list(&crontab(""), &ListOptions::default()).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn values_are_validated_in_upstreams_words() {
    let (_, api) = cluster().await;
    define(&api, definition(value!([version("v1", true)]))).await;
    let refused = |spec: Value| {
        let api = api.clone();
        async move { api.create(&crontab("x"), object("x", spec), &manager("m")).await.unwrap_err().message }
    };
    let head = "CronTab.stable.example.com \"x\" is invalid: ";
    let cases = [
        (value!({}), "spec.cronSpec: Required value"),
        (
            value!({"cronSpec": 1}),
            "spec.cronSpec: Invalid value: \"integer\": spec.cronSpec in body must be of type string: \"integer\"",
        ),
        (
            value!({"cronSpec": "x"}),
            r#"spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
        ),
        (
            value!({"cronSpec": "* * * * *", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            value!({"cronSpec": "* * * * *", "color": "green"}),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            value!({"cronSpec": "* * * * *", "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ];
    for (spec, why) in cases {
        assert_eq!(refused(spec).await, format!("{head}{why}"));
    }
    let strict = WriteOptions { field_validation: FieldValidation::Strict, ..manager("m") };
    let unknown = object("x", value!({"cronSpec": "* * * * *", "nope": 1}));
    let why = api.create(&crontab("x"), unknown, &strict).await.unwrap_err().message;
    assert!(why.contains("strict decoding error: unknown field \"spec.nope\""), "{why}");
}

#[tokio::test]
async fn status_and_scale_are_subresources() {
    let (_, api) = cluster().await;
    define(&api, definition(value!([version("v1", true)]))).await;
    let mut body = object("a", value!({"cronSpec": "* * * * *", "replicas": 2}));
    body.set("status", value!({"replicas": 7}));
    let made = api.create(&crontab("a"), body, &manager("m")).await.unwrap().value();
    assert!(made["status"].is_null());
    let mut status = (*made).clone();
    status.set("status", value!({"replicas": 1, "selector": "a=b"}));
    status.set_path(&["spec", "replicas"], 9);
    let after = api.update(&crontab("a").subresource("status"), status, &manager("m")).await.unwrap().value();
    assert_eq!((after["spec"]["replicas"].int(), after["status"]["replicas"].int()), (2, 1));
    assert_eq!(after["metadata"]["generation"].int(), 1);
    let scale = api.get(&crontab("a").subresource("scale")).await.unwrap().value();
    assert_eq!(scale["spec"], value!({"replicas": 2}));
    assert_eq!(scale["status"], value!({"replicas": 1, "selector": "a=b"}));
    let patch = Patch::Merge(value!({"spec": {"replicas": 5}}));
    api.patch(&crontab("a").subresource("scale"), patch, &manager("s")).await.unwrap();
    let after = api.get(&crontab("a")).await.unwrap().value();
    assert_eq!((after["spec"]["replicas"].int(), after["metadata"]["generation"].int()), (5, 2));
}

#[tokio::test]
async fn lists_are_merged_by_their_keys_and_fields_selected() {
    let (_, api) = cluster().await;
    define(&api, definition(value!([version("v1", true)]))).await;
    let applied = |name: &str, port: Value| {
        let mut body = object("a", value!({"cronSpec": "* * * * *", "color": "red", "ports": [port]}));
        body.set_path(&["metadata", "labels"], value!({name: "1"}));
        body
    };
    for (who, port) in [("x", value!({"name": "a", "port": 1})), ("y", value!({"name": "b", "port": 2}))] {
        let options = WriteOptions { force: true, ..manager(who) };
        api.patch(&crontab("a"), Patch::Apply(applied(who, port)), &options).await.unwrap();
    }
    let object = api.get(&crontab("a")).await.unwrap().value();
    assert_eq!(object["spec"]["ports"], value!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]));
    let strategic = api.patch(&crontab("a"), Patch::Strategic(value!({})), &manager("m")).await.unwrap_err();
    assert_eq!(strategic.code, 415);
    for (color, count) in [("red", 1), ("blue", 0)] {
        let options = ListOptions { fields: FieldSelector::equal("spec.color", color), ..ListOptions::default() };
        assert_eq!(api.list(&crontab(""), &options).await.unwrap().items.len(), count, "{color}");
    }
}

#[tokio::test]
async fn versions_are_views_of_the_same_objects() {
    let (_, api) = cluster().await;
    define(&api, definition(value!([version("v1", true), version("v2", false)]))).await;
    api.create(&crontab("a"), object("a", value!({"cronSpec": "* * * * *"})), &manager("m")).await.unwrap();
    let v2 = Target::new(&Gvr::new(GROUP, "v2", "crontabs"), "default", "a");
    let seen = api.get(&v2).await.unwrap().value();
    assert_eq!(seen["apiVersion"].str(), "stable.example.com/v2");
    let patched = api.patch(&v2, Patch::Merge(value!({"spec": {"replicas": 3}})), &manager("n")).await.unwrap().value();
    assert_eq!((patched["apiVersion"].str(), patched["spec"]["replicas"].int()), ("stable.example.com/v2", 3));
    assert_eq!(api.get(&crontab("a")).await.unwrap().value()["spec"]["replicas"].int(), 3);
}

#[tokio::test]
async fn instances_hold_up_the_deletion_of_their_definition() {
    let (_, api) = cluster().await;
    // Nobody serves the version that is stored.
    let mut stored = version("v1", true);
    stored.set("served", false);
    define(&api, definition(value!([stored, version("v2", false)]))).await;
    let v2 = Target::new(&Gvr::new(GROUP, "v2", "crontabs"), "default", "a");
    let mut held = object("a", value!({"cronSpec": "* * * * *"}));
    held.set("apiVersion", "stable.example.com/v2");
    held.set_path(&["metadata", "finalizers"], value!(["example.com/hold"]));
    let made = api.create(&v2, held, &manager("m")).await.unwrap();
    let name = "crontabs.stable.example.com";
    api.delete(&definitions(name), &DeleteOptions::default()).await.unwrap();
    until(&api, name, made.revision + 1, |d| {
        let conditions = d["status"]["conditions"].items();
        conditions.iter().any(|c| c["type"].str() == "Terminating" && c["reason"].str() == "InstanceDeletionInProgress")
    })
    .await;
    let let_go = Patch::Merge(value!({"metadata": {"finalizers": null}}));
    let gone = api.patch(&v2, let_go, &manager("m")).await.unwrap();
    until(&api, name, gone.revision, |_| false).await;
    assert_eq!(api.get(&definitions(name)).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_schema_that_changes_is_ratcheted() {
    let (_, api) = cluster().await;
    define(&api, definition(value!([version("v1", true)]))).await;
    api.create(&crontab("a"), object("a", value!({"cronSpec": "1 * * * *", "replicas": 9})), &manager("m"))
        .await
        .unwrap();
    let mut tighter = (*api.get(&definitions("crontabs.stable.example.com")).await.unwrap().value()).clone();
    let mut v1 = version("v1", true);
    v1.set_path(&["schema", "openAPIV3Schema", "properties", "spec", "properties", "replicas", "maximum"], 5);
    tighter.set_path(&["spec", "versions"], value!([v1]));
    api.update(&definitions("crontabs.stable.example.com"), tighter, &manager("m")).await.unwrap();
    let refused = |n: i64| Patch::Merge(value!({"spec": {"replicas": n}}));
    // The task that follows definitions is on its way.
    while api.patch(&crontab("a"), refused(8), &WriteOptions { dry_run: true, ..manager("m") }).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let patch = Patch::Merge(value!({"spec": {"color": "blue"}}));
    assert_eq!(api.patch(&crontab("a"), patch, &manager("m")).await.unwrap().value()["spec"]["replicas"].int(), 9);
}

fn by_webhook(client: Value, reviews: Value) -> Value {
    value!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": reviews}})
}

#[tokio::test]
async fn authorities_of_a_webhook_are_checked_once_it_is_served() {
    let (_, api) = cluster().await;
    let mut body = definition(value!([version("v1", true)]));
    let bundle = |pem: &str| value!({"url": "https://example.com/", "caBundle": pem});
    body.set_path(&["spec", "conversion"], by_webhook(bundle("Cg=="), value!(["v1"])));
    define(&api, body).await;
    let name = "crontabs.stable.example.com";
    let with =
        |pem: &str| Patch::Merge(value!({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": pem}}}}}));
    // What is wrong may stay wrong.
    api.patch(&definitions(name), with("Cgo="), &manager("m")).await.unwrap();
    api.patch(&definitions(name), with(""), &manager("m")).await.unwrap();
    let refused = api.patch(&definitions(name), with("Cg=="), &manager("m")).await.unwrap_err();
    let why = "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"Cg==\": unable to load root certificates: unable to parse bytes as PEM block";
    assert!(refused.message.ends_with(why), "{}", refused.message);
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    type Change = fn(&mut Value);
    let (_, api) = cluster().await;
    let refused = |change: Change| {
        let api = api.clone();
        async move {
            let mut body = definition(value!([version("v1", true)]));
            change(&mut body);
            let name = body["metadata"]["name"].str().to_string();
            api.create(&definitions(&name), body, &manager("m")).await.unwrap_err().message
        }
    };
    let cases: &[(Change, &str)] = &[
        (
            |b| b.set_path(&["spec", "names", "plural"], "Cron"),
            "spec.names.plural: Invalid value: \"Cron\": a DNS-1035 label",
        ),
        (
            |b| b.set_path(&["metadata", "name"], "x.y"),
            "metadata.name: Invalid value: \"x.y\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            |b| b.set_path(&["spec", "scope"], "All"),
            "spec.scope: Unsupported value: \"All\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            |b| b.set_path(&["spec", "versions"], value!([version("v1", false)])),
            "must have exactly one version marked as storage version",
        ),
        (
            |b| {
                b.set_path(&["spec", "versions"], value!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"properties": {"a": {"type": "string"}}}}}}}]))
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            |b| b.set_path(&["spec", "conversion"], by_webhook(value!({"url": "http://u@/"}), value!(["v1"]))),
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ),
        (
            |b| {
                let service = value!({"namespace": "n", "name": "s", "path": "x", "port": 0});
                b.set_path(&["spec", "conversion"], by_webhook(value!({"service": service}), value!(["v3"])))
            },
            "[spec.conversion.webhookClientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive, spec.conversion.webhookClientConfig.service.path: Invalid value: \"x\": must start with a '/', spec.conversion.webhookClientConfig.service.path: Invalid value: \"x\": segment[0] may not be empty, spec.conversion.conversionReviewVersions: Invalid value: [\"v3\"]: must include at least one of v1, v1beta1]",
        ),
        (
            |b| b.set_path(&["spec", "conversion"], by_webhook(Value::Null, value!(["v1", "v1", "V"]))),
            "[spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook, spec.conversion.conversionReviewVersions[1]: Invalid value: \"v1\": duplicate version, spec.conversion.conversionReviewVersions[2]: Invalid value: \"V\": a DNS-1035 label",
        ),
    ];
    for (change, why) in cases {
        let message = refused(*change).await;
        assert!(message.contains(why), "{message}\n{why}");
    }
}

#[tokio::test]
async fn rules_are_enforced_on_all_writes() {
    let (_, api) = cluster().await;
    let refusal = |body: Value| {
        let api = api.clone();
        async move { api.create(&definitions("crontabs.stable.example.com"), body, &manager("m")).await.unwrap_err() }
    };
    let with = |rule: &str| {
        let mut version = version("v1", true);
        let path = ["schema", "openAPIV3Schema", "x-kubernetes-validations"];
        version.set_path(&path, value!([{"rule": rule}]));
        definition(value!([version]))
    };
    let why = refusal(with("self.spec.size > 1")).await;
    assert!(why.code == 422 && why.message.contains("undefined field 'size'"), "{}", why.message);
    define(&api, with("!has(self.status) || self.status.replicas <= self.spec.replicas")).await;

    let spec = value!({"cronSpec": "* * * * *", "replicas": 2});
    api.create(&crontab("a"), object("a", spec), &manager("m")).await.unwrap();
    let status = |replicas: i64| Patch::Merge(value!({"status": {"replicas": replicas}}));
    let sub = crontab("a").subresource("status");
    api.patch(&sub, status(2), &manager("m")).await.unwrap();
    let why = api.patch(&sub, status(3), &manager("m")).await.unwrap_err();
    let rule = "failed rule: !has(self.status) || self.status.replicas <= self.spec.replicas";
    assert_eq!(why.message, format!("CronTab.stable.example.com \"a\" is invalid: <nil>: Invalid value: {rule}"));
    let less = Patch::Merge(value!({"spec": {"replicas": 1}}));
    assert_eq!(api.patch(&crontab("a"), less, &manager("m")).await.unwrap_err().code, 422);
}
