//! What metrics say of encryption at rest: `apiserver_storage_transformation_*` and `apiserver_envelope_encryption_*`.

use super::kms::hashed;
use crate::metrics::family::{Counters, Head, Histograms, labels, sample};
use crate::metrics::reloads::{hash, server_id};
use canopus_api::Time;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Upstream's `ExponentialBuckets(start, 2, N)`.
const fn doubling<const N: usize>(start: f64) -> [f64; N] {
    let mut limits = [start; N];
    let mut at = 1;
    while at < N {
        limits[at] = limits[at - 1] * 2.0;
        at += 1;
    }
    limits
}

const TRANSFORMATIONS: &[f64] = &doubling::<25>(5e-6);
const OPERATIONS: &[f64] = &doubling::<20>(1e-4);
/// Of how many keys something is shown: those that were used last.
const KEYS: usize = 100;

/// How often a key was used, and when last.
type Uses = Mutex<BTreeMap<[CompactString; 3], (u64, Time)>>;

pub struct Metrics {
    durations: Histograms<2>,
    transformations: Counters<4>,
    /// Of calls to a key management service, by provider, method and status.
    pub operations: Histograms<3>,
    /// By provider and reason.
    pub invalid_key_ids: Counters<2>,
    misses: Mutex<u64>,
    /// Decrypted keys that are kept, by provider.
    kept: Mutex<BTreeMap<String, usize>>,
    /// By transformation, provider and key.
    uses: Uses,
    /// By provider and key; the first is empty.
    statuses: Uses,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            durations: Histograms::new(
                "apiserver_storage_transformation_duration_seconds",
                "ALPHA",
                ["transformation_type", "transformer_prefix"],
                TRANSFORMATIONS,
                "Latencies in seconds of value transformation operations.",
            ),
            transformations: Counters::new(
                "apiserver_storage_transformation_operations_total",
                "ALPHA",
                ["resource", "transformation_type", "transformer_prefix", "status"],
                "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails. The status, resource, and transformation_type fields can be used for alerting purposes. For example, you can monitor for encryption/decryption failures using the transformation_type (e.g., from_storage for decryption and to_storage for encryption). Additionally, these fields can be used to ensure that the correct transformers are applied to each resource.",
            ),
            operations: Histograms::new(
                "apiserver_envelope_encryption_kms_operations_latency_seconds",
                "ALPHA",
                ["provider_name", "method_name", "grpc_status_code"],
                OPERATIONS,
                "KMS operation duration with gRPC error code status total.",
            ),
            invalid_key_ids: Counters::new(
                "apiserver_envelope_encryption_invalid_key_id_from_status_total",
                "ALPHA",
                ["provider_name", "error"],
                "Number of times an invalid keyID is returned by the Status RPC call split by error.",
            ),
            misses: Mutex::default(),
            kept: Mutex::default(),
            uses: Mutex::default(),
            statuses: Mutex::default(),
        }
    }
}

fn used(uses: &Uses, key: [&str; 3], now: Time) {
    let mut uses = uses.lock();
    let key = key.map(CompactString::from);
    if uses.len() >= KEYS && !uses.contains_key(&key) {
        let oldest = uses.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| key.clone());
        oldest.and_then(|key| uses.remove(&key));
    }
    let (count, last) = uses.entry(key).or_default();
    (*count, *last) = (*count + 1, now);
}

impl Metrics {
    /// A value passed. `code`: `OK`, or what gRPC or upstream call the failure.
    pub fn transformed(&self, resource: &str, way: &str, prefix: &str, code: &str, took: Duration) {
        self.transformations.add([resource, way, prefix, code], 1);
        if code == "OK" {
            self.durations.observe([way, prefix], took.as_secs_f64());
        }
    }

    /// A key was not among those that are kept.
    pub fn missed(&self) {
        *self.misses.lock() += 1;
    }

