//! The node of `canopus up`: agent, service proxy and cluster DNS on this host.

use super::{host, identities};
use crate::cli::UpArgs;
use anyhow::{Context, Result, bail};
use canopus_apiserver::Server;
use canopus_apiserver::pki::{self, Pki};
use canopus_client::Informers;
use canopus_net::proxy::{Family, ProxyConfig};
use canopus_net::{dns, proxy};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const BRIDGE: &str = "cni0";
const MAX_PODS: u32 = 110;

/// The runtime's settings under `data_dir`: the same for the agent and for `reset`.
pub fn runtime(data_dir: &Path, cgroup_root: &str) -> Result<canopus_runtime::Config> {
    Ok(canopus_runtime::Config {
        state_dir: data_dir.join("runtime"),
        shim_path: host::install_shim(data_dir)?,
        child_path: std::env::current_exe().context("failed to find this program's own file")?,
        cgroup_root: cgroup_root.into(),
    })
}

/// Nodes get a /24 each of the cluster's range.
fn check_range(cluster: &IpNet) -> Result<()> {
    match cluster {
        IpNet::V4(net) if net.prefix_len() <= 24 => Ok(()),
        other => bail!("the cluster CIDR {other} must be IPv4 and /24 or larger"),
    }
}

/// Starts what makes this host a node; the agent, which only ends early when it fails, is for the caller to run.
pub fn start(
    server: &Arc<Server>,
    pki: &Pki,
    args: &UpArgs,
    name: &str,
    ip: IpAddr,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<impl Future<Output = Result<(), canopus_node::Error>> + use<>> {
    let data = &args.data.data_dir;
    let cluster: IpNet = args.cluster_cidr.parse().context("failed to understand --cluster-cidr")?;
    check_range(&cluster)?;
    let service: IpNet =
        args.service_cluster_ip_range.parse().context("failed to understand --service-cluster-ip-range")?;
    let dns_port = args.dns_port;
    let dns_ip = IpAddr::V4(server.service_ips.dns());
    let config = canopus_node::Config {
        node_name: name.into(),
        state_dir: data.join("node"),
        log_dir: data.join("logs"),
        node_ip: ip,
        bridge: BRIDGE.into(),
        service_cidrs: vec![service],
        cluster_dns: dns_ip,
        cluster_domain: args.cluster_domain.clone(),
        runtime: runtime(data, &args.cgroup_root)?,
        image_root: data.join("images"),
        server: canopus_node::Server {
            port: args.agent_port,
            tls: pki::server_config(&pki.kubelet_serving(name, &[ip])?, pki.ca_pem())?,
        },
        max_pods: MAX_PODS,
        eviction_hard: args.eviction_hard,
        version: format!("v1.36.2+canopus-{}", env!("CARGO_PKG_VERSION")),
    };
    let agent = canopus_node::run(config, identities::node(server, name), shutdown.clone());

    let informers = Informers::new(identities::proxy(server), shutdown.clone());
    let config = ProxyConfig {
        families: [Family::V4].into(),
        cluster_cidrs: vec![cluster],
        service_cidrs: vec![service],
        masquerade_outbound: true,
        node_ips: vec![ip],
        node_name: name.into(),
        ..ProxyConfig::default()
    };
    tasks.spawn(proxy::run(config, informers, shutdown.clone()));

    let setup = identities::setup(server);
    let informers = Informers::new(setup.clone(), shutdown.clone());
    let config = dns::Config {
        listen: vec![(ip, dns_port).into()],
        domain: args.cluster_domain.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        cluster_ips: vec![dns_ip],
    };
    tasks.spawn(dns::run(config, informers, shutdown.clone()));
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        while let Err(error) = dns::publish(&*setup, dns_ip, ip, dns_port).await {
            tracing::warn!(%error, "failed to publish cluster DNS");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = shutdown.cancelled() => return,
            }
        }
    });
    Ok(agent)
}
