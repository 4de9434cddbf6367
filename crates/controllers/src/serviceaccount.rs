//! The service account controller: `default` in every namespace.

use crate::context::{Context, queue_changes, target, writes};
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Status, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

struct ServiceAccounts {
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    accounts: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let namespaces = context.informer("", "v1", "namespaces");
    let accounts = context.informer("", "v1", "serviceaccounts");
    let queue = Arc::new(Queue::default());
    queue_changes(&namespaces, &queue);
    let deleted = queue.clone();
    accounts.on_change(move |change| {
        if change.new.is_none() {
            deleted.add(change.object().namespace().into());
        }
    });
    let api = context.api("service-account-controller");
    context.work(queue, 2, Arc::new(ServiceAccounts { api, namespaces, accounts })).await;
}

#[async_trait]
impl Reconcile for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    async fn reconcile(&self, namespace: &Key) -> Result<Outcome, Status> {
        let missing = View::get(&*self.accounts, namespace, "default").is_none();
        if !missing || self.namespaces.by_key(namespace).is_none_or(|n| n.facts.deleting) {
            return Ok(Outcome::Done);
        }
        let account = value!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": &**namespace},
        });
        match self.api.create(&target(&Gvr::new("", "v1", "serviceaccounts"), &account), account, &writes()).await {
            Ok(written) => self.accounts.reached(written.revision).await,
            Err(exists) if exists.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        Ok(Outcome::Done)
    }
}
