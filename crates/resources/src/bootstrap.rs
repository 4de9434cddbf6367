//! What a cluster has from its first start: the system's namespaces, priority classes and RBAC policy.
//!
//! The policy is text, a line for each rule:
//!
//! ```text
//! clusterrole NAME [to=ROLE] [gathers=ROLE]      a ClusterRole that is aggregated to one role, or gathered from others
//! controller NAME                                a ClusterRole system:controller:NAME, bound to the account NAME in kube-system
//! role NAMESPACE NAME                            a Role
//!   VERB,VERB GROUP,GROUP RESOURCE RESOURCE [named NAME NAME]
//!   VERB,VERB urls URL URL
//!   events                                       events may be recorded
//!   bound [as=NAME] [user=NAME] [group=NAME] [account=NAMESPACE/NAME]
//! ```
//!
//! A header or rule that ends with `if=GATE` holds only while that feature gate is on. The group `core` is the one without a name; `read`, `write` and `readwrite` stand for the usual verbs.

use crate::core::namespace::Namespace;
use crate::rbac::{
    GROUP, clusterrole::ClusterRole, clusterrolebinding::ClusterRoleBinding, role::Role, rolebinding::RoleBinding,
};
use crate::resource::Resource;
use crate::scheduling::priorityclass::{self, PriorityClass};
use canopus_api::gates::Gates;
use canopus_api::{Gvr, Value, value};

pub const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

const POLICY: &[&str] = &[include_str!("bootstrap/policy.txt"), include_str!("bootstrap/controllers.txt")];
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Everything, in the order to create it: namespaces first. Objects have apiVersion, kind and what an author would write;
/// defaulting them and stamping their metadata is the API server's work, as is leaving alone what exists. RBAC objects
/// have the annotation `rbac.authorization.kubernetes.io/autoupdate`: rules that they lack may be added at a later start.
pub fn objects(gates: &Gates) -> Vec<(Gvr, Value)> {
    let mut objects = Vec::new();
    for name in NAMESPACES {
        add(&mut objects, &Namespace, value!({"metadata": {"name": (*name)}}));
    }
    for (name, value, description) in priorityclass::SYSTEM {
        let class = value!({"metadata": {"name": (*name)}, "value": (*value), "description": (*description)});
        add(&mut objects, &PriorityClass, class);
    }
    POLICY.iter().flat_map(|text| blocks(text)).for_each(|block| policy(&block, gates, &mut objects));
    objects
}

fn add(objects: &mut Vec<(Gvr, Value)>, resource: &dyn Resource, mut object: Value) {
    let info = resource.info();
    object.set("apiVersion", info.gvk().api_version());
    object.set("kind", info.kind);
    objects.push((info.gvr(), object));
}

/// Paragraphs of words: the first line is the header.
fn blocks(text: &'static str) -> Vec<Vec<Vec<&'static str>>> {
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.lines().filter(|line| !line.starts_with('#')));
    paragraphs.map(|lines| lines.map(words).collect::<Vec<_>>()).filter(|block| !block.is_empty()).collect()
}

