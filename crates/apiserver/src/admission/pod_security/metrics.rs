//! `pod_security_*`.

use super::policy::{Level, Rules, Version};
use crate::admission::{Operation, Request};
use crate::metrics::family::Counters;
use std::sync::atomic::{AtomicU64, Ordering};

/// The minor version of the API: rules of later ones are not known.
const OWN: u32 = 36;

pub struct Metrics {
    evaluations: Counters<7>,
    /// Pods that are created and changed where nothing is asked of them: almost all.
    free: [AtomicU64; 2],
    exemptions: Counters<3>,
    errors: Counters<4>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            evaluations: Counters::new(
                "pod_security_evaluations_total",
                "ALPHA",
                ["decision", "policy_level", "policy_version", "mode", "request_operation", "resource", "subresource"],
                "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
            ),
            free: Default::default(),
            exemptions: Counters::new(
                "pod_security_exemptions_total",
                "ALPHA",
                ["request_operation", "resource", "subresource"],
                "Number of exempt requests, not counting ignored or out of scope requests.",
            ),
            errors: Counters::new(
                "pod_security_errors_total",
                "ALPHA",
                ["fatal", "request_operation", "resource", "subresource"],
                "Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
            ),
        }
    }
}

fn about<'a>(request: &'a Request) -> [&'a str; 3] {
    let operation = if request.operation == Operation::Update { "update" } else { "create" };
    let resource = match request.resource.plural {
        "pods" => "pod",
        "namespaces" => "namespace",
        _ => "controller",
    };
    [operation, resource, request.subresource]
}

impl Metrics {
    /// `mode`: enforce, audit or warn.
    pub fn evaluated(&self, request: &Request, rules: Rules, mode: &str, allowed: bool) {
        let [operation, resource, subresource] = about(request);
        let free = rules.level == Level::Privileged && allowed && mode == "enforce";
        if free && (resource, subresource) == ("pod", "") {
            self.free[usize::from(operation == "update")].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let version = match rules.version {
            _ if rules.level == Level::Privileged => "latest".to_string(),
            Version::Minor(minor) if minor > OWN => "future".into(),
            version => version.to_string(),
        };
        let decision = if allowed { "allow" } else { "deny" };
        let level = rules.level.to_string();
        self.evaluations.add([decision, &level, &version, mode, operation, resource, subresource], 1);
    }

    pub fn exempt(&self, request: &Request) {
        self.exemptions.add(about(request), 1);
    }

    pub fn failed(&self, request: &Request, fatal: bool) {
        let [operation, resource, subresource] = about(request);
        self.errors.add([if fatal { "true" } else { "false" }, operation, resource, subresource], 1);
    }

    pub fn write(&self, out: &mut String) {
        for (count, operation) in self.free.iter().zip(["create", "update"]) {
            let count = count.swap(0, Ordering::Relaxed);
            self.evaluations.add(["allow", "privileged", "latest", "enforce", operation, "pod", ""], count);
        }
        self.errors.write(out);
        self.evaluations.write(out);
        self.exemptions.write(out);
    }
}
