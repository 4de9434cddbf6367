//! One RBAC `PolicyRule`: whom it lets do what (upstream `rbac/v1/evaluation_helpers.go`), and what it covers.

use super::Attributes;
use canopus_api::{Value, value};
use compact_str::CompactString;

const ALL: &str = "*";

type Strings = Box<[CompactString]>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub verbs: Strings,
    pub api_groups: Strings,
    pub resources: Strings,
    pub resource_names: Strings,
    pub non_resource_urls: Strings,
}

impl Rule {
    pub fn from_value(rule: &Value) -> Rule {
        let strings = |v: &Value| v.items().iter().map(|s| s.str().into()).collect();
        Rule {
            verbs: strings(&rule["verbs"]),
            api_groups: strings(&rule["apiGroups"]),
            resources: strings(&rule["resources"]),
            resource_names: strings(&rule["resourceNames"]),
            non_resource_urls: strings(&rule["nonResourceURLs"]),
        }
    }

    /// A rule about resources.
    pub fn new(verbs: &[&str], api_groups: &[&str], resources: &[&str]) -> Rule {
        let strings = |list: &[&str]| list.iter().map(|s| CompactString::from(*s)).collect();
        Rule {
            verbs: strings(verbs),
            api_groups: strings(api_groups),
            resources: strings(resources),
            ..Rule::default()
        }
    }

    pub fn allows(&self, a: &Attributes) -> bool {
        if !has_or_all(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.non_resource_urls.iter().any(|url| url == ALL || url_covers(url, a.path));
        }
        has_or_all(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, a.name))
    }

    /// Its smallest parts: one verb on one resource (by one name), or on one path.
    pub fn parts(&self) -> Vec<Rule> {
        let one = |s: &CompactString| -> Strings { Box::new([s.clone()]) };
        let mut parts = Vec::new();
        for (group, resource) in self.api_groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
            for verb in &self.verbs {
                let part =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if self.resource_names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(self.resource_names.iter().map(|n| Rule { resource_names: one(n), ..part.clone() }));
            }
        }
        for url in &self.non_resource_urls {
            let part = |verb| Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() };
            parts.extend(self.verbs.iter().map(part));
        }
        parts
    }

    /// Whether this rule grants all that `part`, one of [`Rule::parts`], does.
    pub fn covers(&self, part: &Rule) -> bool {
        let all = |own: &Strings, wanted: &Strings| has(own, ALL) || wanted.iter().all(|w| has(own, w));
        let resource = |wanted: &CompactString| {
            has(&self.resources, ALL)
                || has(&self.resources, wanted)
                || wanted.split_once('/').is_some_and(|(_, sub)| self.resources.iter().any(|r| is_all_of(r, sub)))
        };
        let names = self.resource_names.is_empty()
            || !part.resource_names.is_empty() && part.resource_names.iter().all(|n| has(&self.resource_names, n));
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(resource)
            && names
            && part.non_resource_urls.iter().all(|p| self.non_resource_urls.iter().any(|own| url_covers(own, p)))
    }

    /// As a PolicyRule.
    pub fn to_value(&self) -> Value {
        let fields = [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        let set = fields.into_iter().filter(|(_, list)| !list.is_empty());
        Value::Object(
            set.map(|(name, list)| (CompactString::from(name), list.iter().cloned().collect::<Value>())).collect(),
        )
    }

    /// How upstream prints a rule in messages about escalation.
    pub fn compact(&self) -> String {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let set = fields.iter().filter(|(_, list)| !list.is_empty());
        let texts: Vec<String> = set.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
        format!("{{{}}}", texts.join(", "))
    }

    /// A `ResourceRule` and a `NonResourceRule` as SelfSubjectRulesReview lists them; Null where it has none.
    pub fn review(&self) -> (Value, Value) {
        let list = |strings: &Strings| strings.iter().cloned().collect::<Value>();
        let mut resource = Value::Null;
        if !self.resources.is_empty() {
            resource = value!({
                "verbs": list(&self.verbs), "apiGroups": list(&self.api_groups), "resources": list(&self.resources),
            });
            if !self.resource_names.is_empty() {
                resource.set("resourceNames", list(&self.resource_names));
            }
        }
        let other = match self.non_resource_urls.is_empty() {
            true => Value::Null,
            false => value!({"verbs": list(&self.verbs), "nonResourceURLs": list(&self.non_resource_urls)}),
        };
        (resource, other)
    }
}

