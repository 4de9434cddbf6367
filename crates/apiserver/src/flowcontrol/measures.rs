//! What is counted of each flow schema's requests (upstream `flowcontrol/metrics`).

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Upstream's buckets of waiting and execution.
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

/// Reasons of refusals.
pub(super) const REASONS: &[&str] = &["concurrency-limit", "queue-full", "time-out"];

struct Histogram {
    bounds: &'static [f64],
    /// Not cumulative; the last is for what is beyond all bounds.
    counts: [AtomicU64; 14],
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    fn note(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value.max(0.0) * 1e6) as u64, Ordering::Relaxed);
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        if counts.iter().all(|count| *count == 0) {
            return;
        }
        for (bound, count) in self.bounds.iter().zip(&counts) {
            total += count;
            let _ = writeln!(out, "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        total += counts[self.bounds.len()];
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        let _ = writeln!(out, "apiserver_flowcontrol_{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "apiserver_flowcontrol_{name}_count{{{labels}}} {total}");
    }
}

pub(super) struct Measures {
    dispatched: AtomicU64,
    refused: [AtomicU64; 3],
    executing: AtomicI64,
    seats: AtomicI64,
    queued: AtomicI64,
    queued_seats: AtomicI64,
    /// Of those who were let in, and of those who weren't.
    waited: [Histogram; 2],
    /// Of ordinary requests, and of the beginnings of watches.
    took: [Histogram; 2],
    lengths: Histogram,
    estimates: Histogram,
    watches: Histogram,
}

impl Default for Measures {
    fn default() -> Measures {
        Measures {
            dispatched: AtomicU64::new(0),
            refused: Default::default(),
            executing: AtomicI64::new(0),
            seats: AtomicI64::new(0),
            queued: AtomicI64::new(0),
            queued_seats: AtomicI64::new(0),
            waited: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            took: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            lengths: Histogram::new(LENGTHS),
            estimates: Histogram::new(SEATS),
            watches: Histogram::new(WATCHES),
        }
    }
}

impl Measures {
    pub(super) fn refused(&self, reason: &str) {
        if let Some(i) = REASONS.iter().position(|known| *known == reason) {
            self.refused[i].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn executing(&self, by: i64, seats: u32) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(by, Ordering::Relaxed);
        self.seats.fetch_add(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn executed(&self, took: f64, watch: bool) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.took[usize::from(watch)].note(took);
    }

    pub(super) fn released(&self, seats: u32) {
        self.seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn queued(&self, by: i64, seats: u32) {
        self.queued.fetch_add(by, Ordering::Relaxed);
        self.queued_seats.fetch_add(by * i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn waited(&self, seconds: f64, let_in: bool) {
        self.waited[usize::from(!let_in)].note(seconds);
    }

    pub(super) fn length(&self, length: usize) {
        self.lengths.note(length as f64);
    }

    pub(super) fn estimated(&self, seats: u32) {
        self.estimates.note(f64::from(seats));
    }

    pub(super) fn watchers(&self, count: usize) {
        self.watches.note(count as f64);
    }
}

type Number = fn(&Measures) -> i64;

fn number(of: &AtomicU64) -> i64 {
    i64::try_from(of.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
}

/// Name, kind, stability and help of what has a level and a schema, and nothing else.
const NUMBERS: &[(&str, &str, &str, Number)] = &[
    (
        "dispatched_requests_total",
        "counter",
        "[BETA] Number of requests executed by API Priority and Fairness subsystem",
        |m| number(&m.dispatched),
    ),
    (
        "current_executing_requests",
        "gauge",
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |m| m.executing.load(Ordering::Relaxed),
    ),
    (
        "current_executing_seats",
        "gauge",
        "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |m| m.seats.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_requests",
        "gauge",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |m| m.queued.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_seats",
        "gauge",
        "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |m| m.queued_seats.load(Ordering::Relaxed),
    ),
];

type Place = fn(&Measures) -> &[Histogram];

/// The same of histograms, with a further label and its values.
const HISTOGRAMS: &[(&str, &str, &str, &[&str], Place)] = &[
    (
        "request_wait_duration_seconds",
        "[BETA] Length of time a request spent waiting in its queue",
        "execute",
        &["true", "false"],
        |m| &m.waited,
    ),
    (
        "request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        "type",
        &["regular", "watch"],
        |m| &m.took,
    ),
    (
        "request_queue_length_after_enqueue",
        "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        "",
        &[""],
        |m| std::slice::from_ref(&m.lengths),
    ),
    (
        "work_estimated_seats",
        "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        "",
        &[""],
        |m| std::slice::from_ref(&m.estimates),
    ),
    (
        "watch_count_samples",
        "[ALPHA] count of watchers for mutating requests in API Priority and Fairness",
        "",
        &[""],
        |m| std::slice::from_ref(&m.watches),
    ),
];

pub(super) fn head(name: &str, kind: &str, help: &str, out: &mut String) {
    let _ = writeln!(out, "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}");
}

/// All that is counted by level and schema, whose names come with the counts.
pub(super) fn render<'a>(all: impl Iterator<Item = (&'a str, &'a str, &'a Measures)> + Clone, out: &mut String) {
    let labels = |level: &str, schema: &str| format!("flow_schema=\"{schema}\",priority_level=\"{level}\"");
    for (name, kind, help, value) in NUMBERS {
        head(name, kind, help, out);
        for (level, schema, measures) in all.clone() {
            let _ = writeln!(out, "apiserver_flowcontrol_{name}{{{}}} {}", labels(level, schema), value(measures));
        }
    }
    head(
        "rejected_requests_total",
        "counter",
        "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
        out,
    );
    for (level, schema, measures) in all.clone() {
        for (reason, count) in REASONS.iter().zip(&measures.refused) {
            let (labels, count) = (labels(level, schema), number(count));
            if count > 0 {
                let _ = writeln!(
                    out,
                    "apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"{reason}\"}} {count}"
                );
            }
        }
    }
    for (name, help, label, values, place) in HISTOGRAMS {
        head(name, "histogram", help, out);
        for (level, schema, measures) in all.clone() {
            for (value, histogram) in values.iter().zip(place(measures)) {
                let mut labels = labels(level, schema);
                if !label.is_empty() {
                    let _ = write!(labels, ",{label}=\"{value}\"");
                }
                histogram.render(name, &labels, out);
            }
        }
    }
}
