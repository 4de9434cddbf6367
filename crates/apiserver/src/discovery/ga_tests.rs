//! What upstream v1.36 serves, against what discovery says.

use super::*;
use crate::Settings;
use crate::runtime_config::RuntimeConfig;
use canopus_api::gates::Gates;
use canopus_store::Limits;
use canopus_store::memory::MemoryStore;
use std::collections::BTreeSet;
use std::sync::Arc;

fn verbs_of(word: &str) -> Vec<&str> {
    match word {
        "*" => vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "s" => vec!["get", "patch", "update"],
        "c" => vec!["create"],
        list => list.split(',').collect(),
    }
}

fn words(value: &Value) -> Vec<&str> {
    value.items().iter().map(Value::str).collect()
}

/// What discovery says otherwise than `line`; nothing when they agree.
fn difference(entry: &Value, line: &[&str]) -> Option<String> {
    let option = |prefix: &str| -> Vec<&str> {
        let found = line.iter().find_map(|word| word.strip_prefix(prefix));
        found.map(|list| list.split(',').collect()).unwrap_or_default()
    };
    let said = [
        (vec![entry["kind"].str()], vec![line[2]]),
        (vec![if entry["namespaced"].bool() { "namespaced" } else { "cluster" }], vec![line[3]]),
        (words(&entry["verbs"]), verbs_of(line[4])),
        (words(&entry["shortNames"]), option("short=")),
        (words(&entry["categories"]), option("in=")),
    ];
    let wrong = said.iter().find(|(ours, theirs)| ours != theirs);
    wrong.map(|(ours, theirs)| format!("{} {}: {ours:?} is not {theirs:?}", line[0], line[1]))
}

/// What is missing of the resources in a list, and what is otherwise.
async fn compared(list: &str, settings: Settings) -> (BTreeSet<String>, Vec<String>) {
    let store = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    let server = crate::testing::server_on(store, settings).await;
    let table = server.catalog.table();
    let lists = &table.discovery().resources;
    let (mut missing, mut different) = (BTreeSet::new(), Vec::new());
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let line: Vec<&str> = line.split(' ').collect();
        let group_version = if line[0] == "v1" { "/v1".to_string() } else { line[0].to_string() };
        let entries = lists.get(&group_version).map(|list| list["resources"].items()).unwrap_or_default();
        match entries.iter().find(|entry| entry["name"].str() == line[1]) {
            None => drop(missing.insert(format!("{} {}", line[0], line[1]))),
            Some(entry) => different.extend(difference(entry, &line)),
        }
    }
    (missing, different)
}

#[tokio::test]
async fn everything_stable_is_served() {
    let (missing, different) = compared(include_str!("ga.txt"), Settings::default()).await;
    assert_eq!((missing, different), Default::default());
}

#[tokio::test]
async fn what_is_not_stable_is_served_when_asked_for() {
    let list = include_str!("beta.txt");
    let (missing, _) = compared(list, Settings::default()).await;
    assert_eq!(missing.len(), list.lines().count() - 1, "nothing of it is served by default");
    let settings = Settings {
        runtime_config: RuntimeConfig::parse(["api/all=true"]).unwrap(),
        features: Gates::parse("ClusterTrustBundle=true,DRAResourcePoolStatus=true,GenericWorkload=true,PodCertificateRequest=true,StorageVersionMigrator=true").unwrap(),
        ..Settings::default()
    };
    let (missing, different) = compared(list, settings).await;
    assert_eq!((missing, different), Default::default());
}

#[tokio::test]
async fn earlier_versions_have_their_own_shape() {
    let settings = Settings { runtime_config: RuntimeConfig::parse(["api/beta=true"]).unwrap(), ..Settings::default() };
    let server = crate::testing::server_with(settings).await;
    let api = crate::LocalApi::shared(server.clone(), crate::User::new("admin", &[crate::user::MASTERS]), "tests");
    let at = |version: &str, plural: &str, name: &str| {
        let namespace = if plural == "resourceclaims" { "default" } else { "" };
        canopus_api::Target::new(&canopus_api::Gvr::new("resource.k8s.io", version, plural), namespace, name)
    };
    let table = server.catalog.table();
    let stored: Vec<String> =
        table.stored().iter().map(|s| s.info().gvr()).map(|g| format!("{}/{}", g.version, g.resource)).collect();
    for resource in ["v1/resourceclaims", "v2/horizontalpodautoscalers", "v1beta1/leasecandidates"] {
        let plural = resource.split('/').nth(1).unwrap();
        let found: Vec<&String> = stored.iter().filter(|r| r.ends_with(&format!("/{plural}"))).collect();
        assert_eq!(found, [resource]);
    }
    let claim = value!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "gpu"}]}}});
    let made = api.create(&at("v1beta1", "resourceclaims", ""), claim, &Default::default()).await.unwrap().value();
    let flat = value!({"name": "a", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    assert_eq!((made["apiVersion"].str(), &made["spec"]["devices"]["requests"][0]), ("resource.k8s.io/v1beta1", &flat));
    let stable = api.get(&at("v1", "resourceclaims", "c")).await.unwrap().value();
    assert_eq!(stable["spec"]["devices"]["requests"][0]["exactly"]["count"].int(), 1);
    let slice = value!({"metadata": {"name": "s"}, "spec": {"driver": "a.b", "nodeName": "n",
        "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "d", "basic": {"attributes": {"m": {"string": "x"}}}}]}});
    api.create(&at("v1beta1", "resourceslices", ""), slice, &Default::default()).await.unwrap();
    let stable = api.get(&at("v1", "resourceslices", "s")).await.unwrap().value();
    assert_eq!(stable["spec"]["devices"][0]["attributes"]["m"]["string"].str(), "x");
    let list = api.list(&at("v1beta1", "resourceslices", ""), &Default::default()).await.unwrap();
    assert_eq!(list.items[0].value()["spec"]["devices"][0]["basic"]["attributes"]["m"]["string"].str(), "x");
    let rule = value!({"metadata": {"name": "r"}, "spec": {"taint": {"key": "k", "effect": "NoSchedule"}}});
    let made = api.create(&at("v1beta2", "devicetaintrules", ""), rule, &Default::default()).await.unwrap().value();
    assert!(!made["spec"]["taint"]["timeAdded"].str().is_empty());
}
