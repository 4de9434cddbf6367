//! `application/vnd.kubernetes.protobuf` in and out.

use super::*;
use canopus_api::{protobuf, value};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Answer {
    fn message(&self) -> Value {
        assert_eq!(self.headers["content-type"], PROTOBUF);
        protobuf::decode(&self.body).unwrap()
    }
}

async fn admin() -> Client {
    Client::new("admin", "system:masters").await
}

#[tokio::test]
async fn objects_lists_and_errors() {
    let mut admin = admin().await;
    let both = [("accept", PROTOBUF), ("content-type", PROTOBUF)];
    for name in ["a", "b"] {
        let map = value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}});
        let made = admin.send("POST", MAPS, &both, protobuf::encode(&map).unwrap()).await;
        assert_eq!((made.code.as_u16(), made.message()["data"]["k"].str()), (201, "v"));
    }
    let accept = [("accept", PROTOBUF)];
    let list = admin.send("GET", MAPS, &accept, "").await.message();
    let plain = admin.get(MAPS).await.json();
    assert_eq!((list["kind"].str(), &list["metadata"]), ("ConfigMapList", &plain["metadata"]));
    for (ours, theirs) in list["items"].items().iter().zip(plain["items"].items()) {
        assert_eq!((&ours["metadata"], &ours["data"]), (&theirs["metadata"], &theirs["data"]));
    }
    assert_eq!(list["items"].items().len(), 2);
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let partial = admin.send("GET", MAPS, &[("accept", &metadata)], "").await.message();
    assert_eq!(partial["kind"].str(), "PartialObjectMetadataList");
    assert_eq!(partial["items"][1]["metadata"], plain["items"][1]["metadata"]);
    let missing = admin.send("GET", &format!("{MAPS}/c"), &accept, "").await;
    assert_eq!((missing.code.as_u16(), missing.message()["reason"].str()), (404, "NotFound"));
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    let refused = admin.send("GET", MAPS, &[("accept", &table)], "").await;
    let message = "only the following media types are accepted: application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf";
    assert_eq!((refused.code.as_u16(), refused.json()["message"].str()), (406, message));
    let options = value!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
    let path = format!("{MAPS}/a");
    let deleted = admin.send("DELETE", &path, &both, protobuf::encode(&options).unwrap()).await;
    assert_eq!((deleted.code.as_u16(), deleted.message()["kind"].str()), (200, "Status"));
    assert_eq!(admin.get(&path).await.code, 200);
}

/// The events of a stream: each behind its length.
fn frames(mut bytes: &[u8]) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let kind = String::from_utf8(frame[2..2 + frame[1] as usize].to_vec()).unwrap();
        let object = frame.windows(4).position(|w| w == protobuf::MAGIC).unwrap();
        events.push((kind, protobuf::decode(&frame[object..]).unwrap()));
        bytes = rest;
    }
    events
}

#[tokio::test]
async fn watches_are_framed() {
    let mut admin = admin().await;
    admin.send("POST", MAPS, &[], config_map("a", 3)).await;
    let options =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let path = format!("{MAPS}?{options}");
    let watch = admin.send("GET", &path, &[("accept", &format!("{PROTOBUF},application/json"))], "").await;
    assert_eq!(watch.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let events = frames(&watch.body);
    let seen: Vec<_> = events.iter().map(|(kind, object)| (kind.as_str(), object["kind"].str())).collect();
    assert_eq!(seen, [("ADDED", "ConfigMap"), ("BOOKMARK", "ConfigMap")]);
    assert_eq!(events[0].1["data"]["k"].str(), "xxx");
    assert_eq!(events[1].1["metadata"]["annotations"], value!({"k8s.io/initial-events-end": "true"}));
    let yaml = admin.send("GET", &path, &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.code, 406);
}

#[tokio::test]
async fn discovery() {
    let mut admin = admin().await;
    let get = async |admin: &mut Client, path: &str| admin.send("GET", path, &[("accept", PROTOBUF)], "").await;
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/api/v1", "APIResourceList"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "APIResourceList"),
    ] {
        let (message, json) = (get(&mut admin, path).await.message(), admin.get(path).await.json());
        assert_eq!(message["kind"].str(), kind, "{path}");
        for part in ["resources", "groups", "versions"] {
            assert_eq!(message[part].items().len(), json[part].items().len(), "{path} {part}");
        }
        assert_eq!(message["resources"][0]["verbs"], json["resources"][0]["verbs"], "{path}");
    }
    let aggregated = format!("{PROTOBUF};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let all = admin.send("GET", "/apis", &[("accept", &aggregated)], "").await;
    assert_eq!(all.headers["content-type"], aggregated.as_str());
    let all = protobuf::decode(&all.body).unwrap();
    let plain =
        admin.send("GET", "/apis", &[("accept", &aggregated.replace(PROTOBUF, "application/json"))], "").await.json();
    let first = |list: &canopus_api::Value| list["items"][0]["versions"][0]["resources"][0].clone();
    let (all, plain) = (first(&all), first(&plain));
    assert_eq!(all["verbs"], plain["verbs"]);
    assert_eq!(all["responseKind"]["kind"], plain["responseKind"]["kind"]);
    assert!(!all["responseKind"]["kind"].str().is_empty());
}
