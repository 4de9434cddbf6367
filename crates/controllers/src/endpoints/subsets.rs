//! Subsets in their canonical form: each set of addresses once, with all the ports it serves (upstream
//! `pkg/api/v1/endpoints`).

use canopus_api::{Value, json, value};
use std::collections::BTreeMap;

/// The same address may be there twice, of two objects.
type AddressKey = (String, String);
/// The addresses that serve a port, and whether they are ready.
type Ready = BTreeMap<AddressKey, bool>;

/// Expands subsets and packs them anew, sorted.
pub(crate) fn repack(subsets: &[Value]) -> Vec<Value> {
    let mut packer = Packer::default();
    for subset in subsets {
        for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset[list].items() {
                match subset["ports"].items() {
                    [] => packer.add(address, &Value::Null, ready),
                    ports => ports.iter().for_each(|port| packer.add(address, port, ready)),
                }
            }
        }
    }
    packer.pack()
}

#[derive(Default)]
pub(crate) struct Packer {
    addresses: BTreeMap<AddressKey, Value>,
    /// By the port's text; Null is the port of addresses that have none.
    ports: BTreeMap<String, (Value, Ready)>,
}

impl Packer {
    /// An address that is not ready in one place is so in all that have the port.
    pub(crate) fn add(&mut self, address: &Value, port: &Value, ready: bool) {
        let key = (address["ip"].str().to_string(), address["targetRef"]["uid"].str().to_string());
        self.addresses.entry(key.clone()).or_insert_with(|| plain(address));
        let text = json::to_string(port).to_string();
        let (_, serving) = self.ports.entry(text).or_insert_with(|| (port.clone(), Ready::new()));
        *serving.entry(key).or_insert(true) &= ready;
    }

    pub(crate) fn pack(self) -> Vec<Value> {
        let mut sets: BTreeMap<Ready, Vec<Value>> = BTreeMap::new();
        for (port, serving) in self.ports.into_values() {
            let ports = sets.entry(serving).or_default();
            ports.extend((!port.is_null()).then_some(port));
        }
        let subset = |(serving, ports): (Ready, Vec<Value>)| {
            let list = |wanted: bool| -> Vec<Value> {
                let such = serving.iter().filter(|(_, ready)| **ready == wanted);
                such.filter_map(|(key, _)| self.addresses.get(key).cloned()).collect()
            };
            let mut subset = value!({});
            for (name, list) in [("addresses", list(true)), ("notReadyAddresses", list(false)), ("ports", ports)] {
                if !list.is_empty() {
                    subset.set(name, list);
                }
            }
            subset
        };
        sets.into_iter().map(subset).collect()
    }
}

/// Which revision of a pod was looked at makes no difference.
fn plain(address: &Value) -> Value {
    let mut address = address.clone();
    if !address["targetRef"]["resourceVersion"].is_null() {
        address.remove_path(&["targetRef", "resourceVersion"]);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_addresses_once() {
        let (a, b) = (value!({"ip": "10.0.0.1"}), value!({"ip": "10.0.0.2"}));
        let (http, dns) = (value!({"name": "http", "port": 80}), value!({"name": "dns", "port": 53}));
        let cases = [
            // One set of addresses has all its ports.
            (
                value!([{"addresses": [&b], "ports": [&http]}, {"addresses": [&a, &b], "ports": [&dns]},
                    {"addresses": [&a], "ports": [&http]}]),
                value!([{"addresses": [&a, &b], "ports": [&dns, &http]}]),
            ),
            // Not ready goes before ready.
            (
                value!([{"addresses": [&a], "ports": [&http]}, {"notReadyAddresses": [&a], "ports": [&http]},
                    {"addresses": [&b], "ports": [&http]}]),
                value!([{"addresses": [&b], "notReadyAddresses": [&a], "ports": [&http]}]),
            ),
            // What is ready for one port only makes two.
            (
                value!([{"addresses": [&a], "ports": [&http]}, {"notReadyAddresses": [&a], "ports": [&dns]}]),
                value!([{"notReadyAddresses": [&a], "ports": [&dns]}, {"addresses": [&a], "ports": [&http]}]),
            ),
            (value!([{"addresses": [&b]}, {"addresses": [&a]}]), value!([{"addresses": [&a, &b]}])),
            (value!([]), value!([])),
        ];
        for (subsets, expected) in cases {
            assert_eq!(Value::from(repack(subsets.items())), expected);
        }
    }
}