    pub fn keeps(&self, provider: &str, keys: usize) {
        self.kept.lock().insert(provider.into(), keys);
    }

    /// `way`: `to_storage` or `from_storage`.
    pub fn key_used(&self, way: &str, provider: &str, key_id: &str, now: Time) {
        used(&self.uses, [way, provider, &hashed(key_id)], now);
    }

    pub fn key_told(&self, provider: &str, key_id: &str, now: Time) {
        used(&self.statuses, ["", provider, &hashed(key_id)], now);
    }

    pub fn write(&self, out: &mut String) {
        self.durations.write(out);
        self.transformations.write(out);
        let misses = Head {
            name: "apiserver_storage_envelope_transformation_cache_misses_total",
            stability: "ALPHA",
            help: "Total number of cache misses while accessing key decryption key(KEK).",
        };
        misses.write("counter", out);
        sample(misses.name, "", *self.misses.lock(), out);
        self.operations.write(out);
        self.invalid_key_ids.write(out);
        let kept = self.kept.lock();
        if !kept.is_empty() {
            let head = Head {
                name: "apiserver_envelope_encryption_dek_source_cache_size",
                stability: "ALPHA",
                help: "Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
            };
            head.write("gauge", out);
            kept.iter().for_each(|(name, keys)| sample(head.name, &labels(&["provider_name"], &[name]), keys, out));
        }
        let uses = self.uses.lock();
        write_uses(&uses, &TOTAL, "counter", |(count, _)| count.to_string(), out);
        write_uses(&uses, &LAST, "gauge", |(_, last)| seconds(*last), out);
        write_uses(&self.statuses.lock(), &TOLD, "gauge", |(_, last)| seconds(*last), out);
    }
}

const TOTAL: Head = Head {
    name: "apiserver_envelope_encryption_key_id_hash_total",
    stability: "ALPHA",
    help: "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
};
const LAST: Head = Head {
    name: "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds",
    stability: "ALPHA",
    help: "The last time in seconds when a keyID was used.",
};
const TOLD: Head = Head {
    name: "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds",
    stability: "ALPHA",
    help: "The last time in seconds when a keyID was returned by the Status RPC call.",
};

fn seconds(time: Time) -> String {
    (time.0 as f64 / 1e6).to_string()
}

fn write_uses(
    uses: &BTreeMap<[CompactString; 3], (u64, Time)>,
    head: &Head,
    kind: &str,
    value: impl Fn(&(u64, Time)) -> String,
    out: &mut String,
) {
    if uses.is_empty() {
        return;
    }
    let server = hash(server_id());
    head.write(kind, out);
    for ([way, provider, key], use_) in uses {
        let names = ["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
        let values = [way.as_str(), provider, key, &server];
        // What a plugin says of its key is no transformation.
        let from = usize::from(way.is_empty());
        sample(head.name, &labels(&names[from..], &values[from..]), value(use_), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_keys() {
        let metrics = Metrics::default();
        for n in 0..KEYS + 1 {
            metrics.key_used("to_storage", "kms", &n.to_string(), Time::from_unix(n as i64));
        }
        metrics.key_told("kms", "0", Time::from_unix(7));
        let mut text = String::new();
        metrics.write(&mut text);
        let line = |way: &str, name: &str, key: usize| {
            let (key, server) = (hash(&key.to_string()), hash(server_id()));
            format!("{name}{{{way}provider_name=\"kms\",key_id_hash=\"{key}\",apiserver_id_hash=\"{server}\"}}")
        };
        let way = "transformation_type=\"to_storage\",";
        assert!(!text.contains(&line(way, TOTAL.name, 0)), "{text}");
        assert!(text.contains(&format!("{} 1\n", line(way, TOTAL.name, KEYS))), "{text}");
        assert!(text.contains(&format!("{} 7\n", line("", TOLD.name, 0))), "{text}");
        assert_eq!(doubling::<3>(0.5), [0.5, 1.0, 2.0]);
    }
}
