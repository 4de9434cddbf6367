//! `apiserver_validating_admission_policy_*` and `apiserver_mutating_admission_policy_*`.

use crate::metrics::family::{Counters, Histograms};
use std::time::Duration;

const LIMITS: &[f64] = &[0.0000005, 0.001, 0.01, 0.1, 1.0];

pub struct Metrics {
    checks: Counters<4>,
    check_times: Histograms<4>,
    mutations: Counters<3>,
    mutation_times: Histograms<3>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            checks: Counters::new(
                "apiserver_validating_admission_policy_check_total",
                "BETA",
                ["policy", "policy_binding", "error_type", "enforcement_action"],
                "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
            ),
            check_times: Histograms::new(
                "apiserver_validating_admission_policy_check_duration_seconds",
                "BETA",
                ["policy", "policy_binding", "error_type", "enforcement_action"],
                LIMITS,
                "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
            ),
            mutations: Counters::new(
                "apiserver_mutating_admission_policy_check_total",
                "ALPHA",
                ["policy", "policy_binding", "error_type"],
                "Mutation admission policy check total, labeled by policy and further identified by binding.",
            ),
            mutation_times: Histograms::new(
                "apiserver_mutating_admission_policy_check_duration_seconds",
                "ALPHA",
                ["policy", "policy_binding", "error_type"],
                LIMITS,
                "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
            ),
        }
    }
}

/// What is wrong, by its message: whatever is not known to be something else is invalid, also a plain refusal.
fn error_type(message: &str) -> &'static str {
    if message.starts_with("compilation") {
        "compile_error"
    } else if message.starts_with("validation failed due to running out of cost budget") {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}

impl Metrics {
    /// A validation did not hold. `action`: allow (its error is ignored), deny, audit or warn.
    pub fn checked(&self, policy: &str, binding: &str, message: &str, action: &str, took: Duration) {
        let labels = [policy, binding, error_type(message), action];
        self.checks.add(labels, 1);
        self.check_times.observe(labels, took.as_secs_f64());
    }

    /// A mutation was made, or went wrong.
    pub fn mutated(&self, policy: &str, binding: &str, error: Option<&str>, took: Duration) {
        let labels = [policy, binding, error.map_or("no_error", error_type)];
        self.mutations.add(labels, 1);
        self.mutation_times.observe(labels, took.as_secs_f64());
    }

    pub fn write(&self, out: &mut String) {
        self.mutation_times.write(out);
        self.mutations.write(out);
        self.check_times.write(out);
        self.checks.write(out);
    }
}
