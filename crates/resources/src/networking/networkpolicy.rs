//! NetworkPolicy: who may talk to a namespace's pods, and to whom they may.

use crate::apps::workload::selector_cell;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct NetworkPolicy;

static INFO: Info = Info {
    singular: "networkpolicy",
    short_names: &["netpol"],
    generation: true,
    ..Info::stored("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
};

/// The directions, with the list of their rules' peers.
const DIRECTIONS: &[(&str, &str)] = &[("ingress", "from"), ("egress", "to")];
const TYPES: &[&str] = &["Ingress", "Egress"];

impl Resource for NetworkPolicy {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        spec.set_default("podSelector", Value::object());
        if spec["policyTypes"].is_empty() {
            let egress = !spec["egress"].is_empty();
            spec.set("policyTypes", TYPES[..1 + usize::from(egress)].iter().copied().collect::<Value>());
        }
        for (direction, _) in DIRECTIONS {
            for rule in spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
                for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                    port.set_default("protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        policy(&object.at("spec"), &[], errors);
    }

    /// What the old policy said about blocks may stay, wherever it stands.
    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        policy(&new.at("spec"), &blocks(&old["spec"]), errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (root, mut out) = (Field::root(object), Vec::new());
        let spec = root.at("spec");
        for (direction, peers) in DIRECTIONS {
            for rule in spec.at(direction).items() {
                for peer in rule.at(peers).items() {
                    let block = peer.at("ipBlock");
                    let cidr = block.at("cidr");
                    out.extend(checks::cidr_warnings(&cidr));
                    block.at("except").items().for_each(|except| out.extend(checks::cidr_warnings(&except)));
                }
            }
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Pod-Selector", "string", "The pods that the policy is about"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let selector = selector_cell(&object["spec"]["podSelector"], "<none>", "<error>");
        vec![name(object), selector, age(object, now)]
    }
}

/// All blocks of addresses that a policy names.
fn blocks(spec: &Value) -> Vec<&str> {
    let rules = DIRECTIONS.iter().flat_map(|(direction, peers)| spec[*direction].items().iter().map(|r| &r[*peers]));
    let found = rules.flat_map(Value::items).map(|peer| &peer["ipBlock"]);
    found.flat_map(|block| block["except"].items().iter().chain([&block["cidr"]])).map(Value::str).collect()
}

fn policy(spec: &Field, known: &[&str], errors: &mut Errors) {
    checks::label_selector(&spec.at("podSelector"), errors);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.at(direction).items() {
            rule.at("ports").items().for_each(|at| port(&at, errors));
            rule.at(peers).items().for_each(|at| peer(&at, known, errors));
        }
    }
    let types = spec.at("policyTypes");
    if types.value.items().len() > TYPES.len() {
        return errors.invalid(&types, "may not specify more than two policyTypes");
    }
    types.items().for_each(|one| checks::one_of(&one, TYPES, errors));
}

fn port(at: &Field, errors: &mut Errors) {
    checks::optional_one_of(&at.at("protocol"), &["TCP", "UDP", "SCTP"], errors);
    let (port, end) = (at.at("port"), at.at("endPort"));
    match (port.value, end.is_set()) {
        (Value::Null, true) => errors.invalid(&end, "may not be specified when `port` is not specified"),
        (Value::Null, false) => {}
        (Value::Str(name), ended) => {
            if ended {
                errors.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            names::port_name(name).into_iter().for_each(|why| errors.invalid(&port, why));
        }
        (_, ended) => {
            checks::in_range(&port, 1, 65535, errors);
            if ended && end.int() < port.int() {
                errors.invalid(&end.with(port.value), "must be greater than or equal to `port`");
            }
            if ended {
                checks::in_range(&end, 1, 65535, errors);
            }
        }
    }
}

fn peer(peer: &Field, known: &[&str], errors: &mut Errors) {
    let mut count = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        let selector = peer.at(selector);
        if selector.is_set() {
            count += 1;
            checks::label_selector(&selector, errors);
        }
    }
    let addresses = peer.at("ipBlock");
    if addresses.is_set() {
        count += 1;
        block(&addresses, known, errors);
    }
    if count == 0 {
        errors.required(peer, "must specify a peer");
    } else if count > 1 && addresses.is_set() {
        errors.forbidden(peer, "may not specify both ipBlock and another peer");
    }
}

fn block(block: &Field, known: &[&str], errors: &mut Errors) {
    let cidr = block.at("cidr");
    if !checks::required(&cidr, errors) {
        return;
    }
    let check = |field: &Field, errors: &mut Errors| {
        if !known.contains(&field.str()) {
            checks::cidr(field, errors);
        }
    };
    check(&cidr, errors);
    let Some(whole) = checks::parse_cidr(cidr.str()) else { return };
    for except in block.at("except").items() {
        check(&except, errors);
        let Some(part) = checks::parse_cidr(except.str()) else { continue };
        if whole.2 >= part.2 || !checks::contains((whole.0, whole.2), part.0) {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn defaults() {
        let mut policy = value!({"spec": {"egress": [{"ports": [{"port": 53}]}]}});
        NetworkPolicy.default(&mut policy);
        let spec = value!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}]});
        assert_eq!(policy["spec"], spec);
        let mut policy = value!({"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}});
        NetworkPolicy.default(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], value!(["Ingress"]));
        assert_eq!(cells(&NetworkPolicy, &policy), ["p", "a=b", "<unknown>"]);
    }

    #[test]
    fn rules() {
        let from = |peer: Value| value!({"spec": {"ingress": [{"from": [peer]}]}});
        let port = |port: Value| value!({"spec": {"egress": [{"ports": [port]}]}});
        let block = |cidr: &str, except: &str| from(value!({"ipBlock": {"cidr": cidr, "except": [except]}}));
        let cases: &[(Value, &[&str])] = &[
            (from(value!({"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}})), &[]),
            (block("10.0.0.0/8", "10.1.0.0/16"), &[]),
            (port(value!({"port": 1, "endPort": 2})), &[]),
            (from(value!({})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]),
            (
                from(value!({"podSelector": {}, "ipBlock": {}})),
                &[
                    "spec.ingress[0].from[0].ipBlock.cidr: Required value",
                    "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
                ],
            ),
            (
                block("10.0.0.0/8", "11.0.0.0/16"),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                ],
            ),
            (
                port(value!({"port": 2, "endPort": 1})),
                &["spec.egress[0].ports[0].endPort: Invalid value: 2: must be greater than or equal to `port`"],
            ),
            (
                port(value!({"endPort": 1})),
                &[
                    "spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is not specified",
                ],
            ),
            (
                port(value!({"port": "web", "endPort": 1, "protocol": "ICMP"})),
                &[
                    "spec.egress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                    "spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
                ],
            ),
            (
                value!({"spec": {"policyTypes": ["Both"]}}),
                &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\""],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&NetworkPolicy, object.clone()), *expected, "{object:?}");
        }
        let loose = block("010.0.0.0/8", "10.1.0.0/16");
        assert_eq!(create(&NetworkPolicy, loose.clone()).len(), 1);
        assert!(update(&NetworkPolicy, "", loose.clone(), loose).is_empty());
    }

    #[test]
    fn odd_blocks_are_warned_about() {
        let policy =
            value!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["FE80::/64"]}}]}]}});
        assert_eq!(
            NetworkPolicy.warnings(&policy, None),
            [
                "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                "spec.egress[0].to[0].ipBlock.except[0]: IPv6 CIDR value \"FE80::/64\" should be in RFC 5952 canonical format (\"fe80::/64\")",
            ]
        );
    }
}
