//! Cluster IPs of Services, and when they and node ports are taken and given back. Each address in use is an `IPAddress` object in the store, made by compare-and-swap, so that
//! two servers on one store cannot hand out the same one (upstream KEP-1880).

pub mod metrics;

use crate::node_ports;
use crate::served::Served;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{
    Errors, Field, Gvr, ListOptions, Object, Patch, Result, Status, Target, Time, Value, View, WatchEvent,
    WriteOptions, value,
};
use canopus_resources::checks::parse_cidr;
use canopus_store::{Change, Expect, Outcome, Version, Write};
use futures::StreamExt;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The ranges of cluster IPs: the one of the command line, and those that ServiceCIDRs add.
pub struct ServiceIps {
    own: Range,
    /// As of a change of ServiceCIDRs.
    more: RwLock<(u64, Arc<[Range]>)>,
    metrics: metrics::Metrics,
}

/// Addresses of which all but the first and the last are given to Services.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    base: u32,
    /// At least 4.
    size: u32,
}

/// The name of the ServiceCIDR that says what the command line does.
const DEFAULT: &str = "kubernetes";
const MANAGER: &str = "kubernetes-service-cidr-controller";

const PREFIX: &str = "/registry/ipaddresses/";
/// In microseconds.
const GRACE: i64 = 60_000_000;
/// How many random addresses are tried before the range is searched from the start.
const GUESSES: u32 = 16;
/// Before addresses are followed again when that failed.
const PAUSE: Duration = Duration::from_secs(1);

impl ServiceIps {
    /// `cidr` is IPv4, from /12 to /28.
    pub fn new(cidr: &str) -> std::result::Result<ServiceIps, String> {
        let bad = || format!("service CIDR {cidr:?} is not an IPv4 range from /12 to /28");
        let (address, bits) = cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().ok().filter(|b| (12..=28).contains(b)).ok_or_else(bad)?;
        Ok(ServiceIps {
            own: Range::new(address, bits).ok_or_else(bad)?,
            more: RwLock::default(),
            metrics: Default::default(),
        })
    }

    /// The first address, which `default/kubernetes` gets.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.own.base + 1)
    }

    /// The tenth address, which cluster DNS gets.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.own.base + 10)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.size.leading_zeros() + 1)
    }
}

impl Range {
    /// None for what has no addresses to give.
    fn new(address: Ipv4Addr, bits: u32) -> Option<Range> {
        let size = 1u32.checked_shl(32 - bits).filter(|size| *size >= 4)?;
        Some(Range { base: u32::from(address) & !(size - 1), size })
    }

    /// Those of a ServiceCIDR that is ready.
    fn of(cidr: &Object) -> Vec<Range> {
        let tree = cidr.value();
        let ready = |c: &Value| c["type"].str() == "Ready" && c["status"].str() == "True";
        if cidr.facts.deleting || !tree["status"]["conditions"].items().iter().any(ready) {
            return Vec::new();
        }
        let range = |text: &Value| match parse_cidr(text.str())? {
            (IpAddr::V4(first), _, bits) => Range::new(first, bits),
            _ => None,
        };
        tree["spec"]["cidrs"].items().iter().filter_map(range).collect()
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        ip > self.base && ip < self.base + self.size - 1
    }

    /// Addresses to try: random ones from the upper part, which are kept for dynamic allocation, then all in order.
    fn candidates(&self, random: u128) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (base, size) = (self.base, self.size);
        // Upstream keeps the lower part for static addresses: min(max(16, size/16), 256).
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        let span = size - 1 - reserved;
        let guess = move |i: u32| {
            let mixed = (random >> (i * 7)) as u64 ^ u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            base + reserved + (mixed % u64::from(span)) as u32
        };
        let upper = (reserved..size - 1).map(move |i| base + i);
        let lower = (1..reserved).map(move |i| base + i);
        (0..GUESSES).map(guess).chain(upper).chain(lower).map(Ipv4Addr::from)
    }
}

