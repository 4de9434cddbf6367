//! Cluster role aggregation: a role's rules are those of the roles its aggregationRule selects
//! (upstream `pkg/controller/clusterroleaggregation`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Status, Value, View};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

struct Aggregator {
    gvr: Gvr,
    api: Arc<dyn Api>,
    roles: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let roles = context.informer("rbac.authorization.k8s.io", "v1", "clusterroles");
    let queue = Arc::new(Queue::default());
    // Any role may be, or cease to be, part of any aggregate: one key stands for all.
    let changed = queue.clone();
    roles.on_change(move |_| changed.add("all".into()));
    let gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "clusterroles");
    let api = context.api("clusterrole-aggregation-controller");
    context.work(queue, 1, Arc::new(Aggregator { gvr, api, roles })).await;
}

/// The rules `role` should have; None when it aggregates nothing or has them already.
fn plan(role: &Value, roles: &[Arc<Value>]) -> Option<Vec<Value>> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].items();
    if role["aggregationRule"].is_null() {
        return None;
    }
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors.iter().filter_map(|s| LabelSelector::from_value(s).ok()) {
        let labels = |r: &&Arc<Value>| selector.matches_value(&r["metadata"]["labels"]);
        for part in roles.iter().filter(labels).filter(|r| r["metadata"]["name"] != role["metadata"]["name"]) {
            for rule in part["rules"].items() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    (rules.as_slice() != role["rules"].items()).then_some(rules)
}

#[async_trait]
impl Reconcile for Aggregator {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    async fn reconcile(&self, _: &Key) -> Result<Outcome, Status> {
        let roles: Vec<Arc<Value>> = View::list(&*self.roles, "").iter().map(|role| role.value()).collect();
        for role in &roles {
            if let Some(rules) = plan(role, &roles) {
                let mut updated = Value::from(&**role);
                updated.set("rules", rules);
                let written = self.api.update(&target(&self.gvr, role), updated, &writes()).await?;
                self.roles.reached(written.revision).await;
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn collects_rules_once() {
        let rule = value!({"verbs": ["get"]});
        let part = |name: &str| Arc::new(value!({"metadata": {"name": name, "labels": {"to": "x"}}, "rules": [&rule]}));
        let mut whole = value!({"metadata": {"name": "x"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]}, "rules": []});
        let roles = [part("a"), part("b")];
        assert_eq!(plan(&whole, &roles), Some(vec![rule.clone()]));
        whole.set("rules", vec![rule.clone()]);
        assert_eq!(plan(&whole, &roles), None);
        assert_eq!(plan(&roles[0], &roles), None);
    }
}
