//! What a pod's author should know though it is allowed (upstream `pkg/api/pod/warnings.go`).

use super::CONTAINER_LISTS;
use super::security::{APPARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use crate::checks::{self, ip_warning};
use canopus_api::{Field, Quantity, Value};
use std::collections::BTreeMap;

/// Warnings about `place`, which is a Pod or a `PodTemplateSpec`.
pub fn of(place: &Field, is_pod: bool) -> Vec<String> {
    let mut out = Vec::new();
    let spec = place.at("spec");
    node_labels(&spec, &mut out);
    annotations(place, &mut out);
    volumes(&spec, &mut out);
    overlaps(spec.value, &mut out);
    duplicates(&spec, &mut out);
    fractions(&spec.at("overhead"), &mut out);
    profiles(place, is_pod, &mut out);
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            let resources = container.at("resources");
            fractions(&resources.at("limits"), &mut out);
            fractions(&resources.at("requests"), &mut out);
            variables(&container.at("env"), &mut out);
        }
    }
    ports(&spec, &mut out);
    let grace = spec.at("terminationGracePeriodSeconds");
    if grace.int() < 0 {
        out.push(format!("{}: must be >= 0; negative values are invalid and will be treated as 1", grace.path()));
    }
    null_selectors(&spec.at("affinity"), &mut out);
    addresses(&spec, &mut out);
    out
}

/// Node labels that have newer names, with what to say about them.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What there is to say about a node label, if anything.
pub fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why)
}

fn node_labels(spec: &Field, out: &mut Vec<String>) {
    for (key, label) in spec.at("nodeSelector").entries() {
        out.extend(old_label(key).map(|why| format!("{}: {why}", label.path())));
    }
    let affinity = spec.at("affinity");
    let node = affinity.at("nodeAffinity");
    let required = node.at("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.at("nodeSelectorTerms").items() {
        node_selector_term(&term, false, out);
    }
    for term in node.at("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_selector_term(&term.at("preference"), true, out);
    }
    for constraint in spec.at("topologySpreadConstraints").items() {
        let (topology, selector) = (constraint.at("topologyKey"), constraint.at("labelSelector"));
        out.extend(old_label(topology.str()).map(|why| format!("{}: {} is {why}", topology.path(), topology.str())));
        if selector.is_unset() {
            out.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
        }
    }
}

/// Deprecated labels, and on demand bad values, in a node selector term.
pub fn node_selector_term(term: &Field, check_values: bool, out: &mut Vec<String>) {
    for expression in term.at("matchExpressions").items() {
        let key = expression.at("key");
        out.extend(old_label(key.str()).map(|why| format!("{}: {} is {why}", key.path(), key.str())));
        for value in expression.at("values").items().filter(|_| check_values) {
            for why in canopus_api::names::label_value(value.str()) {
                out.push(format!("{}: {:?} is invalid, {why}", value.path(), value.str()));
            }
        }
    }
}

fn annotations(place: &Field, out: &mut Vec<String>) {
    const OLD: &[(&str, &str)] = &[
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ];
    let meta = place.at("metadata");
    let annotations = meta.at("annotations");
    for (key, why) in OLD {
        let annotation = annotations.key(key);
        if annotation.is_set() {
            out.push(format!("{}: {why}", annotation.path()));
        }
    }
}

fn volumes(spec: &Field, out: &mut Vec<String>) {
    /// Source, its name in upstream's path, and its fate.
    const OLD: &[(&str, &str, &str)] = &[
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for volume in spec.at("volumes").items() {
        for (source, shown, why) in OLD {
            if !volume.value[*source].is_null() {
                out.push(format!("{}: {why}", volume.at(shown).path()));
            }
        }
        let ephemeral = volume.at("ephemeral");
        let template = ephemeral.at("volumeClaimTemplate");
        let claim = template.at("spec");
        let resources = claim.at("resources");
        let requests = resources.at("requests");
        let storage = requests.key("storage");
        out.extend(fraction(&storage));
    }
}

fn fraction(field: &Field) -> Option<String> {
    let quantity = Quantity::from_value(field.value).filter(|q| q.milli_value() % 1000 != 0)?;
    Some(format!("{}: fractional byte value \"{quantity}\" is invalid, must be an integer", field.path()))
}

fn fractions(list: &Field, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        out.extend(fraction(&list.key(name)));
    }
}

