//! `canopus up`: control plane and node in one process.

use super::auth::{AuditArgs, AuthArgs, AuthzArgs};
use super::{CGROUP_ROOT, DataDir};
use anyhow::Result;
use canopus_apiserver::port_range::PortRange;
use canopus_node::eviction::{self, Thresholds};
use clap::{ArgAction, Args};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Run a cluster: control plane and node in one process
///
/// Containers keep running when it ends, however it ends; start it again and it carries on with them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  canopus up
  canopus up --data-dir /srv/canopus --secure-port 7443
  KUBECONFIG=/var/lib/canopus/kubeconfig kubectl get nodes")]
pub struct UpArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// What to log: a level (error, warn, info, debug, trace) or a filter like `info,canopus_node=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "CANOPUS_LOG")]
    pub log: String,
    /// Address the API server listens on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "API server")]
    pub bind_address: IpAddr,
    /// Port the API server listens on
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = "API server")]
    pub secure_port: u16,
    /// Further host names and addresses for the API server's certificate
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "API server")]
    pub tls_san: Vec<String>,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub authz: AuthzArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    /// Feature gates, as Kubernetes names them
    #[arg(long, value_name = "NAME=true|false,…", value_delimiter = ',', help_heading = "API server")]
    pub feature_gates: Vec<String>,
    /// API versions and resources to serve or not: group/version[/resource], api/all, api/ga, api/beta, api/alpha
    #[arg(long, value_name = "KEY=true|false,…", value_delimiter = ',', help_heading = "API server")]
    pub runtime_config: Vec<String>,
    /// File with the configuration of admission (AdmissionConfiguration): PodSecurity's defaults and exemptions
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Seconds that a request may take which is not long-running
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..), help_heading = "API server")]
    pub request_timeout: u64,
    /// Seconds that a watch lasts at least when it does not say how long
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, help_heading = "API server")]
    pub min_request_timeout: u64,
    /// Queue and refuse requests by FlowSchemas and PriorityLevelConfigurations
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "API server")]
    pub enable_priority_and_fairness: bool,
    /// Requests that change nothing, handled at once
    #[arg(long, value_name = "N", default_value_t = 400, help_heading = "API server")]
    pub max_requests_inflight: usize,
    /// Requests that change something, handled at once
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "API server")]
    pub max_mutating_requests_inflight: usize,
    /// Name of this host's Node [default: the host name, in lower case]
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub node_name: Option<String>,
    /// Address of this host's Node [default: that of the interface with the default route]
    #[arg(long, value_name = "IP", help_heading = "Node")]
    pub node_ip: Option<IpAddr>,
    /// Port the node's agent serves logs and exec on
    #[arg(long, value_name = "PORT", default_value_t = 10250, help_heading = "Node")]
    pub agent_port: u16,
    /// What must stay free on this host; with less the node is under pressure and takes no pods
    #[arg(long, value_name = "THRESHOLDS", default_value = eviction::DEFAULT, help_heading = "Node")]
    pub eviction_hard: Thresholds,
    /// Name of the control group that pods' groups are in, in every hierarchy
    #[arg(long, value_name = "NAME", default_value = CGROUP_ROOT, help_heading = "Node")]
    pub cgroup_root: String,
    /// Addresses of pods
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16", help_heading = "Network")]
    pub cluster_cidr: String,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16", help_heading = "Network")]
    pub service_cluster_ip_range: String,
    /// Ports of nodes that Services of types NodePort and LoadBalancer are given
    #[arg(long, value_name = "FIRST-LAST", default_value_t = PortRange::default(), help_heading = "Network")]
    pub service_node_port_range: PortRange,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", help_heading = "Network")]
    pub cluster_domain: String,
    /// Port of the node's address that cluster DNS listens on; pods ask it by its Service, on port 53
    #[arg(long, value_name = "PORT", default_value_t = 10053, help_heading = "Network")]
    pub dns_port: u16,
    /// All of these as `/flagz` shows them.
    #[arg(skip)]
    pub flags: BTreeMap<String, String>,
}

/// An etcd to use in place of the built-in store.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub struct EtcdArgs {
    /// Keep everything in this etcd, which several API servers may share, rather than in the data directory
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// Whom to trust as etcd
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// What keys in etcd start with
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub etcd_prefix: String,
}

pub fn run(args: UpArgs) -> Result<()> {
    crate::up::run(args)
}
