//! `/metrics` in the Prometheus text format, with upstream's names.

pub mod atomic;
pub mod authorization;
mod caches;
pub mod family;
pub(crate) mod process;
pub mod reloads;
pub mod requests;

use crate::server::Server;
use atomic::AtomicHistogram;
use canopus_api::Gvr;
use canopus_api::gates::{self, Gates, Stage};
use family::{Counters, Head, Histograms, labels, sample};
use parking_lot::Mutex;
use requests::Requests;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's `ExponentialBuckets(0.001, 2, 15)`.
pub const DOUBLING: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Upstream's buckets of the time a JSON Web Token takes.
const TOKENS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const STORAGE: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Of the sizes of watch events.
const EVENT_SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

/// Sizes of the events that were sent of one resource.
pub type Events = AtomicHistogram<9>;

pub struct Metrics {
    pub requests: Requests,
    pub webhooks: Arc<crate::admission::webhook::metrics::Metrics>,
    pub conversions: crate::conversion::metrics::Metrics,
    pub policies: crate::admission::policy::metrics::Metrics,
    pub pod_security: Arc<crate::admission::pod_security::metrics::Metrics>,
    events: Mutex<BTreeMap<Gvr, Arc<Events>>>,
    authentications: Counters<1>,
    authentication_times: Histograms<1>,
    /// By result and issuer.
    pub json_web_tokens: Histograms<2>,
    users: Counters<1>,
    pub authorization: Arc<authorization::Authorization>,
    authorizations: Counters<1>,
    authorization_times: Histograms<1>,
    storage: Histograms<3>,
    storage_errors: Counters<3>,
    pub health_checks: Counters<3>,
    /// Files that are read again when they change.
    pub authentication_config: reloads::Reloads,
    pub authorization_config: reloads::Reloads,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Requests::default(),
            webhooks: Arc::default(),
            conversions: Default::default(),
            policies: Default::default(),
            pod_security: Arc::default(),
            events: Mutex::default(),
            authentications: Counters::new(
                "authentication_attempts",
                "ALPHA",
                ["result"],
                "Counter of authenticated attempts.",
            ),
            authentication_times: Histograms::new(
                "authentication_duration_seconds",
                "ALPHA",
                ["result"],
                DOUBLING,
                "Authentication duration in seconds broken out by result.",
            ),
            json_web_tokens: Histograms::new(
                "apiserver_authentication_jwt_authenticator_latency_seconds",
                "ALPHA",
                ["jwt_issuer_hash", "result"],
                TOKENS,
                "Latency of jwt authentication operations in seconds. This is the time spent authenticating a token for cache miss only (i.e. when the token is not found in the cache).",
            ),
            users: Counters::new(
                "authenticated_user_requests",
                "ALPHA",
                ["username"],
                "Counter of authenticated requests broken out by username.",
            ),
            authorization: Arc::default(),
            authorizations: Counters::new(
                "authorization_attempts_total",
                "ALPHA",
                ["result"],
                "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
            ),
            authorization_times: Histograms::new(
                "authorization_duration_seconds",
                "ALPHA",
                ["result"],
                DOUBLING,
                "Authorization duration in seconds broken out by result.",
            ),
            storage: Histograms::new(
                "etcd_request_duration_seconds",
                "ALPHA",
                ["operation", "group", "resource"],
                STORAGE,
                "Etcd request latency in seconds for each operation and object type.",
            ),
            storage_errors: Counters::new(
                "etcd_request_errors_total",
                "ALPHA",
                ["operation", "group", "resource"],
                "Etcd failed request counts for each operation and object type.",
            ),
            health_checks: Counters::new(
                "kubernetes_healthchecks_total",
                "STABLE",
                ["name", "status", "type"],
                "This metric records the results of all healthcheck.",
            ),
            authentication_config: Default::default(),
            authorization_config: Default::default(),
        }
    }
}

impl Metrics {
    /// `result`: success, failure or error; `user`: who it was found to be.
    pub fn authenticated(&self, result: &str, user: Option<&str>, took: Duration) {
        self.authentications.add([result], 1);
        self.authentication_times.observe([result], took.as_secs_f64());
        if let Some(user) = user {
            self.users.add([known_user(user)], 1);
        }
    }

    /// `result`: allowed, denied or no-opinion.
    pub fn authorized(&self, result: &str, took: Duration) {
        self.authorizations.add([result], 1);
        self.authorization_times.observe([result], took.as_secs_f64());
    }

