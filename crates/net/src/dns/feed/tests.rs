use std::sync::Arc;

use canopus_api::{Value, value};

use super::translate;
use crate::dns::zone::{Endpoint, Port, Service};
use crate::proxy::Protocol;

fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

fn endpoint(ip: &str, hostname: Option<&str>, ports: &[u16]) -> Endpoint {
    let ports = ports.iter().map(|number| port("", Protocol::Tcp, *number)).collect();
    Endpoint { ip: ip.parse().unwrap(), hostname: hostname.map(String::from), ports }
}

fn service(spec: Value) -> Value {
    value!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})
}

fn slices() -> Vec<Arc<Value>> {
    let endpoints = value!([
        {"addresses": ["10.0.0.1"], "hostname": "web-0", "conditions": {"ready": true}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        {"addresses": ["10.0.0.3"]},
    ]);
    let slice = |kind: &str, port: i64, endpoints: Value| {
        Arc::new(value!({"addressType": kind, "ports": [{"port": port}], "endpoints": endpoints}))
    };
    vec![
        slice("IPv4", 80, endpoints),
        slice("IPv4", 81, value!([{"addresses": ["10.0.0.3"]}])),
        slice("IPv6", 80, value!([{"addresses": ["fd00::1"], "hostname": "web-0"}])),
        slice("FQDN", 80, value!([{"addresses": ["10.0.0.9"]}])),
    ]
}

#[test]
fn by_what_kind_of_service_it_is() {
    let ports = value!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 0}]);
    let cluster = Service::Cluster {
        ips: vec!["10.96.0.5".parse().unwrap(), "fd00:96::5".parse().unwrap()],
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
    };
    let headless = |unready: Option<Endpoint>| {
        let mut endpoints = vec![
            endpoint("10.0.0.1", Some("web-0"), &[80]),
            endpoint("10.0.0.3", None, &[80, 81]),
            endpoint("fd00::1", Some("web-0"), &[80]),
        ];
        endpoints.extend(unready);
        endpoints.sort();
        Service::Headless { endpoints }
    };
    let cases = [
        (value!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:96::5"], "ports": ports}), Some(cluster)),
        (value!({"clusterIP": "None", "clusterIPs": ["None"]}), Some(headless(None))),
        (
            value!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            Some(headless(Some(endpoint("10.0.0.2", None, &[80])))),
        ),
        (
            value!({"type": "ExternalName", "externalName": "example.org"}),
            Some(Service::External { name: "example.org".into() }),
        ),
        (value!({"type": "ClusterIP", "clusterIP": ""}), None),
        (value!([]), None),
    ];
    for (spec, expected) in cases {
        assert_eq!(translate(&service(spec.clone()), &slices()), expected, "{spec:?}");
    }
}
