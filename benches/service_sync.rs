//! `service-sync`: how long the service proxy takes from its views to loaded rules: 44,000 Services with 3 endpoints each,
//! then one change. In a network namespace of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use canopus_api::{Object, Value, value};
use canopus_benches::{Report, Samples};
use canopus_net::netns::NetNs;
use canopus_net::proxy::{Family, Proxy, ProxyConfig, ProxyState, translate};

const SERVICES: i64 = 44_000;
const ENDPOINTS: i64 = 3;
const CHANGES: i64 = 21;

fn service(i: i64) -> Value {
    value!({
        "metadata": {"namespace": "default", "name": format!("service-{i}")},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": format!("10.{}.{}.{}", 96 + i / 65536, i / 256 % 256, i % 256),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
        },
    })
}

fn slice(i: i64, endpoints: i64) -> Value {
    let endpoint = |n: i64| {
        let at = i * 7 + n;
        let ip = format!("10.{}.{}.{}", 128 + at / 65536 % 64, at / 256 % 256, at % 256);
        value!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    value!({
        "metadata": {
            "namespace": "default",
            "name": format!("service-{i}-abcde"),
            "labels": {"kubernetes.io/service-name": format!("service-{i}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Value>(),
    })
}

fn take(state: &mut ProxyState, service: &Object, slice: &Object) -> BTreeSet<canopus_net::proxy::ServicePortKey> {
    let ports = translate(&service.value(), &[slice.value()], "node-1");
    let keys = ports.iter().map(|(key, _)| key.clone()).collect();
    state.services.extend(ports.into_iter().map(|(key, port)| (key, Arc::new(port))));
    keys
}

fn main() {
    let report = Report::new("service-sync");
    let objects: Vec<(Object, Object)> = (0..SERVICES)
        .map(|i| (Object::from_value(service(i), &[], 1), Object::from_value(slice(i, ENDPOINTS), &[], 1)))
        .collect();
    let config = ProxyConfig {
        families: BTreeSet::from([Family::V4]),
        cluster_cidrs: vec!["10.128.0.0/10".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/15".parse().unwrap()],
        ..ProxyConfig::default()
    };
    let mut state = ProxyState { config: Arc::new(config), services: BTreeMap::new() };
    let work = || {
        let mut proxy = Proxy::open().unwrap();
        let began = Instant::now();
        for (service, slice) in &objects {
            take(&mut state, service, slice);
        }
        let translated = began.elapsed();
        proxy.sync(&state).unwrap();
        report.figure("translated", translated.as_secs_f64() * 1000.0, "ms");
        report.goal("all", began.elapsed().as_secs_f64() * 1000.0, "ms", 5000.0);
        let change = |round: i64| {
            let at = SERVICES / 2 + round;
            let changed = Object::from_value(slice(at, ENDPOINTS + 1), &[], 2);
            let began = Instant::now();
            let keys = take(&mut state, &objects[at as usize].0, &changed);
            proxy.sync_changed(&state, &keys).unwrap();
            began.elapsed()
        };
        let changes: Samples = (0..CHANGES).map(change).collect();
        report.goal("one_change_p50", changes.ms(50), "ms", 20.0);
        report.figure("one_change_max", changes.ms(100), "ms");
        let began = Instant::now();
        proxy.check().unwrap();
        report.figure("check", began.elapsed().as_secs_f64() * 1000.0, "ms");
    };
    NetNs::create().unwrap().run(work).unwrap();
}
