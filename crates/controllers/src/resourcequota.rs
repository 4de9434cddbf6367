//! Says in each ResourceQuota's status what its limits are and how much is used (upstream `pkg/controller/resourcequota`).
//! Admission adds to what is used; this counts again when a quota changes or something has gone.

use crate::context::*;
use crate::custom;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, ListOptions, Object, Quantity, Status, Target, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use canopus_resources::core::pod::amounts::{Amounts, amounts};
use canopus_resources::quota;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::DropGuard;

/// Upstream `--resource-quota-sync-period`: for what nothing told us of.
const PERIOD: Duration = Duration::from_secs(300);
/// How long objects may take to be listed.
const SYNCED: Duration = Duration::from_secs(30);

struct Quotas {
    api: Arc<dyn Api>,
    gvr: Gvr,
    quotas: Arc<Informer>,
    queue: Arc<Queue<Key>>,
    context: Arc<Context>,
    /// Views of what quotas count, opened when the first one does.
    counted: Mutex<BTreeMap<Gvr, Counted>>,
    definitions: Arc<Informer>,
}

/// A view, and what ends it if that is ours to do.
struct Counted {
    view: Arc<Informer>,
    _stop: Option<DropGuard>,
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
    let definitions = context.informer("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let controller =
        Arc::new(Quotas { api, gvr, quotas, queue: queue.clone(), context: context.clone(), counted, definitions });
    follow_definitions(&controller);
    context.work(queue, 5, controller).await;
}

/// What is no longer served is no longer followed; what is served from now on may be what a quota is about.
fn follow_definitions(controller: &Arc<Quotas>) {
    let weak = Arc::downgrade(controller);
    controller.definitions.on_change(move |change| {
        let Some(quotas) = weak.upgrade() else { return };
        let resource = |object: Option<&Arc<Object>>| object.and_then(|o| custom::resource(&o.value()));
        let (old, new) = (resource(change.old), resource(change.new));
        if old == new {
            return;
        }
        if let Some(old) = &old {
            quotas.counted.lock().remove(&old.gvr);
        }
        let about = |info: &ResourceInfo, object: &Object| {
            let name = quota::count_name(&info.gvr.group, &info.gvr.resource);
            object.value()["spec"]["hard"].get(&name).is_some()
        };
        for object in View::list(&*quotas.quotas, "") {
            if old.iter().chain(&new).any(|info| about(info, &object)) {
                quotas.queue.add(object.key());
            }
        }
    });
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
            // What is custom may have ended meanwhile.
            let Ok(()) = tokio::time::timeout(SYNCED, view.synced()).await else {
                return Err(Status::internal(format!("{} have not been listed", gvr.resource)));
            };
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
        // Only where one asks for more than built-in resources need definitions be looked through.
        let asks = hard.keys().any(|name| name.starts_with("count/") && name.contains('.'));
        let definitions = if asks { View::list(&*self.definitions, "") } else { Vec::new() };
        let custom: Vec<ResourceInfo> = definitions.iter().filter_map(|d| custom::resource(&d.value())).collect();
        for resource in self.context.config.resources.iter().chain(&custom).filter(|r| r.namespaced) {
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
        if let Some(known) = counted.get(gvr) {
            return known.view.clone();
        }
        let (view, stop) = if self.context.config.resources.iter().any(|r| r.gvr == *gvr) {
            (self.context.informer(&gvr.group, &gvr.version, &gvr.resource), None)
        } else {
            let stop = self.context.shutdown.child_token();
            let target = Target::new(gvr, "", "");
            let view = Informer::start(self.api.clone(), target, ListOptions::default(), stop.clone());
            (view, Some(stop.drop_guard()))
        };
        let (quotas, queue, plural) = (self.quotas.clone(), self.queue.clone(), gvr.resource.clone());
        view.on_change(move |change| {
            if gives_back(&plural, change.old, change.new) {
                View::list(&*quotas, change.object().namespace()).iter().for_each(|quota| queue.add(quota.key()));
            }
        });
        counted.insert(gvr.clone(), Counted { view: view.clone(), _stop: stop });
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
