//! Node: a machine that runs pods.

use super::pod::{defaults, requirements, scheduling};
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, Verb, age, joined, name};
use crate::strategy;
use canopus_api::{Errors, Facts, Field, Time, Value, names, value};
use std::collections::BTreeSet;

pub struct Node;

static INFO: Info = Info {
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[
        Subresource {
            name: "proxy",
            kind: ("", "v1", "NodeProxyOptions"),
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        },
        Subresource::status("", "v1", "Node"),
    ],
    selectable_fields: &["spec.unschedulable"],
    ..Info::stored("", "v1", "Node", "nodes")
};

impl Resource for Node {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        pod_cidrs(object);
        let Some(status) = object.get_mut("status") else { return };
        for list in ["capacity", "allocatable"] {
            if let Some(list) = status.get_mut(list) {
                defaults::resource_list(list);
            }
        }
        let capacity = status["capacity"].clone();
        if !capacity.is_null() {
            status.set_default("allocatable", capacity);
        }
    }

    /// Nodes register themselves with their status.
    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        drop_config(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, &[]);
        } else {
            strategy::keep(new, old, "status");
        }
        drop_config(new);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        taints(object, errors);
        amounts(&object.at("status"), errors);
        let info = object.at("status").at("nodeInfo").value["swap"]["capacity"].clone();
        if !info.is_null() && info.int() <= 0 {
            let meta = object.at("metadata");
            let swap = meta.at("nodeSwapStatus");
            errors.invalid(&swap.at("capacity").with(&info), "must be greater than zero");
        }
        features(&object.at("status").at("declaredFeatures"), errors);
        blocks(&object.at("spec").at("podCIDRs"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource.is_empty() {
            self.validate(new, errors);
        }
        let (spec, status) = (new.at("spec"), new.at("status"));
        amounts(&status, errors);
        features(&status.at("declaredFeatures"), errors);
        addresses(&status.at("addresses"), errors);
        let (cidrs, before) = (spec.at("podCIDRs"), old["spec"]["podCIDRs"].items());
        if !before.is_empty() && cidrs.value.items() != before {
            errors.forbidden(&cidrs, "node updates may not change podCIDR except from \"\" to valid");
        }
        let (provider, before) = (spec.at("providerID"), old["spec"]["providerID"].str());
        if !before.is_empty() && provider.str() != before {
            errors.forbidden(&provider, "node updates may not change providerID except from \"\" to valid");
        }
        taints(new, errors);
        if spec.value["externalID"].str() != old["spec"]["externalID"].str() {
            errors.forbidden(&spec.at("externalID"), "may not be updated");
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (spec, mut out) = (&object["spec"], Vec::new());
        if !spec["configSource"].is_null() {
            out.push("spec.configSource: the feature is removed".into());
        }
        if !spec["externalID"].str().is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";
        const {
            &[
                Column::NAME,
                Column::new("Status", "string", "The status of the node"),
                Column::new("Roles", "string", "The roles of the node"),
                Column::AGE,
                Column::new("Version", "string", "Kubelet Version reported by the node."),
                Column::wide("Internal-IP", "string", ADDRESSES),
                Column::wide("External-IP", "string", ADDRESSES),
                Column::wide(
                    "OS-Image",
                    "string",
                    "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
                ),
                Column::wide(
                    "Kernel-Version",
                    "string",
                    "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
                ),
                Column::wide(
                    "Container-Runtime",
                    "string",
                    "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        let known = |field: &str| if info[field].str().is_empty() { "<unknown>" } else { info[field].str() };
        let mut kernel = known("kernelVersion").to_owned();
        if !info["architecture"].str().is_empty() {
            kernel = format!("{kernel} ({})", info["architecture"].str());
        }
        let address = |kind: &str| -> Value {
            let found = object["status"]["addresses"].items().iter().find(|a| a["type"].str() == kind);
            found.map_or("<none>", |a| a["address"].str()).into()
        };
        vec![
            name(object),
            status_cell(object),
            joined(roles(object)),
            age(object, now),
            info["kubeletVersion"].str().into(),
            address("InternalIP"),
            address("ExternalIP"),
            known("osImage").into(),
            kernel.into(),
            known("containerRuntimeVersion").into(),
        ]
    }

    fn facts(&self, object: &Value) -> Facts {
        let mut facts = Facts::extract(object, INFO.selectable_fields);
        for (_, value) in facts.fields.iter_mut().filter(|(_, value)| value.is_empty()) {
            *value = "false".into();
        }
        facts
    }
}

fn status_cell(node: &Value) -> Value {
    let ready = node["status"]["conditions"].items().iter().rfind(|c| c["type"].str() == "Ready");
    let state = match ready.map(|c| c["status"].str()) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = node["spec"]["unschedulable"].bool().then_some("SchedulingDisabled");
    joined([state].into_iter().chain(cordoned))
}

/// From labels `node-role.kubernetes.io/X` and `kubernetes.io/role: X`.
fn roles(node: &Value) -> BTreeSet<&str> {
    let role = |(key, value)| match str::strip_prefix(key, "node-role.kubernetes.io/") {
        Some(role) => role,
        None if key == "kubernetes.io/role" => value,
        None => "",
    };
    let labels = node["metadata"]["labels"].entries().map(|(k, v)| (k.as_str(), v.str()));
    labels.map(role).filter(|role| !role.is_empty()).collect()
}

/// `podCIDR` is the first of `podCIDRs`, whichever of the two was written.
fn pod_cidrs(node: &mut Value) {
    let Some(spec) = node.get_mut("spec") else { return };
    let (one, first) = (spec["podCIDR"].clone(), spec["podCIDRs"][0].clone());
    if one.str().is_empty() {
        if !first.str().is_empty() {
            spec.set("podCIDR", first);
        }
    } else if one != first {
        spec.set("podCIDRs", value!([one]));
    }
}

/// Kubelet configuration from the API, a feature that is gone.
fn drop_config(node: &mut Value) {
    node.remove_path(&["spec", "configSource"]);
    node.remove_path(&["status", "config"]);
}

/// As upstream, the path is one of metadata.
fn taints(node: &Field, errors: &mut Errors) {
    let meta = node.at("metadata");
    let list = meta.at("taints");
    let list = list.with(&node.value["spec"]["taints"]);
    let mut seen = BTreeSet::new();
    for taint in list.items() {
        let (key, text, effect) = (taint.at("key"), taint.at("value"), taint.at("effect"));
        checks::check(&key.with(&key.str().into()), names::qualified_name, errors);
        let why = names::label_value(text.str());
        if !why.is_empty() {
            errors.invalid(&text, why.join(";"));
        }
        if effect.str().is_empty() {
            errors.required(&effect, "");
        } else {
            scheduling::taint_effect(&effect, errors);
        }
        if !seen.insert((effect.str().to_owned(), key.str().to_owned())) {
            let why = "taints must be unique by key and effect pair";
            errors.push(canopus_api::field::Kind::Duplicate, &taint, why);
        }
    }
}

/// As upstream, the resource's name is a step of the path of its own.
fn amounts(status: &Field, errors: &mut Errors) {
    for list in ["capacity", "allocatable"] {
        let list = status.at(list);
        for (name, _) in list.value.entries() {
            requirements::resource_quantity(&list.at(name), name, errors);
        }
    }
}

fn features(list: &Field, errors: &mut Errors) {
    let mut before = "";
    for (feature, value) in list.items().zip(list.value.items()) {
        let name = value.str();
        if let Some(why) = bad_feature(name) {
            errors.invalid(&feature, why);
        }
        if name == before {
            errors.duplicate(&feature);
        } else if name < before {
            errors.invalid(&feature, "list must be sorted alphabetically");
        }
        before = name;
    }
}

fn bad_feature(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some(format!("invalid feature name {name:?}: must be no more than 253 characters"));
    }
    let segment =
        |s: &str| s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(segment);
    (!good).then(|| format!("invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"))
}

fn blocks(list: &Field, errors: &mut Errors) {
    list.items().for_each(|block| checks::cidr(&block, errors));
    let blocks = list.value.items();
    let parsed = blocks.iter().filter_map(|b| checks::parse_cidr(b.str())).map(|(address, _, _)| address);
    if blocks.len() > 1 && (blocks.len() > 2 || !checks::dual_stack(parsed)) {
        errors.invalid(list, "may specify no more than one CIDR for each IP family");
    }
}

fn addresses(list: &Field, errors: &mut Errors) {
    for (i, address) in list.items().enumerate() {
        if list.value.items()[..i].contains(address.value) {
            errors.duplicate(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};

    fn node(spec: Value, status: Value) -> Value {
        value!({"metadata": {"name": "n", "creationTimestamp": "2025-12-01T00:00:00Z"}, "spec": spec, "status": status})
    }

    #[test]
    fn creation() {
        let cases: Vec<(Value, &[&str])> = vec![
            (node(value!({"podCIDR": "10.0.0.0/24"}), value!({"capacity": {"cpu": "4"}})), &[]),
            (
                node(
                    value!({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b"}]}),
                    value!({}),
                ),
                &[
                    r#"metadata.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a"}: taints must be unique by key and effect pair"#,
                    "metadata.taints[2].effect: Required value",
                ],
            ),
            (
                node(value!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}), value!({})),
                &[
                    r#"spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family"#,
                ],
            ),
            (
                node(value!({}), value!({"capacity": {"cpu": "-1"}})),
                &[
                    r#"status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0"#,
                ],
            ),
            (
                node(value!({}), value!({"declaredFeatures": ["B", "A"]})),
                &[r#"status.declaredFeatures[1]: Invalid value: "A": list must be sorted alphabetically"#],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&Node, object), expected);
        }
    }

    #[test]
    fn updates() {
        let old = || node(value!({"podCIDR": "10.0.0.0/24", "providerID": "a"}), value!({}));
        assert_eq!(update(&Node, "", node(value!({}), value!({})), old()), [""; 0]);
        assert_eq!(
            update(&Node, "", old(), node(value!({"podCIDR": "10.0.1.0/24", "providerID": "b"}), value!({}))),
            [
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid"
            ]
        );
        let address = value!({"type": "InternalIP", "address": "10.0.0.1"});
        assert_eq!(
            update(
                &Node,
                "status",
                old(),
                node(value!({"unschedulable": true}), value!({"addresses": [&address, &address]}))
            ),
            [r#"status.addresses[1]: Duplicate value: {"address":"10.0.0.1","type":"InternalIP"}"#]
        );
    }

    #[test]
    fn defaults() {
        let mut object = node(value!({"podCIDRs": ["10.0.0.0/24"]}), value!({"capacity": {"memory": "1024Ki"}}));
        Node.default(&mut object);
        assert_eq!(object["spec"]["podCIDR"].str(), "10.0.0.0/24");
        assert_eq!(object["status"]["allocatable"], value!({"memory": "1Mi"}));
        assert_eq!(Node.facts(&object).field("spec.unschedulable"), Some("false"));
    }

    #[test]
    fn rows() {
        let mut object = node(
            value!({"unschedulable": true}),
            value!({
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"}}),
        );
        object.set_path(
            &["metadata", "labels"],
            value!({"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}),
        );
        assert_eq!(
            cells(&Node, &object),
            [
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,x",
                "31d",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "<unknown>",
                "6.1 (amd64)",
                "<unknown>"
            ]
        );
        assert_eq!(cells(&Node, &node(value!({}), value!({})))[1..3], ["Unknown", "<none>"]);
    }
}