/// `["a" "b"]`, as Go prints strings with %q.
pub fn quoted(list: &[CompactString]) -> String {
    let texts: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", texts.join(" "))
}

fn has(list: &[CompactString], wanted: &str) -> bool {
    list.iter().any(|s| s == wanted)
}

fn has_or_all(list: &[CompactString], wanted: &str) -> bool {
    list.iter().any(|s| s == ALL || s == wanted)
}

/// Whether `rule` is `*/sub`.
fn is_all_of(rule: &str, sub: &str) -> bool {
    rule.strip_prefix("*/") == Some(sub)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    is_all_of(rule, subresource) || rule.split_once('/') == Some((resource, subresource))
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::User;

    fn rule(json: &str) -> Rule {
        Rule::from_value(&canopus_api::json::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn allows() {
        let pods = r#"{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}"#;
        let scale = r#"{"verbs":["update"],"apiGroups":["*"],"resources":["*/scale","pods/log"]}"#;
        let named = r#"{"verbs":["*"],"apiGroups":[""],"resources":["*"],"resourceNames":["a"]}"#;
        let urls = r#"{"verbs":["get"],"nonResourceURLs":["/healthz","/api/*"]}"#;
        // rule, verb, group, resource, subresource, name or path, allowed
        let cases = [
            (pods, "get", "", "pods", "", "x", true),
            (pods, "watch", "", "pods", "", "", false),
            (pods, "get", "apps", "pods", "", "", false),
            (pods, "get", "", "pods", "log", "", false),
            (scale, "update", "apps", "deployments", "scale", "", true),
            (scale, "update", "", "pods", "log", "", true),
            (scale, "update", "", "nodes", "log", "", false),
            (scale, "update", "apps", "scale", "", "", false),
            (named, "delete", "", "secrets", "", "a", true),
            (named, "delete", "", "secrets", "", "b", false),
            (named, "list", "", "secrets", "", "", false),
            (urls, "get", "", "", "", "/healthz", true),
            (urls, "get", "", "", "", "/healthz/x", false),
            (urls, "get", "", "", "", "/api/v1", true),
            (urls, "post", "", "", "", "/api/v1", false),
        ];
        let user = User::new("u", &[]);
        for (text, verb, group, resource, subresource, name, allowed) in cases {
            let a = Attributes {
                is_resource: !resource.is_empty(),
                group,
                resource,
                subresource,
                name: if resource.is_empty() { "" } else { name },
                ..Attributes::path(&user, verb, name)
            };
            assert_eq!(rule(text).allows(&a), allowed, "{text} {verb} {resource}/{subresource} {name}");
        }
    }

    #[test]
    fn covers() {
        let cases = [
            (
                r#"{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}"#,
                r#"{"verbs":["get"],"apiGroups":["a"],"resources":["b/c"]}"#,
                0,
            ),
            (
                r#"{"verbs":["get"],"apiGroups":["a"],"resources":["*/c"]}"#,
                r#"{"verbs":["get"],"apiGroups":["a"],"resources":["b/c","b"]}"#,
                1,
            ),
            (
                r#"{"verbs":["get"],"apiGroups":[""],"resources":["b"],"resourceNames":["x"]}"#,
                r#"{"verbs":["get"],"apiGroups":[""],"resources":["b"]}"#,
                1,
            ),
            (
                r#"{"verbs":["get"],"apiGroups":[""],"resources":["b"]}"#,
                r#"{"verbs":["get"],"apiGroups":[""],"resources":["b"],"resourceNames":["x"]}"#,
                0,
            ),
            (
                r#"{"verbs":["get"],"nonResourceURLs":["/a/*"]}"#,
                r#"{"verbs":["get","post"],"nonResourceURLs":["/a/b","/c"]}"#,
                3,
            ),
        ];
        for (owner, wanted, missing) in cases {
            let owner = rule(owner);
            assert_eq!(rule(wanted).parts().iter().filter(|p| !owner.covers(p)).count(), missing, "{wanted}");
        }
        let text = rule(r#"{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}"#).compact();
        assert_eq!(text, r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#);
    }
}
