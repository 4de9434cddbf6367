//! Says in each ResourceQuota's status what its limits are and how much is used (upstream `pkg/controller/resourcequota`).
//! Admission adds to what is used; this counts again when a quota changes or something has gone.

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Object, Quantity, Status, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use canopus_resources::core::pod::amounts::{Amounts, amounts};
use canopus_resources::quota;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Upstream `--resource-quota-sync-period`: for what nothing told us of.
const PERIOD: Duration = Duration::from_secs(300);

struct Quotas {
    api: Arc<dyn Api>,
    gvr: Gvr,
    quotas: Arc<Informer>,
    queue: Arc<Queue<Key>>,
    context: Arc<Context>,
    /// Views of what quotas count, opened when the first one does.
    counted: Mutex<BTreeMap<Gvr, Arc<Informer>>>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let quotas = context.informer("", "v1", "resourcequotas");
    let queue = Arc::new(Queue::default());
    let changed = queue.clone();
    // Changes of the status are our own, or admission's.
    quotas.on_change(move |change| {
        let spec = |object: Option<&Arc<Object>>| object.map(|o| o.value()["spec"].clone());
        if change.new.is_some() && spec(change.old) != spec(change.new) {
            changed.add(change.object().key());
        }
    });
    let (api, gvr) = (context.api("resourcequota-controller"), Gvr::new("", "v1", "resourcequotas"));
    let counted = Mutex::default();
    let controller = Quotas { api, gvr, quotas, queue: queue.clone(), context: context.clone(), counted };
    context.work(queue, 5, Arc::new(controller)).await;
}

#[async_trait]
impl Reconcile for Quotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.quotas.by_key(key) else { return Ok(Outcome::Done) };
        let tree = object.value();
        let hard = amounts(&tree["spec"]["hard"]);
        let mut used: Amounts = amounts(&tree["status"]["used"]);
        for gvr in self.resources_of(&hard) {
            let view = self.view(&gvr);
            view.synced().await;
            let (group, plural) = (gvr.group.as_str(), gvr.resource.as_str());
            let objects = View::list(&*view, object.namespace());
            for (name, quantity) in count(group, plural, &tree["spec"], &hard, &objects) {
                used.insert(name, quantity);
            }
        }
        used.retain(|name, _| hard.contains_key(name));
        let status = value!({"hard": (quota::list(&hard)), "used": (quota::list(&used))});
        update_status(&*self.api, &self.gvr, &self.quotas, &tree, status).await?;
        Ok(Outcome::After(PERIOD))
    }
}

/// What the objects use of each limit that is about their kind.
fn count(group: &str, plural: &str, spec: &Value, hard: &Amounts, objects: &[Arc<Object>]) -> Amounts {
    let about = |name: &str| quota::matches(group, plural, name);
    let mut total: Amounts =
        hard.keys().filter(|name| about(name)).map(|name| (name.clone(), Quantity::from_int(0))).collect();
    let now = canopus_client::now();
    for object in objects {
        let tree = object.value();
        if !quota::in_scope(group, plural, spec, &tree) {
            continue;
        }
        for (name, quantity) in quota::usage(group, plural, &tree, now) {
            if let Some(sum) = total.get_mut(&name) {
                *sum = sum.plus(quantity);
            }
        }
    }
    total
}

impl Quotas {
    /// The resources that these limits are about.
    fn resources_of(&self, hard: &Amounts) -> Vec<Gvr> {
        let mut found: Vec<Gvr> = Vec::new();
        for resource in self.context.config.resources.iter().filter(|r| r.namespaced) {
            let gvr = &resource.gvr;
            let known = found.iter().any(|f| (&f.group, &f.resource) == (&gvr.group, &gvr.resource));
            if !known && hard.keys().any(|name| quota::matches(&gvr.group, &gvr.resource, name)) {
                found.push(gvr.clone());
            }
        }
        found
    }

    fn view(&self, gvr: &Gvr) -> Arc<Informer> {
        let mut counted = self.counted.lock();
        if let Some(view) = counted.get(gvr) {
            return view.clone();
        }
        let view = self.context.informer(&gvr.group, &gvr.version, &gvr.resource);
        let (quotas, queue, plural) = (self.quotas.clone(), self.queue.clone(), gvr.resource.clone());
        view.on_change(move |change| {
            if gives_back(&plural, change.old, change.new) {
                View::list(&*quotas, change.object().namespace()).iter().for_each(|quota| queue.add(quota.key()));
            }
        });
        counted.insert(gvr.clone(), view.clone());
        view
    }
}

/// Whether there may be more left after this change. What takes something is admission's to count.
fn gives_back(plural: &str, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) -> bool {
    match (old, new) {
        (_, None) => true,
        (None, _) => false,
        (Some(old), Some(new)) => match plural {
            "pods" => {
                let finished = crate::pods::is_finished;
                finished(new) && !finished(old)
            }
            "services" | "persistentvolumeclaims" => old.value()["spec"] != new.value()["spec"],
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used() {
        let pod = |cpu: &str, phase: &str| {
            let pod = value!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": phase},
                "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
            Arc::new(Object::from_value(pod, &["status.phase"], 1))
        };
        let pods = [pod("500m", "Running"), pod("1", "Pending"), pod("1", "Failed")];
        let hard = amounts(&value!({"cpu": "5", "pods": "9", "count/pods": "9", "secrets": "1"}));
        let used = |spec: Value| quota::list(&count("", "pods", &spec, &hard, &pods));
        assert_eq!(used(value!({})), value!({"cpu": "1500m", "pods": "2", "count/pods": "3"}));
        assert_eq!(used(value!({"scopes": ["BestEffort"]})), value!({"cpu": "0", "pods": "0", "count/pods": "0"}));
        assert!(gives_back("pods", Some(&pods[0]), Some(&pods[2])) && !gives_back("pods", None, Some(&pods[0])));
    }
}
