//! What every controller is given, and the small steps they all take.

use canopus_api::{Api, DeleteOptions, Gvr, Object, Status, Target, Value, View, WriteOptions, value};
use canopus_client::runner::{Key, Reconcile};
use canopus_client::{Informer, Informers, Queue, Recorder};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the cluster's operator decides.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The PEM certificates every pod trusts the API server by (ConfigMap `kube-root-ca.crt`).
    pub root_ca: String,
    /// Every resource that is stored, can be listed, watched and deleted.
    pub resources: Vec<ResourceInfo>,
    /// Signs tokens of Secrets (`--service-account-private-key-file`); without it they get none.
    pub token_signer: Option<Signer>,
    /// Signs certificates (`--cluster-signing-*`); without it requests wait for somebody else.
    pub certifier: Option<crate::Certifier>,
    /// `10.244.0.0/16`: each node is given a /24 of it; "" leaves nodes alone.
    pub cluster_cidr: String,
}

/// Signs a token's claims; controllers have no keys.
#[derive(Clone)]
pub struct Signer(Arc<Sign>);

type Sign = dyn Fn(&Value) -> Result<String, String> + Send + Sync;

impl Signer {
    pub fn new(sign: impl Fn(&Value) -> Result<String, String> + Send + Sync + 'static) -> Signer {
        Signer(Arc::new(sign))
    }

    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        (self.0)(claims)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// A row of the table of resources that namespace deletion and garbage collection work through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    pub gvr: Gvr,
    pub kind: CompactString,
    pub namespaced: bool,
}

type Accounts = Arc<dyn Fn(&str) -> Arc<dyn Api> + Send + Sync>;

/// One controller's surroundings.
pub struct Context {
    pub config: Arc<Config>,
    informers: Arc<Informers>,
    /// The views that this controller reads.
    used: Mutex<Vec<Arc<Informer>>>,
    accounts: Accounts,
    pub shutdown: CancellationToken,
}

impl Context {
    pub fn new(
        config: Arc<Config>,
        informers: Arc<Informers>,
        accounts: Accounts,
        shutdown: CancellationToken,
    ) -> Context {
        Context { config, informers, used: Mutex::default(), accounts, shutdown }
    }

    /// The view of a resource, shared with the other controllers.
    pub fn informer(&self, group: &str, version: &str, plural: &str) -> Arc<Informer> {
        let informer = self.informers.get(group, version, plural);
        self.used.lock().push(informer.clone());
        informer
    }

    /// The door of kube-controller-manager itself.
    pub fn own_api(&self) -> Arc<dyn Api> {
        self.informers.api().clone()
    }

    /// The door of a service account in kube-system.
    pub fn api(&self, account: &str) -> Arc<dyn Api> {
        (self.accounts)(account)
    }

    pub fn recorder(&self, api: &Arc<dyn Api>, component: &str) -> Recorder {
        Recorder::start(api.clone(), component, "", self.shutdown.clone())
    }

    /// Waits for the views it reads, then works until shutdown.
    pub async fn work(&self, queue: Arc<Queue<Key>>, workers: usize, reconciler: Arc<dyn Reconcile>) {
        let used = self.used.lock().clone();
        let synced = futures::future::join_all(used.iter().map(|informer| informer.synced()));
        tokio::select! {
            _ = synced => {}
            () = self.shutdown.cancelled() => return,
        }
        canopus_client::run(queue, workers, reconciler, self.shutdown.clone()).await;
    }
}

/// Queues every object of a view when it changes.
pub fn queue_changes(informer: &Informer, queue: &Arc<Queue<Key>>) {
    let queue = queue.clone();
    informer.on_change(move |change| queue.add(change.object().key()));
}

/// Which key an owner's uid has, so that a change of a dependent finds its owner without parsing.
#[derive(Default)]
pub struct KeysByUid(Mutex<HashMap<CompactString, CompactString>>);

impl KeysByUid {
    pub fn of(informer: &Informer) -> Arc<KeysByUid> {
        let keys = Arc::new(KeysByUid::default());
        let kept = keys.clone();
        informer.on_change(move |change| {
            let mut keys = kept.0.lock();
            if let Some(old) = change.old {
                keys.remove(&old.facts.uid);
            }
            if let Some(new) = change.new {
                keys.insert(new.facts.uid.clone(), new.key());
            }
        });
        keys
    }

    pub fn get(&self, uid: &str) -> Option<CompactString> {
        self.0.lock().get(uid).cloned()
    }
}

/// Queues the controllers (old and new) of each dependent that changes; `orphan` is called for those that have none.
pub fn queue_owners(
    dependents: &Informer,
    owners: Arc<KeysByUid>,
    queue: &Arc<Queue<Key>>,
    orphan: impl Fn(&Arc<Object>) + Send + Sync + 'static,
) {
    let queue = queue.clone();
    dependents.on_change(move |change| {
        let sides = [change.old, change.new];
        for uid in sides.into_iter().flatten().filter_map(|o| o.facts.controller.as_ref()) {
            if let Some(key) = owners.get(uid) {
                queue.add(key);
            }
        }
        if let Some(new) = change.new.filter(|o| o.facts.controller.is_none() && !o.facts.deleting) {
            orphan(new);
        }
    });
}

