//! What every cluster has from the start: system namespaces, RBAC policy, priority classes, `default/kubernetes`.

pub(crate) mod flowcontrol;
mod reconcile;

use crate::masters;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{DeleteOptions, Gvr, Object, Result, Status, Target, Value, WriteOptions, value};
use reconcile::Plan;
use std::net::IpAddr;
use std::sync::Arc;

/// What [`run`] does, by the names of upstream's post-start hooks that do the same.
pub(crate) const HOOKS: &[&str] = &[
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
];

/// Creates what is missing, brings RBAC policy up to date and lets `/readyz` pass. `address` is where the API server is reached from pods.
pub async fn run(server: &Arc<Server>, address: IpAddr, port: u16) -> Result<()> {
    let user = User::new("system:apiserver", &[MASTERS]);
    let done = |hooks: &[&str]| server.health.finish(hooks);
    crate::crd::start(server).await?;
    done(&[
        "poststarthook/start-apiextensions-informers",
        "poststarthook/start-apiextensions-controllers",
        "poststarthook/crd-informer-synced",
    ]);
    server.repair_service_ips().await?;
    done(&["poststarthook/start-service-ip-repair-controllers"]);
    server.default_service_cidr().await?;
    done(&["poststarthook/start-kubernetes-service-cidr-controller"]);
    for (gvr, object) in canopus_resources::bootstrap::objects(&server.settings.features) {
        ensure(server, &user, &gvr, object).await?;
    }
    done(&[
        "poststarthook/start-system-namespaces-controller",
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/scheduling/bootstrap-system-priority-classes",
    ]);
    let services = Gvr::new("", "v1", "services");
    ensure(server, &user, &services, kubernetes_service(server.service_ips.first().to_string(), port)).await?;
    publish(server, &masters::renew(server, address).await?, port).await?;
    done(&["poststarthook/bootstrap-controller"]);
    flowcontrol::ensure(server).await?;
    done(&["poststarthook/priority-and-fairness-config-producer"]);
    crate::flowcontrol::follow(server).await?;
    done(&["poststarthook/priority-and-fairness-config-consumer"]);
    Ok(())
}

/// How often something is tried that somebody else changes meanwhile.
const ATTEMPTS: usize = 3;

fn options() -> WriteOptions {
    WriteOptions { field_manager: "canopus".into(), ..WriteOptions::default() }
}

fn target(gvr: &Gvr, object: &Value) -> Target {
    Target::new(gvr, object["metadata"]["namespace"].str(), object["metadata"]["name"].str())
}

async fn ensure(server: &Arc<Server>, user: &User, gvr: &Gvr, object: Value) -> Result<()> {
    let target = target(gvr, &object);
    for _ in 0..ATTEMPTS {
        let done = match server.get(&target, None).await {
            Ok(existing) => reconcile(server, user, &target, &existing, &object).await,
            Err(missing) if missing.is_not_found() => {
                server.create(user, &target, object.clone(), &options()).await.map(|_| ())
            }
            Err(error) => return Err(error),
        };
        match done {
            // Somebody else was at it as well: look again.
            Err(raced) if raced.is_conflict() || raced.is_already_exists() || raced.is_not_found() => {}
            done => return done,
        }
    }
    Err(Status::internal(format!("{} {:?} keeps changing", target.gvr.resource, target.name)))
}

async fn reconcile(
    server: &Arc<Server>,
    user: &User,
    target: &Target,
    existing: &Object,
    expected: &Value,
) -> Result<()> {
    if target.gvr.group != "rbac.authorization.k8s.io" {
        return Ok(());
    }
    match reconcile::plan(&existing.value(), expected) {
        Plan::Keep => Ok(()),
        Plan::Update(updated) => server.update(user, target, updated, &options()).await.map(|_| ()),
        Plan::Recreate => {
            let exactly = DeleteOptions { uid: Some(existing.facts.uid.clone()), ..DeleteOptions::default() };
            server.delete(user, target, &exactly).await?;
            server.create(user, target, expected.clone(), &options()).await.map(|_| ())
        }
    }
}

fn kubernetes_service(ip: String, port: u16) -> Value {
    value!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip.clone(), "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    })
}

/// The Endpoints and the EndpointSlice behind `default/kubernetes`: the API servers' addresses, all of one family.
pub(crate) async fn publish(server: &Arc<Server>, addresses: &[IpAddr], port: u16) -> Result<()> {
    let user = &User::new("system:apiserver", &[MASTERS]);
    let port = value!({"name": "https", "protocol": "TCP", "port": port});
    let all = |entry: fn(String) -> Value| addresses.iter().map(|ip| entry(ip.to_string())).collect::<Value>();
    let endpoints = value!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": (all(|ip| value!({"ip": ip}))), "ports": [(port.clone())]}],
    });
    let slice = value!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" },
        "endpoints": (all(|ip| value!({"addresses": [ip], "conditions": {"ready": true}}))),
        "ports": [port],
    });
    replace(server, user, &Gvr::new("", "v1", "endpoints"), endpoints).await?;
    replace(server, user, &Gvr::new("discovery.k8s.io", "v1", "endpointslices"), slice).await
}

async fn replace(server: &Arc<Server>, user: &User, gvr: &Gvr, object: Value) -> Result<()> {
    let target = target(gvr, &object);
    match server.create(user, &target, object.clone(), &options()).await {
        Err(there) if there.is_already_exists() => server.update(user, &target, object, &options()).await.map(|_| ()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server;

    #[tokio::test]
    async fn a_start_mends_the_policy() {
        let server = server().await;
        let user = User::new("admin", &[MASTERS]);
        let t = |plural: &str| Target::new(&Gvr::new("rbac.authorization.k8s.io", "v1", plural), "", "system:node");
        let good = server.get(&t("clusterroles"), None).await.unwrap().value();
        assert!(good["rules"].items().len() > 5);
        let cut = canopus_api::Patch::Merge(value!({"rules": [], "metadata": {"labels": null}}));
        server.patch(&user, &t("clusterroles"), cut, &options()).await.unwrap();
        server.delete(&user, &t("clusterrolebindings"), &DeleteOptions::default()).await.unwrap();
        run(&server, IpAddr::from([192, 0, 2, 1]), 6443).await.unwrap();
        let mended = server.get(&t("clusterroles"), None).await.unwrap().value();
        assert_eq!(mended["metadata"]["labels"], good["metadata"]["labels"]);
        assert!(!mended["rules"].is_empty());
        let before = server.store.revision();
        server.get(&t("clusterrolebindings"), None).await.unwrap();
        run(&server, IpAddr::from([192, 0, 2, 1]), 6443).await.unwrap();
        assert_eq!(server.store.revision(), before, "nothing to do the next time");
    }
}
