//! The Service under which pods know the DNS server, which runs without a pod.

use std::net::IpAddr;

use canopus_api::{Api, Gvr, Patch, Status, Target, Value, WriteOptions, value};

pub(super) const NAMESPACE: &str = "kube-system";
pub(super) const NAME: &str = "kube-dns";

const MANAGER: &str = "canopus-dns";

/// Makes Service kube-system/kube-dns with this cluster IP lead to the server that listens at `node_ip` on `port`, by an
/// EndpointSlice, since no pods are selected. Does nothing to what is already so, nor when the Service has a selector:
/// then somebody runs a DNS server of their own.
pub async fn publish(api: &dyn Api, cluster_ip: IpAddr, node_ip: IpAddr, port: u16) -> Result<(), Status> {
    let service = Target::new(&Gvr::new("", "v1", "services"), NAMESPACE, NAME);
    match api.get(&service).await {
        Ok(existing) if !existing.value()["spec"]["selector"].is_empty() => {
            tracing::info!("Service kube-system/kube-dns selects pods: the cluster's DNS is left to them");
            return Ok(());
        }
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let slice = Target::new(&Gvr::new("discovery.k8s.io", "v1", "endpointslices"), NAMESPACE, NAME);
    let options = WriteOptions { field_manager: MANAGER.into(), force: true, ..WriteOptions::default() };
    api.patch(&service, Patch::Apply(service_object(cluster_ip)), &options).await?;
    api.patch(&slice, Patch::Apply(slice_object(node_ip, port)), &options).await?;
    Ok(())
}

fn service_object(cluster_ip: IpAddr) -> Value {
    value!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": NAME,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip.to_string(),
            "clusterIPs": [cluster_ip.to_string()],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    })
}

fn slice_object(node_ip: IpAddr, port: u16) -> Value {
    let port = i64::from(port);
    value!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "endpointslice.kubernetes.io/managed-by": MANAGER,
                "kubernetes.io/service-name": NAME,
            },
        },
        "addressType": if node_ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{
            "addresses": [node_ip.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
        "ports": [
            {"name": "dns", "port": port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": port, "protocol": "TCP"},
        ],
    })
}
