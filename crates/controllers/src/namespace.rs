//! Namespace deletion: everything in a terminating namespace goes, then the `kubernetes` finalizer
//! (upstream `pkg/controller/namespace`).

use crate::context::*;
use crate::custom;
use async_trait::async_trait;
use canopus_api::{Api, DeleteOptions, Gvr, ListOptions, Status, Target, Time, Value, View, api::Propagation, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";

struct Namespaces {
    gvr: Gvr,
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    resources: Vec<Gvr>,
    /// What else there is.
    definitions: Arc<Informer>,
}

/// What deleting the content came to.
#[derive(Debug, Default)]
struct Content {
    /// Objects left, by resource.
    left: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    finalizers: BTreeMap<String, usize>,
    errors: Vec<String>,
    /// The longest grace period of what is left, in seconds.
    grace: i64,
}

pub(crate) async fn run(context: Arc<Context>) {
    let namespaces = context.informer("", "v1", "namespaces");
    let queue = Arc::new(Queue::default());
    let changed = queue.clone();
    namespaces.on_change(move |change| {
        if change.new.is_some_and(|n| n.facts.deleting) {
            changed.add(change.object().key());
        }
    });
    let api = context.api("namespace-controller");
    let namespaced = context.config.resources.iter().filter(|r| r.namespaced);
    let resources = in_order(namespaced.map(|r| r.gvr.clone()).collect());
    let gvr = Gvr::new("", "v1", "namespaces");
    let definitions = context.informer("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    context.work(queue, 5, Arc::new(Namespaces { gvr, api, namespaces, resources, definitions })).await;
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

/// Pods go first, and all the rest when none is left: what they use, and the policies that bind them, stay as long as
/// they run. Events go last: deleting the rest writes some.
fn in_order(mut resources: Vec<Gvr>) -> Vec<Gvr> {
    resources.sort_by_key(|gvr| match gvr.resource.as_str() {
        _ if *gvr == pods() => 0,
        "events" => 2,
        _ => 1,
    });
    resources
}

#[async_trait]
impl Reconcile for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(namespace) = self.namespaces.by_key(key).filter(|n| n.facts.deleting).map(|n| n.value()) else {
            return Ok(Outcome::Done);
        };
        let finalizers = namespace["spec"]["finalizers"].items();
        if !finalizers.iter().any(|f| f.str() == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let mut content = Content::default();
        for gvr in &self.resources() {
            self.empty(key, gvr, &mut content).await;
            if *gvr == pods() && !content.left.is_empty() {
                break;
            }
        }
        let conditions = conditions(&namespace, &content, canopus_client::now());
        let mut status = namespace["status"].clone();
        status.set("phase", "Terminating");
        status.set("conditions", conditions);
        update_status(&*self.api, &self.gvr, &self.namespaces, &namespace, status).await?;
        if !content.errors.is_empty() || !content.left.is_empty() {
            let wait = u64::try_from(content.grace / 2).unwrap_or(0).clamp(1, 15);
            return Ok(Outcome::After(Duration::from_secs(wait)));
        }
        self.finalize(key).await
    }
}

impl Namespaces {
    /// Built-in resources and, before the Events that their end causes, custom ones.
    fn resources(&self) -> Vec<Gvr> {
        let definitions = self.definitions.list("");
        let custom = definitions.iter().filter_map(|definition| custom::resource(&definition.value()));
        in_order(self.resources.iter().cloned().chain(custom.filter(|r| r.namespaced).map(|r| r.gvr)).collect())
    }

    /// Deletes one resource's objects and notes what is left of them.
    async fn empty(&self, namespace: &str, gvr: &Gvr, content: &mut Content) {
        let target = Target::new(gvr, namespace, "");
        let list = match self.api.list(&target, &ListOptions::default()).await {
            Ok(list) if list.items.is_empty() => return,
            Ok(list) => list,
            // A resource that is gone, as a CRD's, has no objects.
            Err(error) if error.is_not_found() => return,
            Err(error) => return content.errors.push(error.message),
        };
        let options = DeleteOptions { propagation_policy: Some(Propagation::Background), ..DeleteOptions::default() };
        if list.items.iter().any(|o| !o.facts.deleting) {
            match self.api.delete_collection(&target, &ListOptions::default(), &options).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.code == 405 => {}
                Err(error) => content.errors.push(error.message),
            }
        }
        match self.api.list(&target, &ListOptions::default()).await {
            Ok(list) => content.note(gvr, list.items.iter().map(|o| o.value())),
            Err(error) => content.errors.push(error.message),
        }
    }

    /// Removes our finalizer; the server then deletes the namespace.
    async fn finalize(&self, name: &str) -> Result<Outcome, Status> {
        let at = Target::new(&self.gvr, "", name);
        let Some(live) = gone(self.api.get(&at).await)? else {
            return Ok(Outcome::Done);
        };
        let mut namespace = Value::from(&*live.value());
        let kept = namespace["spec"]["finalizers"].items().iter().filter(|f| f.str() != FINALIZER).cloned();
        let kept: Vec<Value> = kept.collect();
        namespace.set_path(&["spec", "finalizers"], kept);
        gone(self.api.update(&at.subresource("finalize"), namespace, &writes()).await)?;
        Ok(Outcome::Done)
    }
}

impl Content {
    fn note(&mut self, gvr: &Gvr, objects: impl Iterator<Item = Arc<Value>>) {
        for object in objects {
            *self.left.entry(format!("{}.{}", gvr.resource, gvr.group)).or_default() += 1;
            self.grace = self.grace.max(object["metadata"]["deletionGracePeriodSeconds"].int());
            for finalizer in object["metadata"]["finalizers"].items() {
                *self.finalizers.entry(finalizer.str().into()).or_default() += 1;
            }
        }
    }
}

/// The five conditions of a terminating namespace; unchanged ones keep their times.
fn conditions(namespace: &Value, content: &Content, now: Time) -> Vec<Value> {
    let counted = |counts: &BTreeMap<String, usize>, text: &dyn Fn(&str, usize) -> String| {
        counts.iter().map(|(name, n)| text(name, *n)).collect::<Vec<_>>().join(", ")
    };
    let left = counted(&content.left, &|name, n| format!("{name} has {n} resource instances"));
    let waits = counted(&content.finalizers, &|name, n| format!("{name} in {n} resource instances"));
    let rows = [
        ("NamespaceDeletionDiscoveryFailure", None, "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            (!content.errors.is_empty()).then(|| {
                let all = content.errors.join(", ");
                (
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {} remaining: {all}", content.errors.len()),
                )
            }),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            (!left.is_empty()).then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {left}"))),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            (!waits.is_empty()).then(|| {
                ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {waits}"))
            }),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    rows.into_iter()
        .map(|(kind, problem, reason, message)| {
            let (state, reason, message) = match problem {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", reason, message.to_string()),
            };
            let old = condition(&namespace["status"], kind);
            let same = old["status"].str() == state;
            let since = if same { old["lastTransitionTime"].clone() } else { now.into() };
            value!({"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": since})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_first_and_events_last() {
        let gvr = |group, resource| Gvr::new(group, "v1", resource);
        let all =
            [gvr("", "events"), gvr("", "configmaps"), gvr("events.k8s.io", "events"), pods(), gvr("apps", "pods")];
        let sorted = in_order(all.to_vec());
        assert_eq!(sorted, [pods(), all[1].clone(), all[4].clone(), all[0].clone(), all[2].clone()]);
    }

    #[test]
    fn tells_what_remains() {
        let mut content = Content::default();
        let pod = value!({"metadata": {"finalizers": ["x/y"], "deletionGracePeriodSeconds": 30}});
        content.note(&Gvr::new("", "v1", "pods"), [Arc::new(pod)].into_iter());
        let conditions = conditions(&Value::object(), &content, Time::from_unix(0));
        let texts: Vec<&str> = conditions.iter().map(|c| c["message"].str()).collect();
        assert_eq!(texts[3], "Some resources are remaining: pods. has 1 resource instances");
        assert_eq!(texts[4], "Some content in the namespace has finalizers remaining: x/y in 1 resource instances");
        assert_eq!(content.grace, 30);
    }
}