fn duplicates(spec: &Field, out: &mut Vec<String>) {
    for (list, field, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let mut seen = checks::Seen::new();
        for item in spec.at(list).items() {
            let key = item.at(field);
            if !seen.insert(key.str().into()) {
                out.push(format!("{}: duplicate {what} {:?}", key.path(), key.str()));
            }
        }
    }
    for secret in spec.at("imagePullSecrets").items().filter(|s| s.value["name"].str().is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", secret.at("name").path()));
    }
}

/// Annotations about seccomp and AppArmor that have no field beside them.
fn profiles(place: &Field, is_pod: bool, out: &mut Vec<String>) {
    let meta = place.at("metadata");
    let annotations = meta.at("annotations");
    let mut warn = |key: &str, why: &str| {
        let annotation = annotations.key(key);
        if annotation.is_set() {
            out.push(format!("{}: {why}", annotation.path()));
        }
    };
    const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let of_pod = &place.value["spec"]["securityContext"];
    if of_pod["seccompProfile"].is_null() {
        warn(SECCOMP_POD, SECCOMP);
    }
    for container in super::each_container(&place.value["spec"]) {
        let (name, own) = (container["name"].str(), &container["securityContext"]);
        if own["seccompProfile"].is_null() {
            warn(&format!("{SECCOMP_CONTAINER}{name}"), SECCOMP);
        }
        if !is_pod && own["appArmorProfile"].is_null() && of_pod["appArmorProfile"].is_null() {
            let why = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            warn(&format!("{APPARMOR}{name}"), why);
        }
    }
}

fn variables(env: &Field, out: &mut Vec<String>) {
    let mut seen = checks::Seen::new();
    for variable in env.items() {
        let (name, text) = (variable.value["name"].str(), variable.value["value"].str());
        if seen.insert(name.into()) {
            continue;
        }
        let reference = format!("$({name})");
        if !variable.value["valueFrom"].is_null() || text == reference || !text.contains(&reference) {
            let path = variable.path();
            out.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn ports(spec: &Field, out: &mut Vec<String>) {
    let mut seen: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut of_names = Vec::new();
    for (list, containers) in CONTAINER_LISTS.map(|list| (spec.at(list), &spec.value[list])) {
        for (container, tree) in list.items().zip(containers.items()) {
            for (port, tree) in container.at("ports").items().zip(tree["ports"].items()) {
                let path = port.path();
                let key = (tree["containerPort"].int(), tree["protocol"].str());
                let others = seen.entry(key).or_default();
                for (other_path, other) in others.iter() {
                    out.extend(
                        collision(tree, other).map(|what| format!("{path}: {what} port definition with {other_path}")),
                    );
                }
                others.push((path.clone(), tree));
                let name = tree["name"].str();
                match names.get(name) {
                    Some(other) => of_names.push(format!(
                        "{path}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
                    )),
                    None if !name.is_empty() => drop(names.insert(name, path)),
                    None => {}
                }
            }
        }
    }
    out.append(&mut of_names);
}

/// How two definitions of the same port of a pod get in each other's way.
fn collision(a: &Value, b: &Value) -> Option<&'static str> {
    let (host_a, host_b) = (a["hostPort"].int(), b["hostPort"].int());
    let (ip_a, ip_b) = (a["hostIP"].str(), b["hostIP"].str());
    match () {
        _ if ip_a == ip_b && host_a == host_b => Some("duplicate"),
        _ if host_a == 0 || host_b == 0 => Some("overlapping"),
        _ if host_a == host_b && ip_a.is_empty() != ip_b.is_empty() => Some("dangerously ambiguous"),
        _ => None,
    }
}

fn null_selectors(affinity: &Field, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        let mut warn = |term: &Field| {
            let selector = term.at("labelSelector");
            if selector.is_unset() {
                out.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
            }
        };
        pods.at("requiredDuringSchedulingIgnoredDuringExecution").items().for_each(|term| warn(&term));
        for term in pods.at("preferredDuringSchedulingIgnoredDuringExecution").items() {
            warn(&term.at("podAffinityTerm"));
        }
    }
}

fn addresses(spec: &Field, out: &mut Vec<String>) {
    for server in spec.at("dnsConfig").at("nameservers").items() {
        out.extend(ip_warning(&server.path(), server.str()));
    }
    for alias in spec.at("hostAliases").items() {
        let ip = alias.at("ip");
        out.extend(ip_warning(&ip.path(), ip.str()));
    }
}

/// A path in a volume and, in projected ones, what puts a file there.
#[derive(Clone, PartialEq)]
struct Origin {
    path: String,
    source: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source.as_str() {
            "" => write!(f, "{:?}", self.path),
            source => write!(f, "{:?} ({source})", self.path),
        }
    }
}

