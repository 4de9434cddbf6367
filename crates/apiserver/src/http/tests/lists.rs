//! Lists in pages, what cannot be listed, and in which words.

use super::*;

#[tokio::test]
async fn tables_and_metadata_in_the_version_that_is_asked_for() {
    let mut admin = Client::new("admin", "system:masters").await;
    assert_eq!(admin.send("POST", MAPS, &[], r#"{"metadata":{"name":"a"}}"#).await.code, 201);
    for version in ["v1", "v1beta1"] {
        let (api, accept) =
            (format!("meta.k8s.io/{version}"), |kind| format!("application/json;as={kind};v={version};g=meta.k8s.io"));
        let table = admin.send("GET", MAPS, &[("accept", &accept("Table"))], "").await.json();
        assert_eq!((table["apiVersion"].str(), table["rows"][0]["object"]["apiVersion"].str()), (&*api, &*api));
        let list = admin.send("GET", MAPS, &[("accept", &accept("PartialObjectMetadataList"))], "").await.json();
        assert_eq!((list["apiVersion"].str(), list["items"][0]["apiVersion"].str()), (&*api, &*api));
        let one = admin.send("GET", &format!("{MAPS}/a"), &[("accept", &accept("PartialObjectMetadata"))], "").await;
        assert_eq!(one.json()["apiVersion"].str(), api);
    }
}

#[tokio::test]
async fn items_leave_out_what_the_list_says() {
    let mut admin = Client::new("admin", "system:masters").await;
    assert_eq!(admin.send("POST", MAPS, &[], r#"{"metadata":{"name":"a"}}"#).await.code, 201);
    for query in ["", "?pretty=true"] {
        let list = admin.get(&format!("{MAPS}{query}")).await.json();
        assert_eq!((list["kind"].str(), list["apiVersion"].str()), ("ConfigMapList", "v1"));
        let item = &list["items"][0];
        assert_eq!(
            (item["metadata"]["name"].str(), &item["kind"], &item["apiVersion"]),
            ("a", &Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn a_page_that_expired_is_gone_on_with_elsewhere() {
    let mut admin = Client::new("admin", "system:masters").await;
    for name in ["a", "b", "c"] {
        admin.send("POST", MAPS, &[], config_map(name, 1)).await;
    }
    let names = |list: &Value| list["items"].items().iter().map(|i| i["metadata"]["name"].str().to_string()).collect();
    let first = admin.get(&format!("{MAPS}?limit=1")).await.json();
    assert_eq!(first["metadata"]["remainingItemCount"].int(), 2);
    let go_on = |status: &Value| format!("{MAPS}?limit=5&continue={}", status["metadata"]["continue"].str());
    admin.send("DELETE", &format!("{MAPS}/b"), &[], "").await;
    let consistent: Vec<String> = names(&admin.get(&go_on(&first)).await.json());
    assert_eq!(consistent, ["b", "c"]);
    let newest = admin.server.store.revision();
    admin.server.store.compact(newest).await.unwrap();
    let expired = admin.get(&go_on(&first)).await;
    assert_eq!((expired.code.as_u16(), expired.json()["reason"].str()), (410, "Expired"));
    let rest = admin.get(&go_on(&expired.json())).await.json();
    let inconsistent: Vec<String> = names(&rest);
    assert_eq!((inconsistent, rest["metadata"]["resourceVersion"].str()), (vec!["c".into()], &*newest.to_string()));
    let old = admin.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    let message = "The resourceVersion for the provided list is too old.";
    assert_eq!((old.code.as_u16(), old.json()["message"].str()), (410, message));
    let any = admin.get(&format!("{MAPS}?resourceVersion=0&limit=1")).await.json();
    let all: Vec<String> = names(&any);
    assert_eq!((all.len(), any["metadata"]["continue"].str()), (2, ""));
}

#[tokio::test]
async fn refusals_are_upstreams() {
    let mut admin = Client::new("admin", "system:masters").await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    for (path, headers, code, message) in [
        (
            format!("{MAPS}?fieldSelector=data.k%3Dx"),
            &[][..],
            400,
            r#""data.k" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
        ("/api/v1/pods?fieldSelector=spec.x%3Dy".into(), &[], 400, "field label not supported: spec.x"),
        (
            format!("{MAPS}?includeObject=x"),
            &table,
            400,
            r#"Unable to convert to Table as requested: includeObject: Invalid value: "x": must be 'Metadata', 'Object', 'None', or empty"#,
        ),
    ] {
        let refused = admin.send("GET", &path, headers, "").await;
        assert_eq!((refused.code.as_u16(), refused.json()["message"].str()), (code, message), "{path}");
    }
    assert_eq!(admin.get(&format!("{MAPS}?includeObject=x")).await.code, 200);
    let future = admin.get(&format!("{MAPS}?resourceVersion=1000000")).await;
    let status = future.json();
    assert_eq!((future.code.as_u16(), &future.headers["retry-after"]), (504, &"1".parse().unwrap()));
    assert_eq!(status["details"]["causes"][0]["reason"].str(), "ResourceVersionTooLarge");
}
