//! Cluster IPs of Services. Each address in use is an `IPAddress` object in the store, made by compare-and-swap, so that
//! two servers on one store cannot hand out the same one (upstream KEP-1880).

use crate::served::Served;
use crate::server::Server;
use canopus_api::{Errors, Field, Object, Result, Status, Time, Value, value};
use canopus_store::{Change, Expect, Outcome, Version, Write};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The range of cluster IPs.
#[derive(Clone, Copy, Debug)]
pub struct ServiceIps {
    base: u32,
    size: u32,
}

const PREFIX: &str = "/registry/ipaddresses/";
/// In microseconds.
const GRACE: i64 = 60_000_000;
/// How many random addresses are tried before the range is searched from the start.
const GUESSES: u32 = 16;

impl ServiceIps {
    /// `cidr` is IPv4, from /12 to /28.
    pub fn new(cidr: &str) -> std::result::Result<ServiceIps, String> {
        let bad = || format!("service CIDR {cidr:?} is not an IPv4 range from /12 to /28");
        let (address, bits) = cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().ok().filter(|b| (12..=28).contains(b)).ok_or_else(bad)?;
        let size = 1u32 << (32 - bits);
        Ok(ServiceIps { base: u32::from(address) & !(size - 1), size })
    }

    /// The first address, which `default/kubernetes` gets.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The tenth address, which cluster DNS gets.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 10)
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

/// Addresses taken for a write that may still fail.
pub type Reserved = Vec<Ipv4Addr>;

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

impl Server {
    /// Gives a Service its cluster IP, unless it has one, is headless or an ExternalName.
    pub(crate) async fn reserve(
        &self,
        served: &Served,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reserved> {
        if !is_service(served) {
            return Ok(Vec::new());
        }
        let kind = object["spec"]["type"].str();
        let wanted = object["spec"]["clusterIP"].str().to_string();
        if kind == "ExternalName" || wanted == "None" {
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
        spec.entry("ipFamilies", || value!(["IPv4"]));
        spec.entry("ipFamilyPolicy", || "SingleStack".into());
        Ok(if dry_run { Vec::new() } else { vec![ip] })
    }

    async fn take_any(&self, service: &Value, dry_run: bool) -> Result<Ipv4Addr> {
        for ip in self.service_ips.candidates(self.surroundings.random()) {
            if self.take(ip, service, dry_run).await? {
                return Ok(ip);
            }
        }
        Err(Status::internal("failed to allocate IP: range is full"))
    }

    async fn take_this(&self, served: &Served, service: &Value, ip: Ipv4Addr, dry_run: bool) -> Result<Ipv4Addr> {
        let why = if !self.service_ips.contains(ip) {
            format!("failed to allocate IP {ip}: the provided network does not match the current range")
        } else if self.take(ip, service, dry_run).await? {
            return Ok(ip);
        } else {
            format!("failed to allocate IP {ip}: provided IP is already allocated")
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

    /// Gives addresses back. One that cannot be given back now is found by [`Self::repair_service_ips`].
    pub(crate) async fn release(&self, ips: Reserved) {
        for ip in ips {
            let write = Write { key: format!("{PREFIX}{ip}").into(), expect: Expect::Anything, change: Change::Delete };
            if let Err(error) = self.store.commit(write).await {
                tracing::warn!(%ip, %error, "failed to release a cluster IP");
            }
        }
    }

    pub(crate) async fn release_deleted(&self, served: &Served, before: &Value) {
        if is_service(served) {
            self.release(held(before)).await;
        }
    }

    pub(crate) async fn release_replaced(&self, served: &Served, before: &Value, after: &Object, dry_run: bool) {
        if is_service(served) && !dry_run {
            let kept = held(&after.value());
            self.release(held(before).into_iter().filter(|ip| !kept.contains(ip)).collect()).await;
        }
    }

    /// Whether a reserved address should have its Service by now: another server may be about to write that (upstream's
    /// grace period).
    fn settled(&self, address: &Version) -> bool {
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
        self.release(astray.map(|(ip, _)| *ip).collect()).await;
        for (ip, service) in wanted.iter().filter(|(ip, _)| !taken.contains_key(ip)) {
            self.take(*ip, service, false).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let ips = ServiceIps::new("10.96.0.0/16").unwrap();
        assert_eq!(ips.first().to_string(), "10.96.0.1");
        assert_eq!(ips.dns().to_string(), "10.96.0.10");
        assert!(!ips.contains("10.96.0.0".parse().unwrap()) && !ips.contains("10.96.255.255".parse().unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/8", "10.0.0.0/30", "fd00::/64"] {
            assert!(ServiceIps::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_is_a_candidate() {
        let ips = ServiceIps::new("10.0.0.0/28").unwrap();
        let mut all: Vec<Ipv4Addr> = ips.candidates(12345).collect();
        assert!(all.iter().all(|ip| ips.contains(*ip)));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 14);
    }
}