/// A line without its condition; None: it does not hold.
fn holding<'a>(line: &'a [&'a str], gates: &Gates) -> Option<&'a [&'a str]> {
    match line {
        [rest @ .., last] => match last.strip_prefix("if=") {
            Some(gate) => gates.enabled(gate).then_some(rest),
            None => Some(line),
        },
        [] => None,
    }
}

/// Adds a role and its binding.
fn policy(block: &[Vec<&str>], gates: &Gates, objects: &mut Vec<(Gvr, Value)>) {
    let [header, lines @ ..] = block else { return };
    let Some(header) = holding(header, gates) else { return };
    let lines: Vec<&[&str]> = lines.iter().filter_map(|line| holding(line, gates)).collect();
    let (namespace, name, options) = match header {
        ["controller", name] => ("", format!("system:controller:{name}"), &[][..]),
        ["clusterrole", name, options @ ..] => ("", name.to_string(), options),
        ["role", namespace, name] => (*namespace, name.to_string(), &[][..]),
        _ => return,
    };
    let (role_kind, binding_kind): (&dyn Resource, &dyn Resource) =
        if namespace.is_empty() { (&ClusterRole, &ClusterRoleBinding) } else { (&Role, &RoleBinding) };

    let rules: Vec<Value> = lines.iter().filter(|line| line[0] != "bound").map(|line| rule(line)).collect();
    let mut role = value!({"metadata": (metadata(namespace, &name)), "rules": rules});
    for option in options {
        match option.split_once('=') {
            Some(("to", other)) => role.obj_mut("metadata").entry("labels", Value::object).set(&label(other), "true"),
            Some(("gathers", other)) => {
                let selector = value!({"matchLabels": {(label(other)): "true"}});
                role.set("aggregationRule", value!({"clusterRoleSelectors": [selector]}));
                role.remove("rules");
            }
            _ => {}
        }
    }
    add(objects, role_kind, role);

    let account = format!("account=kube-system/{}", header[1]);
    let bound = match lines.iter().find(|line| line[0] == "bound") {
        Some(line) => line[1..].to_vec(),
        None if header[0] == "controller" => vec![account.as_str()],
        None => return,
    };
    let own_name = bound.iter().find_map(|word| word.strip_prefix("as=")).unwrap_or(&name);
    let mut binding = value!({
        "metadata": (metadata(namespace, own_name)),
        "roleRef": {"apiGroup": GROUP, "kind": (role_kind.info().kind), "name": (&name)},
    });
    let subjects: Vec<Value> = bound.iter().filter_map(|word| subject(word)).collect();
    if !subjects.is_empty() {
        binding.set("subjects", subjects);
    }
    add(objects, binding_kind, binding);
}

fn label(role: &str) -> String {
    format!("{AGGREGATE}{role}")
}

fn metadata(namespace: &str, name: &str) -> Value {
    let mut meta = value!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        meta.set("namespace", namespace);
    }
    meta
}

fn rule(line: &[&str]) -> Value {
    match line {
        ["events"] => rule(&["create,patch,update", "core,events.k8s.io", "events"]),
        [verb, "urls", urls @ ..] => value!({"verbs": (verbs(verb)), "nonResourceURLs": (list(urls))}),
        [verb, groups, rest @ ..] => {
            let groups: Vec<&str> = groups.split(',').map(|group| if group == "core" { "" } else { group }).collect();
            let (resources, names) = match rest.iter().position(|word| *word == "named") {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, &[][..]),
            };
            let mut rule = value!({"verbs": (verbs(verb)), "apiGroups": groups, "resources": (list(resources))});
            if !names.is_empty() {
                rule.set("resourceNames", list(names));
            }
            rule
        }
        _ => Value::Null,
    }
}

fn list(words: &[&str]) -> Value {
    words.iter().copied().collect()
}

fn verbs(word: &str) -> Value {
    match word {
        "read" => list(READ),
        "write" => list(WRITE),
        "readwrite" => list(READ_WRITE),
        some => some.split(',').collect(),
    }
}

