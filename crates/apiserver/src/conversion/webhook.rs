//! The call of a conversion webhook.

use super::metrics::Failed;
use super::review::{self, API_VERSIONS};
use crate::outgoing::Destination;
use crate::server::Server;
use crate::surroundings::uuid;
use canopus_api::{Gvk, Value, json};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What upstream's client of webhooks waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// A list of more bytes than this is converted in several calls: each side holds all of a call at once.
const BATCH: usize = 16 << 20;

/// `spec.conversion.webhook` of a definition.
pub struct Webhook {
    server: Weak<Server>,
    /// The definition's.
    name: String,
    to: Result<Destination, String>,
    /// The first version of ConversionReview that both sides know.
    review: Option<&'static str>,
}

impl Webhook {
    pub(super) fn of(server: &Arc<Server>, definition: &Value) -> Webhook {
        let hook = &definition["spec"]["conversion"]["webhook"];
        let mut versions = hook["conversionReviewVersions"].items().iter().map(Value::str);
        Webhook {
            server: Arc::downgrade(server),
            name: definition["metadata"]["name"].str().into(),
            to: Destination::of_client_config(&hook["clientConfig"]),
            review: versions.find_map(|v| API_VERSIONS.into_iter().find(|known| known.ends_with(&format!("/{v}")))),
        }
    }

    /// The objects, none of which is in this version yet, in the order they came.
    pub(super) async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, String> {
        let mut out = Vec::with_capacity(objects.len());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for object in objects {
            let size = json::to_vec(&object).len();
            if bytes + size > BATCH && !batch.is_empty() {
                out.extend(self.measured(std::mem::take(&mut batch), api_version).await?);
                bytes = 0;
            }
            bytes += size;
            batch.push(object);
        }
        if !batch.is_empty() {
            out.extend(self.measured(batch, api_version).await?);
        }
        Ok(out)
    }

    async fn measured(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, String> {
        let server = self.server.upgrade().ok_or("the server is stopping")?;
        let first = objects.first().map(Gvk::of).unwrap_or_default();
        let started = Instant::now();
        let result = self.call(&server, objects, api_version).await;
        let took = started.elapsed();
        let metrics = &server.metrics.conversions;
        metrics.asked(result.as_ref().err().map(|(kind, _)| *kind), took);
        let to = api_version.split_once('/').map_or(api_version, |(_, version)| version);
        metrics.converted(&self.name, &first.version, to, result.is_ok(), took);
        result.map_err(|(_, why)| format!("conversion webhook for {first} {why}"))
    }

    async fn call(
        &self,
        server: &Server,
        objects: Vec<Value>,
        api_version: &str,
    ) -> Result<Vec<Value>, (Failed, String)> {
        let calling = |why: String| (Failed::Call, format!("failed: {why}"));
        let version = self.review.ok_or_else(|| calling("no supported conversion review versions".into()))?;
        let to = self.to.as_ref().map_err(|why| calling(why.clone()))?;
        let uid = uuid(server.surroundings.random());
        let (review, objects) = review::request(version, &uid, api_version, objects);
        let answer = server.outgoing.post(to, &review, PATIENCE).await.map_err(|why| calling(why.to_string()))?;
        drop(review);
        let converted =
            review::response(version, &uid, answer).map_err(|why| (Failed::Malformed, format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            let why = format!("returned {} objects, expected {}", converted.len(), objects.len());
            return Err((Failed::Partial, why));
        }
        let alone = objects.len() == 1;
        let pairs = objects.iter().zip(converted).enumerate();
        let checked = pairs.map(|(at, (object, converted))| {
            review::checked(object, converted, api_version).map_err(|why| (Failed::InvalidObject, why.at(at, alone)))
        });
        checked.collect()
    }
}