fn items(list: &Value, source: &str) -> Vec<Origin> {
    let origin = |item: &Value| Origin { path: item["path"].str().trim_end_matches('/').into(), source: source.into() };
    list.items().iter().map(origin).collect()
}

/// Files that would be written over, or where a directory is needed.
fn overlaps(spec: &Value, out: &mut Vec<String>) {
    for volume in spec["volumes"].items() {
        let simple = [
            ("configMap", format!("ConfigMap {:?}", volume["configMap"]["name"].str())),
            ("secret", format!("Secret {:?}", volume["secret"]["secretName"].str())),
            ("downwardAPI", "DownwardAPI".into()),
        ];
        for (kind, what) in simple {
            collide(volume, &what, vec![items(&volume[kind]["items"], "")], out);
        }
        let mut parts = Vec::new();
        for source in volume["projected"]["sources"].items() {
            if source.is_empty() {
                out.push(format!("volume {:?} (Projected) has no sources provided", volume["name"].str()));
            }
            let name = |kind: &str| source[kind]["name"].str();
            let token = &source["serviceAccountToken"];
            if !source["configMap"]["items"].is_null() {
                parts.push(items(&source["configMap"]["items"], &format!("ConfigMap {:?}", name("configMap"))));
            } else if !source["secret"]["items"].is_null() {
                parts.push(items(&source["secret"]["items"], &format!("Secret {:?}", name("secret"))));
            } else if !source["downwardAPI"]["items"].is_null() {
                parts.push(items(&source["downwardAPI"]["items"], "DownwardAPI"));
            } else if !token.is_null() {
                parts.push(items(&canopus_api::value!([token]), "ServiceAccountToken"));
            }
        }
        collide(volume, "Projected", parts, out);
    }
}

fn collide(volume: &Value, what: &str, parts: Vec<Vec<Origin>>, out: &mut Vec<String>) {
    let mut seen: Vec<Origin> = Vec::new();
    for origin in parts.into_iter().flatten() {
        let within = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
        let hits = |other: &&Origin| {
            let (a, b) = (other.path.as_str(), origin.path.as_str());
            !a.is_empty() && !b.is_empty() && (within(a, b) || within(b, a))
        };
        for other in seen.iter().filter(hits) {
            let name = volume["name"].str();
            out.push(format!("volume {name:?} ({what}): overlapping paths: {origin} with {other}"));
        }
        seen.push(origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn each() {
        let env = value!([{"name": "X", "value": "1"}, {"name": "X", "value": "$(X)2"}, {"name": "X", "value": "3"}]);
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                &[
                    r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                ],
            ),
            (
                value!({"containers": [{"env": env}]}),
                &[
                    r#"spec.containers[0].env[2]: hides previous definition of "X", which may be dropped when using apply"#,
                ],
            ),
            (
                value!({"containers": [{"resources": {"limits": {"memory": "100m"}}}]}),
                &[
                    r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
                ],
            ),
            (
                value!({"volumes": [{"name": "v", "gitRepo": {}}]}),
                &["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
            ),
            (
                value!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"path": "a"}, {"path": "a/b"}]}}]}),
                &[r#"volume "v" (ConfigMap "c"): overlapping paths: "a/b" with "a""#],
            ),
            (
                value!({"containers": [{"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 80, "name": "web"}]}]}),
                &[
                    "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                    r#"spec.containers[0].ports[1]: duplicate port name "web" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
                ],
            ),
            (
                value!({"dnsConfig": {"nameservers": ["010.0.0.1"]}, "terminationGracePeriodSeconds": -1}),
                &[
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                    r#"spec.dnsConfig.nameservers[0]: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#,
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(of(&Field::root(&value!({"spec": spec})), true), expected);
        }
    }
}
