//! `apiserver_authorization_*`: what authorizers decide; webhooks and their conditions, of which nothing is shown until there is one.

use super::family::{Counters, Head, Histograms, labels, sample};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often an authorizer has decided, one way or the other.
#[derive(Default)]
pub struct Decisions {
    allowed: AtomicU64,
    denied: AtomicU64,
}

impl Decisions {
    pub fn allowed(&self) {
        self.allowed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// Upstream's buckets of the time a webhook takes.
const WEBHOOK: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Upstream's buckets of the time conditions take.
const CONDITIONS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

pub struct Authorization {
    /// By type and name.
    decisions: Mutex<BTreeMap<(String, String), Arc<Decisions>>>,
    asked: Counters<2>,
    times: Histograms<2>,
    open: Counters<2>,
    matches: Histograms<2>,
    errors: Counters<2>,
    exclusions: Counters<2>,
}

impl Default for Authorization {
    fn default() -> Authorization {
        Authorization {
            decisions: Mutex::default(),
            asked: Counters::new(
                "apiserver_authorization_webhook_evaluations_total",
                "BETA",
                ["name", "result"],
                "Round-trips to authorization webhooks.",
            ),
            times: Histograms::new(
                "apiserver_authorization_webhook_duration_seconds",
                "BETA",
                ["name", "result"],
                WEBHOOK,
                "Request latency in seconds.",
            ),
            open: Counters::new(
                "apiserver_authorization_webhook_evaluations_fail_open_total",
                "BETA",
                ["name", "result"],
                "NoOpinion results due to webhook timeout or error.",
            ),
            matches: Histograms::new(
                "apiserver_authorization_match_condition_evaluation_seconds",
                "ALPHA",
                ["name", "type"],
                CONDITIONS,
                "Authorization match condition evaluation time in seconds, split by authorizer type and name.",
            ),
            errors: Counters::new(
                "apiserver_authorization_match_condition_evaluation_errors_total",
                "ALPHA",
                ["name", "type"],
                "Total number of errors when an authorization webhook encounters a match condition error split by authorizer type and name.",
            ),
            exclusions: Counters::new(
                "apiserver_authorization_match_condition_exclusions_total",
                "ALPHA",
                ["name", "type"],
                "Total number of exclusions when an authorization webhook is skipped because match conditions exclude it.",
            ),
        }
    }
}

impl Authorization {
    /// Where an authorizer counts its decisions, also when it comes again with another configuration.
    pub fn decisions(&self, kind: &str, name: &str) -> Arc<Decisions> {
        self.decisions.lock().entry((kind.into(), name.into())).or_default().clone()
    }

    fn write_decisions(&self, out: &mut String) {
        const TOTAL: Head = Head {
            name: "apiserver_authorization_decisions_total",
            stability: "ALPHA",
            help: "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
        };
        TOTAL.write("counter", out);
        for ((kind, name), counts) in &*self.decisions.lock() {
            for (decision, count) in [("allowed", &counts.allowed), ("denied", &counts.denied)] {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = labels(&["decision", "name", "type"], &[decision, name.as_str(), kind.as_str()]);
                    sample(TOTAL.name, &labels, count, out);
                }
            }
        }
    }

    /// A webhook answered, or did not; `open`: the next was asked in its place.
    pub fn asked(&self, name: &str, result: &str, open: bool, took: Duration) {
        self.asked.add([name, result], 1);
        self.times.observe([name, result], took.as_secs_f64());
        if open {
            self.open.add([name, result], 1);
        }
    }

    /// A webhook's conditions were looked at.
    pub fn matched(&self, name: &str, excluded: bool, failed: bool, took: Duration) {
        let labels = [name, "Webhook"];
        self.matches.observe(labels, took.as_secs_f64());
        if excluded {
            self.exclusions.add(labels, 1);
        }
        if failed {
            self.errors.add(labels, 1);
        }
    }

    pub fn write(&self, out: &mut String) {
        self.write_decisions(out);
        for counters in [&self.asked, &self.open, &self.errors, &self.exclusions] {
            counters.write(out);
        }
        self.times.write(out);
        self.matches.write(out);
    }
}
