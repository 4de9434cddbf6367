//! MutatingAdmissionWebhook: webhooks one after the other, each on what the ones before it made of the object.

use super::{Trouble, Webhooks};
use crate::admission::{Plugin, Request};
use crate::notes;
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::{Status, Value, json, patch, value};
use std::sync::Arc;
use std::time::Instant;

pub(super) const STEP: &str = "admit";
const NAME: &str = "MutatingAdmissionWebhook";

pub struct MutatingWebhooks(Webhooks);

impl MutatingWebhooks {
    pub fn new(server: &Arc<Server>) -> Result<MutatingWebhooks, Status> {
        Webhooks::new(server, "mutatingwebhookconfigurations", STEP).map(MutatingWebhooks)
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, request: &Request) -> bool {
        self.0.wants(request)
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let round = request.reinvocation.round;
        if round > 0 {
            request.reinvocation.begin(NAME, &request.object);
        }
        for (place, hook) in self.0.hooks().iter().enumerate() {
            let Some(version) = self.0.called(hook, request).await? else { continue };
            if round > 0 && !request.reinvocation.due(NAME, &hook.id) {
                continue;
            }
            let since = Instant::now();
            let server = self.0.server()?;
            let object = version.shown(&server, &request.object, request).await?;
            let old = version.shown(&server, request.old, request).await?;
            let asked = self.0.ask(hook, &version, request, &object, &old).await;
            let done = match asked {
                Ok(verdict) if verdict.patch.is_empty() => Ok(None),
                Ok(verdict) => patched(&hook.name, &object, &verdict.patch),
                Err(trouble) => Err(trouble),
            };
            let mut changed = false;
            let trouble = match done {
                Ok(Some(object)) => {
                    let object = version.taken_back(&server, object, request).await?;
                    changed = object != request.object;
                    request.object = object;
                    None
                }
                Ok(None) => None,
                Err(trouble) => Some(trouble),
            };
            let about = value!({"configuration": &hook.configuration, "webhook": &hook.name, "mutated": changed});
            let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{place}");
            notes::annotate(&key, &json::to_string(&about));
            if changed {
                request.reinvocation.changed(NAME);
            }
            if hook.reinvoke {
                request.reinvocation.invoked(NAME, &hook.id);
            }
            self.0.settle(hook, place, round, request, since, trouble)?;
        }
        request.reinvocation.end(NAME, &request.object);
        Ok(())
    }
}

/// None for a patch without operations.
fn patched(name: &str, object: &Value, bytes: &[u8]) -> Result<Option<Value>, Trouble> {
    let undecodable = |why: String| Trouble::Calling {
        why: format!("received undecodable patch in webhook response: {why}"),
        code: 503,
    };
    let ops = json::parse(bytes).map_err(|e| undecodable(e.to_string()))?;
    if ops.as_array().is_none() {
        return Err(undecodable("it is no list of operations".into()));
    }
    if ops.items().is_empty() {
        return Ok(None);
    }
    if object.is_null() {
        let why = format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        );
        return Err(Trouble::Impossible(Status::internal(why)));
    }
    let done = patch::json_patch(object, &ops).map_err(|e| Trouble::Impossible(Status::internal(e.message)))?;
    Ok(Some(done))
}
