//! OpenAPI v2 and v3 as clients get them.

use super::*;
use std::collections::BTreeSet;

/// All that is referred to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::Str(name)) => {
                found.insert(name.to_string());
            }
            _ => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn assert_complete(document: &Value, definitions: &Value, prefix: &str) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for name in found {
        let name = name.strip_prefix(prefix).unwrap_or_else(|| panic!("{name} is no reference here"));
        assert!(definitions.get(name).is_some(), "{name} is not defined");
    }
}

#[tokio::test]
async fn v3_refers_to_what_it_defines() {
    let mut admin = Client::new("admin", "system:masters").await;
    let index = admin.get("/openapi/v3").await.json();
    for (path, _) in index["paths"].entries() {
        let document = admin.get(&format!("/openapi/v3/{path}")).await.json();
        assert_complete(&document, &document["components"]["schemas"], "#/components/schemas/");
    }
    let apps = admin.get("/openapi/v3/apis/apps/v1").await.json();
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["operationId"].str(), "readAppsV1NamespacedDeploymentScale");
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"].str(), "Scale");
    let all = &apps["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(all["operationId"].str(), "listAppsV1DeploymentForAllNamespaces");
}

#[tokio::test]
async fn v3_as_messages() {
    const PROPER: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    let mut admin = Client::new("admin", "system:masters").await;
    let path = "/openapi/v3/apis/apps/v1";
    let text = admin.get(path).await;
    for asked in [PROPER, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"] {
        let messages = admin.send("GET", path, &[("accept", asked)], "").await;
        assert_eq!(messages.headers["content-type"], PROPER);
        assert_eq!(messages.headers["etag"], text.headers["etag"]);
        assert!(messages.body.starts_with(b"\x0a\x053.0.0\x12\x15\x0a\x0aKubernetes\x32\x07v1.36.2\x22"));
        // Every name of the one is in the other.
        for (name, _) in text.json()["components"]["schemas"].entries() {
            assert!(messages.body.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
    }
    assert_eq!(admin.send("GET", path, &[("accept", "text/html")], "").await.code, 406);
}

const MESSAGES: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

#[tokio::test]
async fn v2_in_both_forms() {
    let mut admin = Client::new("admin", "system:masters").await;
    let answer = admin.get("/openapi/v2").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.json();
    assert_complete(&document, &document["definitions"], "#/definitions/");
    let port = &document["definitions"]["io.k8s.api.core.v1.ServicePort"]["properties"]["targetPort"];
    assert_eq!(port["$ref"].str(), "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString");
    assert!(!port["description"].str().is_empty());
    let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods"];
    assert_eq!(pods["delete"]["operationId"].str(), "deleteCoreV1CollectionNamespacedPod");
    assert_eq!(pods["post"]["parameters"][0]["schema"]["$ref"].str(), "#/definitions/io.k8s.api.core.v1.Pod");

    let etag = answer.headers["etag"].to_str().unwrap().to_string();
    let messages = admin.send("GET", "/openapi/v2", &[("accept", MESSAGES)], "").await;
    assert_eq!(messages.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(messages.body.starts_with(b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.2\x42"));
    let packed = admin.send("GET", "/openapi/v2", &[("accept", MESSAGES), ("accept-encoding", "gzip")], "").await;
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert!(packed.body.len() < unpacked.len() / 4 && unpacked == messages.body);
    let known = admin.send("GET", "/openapi/v2", &[("accept", MESSAGES), ("if-none-match", &etag)], "").await;
    assert_eq!((known.code.as_u16(), known.body.len()), (304, 0));
    assert_eq!(admin.send("GET", "/openapi/v2", &[("accept", "text/html")], "").await.code, 406);
}
