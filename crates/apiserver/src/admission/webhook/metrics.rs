//! `apiserver_admission_webhook_*`.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Upstream's buckets of `apiserver_admission_webhook_admission_duration_seconds`.
const BUCKETS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

pub const CALLING: &str = "calling_webhook_error";
pub const DENIED: &str = "no_error";
pub const INTERNAL: &str = "apiserver_internal_error";

/// Codes above are counted as this (upstream does so to bound the label).
const HIGHEST_CODE: u16 = 600;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    name: String,
    operation: &'static str,
    rejected: bool,
    step: &'static str,
}

#[derive(Default)]
struct Latency {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Counted {
    latencies: BTreeMap<Call, Latency>,
    requests: BTreeMap<(Call, u16), u64>,
    rejections: BTreeMap<(Call, u16, &'static str), u64>,
    failed_open: BTreeMap<(String, &'static str), u64>,
}

#[derive(Default)]
pub struct Metrics(Mutex<Counted>);

impl Metrics {
    #[expect(clippy::too_many_arguments, reason = "one for each label")]
    pub fn called(
        &self,
        name: &str,
        step: &'static str,
        operation: &'static str,
        rejected: bool,
        code: u16,
        cause: &'static str,
        took: Duration,
    ) {
        let call = Call { name: name.into(), operation, rejected, step };
        let code = code.min(HIGHEST_CODE);
        let mut counted = self.0.lock();
        let latency = counted.latencies.entry(call.clone()).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, limit) in latency.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= *limit);
        }
        latency.count += 1;
        latency.sum += seconds;
        if rejected {
            *counted.rejections.entry((call.clone(), code, cause)).or_default() += 1;
        }
        *counted.requests.entry((call, code)).or_default() += 1;
    }

    pub fn failed_open(&self, name: &str, step: &'static str) {
        *self.0.lock().failed_open.entry((name.into(), step)).or_default() += 1;
    }

    /// Nothing until a webhook has been called.
    pub fn render(&self, out: &mut String) {
        let counted = self.0.lock();
        if counted.requests.is_empty() {
            return;
        }
        let labels = |c: &Call| {
            format!("name=\"{}\",operation=\"{}\",rejected=\"{}\",type=\"{}\"", c.name, c.operation, c.rejected, c.step)
        };
        out.push_str("# HELP apiserver_admission_webhook_admission_duration_seconds [STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).\n# TYPE apiserver_admission_webhook_admission_duration_seconds histogram\n");
        for (call, latency) in &counted.latencies {
            let name = "apiserver_admission_webhook_admission_duration_seconds";
            let labels = labels(call);
            for (bucket, limit) in latency.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{limit}\"}} {bucket}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", latency.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", latency.sum);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", latency.count);
        }
        out.push_str("# HELP apiserver_admission_webhook_fail_open_count [ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or mutating).\n# TYPE apiserver_admission_webhook_fail_open_count counter\n");
        for ((name, step), count) in &counted.failed_open {
            let _ =
                writeln!(out, "apiserver_admission_webhook_fail_open_count{{name=\"{name}\",type=\"{step}\"}} {count}");
        }
        out.push_str("# HELP apiserver_admission_webhook_rejection_count [ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.\n# TYPE apiserver_admission_webhook_rejection_count counter\n");
        for ((c, code, cause), count) in &counted.rejections {
            let _ = writeln!(
                out,
                "apiserver_admission_webhook_rejection_count{{error_type=\"{cause}\",name=\"{}\",operation=\"{}\",rejection_code=\"{code}\",type=\"{}\"}} {count}",
                c.name, c.operation, c.step
            );
        }
        out.push_str("# HELP apiserver_admission_webhook_request_total [ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.\n# TYPE apiserver_admission_webhook_request_total counter\n");
        for ((call, code), count) in &counted.requests {
            let _ =
                writeln!(out, "apiserver_admission_webhook_request_total{{code=\"{code}\",{}}} {count}", labels(call));
        }
    }
}
