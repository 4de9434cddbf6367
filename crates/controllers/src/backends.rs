//! What the controllers of Endpoints and of EndpointSlices share: which Services a pod is behind, and how (upstream
//! `k8s.io/endpointslice/util`).

use crate::context::{condition, delete_uid, gone, target, writes};
use canopus_api::{Api, Gvr, LabelSelector, Object, Status, Time, Value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Queue};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// When what an object was made of changed, for those who measure how long that takes to be heard of.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The selectors of the Services that have one, by the key of the Service, in each namespace.
pub(crate) type Selectors = Arc<Mutex<HashMap<CompactString, BTreeMap<Key, LabelSelector>>>>;

pub(crate) fn follow_selectors(services: &Informer) -> Selectors {
    let selectors = Selectors::default();
    let known = selectors.clone();
    services.on_change(move |change| {
        let service = change.object();
        let mut known = known.lock();
        let here = known.entry(service.namespace().into()).or_default();
        here.remove(&service.key());
        let value = change.new.map(|service| service.value());
        if let Some(selector) = value.as_ref().map(|v| &v["spec"]["selector"]).filter(|s| !s.is_empty()) {
            here.insert(service.key(), LabelSelector::from_map(selector));
        } else if here.is_empty() {
            known.remove(service.namespace());
        }
    });
    selectors
}

/// Queues the Services that select a pod now or did before. Most changes of a pod don't matter to its endpoints.
pub(crate) fn queue_pods(pods: &Informer, selectors: Selectors, queue: &Arc<Queue<Key>>) {
    let queue = queue.clone();
    pods.on_change(move |change| {
        let sides: Vec<&Arc<Object>> = [change.old, change.new].into_iter().flatten().collect();
        let selects = |selector: &LabelSelector| sides.iter().any(|pod| selector.matches(&pod.facts));
        let selectors = selectors.lock();
        let here = selectors.get(change.object().namespace()).into_iter().flatten();
        let mut keys = here.filter(|(_, selector)| selects(selector)).map(|(key, _)| key.clone()).peekable();
        if keys.peek().is_none() {
            return;
        }
        if let (Some(old), Some(new)) = (change.old, change.new) {
            let same_labels = old.facts.labels == new.facts.labels;
            if same_labels && same(old, new) {
                return;
            }
        }
        keys.for_each(|key| queue.add(key));
    });
}

/// Whether nothing changed that the endpoint of a pod depends on, besides labels.
fn same(old: &Object, new: &Object) -> bool {
    const PATHS: [&[&str]; 4] =
        [&["status", "podIPs"], &["spec", "hostname"], &["spec", "subdomain"], &["spec", "containers"]];
    let (before, after) = (&old.facts, &new.facts);
    let facts = before.ready.is_some() == after.ready.is_some()
        && before.deleting == after.deleting
        && before.uid == after.uid
        && ["status.phase", "spec.nodeName"].iter().all(|field| before.field(field) == after.field(field));
    if !facts {
        return false;
    }
    let (old, new) = (old.value(), new.value());
    PATHS.iter().all(|path| old.path(path) == new.path(path))
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"], "Ready")["status"].str() == "True"
}

/// The pod's address in a family.
pub(crate) fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = pod["status"]["podIPs"].items().iter().map(|ip| ip["ip"].str());
    let mut all = all.chain([pod["status"]["podIP"].str()]);
    all.find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

/// The name that the pod has in the Service's domain.
pub(crate) fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let (hostname, subdomain) = (pod["spec"]["hostname"].str(), pod["spec"]["subdomain"].str());
    let named = !hostname.is_empty() && subdomain == service["metadata"]["name"].str();
    (named && pod["metadata"]["namespace"] == service["metadata"]["namespace"]).then_some(hostname)
}

/// Where a pod serves a port of a Service.
pub(crate) fn target_port(port: &Value, pod: &Value) -> Option<i64> {
    let wanted = &port["targetPort"];
    if let Some(name) = wanted.as_str().filter(|name| !name.is_empty()) {
        let restartable = |c: &&Value| c["restartPolicy"].str() == "Always";
        let sidecars = pod["spec"]["initContainers"].items().iter().filter(restartable);
        let protocol = if port["protocol"].is_empty() { "TCP" } else { port["protocol"].str() };
        let all = pod["spec"]["containers"].items().iter().chain(sidecars);
        let same = |p: &&Value| {
            let of = if p["protocol"].is_empty() { "TCP" } else { p["protocol"].str() };
            p["name"].str() == name && of == protocol
        };
        return all.flat_map(|c| c["ports"].items()).find(same).map(|p| p["containerPort"].int());
    }
    match wanted.int() {
        0 => Some(port["port"].int()),
        number => Some(number),
    }
}

