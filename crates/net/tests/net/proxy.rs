use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use canopus_net::netns::NetNs;
use canopus_net::proxy::{
    Endpoint, Family, Protocol, Proxy, ProxyConfig, ProxyState, ServicePort, ServicePortKey, SyncReport,
};

use crate::hosts::{Host, Pod, ask};

const VIP: &str = "10.96.0.10:80";

/// A host with its proxy and the state it was told.
struct Node {
    host: Host,
    proxy: Proxy,
    state: ProxyState,
}

impl Node {
    fn new() -> Node {
        let host = Host::new();
        let proxy = host.netns.run(|| Proxy::open().unwrap()).unwrap();
        let config = ProxyConfig {
            families: BTreeSet::from([Family::V4, Family::V6]),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            masquerade_outbound: true,
            node_name: "node-1".into(),
            ..ProxyConfig::default()
        };
        Node { host, proxy, state: ProxyState { config: Arc::new(config), services: BTreeMap::new() } }
    }

    fn set(&mut self, protocol: Protocol, port: ServicePort) -> SyncReport {
        let key =
            ServicePortKey { namespace: "default".into(), name: "web".into(), port_name: "http".into(), protocol };
        self.state.services.insert(key, Arc::new(port));
        self.proxy.sync(&self.state).unwrap()
    }
}

fn service(endpoints: &[(IpAddr, u16)]) -> ServicePort {
    ServicePort {
        cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00:96::10".parse().unwrap()],
        port: 80,
        node_port: 30080,
        external_ips: vec![],
        load_balancer_ips: vec![],
        load_balancer_source_ranges: vec![],
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        endpoints: endpoints.iter().map(|(ip, port)| Endpoint { local: true, ..Endpoint::ready(*ip, *port) }).collect(),
    }
}

fn web(pods: &[&Pod]) -> ServicePort {
    let endpoints: Vec<(IpAddr, u16)> = pods.iter().flat_map(|pod| &pod.attached.ips).map(|ip| (*ip, 8080)).collect();
    service(&endpoints)
}

