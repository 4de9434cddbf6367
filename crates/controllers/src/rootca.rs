//! The root CA publisher: ConfigMap `kube-root-ca.crt` in every namespace.

use crate::context::{Context, queue_changes, target, writes};
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Status, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";

struct Publisher {
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    config_maps: Arc<Informer>,
    root_ca: String,
}

pub(crate) async fn run(context: Arc<Context>) {
    let namespaces = context.informer("", "v1", "namespaces");
    let config_maps = context.informer("", "v1", "configmaps");
    let queue = Arc::new(Queue::default());
    queue_changes(&namespaces, &queue);
    let changed = queue.clone();
    config_maps.on_change(move |change| {
        if change.object().name() == NAME {
            changed.add(change.object().namespace().into());
        }
    });
    let api = context.api("root-ca-cert-publisher");
    let root_ca = context.config.root_ca.clone();
    context.work(queue, 2, Arc::new(Publisher { api, namespaces, config_maps, root_ca })).await;
}

/// The ConfigMap as it should be, if it is not.
fn plan(namespace: &str, found: Option<&Value>, root_ca: &str) -> Option<Value> {
    let annotations = value!({"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."});
    let data = value!({"ca.crt": root_ca});
    match found {
        Some(found) if found["data"] == data => None,
        Some(found) => {
            let mut fixed = found.clone();
            fixed.set("data", data);
            Some(fixed)
        }
        None => Some(value!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace, "annotations": annotations}, "data": data,
        })),
    }
}

#[async_trait]
impl Reconcile for Publisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    async fn reconcile(&self, namespace: &Key) -> Result<Outcome, Status> {
        if self.namespaces.by_key(namespace).is_none_or(|n| n.facts.deleting) {
            return Ok(Outcome::Done);
        }
        let found = View::get(&*self.config_maps, namespace, NAME).map(|o| o.value());
        let Some(wanted) = plan(namespace, found.as_deref(), &self.root_ca) else {
            return Ok(Outcome::Done);
        };
        let target = target(&Gvr::new("", "v1", "configmaps"), &wanted);
        let written = match found {
            Some(_) => self.api.update(&target, wanted, &writes()).await?,
            None => self.api.create(&target, wanted, &writes()).await?,
        };
        self.config_maps.reached(written.revision).await;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_what_differs() {
        let made = plan("ns", None, "pem").expect("created");
        assert_eq!(made["data"]["ca.crt"].str(), "pem");
        assert_eq!(plan("ns", Some(&made), "pem"), None);
        assert_eq!(plan("ns", Some(&made), "new").expect("updated")["data"]["ca.crt"].str(), "new");
    }
}
