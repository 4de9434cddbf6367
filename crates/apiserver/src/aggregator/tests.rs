//! An extension API server that really listens, behind a server with all its gatekeepers.

use super::*;
use crate::pki::Pki;
use crate::server::Server;
use crate::surroundings::{Surroundings, System};
use crate::testing::{listen_to, server};
use crate::user::MASTERS;
use crate::{LocalApi, User};
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Api, DeleteOptions, Gvr, Status, Target, json, value};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn services() -> Gvr {
    Gvr::new("apiregistration.k8s.io", "v1", "apiservices")
}

async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it happens in time")
}

/// `ext.default.svc`: serves flunders, and says who asked.
async fn extension(front_proxy: &str) -> (u16, String) {
    let (port, ca, _) = listen_to(Some(front_proxy), |asked, _| {
        let header = |name: &str| asked.headers.get(name).map(|v| v.to_str().unwrap_or("").to_string());
        let answer = match asked.uri.path() {
            "/apis/wardle.example.com/v1" => value!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}),
            path => value!({"path": path, "user": header("x-remote-user"), "group": header("x-remote-group"),
                "authorization": header("authorization")}),
        };
        (200, json::to_string(&answer))
    })
    .await;
    (port, ca)
}

struct Cluster {
    server: Arc<Server>,
    api: Arc<dyn Api>,
    front_proxy: String,
    _stop: tokio_util::sync::DropGuard,
}

async fn cluster() -> Cluster {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let front_proxy = Pki::open_front_proxy(dir.path(), System.now()).unwrap();
    server.aggregator.identify(front_proxy.front_proxy_client().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(run(server.clone(), stop.clone()));
    let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
    Cluster { server, api, front_proxy: front_proxy.ca_pem().to_string(), _stop: stop.drop_guard() }
}

impl Cluster {
    async fn condition(&self, name: &str, reason: &str) -> Value {
        eventually(async || {
            let service = self.api.get(&Target::new(&services(), "", name)).await.ok()?.value();
            let condition = service["status"]["conditions"][0].clone();
            (condition["reason"].str() == reason).then_some(condition)
        })
        .await
    }

    async fn register(&self, port: u16, ca: &str) {
        let spec = value!({
            "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "default", "name": "ext", "port": port}, "caBundle": STANDARD.encode(ca),
        });
        let service = value!({"metadata": {"name": "v1.wardle.example.com"}, "spec": spec});
        self.api.create(&Target::new(&services(), "", ""), service, &Default::default()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_built_in_has_its_apiservice() {
    let c = cluster().await;
    let apps = c.condition("v1.apps", "Local").await;
    assert_eq!((apps["type"].str(), apps["status"].str()), ("Available", "True"));
    let core = c.api.get(&Target::new(&services(), "", "v1.")).await.unwrap().value();
    assert_eq!(core["spec"]["groupPriorityMinimum"].int(), 18000);
    assert_eq!(core["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"].str(), "onstart");
}

#[tokio::test]
async fn an_extension_server_comes_and_goes() {
    let c = cluster().await;
    let (port, ca) = extension(&c.front_proxy).await;
    c.register(port, &ca).await;
    let missing = c.condition("v1.wardle.example.com", "ServiceNotFound").await;
    assert_eq!(
        (missing["status"].str(), missing["message"].str()),
        ("False", r#"service/ext in "default" is not present"#)
    );
    assert!(!c.server.aggregator.remote("/apis/wardle.example.com/v1/flunders").unwrap().available);

    let service = value!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let target = Target::new(&Gvr::new("", "v1", "services"), "default", "");
    c.api.create(&target, service, &Default::default()).await.unwrap();
    assert_eq!(c.condition("v1.wardle.example.com", "Passed").await["message"].str(), "all checks passed");
    let flunders = eventually(async || {
        let table = c.server.catalog.table();
        let version = table.members.delegated.get(&("wardle.example.com".to_string(), "v1".to_string()))?.clone();
        (!version.discovery["resources"].is_empty()).then(|| version.discovery.clone())
    });
    let flunders = flunders.await;
    assert_eq!((flunders["freshness"].str(), flunders["resources"][0]["resource"].str()), ("Current", "flunders"));

    let gone = Target::new(&services(), "", "v1.wardle.example.com");
    c.api.delete(&gone, &DeleteOptions::default()).await.unwrap();
    eventually(async || c.server.aggregator.remote("/apis/wardle.example.com/v1/flunders").is_none().then_some(()))
        .await;
    eventually(async || c.server.catalog.table().members.delegated.is_empty().then_some(())).await;
    let refused: Status = c.api.get(&gone).await.unwrap_err();
    assert!(refused.is_not_found());
}

#[tokio::test]
async fn routes() {
    let c = cluster().await;
    assert!(c.server.aggregator.remote("/apis/apps/v1/deployments").is_none());
    c.register(1, "").await;
    eventually(async || c.server.aggregator.remote("/apis/wardle.example.com/v1").map(drop)).await;
    for (path, there) in [
        ("/apis/wardle.example.com/v1/namespaces/a/flunders/b/status", true),
        ("//apis//wardle.example.com/v1", true),
        ("/apis/wardle.example.com", false),
        ("/apis/wardle.example.com/v2/flunders", false),
        ("/apis/apps/v1", false),
        ("/api/v1/pods", false),
        ("/apis", false),
        ("/", false),
    ] {
        assert_eq!(c.server.aggregator.remote(path).is_some(), there, "{path}");
    }
}
