//! Which FlowSchema a request belongs to.

use crate::request_info::RequestInfo;
use crate::user::User;
use canopus_api::Value;
use compact_str::CompactString;

/// A FlowSchema's rules, made ready.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug, PartialEq)]
enum Subject {
    User(CompactString),
    Group(CompactString),
    /// Namespace and name.
    ServiceAccount(CompactString, CompactString),
}

/// `*` matches all.
#[derive(Debug)]
enum Words {
    All,
    Some(Vec<CompactString>),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    cluster: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Words,
    paths: Words,
}

impl Words {
    fn new(list: &Value) -> Words {
        match list.items() {
            [only] if only.str() == "*" => Words::All,
            items => Words::Some(items.iter().map(|item| item.str().into()).collect()),
        }
    }

    fn has(&self, word: &str) -> bool {
        match self {
            Words::All => true,
            Words::Some(words) => words.iter().any(|known| known == word),
        }
    }
}

impl Subject {
    fn new(subject: &Value) -> Option<Subject> {
        match subject["kind"].str() {
            "User" => Some(Subject::User(subject["user"]["name"].str().into())),
            "Group" => Some(Subject::Group(subject["group"]["name"].str().into())),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                Some(Subject::ServiceAccount(account["namespace"].str().into(), account["name"].str().into()))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::ServiceAccount(namespace, name) => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(of, called)| of == namespace && (name == "*" || called == name))
            }
        }
    }
}

impl Rules {
    /// Of a FlowSchema's `spec.rules`.
    pub(super) fn new(rules: &Value) -> Rules {
        let rule = |rule: &Value| Rule {
            subjects: rule["subjects"].items().iter().filter_map(Subject::new).collect(),
            resources: rule["resourceRules"].items().iter().map(ResourceRule::new).collect(),
            paths: rule["nonResourceRules"].items().iter().map(PathRule::new).collect(),
        };
        Rules(rules.items().iter().map(rule).collect())
    }

    pub(super) fn matches(&self, info: &RequestInfo, user: &User) -> bool {
        self.0.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(user))
                && match info.is_resource {
                    true => rule.resources.iter().any(|rule| rule.matches(info)),
                    false => rule.paths.iter().any(|rule| rule.matches(info)),
                }
        })
    }
}

impl ResourceRule {
    fn new(rule: &Value) -> ResourceRule {
        ResourceRule {
            verbs: Words::new(&rule["verbs"]),
            groups: Words::new(&rule["apiGroups"]),
            resources: Words::new(&rule["resources"]),
            namespaces: Words::new(&rule["namespaces"]),
            cluster: rule["clusterScope"].bool(),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let target = &info.target;
        self.verbs.has(&info.verb)
            && self.has_resource(&target.gvr.resource, &target.subresource)
            && self.groups.has(&target.gvr.group)
            && if target.namespace.is_empty() { self.cluster } else { self.namespaces.has(&target.namespace) }
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        match &self.resources {
            Words::All => true,
            words if subresource.is_empty() => words.has(resource),
            words => words.has(&compact_str::format_compact!("{resource}/{subresource}")),
        }
    }
}

impl PathRule {
    fn new(rule: &Value) -> PathRule {
        PathRule { verbs: Words::new(&rule["verbs"]), paths: Words::new(&rule["nonResourceURLs"]) }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.has(&info.verb)
            && match &self.paths {
                Words::All => true,
                Words::Some(paths) => paths.iter().any(|path| below(path, &info.path)),
            }
    }
}

/// Whether `path` is `rule` or lies below it.
fn below(rule: &str, path: &str) -> bool {
    let prefix = rule.strip_suffix('*').unwrap_or(rule);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    rule == "*" || rule == path || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::parse;
    use canopus_api::value;
    use canopus_resources::flowcontrol::bootstrap;

    /// The schema of the bootstrap set that gets a request.
    fn schema(user: &str, groups: &[&str], method: &str, path: &str) -> String {
        let mut schemas: Vec<Value> =
            bootstrap::objects().filter(|(kind, _)| *kind == "FlowSchema").map(|(_, object)| object).collect();
        schemas.sort_by_key(|s| (s["spec"]["matchingPrecedence"].int(), s["metadata"]["name"].str().to_owned()));
        let (info, user) = (parse(method, path, ""), User::new(user, groups));
        let found = schemas.iter().find(|s| Rules::new(&s["spec"]["rules"]).matches(&info, &user));
        found.map_or_else(String::new, |s| s["metadata"]["name"].str().to_owned())
    }

    #[test]
    fn the_usual_requests() {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        for (user, groups, method, path, expected) in [
            ("root", &["system:masters"][..], "GET", "/api/v1/pods", "exempt"),
            ("ann", &[], "GET", "/healthz", "probes"),
            ("ann", &[], "GET", "/readyz/ping", "probes"),
            ("ann", &[], "GET", "/readyzz", "global-default"),
            ("ann", &[], "GET", "/api/v1/namespaces/a/pods", "global-default"),
            ("system:kube-scheduler", &[], "PUT", lease, "system-leader-election"),
            ("system:kube-scheduler", &[], "DELETE", lease, "kube-scheduler"),
            ("system:node:n", &["system:nodes"], "PUT", lease, "system-node-high"),
            ("system:node:n", &["system:nodes"], "PATCH", "/api/v1/nodes/n/status", "system-node-high"),
            ("system:node:n", &["system:nodes"], "GET", "/api/v1/pods", "system-nodes"),
            (
                "system:serviceaccount:kube-system:dns",
                &["system:serviceaccounts"],
                "GET",
                "/api/v1/pods",
                "kube-system-service-accounts",
            ),
            (
                "system:serviceaccount:kube-systemx:dns",
                &["system:serviceaccounts"],
                "GET",
                "/api/v1/pods",
                "service-accounts",
            ),
        ] {
            assert_eq!(schema(user, groups, method, path), expected, "{user} {method} {path}");
        }
    }

    #[test]
    fn words_are_exact() {
        let rules = |resources: Value, namespaces: Value| {
            Rules::new(&value!([{
                "subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": resources, "namespaces": namespaces}],
            }]))
        };
        let matches =
            |rules: &Rules, method: &str, path: &str| rules.matches(&parse(method, path, ""), &User::new("ann", &[]));
        let pods = rules(value!(["pods"]), value!(["a"]));
        assert!(matches(&pods, "GET", "/api/v1/namespaces/a/pods/x"));
        assert!(!matches(&pods, "GET", "/api/v1/namespaces/a/pods/x/log"));
        assert!(!matches(&pods, "GET", "/api/v1/namespaces/b/pods/x"));
        assert!(!matches(&pods, "PUT", "/api/v1/namespaces/a/pods/x"));
        let logs = rules(value!(["pods/log"]), value!(["*"]));
        assert!(matches(&logs, "GET", "/api/v1/namespaces/a/pods/x/log"));
        // Cluster-scoped only if the rule says so.
        assert!(!matches(&rules(value!(["nodes"]), value!(["*"])), "GET", "/api/v1/nodes/n"));
    }
}
