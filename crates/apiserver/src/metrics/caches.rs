//! What there is in the watch caches, and what they did.

use super::family::{Head, labels, sample};
use crate::cache::Stats;
use crate::catalog::Table;
use std::collections::BTreeMap;

struct Metric {
    head: Head<'static>,
    kind: &'static str,
    value: fn(&Stats) -> u64,
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    stability: &'static str,
    help: &'static str,
    value: fn(&Stats) -> u64,
) -> Metric {
    Metric { head: Head { name, help, stability }, kind, value }
}

const METRICS: &[Metric] = &[
    metric(
        "apiserver_cache_list_fetched_objects_total",
        "counter",
        "ALPHA",
        "Number of objects read from watch cache in the course of serving a LIST request",
        |s| s.fetched,
    ),
    metric(
        "apiserver_cache_list_returned_objects_total",
        "counter",
        "ALPHA",
        "Number of objects returned for a LIST request from watch cache",
        |s| s.returned,
    ),
    metric("apiserver_cache_list_total", "counter", "ALPHA", "Number of LIST requests served from watch cache", |s| {
        s.lists
    }),
    metric(
        "apiserver_init_events_total",
        "counter",
        "ALPHA",
        "Counter of init events processed in watch cache broken by resource type.",
        |s| s.initial,
    ),
    metric(
        "apiserver_resource_objects",
        "gauge",
        "ALPHA",
        "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
        |s| s.objects,
    ),
    metric(
        "apiserver_resource_size_estimate_bytes",
        "gauge",
        "ALPHA",
        "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
        |s| s.bytes,
    ),
    metric(
        "apiserver_terminated_watchers_total",
        "counter",
        "ALPHA",
        "Counter of watchers closed due to unresponsiveness broken by resource type.",
        |s| s.terminated,
    ),
    metric(
        "apiserver_watch_cache_events_dispatched_total",
        "counter",
        "ALPHA",
        "Counter of events dispatched in watch cache broken by resource type.",
        |s| s.events,
    ),
    metric(
        "apiserver_watch_cache_events_received_total",
        "counter",
        "ALPHA",
        "Counter of events received in watch cache broken by resource type.",
        |s| s.events,
    ),
    metric(
        "apiserver_watch_cache_initializations_total",
        "counter",
        "ALPHA",
        "Counter of watch cache initializations broken by resource type.",
        |s| s.starts,
    ),
    metric(
        "apiserver_watch_cache_resource_version",
        "gauge",
        "ALPHA",
        "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
        |s| s.revision % 1_000_000_000_000_000,
    ),
    metric("watch_cache_capacity", "gauge", "ALPHA", "Total capacity of watch cache broken by resource type.", |s| {
        s.capacity
    }),
];

/// The older of the two counts of objects, by resource and group in one.
const STORAGE_OBJECTS: Head = Head {
    name: "apiserver_storage_objects",
    stability: "STABLE",
    help: "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
};

pub fn write(table: &Table, out: &mut String) {
    let mut all = BTreeMap::new();
    for served in table.all().filter(|served| served.info().storage.is_none()) {
        if let Some(cache) = &served.cache {
            let info = served.info();
            all.entry((info.group, info.plural)).or_insert_with(|| cache.stats());
        }
    }
    for metric in METRICS {
        metric.head.write(metric.kind, out);
        for ((group, resource), stats) in &all {
            let mut labels = labels(&["group", "resource"], &[group, resource]);
            if metric.head.name == "apiserver_cache_list_total" || metric.head.name.contains("_fetched_") {
                labels += ",index=\"\"";
            }
            sample(metric.head.name, &labels, (metric.value)(stats), out);
        }
    }
    STORAGE_OBJECTS.write("gauge", out);
    for ((group, resource), stats) in &all {
        let name = if group.is_empty() { (*resource).to_string() } else { format!("{resource}.{group}") };
        sample(STORAGE_OBJECTS.name, &labels(&["resource"], &[name]), stats.objects, out);
    }
}
