//! Two API servers on one etcd.

use crate::support::{config_map, config_maps, server, target};
use canopus_api::{Api, DeleteOptions, Gvr, ListOptions, Object, Target, WatchEvent, WriteOptions, value};
use canopus_apiserver::authn::jwt::SigningKey;
use canopus_apiserver::authn::tokens::{BoundObjects, ServiceAccountTokens};
use canopus_apiserver::server::{Gates, TokenClaims, TokenIssuer};
use canopus_apiserver::surroundings::System;
use canopus_apiserver::{LocalApi, Server, User, authn};
use canopus_store::etcd::testing::Etcd;
use canopus_store::{Change, Expect, Store, Write};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

async fn start(etcd: &Etcd) -> (Arc<Server>, Arc<dyn Api>) {
    let server = server(Arc::new(etcd.store().await.unwrap()), |_| true).await;
    (server.clone(), LocalApi::shared(server, User::new("tester", &[]), "tests"))
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_are_one_api() {
    let etcd = Etcd::start();
    let ((_a, a), (_b, b)) = (start(&etcd).await, start(&etcd).await);
    let all = Target::new(&config_maps(), "default", "");
    let list = a.list(&all, &ListOptions::default()).await.unwrap();
    let from = ListOptions { resource_version: Some(list.revision), ..ListOptions::default() };
    let mut watch = a.watch(&all, &from).await.unwrap();
    for i in 0..20 {
        let (writer, reader) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let name = format!("c{i}");
        let made = writer.create(&target(&name), config_map(&name, "1"), &options()).await.unwrap();
        // Read your writes, wherever you ask.
        assert_eq!(reader.list(&all, &ListOptions::default()).await.unwrap().items.len(), i + 1);
        let not_older = ListOptions { resource_version: Some(made.revision), ..ListOptions::default() };
        assert_eq!(reader.list(&all, &not_older).await.unwrap().items.len(), i + 1);
        assert_eq!(reader.get(&target(&name)).await.unwrap().revision, made.revision);
        let again = reader.create(&target(&name), config_map(&name, "2"), &options()).await.unwrap_err();
        assert!(again.is_already_exists());
        let mut changed = (*made.value()).clone();
        changed.set_path(&["data", "k"], "2");
        let changed = reader.update(&target(&name), changed.clone(), &options()).await.unwrap();
        let stale = writer.update(&target(&name), (*made.value()).clone(), &options()).await.unwrap_err();
        assert!(stale.is_conflict());
        for expected in [made.revision, changed.revision] {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = watch.next().await.unwrap().unwrap()
            else {
                panic!("an unexpected event")
            };
            assert_eq!((object.name(), object.revision), (&*name, expected));
            // The writer's tree and another server's bytes come to the same.
            assert_eq!(object.value()["metadata"]["name"].str(), name);
        }
    }
    let ahead = ListOptions { resource_version: Some(list.revision + 1000), ..ListOptions::default() };
    let refused = a.list(&all, &ahead).await.unwrap_err();
    assert!(refused.message.contains("Too large resource version"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_somebody_else_has_just_made_is_known() {
    let etcd = Etcd::start();
    let (server, _) = start(&etcd).await;
    let other = etcd.store().await.unwrap();
    let key = SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let objects = BoundObjects::of(&server).unwrap();
    let tokens = Arc::new(ServiceAccountTokens::new("https://issuer", vec![], key, Arc::new(System), objects));
    let gates = Gates { authenticators: vec![tokens.clone()], ..(*server.gates.get().unwrap()).clone() };
    server.gates.set(gates);
    for i in 0..100 {
        let name = format!("sa{i}");
        let token = tokens.issue(TokenClaims {
            namespace: "default".into(),
            service_account: name.clone(),
            service_account_uid: "u".into(),
            audiences: vec!["https://issuer".into()],
            lifetime: Duration::from_secs(600),
            ..TokenClaims::default()
        });
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", token.unwrap()).parse().unwrap());
        let metadata = value!({"namespace": "default", "name": &name, "uid": "u"});
        let mut account = value!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        let change = Change::Put { value: Object::encode(&mut account), facts: None, ttl: None };
        let key = format!("/registry/serviceaccounts/default/{name}").into();
        other.commit(Write { key, expect: Expect::Absent, change }).await.unwrap();
        let user = authn::authenticate(&server, &mut headers, &[], "/api").await.unwrap();
        assert_eq!(user.name, format!("system:serviceaccount:default:{name}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice() {
    let etcd = Etcd::start();
    let ((a, first), (b, second)) = (start(&etcd).await, start(&etcd).await);
    let services = Gvr::new("", "v1", "services");
    let makers = (0..16).map(|i| {
        let api = if i % 2 == 0 { first.clone() } else { second.clone() };
        let services = services.clone();
        tokio::spawn(async move {
            let name = format!("s{i}");
            let service = value!({"metadata": {"name": &name}, "spec": {"ports": [{"port": 80}]}});
            let made = api.create(&Target::new(&services, "default", &name), service, &options()).await.unwrap();
            made.value()["spec"]["clusterIP"].str().to_owned()
        })
    });
    let mut addresses = BTreeSet::new();
    for made in makers.collect::<Vec<_>>() {
        // A server that starts meanwhile lets go of nothing that is in use or about to be.
        a.repair_service_ips().await.unwrap();
        b.repair_service_ips().await.unwrap();
        assert!(addresses.insert(made.await.unwrap()), "an address was given twice");
    }
    let held = a.store.range("/registry/ipaddresses/", "/registry/ipaddresses0", None, 0).await.unwrap();
    assert_eq!(held.items.len(), 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstream_wrote_is_served() {
    let etcd = Etcd::start();
    let json = "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"j\",\"namespace\":\"default\",\
                \"uid\":\"u\",\"creationTimestamp\":\"2020-01-01T00:00:00Z\"},\"data\":{\"k\":\"json\"}}\n";
    let protobuf: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\
        \x12\x1c\x0a\x0e\x0a\x01p\x1a\x07default\x42\x00\x12\x0a\x0a\x01k\x12\x05proto";
    etcd.put("/registry/configmaps/default/j", json.as_bytes()).await.unwrap();
    let (server, api) = start(&etcd).await;
    // One was there before the server, the other comes by the watch.
    etcd.put("/registry/configmaps/default/p", protobuf).await.unwrap();
    let all = Target::new(&config_maps(), "default", "");
    let listed = api.list(&all, &ListOptions::default()).await.unwrap();
    let data: BTreeMap<String, String> =
        listed.items.iter().map(|o| (o.name().to_owned(), o.value()["data"]["k"].str().to_owned())).collect();
    assert_eq!(data, BTreeMap::from([("j".into(), "json".into()), ("p".into(), "proto".into())]));
    for (name, object) in listed.items.iter().map(|o| (o.name(), o.value())) {
        let mut changed = (*object).clone();
        changed.set_path(&["data", "k"], "ours");
        api.update(&target(name), changed, &options()).await.unwrap();
        let (stored, _) = server.store.get(&format!("/registry/configmaps/default/{name}")).await.unwrap();
        let stored = canopus_api::json::parse(&stored.unwrap().value).unwrap();
        // As upstream would: no revision in the value.
        assert_eq!((stored["kind"].str(), stored["metadata"].get("resourceVersion")), ("ConfigMap", None));
    }
    api.delete(&target("p"), &DeleteOptions::default()).await.unwrap();
}

/// Writers on both servers while etcd is killed again and again: caches go on, and agree with each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_outlive_etcd() {
    let mut etcd = Etcd::start();
    let ((a, first), (b, second)) = (start(&etcd).await, start(&etcd).await);
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = [first.clone(), second.clone()]
        .into_iter()
        .enumerate()
        .map(|(id, api)| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut made = BTreeSet::new();
                for i in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let name = format!("w{id}-{i}");
                    // What fails may have happened or not.
                    if api.create(&target(&name), config_map(&name, "1"), &options()).await.is_ok() {
                        made.insert(name);
                    }
                }
                made
            })
        })
        .collect();
    for _ in 0..3 {
        let before = a.store.revision();
        while a.store.revision() < before + 30 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        etcd.restart();
    }
    stop.cancel();
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let all = Target::new(&config_maps(), "default", "");
    let mut lists = Vec::new();
    for (server, api) in [(&a, &first), (&b, &second)] {
        let list = api.list(&all, &ListOptions::default()).await.unwrap();
        assert!(list.revision >= server.newest().await.unwrap());
        lists.push(list.items.iter().map(|o| (o.name().to_owned(), o.revision)).collect::<BTreeMap<_, _>>());
    }
    assert_eq!(lists[0], lists[1]);
    assert!(acknowledged.iter().all(|name| lists[0].contains_key(name)), "an acknowledged object is missing");
    let stored = a.store.range("/registry/configmaps/", "/registry/configmaps0", None, 0).await.unwrap();
    let stored: BTreeMap<String, u64> = stored
        .items
        .iter()
        .map(|v| (v.key.rsplit('/').next().unwrap_or_default().to_owned(), v.mod_revision))
        .collect();
    assert_eq!(stored, lists[0]);
}

#[tokio::test]
async fn the_api_leads_to_every_server_that_lives() {
    let etcd = Etcd::start();
    let ((a, api), (b, _)) = (start(&etcd).await, start(&etcd).await);
    let slice = Target::new(&Gvr::new("discovery.k8s.io", "v1", "endpointslices"), "default", "kubernetes");
    let endpoints = Target::new(&Gvr::new("", "v1", "endpoints"), "default", "kubernetes");
    let addresses = async || {
        let slice = api.get(&slice).await.unwrap().value();
        let new: Vec<_> = slice["endpoints"].items().iter().map(|e| e["addresses"][0].str().to_owned()).collect();
        let endpoints = api.get(&endpoints).await.unwrap().value();
        let old = endpoints["subsets"][0]["addresses"].items().iter().map(|e| e["ip"].str().to_owned());
        assert_eq!(old.collect::<Vec<_>>(), new);
        new
    };
    let (one, two) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    canopus_apiserver::bootstrap::run(&a, one, 6443).await.unwrap();
    canopus_apiserver::bootstrap::run(&b, two, 6443).await.unwrap();
    assert_eq!(addresses().await, ["192.0.2.1", "192.0.2.2"]);
    // One that stops in order takes itself out.
    let stopped = tokio_util::sync::CancellationToken::new();
    stopped.cancel();
    canopus_apiserver::masters::run(b, two, 6443, stopped).await;
    assert_eq!(addresses().await, ["192.0.2.1"]);
}
