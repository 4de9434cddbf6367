//! `apiserver_admission_*_admission_duration_seconds`.

use super::{Chain, Operation};
use crate::metrics::atomic::AtomicHistogram;
use crate::metrics::family::{Head, labels};
use std::time::Duration;

const LIMITS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
const STEPS: [&str; 2] = ["admit", "validate"];

const STEP: Head = Head {
    name: "apiserver_admission_step_admission_duration_seconds",
    stability: "STABLE",
    help: "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
};
const CONTROLLER: Head = Head {
    name: "apiserver_admission_controller_admission_duration_seconds",
    stability: "STABLE",
    help: "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
};

/// How long a plugin, or all of them, took: by step, operation and whether it was refused.
#[derive(Default)]
pub struct Times([[[AtomicHistogram<7>; 2]; 4]; 2]);

impl Times {
    pub fn took(&self, validating: bool, operation: Operation, rejected: bool, took: Duration) {
        let operation = OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
        self.0[usize::from(validating)][operation][usize::from(rejected)].took(LIMITS, took);
    }

    fn write(&self, head: &Head, name: Option<&str>, out: &mut String) {
        for (step, by_operation) in STEPS.iter().zip(&self.0) {
            for (operation, by_result) in OPERATIONS.iter().zip(by_operation) {
                for (rejected, times) in ["false", "true"].iter().zip(by_result) {
                    if times.count() == 0 {
                        continue;
                    }
                    let mut of = labels(&["operation", "rejected", "type"], &[operation.name(), rejected, step]);
                    if let Some(name) = name {
                        of = format!("{},{of}", labels(&["name"], &[name]));
                    }
                    times.read().write(head.name, &of, LIMITS, out);
                }
            }
        }
    }
}

impl Chain {
    pub fn write_metrics(&self, out: &mut String) {
        CONTROLLER.write("histogram", out);
        for (plugin, times) in self.plugins.iter().zip(&self.times) {
            times.write(&CONTROLLER, Some(plugin.name()), out);
        }
        STEP.write("histogram", out);
        self.steps.write(&STEP, None, out);
    }
}
