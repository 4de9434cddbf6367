//! What states render to. `BLESS=1` writes the golden files anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;

fn check(name: &str, rendered: &str) {
    let path = Path::new("golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == rendered, "{} differs; rendered:\n{rendered}", path.display());
}

fn config() -> ProxyConfig {
    ProxyConfig {
        families: BTreeSet::from([Family::V4]),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        masquerade_outbound: true,
        node_ips: vec!["192.0.2.10".parse().unwrap()],
        node_name: "node-1".into(),
        ..ProxyConfig::default()
    }
}

fn key(name: &str, protocol: Protocol) -> ServicePortKey {
    ServicePortKey { namespace: "default".into(), name: name.into(), port_name: String::new(), protocol }
}

fn port(cluster_ip: &str, endpoints: &[&str]) -> ServicePort {
    ServicePort {
        cluster_ips: vec![cluster_ip.parse().unwrap()],
        port: 80,
        node_port: 0,
        external_ips: vec![],
        load_balancer_ips: vec![],
        load_balancer_source_ranges: vec![],
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        endpoints: endpoints.iter().map(|ip| Endpoint::ready(ip.parse().unwrap(), 8080)).collect(),
    }
}

fn state(services: Vec<(ServicePortKey, ServicePort)>) -> ProxyState {
    ProxyState {
        config: Arc::new(config()),
        services: services.into_iter().map(|(key, port)| (key, Arc::new(port))).collect(),
    }
}

fn every_kind() -> ProxyState {
    let web = port("10.96.0.10", &["10.244.1.2", "10.244.2.2"]);
    let sticky = ServicePort { affinity_seconds: Some(10800), ..port("10.96.0.11", &["10.244.2.2"]) };
    let mut balanced = ServicePort {
        node_port: 30080,
        external_ips: vec!["198.51.100.7".parse().unwrap()],
        load_balancer_ips: vec!["203.0.113.5".parse().unwrap()],
        load_balancer_source_ranges: vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
        external_local: true,
        ..port("10.96.0.12", &["10.244.1.3", "10.244.2.3"])
    };
    balanced.endpoints[0].local = true;
    let elsewhere = ServicePort { internal_local: true, node_port: 30053, ..port("10.96.0.13", &["10.244.2.4"]) };
    state(vec![
        (key("web", Protocol::Tcp), web),
        (key("sticky", Protocol::Tcp), sticky),
        (key("balanced", Protocol::Tcp), balanced),
        (key("elsewhere", Protocol::Udp), elsewhere),
        (key("empty", Protocol::Tcp), ServicePort { node_port: 30090, ..port("10.96.0.14", &[]) }),
    ])
}

fn with(old: &ProxyState, name: &str, change: impl FnOnce(&mut ServicePort)) -> ProxyState {
    let mut new = old.clone();
    change(Arc::make_mut(new.services.get_mut(&key(name, Protocol::Tcp)).unwrap()));
    new
}

#[test]
fn full_ruleset() {
    check("full.nft", &render_full(&every_kind()));
}

#[test]
fn full_ruleset_of_two_families_and_other_settings() {
    let mut dual = state(vec![(key("dual", Protocol::Tcp), {
        let mut dual = port("10.96.0.10", &["10.244.1.2", "fd00:244::2"]);
        dual.cluster_ips.push("fd00:96::10".parse().unwrap());
        dual
    })]);
    dual.config = Arc::new(ProxyConfig {
        families: BTreeSet::from([Family::V4, Family::V6]),
        cluster_cidrs: vec![],
        masquerade_all: true,
        node_port_ips: Some(BTreeSet::from(["192.0.2.10".parse().unwrap()])),
        ..config()
    });
    check("dual.nft", &render_full(&dual));
}

#[test]
fn deltas() {
    let old = every_kind();
    let ip = |ip: &str| ip.parse().unwrap();
    let mut removed = old.clone();
    removed.services.remove(&key("balanced", Protocol::Tcp));
    let mut contested = old.clone();
    let rival = ServicePort { external_ips: vec![ip("198.51.100.7")], ..port("10.96.0.15", &["10.244.2.9"]) };
    contested.services.insert(key("rival", Protocol::Tcp), Arc::new(rival));
    let mut won = contested.clone();
    won.services.remove(&key("balanced", Protocol::Tcp));

    let cases = [
        ("nothing", &old, old.clone()),
        ("an endpoint joins", &old, with(&old, "web", |s| s.endpoints.push(Endpoint::ready(ip("10.244.2.9"), 8080)))),
        ("the first endpoint leaves", &old, with(&old, "web", |s| drop(s.endpoints.remove(0)))),
        ("the last endpoint leaves", &old, with(&old, "sticky", |s| s.endpoints.clear())),
        ("a port changes", &old, with(&old, "web", |s| s.port = 81)),
        ("affinity begins", &old, with(&old, "web", |s| s.affinity_seconds = Some(60))),
        ("a service goes", &old, removed),
        ("a service claims another's address", &old, contested.clone()),
        ("the owner of a contested address goes", &contested, won),
    ];
    let rendered: String =
        cases.iter().map(|(what, old, new)| format!("# {what}\n{}\n", render_delta(old, new))).collect();
    check("delta.nft", &rendered);
}

#[test]
fn a_change_and_its_reverse_leave_what_was() {
    let old = every_kind();
    let mut ruleset = Ruleset::default();
    assert!(ruleset.update(&old).full);
    let new = with(&old, "sticky", |s| s.endpoints[0].ip = "10.244.2.77".parse().unwrap());
    let update = ruleset.update(&new);
    assert!(!update.full && !update.udp);
    assert_eq!(update.forget.len(), 1, "a pool with affinity lost an endpoint");
    ruleset.update(&old);
    assert_eq!(ruleset.update(&old), Update::default());
    let crowd: Vec<String> = (1..=17).map(|n| format!("10.244.3.{n}")).collect();
    let crowd = with(&old, "web", |s| *s = port("10.96.0.10", &crowd.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(ruleset.update(&crowd).full, "no chain yet for a pool of this size");
    assert!(!ruleset.update(&old).full);
    let mut other = old.clone();
    other.config = Arc::new(ProxyConfig { masquerade_all: true, ..config() });
    assert!(ruleset.update(&other).full);
}