/// What was taken for a write that may still fail.
#[derive(Default)]
pub struct Reserved {
    ips: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

fn is_service(served: &Served) -> bool {
    served.info().group.is_empty() && served.info().plural == "services"
}

/// The addresses a Service holds.
fn held(service: &Value) -> Vec<Ipv4Addr> {
    let ips = service["spec"]["clusterIPs"].items().iter().chain([&service["spec"]["clusterIP"]]);
    let mut ips: Vec<Ipv4Addr> = ips.filter_map(|ip| ip.str().parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ips
}

/// Which addresses a Service has that doesn't say: those of the one family there is; those of all families where somebody
/// else makes its endpoints, as upstream.
fn families(service: &mut Value, old: Option<&Value>) {
    let spec = service.obj_mut("spec");
    let empty = |name: &str| spec.get(name).is_none_or(Value::is_empty);
    let anybodys = spec.get("clusterIP").is_some_and(|ip| ip.str() == "None") && empty("selector");
    let policy = match old.map(|old| old["spec"]["ipFamilyPolicy"].str()).filter(|policy| !policy.is_empty()) {
        Some(policy) => policy,
        None if anybodys => "RequireDualStack",
        None => "SingleStack",
    };
    let policy = spec.entry("ipFamilyPolicy", || policy.into()).str().to_string();
    let both = anybodys && policy != "SingleStack";
    if spec.get("ipFamilies").is_none_or(Value::is_empty) {
        spec.insert("ipFamilies", if both { value!(["IPv4", "IPv6"]) } else { value!(["IPv4"]) });
    }
}

impl Server {
    /// Gives a Service its cluster IP and its node ports.
    pub(crate) async fn reserve(
        &self,
        served: &Served,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reserved> {
        if !is_service(served) {
            return Ok(Reserved::default());
        }
        let ips = self.reserve_address(served, object, old, dry_run).await?;
        match self.reserve_ports(served, object, old, dry_run).await {
            Ok(ports) => Ok(Reserved { ips, ports }),
            Err(error) => {
                self.release_ips(ips).await;
                Err(error)
            }
        }
    }

    /// A Service has one address, unless it is headless or an ExternalName.
    async fn reserve_address(
        &self,
        served: &Served,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Vec<Ipv4Addr>> {
        let kind = object["spec"]["type"].str();
        let wanted = object["spec"]["clusterIP"].str().to_string();
        if kind == "ExternalName" {
            return Ok(Vec::new());
        }
        if wanted == "None" {
            families(object, old);
            return Ok(Vec::new());
        }
        if let Some(old) = old
            && (wanted.is_empty() || old["spec"]["clusterIP"].str() == wanted)
            && !held(old).is_empty()
        {
            // An update that leaves the address out keeps it.
            for field in ["clusterIP", "clusterIPs"] {
                object.obj_mut("spec").insert(field, &old["spec"][field]);
            }
            families(object, Some(old));
            return Ok(Vec::new());
        }
        let ip = match wanted.is_empty() {
            true => self.take_any(object, dry_run).await?,
            false => match wanted.parse() {
                Ok(ip) => self.take_this(served, object, ip, dry_run).await?,
                // Not an IPv4 address: validation says so.
                Err(_) => return Ok(Vec::new()),
            },
        };
        let spec = object.obj_mut("spec");
        spec.insert("clusterIP", ip.to_string());
        spec.insert("clusterIPs", value!([ip.to_string()]));
        families(object, old);
        Ok(if dry_run { Vec::new() } else { vec![ip] })
    }

    /// A dry run takes nothing.
    fn counted(&self, dry_run: bool, range: &Range, scope: &str, done: bool, time: Duration) {
        if !dry_run {
            self.service_ips.metrics.took(range, scope, done, time);
        }
    }

    /// The ranges of ServiceCIDRs besides the default one.
    fn more_service_ranges(&self) -> Result<Arc<[Range]>> {
        let cidrs = self.cache("networking.k8s.io", "v1", "servicecidrs")?;
        let change = cidrs.last_change();
        {
            let known = self.service_ips.more.read();
            if known.0 == change {
                return Ok(known.1.clone());
            }
        }
        let all = View::list(&*cidrs, "");
        let ranges = all.iter().flat_map(|cidr| Range::of(cidr)).filter(|range| *range != self.service_ips.own);
        let ranges: Arc<[Range]> = ranges.collect();
        *self.service_ips.more.write() = (change, ranges.clone());
        Ok(ranges)
    }

    async fn take_any(&self, service: &Value, dry_run: bool) -> Result<Ipv4Addr> {
        let more = self.more_service_ranges()?;
        for range in [self.service_ips.own].iter().chain(&*more) {
            let started = Instant::now();
            for ip in range.candidates(self.surroundings.random()) {
                if self.take(ip, service, dry_run).await? {
                    self.counted(dry_run, range, "dynamic", true, started.elapsed());
                    return Ok(ip);
                }
            }
            self.counted(dry_run, range, "dynamic", false, started.elapsed());
        }
        Err(Status::internal("failed to allocate IP: range is full"))
    }

    async fn take_this(&self, served: &Served, service: &Value, ip: Ipv4Addr, dry_run: bool) -> Result<Ipv4Addr> {
        let more = self.more_service_ranges()?;
        let known = [self.service_ips.own].into_iter().chain(more.iter().copied()).find(|range| range.contains(ip));
        let why = match known {
            None => format!("failed to allocate IP {ip}: the provided network does not match the current range"),
            Some(range) => {
                let started = Instant::now();
                let done = self.take(ip, service, dry_run).await?;
                self.counted(dry_run, &range, "static", done, started.elapsed());
                if done {
                    return Ok(ip);
                }
                format!("failed to allocate IP {ip}: provided IP is already allocated")
            }
        };
        let mut errors = Errors::new();
        let root = Field::root(service);
        let (spec, shown) = (root.at("spec"), service["spec"]["clusterIPs"].clone());
        errors.invalid(&spec.at("clusterIPs").with(&shown), why);
        Err(Status::invalid(&served.info().gvk(), service["metadata"]["name"].str(), errors))
    }

    /// True when the address was free and is now this Service's.
    async fn take(&self, ip: Ipv4Addr, service: &Value, dry_run: bool) -> Result<bool> {
        let key: Arc<str> = format!("{PREFIX}{ip}").into();
        if dry_run {
            let (held, _) = self.store.get(&key).await.map_err(crate::storage::status)?;
            return Ok(held.is_none());
        }
        let meta = &service["metadata"];
        let mut address = value!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {
                "name": ip.to_string(), "uid": crate::surroundings::uuid(self.surroundings.random()),
                "creationTimestamp": self.surroundings.now(),
                "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
            },
            "spec": {"parentRef": {"resource": "services", "namespace": &meta["namespace"], "name": &meta["name"]}},
        });
        let change = Change::Put { value: Object::encode(&mut address), facts: None, ttl: None };
        let outcome = self.store.commit(Write { key, expect: Expect::Absent, change }).await;
        Ok(matches!(outcome.map_err(crate::storage::status)?, Outcome::Committed { .. }))
    }

    pub(crate) async fn release(&self, reserved: Reserved) {
        self.release_ips(reserved.ips).await;
        self.release_ports(reserved.ports).await;
    }

    /// Gives addresses back. One that cannot be given back now is found by [`Self::repair_service_ips`].
    async fn release_ips(&self, ips: Vec<Ipv4Addr>) {
        for ip in ips {
            let write = Write { key: format!("{PREFIX}{ip}").into(), expect: Expect::Anything, change: Change::Delete };
            if let Err(error) = self.store.commit(write).await {
                tracing::warn!(%ip, %error, "failed to release a cluster IP");
            }
        }
    }

    pub(crate) async fn release_deleted(&self, served: &Served, before: &Value) {
        if is_service(served) {
            self.release_ips(held(before)).await;
            self.release_ports(node_ports::held(before).into_iter().collect()).await;
        }
    }

    pub(crate) async fn release_replaced(&self, served: &Served, before: &Value, after: &Object, dry_run: bool) {
        if is_service(served) && !dry_run {
            let after = after.value();
            let kept = held(&after);
            self.release_ips(held(before).into_iter().filter(|ip| !kept.contains(ip)).collect()).await;
            let kept = node_ports::held(&after);
            self.release_ports(node_ports::held(before).difference(&kept).copied().collect()).await;
        }
    }

    /// Whether a reserved address should have its Service by now: another server may be about to write that (upstream's
    /// grace period).
    pub(crate) fn settled(&self, address: &Version) -> bool {
        let decoded = crate::storage::decode(&address.value).ok();
        let made = decoded.and_then(|(value, _)| Time::parse(value["metadata"]["creationTimestamp"].str()));
        !self.store.shared() || made.is_none_or(|made| self.surroundings.now().0 - made.0 > GRACE)
    }

    /// At start: releases addresses whose Service does not exist (a crash between two writes), takes missing ones.
    pub async fn repair_service_ips(&self) -> Result<()> {
        let services = self.cache("", "v1", "services")?;
        // A view that lags would let go of addresses in use.
        services.reached(self.newest().await?).await?;
        let (all, _) = services.snapshot("", &canopus_api::ListOptions::default());
        let mut wanted = HashMap::new();
        for service in &all {
            let value = service.value();
            for ip in held(&value) {
                wanted.insert(ip, value.clone());
            }
        }
        let end = canopus_store::prefix_end(PREFIX);
        let taken = self.store.range(PREFIX, &end, None, 0).await.map_err(crate::storage::status)?;
        let parsed = |version: &Version| Some((version.key.strip_prefix(PREFIX)?.parse().ok()?, self.settled(version)));
        let taken: HashMap<Ipv4Addr, bool> = taken.items.iter().filter_map(|version| parsed(version)).collect();
        let astray = taken.iter().filter(|(ip, settled)| **settled && !wanted.contains_key(ip));
        self.release_ips(astray.map(|(ip, _)| *ip).collect()).await;
        for (ip, service) in wanted.iter().filter(|(ip, _)| !taken.contains_key(ip)) {
            self.take(*ip, service, false).await?;
        }
        self.repair_node_ports().await
    }
}

impl Server {
    /// Makes the ServiceCIDR of the command line's range, and says that it is ready (upstream `defaultservicecidr`).
    pub(crate) async fn default_service_cidr(&self) -> Result<()> {
        let user = User::new("system:apiserver", &[MASTERS]);
        let target = Target::new(&Gvr::new("networking.k8s.io", "v1", "servicecidrs"), "", DEFAULT);
        let options = WriteOptions { field_manager: MANAGER.into(), force: true, ..WriteOptions::default() };
        let own = Value::from(self.settings.service_cidr.as_str());
        let cidr = match self.get(&target, None).await {
            Ok(there) => there,
            Err(missing) if missing.is_not_found() => {
                let cidr = value!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                    "metadata": {"name": DEFAULT}, "spec": {"cidrs": [&own]},
                });
                match self.create(&user, &target, cidr, &options).await {
                    Ok(made) => made.object,
                    Err(raced) if raced.is_already_exists() => self.get(&target, None).await?,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let tree = cidr.value();
        if tree["spec"]["cidrs"] != Value::Array(vec![own]) {
            tracing::warn!(cidrs = ?tree["spec"]["cidrs"], "the default ServiceCIDR does not match the configured range");
            return Ok(());
        }
        let known = |c: &Value| c["type"].str() == "Ready" && c["status"].str() != "Unknown";
        if cidr.facts.deleting || tree["status"]["conditions"].items().iter().any(known) {
            return Ok(());
        }
        let condition = value!({
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": self.surroundings.now(),
        });
        let status = value!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT},
            "status": {"conditions": [condition]},
        });
        self.patch_target(&user, &target.subresource("status"), Patch::Apply(status), &options).await?;
        Ok(())
    }

