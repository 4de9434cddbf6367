//! ValidatingAdmissionWebhook: all webhooks at once, on what is about to be stored.

use super::{Hook, Webhooks};
use crate::admission::matching::Version;
use crate::admission::{Plugin, Request};
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::Status;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Instant;

pub struct ValidatingWebhooks(Webhooks);

impl ValidatingWebhooks {
    pub fn new(server: &Arc<Server>) -> Result<ValidatingWebhooks, Status> {
        Webhooks::new(server, "validatingwebhookconfigurations", "validating").map(ValidatingWebhooks)
    }

    async fn one(&self, hook: &Hook, place: usize, version: &Version, request: &Request<'_>) -> Result<(), Status> {
        let since = Instant::now();
        let server = self.0.server()?;
        let object = version.shown(&server, &request.object, request).await?;
        let old = version.shown(&server, request.old, request).await?;
        let trouble = self.0.ask(hook, version, request, &object, &old).await.err();
        self.0.settle(hook, place, 0, request, since, trouble)
    }
}

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, request: &Request) -> bool {
        self.0.wants(request)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let hooks = self.0.hooks();
        let mut called = Vec::new();
        for hook in hooks.iter() {
            if let Some(version) = self.0.called(hook, request).await? {
                called.push((hook, version));
            }
        }
        let calls = called.iter().enumerate().map(|(i, (hook, version))| self.one(hook, i, version, request));
        join_all(calls).await.into_iter().collect()
    }
}
