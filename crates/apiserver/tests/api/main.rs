//! The verbs, end to end without a network: one API server on a store in memory, asked through `LocalApi`.

mod crd;
mod etcd;
mod support;

use canopus_api::api::FieldValidation;
use canopus_api::{
    DeleteOptions, FieldSelector, Gvr, LabelSelector, ListOptions, Patch, Status, Target, Value, WatchEvent,
    WriteOptions, value,
};
use futures::StreamExt;
use support::{api, api_for, config_map, config_maps, target};

fn manager(name: &str) -> WriteOptions {
    WriteOptions { field_manager: name.into(), ..WriteOptions::default() }
}

#[tokio::test]
async fn create_get_update_delete() {
    let api = api().await;
    let t = target("a");
    let made = api.create(&t, config_map("a", "1"), &manager("m")).await.unwrap();
    let tree = made.value();
    assert!(!tree["metadata"]["uid"].str().is_empty());
    assert_eq!(tree["metadata"]["managedFields"][0]["manager"].str(), "m");
    assert_eq!(tree["metadata"]["managedFields"][0]["fieldsV1"], value!({"f:data": {".": {}, "f:k": {}}}));
    let again = api.create(&t, config_map("a", "1"), &manager("m")).await.unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (409, r#"configmaps "a" already exists"#));

    let got = api.get(&t).await.unwrap();
    assert_eq!(got.revision, made.revision);
    let mut changed = (*got.value()).clone();
    changed.set_path(&["data", "k"], "2");
    let updated = api.update(&t, changed.clone(), &manager("m")).await.unwrap();
    assert!(updated.revision > made.revision);
    let stale = api.update(&t, changed, &manager("m")).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    assert!(
        stale.message.starts_with(r#"Operation cannot be fulfilled on configmaps "a": the object has been modified"#)
    );

    api.delete(&t, &DeleteOptions::default()).await.unwrap();
    assert_eq!(api.get(&t).await.unwrap_err().message, r#"configmaps "a" not found"#);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let api = api().await;
    let made = api.create(&target("a"), config_map("a", "1"), &manager("m")).await.unwrap();
    let same = api.update(&target("a"), (*made.value()).clone(), &manager("m")).await.unwrap();
    assert_eq!(same.revision, made.revision);
}

#[tokio::test]
async fn a_patch_may_change_what_an_update_may_only_with_a_revision() {
    let api = api().await;
    let lease = Target::new(&Gvr::new("coordination.k8s.io", "v1", "leases"), "default", "l");
    let body = value!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    api.create(&lease, body.clone(), &manager("m")).await.unwrap();
    let refused = api.update(&lease, body, &manager("m")).await.unwrap_err();
    assert!(refused.message.ends_with("must be specified for an update"), "{refused}");
    let patch = Patch::Merge(value!({"spec": {"holderIdentity": "b"}}));
    let patched = api.patch(&lease, patch, &manager("m")).await.unwrap();
    assert_eq!(patched.value()["spec"]["holderIdentity"].str(), "b");
    let stale = Patch::Merge(value!({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "c"}}));
    assert!(api.patch(&lease, stale, &manager("m")).await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn lists_page_at_one_revision() {
    let api = api().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.create(&target(name), config_map(name, "1"), &manager("m")).await.unwrap();
    }
    let all = Target::new(&config_maps(), "default", "");
    let first = api.list(&all, &ListOptions { limit: 2, ..ListOptions::default() }).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(3)));
    api.create(&target("bb"), config_map("bb", "1"), &manager("m")).await.unwrap();
    let options =
        ListOptions { limit: 10, continue_token: first.continue_token.as_str().into(), ..ListOptions::default() };
    let rest = api.list(&all, &options).await.unwrap();
    let names: Vec<_> = rest.items.iter().map(|o| o.name().to_string()).collect();
    assert_eq!(names, ["c", "d", "e"]);
    assert_eq!((rest.revision, rest.continue_token.as_str()), (first.revision, ""));
}

#[tokio::test]
async fn selectors_and_unknown_fields_of_selectors() {
    let api = api().await;
    for (name, app) in [("a", "x"), ("b", "y")] {
        let mut map = config_map(name, "1");
        map.set_path(&["metadata", "labels", "app"], app);
        api.create(&target(name), map, &manager("m")).await.unwrap();
    }
    let all = Target::new(&config_maps(), "", "");
    let by_label = ListOptions { labels: LabelSelector::parse("app=y").unwrap(), ..ListOptions::default() };
    assert_eq!(api.list(&all, &by_label).await.unwrap().items[0].name(), "b");
    let by_field = ListOptions { fields: FieldSelector::equal("metadata.name", "a"), ..ListOptions::default() };
    assert_eq!(api.list(&all, &by_field).await.unwrap().items.len(), 1);
    let bad = ListOptions { fields: FieldSelector::equal("data.k", "a"), ..ListOptions::default() };
    assert!(api.list(&all, &bad).await.unwrap_err().message.starts_with("\"data.k\" is not a known field"));
}

#[tokio::test]
async fn a_watch_has_no_gaps_and_follows_selectors() {
    let api = api().await;
    let all = Target::new(&config_maps(), "default", "");
    let start = api.list(&all, &ListOptions::default()).await.unwrap().revision;
    let options = ListOptions {
        labels: LabelSelector::parse("on").unwrap(),
        resource_version: Some(start),
        ..ListOptions::default()
    };
    let mut watch = api.watch(&all, &options).await.unwrap();
    let label = |on: Value| Patch::Merge(value!({"metadata": {"labels": {"on": on}}}));
    api.create(&target("a"), config_map("a", "1"), &manager("m")).await.unwrap();
    api.patch(&target("a"), label("1".into()), &manager("m")).await.unwrap();
    api.patch(&target("a"), label("2".into()), &manager("m")).await.unwrap();
    let last = api.patch(&target("a"), label(Value::Null), &manager("m")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(o) => ("ADDED", o.facts.label("on").map(String::from), 0),
            WatchEvent::Modified(o) => ("MODIFIED", o.facts.label("on").map(String::from), 0),
            WatchEvent::Deleted(o) => ("DELETED", o.facts.label("on").map(String::from), o.revision),
            WatchEvent::Bookmark { .. } => ("BOOKMARK", None, 0),
        });
    }
    let one = Some("1".to_string());
    let two = Some("2".to_string());
    assert_eq!(seen, [("ADDED", one, 0), ("MODIFIED", two.clone(), 0), ("DELETED", two, last.revision)]);
}

