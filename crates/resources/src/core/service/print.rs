//! A service in a table.

use crate::resource::{Column, age, joined, name};
use canopus_api::{Time, Value};
use std::collections::BTreeSet;

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::new("Type", "string", "How the service is exposed"),
    Column::new("Cluster-IP", "string", "The service's address in the cluster"),
    Column::new("External-IP", "string", "The service's addresses outside the cluster"),
    Column::new("Port(s)", "string", "The ports that are exposed by this service"),
    Column::AGE,
    Column::wide("Selector", "string", "Labels of the pods that traffic is routed to"),
];

pub fn row(service: &Value, now: Time) -> Vec<Value> {
    let spec = &service["spec"];
    let address = spec["clusterIPs"][0].as_str().unwrap_or("<none>");
    let ports: Vec<String> = spec["ports"].items().iter().map(port).collect();
    let selector: Vec<String> = spec["selector"].entries().map(|(k, v)| format!("{k}={}", v.str())).collect();
    vec![
        name(service),
        spec["type"].str().into(),
        address.into(),
        external(service),
        joined(ports.iter().map(String::as_str)),
        age(service, now),
        joined(selector.iter().map(String::as_str)),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (port["port"].int(), port["protocol"].str());
    match port["nodePort"].int() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external(service: &Value) -> Value {
    let spec = &service["spec"];
    let fixed = spec["externalIPs"].items().iter().map(Value::str);
    match spec["type"].str() {
        "ClusterIP" | "NodePort" => joined(fixed),
        "LoadBalancer" => {
            let ingress = service["status"]["loadBalancer"]["ingress"].items();
            let point = |p: &'_ Value| if p["ip"].is_empty() { p["hostname"].clone() } else { p["ip"].clone() };
            let points: BTreeSet<String> =
                ingress.iter().map(point).filter(|p| !p.is_empty()).map(|p| p.str().to_string()).collect();
            let all: Vec<&str> = points.iter().map(String::as_str).chain(fixed).collect();
            if all.is_empty() { "<pending>".into() } else { joined(all) }
        }
        "ExternalName" => spec["externalName"].str().into(),
        _ => "<unknown>".into(),
    }
}
