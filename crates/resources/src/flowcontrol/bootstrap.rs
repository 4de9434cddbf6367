//! The schemas and levels that every cluster has: two of each that must be as they are, and suggestions.

use super::AUTO_UPDATE;
use canopus_api::{Value, value};

const API: &str = "flowcontrol.apiserver.k8s.io/v1";
const EVERYBODY: &[Who] = &[Who::Group("system:unauthenticated"), Who::Group("system:authenticated")];

enum Who {
    Group(&'static str),
    User(&'static str),
    /// Every service account of kube-system.
    System,
}

/// Name, shares, lendable percent, and queues, hand size and queue length (none: refuse).
type Level = (&'static str, i64, i64, Option<(i64, i64, i64)>);

const LEVELS: &[Level] = &[
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

/// What a schema's one rule is about.
enum What {
    Everything,
    /// Verbs, group, resources, whether cluster-scoped ones too.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
    Probes,
}

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: i64,
    /// What tells its flows apart.
    by: &'static str,
    who: &'static [Who],
    what: What,
}

const fn schema(
    name: &'static str,
    level: &'static str,
    precedence: i64,
    by: &'static str,
    who: &'static [Who],
    what: What,
) -> Schema {
    Schema { name, level, precedence, by, who, what }
}

const CONTROLLERS: &[Who] =
    &[Who::User("system:kube-controller-manager"), Who::User("system:kube-scheduler"), Who::System];
const LEASES: &[(&[&str], &str, &[&str], bool)] =
    &[(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)];
const NODES: &[(&[&str], &str, &[&str], bool)] =
    &[(&["*"], "", &["nodes", "nodes/status"], true), (&["*"], "coordination.k8s.io", &["leases"], false)];

const SCHEMAS: &[Schema] = &[
    schema("exempt", "exempt", 1, "", &[Who::Group("system:masters")], What::Everything),
    schema("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, What::Everything),
    schema("probes", "exempt", 2, "", EVERYBODY, What::Probes),
    schema("system-leader-election", "leader-election", 100, "ByUser", CONTROLLERS, What::Resources(LEASES)),
    schema("system-node-high", "node-high", 400, "ByUser", &[Who::Group("system:nodes")], What::Resources(NODES)),
    schema("system-nodes", "system", 500, "ByUser", &[Who::Group("system:nodes")], What::Everything),
    schema(
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        &[Who::User("system:kube-controller-manager")],
        What::Everything,
    ),
    schema(
        "kube-scheduler",
        "workload-high",
        800,
        "ByNamespace",
        &[Who::User("system:kube-scheduler")],
        What::Everything,
    ),
    schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &[Who::System], What::Everything),
    schema(
        "service-accounts",
        "workload-low",
        9000,
        "ByUser",
        &[Who::Group("system:serviceaccounts")],
        What::Everything,
    ),
    schema("global-default", "global-default", 9900, "ByUser", EVERYBODY, What::Everything),
];

/// All of them with their kinds, the mandatory ones among them.
pub fn objects() -> impl Iterator<Item = (&'static str, Value)> {
    let levels = std::iter::once(exempt()).chain(LEVELS.iter().map(level));
    let levels = levels.map(|object| ("PriorityLevelConfiguration", object));
    levels.chain(SCHEMAS.iter().map(|schema| ("FlowSchema", flow_schema(schema))))
}

/// The object of this kind and name, if it is one that must be as it is.
pub fn mandatory(kind: &str, name: &str) -> Option<Value> {
    if !is_mandatory(name) {
        return None;
    }
    objects().find(|(of, object)| *of == kind && object["metadata"]["name"].str() == name).map(|(_, object)| object)
}

pub fn is_mandatory(name: &str) -> bool {
    matches!(name, "exempt" | "catch-all")
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    value!({"apiVersion": API, "kind": kind, "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn exempt() -> Value {
    let exempt = value!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    object("PriorityLevelConfiguration", "exempt", value!({"type": "Exempt", "exempt": exempt}))
}

fn level((name, shares, lendable, queuing): &Level) -> Value {
    let response = match queuing {
        None => value!({"type": "Reject"}),
        Some((queues, hand, length)) => value!({
            "type": "Queue", "queuing": {"queues": *queues, "handSize": *hand, "queueLengthLimit": *length},
        }),
    };
    let limited =
        value!({"nominalConcurrencyShares": *shares, "lendablePercent": *lendable, "limitResponse": response});
    object("PriorityLevelConfiguration", name, value!({"type": "Limited", "limited": limited}))
}

fn flow_schema(schema: &Schema) -> Value {
    let subjects: Value = schema.who.iter().map(subject).collect();
    let list = |words: &[&str]| words.iter().copied().collect::<Value>();
    let resource = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
        let mut rule = value!({
            "verbs": list(verbs), "apiGroups": [group], "resources": list(resources), "namespaces": ["*"],
        });
        if cluster {
            rule.set("clusterScope", true);
        }
        rule
    };
    let mut rule = value!({"subjects": subjects});
    match &schema.what {
        What::Everything => {
            rule.set("resourceRules", value!([resource(&["*"], "*", &["*"], true)]));
            rule.set("nonResourceRules", value!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]));
        }
        What::Resources(rules) => {
            let rules: Value =
                rules.iter().map(|(verbs, group, names, wide)| resource(verbs, group, names, *wide)).collect();
            rule.set("resourceRules", rules);
        }
        What::Probes => {
            rule.set(
                "nonResourceRules",
                value!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]),
            );
        }
    }
    let mut spec = value!({
        "priorityLevelConfiguration": {"name": schema.level}, "matchingPrecedence": schema.precedence, "rules": [rule],
    });
    if !schema.by.is_empty() {
        spec.set("distinguisherMethod", value!({"type": schema.by}));
    }
    object("FlowSchema", schema.name, spec)
}

fn subject(who: &Who) -> Value {
    match who {
        Who::Group(name) => value!({"kind": "Group", "group": {"name": *name}}),
        Who::User(name) => value!({"kind": "User", "user": {"name": *name}}),
        Who::System => {
            value!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
        }
    }
}
