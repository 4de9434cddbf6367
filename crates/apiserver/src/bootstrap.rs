//! What every cluster has from the start: system namespaces, RBAC policy, priority classes, `default/kubernetes`.

use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{Gvr, Result, Target, Value, WriteOptions, value};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Creates what is missing and lets `/readyz` pass. `address` is where the API server is reached from pods.
pub async fn run(server: &Arc<Server>, address: IpAddr, port: u16) -> Result<()> {
    let user = User::new("system:apiserver", &[MASTERS]);
    server.repair_service_ips().await?;
    for (gvr, object) in canopus_resources::bootstrap::objects() {
        ensure(server, &user, &gvr, object).await?;
    }
    let services = Gvr::new("", "v1", "services");
    ensure(server, &user, &services, kubernetes_service(server.service_ips.first().to_string(), port)).await?;
    publish(server, &user, address, port).await?;
    server.ready.store(true, Ordering::Release);
    Ok(())
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "canopus".into(), ..WriteOptions::default() }
}

fn target(gvr: &Gvr, object: &Value) -> Target {
    Target::new(gvr, object["metadata"]["namespace"].str(), object["metadata"]["name"].str())
}

async fn ensure(server: &Arc<Server>, user: &User, gvr: &Gvr, object: Value) -> Result<()> {
    let target = target(gvr, &object);
    match server.get(&target, None).await {
        Ok(_) => return Ok(()),
        Err(missing) if missing.is_not_found() => {}
        Err(error) => return Err(error),
    }
    match server.create(user, &target, object, &options()).await {
        Err(raced) if raced.is_already_exists() => Ok(()),
        other => other.map(|_| ()),
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

/// The EndpointSlice behind `default/kubernetes`: this server's address, kept true at every start.
async fn publish(server: &Arc<Server>, user: &User, address: IpAddr, port: u16) -> Result<()> {
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    let slice = value!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    });
    let target = target(&gvr, &slice);
    match server.create(user, &target, slice.clone(), &options()).await {
        Err(there) if there.is_already_exists() => server.update(user, &target, slice, &options()).await.map(|_| ()),
        other => other.map(|_| ()),
    }
}
