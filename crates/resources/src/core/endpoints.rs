//! Endpoints: the addresses behind a service, as clients knew them before EndpointSlices.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

pub struct Endpoints;

static INFO: Info = Info {
    singular: "endpoints",
    short_names: &["ep"],
    create_on_update: true,
    deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ..Info::stored("", "v1", "Endpoints", "endpoints")
};

pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Addresses that a cell shows before it says how many more there are.
const SHOWN: usize = 3;

impl Resource for Endpoints {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let subsets = object.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten();
        let ports = subsets.filter_map(|s| s.get_mut("ports")?.as_array_mut()).flatten();
        ports.filter(|port| port["protocol"].is_empty()).for_each(|port| port.set("protocol", "TCP"));
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        object.at("subsets").items().for_each(|set| subset(&set, errors));
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        // What was allowed once may stay.
        if !crate::semantic::equal(&new.value["subsets"], &old["subsets"]) {
            self.validate(new, errors);
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        if object["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"].str() == "endpoint-controller" {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (i, subset) in object["subsets"].items().iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                for (j, address) in subset[list].items().iter().enumerate() {
                    let path = format!("subsets[{i}].{list}[{j}].ip");
                    warnings.extend(checks::ip_warning(&path, address["ip"].str()));
                }
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Endpoints", "string", "Addresses and ports that are ready"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), shown(object["subsets"].items()).into(), age(object, now)]
    }
}

fn subset(set: &Field, errors: &mut Errors) {
    if set.value["addresses"].is_empty() && set.value["notReadyAddresses"].is_empty() {
        errors.required(set, "must specify `addresses` or `notReadyAddresses`");
    }
    for list in ["addresses", "notReadyAddresses"] {
        set.at(list).items().for_each(|item| address(&item, errors));
    }
    let ports = set.at("ports");
    let many = ports.value.items().len() > 1;
    ports.items().for_each(|item| port(&item, many, errors));
}

fn address(item: &Field, errors: &mut Errors) {
    let (ip, hostname, node) = (item.at("ip"), item.at("hostname"), item.at("nodeName"));
    checks::ip(&ip, errors);
    if !hostname.str().is_empty() {
        checks::check(&hostname, names::dns1123_label, errors);
    }
    if node.is_set() {
        checks::check(&node, names::dns1123_subdomain, errors);
    }
    endpoint_ip(&ip, errors);
}

fn port(item: &Field, needs_name: bool, errors: &mut Errors) {
    let (name, protocol, app) = (item.at("name"), item.at("protocol"), item.at("appProtocol"));
    if needs_name && name.str().is_empty() {
        errors.required(&name, "");
    } else if !name.str().is_empty() {
        checks::check(&name, names::dns1123_label, errors);
    }
    let number = item.at("port");
    checks::in_range(&number.with(&number.int().into()), 1, 65535, errors);
    checks::required_one_of(&protocol, PROTOCOLS, errors);
    if app.is_set() {
        checks::check(&app, names::qualified_name, errors);
    }
}

/// Addresses that make no sense as endpoints (upstream `ValidateEndpointIP`).
pub fn endpoint_ip(field: &Field, errors: &mut Errors) {
    let shown: Value = field.str().into();
    let field = field.with(&shown);
    let Some((ip, _)) = checks::parse_ip(field.str()) else {
        return errors.invalid(&field, "must be a valid IP address");
    };
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        v4 => v4,
    };
    let (local, local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (link_local(v6), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let faults = [
        (ip.is_unspecified(), format!("may not be unspecified ({})", field.str())),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()),
    ];
    faults.into_iter().filter(|(is, _)| *is).for_each(|(_, why)| errors.invalid(&field, why));
}

fn link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// `10.0.0.1:80,10.0.0.2:80 + 4 more...`
fn shown(subsets: &[Value]) -> String {
    if subsets.is_empty() {
        return "<none>".into();
    }
    let (mut text, mut count) = (String::new(), 0);
    for subset in subsets {
        let ports = subset["ports"].items();
        let ports: Vec<Option<i64>> =
            if ports.is_empty() { vec![None] } else { ports.iter().map(|p| Some(p["port"].int())).collect() };
        for port in ports {
            for address in subset["addresses"].items() {
                count += 1;
                if count > SHOWN {
                    continue;
                }
                let comma = if count > 1 { "," } else { "" };
                let _ = match (address["ip"].str(), port) {
                    (ip, None) => write!(text, "{comma}{ip}"),
                    (ip, Some(port)) if ip.contains(':') => write!(text, "{comma}[{ip}]:{port}"),
                    (ip, Some(port)) => write!(text, "{comma}{ip}:{port}"),
                };
            }
        }
    }
    if count > SHOWN {
        let _ = write!(text, " + {} more...", count - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn subsets() {
        let cases: &[(Value, &[&str])] = &[
            (value!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]), &[]),
            (value!([{}]), &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
            (
                value!([{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 0}, {"name": "b", "port": 1, "protocol": "X"}]}]),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "subsets[0].ports[0].name: Required value",
                    "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "subsets[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
        ];
        for (subsets, expected) in cases {
            assert_eq!(create(&Endpoints, value!({"subsets": subsets})), *expected);
        }
        let bad = value!({"subsets": [{}]});
        assert_eq!(update(&Endpoints, "", bad.clone(), bad), Vec::<String>::new());
    }

    #[test]
    fn special_addresses() {
        let cases = [
            ("10.0.0.1", 0),
            ("0.0.0.0", 1),
            ("::", 1),
            ("169.254.0.1", 1),
            ("fe80::1", 1),
            ("224.0.0.1", 1),
            ("ff02::1", 1),
        ];
        for (ip, expected) in cases {
            let (ip, mut errors) = (value!(ip), Errors::new());
            endpoint_ip(&Field::root(&ip), &mut errors);
            assert_eq!(errors.len(), expected, "{ip:?}");
        }
    }

    #[test]
    fn cells_show_three() {
        let four = value!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "::2"}], "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(cells(&Endpoints, &four)[1], "1.1.1.1:80,[::2]:80,1.1.1.1:81 + 1 more...");
        assert_eq!(cells(&Endpoints, &value!({}))[1], "<none>");
        assert_eq!(cells(&Endpoints, &value!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}]}]}))[1], "1.1.1.1");
    }
}
