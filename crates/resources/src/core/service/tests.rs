use super::*;
use crate::testing::{cells, context, create, update};

fn service(spec: Value) -> Value {
    let mut object = value!({"metadata": {"name": "s", "namespace": "d"}, "spec": (spec)});
    Service.default(&mut object);
    object
}

const NONE: [&str; 0] = [];

#[test]
fn defaults() {
    let common = |mut more: Value| {
        more.set_default("sessionAffinity", "None");
        more.set_default("internalTrafficPolicy", "Cluster");
        more
    };
    let cases = [
        (
            value!({"ports": [{"port": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]}),
            common(value!({"type": "ClusterIP", "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"},
                {"port": 81, "targetPort": "web", "protocol": "UDP"}]})),
        ),
        (
            value!({"type": "LoadBalancer"}),
            common(
                value!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Cluster"}),
            ),
        ),
        (value!({"type": "ExternalName"}), value!({"type": "ExternalName", "sessionAffinity": "None"})),
        (
            value!({"sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"]}),
            common(value!({"type": "ClusterIP", "externalIPs": ["1.2.3.4"], "externalTrafficPolicy": "Cluster",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}})),
        ),
    ];
    for (spec, expected) in cases {
        let once = service(spec);
        assert_eq!(once["spec"], expected);
        assert_eq!(service(once["spec"].clone())["spec"], expected);
    }
}

#[test]
fn new_services() {
    let cases: &[(Value, &[&str])] = &[
        (value!({"ports": [{"port": 80}]}), &[]),
        (value!({"clusterIP": "None"}), &[]),
        (value!({}), &["spec.ports: Required value"]),
        (
            value!({"ports": [{"port": 80, "nodePort": 30000}, {"name": "a", "port": 80, "protocol": "X"}]}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ],
        ),
        (
            value!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 80}]}),
            &[
                "spec.ports[1].name: Duplicate value: \"a\"",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ],
        ),
        (
            value!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            value!({"type": "ExternalName", "clusterIP": "1.2.3.4"}),
            &[
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                "spec.externalName: Required value",
            ],
        ),
        (value!({"type": "ExternalName", "externalName": "a.example.com."}), &[]),
        (
            value!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"], "ipFamilies": ["IPv6"]}),
            &[
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ],
        ),
        (
            value!({"ports": [{"port": 80}], "clusterIPs": ["10.0.0.1"]}),
            &["spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified"],
        ),
        (
            value!({"type": "LoadBalancer", "ports": [{"port": 80}], "externalTrafficPolicy": "Local",
                "loadBalancerSourceRanges": [" 10.0.0.0/8", "x"]}),
            &[
                "spec.LoadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.healthCheckNodePort: Required value",
            ],
        ),
        (
            value!({"ports": [{"port": 80}], "loadBalancerClass": "a/b", "externalTrafficPolicy": "Local", "trafficDistribution": "Far",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            &[
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
            ],
        ),
        (
            value!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}),
            &[
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(&Service, service(spec.clone())), *expected, "{spec:?}");
    }
}

fn allocated() -> Value {
    value!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "ports": [{"name": "a", "port": 80, "nodePort": 30000}]})
}