/// The times of what Services and their pods last did, by the key of the Service.
#[derive(Default)]
pub(crate) struct Triggers(Mutex<HashMap<Key, Seen>>);

struct Seen {
    service: Time,
    pods: HashMap<CompactString, Time>,
}

impl Triggers {
    /// The earliest of the changes since this was last asked; None when there was none (upstream
    /// `TriggerTimeTracker`).
    pub fn since_last(&self, key: &Key, service: &Value, pods: &[Arc<Value>]) -> Option<Time> {
        let created = Time::parse(service["metadata"]["creationTimestamp"].str()).unwrap_or_default();
        let turned = |pod: &Arc<Value>| {
            let ready = condition(&pod["status"], "Ready");
            Some((pod["metadata"]["name"].str().into(), Time::parse(ready["lastTransitionTime"].str())?))
        };
        let now = Seen { service: created, pods: pods.iter().filter_map(turned).collect() };
        let mut seen = self.0.lock();
        let Some(before) = seen.get(key) else {
            seen.insert(key.clone(), now);
            return Some(created);
        };
        let newer =
            |(name, at): (&CompactString, &Time)| before.pods.get(name).is_none_or(|then| at > then).then_some(*at);
        let first = now.pods.iter().filter_map(newer).min();
        let first = first.into_iter().chain((created > before.service).then_some(created)).min();
        seen.insert(key.clone(), now);
        first
    }

    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

/// Says in an object's annotations what triggered its change, or that nothing did.
pub(crate) fn annotate(object: &mut Value, trigger: Option<Time>) {
    match trigger {
        Some(at) => object.set_path(&["metadata", "annotations", TRIGGER_TIME], at.rfc3339()),
        None => {
            object.remove_path(&["metadata", "annotations", TRIGGER_TIME]);
            if object["metadata"]["annotations"].is_empty() {
                object.remove_path(&["metadata", "annotations"]);
            }
        }
    }
}

/// Creates, updates and deletes EndpointSlices, and waits until `view` has seen it.
pub(crate) async fn write_slices(
    api: &dyn Api,
    gvr: &Gvr,
    view: &Informer,
    create: Vec<Value>,
    update: Vec<Value>,
    delete: Vec<Arc<Value>>,
) -> Result<(), Status> {
    let mut newest = 0;
    for slice in create {
        newest = api.create(&target(gvr, &slice), slice, &writes()).await?.revision.max(newest);
    }
    for slice in update {
        newest = api.update(&target(gvr, &slice), slice, &writes()).await?.revision.max(newest);
    }
    for slice in delete {
        let options = delete_uid(slice["metadata"]["uid"].str());
        if let Some(deleted) = gone(api.delete(&target(gvr, &slice), &options).await)? {
            newest = deleted.revision.max(newest);
        }
    }
    view.reached(newest).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn the_earliest_change_since_the_last_time() {
        let time = |second: i64| Time::from_unix(second).rfc3339();
        let service = value!({"metadata": {"creationTimestamp": time(10)}});
        let pod = |name: &str, second: i64| {
            let ready = value!({"type": "Ready", "status": "False", "lastTransitionTime": time(second)});
            Arc::new(value!({"metadata": {"name": name}, "status": {"conditions": [ready]}}))
        };
        let triggers = Triggers::default();
        let key = Key::from("ns/web");
        let steps: [(&[Arc<Value>], Option<i64>); 5] = [
            (&[pod("a", 20)], Some(10)),
            (&[pod("a", 20)], None),
            (&[pod("a", 22), pod("b", 21)], Some(21)),
            (&[pod("b", 21)], None),
            (&[pod("a", 22), pod("b", 30)], Some(22)),
        ];
        for (at, (pods, expected)) in steps.into_iter().enumerate() {
            assert_eq!(triggers.since_last(&key, &service, pods), expected.map(Time::from_unix), "{at}");
        }
    }
}
