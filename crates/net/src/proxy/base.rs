//! The fixed part of a table: containers, hooks and the rules that look things up.
//!
//! Their number doesn't depend on the number of Services, since loading costs the square of the number of chains.

use std::fmt::Write;

use ipnet::IpNet;

use super::marks::{EXTERNAL, EXTERNAL_LOCAL, Hex, INTERNAL, MASQUERADE, POOL_MASK};
use super::state::{Family, ProxyConfig};

/// Name of the table, in each family. Other parts of the node use tables of their own: this one is replaced whole.
pub const TABLE: &str = "canopus";

/// Most clients remembered for session affinity; beyond it new ones are balanced without memory.
const AFFINITY_SIZE: u32 = 262_144;

/// Remembers where a client was sent, after translation of the destination and before that of the source.
const REMEMBER: &str = "ct status dnat ct mark vmap @affinity-pools";

/// How nft spells a family.
pub(super) struct Words {
    /// Family of the table and name of the header.
    pub ip: &'static str,
    address: &'static str,
    loopback: &'static str,
    multicast: &'static str,
}

pub(super) fn words(family: Family) -> Words {
    match family {
        Family::V4 => Words { ip: "ip", address: "ipv4_addr", loopback: "127.0.0.0/8", multicast: "224.0.0.0/4" },
        Family::V6 => Words { ip: "ip6", address: "ipv6_addr", loopback: "::1", multicast: "ff00::/8" },
    }
}

