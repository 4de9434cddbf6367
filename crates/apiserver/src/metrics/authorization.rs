//! `apiserver_authorization_*`: webhooks and their conditions. Nothing is shown until there is one.

use super::family::{Counters, Histograms};
use std::time::Duration;

/// Upstream's buckets of the time a webhook takes.
const WEBHOOK: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Upstream's buckets of the time conditions take.
const CONDITIONS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

pub struct Authorization {
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
        for counters in [&self.asked, &self.open, &self.errors, &self.exclusions] {
            counters.write(out);
        }
        self.times.write(out);
        self.matches.write(out);
    }
}