#[test]
fn updates_keep_what_was_allocated() {
    let old = service(allocated());
    let mut new =
        service(value!({"type": "NodePort", "ports": [{"name": "a", "port": 81}, {"name": "b", "port": 82}]}));
    Service.prepare_update(&mut new, &old, &context(""));
    assert_eq!(new["spec"]["clusterIPs"], value!(["10.0.0.1"]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"].int(), 30000);
    assert!(new["spec"]["ports"][1]["nodePort"].is_null());
}

#[test]
fn a_change_of_type_drops_what_no_longer_applies() {
    let old = service(allocated());
    let mut spec = old["spec"].clone();
    spec.set("type", "ClusterIP");
    let mut new = service(spec);
    Service.prepare_update(&mut new, &old, &context(""));
    assert!(new["spec"]["ports"][0]["nodePort"].is_null() && new["spec"]["externalTrafficPolicy"].is_null());

    let mut spec = old["spec"].clone();
    spec.set("type", "ExternalName");
    spec.set("externalName", "example.com");
    let mut new = service(spec);
    Service.prepare_update(&mut new, &old, &context(""));
    assert_eq!(new["spec"]["clusterIP"], Value::Null);
    assert_eq!(new["spec"]["ipFamilies"], Value::Null);
    assert_eq!(update(&Service, "", old, new), NONE);
}

#[test]
fn addresses_never_change() {
    let dual = value!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]});
    let with = |changes: &[(&str, Value)]| {
        let mut spec = dual.clone();
        changes.iter().for_each(|(key, value)| spec.set(key, value));
        service(spec)
    };
    let cases: &[(Value, &[&str])] = &[
        (with(&[]), &[]),
        (
            with(&[("clusterIP", value!("10.0.0.2")), ("clusterIPs", value!(["10.0.0.2", "fd00::1"]))]),
            &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\",\"fd00::1\"]: may not change once set"],
        ),
        (
            with(&[("clusterIPs", value!(["10.0.0.1"])), ("ipFamilies", value!(["IPv4"]))]),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily",
            ],
        ),
        (
            with(&[("ipFamilies", value!(["IPv6", "IPv4"]))]),
            &[
                "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set",
                "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set",
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                "spec.clusterIPs[1]: Invalid value: \"fd00::1\": expected an IPv4 value as indicated by `ipFamilies[1]`",
            ],
        ),
    ];
    for (new, expected) in cases {
        assert_eq!(update(&Service, "", with(&[]), new.clone()), *expected, "{new:?}");
    }
}

#[test]
fn load_balancer_status() {
    let balanced = service(value!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    let cases: &[(Value, &[&str])] = &[
        (value!([{"ip": "1.2.3.4"}, {"hostname": "a.example.com"}]), &[]),
        (
            value!([{"hostname": "1.2.3.4", "ipMode": "VIP"}]),
            &[
                "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ],
        ),
    ];
    for (ingress, expected) in cases {
        let mut new = balanced.clone();
        new.set_path(&["status", "loadBalancer", "ingress"], ingress);
        assert_eq!(update(&Service, "status", balanced.clone(), new), *expected);
    }
    let mut new = service(value!({"ports": [{"port": 80}]}));
    new.set_path(&["status", "loadBalancer", "ingress"], value!([{"hostname": "a"}]));
    let why = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'";
    assert_eq!(update(&Service, "status", service(value!({})), new), [why]);
}

#[test]
fn rows() {
    let ports = value!([{"port": 80, "nodePort": 30000}, {"port": 53, "protocol": "UDP"}]);
    let mut balanced = service(value!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ports": (ports), "selector": {"a": "b"}}));
    let row = ["s", "LoadBalancer", "10.0.0.1", "<pending>", "80:30000/TCP,53/UDP", "<unknown>", "a=b"];
    assert_eq!(cells(&Service, &balanced), row);
    balanced.set_path(&["status", "loadBalancer", "ingress"], value!([{"ip": "2.2.2.2"}, {"ip": "1.1.1.1"}]));
    assert_eq!(cells(&Service, &balanced)[3], "1.1.1.1,2.2.2.2");
    let external = service(value!({"type": "ExternalName", "externalName": "x.y"}));
    assert_eq!(cells(&Service, &external)[1..5], ["ExternalName", "<none>", "x.y", "<none>"]);
}

#[test]
fn warnings_of_headless_services() {
    let object = service(value!({"clusterIP": "None", "externalIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP"}));
    assert_eq!(
        Service.warnings(&object, None),
        ["spec.externalIPs is ignored for headless services", "spec.SessionAffinity is ignored for headless services"]
    );
}
