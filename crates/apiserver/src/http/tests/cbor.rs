//! `application/cbor` in and out (KEP-4222), of what is built in and of what is defined.

use super::*;
use canopus_api::gates::Gates;
use canopus_api::{cbor, value};

const CBOR: &str = "application/cbor";
const APPLY: &str = "application/apply-patch+cbor";
const BOTH: [(&str, &str); 2] = [("accept", CBOR), ("content-type", CBOR)];
const WATCH: &str =
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BARS: &str = "/apis/mygroup.example.com/v1/bars";

impl Answer {
    fn item(&self) -> Value {
        assert_eq!(self.headers["content-type"], CBOR);
        assert!(self.body.starts_with(cbor::MAGIC));
        cbor::decode(&self.body).unwrap()
    }
}

fn on() -> Settings {
    Settings { features: Gates::parse("CBORServingAndStorage=true").unwrap(), ..Settings::default() }
}

async fn admin(settings: Settings) -> Client {
    Client::with("admin", "system:masters", settings).await
}

fn map(name: &str) -> Value {
    value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn bar(name: &str) -> Value {
    value!({"apiVersion": "mygroup.example.com/v1", "kind": "Bar", "metadata": {"name": name}, "spec": {"replicas": 1, "x": 1.5}})
}

/// Defines a resource whose objects may be anything, and waits until it is served.
async fn define(admin: &mut Client) {
    let schema = value!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "x": {"type": "number"}, "list": {"type": "array", "items": {"type": "string"}}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let definition = value!({"metadata": {"name": "bars.mygroup.example.com"}, "spec": {"group": "mygroup.example.com", "scope": "Cluster",
        "names": {"plural": "bars", "kind": "Bar"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}]}});
    crate::crd::start(&admin.server).await.unwrap();
    let made = admin.send("POST", DEFINITIONS, &[], json::to_vec(&definition)).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    let path = format!("{DEFINITIONS}?watch=1&timeoutSeconds=10");
    let mut events = admin.open("GET", &path, &[], "").await.into_body();
    while let Some(frame) = events.frame().await {
        let established = |data: &Bytes| {
            let line = String::from_utf8_lossy(data);
            line.contains(r#""status":"True","type":"Established""#)
        };
        if frame.unwrap().data_ref().is_some_and(established) {
            break;
        }
    }
}

#[tokio::test]
async fn objects_lists_patches_and_errors() {
    let mut first = admin(on()).await;
    define(&mut first).await;
    // The connection is the watch's.
    let mut admin = Client::of(first.server.clone(), "admin", "system:masters").await;
    for (path, object, list) in [(MAPS, map as fn(&str) -> Value, "ConfigMapList"), (BARS, bar, "BarList")] {
        for name in ["a", "b"] {
            let made = admin.send("POST", path, &BOTH, cbor::encode(&object(name))).await;
            let (item, sent) = (made.item(), object(name));
            assert_eq!(made.code, 201, "{item:?}");
            assert_eq!((&item["data"], &item["spec"]), (&sent["data"], &sent["spec"]));
        }
        let one = format!("{path}/a");
        assert_eq!(admin.send("GET", &one, &BOTH, "").await.item(), admin.get(&one).await.json());
        let all = admin.send("GET", path, &BOTH, "").await.item();
        assert_eq!((&all, all["kind"].str(), all["items"].items().len()), (&admin.get(path).await.json(), list, 2));
        let partial = format!("{CBOR};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
        let partial = admin.send("GET", path, &[("accept", &partial)], "").await.item();
        assert_eq!(partial["items"][1]["metadata"], all["items"][1]["metadata"]);

        let apply = [("accept", CBOR), ("content-type", APPLY)];
        let mut wanted = object("c");
        wanted.set_path(&["metadata", "labels"], value!({"x": "y"}));
        let applied = admin.send("PATCH", &format!("{path}/c?fieldManager=m"), &apply, cbor::encode(&wanted)).await;
        assert_eq!((applied.code.as_u16(), applied.item()["metadata"]["labels"]["x"].str()), (201, "y"));
        assert_eq!(applied.item()["metadata"]["managedFields"][0]["operation"].str(), "Apply");
        let nobody = admin.send("PATCH", &format!("{path}/c"), &apply, cbor::encode(&wanted)).await;
        assert_eq!((nobody.code.as_u16(), nobody.item()["reason"].str()), (422, "Invalid"));
        let merge = [("accept", CBOR), ("content-type", "application/merge-patch+json")];
        let merged = admin.send("PATCH", &one, &merge, r#"{"metadata":{"labels":{"m":"n"}}}"#).await.item();
        assert_eq!(merged["metadata"]["labels"]["m"].str(), "n");
        let put = admin.send("PUT", &one, &BOTH, cbor::encode(&merged)).await.item();
        assert_eq!(put["metadata"]["resourceVersion"], merged["metadata"]["resourceVersion"]);

        let missing = admin.send("GET", &format!("{path}/z"), &BOTH, "").await;
        assert_eq!((missing.code.as_u16(), missing.item()["reason"].str()), (404, "NotFound"));
        let options = value!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
        let kept = admin.send("DELETE", &one, &BOTH, cbor::encode(&options)).await;
        assert_eq!((kept.code.as_u16(), kept.item()["reason"].str()), (409, "Conflict"));
        let gone = admin.send("DELETE", &one, &BOTH, "").await;
        assert_eq!((gone.code.as_u16(), gone.item()["kind"].str()), (200, "Status"));
    }
    let scale = admin.send("GET", &format!("{BARS}/b/scale"), &BOTH, "").await.item();
    assert_eq!((scale["kind"].str(), scale["spec"]["replicas"].int()), ("Scale", 1));
    let mut wanted = scale.clone();
    wanted.set_path(&["spec", "replicas"], 4);
    let scaled = admin.send("PUT", &format!("{BARS}/b/scale"), &BOTH, cbor::encode(&wanted)).await.item();
    assert_eq!(scaled["spec"]["replicas"].int(), 4);
    let secret = "/api/v1/namespaces/default/secrets";
    // Bytes as themselves, for what is base64 in JSON.
    let body = b"\xa2\x48metadata\xa1\x44name\x41s\x44data\xa1\x41k\xd6\x43\xff\x00\x01";
    let made = admin.send("POST", secret, &BOTH, body).await;
    assert!(made.body.windows(6).any(|part| part == b"k\xd6\x43\xff\x00\x01"));
    assert_eq!(made.item()["data"]["k"].str(), "/wAB");
    let list = admin.send("GET", secret, &BOTH, "").await;
    assert!(list.body.windows(6).any(|part| part == b"k\xd6\x43\xff\x00\x01"));
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    let document = admin.get("/openapi/v3/apis/apps/v1").await.json();
    let patch = &document["paths"][path]["patch"];
    assert!(patch["requestBody"]["content"].get(APPLY).is_some());
    assert!(patch["responses"]["200"]["content"].get(CBOR).is_some());
}

#[tokio::test]
async fn what_is_refused() {
    let mut admin = admin(on()).await;
    let table = format!("{CBOR};as=Table;g=meta.k8s.io;v=v1");
    let refused = admin.send("GET", MAPS, &[("accept", &table)], "").await;
    let why = "only the following media types are accepted: application/json, application/yaml, \
               application/vnd.kubernetes.protobuf, application/cbor";
    assert_eq!((refused.code.as_u16(), refused.json()["message"].str()), (406, why));
    let yaml = admin.send("GET", &format!("{MAPS}?watch=1"), &[("accept", "application/yaml")], "").await;
    assert!(yaml.code == 406 && String::from_utf8_lossy(&yaml.body).contains("stream=watch, application/cbor-seq"));
    let unknown = admin.send("POST", MAPS, &[("content-type", "text/x")], "").await.json();
    assert!(unknown["message"].str().ends_with("application/vnd.kubernetes.protobuf, application/cbor"));
    let apply = format!("{MAPS}/a?fieldManager=m");
    let twice = b"\xa2\x44kind\x49ConfigMap\x44kind\x41b";
    let own =
        "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: ";
    for (method, path, kind, body, why) in [
        ("POST", MAPS, CBOR, &twice[..], format!("{own}cbor: found duplicate map key \"kind\" at map element index 1")),
        ("POST", MAPS, CBOR, b"\xa1\x44kind", format!("{own}unexpected EOF")),
        ("POST", MAPS, CBOR, b"\x80", format!("{own}cbor: cannot unmarshal array into Go value of type v1.TypeMeta")),
        ("POST", MAPS, CBOR, b"{}", format!("{own}unexpected EOF")),
        ("PATCH", &apply, APPLY, b"\xff", "error decoding YAML: cbor: unexpected \"break\" code".into()),
        ("DELETE", MAPS, CBOR, b"\xa1", "unable to determine group/version/kind: unexpected EOF".into()),
    ] {
        let headers = [("accept", CBOR), ("content-type", kind)];
        let refused = admin.send(method, path, &headers, body).await;
        assert_eq!(refused.code, 400, "{why}");
        let status = refused.item();
        assert!(status["message"].str().starts_with(&why), "{}", status["message"].str());
    }
    let mut unknown = map("a");
    unknown.set("dataa", value!({}));
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let refused = admin.send("POST", &strict, &BOTH, cbor::encode(&unknown)).await;
    assert!(refused.code == 400 && refused.item()["message"].str().ends_with(r#"unknown field "dataa""#));
}

#[tokio::test]
async fn watches_are_sequences() {
    let mut first = admin(on()).await;
    define(&mut first).await;
    let mut admin = Client::of(first.server.clone(), "admin", "system:masters").await;
    admin.send("POST", BARS, &BOTH, cbor::encode(&bar("a"))).await;
    let watch = admin.send("GET", &format!("{BARS}?{WATCH}"), &[("accept", CBOR)], "").await;
    assert_eq!(watch.headers["content-type"], "application/cbor-seq");
    let mut events = Vec::new();
    let mut rest = &watch.body[..];
    while !rest.is_empty() {
        // Each is behind a tag of its own, and its object behind another.
        let starts: Vec<_> = (1..rest.len()).filter(|at| rest[*at..].starts_with(cbor::MAGIC)).collect();
        let end = starts.get(1).copied().unwrap_or(rest.len());
        events.push(cbor::decode(&rest[..end]).unwrap());
        rest = &rest[end..];
    }
    let seen: Vec<_> = events.iter().map(|e| (e["type"].str(), e["object"]["kind"].str())).collect();
    assert_eq!(seen, [("ADDED", "Bar"), ("BOOKMARK", "Bar")]);
    assert_eq!(events[0]["object"], admin.get(&format!("{BARS}/a")).await.json());
}

#[tokio::test]
async fn a_whole_float_is_the_number_that_is_stored() {
    let mut first = admin(on()).await;
    define(&mut first).await;
    let mut admin = Client::of(first.server.clone(), "admin", "system:masters").await;
    let mut watcher = Client::of(first.server.clone(), "admin", "system:masters").await;
    let path = format!("{BARS}?watch=1&timeoutSeconds=60");
    let mut events = watcher.open("GET", &path, &[("accept", CBOR)], "").await.into_body();
    let one = format!("{BARS}/a");
    let mut sent = bar("a");
    sent.set_path(&["spec", "x"], Value::Float(2.0));
    let made = admin.send("POST", BARS, &BOTH, cbor::encode(&sent)).await.item();
    let mut again = made.clone();
    again.set_path(&["spec", "x"], Value::Float(2.0));
    let same = admin.send("PUT", &one, &BOTH, cbor::encode(&again)).await.item();
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let json = json::to_string(&sent).replace("\"a\"", "\"b\"").replace("\"x\":2", "\"x\":2.0");
    assert_eq!(admin.send("POST", BARS, &[], json).await.code, 201);
    for name in ["a", "b"] {
        let event = cbor::decode(&events.frame().await.unwrap().unwrap().into_data().unwrap()).unwrap();
        assert_eq!((event["type"].str(), event["object"]["metadata"]["name"].str()), ("ADDED", name));
        assert_eq!(event["object"]["spec"]["x"], value!(2));
    }
}

#[tokio::test]
async fn custom_resources_are_stored_as_cbor_and_read_without_the_gate() {
    let store: Arc<dyn canopus_store::Store> =
        Arc::new(canopus_store::memory::MemoryStore::new(Default::default()).unwrap());
    let server = crate::testing::server_on(store.clone(), on()).await;
    let mut admin = Client::of(server.clone(), "admin", "system:masters").await;
    define(&mut admin).await;
    let mut admin = Client::of(server.clone(), "admin", "system:masters").await;
    let made = admin.send("POST", BARS, &BOTH, cbor::encode(&bar("a"))).await.item();
    admin.send("POST", MAPS, &BOTH, cbor::encode(&map("a"))).await;
    let stored = store.get("/registry/mygroup.example.com/bars/a").await.unwrap().0.unwrap();
    let tree = cbor::decode(&stored.value).unwrap();
    assert!(stored.value.starts_with(cbor::MAGIC) && tree["spec"] == made["spec"], "{tree:?}");
    assert!(store.get("/registry/configmaps/default/a").await.unwrap().0.unwrap().value.starts_with(b"{"));

    let server = crate::testing::server_on(store.clone(), Settings::default()).await;
    crate::crd::start(&server).await.unwrap();
    let mut admin = Client::of(server, "admin", "system:masters").await;
    let one = format!("{BARS}/a");
    let mut read = admin.get(&one).await.json();
    assert_eq!(read, made);
    read.set_path(&["spec", "replicas"], 2);
    assert_eq!(admin.send("PUT", &one, &[], json::to_vec(&read)).await.json()["spec"]["replicas"].int(), 2);
    let stored = store.get("/registry/mygroup.example.com/bars/a").await.unwrap().0.unwrap();
    assert!(stored.value.starts_with(b"{"), "without the gate it is written as JSON");

    // With it, a write that changes nothing migrates, once.
    let server = crate::testing::server_on(store.clone(), on()).await;
    crate::crd::start(&server).await.unwrap();
    let mut admin = Client::of(server, "admin", "system:masters").await;
    let read = admin.get(&one).await.json();
    let migrated = admin.send("PUT", &one, &BOTH, cbor::encode(&read)).await.item();
    assert_ne!(migrated["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    let stored = store.get("/registry/mygroup.example.com/bars/a").await.unwrap().0.unwrap();
    assert!(stored.value.starts_with(cbor::MAGIC));
    let again = admin.send("PUT", &one, &BOTH, cbor::encode(&migrated)).await.item();
    assert_eq!(again["metadata"]["resourceVersion"], migrated["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn without_the_gate_there_is_none() {
    let mut admin = admin(Settings::default()).await;
    let refused = admin.send("GET", MAPS, &[("accept", CBOR)], "").await;
    let why = "only the following media types are accepted: application/json, application/yaml, \
               application/vnd.kubernetes.protobuf";
    assert_eq!((refused.code.as_u16(), refused.json()["message"].str()), (406, why));
    for (method, path) in [("POST", MAPS.to_string()), ("DELETE", format!("{MAPS}/a"))] {
        let refused = admin.send(method, &path, &[("content-type", CBOR)], cbor::encode(&map("a"))).await;
        assert_eq!(refused.code, 415, "{path}");
    }
    let path = format!("{MAPS}/a?fieldManager=m");
    assert_eq!(admin.send("PATCH", &path, &[("content-type", APPLY)], cbor::encode(&map("a"))).await.code, 415);
    let both = [("accept", "application/cbor, application/json;q=0.9")];
    assert_eq!(admin.send("GET", MAPS, &both, "").await.headers["content-type"], "application/json");
}
