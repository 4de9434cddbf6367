//! Claims, volumes and classes of volume attributes that are being deleted stay until nobody uses them: their finalizer
//! goes when that is so (upstream `pkg/controller/volume/{pvc,pv,vac}protection`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Object, Status, Value, View};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

/// What tells the three apart.
pub(crate) struct Flavor {
    name: &'static str,
    group: &'static str,
    plural: &'static str,
    account: &'static str,
    finalizer: &'static str,
    /// The core resources whose objects use these.
    users: &'static [&'static str],
    /// Whether the user, one of `users`, uses the object.
    uses: fn(user: &Value, object: &Value) -> bool,
    /// Whether the object says itself that it is in use.
    busy: fn(&Value) -> bool,
}

pub(crate) const CLAIMS: Flavor = Flavor {
    name: "persistentvolumeclaim-protection-controller",
    group: "",
    plural: "persistentvolumeclaims",
    account: "pvc-protection-controller",
    finalizer: "kubernetes.io/pvc-protection",
    users: &["pods"],
    uses: pod_uses_claim,
    busy: |_| false,
};

pub(crate) const VOLUMES: Flavor = Flavor {
    name: "persistentvolume-protection-controller",
    group: "",
    plural: "persistentvolumes",
    account: "pv-protection-controller",
    finalizer: "kubernetes.io/pv-protection",
    users: &[],
    uses: |_, _| false,
    busy: |volume| volume["status"]["phase"].str() == "Bound",
};

pub(crate) const ATTRIBUTES: Flavor = Flavor {
    name: "volumeattributesclass-protection-controller",
    group: "storage.k8s.io",
    plural: "volumeattributesclasses",
    account: "volumeattributesclass-protection-controller",
    finalizer: "kubernetes.io/vac-protection",
    users: &["persistentvolumeclaims", "persistentvolumes"],
    uses: uses_class,
    busy: |_| false,
};

struct Protection {
    flavor: &'static Flavor,
    gvr: Gvr,
    api: Arc<dyn Api>,
    objects: Arc<Informer>,
    users: Vec<Arc<Informer>>,
}

pub(crate) async fn run(context: Arc<Context>, flavor: &'static Flavor) {
    let gvr = Gvr::new(flavor.group, "v1", flavor.plural);
    // A server of another version may not have it.
    if !context.config.resources.iter().any(|resource| resource.gvr == gvr) {
        return;
    }
    let objects = context.informer(flavor.group, "v1", flavor.plural);
    let users: Vec<Arc<Informer>> = flavor.users.iter().map(|plural| context.informer("", "v1", plural)).collect();
    let queue = Arc::new(Queue::default());
    let changed = queue.clone();
    objects.on_change(move |change| {
        if change.new.is_some_and(|object| object.facts.deleting) {
            changed.add(change.object().key());
        }
    });
    for user in &users {
        let (objects, queue) = (objects.clone(), queue.clone());
        user.on_change(move |change| {
            let Some(before) = change.old else { return };
            let namespace = if flavor.group.is_empty() { before.namespace() } else { "" };
            for object in View::list(&*objects, namespace).iter().filter(|object| object.facts.deleting) {
                if (flavor.uses)(&before.value(), &object.value()) {
                    queue.add(object.key());
                }
            }
        });
    }
    let api = context.api(flavor.account);
    context.work(queue, 1, Arc::new(Protection { flavor, gvr, api, objects, users })).await;
}

#[async_trait]
impl Reconcile for Protection {
    fn name(&self) -> &'static str {
        self.flavor.name
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.objects.by_key(key) else { return Ok(Outcome::Done) };
        let tree = object.value();
        if !object.facts.deleting || !has(&tree, self.flavor.finalizer) || self.in_use(&object, &tree).await? {
            return Ok(Outcome::Done);
        }
        let mut released = (*tree).clone();
        if let Some(list) = released.obj_mut("metadata").get_mut("finalizers").and_then(Value::as_array_mut) {
            list.retain(|finalizer| finalizer.str() != self.flavor.finalizer);
        }
        gone(self.api.update(&target(&self.gvr, &tree), released, &writes()).await)?;
        Ok(Outcome::Done)
    }
}

impl Protection {
    /// The views are asked first; that nobody uses it must be so at the server, too.
    async fn in_use(&self, object: &Object, tree: &Value) -> Result<bool, Status> {
        if (self.flavor.busy)(tree) {
            return Ok(true);
        }
        let namespace = object.namespace();
        let used = |users: &[Arc<Object>]| users.iter().any(|user| (self.flavor.uses)(&user.value(), tree));
        if self.users.iter().any(|view| used(&View::list(&**view, namespace))) {
            return Ok(true);
        }
        for plural in self.flavor.users {
            let all = canopus_api::Target::new(&Gvr::new("", "v1", plural), namespace, "");
            if used(&self.api.list(&all, &Default::default()).await?.items) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn has(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].items().iter().any(|f| f.str() == finalizer)
}

/// Pods that no node has yet are not counted: their node will not start them with a claim that goes.
fn pod_uses_claim(pod: &Value, claim: &Value) -> bool {
    let (meta, name) = (&pod["metadata"], claim["metadata"]["name"].str());
    if pod["spec"]["nodeName"].str().is_empty() || meta["namespace"] != claim["metadata"]["namespace"] {
        return false;
    }
    let over = !meta["deletionTimestamp"].is_null() && meta["deletionGracePeriodSeconds"].as_i64() == Some(0);
    let owned = controller_of(claim)["uid"] == meta["uid"] && !meta["uid"].is_null();
    pod["spec"]["volumes"].items().iter().any(|volume| {
        let own = format!("{}-{}", meta["name"].str(), volume["name"].str());
        volume["persistentVolumeClaim"]["claimName"].str() == name
            || !over && !volume["ephemeral"].is_null() && own == name && owned
    })
}

fn uses_class(user: &Value, class: &Value) -> bool {
    let (spec, status) = (&user["spec"], &user["status"]);
    let names = [
        &spec["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    names.iter().any(|name| !name.is_empty() && **name == class["metadata"]["name"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn users_of_claims() {
        let claim = value!({"metadata": {"name": "p-data", "namespace": "n", "ownerReferences": [{"uid": "u", "controller": true}]}});
        let pod = |node: &str, volume: Value| value!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"nodeName": node, "volumes": [volume]}});
        let by_name = || value!({"name": "v", "persistentVolumeClaim": {"claimName": "p-data"}});
        let own = || value!({"name": "data", "ephemeral": {}});
        let mut over = pod("a", own());
        over.set_path(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        over.set_path(&["metadata", "deletionGracePeriodSeconds"], 0);
        let cases = [
            (pod("a", by_name()), true),
            (pod("", by_name()), false),
            (pod("a", own()), true),
            (pod("a", value!({"name": "other", "ephemeral": {}})), false),
            (over, false),
        ];
        for (pod, expected) in cases {
            assert_eq!(pod_uses_claim(&pod, &claim), expected, "{pod:?}");
        }
    }
}