    /// One question to the store, whatever store it is.
    pub fn stored(&self, operation: &str, group: &str, resource: &str, took: Duration, failed: bool) {
        self.storage.observe([operation, group, resource], took.as_secs_f64());
        if failed {
            self.storage_errors.add([operation, group, resource], 1);
        }
    }

    /// Where watches of a resource count what they send.
    pub fn events(&self, gvr: &Gvr) -> Arc<Events> {
        self.events.lock().entry(gvr.clone()).or_default().clone()
    }

    fn write_events(&self, out: &mut String) {
        const TOTAL: Head = Head {
            name: "apiserver_watch_events_total",
            stability: "ALPHA",
            help: "Number of events sent in watch clients",
        };
        const SIZES: Head = Head {
            name: "apiserver_watch_events_sizes",
            stability: "ALPHA",
            help: "Watch event size distribution in bytes",
        };
        let events = self.events.lock();
        let of = |gvr: &Gvr| labels(&["group", "version", "resource"], &[&gvr.group, &gvr.version, &gvr.resource]);
        TOTAL.write("counter", out);
        events.iter().for_each(|(gvr, sizes)| sample(TOTAL.name, &of(gvr), sizes.count(), out));
        SIZES.write("histogram", out);
        events.iter().for_each(|(gvr, sizes)| sizes.read().write(SIZES.name, &of(gvr), EVENT_SIZES, out));
    }
}

/// One event of so many bytes went to a watcher.
pub fn sent(events: &Events, bytes: usize) {
    events.observe(EVENT_SIZES, bytes as f64);
}

/// Names of users would be too many labels (upstream `compressUsername`).
fn known_user(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        name if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// Everything at `/metrics`.
pub fn text(server: &Server) -> String {
    let mut out = String::with_capacity(64 << 10);
    let metrics = &server.metrics;
    if let Ok(gates) = server.gates.get() {
        gates.admission.write_metrics(&mut out);
    }
    metrics.webhooks.render(&mut out);
    metrics.conversions.write(&mut out);
    metrics.policies.write(&mut out);
    metrics.pod_security.write(&mut out);
    caches::write(&server.catalog.table(), &mut out);
    metrics.requests.write(&mut out);
    render_inflight(server.inflight.current(), &mut out);
    server.flow.render(&mut out);
    metrics.write_events(&mut out);
    metrics.users.write(&mut out);
    metrics.authentications.write(&mut out);
    metrics.authentication_times.write(&mut out);
    metrics.json_web_tokens.write(&mut out);
    metrics.authentication_config.write("authentication", &mut out);
    metrics.authorization_config.write("authorization", &mut out);
    metrics.authorization.write(&mut out);
    metrics.authorizations.write(&mut out);
    metrics.authorization_times.write(&mut out);
    if let Some(audit) = server.audit.get() {
        audit.render(&mut out);
    }
    if let Some(encryption) = server.encryption.get() {
        encryption.write_metrics(&mut out);
    }
    crate::service_ips::metrics::write(server, &mut out);
    metrics.storage.write(&mut out);
    write_counts_of(&metrics.storage, &mut out);
    metrics.storage_errors.write(&mut out);
    render_features(&server.settings.features, &mut out);
    process::write(&mut out);
    out
}

/// `etcd_requests_total`, which the durations know.
fn write_counts_of(storage: &Histograms<3>, out: &mut String) {
    const TOTAL: Head = Head {
        name: "etcd_requests_total",
        stability: "ALPHA",
        help: "Etcd request counts for each operation and object type.",
    };
    TOTAL.write("counter", out);
    for (key, histogram) in &*storage.values.lock() {
        sample(TOTAL.name, &labels(&storage.labels, key), histogram.count(), out);
    }
}

/// How many requests are being handled, by kind.
pub fn render_inflight((reads, writes): (usize, usize), out: &mut String) {
    out.push_str("# HELP apiserver_current_inflight_requests [STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.\n# TYPE apiserver_current_inflight_requests gauge\n");
    for (kind, count) in [("mutating", writes), ("readOnly", reads)] {
        let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}");
    }
}

/// Which features are on.
pub fn render_features(features: &Gates, out: &mut String) {
    out.push_str("# HELP kubernetes_feature_enabled [BETA] This metric records the data about the stage and enablement of a k8s feature.\n# TYPE kubernetes_feature_enabled gauge\n");
    for gate in gates::all() {
        let stage = match gate.stage {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
            Stage::Ga => "",
            Stage::Deprecated => "DEPRECATED",
        };
        let (name, on) = (gate.name, u8::from(features.enabled(gate.name)));
        let _ = writeln!(out, "kubernetes_feature_enabled{{name=\"{name}\",stage=\"{stage}\"}} {on}");
    }
}
