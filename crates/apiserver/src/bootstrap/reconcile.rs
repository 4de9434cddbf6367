//! RBAC objects that exist are brought up to date at every start: rules, subjects, labels and annotations that they lack
//! are added, nothing is taken away (upstream `rbac/reconciliation`).

use crate::authz::rule::Rule;
use canopus_api::{Map, Value};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What is to be done about an existing role or binding.
#[derive(Debug, PartialEq)]
pub enum Plan {
    Keep,
    Update(Value),
    /// A binding's role cannot be changed: it is deleted and made again.
    Recreate,
}

pub fn plan(existing: &Value, expected: &Value) -> Plan {
    if existing["metadata"]["annotations"][AUTO_UPDATE].str() == "false" {
        return Plan::Keep;
    }
    if existing["roleRef"] != expected["roleRef"] {
        return Plan::Recreate;
    }
    let mut updated = existing.clone();
    for map in ["annotations", "labels"] {
        for (key, text) in expected["metadata"][map].entries() {
            if existing["metadata"][map].get(key).is_none() {
                updated.set_path(&["metadata", map, key], text);
            }
        }
    }
    let fields = updated.ensure_object();
    add(fields, "rules", missing_rules(existing, expected));
    add(fields, "subjects", missing(&existing["subjects"], &expected["subjects"]));
    let selectors = |role: &Value| role["aggregationRule"]["clusterRoleSelectors"].clone();
    let lacking = missing(&selectors(existing), &selectors(expected));
    if !lacking.is_empty() {
        add(updated.obj_mut("aggregationRule"), "clusterRoleSelectors", lacking);
    } else if expected["aggregationRule"].is_null() {
        updated.remove("aggregationRule");
    }
    if updated == *existing { Plan::Keep } else { Plan::Update(updated) }
}

fn add(object: &mut Map, field: &str, more: Vec<Value>) {
    if !more.is_empty() {
        object.entry(field, || Value::Null).ensure_array().extend(more);
    }
}

/// The smallest parts of the expected rules that no existing rule covers.
fn missing_rules(existing: &Value, expected: &Value) -> Vec<Value> {
    let rules = |role: &Value| role["rules"].items().iter().map(Rule::from_value).collect::<Vec<_>>();
    let owned = rules(existing);
    let wanted = rules(expected).into_iter().flat_map(|rule| rule.parts());
    wanted.filter(|part| !owned.iter().any(|rule| rule.covers(part))).map(|part| part.to_value()).collect()
}

fn missing(existing: &Value, expected: &Value) -> Vec<Value> {
    expected.items().iter().filter(|item| !existing.items().contains(item)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn role(annotation: &str, rules: Value) -> Value {
        value!({"metadata": {"name": "r", "annotations": {AUTO_UPDATE: annotation}, "labels": {"own": "x"}}, "rules": rules})
    }

    fn pods(verbs: &[&str]) -> Value {
        value!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs.iter().copied().collect::<Value>()})
    }

    #[test]
    fn roles_gain_what_they_lack() {
        let expected = role("true", value!([pods(&["get", "list"])]));
        let same = role("true", value!([pods(&["list", "get", "delete"])]));
        assert_eq!(plan(&same, &expected), Plan::Keep);
        let cut = role("true", value!([pods(&["get"])]));
        assert_eq!(plan(&cut, &expected), Plan::Update(role("true", value!([pods(&["get"]), pods(&["list"])]))));
        assert_eq!(plan(&role("false", value!([])), &expected), Plan::Keep);
        let mut bare = same.clone();
        bare.remove_path(&["metadata", "annotations"]);
        assert_eq!(plan(&bare, &expected), Plan::Update(same));
    }

    #[test]
    fn aggregation() {
        let gathers = |labels: &[&str]| {
            let selectors: Value = labels.iter().map(|l| value!({"matchLabels": {(*l): "true"}})).collect();
            value!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": selectors}})
        };
        assert_eq!(plan(&gathers(&["own", "a"]), &gathers(&["a"])), Plan::Keep);
        assert_eq!(plan(&gathers(&["own"]), &gathers(&["a"])), Plan::Update(gathers(&["own", "a"])));
        let plain = value!({"metadata": {"name": "r"}});
        assert_eq!(plan(&gathers(&["own"]), &plain), Plan::Update(plain));
    }

    #[test]
    fn bindings() {
        let binding = |role: &str, users: &[&str]| {
            let subjects: Value = users.iter().map(|u| value!({"kind": "User", "name": *u})).collect();
            value!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
        };
        assert_eq!(plan(&binding("r", &["b", "a"]), &binding("r", &["a"])), Plan::Keep);
        assert_eq!(plan(&binding("r", &["b"]), &binding("r", &["a"])), Plan::Update(binding("r", &["b", "a"])));
        assert_eq!(plan(&binding("other", &["a"]), &binding("r", &["a"])), Plan::Recreate);
    }
}
