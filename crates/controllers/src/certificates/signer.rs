//! Signs approved requests for the cluster's own signers (upstream `csrsigning`).

use super::{CLIENT, Certifier, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Wish, bytes, gvr, has, kubelet_client};
use super::{kubelet_serving, usages};
use crate::context::{Context, queue_changes, target, writes};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Api, Status, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;

struct Signer {
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
    context.work(queue, 1, Arc::new(Signer { api, requests, certifier })).await;
}

/// Why a signer does not sign such a thing. None: it is nobody's here.
fn refusal(signer: &str, wish: &Wish, usages: &[&str]) -> Option<Result<(), String>> {
    match signer {
        KUBELET_SERVING => Some(kubelet_serving(wish, usages).map_err(Into::into)),
        KUBELET_CLIENT => Some(kubelet_client(wish, usages).map_err(Into::into)),
        CLIENT => Some(client(usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

fn client(usages: &[&str]) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !known.contains(u)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.contains(&"client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

#[async_trait]
impl Reconcile for Signer {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(request) = self.requests.by_key(key).map(|o| o.value()) else { return Ok(Outcome::Done) };
        let settled =
            !request["status"]["certificate"].is_empty() || has(&request, "Failed") || has(&request, "Denied");
        if settled || !has(&request, "Approved") {
            return Ok(Outcome::Done);
        }
        let spec = &request["spec"];
        let (pem, usages) = (bytes(&spec["request"]), usages(&request));
        let wish = self.certifier.0.read(&pem).map_err(Status::internal)?;
        let mut done = (*request).clone();
        match refusal(spec["signerName"].str(), &wish, &usages) {
            None => return Ok(Outcome::Done),
            Some(Err(why)) => {
                let reason = "SignerValidationFailure";
                let failed = value!({"type": "Failed", "status": "True", "reason": reason, "message": why});
                done.obj_mut("status").entry("conditions", || Value::Null).ensure_array().push(failed);
            }
            Some(Ok(())) => {
                let certificate = self.certifier.0.sign(&pem, &usages, spec["expirationSeconds"].as_i64());
                done.obj_mut("status").insert("certificate", STANDARD.encode(certificate.map_err(Status::internal)?));
            }
        }
        let status = target(&gvr(), &request).subresource("status");
        let written = self.api.update(&status, done, &writes()).await?;
        self.requests.reached(written.revision).await;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_signer_signs() {
        let wish = Wish::default();
        assert_eq!(refusal(CLIENT, &wish, &["client auth", "digital signature"]), Some(Ok(())));
        assert_eq!(refusal(LEGACY, &wish, &["server auth"]), Some(Ok(())));
        assert_eq!(refusal("example.com/own", &wish, &[]), None);
        let why = |usages: &[&str]| refusal(CLIENT, &wish, usages).unwrap().unwrap_err();
        assert_eq!(why(&["client auth", "server auth"]), "invalid usage for client certificate: server auth");
        assert_eq!(why(&[]), "missing required usage for client certificate: client auth");
        assert!(refusal(KUBELET_CLIENT, &wish, &["client auth"]).unwrap().is_err());
    }
}
