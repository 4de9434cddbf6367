//! The loops from the API to the wire: the cluster's DNS under its Service's address.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use canopus_api::{Gvr, value};
use canopus_client::Informers;
use canopus_net::netlink::{Message, Netlink};
use canopus_net::netns::NetNs;
use canopus_net::proxy::{Family, ProxyConfig};
use canopus_net::{dns, proxy};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::hosts::{Host, ask};

const DNS: &str = "10.96.0.10:53";
const NODE_IP: &str = "192.168.77.1";
const NODE_PORT: u16 = 10053;

fn proxy_config() -> ProxyConfig {
    ProxyConfig {
        families: BTreeSet::from([Family::V4]),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_name: "node-1".into(),
        ..ProxyConfig::default()
    }
}

/// Runs both loops in the host's namespace until told to stop.
fn serve(host: &Host, cluster: &Arc<Cluster>, stop: &CancellationToken) {
    let config = dns::Config {
        listen: vec![(NODE_IP.parse::<IpAddr>().unwrap(), NODE_PORT).into()],
        domain: "cluster.local".into(),
        resolv_conf: "/dev/null".into(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
    };
    let work = || {
        let node_ip = Message::add_address(1, format!("{NODE_IP}/32").parse().unwrap());
        Netlink::route().unwrap().execute(&[node_ip]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            dns::publish(&**cluster, "10.96.0.10".parse().unwrap(), NODE_IP.parse().unwrap(), NODE_PORT).await.unwrap();
            let informers = Informers::new(cluster.clone(), stop.clone());
            tokio::join!(
                dns::run(config, informers.clone(), stop.clone()),
                proxy::run(proxy_config(), informers.clone(), stop.clone()),
            );
        });
    };
    host.netns.run(work).unwrap();
}

/// A question for a name's IPv4 addresses.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Asks by UDP; the socket takes responses only from the address it asked.
fn ask_udp(from: &NetNs, name: &str) -> Option<Vec<u8>> {
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(DNS).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send(&question(name)).ok()?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    })
    .unwrap()
}

fn ask_tcp(from: &NetNs, name: &str) -> Vec<u8> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&DNS.parse().unwrap(), Duration::from_secs(5)).unwrap();
        let question = question(name);
        stream.write_all(&[&[0, question.len() as u8], question.as_slice()].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    })
    .unwrap()
}

/// Asks again until something is as it should be.
fn until<T>(what: &str, mut try_once: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        match try_once() {
            Some(found) => return found,
            None => assert!(Instant::now() < patience, "{what}"),
        }
    }
}

#[test]
fn services_are_served_by_name_and_address() {
    let host = Host::new();
    let (web, client) = (host.pod("web"), host.pod("client"));
    let cluster = Cluster::new();
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        let _stop = stop.clone().drop_guard();
        scope.spawn(|| serve(&host, &cluster, &stop));
        let own = "kube-dns.kube-system.svc.cluster.local";
        for from in [&client.netns, &host.netns] {
            let answer = until("DNS answers", || ask_udp(from, own));
            assert!(answer.ends_with(&[10, 96, 0, 10]), "{answer:?}");
            assert!(ask_tcp(from, own).ends_with(&[10, 96, 0, 10]));
        }

        let metadata = value!({"namespace": "shop", "name": "web"});
        cluster.put(
            &Gvr::new("", "v1", "services"),
            value!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.80", "ports": [{"port": 80}]}}),
        );
        cluster.put(
            &Gvr::new("discovery.k8s.io", "v1", "endpointslices"),
            value!({
                "metadata": {
                    "namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"},
                },
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": [{"addresses": [web.ip().to_string()]}],
            }),
        );
        until("the Service answers", || ask(&client.netns, "10.96.0.80:80").ok().filter(|who| who == "web"));
        until("the Service has a name", || {
            ask_udp(&client.netns, "web.shop.svc.cluster.local").filter(|answer| answer.ends_with(&[10, 96, 0, 80]))
        });
    });
}