#[tokio::test]
async fn field_validation() {
    let api = api().await;
    let mut map = config_map("a", "1");
    map.set("dataa", value!({"x": "y"}));
    let strict = WriteOptions { field_validation: FieldValidation::Strict, ..manager("m") };
    let refused = api.create(&target("a"), map.clone(), &strict).await.unwrap_err();
    let why =
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dataa""#;
    assert_eq!((refused.code, refused.message.as_str()), (400, why));
    let made = api.create(&target("a"), map, &manager("m")).await.unwrap();
    assert!(made.value().get("dataa").is_none());
    let patch = Patch::Merge(value!({"dataa": {"x": "y"}}));
    let refused = api.patch(&target("a"), patch, &strict).await.unwrap_err();
    assert!(
        refused.code == 422 && refused.message.starts_with(r#" "" is invalid: patch: Invalid value: "#),
        "{refused}"
    );
    assert!(refused.message.ends_with(r#"strict decoding error: unknown field "dataa""#), "{refused}");
}

#[tokio::test]
async fn who_may_not_create_does_not_by_other_means() {
    let api = api_for(|a| a.verb != "create").await;
    let refused = |verb: &str, error: Status| {
        let why = r#"cannot create resource "configmaps" in API group "" in the namespace "default""#;
        assert!(error.code == 403 && error.message.ends_with(why), "{verb}: {error}");
    };
    let applied = Patch::Apply(config_map("a", "1"));
    refused("apply", api.patch(&target("a"), applied, &manager("m")).await.unwrap_err());
    let lease = Target::new(&Gvr::new("coordination.k8s.io", "v1", "leases"), "default", "a");
    let body = value!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}});
    let error = api.update(&lease, body, &manager("m")).await.unwrap_err();
    assert!(error.code == 403 && error.message.contains("cannot create resource"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_taken() {
    let api = api().await;
    let mut held = config_map("a", "1");
    held.set_path(&["metadata", "finalizers"], value!(["example.com/hold"]));
    api.create(&target("a"), held, &manager("m")).await.unwrap();
    api.delete(&target("a"), &DeleteOptions::default()).await.unwrap();
    let taken = api.create(&target("a"), config_map("a", "1"), &manager("m")).await.unwrap_err();
    assert_eq!(taken.message, r#"object is being deleted: configmaps "a" already exists"#);
    let mut elsewhere = config_map("a", "2");
    elsewhere.set_path(&["metadata", "namespace"], "other");
    let moved = api.patch(&target("a"), Patch::Merge(elsewhere), &manager("m")).await.unwrap_err();
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((moved.code, moved.message.as_str()), (400, why));
    let nameless = api.update(&target("a"), value!({"data": {}}), &manager("m")).await.unwrap_err();
    let why = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!((nameless.code, nameless.message.as_str()), (400, why));
}

#[tokio::test]
async fn dry_run_leaves_no_trace() {
    let api = api().await;
    let dry = WriteOptions { dry_run: true, ..manager("m") };
    api.create(&target("a"), config_map("a", "1"), &dry).await.unwrap();
    assert!(api.get(&target("a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn applies_own_their_fields() {
    let api = api().await;
    let apply = |data: Value| {
        Patch::Apply(value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
    };
    api.patch(&target("a"), apply(value!({"x": "1", "y": "1"})), &manager("one")).await.unwrap();
    let conflict = api.patch(&target("a"), apply(value!({"x": "2"})), &manager("two")).await.unwrap_err();
    assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "one": .data.x"#);
    let forced = WriteOptions { force: true, ..manager("two") };
    api.patch(&target("a"), apply(value!({"x": "2"})), &forced).await.unwrap();
    // What an applier leaves out and nobody else owns goes.
    let left = api.patch(&target("a"), apply(value!({})), &manager("one")).await.unwrap();
    assert_eq!(left.value()["data"], value!({"x": "2"}));
}

#[tokio::test]
async fn all_field_errors_at_once() {
    let api = api().await;
    let service = value!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "S"}, "spec": {"ports": [{"port": 0}, {"port": 70000}]}});
    let t = Target::new(&Gvr::new("", "v1", "services"), "default", "");
    let refused = api.create(&t, service, &manager("m")).await.unwrap_err();
    assert_eq!(refused.code, 422);
    let fields: Vec<_> = refused.details.unwrap().causes.into_iter().map(|c| c.field).collect();
    for field in ["metadata.name", "spec.ports[0].port", "spec.ports[1].port", "spec.ports[0].name"] {
        assert!(fields.iter().any(|f| f == field), "{field} in {fields:?}");
    }
}

#[tokio::test]
async fn service_addresses_are_unique_and_come_back() {
    let api = api().await;
    let services = Gvr::new("", "v1", "services");
    let make = async |name: &str, ip: &str| {
        let mut service = value!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        if !ip.is_empty() {
            service.set_path(&["spec", "clusterIP"], ip);
        }
        api.create(&Target::new(&services, "default", ""), service, &manager("m")).await
    };
    let first = make("one", "").await.unwrap();
    let ip = first.value()["spec"]["clusterIP"].str().to_string();
    assert!(ip.starts_with("10.96."), "{ip}");
    let taken = make("two", &ip).await.unwrap_err();
    assert!(taken.message.contains("provided IP is already allocated"), "{taken}");
    api.delete(&Target::new(&services, "default", "one"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(make("two", &ip).await.unwrap().value()["spec"]["clusterIP"].str(), ip);
}

#[tokio::test]
async fn pods_are_bound_once_and_die_gracefully() {
    let api = api().await;
    let pods = Gvr::new("", "v1", "pods");
    let pod = value!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let t = Target::new(&pods, "default", "p");
    let made = api.create(&t, pod, &manager("m")).await.unwrap();
    assert_eq!(made.value()["status"]["phase"].str(), "Pending");
    assert_eq!(made.value()["spec"]["restartPolicy"].str(), "Always");
    let binding = |node: &str| value!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let to = t.clone().subresource("binding");
    api.create(&to, binding("n1"), &manager("s")).await.unwrap();
    assert_eq!(api.get(&t).await.unwrap().value()["spec"]["nodeName"].str(), "n1");
    assert!(api.create(&to, binding("n2"), &manager("s")).await.unwrap_err().is_conflict());

    let options = DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
    let dying = api.delete(&t, &options).await.unwrap();
    assert_eq!(dying.value()["metadata"]["deletionGracePeriodSeconds"].int(), 5);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    api.delete(&t, &now).await.unwrap();
    assert!(api.get(&t).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = api().await;
    let mut map = config_map("a", "1");
    map.set_path(&["metadata", "finalizers"], value!(["example.com/hold"]));
    api.create(&target("a"), map, &manager("m")).await.unwrap();
    let held = api.delete(&target("a"), &DeleteOptions::default()).await.unwrap();
    assert!(held.facts.deleting);
    let release = Patch::Merge(value!({"metadata": {"finalizers": null}}));
    api.patch(&target("a"), release, &manager("m")).await.unwrap();
    assert!(api.get(&target("a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn events_are_one_resource_in_two_versions() {
    let api = api().await;
    let event = value!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "reason": "R", "message": "m",
        "type": "Normal", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "source": {"component": "c"},
    });
    api.create(&Target::new(&Gvr::new("", "v1", "events"), "default", "e"), event, &manager("m")).await.unwrap();
    let other = Target::new(&Gvr::new("events.k8s.io", "v1", "events"), "default", "e");
    let seen = api.get(&other).await.unwrap().value();
    assert_eq!(
        (seen["apiVersion"].str(), seen["note"].str(), seen["regarding"]["name"].str()),
        ("events.k8s.io/v1", "m", "p")
    );
}

#[tokio::test]
async fn scale() {
    let api = api().await;
    let deployments = Gvr::new("apps", "v1", "deployments");
    let labels = value!({"a": "b"});
    let deployment = value!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": labels.clone()}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let t = Target::new(&deployments, "default", "d");
    let made = api.create(&t, deployment, &manager("m")).await.unwrap();
    assert_eq!(made.value()["spec"]["replicas"].int(), 1);
    let scale = t.clone().subresource("scale");
    let patched = api.patch(&scale, Patch::Merge(value!({"spec": {"replicas": 4}})), &manager("m")).await.unwrap();
    assert_eq!(patched.value()["spec"]["replicas"].int(), 4);
    let now = api.get(&t).await.unwrap();
    assert_eq!((now.value()["spec"]["replicas"].int(), now.facts.generation), (4, 2));
    assert_eq!(api.get(&scale).await.unwrap().value()["status"]["selector"].str(), "a=b");
}

#[tokio::test]
async fn a_watch_may_begin_in_the_future() {
    let api = api().await;
    let made = api.create(&target("a"), config_map("a", "1"), &manager("m")).await.unwrap();
    let later = ListOptions { resource_version: Some(made.revision + 1), ..ListOptions::default() };
    let mut watch = api.watch(&Target::new(&config_maps(), "", ""), &later).await.unwrap();
    for name in ["b", "c"] {
        api.create(&target(name), config_map(name, "1"), &manager("m")).await.unwrap();
    }
    match watch.next().await.unwrap().unwrap() {
        WatchEvent::Added(object) => assert_eq!(object.name(), "c"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_owns_what_the_server_adds() {
    let api = api().await;
    let job = Target::new(&Gvr::new("batch", "v1", "jobs"), "default", "j");
    let body = value!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let made = api.create(&job, body, &manager("m")).await.unwrap().value();
    assert!(!made["spec"]["selector"].is_null() && !made["spec"]["template"]["metadata"]["labels"].is_null());
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(!owned["f:template"]["f:spec"].is_null() && owned["f:selector"].is_null(), "{owned:?}");
    assert!(owned["f:template"]["f:metadata"]["f:labels"].is_null(), "{owned:?}");
}
