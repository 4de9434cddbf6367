//! `/metrics`, `/metrics/slis` and the health checks.

use super::*;

async fn text(client: &mut Client, path: &str) -> String {
    String::from_utf8(client.get(path).await.body.to_vec()).unwrap()
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let mut admin = Client::new("admin", "system:masters").await;
    admin.send("POST", MAPS, &[], config_map("a", 1)).await;
    admin.send("POST", &format!("{MAPS}?dryRun=All"), &[], config_map("b", 1)).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap"}"#;
    admin.send("PATCH", &format!("{MAPS}/c?fieldManager=m"), &apply, body).await;
    admin.get(&format!("{MAPS}/a")).await;
    admin.get(MAPS).await;
    admin.get(&format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1")).await;
    let metrics = text(&mut admin, "/metrics").await;
    let of = |scope: &str, verb: &str| {
        format!(
            r#"component="apiserver",group="",resource="configmaps",scope="{scope}",subresource="",verb="{verb}",version="v1""#
        )
    };
    for line in [
        format!(r#"apiserver_request_total{{code="201",dry_run="",{}}} 1"#, of("resource", "POST")),
        format!(r#"apiserver_request_total{{code="201",dry_run="All",{}}} 1"#, of("resource", "POST")),
        format!(r#"apiserver_request_total{{code="201",dry_run="",{}}} 1"#, of("resource", "APPLY")),
        format!(r#"apiserver_request_total{{code="200",dry_run="",{}}} 1"#, of("namespace", "LIST")),
        format!(r#"apiserver_request_total{{code="200",dry_run="",{}}} 1"#, of("namespace", "WATCH")),
        format!(r#"apiserver_request_sli_duration_seconds_count{{{}}} 1"#, of("resource", "POST")),
        format!(r#"apiserver_response_sizes_bucket{{{},le="1000"}} 1"#, of("resource", "GET")),
        format!(r#"apiserver_longrunning_requests{{{}}} 0"#, of("namespace", "WATCH")),
        r#"apiserver_watch_events_total{group="",version="v1",resource="configmaps"} 2"#.into(),
        r#"apiserver_storage_objects{resource="configmaps"} 2"#.into(),
        r#"apiserver_resource_objects{group="rbac.authorization.k8s.io",resource="roles"} "#.into(),
        r#"apiserver_watch_cache_events_received_total{group="",resource="configmaps"} 2"#.into(),
        r#"etcd_request_duration_seconds_count{operation="create",group="",resource="configmaps"} 2"#.into(),
        r#"apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="admit"} "#.into(),
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",operation="CREATE","#.into(),
        r#"authenticated_user_requests{username="admin"} "#.into(),
        r#"authorization_attempts_total{result="allowed"} "#.into(),
        "process_resident_memory_bytes ".into(),
        r#"kubernetes_build_info{build_date="","#.into(),
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(&line)), "{line}");
    }
    // Each metric is told once, and every line is one.
    let mut heads: Vec<&str> = metrics.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let all = heads.len();
    heads.sort_unstable();
    heads.dedup();
    assert_eq!(heads.len(), all);
    assert!(
        metrics.lines().all(|line| line.starts_with('#') || line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok())
    );
}

#[tokio::test]
async fn health() {
    let mut admin = Client::new("admin", "system:masters").await;
    assert_eq!(text(&mut admin, "/livez").await, "ok");
    assert_eq!(text(&mut admin, "/readyz/etcd").await, "ok");
    assert_eq!(admin.get("/readyz/nope").await.code, 404);
    let verbose = text(&mut admin, "/readyz?verbose&exclude=etcd&exclude=x").await;
    assert!(verbose.contains("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{verbose}");
    assert!(verbose.ends_with("no matches for \"x\"\nreadyz check passed\n"), "{verbose}");
    let hooks: Vec<&str> = verbose.lines().filter(|line| line.contains("poststarthook/")).collect();
    assert!(hooks.len() > 5 && hooks.iter().all(|hook| hook.starts_with("[+]")), "{verbose}");
    assert_eq!(text(&mut admin, "/readyz/poststarthook/rbac/bootstrap-roles").await, "ok");
    let hook = "poststarthook/apiservice-registration-controller";
    admin.server.health.expect(&[hook]);
    for endpoint in ["healthz", "livez", "readyz"] {
        let early = admin.get(&format!("/{endpoint}")).await;
        assert_eq!(early.code, 500);
        assert_eq!(admin.get(&format!("/{endpoint}?exclude={hook}")).await.code, 200);
        assert_eq!(text(&mut admin, &format!("/{endpoint}/{hook}")).await, "internal server error: not finished\n");
    }
    admin.server.health.finish(&[hook]);
    admin.server.closing.cancel();
    let stopping = text(&mut admin, "/readyz?exclude=shutdown").await;
    assert_eq!(stopping, "ok");
    let slis = text(&mut admin, "/metrics/slis").await;
    assert!(slis.contains("kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0"), "{slis}");
    assert!(slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} "), "{slis}");
}

#[tokio::test]
async fn pages_for_people() {
    let features = canopus_api::gates::Gates::parse("ComponentFlagz=false").unwrap();
    let mut settings = Settings { features, ..Settings::default() };
    let mut admin = Client::with("admin", "system:masters", settings.clone()).await;
    let shown = text(&mut admin, "/statusz").await;
    let paths = "/healthz /livez /metrics /readyz /version\n";
    assert!(shown.starts_with("\napiserver statusz\nWarning: ") && shown.ends_with(paths), "{shown}");
    assert_eq!(admin.get("/flagz").await.code, 404);
    assert!(text(&mut admin, "/").await.contains("\"/readyz/poststarthook/rbac/bootstrap-roles\""));

    settings.features = Default::default();
    settings.flags.insert("secure-port".into(), "6443".into());
    let mut admin = Client::with("admin", "system:masters", settings).await;
    assert!(text(&mut admin, "/flagz").await.contains("\nsecure-port"));
    let accept = [("accept", "application/json;as=Flagz;g=config.k8s.io;v=v1alpha1")];
    let page = admin.send("GET", "/flagz", &accept, "").await;
    assert!(page.headers["warning"].to_str().unwrap().contains("This version of the flagz endpoint is deprecated"));
    let expected = r#"{"apiVersion":"config.k8s.io/v1alpha1","flags":{"secure-port":"6443"},"kind":"Flagz","metadata":{"name":"apiserver"}}"#;
    assert_eq!(String::from_utf8_lossy(&page.body).trim_end(), expected);
    assert_eq!(admin.send("GET", "/flagz", &[("accept", "application/json")], "").await.code, 406);
    let mut nobody = Client::of(admin.server.clone(), "jane", "dev").await;
    assert_eq!(nobody.get("/statusz").await.code, 403);
}
