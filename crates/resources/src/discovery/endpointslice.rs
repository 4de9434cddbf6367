//! EndpointSlice: some of the addresses behind a service.

use crate::core::endpoints::{PROTOCOLS, endpoint_ip};
use crate::resource::{Column, Context, Info, Resource, age, name};
use crate::{checks, semantic};
use canopus_api::{Errors, Field, Time, Value, labels, names};
use std::net::IpAddr;

pub struct EndpointSlice;

static INFO: Info = Info {
    singular: "endpointslice",
    generation: true,
    ..Info::stored("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
};

const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_HINTS: usize = 8;
/// Items that a cell shows before it says how many more there are.
const SHOWN: usize = 3;
/// Controllers whose slices have canonical addresses.
const OUR_CONTROLLERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

impl Resource for EndpointSlice {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.set_default("name", "");
            port.set_default("protocol", "TCP");
        }
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        drop_topology(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _cx: &Context) {
        if !semantic::equal(&new["endpoints"], &old["endpoints"]) {
            drop_topology(new);
        }
    }

    /// Labels count, too.
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        let fields = ["addressType", "endpoints", "ports"];
        let labels = !semantic::equal(&new["metadata"]["labels"], &old["metadata"]["labels"]);
        labels || fields.iter().any(|field| !semantic::equal(&new[*field], &old[*field]))
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        shape(object, errors);
        endpoints(object, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        shape(new, errors);
        // What was allowed once may stay.
        if !semantic::equal(&new.value["endpoints"], &old["endpoints"]) {
            endpoints(new, errors);
        }
        checks::immutable(&new.at("addressType"), &old["addressType"], errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && object["addressType"].str() == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        if OUR_CONTROLLERS.contains(&object["metadata"]["labels"][labels::MANAGED_BY_SLICE].str()) {
            return warnings;
        }
        for (i, endpoint) in object["endpoints"].items().iter().enumerate() {
            for (j, address) in endpoint["addresses"].items().iter().enumerate() {
                warnings.extend(checks::ip_warning(&format!("endpoints[{i}].addresses[{j}]"), address.str()));
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("AddressType", "string", "The type of the addresses: IPv4, IPv6 or FQDN"),
                Column::new("Ports", "string", "The ports of each endpoint"),
                Column::new("Endpoints", "string", "The addresses of the endpoints"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let port = |port: &Value| match port["port"].as_i64() {
            Some(number) => number.to_string(),
            None => port["name"].as_str().unwrap_or("*").to_string(),
        };
        let ports: Vec<String> = object["ports"].items().iter().map(port).collect();
        let addresses = object["endpoints"].items().iter().flat_map(|e| e["addresses"].items());
        let addresses: Vec<String> = addresses.map(|a| a.str().to_string()).collect();
        let kind = object["addressType"].str();
        vec![name(object), kind.into(), shown(&ports).into(), shown(&addresses).into(), age(object, now)]
    }
}

fn shown(items: &[String]) -> String {
    let text = items[..items.len().min(SHOWN)].join(",");
    match items.len() {
        more if more > SHOWN => format!("{text} + {} more...", more - SHOWN),
        _ if text.is_empty() => "<unset>".into(),
        _ => text,
    }
}

/// A field of v1beta1 that v1 only carries along.
fn drop_topology(object: &mut Value) {
    for endpoint in object.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        endpoint.remove("deprecatedTopology");
    }
}

fn shape(object: &Field, errors: &mut Errors) {
    checks::required_one_of(&object.at("addressType"), TYPES, errors);
    let ports = object.at("ports");
    let all = ports.value.items();
    if all.len() > MAX_PORTS {
        return errors.too_many(&ports, all.len(), MAX_PORTS);
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, port) in ports.items().enumerate() {
        let (name, app) = (port.at("name"), port.at("appProtocol"));
        if !name.str().is_empty() {
            checks::check(&name, names::dns1123_label, errors);
        }
        if !seen.insert(all[i]["name"].str()) {
            errors.duplicate(&name);
        }
        if port.value["protocol"].is_null() {
            errors.required(&port.at("protocol"), "");
        } else {
            checks::one_of(&port.at("protocol"), PROTOCOLS, errors);
        }
        if app.is_set() {
            checks::check(&app, names::qualified_name, errors);
        }
    }
}

fn endpoints(object: &Field, errors: &mut Errors) {
    let list = object.at("endpoints");
    let count = list.value.items().len();
    if count > MAX_ENDPOINTS {
        return errors.too_many(&list, count, MAX_ENDPOINTS);
    }
    let kind = object.value["addressType"].str();
    for endpoint in list.items() {
        let (addresses, node, host) = (endpoint.at("addresses"), endpoint.at("nodeName"), endpoint.at("hostname"));
        match addresses.value.items().len() {
            0 => errors.required(&addresses, "must contain at least 1 address"),
            many if many > MAX_ADDRESSES => errors.too_many(&addresses, many, MAX_ADDRESSES),
            _ => {}
        }
        addresses.items().for_each(|item| address(kind, &addresses, &item, errors));
        if node.is_set() {
            checks::check(&node, names::dns1123_subdomain, errors);
        }
        checks::labels(&endpoint.at("deprecatedTopology"), errors);
        if host.is_set() {
            checks::check(&host, names::dns1123_label, errors);
        }
        let hints = endpoint.at("hints");
        hint(&hints.at("forZones"), names::label_value, errors);
        hint(&hints.at("forNodes"), names::dns1123_subdomain, errors);
    }
}

fn address(kind: &str, list: &Field, item: &Field, errors: &mut Errors) {
    let before = errors.len();
    match kind {
        "IPv4" => checks::ip(item, errors),
        "IPv6" => canonical_ip(item, errors),
        "FQDN" => return full_name(item, errors),
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    let is_v4 = matches!(checks::parse_ip(item.str()), Some((IpAddr::V4(_), _)));
    if is_v4 != (kind == "IPv4") {
        errors.invalid(&list.with(item.value), format!("must be an {kind} address"));
    }
    endpoint_ip(item, errors);
}

/// An address in a field that takes only the canonical form (upstream `IsValidIP`).
fn canonical_ip(field: &Field, errors: &mut Errors) {
    let before = errors.len();
    checks::ip(field, errors);
    if let Some((ip, _)) = checks::parse_ip(field.str())
        && errors.len() == before
        && ip.to_string() != field.str()
    {
        errors.invalid(field, format!("must be in canonical form (\"{ip}\")"));
    }
}

/// Upstream's `IsFullyQualifiedDomainName`: stops at the first fault.
fn full_name(field: &Field, errors: &mut Errors) {
    let name = field.str().strip_suffix('.').unwrap_or(field.str());
    if field.str().is_empty() {
        return errors.required(field, "");
    }
    let mut faults = |text: &str, why: Vec<String>| {
        if !why.is_empty() {
            errors.invalid(&field.with(&text.into()), why.join(","));
        }
        !why.is_empty()
    };
    if faults(name, names::dns1123_subdomain(name)) {
        return;
    }
    if !name.contains('.') {
        faults(name, vec!["should be a domain with at least two segments separated by dots".into()]);
        return;
    }
    for label in name.split('.') {
        if faults(label, names::dns1123_label(label)) {
            return;
        }
    }
}

/// At most eight names, each once.
fn hint(list: &Field, good: checks::Check, errors: &mut Errors) {
    let all = list.value.items();
    if all.len() > MAX_HINTS {
        return errors.too_many(list, all.len(), MAX_HINTS);
    }
    for (i, item) in list.items().enumerate() {
        let name = item.at("name");
        if all[..i].iter().any(|other| other["name"] == *name.value) {
            errors.duplicate(&name);
        }
        checks::check(&name, good, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn slices() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}), &[]),
            (value!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com."]}]}), &[]),
            (
                value!({"endpoints": [{}], "ports": [{}, {"protocol": "X"}]}),
                &[
                    "addressType: Required value",
                    "ports[1].name: Duplicate value: \"\"",
                    "ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                    "endpoints[0].addresses: Required value: must contain at least 1 address",
                ],
            ),
            (
                value!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1", "127.0.0.1"],
                    "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}]}),
                &[
                    "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
                    "endpoints[0].addresses[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "endpoints[0].hints.forZones[1].name: Duplicate value: \"a\"",
                ],
            ),
            (
                value!({"addressType": "IPv6", "endpoints": [{"addresses": ["FD00::1"]}]}),
                &["endpoints[0].addresses[0]: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")"],
            ),
            (
                value!({"addressType": "FQDN", "endpoints": [{"addresses": ["a"]}]}),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&EndpointSlice, object.clone()), *expected, "{object:?}");
        }
        let (old, new) = (value!({"addressType": "IPv4"}), value!({"addressType": "IPv6"}));
        assert_eq!(update(&EndpointSlice, "", old, new), ["addressType: Invalid value: \"IPv6\": field is immutable"]);
    }

    #[test]
    fn rows() {
        let slice = value!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["1.1.1.1", "2.2.2.2"]}, {"addresses": ["3.3.3.3", "4.4.4.4"]}]});
        let expected = ["s", "IPv4", "80,x,*", "1.1.1.1,2.2.2.2,3.3.3.3 + 1 more...", "<unknown>"];
        assert_eq!(cells(&EndpointSlice, &slice), expected);
        assert_eq!(cells(&EndpointSlice, &value!({}))[2..4], ["<unset>", "<unset>"]);
    }
}