/// The table without Services, ready for pools of up to so many endpoints. Replaces an existing one when loaded.
pub(super) fn render(config: &ProxyConfig, family: Family, endpoints: u32) -> String {
    let w = words(family);
    let Words { ip, address, loopback, .. } = w;
    let clusters = nets(&config.cluster_cidrs, family);
    let services = nets(&config.service_cidrs, family);
    let node_ports = match &config.node_port_ips {
        None => format!("fib daddr type local {ip} daddr != {loopback}"),
        Some(_) => format!("{ip} daddr @nodeport-ips"),
    };
    let frontend = format!("{ip} daddr . meta l4proto . th dport");
    let masquerade = format!("meta mark set meta mark | {}", Hex(MASQUERADE));
    let mut out = format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\ntable {ip} {TABLE} {{\n");
    let mut containers = Block(&mut out);
    containers.set("cluster-ips", &format!("type {address}"));
    containers.cidrs("cluster-cidrs", address, &clusters);
    containers.cidrs("service-cidrs", address, &services);
    if let Some(ips) = &config.node_port_ips {
        let nets: Vec<IpNet> = ips.iter().map(|ip| IpNet::from(*ip)).collect();
        containers.cidrs("nodeport-ips", address, &self::nets(&nets, family));
    }
    containers.map("service-ips", &format!("type {address} . inet_proto . inet_service : mark"));
    containers.map("service-nodeports", "type inet_proto . inet_service : mark");
    containers.map("no-endpoint-services", &format!("type {address} . inet_proto . inet_service : verdict"));
    containers.map("no-endpoint-nodeports", "type inet_proto . inet_service : verdict");
    containers.map("firewall-ips", &format!("type {address} . inet_proto . inet_service : mark"));
    containers.set("firewall-sources", &format!("typeof ct mark . {ip} saddr; flags interval"));
    containers.set("hairpin-connections", &format!("type {address} . {address} . inet_proto . inet_service"));
    containers.map("pools", "type mark : verdict");
    containers.map("endpoints", &format!("typeof ct mark . numgen random mod 65536 : {ip} daddr . th dport"));
    if remembers(family) {
        containers.map("affinity-pools", "type mark : verdict");
        containers.map(
            "affinity",
            &format!("type mark . {address} : {address} . inet_service; size {AFFINITY_SIZE}; flags dynamic,timeout"),
        );
    }

    let mut chains = Block(&mut out);
    chains.chain("reject-chain", "", &["reject".into()]);
    for endpoints in 1..=endpoints {
        pick_chains(&mut chains, family, endpoints);
    }
    chains.chain("services", "", &service_rules(config, &w, &frontend, &node_ports, &masquerade, !clusters.is_empty()));
    chains.chain("service-endpoints-check", "", &[format!("{frontend} vmap @no-endpoint-services")]);
    let mut unallocated = vec![format!("{ip} daddr @cluster-ips reject")];
    if !services.is_empty() {
        unallocated.push(format!("{ip} daddr @service-cidrs drop"));
    }
    chains.chain("cluster-ips-check", "", &unallocated);
    chains.chain(
        "firewall-check",
        "",
        &[
            format!("ct mark set {frontend} map @firewall-ips"),
            format!("ct mark != 0 ct mark . {ip} saddr != @firewall-sources drop"),
            "ct mark != 0 ct mark set 0".into(),
        ],
    );
    chains.hook(
        "filter-prerouting-pre-dnat",
        "filter",
        "prerouting",
        "-110",
        &["ct state new ct mark 0 jump firewall-check"],
    );
    chains.hook("filter-output-pre-dnat", "filter", "output", "-110", &["ct state new ct mark 0 jump firewall-check"]);
    chains.hook(
        "filter-input",
        "filter",
        "input",
        "filter",
        &[
            &format!("ct state new {node_ports} meta l4proto . th dport vmap @no-endpoint-nodeports"),
            "ct state new jump service-endpoints-check",
        ],
    );
    for hook in ["forward", "output"] {
        chains.hook(
            &format!("filter-{hook}"),
            "filter",
            hook,
            "filter",
            &["ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"],
        );
    }
    chains.hook("nat-prerouting", "nat", "prerouting", "-100", &["jump services"]);
    chains.hook("nat-output", "nat", "output", "-100", &["jump services"]);
    if remembers(family) {
        chains.hook("nat-input", "nat", "input", "100", &[REMEMBER]);
    }
    let outbound = config.masquerade_outbound && !clusters.is_empty();
    let postrouting = postrouting_rules(&w, remembers(family), outbound);
    let postrouting: Vec<&str> = postrouting.iter().map(String::as_str).collect();
    chains.hook("nat-postrouting", "nat", "postrouting", "100", &postrouting);
    out.push_str("}\n");
    out
}

/// Finds the pool of a packet that starts a connection to a Service, decides on masquerading, and balances.
fn service_rules(
    config: &ProxyConfig,
    w: &Words,
    frontend: &str,
    node_ports: &str,
    masquerade: &str,
    clusters: bool,
) -> Vec<String> {
    let ip = w.ip;
    let came_by = |bit: u32| format!("ct mark & {} != 0", Hex(bit));
    let all_endpoints = format!("ct mark set ct mark & {}", Hex(POOL_MASK & !1));
    let mut rules = vec![
        format!("ct mark set {frontend} map @service-ips"),
        format!("ct mark 0 {node_ports} ct mark set meta l4proto . th dport map @service-nodeports"),
        "ct mark 0 return".into(),
    ];
    if config.masquerade_all {
        rules.push(format!("{} {masquerade}", came_by(INTERNAL)));
    } else if clusters {
        rules.push(format!("{} {ip} saddr != @cluster-cidrs {masquerade}", came_by(INTERNAL)));
    }
    rules.push(format!("{} {masquerade}", came_by(EXTERNAL)));
    // From a pod or this node to an external address, as if it went out and came back in: no Local policy.
    let local = came_by(EXTERNAL_LOCAL);
    rules.push(format!("{local} fib saddr type local {masquerade}"));
    rules.push(format!("{local} fib saddr type local {all_endpoints}"));
    if clusters {
        rules.push(format!("{local} {ip} saddr @cluster-cidrs {all_endpoints}"));
    }
    rules.push(format!("ct mark set ct mark & {}", Hex(POOL_MASK)));
    rules.push("ct mark vmap @pools".into());
    rules
}

fn postrouting_rules(w: &Words, remember: bool, outbound: bool) -> Vec<String> {
    let Words { ip, multicast, .. } = w;
    let mark = Hex(MASQUERADE);
    let mut rules = vec![
        format!("meta mark & {mark} != 0 meta mark set meta mark ^ {mark} masquerade fully-random"),
        format!(
            "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random"
        ),
    ];
    if remember {
        rules.insert(0, REMEMBER.into());
    }
    if outbound {
        rules.push(format!(
            "{ip} saddr @cluster-cidrs {ip} daddr != @cluster-cidrs {ip} daddr != @service-cidrs {ip} daddr != {multicast} masquerade fully-random"
        ));
    }
    rules
}

/// Whether clients are remembered for session affinity. For IPv6 nft 1.0.6, still widespread, miscompiles or refuses
/// the statement that would: key and value don't fit its registers. There a client's address decides by its hash, so
/// it moves when the number of endpoints changes.
pub(super) fn remembers(family: Family) -> bool {
    family == Family::V4
}

/// The rules that balance over so many endpoints: at random, or, without a memory, by the client's address.
///
/// Their chains are there from the start: nft 1.0.6 refuses to add a rule with this map to a table that has the map.
fn pick_chains(chains: &mut Block<'_>, family: Family, endpoints: u32) {
    let dnat = dnat(family);
    let random = format!("{dnat} ct mark . numgen random mod {endpoints} map @endpoints");
    chains.chain(&format!("pick-{endpoints}"), "", &[random]);
    if !remembers(family) {
        let ip = words(family).ip;
        let hashed = format!("{dnat} ct mark . jhash {ip} saddr mod {endpoints} seed 0x1 map @endpoints");
        chains.chain(&format!("sticky-{endpoints}"), "", &[hashed]);
    }
}

/// The chain that sends a client where it went before, else balances over so many endpoints.
pub(super) fn sticky_chain(family: Family, endpoints: u32) -> String {
    let (ip, dnat) = (words(family).ip, dnat(family));
    format!(
        "add chain {ip} {TABLE} sticky-{endpoints}\n\
         add rule {ip} {TABLE} sticky-{endpoints} {dnat} ct mark . {ip} saddr map @affinity\n\
         add rule {ip} {TABLE} sticky-{endpoints} goto pick-{endpoints}\n"
    )
}

fn dnat(family: Family) -> String {
    format!("meta l4proto {{ tcp, udp, sctp }} dnat {} addr . port to", words(family).ip)
}

/// The chain that remembers where a client was sent.
pub(super) fn remember_chain(family: Family, seconds: u32) -> String {
    let ip = words(family).ip;
    format!(
        "add chain {ip} {TABLE} remember-{seconds}\n\
         add rule {ip} {TABLE} remember-{seconds} \
         update @affinity {{ ct mark . {ip} saddr timeout {seconds}s : {ip} daddr . th dport }}\n"
    )
}

fn nets(all: &[IpNet], family: Family) -> Vec<IpNet> {
    let ours: Vec<IpNet> = all.iter().filter(|net| Family::of_net(net) == family).map(IpNet::trunc).collect();
    IpNet::aggregate(&ours)
}

/// Lines inside the braces of a table.
struct Block<'a>(&'a mut String);

impl Block<'_> {
    fn set(&mut self, name: &str, definition: &str) {
        let _ = writeln!(self.0, "\tset {name} {{ {definition}; }}");
    }

    fn map(&mut self, name: &str, definition: &str) {
        let _ = writeln!(self.0, "\tmap {name} {{ {definition}; }}");
    }

    fn cidrs(&mut self, name: &str, address: &str, nets: &[IpNet]) {
        let nets: Vec<String> = nets.iter().map(IpNet::to_string).collect();
        let elements = if nets.is_empty() { String::new() } else { format!("; elements = {{ {} }}", nets.join(", ")) };
        self.set(name, &format!("type {address}; flags interval{elements}"));
    }

    fn chain(&mut self, name: &str, hook: &str, rules: &[String]) {
        let _ = writeln!(self.0, "\tchain {name} {{");
        for line in std::iter::once(hook).filter(|hook| !hook.is_empty()).chain(rules.iter().map(String::as_str)) {
            let _ = writeln!(self.0, "\t\t{line}");
        }
        self.0.push_str("\t}\n");
    }

    fn hook(&mut self, name: &str, kind: &str, hook: &str, priority: &str, rules: &[&str]) {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        self.chain(name, &format!("type {kind} hook {hook} priority {priority};"), &rules);
    }
}
