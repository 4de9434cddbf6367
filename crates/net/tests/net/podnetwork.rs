use std::collections::BTreeSet;

use canopus_net::netlink::{Netlink, RouteVia};
use canopus_net::netns::NetNs;
use canopus_net::podnetwork::PeerRoute;

use crate::hosts::{Host, ask, open_network};

#[test]
fn pods_reach_each_other_and_the_host_in_both_families() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    assert_eq!(a.attached.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.2", "fd00:244::2"]);
    assert_eq!(ask(&a.netns, "10.244.1.3:8080").unwrap(), "b");
    assert_eq!(ask(&b.netns, "[fd00:244::2]:8080").unwrap(), "a");
    assert_eq!(ask(&a.netns, "10.244.1.2:8080").unwrap(), "a", "itself, over loopback");
    assert_eq!(ask(&host.netns, "10.244.1.3:8080").unwrap(), "b");
    assert!(host.network.attach(&b.netns.path(), "c").is_err(), "eth0 exists");
    assert_eq!(host.network.addresses("c"), None);
}

#[test]
fn attachments_survive_a_restart_and_stale_ones_are_reconciled() {
    let host = Host::new();
    let (a, _b) = (host.pod("a"), host.pod("b"));
    host.network.detach("b").unwrap();
    host.network.detach("b").unwrap();
    let b = host.pod("b");
    assert_eq!(b.ip().to_string(), "10.244.1.4", "a released address rests");

    let restarted = host.netns.run(|| open_network(&host.state)).unwrap();
    assert_eq!(restarted.addresses("a"), Some(a.attached.ips.clone()));
    assert_eq!(ask(&host.netns, "10.244.1.4:8080").unwrap(), "b");
    assert_eq!(restarted.reconcile(&BTreeSet::from(["a".to_string()])).unwrap(), ["b"]);
    assert_eq!(restarted.addresses("b"), None);
    let ports = host.netns.run(|| Netlink::route().unwrap().links().unwrap()).unwrap();
    assert_eq!(ports.iter().filter(|link| link.name.starts_with("cnp")).count(), 1);
    assert_eq!(ask(&host.netns, "10.244.1.2:8080").unwrap(), "a");
}

#[test]
fn routes_to_peers_are_exactly_those_wanted() {
    let host = Host::new();
    let peer = |cidr: &str, via: &str| PeerRoute { pod_cidr: cidr.parse().unwrap(), via: via.parse().unwrap() };
    let routes = || {
        let all = host.netns.run(|| Netlink::route().unwrap().own_routes().unwrap()).unwrap();
        let through = all.into_iter().filter(|route| matches!(route.via, RouteVia::Gateway(_)));
        through.map(|route| route.to.to_string()).collect::<BTreeSet<_>>()
    };
    // Any neighbour will do as a gateway here.
    host.network
        .sync_peer_routes(&[peer("10.244.2.0/24", "10.244.1.9"), peer("fd00:245::/64", "fd00:244::9")])
        .unwrap();
    assert_eq!(routes().into_iter().collect::<Vec<_>>(), ["10.244.2.0/24", "fd00:245::/64"]);
    host.network.sync_peer_routes(&[peer("10.244.2.0/24", "10.244.1.8")]).unwrap();
    assert_eq!(routes().into_iter().collect::<Vec<_>>(), ["10.244.2.0/24"]);
    host.network.cleanup().unwrap();
    assert!(routes().is_empty());
}

#[test]
fn a_namespace_that_is_none_is_refused() {
    let host = Host::new();
    assert!(host.network.attach("/proc/self/nothing".as_ref(), "a").is_err());
    assert!(host.network.attach("/proc/self/status".as_ref(), "a").is_err());
    assert!(NetNs::open("/nonexistent".as_ref()).is_err());
    assert_eq!(host.network.addresses("a"), None);
}