fn subject(word: &str) -> Option<Value> {
    let (kind, name) = word.split_once('=')?;
    match (kind, name.split_once('/')) {
        ("user", _) => Some(value!({"kind": "User", "apiGroup": GROUP, "name": name})),
        ("group", _) => Some(value!({"kind": "Group", "apiGroup": GROUP, "name": name})),
        ("account", Some((namespace, name))) => {
            Some(value!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checks, find, metadata, testing};
    use canopus_api::{Errors, Field, gates};

    fn found(kind: &str, name: &str) -> Value {
        let is = |object: &Value| object["kind"].str() == kind && object["metadata"]["name"].str() == name;
        objects(&Gates::default()).into_iter().map(|(_, object)| object).find(is).unwrap_or_default()
    }

    #[test]
    fn everything_is_valid_and_there_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (gvr, object) in objects(&Gates::default()) {
            let resource = find(&gvr.group, &gvr.version, &gvr.resource).unwrap();
            let info = resource.info();
            assert_eq!(testing::create(resource, object.clone()), Vec::<String>::new(), "{object:?}");
            let (root, mut errors) = (Field::root(&object), Errors::new());
            metadata::validate(&root.at("metadata"), info, &mut errors);
            assert_eq!(checks::texts(&errors), Vec::<String>::new());
            let meta = &object["metadata"];
            assert!(seen.insert((info.kind, meta["namespace"].str().to_string(), meta["name"].str().to_string())));
        }
        let count = |kind: &str| seen.iter().filter(|(k, ..)| *k == kind).count();
        let kinds = ["Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
        assert_eq!(kinds.map(count), [4, 2, 69, 50, 7, 7]);
    }

    #[test]
    fn no_word_is_misunderstood() {
        for line in POLICY.iter().flat_map(|text| blocks(text)).flatten() {
            let gate = line.last().and_then(|word| word.strip_prefix("if="));
            assert!(gate.is_none_or(|gate| gates::all().any(|known| known.name == gate)), "{line:?}");
            let line = if gate.is_some() { &line[..line.len() - 1] } else { &line[..] };
            let known = match line[0] {
                "clusterrole" => line[2..].iter().all(|word| word.starts_with("to=") || word.starts_with("gathers=")),
                "controller" => line.len() == 2,
                "role" => line.len() == 3,
                "bound" => line[1..].iter().all(|word| word.starts_with("as=") || subject(word).is_some()),
                _ => !rule(line).is_null(),
            };
            assert!(known, "{line:?}");
        }
    }

    #[test]
    fn what_gates_add() {
        let with = |flag: &str| objects(&Gates::parse(flag).unwrap()).into_iter().map(|(_, o)| o).collect::<Vec<_>>();
        let named = |all: &[Value], kind: &str, name: &str| {
            all.iter().find(|o| o["kind"].str() == kind && o["metadata"]["name"].str() == name).cloned()
        };
        let (discovery, cleaner) =
            ("system:cluster-trust-bundle-discovery", "system:controller:podcertificaterequestcleaner");
        let usual = with("");
        assert!(named(&usual, "ClusterRole", discovery).is_none() && named(&usual, "ClusterRole", cleaner).is_none());
        let bundles = with("ClusterTrustBundle=true");
        assert_eq!(
            named(&bundles, "ClusterRoleBinding", discovery).unwrap()["subjects"][0]["name"].str(),
            "system:serviceaccounts"
        );
        let rules = |all: &[Value]| named(all, "ClusterRole", "system:node").unwrap()["rules"].items().len();
        assert_eq!(rules(&bundles), rules(&usual) + 1);
        let cleaner = named(&with("PodCertificateRequest=true"), "ClusterRoleBinding", cleaner).unwrap();
        assert_eq!(cleaner["subjects"][0]["name"].str(), "podcertificaterequestcleaner");
    }

    #[test]
    fn some_of_the_policy() {
        let role = found("Role", "system:controller:token-cleaner");
        assert_eq!(
            role["rules"],
            value!([
                {"verbs": ["delete", "get", "list", "watch"], "apiGroups": [""], "resources": ["secrets"]},
                {"verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"], "resources": ["events"]},
            ])
        );
        let edit = found("ClusterRole", "edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"].str(), "true");
        let selectors = value!([{"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}]);
        assert_eq!(edit["aggregationRule"]["clusterRoleSelectors"], selectors);
        let admin = found("ClusterRoleBinding", "cluster-admin");
        assert_eq!(admin["subjects"][0], value!({"kind": "Group", "apiGroup": GROUP, "name": "system:masters"}));
        assert_eq!(found("ClusterRoleBinding", "system:node")["subjects"], Value::Null);
        let jobs = found("ClusterRoleBinding", "system:controller:job-controller");
        assert_eq!(
            jobs["subjects"][0],
            value!({"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"})
        );
        let named = found("RoleBinding", "system::extension-apiserver-authentication-reader");
        assert_eq!(named["roleRef"]["name"].str(), "extension-apiserver-authentication-reader");
    }
}
