//! `apiserver_request_*`: one look-up for each request, whatever is counted of it.

use super::family::{Head, Histogram, labels, sample};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_DURATIONS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// What a request was about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub verb: &'static str,
    pub group: CompactString,
    pub version: CompactString,
    pub resource: CompactString,
    pub subresource: CompactString,
    pub scope: &'static str,
    pub dry_run: bool,
}

const NAMES: [&str; 7] = ["component", "group", "resource", "scope", "subresource", "verb", "version"];

impl Key {
    fn labels(&self) -> String {
        let values: [&str; 7] =
            ["apiserver", &self.group, &self.resource, self.scope, &self.subresource, self.verb, &self.version];
        labels(&NAMES, &values)
    }

    fn dry_run(&self) -> &'static str {
        if self.dry_run { "All" } else { "" }
    }
}

#[derive(Default)]
struct Series {
    codes: Vec<(u16, u64)>,
    durations: Histogram,
    sli: Histogram,
    sizes: Histogram,
    /// Long-running ones that have not ended.
    running: i64,
    terminated: Vec<(u16, u64)>,
    aborted: u64,
}

fn count(codes: &mut Vec<(u16, u64)>, code: u16) {
    match codes.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => codes.push((code, 1)),
    }
}

/// More kinds of requests than this are not told apart.
const MAX_SERIES: usize = 10_000;

#[derive(Default)]
pub struct Requests(Mutex<BTreeMap<Key, Series>>);

impl Requests {
    fn with(&self, key: Key, change: impl FnOnce(&mut Series)) {
        let mut all = self.0.lock();
        if all.len() >= MAX_SERIES && !all.contains_key(&key) {
            return;
        }
        change(all.entry(key).or_default());
    }

    /// `size` of the answer, of a read whose size is known.
    pub fn done(&self, key: Key, code: u16, took: Duration, size: Option<u64>) {
        self.with(key, |series| {
            count(&mut series.codes, code);
            series.durations.observe(DURATIONS, took.as_secs_f64());
            series.sli.observe(SLI_DURATIONS, took.as_secs_f64());
            if let Some(size) = size {
                series.sizes.observe(SIZES, size as f64);
            }
        });
    }

    /// The server gave up on it in self-defence: too many requests, or out of time.
    pub fn terminated(&self, key: Key, code: u16) {
        self.with(key, |series| count(&mut series.terminated, code));
    }

    pub fn aborted(&self, key: Key) {
        self.with(key, |series| series.aborted += 1);
    }

    pub fn running(&self, key: Key, change: i64) {
        self.with(key, |series| series.running += change);
    }

    pub fn write(&self, out: &mut String) {
        let all = self.0.lock();
        TOTAL.write("counter", out);
        for (key, series) in &*all {
            for (code, count) in &series.codes {
                let labels = format!("code=\"{code}\",dry_run=\"{}\",{}", key.dry_run(), key.labels());
                sample(TOTAL.name, &labels, count, out);
            }
        }
        DURATION.write("histogram", out);
        for (key, series) in all.iter().filter(|(_, series)| !series.codes.is_empty()) {
            let labels = format!("dry_run=\"{}\",{}", key.dry_run(), key.labels());
            series.durations.write(DURATION.name, &labels, DURATIONS, out);
        }
        // What is only tried is not what clients wait for.
        let real = || all.iter().filter(|(key, series)| !key.dry_run && !series.codes.is_empty());
        SLI.write("histogram", out);
        real().for_each(|(key, series)| series.sli.write(SLI.name, &key.labels(), SLI_DURATIONS, out));
        SIZE.write("histogram", out);
        for (key, series) in real().filter(|(key, _)| ["GET", "LIST"].contains(&key.verb)) {
            series.sizes.write(SIZE.name, &key.labels(), SIZES, out);
        }
        RUNNING.write("gauge", out);
        for (key, series) in all.iter().filter(|(key, series)| series.running != 0 || key.verb == "WATCH") {
            sample(RUNNING.name, &key.labels(), series.running, out);
        }
        TERMINATED.write("counter", out);
        for (key, series) in &*all {
            for (code, count) in &series.terminated {
                sample(TERMINATED.name, &format!("code=\"{code}\",{}", key.labels()), count, out);
            }
        }
        ABORTED.write("counter", out);
        for (key, series) in all.iter().filter(|(_, series)| series.aborted > 0) {
            let labels = key.labels().replacen("component=\"apiserver\",", "", 1);
            sample(ABORTED.name, &labels, series.aborted, out);
        }
    }
}

const TOTAL: Head = Head {
    name: "apiserver_request_total",
    stability: "STABLE",
    help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
};
const DURATION: Head = Head {
    name: "apiserver_request_duration_seconds",
    stability: "STABLE",
    help: "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
};
const SLI: Head = Head {
    name: "apiserver_request_sli_duration_seconds",
    stability: "ALPHA",
    help: "Response latency distribution in seconds for each verb, group, version, resource, subresource, scope and component.",
};
const SIZE: Head = Head {
    name: "apiserver_response_sizes",
    stability: "STABLE",
    help: "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
};
const RUNNING: Head = Head {
    name: "apiserver_longrunning_requests",
    stability: "STABLE",
    help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
};
const TERMINATED: Head = Head {
    name: "apiserver_request_terminations_total",
    stability: "ALPHA",
    help: "Number of requests which apiserver terminated in self-defense.",
};
const ABORTED: Head = Head {
    name: "apiserver_request_aborts_total",
    stability: "ALPHA",
    help: "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope",
};
