//! Approves what kubelets ask for, if who asks may (upstream `csrapproving`).

use super::{Certifier, KUBELET_CLIENT, bytes, gvr, has, kubelet_client, usages};
use crate::context::{Context, queue_changes, target, writes};
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Status, Target, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

struct Approver {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
    certifier: Certifier,
}

pub(crate) async fn run(context: Arc<Context>) {
    let Some(certifier) = context.config.certifier.clone() else { return };
    let requests = context.informer("certificates.k8s.io", "v1", "certificatesigningrequests");
    let queue = Arc::new(Queue::default());
    queue_changes(&requests, &queue);
    let api = context.api("certificate-controller");
    context.work(queue, 1, Arc::new(Approver { api, requests, certifier })).await;
}

#[async_trait]
impl Reconcile for Approver {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(request) = self.requests.by_key(key).map(|o| o.value()) else { return Ok(Outcome::Done) };
        let spec = &request["spec"];
        let settled =
            !request["status"]["certificate"].is_empty() || has(&request, "Approved") || has(&request, "Denied");
        if settled || spec["signerName"].str() != KUBELET_CLIENT {
            return Ok(Outcome::Done);
        }
        // What cannot be read was refused when it was made.
        let Ok(wish) = self.certifier.0.read(&bytes(&spec["request"])) else { return Ok(Outcome::Done) };
        if kubelet_client(&wish, &usages(&request)).is_err() {
            return Ok(Outcome::Done);
        }
        let own = (spec["username"].str() == wish.common_name)
            .then_some(("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."));
        let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
        for (subresource, message) in own.into_iter().chain([any]) {
            if self.allowed(spec, subresource).await? {
                return self.approve(&request, message).await;
            }
        }
        // The right may come later: it is looked at again when something changes, and now and then.
        Err(Status::forbidden(&gvr(), key, "recognized, but subject access review was not approved"))
    }
}

impl Approver {
    async fn allowed(&self, spec: &Value, subresource: &str) -> Result<bool, Status> {
        let resource = value!({
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
            "subresource": subresource, "version": "*",
        });
        let review = value!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": &spec["username"], "uid": &spec["uid"], "groups": &spec["groups"], "extra": &spec["extra"],
            "resourceAttributes": resource,
        }});
        let target = Target::new(&Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews"), "", "");
        let answer = self.api.create(&target, review, &writes()).await?;
        Ok(answer.value()["status"]["allowed"].bool())
    }

    async fn approve(&self, request: &Value, message: &str) -> Result<Outcome, Status> {
        let mut approved = request.clone();
        let condition = value!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
        approved.obj_mut("status").entry("conditions", || Value::Null).ensure_array().push(condition);
        let approval = target(&gvr(), request).subresource("approval");
        let written = self.api.update(&approval, approved, &writes()).await?;
        self.requests.reached(written.revision).await;
        Ok(Outcome::Done)
    }
}
