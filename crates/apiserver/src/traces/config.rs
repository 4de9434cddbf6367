//! `--tracing-config-file`: TracingConfiguration of apiserver.config.k8s.io.

use crate::strict::{self, Shape};

/// OTLP's own port.
const DEFAULT: &str = "localhost:4317";
const MILLION: i64 = 1_000_000;
const SHAPE: &[(&str, Shape)] = &[("endpoint", Shape::Text), ("samplingRatePerMillion", Shape::Number)];

#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// `host:port` of the collector, which is spoken to without TLS.
    pub endpoint: String,
    /// Of a million requests about which nobody has said anything.
    pub rate: u32,
}

impl Configuration {
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(text: &str) -> Result<Configuration, String> {
        let file = strict::parse(text, "TracingConfiguration", &["v1", "v1beta1", "v1alpha1"], SHAPE)?;
        let rate = file["samplingRatePerMillion"].int();
        let wrong =
            |field: &str, value: &str, why: &str| Err(format!("tracing.{field}: Invalid value: {value}: {why}"));
        if rate < 0 {
            return wrong("samplingRatePerMillion", &rate.to_string(), "sampling rate must be positive");
        }
        let Some(rate) = u32::try_from(rate).ok().filter(|_| rate <= MILLION) else {
            let why = "sampling rate per million must be less than or equal to one million";
            return wrong("samplingRatePerMillion", &rate.to_string(), why);
        };
        let endpoint = file["endpoint"].as_str().unwrap_or(DEFAULT);
        let address = match endpoint.split_once("//") {
            None => endpoint,
            Some(("dns:", rest)) => rest.trim_start_matches('/'),
            Some((scheme, _)) => {
                let why = format!("unsupported scheme: {}.  Options are none or dns", scheme.trim_end_matches(':'));
                return wrong("endpoint", &format!("{endpoint:?}"), &why);
            }
        };
        let good = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !good {
            return wrong("endpoint", &format!("{endpoint:?}"), "it is not HOST:PORT");
        }
        Ok(Configuration { endpoint: address.into(), rate })
    }

    /// Whether a trace without a parent is sampled: by its id, so that all who see it decide alike.
    pub fn samples(&self, trace: &[u8; 16]) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace[8..]);
        let bound = (1_u128 << 63) * u128::from(self.rate) / MILLION as u128;
        u128::from(u64::from_be_bytes(low) >> 1) < bound
    }
}
