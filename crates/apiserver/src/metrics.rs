//! `/metrics` in the Prometheus text format, with upstream's names.

use canopus_api::gates::{self, Gates, Stage};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Default)]
struct Latency {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Requests {
    counts: BTreeMap<(RequestLabels, u16), u64>,
    latencies: BTreeMap<RequestLabels, Latency>,
}

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<Requests>,
    pub webhooks: std::sync::Arc<crate::admission::webhook::metrics::Metrics>,
}

impl Metrics {
    /// Counts one finished request. `verb` is upstream's: GET, LIST, POST, …
    pub fn request(&self, verb: &str, target: &canopus_api::Target, code: u16, took: Duration) {
        let scope = match (target.name.is_empty(), target.namespace.is_empty()) {
            _ if target.gvr.resource.is_empty() => "",
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let labels = RequestLabels {
            verb: verb.into(),
            group: target.gvr.group.to_string(),
            version: target.gvr.version.to_string(),
            resource: target.gvr.resource.to_string(),
            subresource: target.subresource.to_string(),
            scope,
        };
        let mut requests = self.requests.lock();
        *requests.counts.entry((labels.clone(), code)).or_default() += 1;
        let latency = requests.latencies.entry(labels).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, limit) in latency.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= *limit);
        }
        latency.count += 1;
        latency.sum += seconds;
    }

    pub fn render(&self, out: &mut String) {
        let requests = self.requests.lock();
        out.push_str("# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.\n# TYPE apiserver_request_total counter\n");
        for ((l, code), count) in &requests.counts {
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{}\",component=\"apiserver\",dry_run=\"\",{}}} {count}",
                code,
                l.render()
            );
        }
        out.push_str("# HELP apiserver_request_duration_seconds [STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.\n# TYPE apiserver_request_duration_seconds histogram\n");
        for (l, latency) in &requests.latencies {
            let labels = format!("component=\"apiserver\",dry_run=\"\",{}", l.render());
            for (bucket, limit) in latency.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{limit}\"}} {bucket}");
            }
            let _ =
                writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}", latency.count);
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", latency.sum);
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {}", latency.count);
        }
    }
}

impl RequestLabels {
    fn render(&self) -> String {
        format!(
            "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
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
