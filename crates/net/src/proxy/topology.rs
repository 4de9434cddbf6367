//! Which endpoints a node may use, by readiness, traffic policy and topology hints.

use std::net::IpAddr;

use super::state::{Endpoint, Family, ProxyConfig, ServicePort};

/// The endpoints of one family for the two traffic policies, sorted, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Endpoints under the Cluster policy.
    pub cluster: Vec<(IpAddr, u16)>,
    /// Endpoints under the Local policy.
    pub local: Vec<(IpAddr, u16)>,
    /// Those of either that are on this node.
    pub on_this_node: Vec<(IpAddr, u16)>,
    /// Whether anybody in the cluster could serve.
    pub any: bool,
}

enum Topology {
    Default,
    SameNode,
    SameZone,
}

/// Sorts out a Service port's endpoints as upstream does: ready ones, else those that still serve while terminating
/// (for each policy by itself); hints count only when every ready endpoint has them and one is for us.
pub fn usable(service: &ServicePort, config: &ProxyConfig, family: Family) -> Usable {
    let all: Vec<&Endpoint> = service.endpoints.iter().filter(|e| Family::of(&e.ip) == family).collect();
    let leaving = |e: &Endpoint| !e.ready && e.serving && e.terminating;
    let mut cluster = Vec::new();
    let mut local = Vec::new();
    let mut any = false;
    if service.uses_cluster_endpoints() {
        let topology = topology(&all, config);
        cluster = select(&all, |e| e.ready && available(e, &topology, config));
        if cluster.is_empty() {
            cluster = select(&all, |e| e.serving && e.terminating);
        }
        any = !cluster.is_empty();
    }
    if service.uses_local_endpoints() {
        any |= all.iter().any(|e| e.ready || leaving(e));
        local = select(&all, |e| e.local && e.ready);
        if local.is_empty() {
            local = select(&all, |e| e.local && leaving(e));
        }
    }
    let mut on_this_node: Vec<&Endpoint> = cluster.iter().chain(&local).copied().filter(|e| e.local).collect();
    on_this_node.sort();
    Usable { cluster: addresses(cluster), local: addresses(local), on_this_node: addresses(on_this_node), any }
}

fn select<'a>(all: &[&'a Endpoint], keep: impl Fn(&Endpoint) -> bool) -> Vec<&'a Endpoint> {
    all.iter().copied().filter(|e| keep(e)).collect()
}

fn addresses(endpoints: Vec<&Endpoint>) -> Vec<(IpAddr, u16)> {
    let mut addresses: Vec<_> = endpoints.into_iter().map(|e| (e.ip, e.port)).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn topology(all: &[&Endpoint], config: &ProxyConfig) -> Topology {
    let ready: Vec<&Endpoint> = all.iter().copied().filter(|e| e.ready).collect();
    if ready.is_empty() {
        return Topology::Default;
    }
    if ready.iter().all(|e| !e.node_hints.is_empty()) && ready.iter().any(|e| e.node_hints.contains(&config.node_name))
    {
        return Topology::SameNode;
    }
    if ready.iter().all(|e| !e.zone_hints.is_empty()) && ready.iter().any(|e| e.zone_hints.contains(&config.zone)) {
        return Topology::SameZone;
    }
    Topology::Default
}

fn available(endpoint: &Endpoint, topology: &Topology, config: &ProxyConfig) -> bool {
    match topology {
        Topology::Default => true,
        Topology::SameNode => endpoint.node_hints.contains(&config.node_name),
        Topology::SameZone => endpoint.zone_hints.contains(&config.zone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint 10.0.0.`n`; letters: r ready, s serving, t terminating, l local; then `@zone` and `#node` hints.
    fn endpoint(n: u8, flags: &str) -> Endpoint {
        let (flags, hints) = flags.split_once(' ').unwrap_or((flags, ""));
        let hint = |sign: char| hints.split(' ').filter_map(|h| h.strip_prefix(sign)).map(String::from).collect();
        Endpoint {
            ready: flags.contains('r'),
            serving: flags.contains('s') || flags.contains('r'),
            terminating: flags.contains('t'),
            local: flags.contains('l'),
            zone_hints: hint('@'),
            node_hints: hint('#'),
            ..Endpoint::ready(IpAddr::from([10, 0, 0, n]), 80)
        }
    }

    /// Endpoints 1, 2, …; policies (i internal Local, e external Local, n node port); cluster, local, any.
    type Case<'a> = (&'a [&'a str], &'a str, &'a [u8], &'a [u8], bool);

    #[test]
    fn table() {
        let cases: &[Case<'_>] = &[
            (&[], "", &[], &[], false),
            (&["r", "", "rl"], "", &[1, 3], &[], true),
            (&["r", "rl"], "i", &[], &[2], true),
            (&["r", "rl"], "e", &[1, 2], &[], true),
            (&["r", "rl"], "en", &[1, 2], &[2], true),
            (&["r"], "i", &[], &[], true),
            (&["st", "t"], "", &[1], &[], true),
            (&["st", "r"], "", &[2], &[], true),
            (&["r", "stl"], "in", &[1], &[2], true),
            (&["r @a", "r @b"], "", &[1], &[], true),
            (&["r @a", "r"], "", &[1, 2], &[], true),
            (&["r @b", "r @c"], "", &[1, 2], &[], true),
            (&["r @a #x", "r @a #me"], "", &[2], &[], true),
            (&["r @a #x", "r @b #y"], "", &[1], &[], true),
            (&["t"], "", &[], &[], false),
        ];
        let config = ProxyConfig { node_name: "me".into(), zone: "a".into(), ..ProxyConfig::default() };
        for (endpoints, policies, cluster, local, any) in cases {
            let service = ServicePort {
                cluster_ips: vec![],
                port: 80,
                node_port: if policies.contains('n') { 30080 } else { 0 },
                external_ips: vec![],
                load_balancer_ips: vec![],
                load_balancer_source_ranges: vec![],
                affinity_seconds: None,
                internal_local: policies.contains('i'),
                external_local: policies.contains('e'),
                endpoints: (1..).zip(*endpoints).map(|(n, flags)| endpoint(n, flags)).collect(),
            };
            let found = usable(&service, &config, Family::V4);
            let numbers = |list: &[u8]| list.iter().map(|n| (IpAddr::from([10, 0, 0, *n]), 80)).collect::<Vec<_>>();
            assert_eq!(
                (found.cluster, found.local, found.any),
                (numbers(cluster), numbers(local), *any),
                "{endpoints:?} {policies}"
            );
            assert_eq!(usable(&service, &config, Family::V6), Usable::default());
        }
    }
}
