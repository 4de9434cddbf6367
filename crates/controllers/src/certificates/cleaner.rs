//! Removes requests that are settled or forgotten (upstream `csrcleaner`).

use super::{Certifier, bytes, gvr, has};
use crate::context::{Context, target};
use async_trait::async_trait;
use canopus_api::{Api, DeleteOptions, Status, Time, Value, View};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(3600);
const SETTLED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

struct Cleaner {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
    certifier: Certifier,
    queue: Arc<Queue<Key>>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let Some(certifier) = context.config.certifier.clone() else { return };
    let requests = context.informer("certificates.k8s.io", "v1", "certificatesigningrequests");
    let queue = Arc::new(Queue::default());
    queue.add("all".into());
    let api = context.api("certificate-controller");
    let cleaner = Cleaner { api, requests, certifier, queue: queue.clone() };
    context.work(queue, 1, Arc::new(cleaner)).await;
}

fn is_old(request: &Value, expired: impl Fn(&[u8]) -> bool, now: Time) -> bool {
    let older = |since: &Value, limit: Duration| Time::parse(since.str()).is_some_and(|t| now.since(t) > limit);
    let certificate = bytes(&request["status"]["certificate"]);
    let conditions = request["status"]["conditions"].items();
    if conditions.is_empty() {
        return older(&request["metadata"]["creationTimestamp"], PENDING);
    }
    let past = conditions.iter().any(|c| match c["type"].str() {
        "Denied" | "Failed" => older(&c["lastUpdateTime"], SETTLED),
        "Approved" if certificate.is_empty() => older(&c["lastUpdateTime"], PENDING),
        "Approved" => older(&c["lastUpdateTime"], SETTLED),
        _ => false,
    });
    past || has(request, "Approved") && !certificate.is_empty() && expired(&certificate)
}

#[async_trait]
impl Reconcile for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        self.queue.add_after(key.clone(), PERIOD);
        let now = canopus_client::now();
        for request in View::list(&*self.requests, "") {
            let value = request.value();
            if !is_old(&value, |pem| self.certifier.0.expired(pem), now) {
                continue;
            }
            let exactly = DeleteOptions { uid: Some(request.facts.uid.clone()), ..DeleteOptions::default() };
            match self.api.delete(&target(&gvr(), &value), &exactly).await {
                Err(gone) if gone.is_not_found() || gone.is_conflict() => {}
                done => drop(done?),
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn how_long_requests_are_kept() {
        let now = Time::parse("2026-01-02T12:00:00Z").unwrap();
        let request = |created: &str, condition: &str, updated: &str, certificate: &str| {
            let conditions = match condition {
                "" => value!([]),
                kind => value!([{"type": kind, "status": "True", "lastUpdateTime": updated}]),
            };
            value!({"metadata": {"creationTimestamp": created}, "status": {"conditions": conditions, "certificate": certificate}})
        };
        let (fresh, hours, days) = ("2026-01-02T11:30:00Z", "2026-01-02T10:00:00Z", "2026-01-01T10:00:00Z");
        for (created, condition, updated, certificate, old) in [
            (hours, "", "", "", false),
            (days, "", "", "", true),
            (days, "Denied", fresh, "", false),
            (days, "Denied", hours, "", true),
            (days, "Failed", hours, "", true),
            (days, "Approved", hours, "", false),
            (days, "Approved", days, "", true),
            (days, "Approved", fresh, "Zm9v", false),
            (days, "Approved", hours, "Zm9v", true),
        ] {
            let request = request(created, condition, updated, certificate);
            assert_eq!(is_old(&request, |_| false, now), old, "{condition} {updated} {certificate}");
        }
        assert!(is_old(&request(fresh, "Approved", fresh, "Zm9v"), |_| true, now));
    }
}
