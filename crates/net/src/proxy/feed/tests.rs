use std::sync::Arc;

use canopus_api::{Value, value};

use super::translate;
use crate::proxy::state::{Protocol, ServicePort, ServicePortKey};

fn service(spec: Value) -> Value {
    value!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})
}

fn slice(ports: Value, endpoints: Value) -> Arc<Value> {
    Arc::new(value!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints}))
}

fn one(service: &Value, slices: &[Arc<Value>]) -> (ServicePortKey, ServicePort) {
    let ports = translate(service, slices, "node-1");
    assert_eq!(ports.len(), 1, "{ports:?}");
    ports.into_iter().next().unwrap()
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Endpoints as `address:port flags`; flags: r ready, s serving, t terminating, l local.
fn endpoints(port: &ServicePort) -> Vec<String> {
    let flags = |e: &crate::proxy::Endpoint| {
        let all = [(e.ready, 'r'), (e.serving, 's'), (e.terminating, 't'), (e.local, 'l')];
        all.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).collect::<String>()
    };
    port.endpoints.iter().map(|e| format!("{}:{} {}", e.ip, e.port, flags(e))).collect()
}

#[test]
fn every_way_in() {
    let mut service = service(value!({
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.5",
        "clusterIPs": ["10.96.0.5", "fd00:96::5"],
        "externalIPs": ["198.51.100.7", "nonsense"],
        "loadBalancerSourceRanges": [" 192.0.2.0/24 ", "nonsense"],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}],
    }));
    service.set_path(
        &["status", "loadBalancer", "ingress"],
        value!([
            {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"},
            {"ip": "203.0.113.3", "ipMode": "Proxy"}, {"hostname": "lb.example.org"},
        ]),
    );
    let (key, port) = one(&service, &[]);
    assert_eq!((key.namespace.as_str(), key.name.as_str(), key.port_name.as_str()), ("shop", "web", "http"));
    assert_eq!((port.port, port.node_port, port.affinity_seconds), (80, 30080, Some(60)));
    assert!(port.internal_local && port.external_local);
    assert_eq!(texts(&port.cluster_ips), ["10.96.0.5", "fd00:96::5"]);
    assert_eq!(texts(&port.external_ips), ["198.51.100.7"]);
    assert_eq!(texts(&port.load_balancer_ips), ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(texts(&port.load_balancer_source_ranges), ["192.0.2.0/24"]);
}

#[test]
fn services_that_are_not_proxied() {
    let ports = value!([{"port": 80}]);
    let cases = [
        value!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports.clone()}),
        value!({"clusterIP": "", "ports": ports.clone()}),
        value!({"type": "ExternalName", "clusterIP": "10.96.0.5", "ports": ports.clone()}),
        value!({"clusterIP": "10.96.0.5"}),
        value!({"clusterIP": "10.96.0.5", "ports": [{"port": 0}, {"port": 70000}, {"port": 80, "protocol": "X"}]}),
        value!(7),
    ];
    for spec in cases {
        assert_eq!(translate(&service(spec.clone()), &[], ""), [], "{spec:?}");
    }
    let mut foreign = service(value!({"clusterIP": "10.96.0.5", "ports": ports}));
    assert_eq!(translate(&foreign, &[], "").len(), 1);
    foreign.set_path(&["metadata", "labels"], value!({"service.kubernetes.io/service-proxy-name": "other"}));
    assert_eq!(translate(&foreign, &[], ""), []);
}

#[test]
fn endpoints_belong_to_the_port_of_their_name_and_protocol() {
    let service = service(value!({"clusterIP": "10.96.0.5", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]}));
    let ports = value!([
        {"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5354, "protocol": "TCP"},
        {"name": "dns", "protocol": "UDP"}, {"name": "other", "port": 1},
    ]);
    let slices = [
        slice(
            ports.clone(),
            value!([{"addresses": ["10.244.1.2", "10.244.1.9"]}, {"addresses": []}, {"addresses": ["x"]}]),
        ),
        slice(ports, value!([{"addresses": ["10.244.1.1"]}])),
        Arc::new(value!({"addressType": "FQDN", "ports": [{"name": "dns", "port": 1, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.244.1.3"]}]})),
    ];
    let translated = translate(&service, &slices, "");
    let found: Vec<_> = translated.iter().map(|(key, port)| (key.protocol, endpoints(port))).collect();
    let both = |port: u16| vec![format!("10.244.1.1:{port} rs"), format!("10.244.1.2:{port} rs")];
    assert_eq!(found, [(Protocol::Udp, both(5353)), (Protocol::Tcp, both(5354))]);
}

#[test]
fn conditions_nodes_and_hints() {
    let service = service(value!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
    let ports = value!([{"port": 80}]);
    let slices = [
        slice(
            ports.clone(),
            value!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "node-1", "conditions": {"ready": true},
                 "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]}},
                {"addresses": ["10.0.0.3"], "nodeName": "node-2", "conditions": {"ready": false, "serving": false}},
            ]),
        ),
        // The address of one that leaves has been given to another; whatever the order.
        slice(
            ports,
            value!([
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": false, "terminating": true}},
            ]),
        ),
    ];
    let (_, port) = one(&service, &slices);
    assert_eq!(endpoints(&port), ["10.0.0.1:80 rs", "10.0.0.2:80 rsl", "10.0.0.3:80 "]);
    assert!(port.endpoints[1].zone_hints.contains("a") && port.endpoints[1].node_hints.contains("n"));
    assert_eq!(port.affinity_seconds, None);
}