/// Queues every object in `owners` whose selector matches the orphan.
pub fn queue_matching(
    owners: &Informer,
    queue: &Queue<Key>,
    orphan: &Object,
    selects: impl Fn(&Value, &Object) -> bool,
) {
    if orphan.facts.labels.is_empty() {
        return;
    }
    for owner in View::list(owners, orphan.namespace()) {
        if selects(&owner.value(), orphan) {
            queue.add(owner.key());
        }
    }
}

/// An ownerReference that makes `owner` the controller (upstream `metav1.NewControllerRef`).
pub fn controller_ref(owner: &Value) -> Value {
    value!({
        "apiVersion": &owner["apiVersion"], "kind": &owner["kind"], "name": &owner["metadata"]["name"],
        "uid": &owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    })
}

/// The ownerReference with `controller: true`; Null when there is none.
pub fn controller_of(object: &Value) -> &Value {
    let owners = object["metadata"]["ownerReferences"].items();
    owners.iter().find(|o| o["controller"].bool()).unwrap_or(&Value::Null)
}

pub fn target(gvr: &Gvr, object: &Value) -> Target {
    Target::new(gvr, object["metadata"]["namespace"].str(), object["metadata"]["name"].str())
}

pub fn writes() -> WriteOptions {
    WriteOptions { field_manager: "kube-controller-manager".into(), ..WriteOptions::default() }
}

/// Deletes exactly this object: another one of its name stays.
pub fn delete_uid(uid: &str) -> DeleteOptions {
    DeleteOptions { uid: Some(uid.into()), ..DeleteOptions::default() }
}

/// A deletion that finds nothing has nothing to do.
pub fn gone<T>(result: Result<T, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes `object`'s status when it differs from `status`, and waits until `view` has seen it.
pub async fn update_status(
    api: &dyn Api,
    gvr: &Gvr,
    view: &Informer,
    object: &Value,
    status: Value,
) -> Result<(), Status> {
    if object["status"] == status {
        return Ok(());
    }
    let mut updated = object.clone();
    updated.set("status", status);
    let written = api.update(&target(gvr, object).subresource("status"), updated, &writes()).await?;
    view.reached(written.revision).await;
    Ok(())
}

/// The condition of a type; Null when there is none.
pub fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].items().iter().find(|c| c["type"].str() == kind).unwrap_or(&Value::Null)
}

/// Whether a create was refused because its namespace is being deleted (cause `NamespaceTerminating`).
pub fn is_namespace_terminating(error: &Status) -> bool {
    let causes = error.details.iter().flat_map(|d| &d.causes);
    causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use canopus_api::{List, ListOptions, Patch, Result, Watch};
    use canopus_client::runner::Outcome;

    /// Has no objects, and of `widgets` not even a list.
    struct Empty;

    #[async_trait]
    impl Api for Empty {
        async fn get(&self, t: &Target) -> Result<Arc<Object>> {
            Err(Status::not_found(&t.gvr, &t.name))
        }
        async fn list(&self, t: &Target, _: &ListOptions) -> Result<List> {
            if t.gvr.resource == "widgets" { Err(Status::no_such_resource()) } else { Ok(List::default()) }
        }
        async fn watch(&self, _: &Target, _: &ListOptions) -> Result<Watch> {
            Ok(Box::pin(futures::stream::pending()))
        }
        async fn create(&self, t: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>> {
            self.get(t).await
        }
        async fn update(&self, t: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>> {
            self.get(t).await
        }
        async fn patch(&self, t: &Target, _: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
            self.get(t).await
        }
        async fn delete(&self, t: &Target, _: &DeleteOptions) -> Result<Arc<Object>> {
            self.get(t).await
        }
        async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> Result<()> {
            Ok(())
        }
    }

    struct Stop(CancellationToken);

    #[async_trait]
    impl Reconcile for Stop {
        fn name(&self) -> &'static str {
            "stop"
        }
        async fn reconcile(&self, _: &Key) -> Result<Outcome> {
            self.0.cancel();
            Ok(Outcome::Done)
        }
    }

    #[tokio::test]
    async fn a_controller_waits_for_its_own_views_only() {
        let shutdown = CancellationToken::new();
        let informers = Informers::new(Arc::new(Empty), shutdown.clone());
        let context = || {
            let accounts: Accounts = Arc::new(|_| Arc::new(Empty));
            Context::new(Arc::default(), informers.clone(), accounts, shutdown.clone())
        };
        let (other, own) = (context(), context());
        other.informer("", "v1", "widgets");
        own.informer("", "v1", "pods");
        let queue = Arc::new(Queue::default());
        queue.add("x".into());
        own.work(queue, 1, Arc::new(Stop(shutdown.clone()))).await;
        assert!(shutdown.is_cancelled());
    }
}
