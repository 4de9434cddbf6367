//! Measures `service-sync`: how long the proxy takes from its views to loaded rules, for many Services and for one
//! change. In a network namespace of its own; needs root.
//!
//!     cargo run --profile fast -p canopus-net --example service_sync -- [services] [endpoints each]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use canopus_api::{Object, Value, value};
use canopus_net::netns::NetNs;
use canopus_net::proxy::{Family, Proxy, ProxyConfig, ProxyState, translate};

fn number(position: usize, default: i64) -> i64 {
    std::env::args().nth(position).and_then(|text| text.parse().ok()).unwrap_or(default)
}

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
    let (services, endpoints) = (number(1, 44_000), number(2, 3));
    let objects: Vec<(Object, Object)> = (0..services)
        .map(|i| (Object::from_value(service(i), &[], 1), Object::from_value(slice(i, endpoints), &[], 1)))
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
        let report = proxy.sync(&state).unwrap();
        println!(
            "{services} services: translated in {translated:?}, loaded in {:?} in all; {report:?}",
            began.elapsed()
        );
        for round in 1..=5 {
            let changed = Object::from_value(slice(services / 2, endpoints + round % 2), &[], 2);
            let began = Instant::now();
            let keys = take(&mut state, &objects[(services / 2) as usize].0, &changed);
            let report = proxy.sync_changed(&state, &keys).unwrap();
            println!("one change: {:?}; {report:?}", began.elapsed());
        }
        let began = Instant::now();
        proxy.check().unwrap();
        println!("check: {:?}", began.elapsed());
    };
    NetNs::create().unwrap().run(work).unwrap();
}