/// Who answers in so many connections.
fn answers(from: &NetNs, to: &str, times: usize) -> BTreeSet<String> {
    (0..times).map(|_| ask(from, to).unwrap()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_cluster_ip_reaches_ready_endpoints_from_everywhere() {
    reach_from_everywhere(true);
}

#[test]
fn it_does_without_netfilter_hooks_on_bridges() {
    reach_from_everywhere(false);
}

fn reach_from_everywhere(bridge_hooks: bool) {
    let mut node = Node::new();
    let set_hooks = || {
        for family in ["iptables", "ip6tables"] {
            let value = if bridge_hooks { "1" } else { "0" };
            std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), value).unwrap();
        }
    };
    node.host.netns.run(set_hooks).unwrap();
    let (a, b, client) = (node.host.pod("a"), node.host.pod("b"), node.host.pod("client"));
    assert!(node.set(Protocol::Tcp, web(&[&a, &b])).full);
    // The chance that one of two endpoints is never picked in 40 tries is 2^-39.
    for from in [&client.netns, &node.host.netns, &a.netns] {
        assert_eq!(answers(from, VIP, 40), names(&["a", "b"]));
    }
    assert_eq!(answers(&client.netns, "[fd00:96::10]:80", 40), names(&["a", "b"]));
    assert_eq!(answers(&client.netns, "10.244.1.1:30080", 40), names(&["a", "b"]), "node port");
    assert_eq!(answers(&node.host.netns, "10.244.1.1:30080", 40), names(&["a", "b"]), "node port from the node");

    let report = node.set(Protocol::Tcp, web(&[&b]));
    assert!(!report.full && report.bytes > 0);
    assert_eq!(answers(&client.netns, VIP, 20), names(&["b"]));
    assert_eq!(answers(&b.netns, VIP, 1), names(&["b"]), "a pod reaches itself");
    assert_eq!(answers(&b.netns, "[fd00:96::10]:80", 1), names(&["b"]), "a pod reaches itself");

    assert!(!node.set(Protocol::Tcp, web(&[])).full);
    for from in [&client.netns, &node.host.netns] {
        for to in [VIP, "10.244.1.1:30080", "10.96.0.10:81"] {
            assert_eq!(ask(from, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
        }
    }
    node.set(Protocol::Tcp, web(&[&a]));
    assert_eq!(answers(&client.netns, VIP, 1), names(&["a"]));

    node.proxy.cleanup().unwrap();
    node.proxy.cleanup().unwrap();
    assert!(ask(&node.host.netns, VIP).is_err());
    assert!(node.proxy.sync(&node.state).unwrap().full);
    assert_eq!(answers(&client.netns, VIP, 1), names(&["a"]));
}

#[test]
fn rules_changed_behind_our_back_are_restored() {
    let mut node = Node::new();
    let (a, b) = (node.host.pod("a"), node.host.pod("b"));
    node.set(Protocol::Tcp, web(&[&a]));
    let mut stranger = node.host.netns.run(|| Proxy::open().unwrap()).unwrap();
    stranger.cleanup().unwrap();
    assert!(node.set(Protocol::Tcp, web(&[&b])).full);
    assert_eq!(answers(&a.netns, VIP, 3), names(&["b"]));

    let nothing_changed = BTreeSet::new();
    node.proxy.check().unwrap();
    assert_eq!(node.proxy.sync_changed(&node.state, &nothing_changed).unwrap(), SyncReport::default());
    stranger.cleanup().unwrap();
    node.proxy.check().unwrap();
    assert!(node.proxy.sync_changed(&node.state, &nothing_changed).unwrap().full);
    assert_eq!(answers(&a.netns, VIP, 3), names(&["b"]));
}

#[test]
fn affinity_holds_until_the_endpoint_leaves() {
    let mut node = Node::new();
    let (a, b, client) = (node.host.pod("a"), node.host.pod("b"), node.host.pod("client"));
    let sticky = |pods: &[&Pod]| ServicePort { affinity_seconds: Some(10800), ..web(pods) };
    node.set(Protocol::Tcp, sticky(&[&a, &b]));
    let chosen = answers(&client.netns, VIP, 30);
    assert_eq!(chosen.len(), 1, "{chosen:?}");
    assert_eq!(answers(&client.netns, "10.244.1.1:30080", 10), chosen, "whatever way it comes");
    let c = node.host.pod("c");
    node.set(Protocol::Tcp, sticky(&[&a, &b, &c]));
    assert_eq!(answers(&client.netns, VIP, 20), chosen, "a joining endpoint moves nobody");

    let (stays, expected) = if chosen.contains("a") { (&b, "b") } else { (&a, "a") };
    let report = node.set(Protocol::Tcp, sticky(&[stays]));
    assert!(!report.full);
    assert_eq!(report.forgotten, 1);
    assert_eq!(answers(&client.netns, VIP, 10), names(&[expected]));
}

#[test]
fn local_policies_and_source_ranges() {
    let mut node = Node::new();
    let (a, b, client) = (node.host.pod("a"), node.host.pod("b"), node.host.pod("client"));
    let mut port = web(&[&a, &b]);
    port.endpoints.iter_mut().filter(|e| b.attached.ips.contains(&e.ip)).for_each(|e| e.local = false);
    port.internal_local = true;
    port.external_local = true;
    port.external_ips = vec!["198.51.100.7".parse().unwrap()];
    port.load_balancer_ips = vec!["10.96.255.1".parse().unwrap()];
    port.load_balancer_source_ranges = vec!["192.0.2.0/24".parse().unwrap(), client.ip().into()];
    node.set(Protocol::Tcp, port.clone());
    assert_eq!(answers(&client.netns, VIP, 20), names(&["a"]));
    assert_eq!(answers(&client.netns, "198.51.100.7:80", 40), names(&["a", "b"]), "inside traffic is not subject");
    assert_eq!(answers(&client.netns, "10.96.255.1:80", 1).len(), 1);
    assert!(ask(&a.netns, "10.96.255.1:80").is_err(), "not an admitted source");

    // From outside the pod network only the local endpoint answers.
    let outside = outsider(&node.host);
    assert_eq!(answers(&outside, "172.30.0.1:30080", 20), names(&["a"]));
    port.external_local = false;
    node.set(Protocol::Tcp, port);
    assert_eq!(answers(&outside, "172.30.0.1:30080", 40), names(&["a", "b"]));
}

#[test]
fn pods_are_masqueraded_when_they_leave_the_cluster() {
    let mut node = Node::new();
    let pod = node.host.pod("a");
    node.set(Protocol::Tcp, web(&[&pod]));
    let outside = outsider(&node.host);
    let server = outside.run(|| UdpSocket::bind("172.30.0.2:9000").unwrap()).unwrap();
    let socket = pod.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.send_to(b"x", "172.30.0.2:9000").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip().to_string(), "172.30.0.1");
}

#[test]
fn udp_flows_follow_the_endpoints() {
    let mut node = Node::new();
    let (a, b, client) = (node.host.pod("a"), node.host.pod("b"), node.host.pod("client"));
    let server = |pod: &Pod| {
        let socket = pod.netns.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let (server_a, server_b) = (server(&a), server(&b));
    let to: SocketAddr = VIP.parse().unwrap();
    let socket = client.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    node.set(Protocol::Udp, service(&[(a.ip(), 53)]));
    socket.send_to(b"1", to).unwrap();
    server_a.recv_from(&mut [0; 8]).unwrap();
    let report = node.set(Protocol::Udp, service(&[(b.ip(), 53)]));
    assert_eq!(report.forgotten, 1);
    socket.send_to(b"2", to).unwrap();
    server_b.recv_from(&mut [0; 8]).unwrap();
}

/// A namespace at 172.30.0.2, joined to the host's 172.30.0.1, with its default route there.
fn outsider(host: &Host) -> NetNs {
    use canopus_net::netlink::{Message, Netlink, Route, RouteVia, VethPair};
    let outside = NetNs::create().unwrap();
    let index = |name: &str| Netlink::route().unwrap().link(name).unwrap().unwrap().index;
    host.netns
        .run(|| {
            let mut netlink = Netlink::route().unwrap();
            netlink.execute(&[Message::add_bridge("lan0", [2, 0, 0, 0, 0, 1], 1500)]).unwrap();
            let lan = index("lan0");
            let pair = VethPair {
                host_name: "lan1",
                peer_name: "eth0",
                peer_mac: [2, 0, 0, 0, 0, 2],
                peer_netns: &outside,
                mtu: 1500,
                bridge: lan,
            };
            let address = Message::add_address(lan, "172.30.0.1/24".parse().unwrap());
            netlink.execute(&[Message::add_veth(&pair), address]).unwrap();
        })
        .unwrap();
    outside
        .run(|| {
            let mut netlink = Netlink::route().unwrap();
            let eth = index("eth0");
            let via = RouteVia::GatewayOn("172.30.0.1".parse().unwrap(), eth);
            let default = Route { to: "0.0.0.0/0".parse().unwrap(), via };
            netlink
                .execute(&[
                    Message::set_up(eth),
                    Message::add_address(eth, "172.30.0.2/24".parse().unwrap()),
                    Message::set_route(&default),
                ])
                .unwrap();
        })
        .unwrap();
    outside
}
