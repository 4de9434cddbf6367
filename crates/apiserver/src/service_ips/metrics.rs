//! `kube_apiserver_clusterip_allocator_*`.

use super::Range;
use crate::metrics::family::{Counters, Head, Histograms, labels, sample};
use crate::server::Server;
use canopus_api::View;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Prometheus' usual buckets.
const LIMITS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const ALLOCATED: Head = Head {
    name: "kube_apiserver_clusterip_allocator_allocated_ips",
    stability: "ALPHA",
    help: "Gauge measuring the number of allocated IPs for Services",
};
const AVAILABLE: Head = Head {
    name: "kube_apiserver_clusterip_allocator_available_ips",
    stability: "ALPHA",
    help: "Gauge measuring the number of available IPs for Services",
};

pub struct Metrics {
    allocations: Counters<2>,
    errors: Counters<2>,
    times: Histograms<1>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            allocations: Counters::new(
                "kube_apiserver_clusterip_allocator_allocation_total",
                "ALPHA",
                ["cidr", "scope"],
                "Number of Cluster IPs allocations",
            ),
            errors: Counters::new(
                "kube_apiserver_clusterip_allocator_allocation_errors_total",
                "ALPHA",
                ["cidr", "scope"],
                "Number of errors trying to allocate Cluster IPs",
            ),
            times: Histograms::new(
                "kube_apiserver_clusterip_allocator_allocation_duration_seconds",
                "ALPHA",
                ["cidr"],
                LIMITS,
                "Duration in seconds to allocate a Cluster IP by ServiceCIDR",
            ),
        }
    }
}

impl Metrics {
    /// `scope`: static for an address that was asked for, dynamic for any.
    pub fn took(&self, range: &Range, scope: &str, done: bool, time: Duration) {
        let cidr = range.to_string();
        if done {
            self.allocations.add([&cidr, scope], 1);
            self.times.observe([&cidr], time.as_secs_f64());
        } else {
            self.errors.add([&cidr, scope], 1);
        }
    }
}

pub fn write(server: &Server, out: &mut String) {
    let (Ok(more), Ok(addresses)) =
        (server.more_service_ranges(), server.cache("networking.k8s.io", "v1", "ipaddresses"))
    else {
        return;
    };
    let addresses: Vec<Ipv4Addr> = View::list(&*addresses, "").iter().filter_map(|a| a.name().parse().ok()).collect();
    let ranges = || [&server.service_ips.own].into_iter().chain(&*more);
    let used = |range: &Range| addresses.iter().filter(|ip| range.contains(**ip)).count() as u64;
    let mut gauge = |head: Head, value: &dyn Fn(&Range) -> u64| {
        head.write("gauge", out);
        ranges().for_each(|range| sample(head.name, &labels(&["cidr"], &[range.to_string()]), value(range), out));
    };
    gauge(ALLOCATED, &used);
    // The first and the last are nobody's.
    gauge(AVAILABLE, &|range| u64::from(range.size - 2).saturating_sub(used(range)));
    let metrics = &server.service_ips.metrics;
    metrics.times.write(out);
    metrics.errors.write(out);
    metrics.allocations.write(out);
}
