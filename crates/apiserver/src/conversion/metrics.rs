//! `apiserver_conversion_webhook_*` and `apiserver_crd_conversion_webhook_*`.

use crate::metrics::DOUBLING;
use crate::metrics::family::{Counters, Histograms};
use std::time::Duration;

const REQUESTS: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// What went wrong with a conversion (upstream `ConversionWebhookErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    Call,
    Malformed,
    Partial,
    InvalidObject,
}

impl Failed {
    fn label(self) -> &'static str {
        match self {
            Failed::Call => "conversion_webhook_call_failure",
            Failed::Malformed => "conversion_webhook_malformed_response_failure",
            Failed::Partial => "conversion_webhook_partial_response_failure",
            Failed::InvalidObject => "conversion_webhook_invalid_converted_object_failure",
        }
    }
}

pub struct Metrics {
    requests: Counters<2>,
    latencies: Histograms<2>,
    conversions: Histograms<4>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Counters::new(
                "apiserver_conversion_webhook_request_total",
                "ALPHA",
                ["failure_type", "result"],
                "Counter for conversion webhook requests with success/failure and failure error type",
            ),
            latencies: Histograms::new(
                "apiserver_conversion_webhook_duration_seconds",
                "ALPHA",
                ["failure_type", "result"],
                REQUESTS,
                "Conversion webhook request latency",
            ),
            conversions: Histograms::new(
                "apiserver_crd_conversion_webhook_duration_seconds",
                "ALPHA",
                ["crd_name", "from_version", "succeeded", "to_version"],
                DOUBLING,
                "CRD webhook conversion duration in seconds",
            ),
        }
    }
}

impl Metrics {
    pub fn asked(&self, failed: Option<Failed>, took: Duration) {
        let labels = [failed.map_or("", Failed::label), if failed.is_some() { "failure" } else { "success" }];
        self.requests.add(labels, 1);
        self.latencies.observe(labels, took.as_secs_f64());
    }

    pub fn converted(&self, definition: &str, from: &str, to: &str, succeeded: bool, took: Duration) {
        let succeeded = if succeeded { "true" } else { "false" };
        self.conversions.observe([definition, from, succeeded, to], took.as_secs_f64());
    }

    /// Nothing until a webhook has been called.
    pub fn write(&self, out: &mut String) {
        self.latencies.write(out);
        self.requests.write(out);
        self.conversions.write(out);
    }
}