    /// An address that somebody deleted while its Service has it is taken again.
    async fn restore(&self, address: &Object) -> Result<()> {
        let parent = &address.value()["spec"]["parentRef"];
        let Ok(ip) = address.name().parse::<Ipv4Addr>() else { return Ok(()) };
        if !parent["group"].is_empty() || parent["resource"].str() != "services" {
            return Ok(());
        }
        let target = Target::new(&Gvr::new("", "v1", "services"), parent["namespace"].str(), parent["name"].str());
        // Asked of the store: a Service that is just gone still is in views.
        let service = match self.get(&target, None).await {
            Ok(service) => service.value(),
            Err(gone) if gone.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if held(&service).contains(&ip) && self.take(ip, &service, false).await? {
            tracing::warn!(%ip, service = %target.name, namespace = %target.namespace, "a cluster IP was not allocated; repaired");
        }
        Ok(())
    }
}

/// Keeps addresses and the default range there until `shutdown` (upstream `ipallocator-repair-controller`).
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let followed = tokio::select! {
            followed = follow(&server) => followed,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "failed to look after cluster IPs");
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Until a watch ends.
async fn follow(server: &Server) -> Result<()> {
    let watch = async |plural: &str| {
        let target = Target::new(&Gvr::new("networking.k8s.io", "v1", plural), "", "");
        let now = Some(server.newest().await?);
        server.watch(&target, &ListOptions { resource_version: now, ..ListOptions::default() }).await
    };
    let (mut addresses, mut cidrs) = (watch("ipaddresses").await?, watch("servicecidrs").await?);
    server.repair_service_ips().await?;
    server.default_service_cidr().await?;
    loop {
        tokio::select! {
            event = addresses.next() => match event.transpose()? {
                Some(WatchEvent::Deleted(address)) => server.restore(&address).await?,
                Some(_) => {}
                None => return Ok(()),
            },
            event = cidrs.next() => match event.transpose()? {
                Some(WatchEvent::Deleted(cidr)) if cidr.name() == DEFAULT => server.default_service_cidr().await?,
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalApi;
    use canopus_api::DeleteOptions;

    #[test]
    fn ranges() {
        let ips = ServiceIps::new("10.96.0.0/16").unwrap();
        assert_eq!(ips.first().to_string(), "10.96.0.1");
        assert_eq!(ips.dns().to_string(), "10.96.0.10");
        assert!(!ips.own.contains("10.96.0.0".parse().unwrap()) && !ips.own.contains("10.96.255.255".parse().unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/8", "10.0.0.0/30", "fd00::/64"] {
            assert!(ServiceIps::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_is_a_candidate() {
        let ips = ServiceIps::new("10.0.0.0/28").unwrap();
        let mut all: Vec<Ipv4Addr> = ips.own.candidates(12345).collect();
        assert!(all.iter().all(|ip| ips.own.contains(*ip)));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 14);
        let smallest = Range::new(Ipv4Addr::new(10, 0, 0, 9), 30).unwrap();
        assert!(smallest.candidates(7).all(|ip| smallest.contains(ip)));
        assert!(Range::new(Ipv4Addr::LOCALHOST, 31).is_none() && Range::new(Ipv4Addr::LOCALHOST, 0).is_none());
    }

    #[tokio::test]
    async fn ranges_and_addresses_are_objects() {
        let server = crate::testing::server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let at = |plural: &str, name: &str| Target::new(&Gvr::new("networking.k8s.io", "v1", plural), "", name);
        let default = api.get(&at("servicecidrs", "kubernetes")).await.unwrap().value();
        assert_eq!(default["spec"]["cidrs"][0].str(), server.settings.service_cidr);
        assert_eq!(default["status"]["conditions"][0]["status"].str(), "True");

        let service = async |name: &str, ip: &str| {
            let spec = value!({"clusterIP": ip, "ports": [{"port": 80}]});
            let target = Target::new(&Gvr::new("", "v1", "services"), "default", "");
            api.create(&target, value!({"metadata": {"name": name}, "spec": spec}), &WriteOptions::default()).await
        };
        let refused = service("far", "192.168.7.9").await.unwrap_err();
        assert!(refused.message.contains("the provided network does not match the current range"), "{refused}");
        let more = value!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.168.7.0/24"]}});
        api.create(&at("servicecidrs", ""), more, &WriteOptions::default()).await.unwrap();
        assert!(service("far", "192.168.7.9").await.is_err(), "nobody said that it is ready");
        let ready = value!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let patch = Patch::Merge(ready);
        let made = api.patch(&at("servicecidrs", "more").subresource("status"), patch, &WriteOptions::default()).await;
        let revision = made.unwrap().revision;
        server.cache("networking.k8s.io", "v1", "servicecidrs").unwrap().reached(revision).await.unwrap();
        service("far", "192.168.7.9").await.unwrap();

        let text = crate::metrics::text(&server);
        for line in [
            "allocated_ips{cidr=\"192.168.7.0/24\"} 1",
            "available_ips{cidr=\"192.168.7.0/24\"} 253",
            "allocation_total{cidr=\"192.168.7.0/24\",scope=\"static\"} 1",
        ] {
            assert!(text.contains(&format!("kube_apiserver_clusterip_allocator_{line}\n")), "{line}");
        }
        let address = at("ipaddresses", "192.168.7.9");
        let there = api.get(&address).await.unwrap();
        assert_eq!(there.value()["spec"]["parentRef"]["name"].str(), "far");
        api.delete(&address, &DeleteOptions::default()).await.unwrap();
        server.restore(&there).await.unwrap();
        api.get(&address).await.unwrap();
        let far = Target::new(&Gvr::new("", "v1", "services"), "default", "far");
        api.delete(&far, &DeleteOptions::default()).await.unwrap();
        server.restore(&there).await.unwrap();
        assert!(api.get(&address).await.unwrap_err().is_not_found());
    }
}
