//! What the operator decides about the server; the defaults are upstream's.

use crate::admission::pod_security;
use crate::port_range::PortRange;
use crate::runtime_config::RuntimeConfig;
use canopus_api::gates::Gates;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Services' addresses come from (--service-cluster-ip-range).
    pub service_cidr: String,
    pub features: Gates,
    /// Which versions and resources are served (--runtime-config).
    pub runtime_config: RuntimeConfig,
    /// What pods may, where no namespace says so, and who is exempt from what namespaces say.
    pub pod_security: pod_security::Configuration,
    /// How long service-account tokens may be good for at most (--service-account-max-token-expiration).
    pub max_token_expiration: Option<Duration>,
    /// Tokens that pods are given are good for a year in truth (--service-account-extend-token-expiration).
    pub extend_token_expiration: bool,
    /// How long a request may take that is not long-running (--request-timeout).
    pub request_timeout: Duration,
    /// A watch without timeoutSeconds ends after one to two times this (--min-request-timeout).
    pub min_request_timeout: Duration,
    /// Requests are queued and refused by FlowSchemas and PriorityLevelConfigurations (--enable-priority-and-fairness).
    pub priority_and_fairness: bool,
    /// How many requests that change nothing are handled at once (--max-requests-inflight).
    pub max_requests_inflight: usize,
    /// How many requests that change something are handled at once (--max-mutating-requests-inflight).
    pub max_mutating_requests_inflight: usize,
    /// Where Services' node ports come from (--service-node-port-range).
    pub node_ports: PortRange,
    /// The flags of the command line and what they are set to, for `/flagz`.
    pub flags: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            service_cidr: "10.96.0.0/16".into(),
            features: Gates::default(),
            runtime_config: RuntimeConfig::default(),
            pod_security: pod_security::Configuration::default(),
            max_token_expiration: None,
            extend_token_expiration: true,
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            priority_and_fairness: true,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            node_ports: PortRange::default(),
            flags: BTreeMap::new(),
        }
    }
}
