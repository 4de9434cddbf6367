//! Says that ServiceCIDRs are ready, and lets them be deleted only when no address of a Service would be left outside of
//! all of them (upstream `pkg/controller/servicecidrs`, KEP-1880).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Object, Patch, Status, Time, Value, View, WriteOptions, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use canopus_resources::checks::parse_cidr;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "networking.k8s.io";
const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// So long allocators may not know yet that a range is about to go, in microseconds.
const GRACE: i64 = 10_000_000;

/// A range of addresses of one family.
#[derive(Clone, Copy, Debug)]
struct Range {
    v4: bool,
    base: u128,
    bits: u32,
    width: u32,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (first, _, bits) = parse_cidr(text)?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let mut range = Range { v4: first.is_ipv4(), base: 0, bits, width };
        range.base = number(first) & !range.hosts();
        Some(range)
    }

    fn hosts(&self) -> u128 {
        1u128.checked_shl(self.width - self.bits).map_or(u128::MAX, |size| size - 1)
    }

    fn covers(&self, other: &Range) -> bool {
        self.v4 == other.v4 && self.bits <= other.bits && other.base & !self.hosts() == self.base
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether addresses of Services may come from here: not the network's own, nor the broadcast address.
    fn has(&self, address: IpAddr) -> bool {
        let at = number(address);
        let broadcast = self.v4 && at == self.base | self.hosts();
        self.v4 == address.is_ipv4() && at & !self.hosts() == self.base && at != self.base && !broadcast
    }
}

fn ranges(cidr: &Value) -> impl Iterator<Item = Range> + '_ {
    cidr["spec"]["cidrs"].items().iter().filter_map(|text| Range::parse(text.str()))
}

/// Whether an allocated address would be left without a range if `cidr`, one of `all`, went.
fn needed<'a>(cidr: &Value, all: &[Arc<Value>], mut addresses: impl Iterator<Item = &'a str>) -> bool {
    let others = || all.iter().filter(|other| other["metadata"]["name"] != cidr["metadata"]["name"]);
    let other_ranges: Vec<Range> = others().flat_map(|other| ranges(other)).collect();
    if ranges(cidr).all(|range| other_ranges.iter().any(|other| other.covers(&range))) {
        return false;
    }
    let own: Vec<Range> = ranges(cidr).collect();
    addresses.any(|text| {
        let Ok(address) = text.parse::<IpAddr>() else { return false };
        own.iter().any(|range| range.has(address)) && !other_ranges.iter().any(|range| range.has(address))
    })
}

/// What its condition `Ready` should be; None if it is so.
fn ready(cidr: &Value, status: &str, reason: &str, message: &str, now: Time) -> Option<Value> {
    let current = condition(&cidr["status"], "Ready");
    let same = (current["status"].str(), current["reason"].str(), current["message"].str());
    (same != (status, reason, message)).then(
        || value!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now}),
    )
}

struct Controller {
    gvr: Gvr,
    api: Arc<dyn Api>,
    cidrs: Arc<Informer>,
    addresses: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let cidrs = context.informer(GROUP, "v1", "servicecidrs");
    let addresses = context.informer(GROUP, "v1", "ipaddresses");
    let queue = Arc::new(Queue::default());
    let (changed, view) = (queue.clone(), Arc::downgrade(&cidrs));
    cidrs.on_change(move |change| {
        let object = change.object();
        changed.add(object.key());
        // A new range may take over the addresses of one that waits to go.
        if let (None, Some(view)) = (change.old, view.upgrade()) {
            let own: Vec<Range> = ranges(&object.value()).collect();
            let overlaps = |other: &Value| ranges(other).any(|range| own.iter().any(|own| own.overlaps(&range)));
            leaving(&view).filter(|other| overlaps(&other.value())).for_each(|other| changed.add(other.key()));
        }
    });
    let (changed, view) = (queue.clone(), Arc::downgrade(&cidrs));
    addresses.on_change(move |change| {
        let (Some(view), Ok(address)) = (view.upgrade(), change.object().name().parse::<IpAddr>()) else { return };
        let holds = |cidr: &Arc<Object>| ranges(&cidr.value()).any(|range| range.has(address));
        leaving(&view).filter(holds).for_each(|cidr| changed.add(cidr.key()));
    });
    let gvr = Gvr::new(GROUP, "v1", "servicecidrs");
    let api = context.api("service-cidrs-controller");
    context.work(queue, 5, Arc::new(Controller { gvr, api, cidrs, addresses })).await;
}

/// Those that are being deleted.
fn leaving(cidrs: &Informer) -> impl Iterator<Item = Arc<Object>> + use<> {
    View::list(cidrs, "").into_iter().filter(|cidr| cidr.facts.deleting)
}

#[async_trait]
impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.cidrs.by_key(key) else { return Ok(Outcome::Done) };
        let (cidr, now) = (object.value(), canopus_client::now());
        if !object.facts.deleting {
            let finalizers = cidr["metadata"]["finalizers"].items();
            if !finalizers.iter().any(|f| f.str() == FINALIZER) {
                self.finalizer(&cidr, value!({"finalizers": [FINALIZER]})).await?;
            }
            return self.say(ready(&cidr, "True", "", "Kubernetes Service CIDR is ready", now), &cidr).await;
        }
        let all: Vec<Arc<Value>> = self.cidrs.list("").iter().map(|c| c.value()).collect();
        let addresses = self.addresses.list("");
        let managed = addresses.iter().filter(|a| {
            let by = a.facts.labels.iter().find(|(key, _)| *key == "ipaddress.kubernetes.io/managed-by");
            by.is_some_and(|(_, by)| *by == "ipallocator.k8s.io")
        });
        if needed(&cidr, &all, managed.map(|a| a.name())) {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            return self.say(ready(&cidr, "False", "Terminating", why, now), &cidr).await;
        }
        let since = Time::parse(cidr["metadata"]["deletionTimestamp"].str()).unwrap_or(now);
        let left = since.0 + GRACE - now.0;
        if left > 0 {
            return Ok(Outcome::After(Duration::from_micros(u64::try_from(left).unwrap_or(0))));
        }
        self.finalizer(&cidr, value!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]})).await?;
        Ok(Outcome::Done)
    }
}

impl Controller {
    async fn finalizer(&self, cidr: &Value, metadata: Value) -> Result<(), Status> {
        let patch = Patch::Strategic(value!({"metadata": metadata}));
        gone(self.api.patch(&target(&self.gvr, cidr), patch, &writes()).await)?;
        Ok(())
    }

    async fn say(&self, condition: Option<Value>, cidr: &Value) -> Result<Outcome, Status> {
        let Some(condition) = condition else { return Ok(Outcome::Done) };
        let applied = value!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": &cidr["metadata"]["name"]}, "status": {"conditions": [condition]},
        });
        let options = WriteOptions { field_manager: NAME.into(), force: true, ..writes() };
        let target = target(&self.gvr, cidr).subresource("status");
        if let Some(written) = gone(self.api.patch(&target, Patch::Apply(applied), &options).await)? {
            self.cidrs.reached(written.revision).await;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(name: &str, cidrs: &[&str]) -> Arc<Value> {
        Arc::new(value!({"metadata": {"name": name}, "spec": {"cidrs": cidrs.iter().copied().collect::<Value>()}}))
    }

    #[test]
    fn addresses_of_ranges() {
        let has = |range: &str, address: &str| Range::parse(range).unwrap().has(address.parse().unwrap());
        assert!(has("10.0.0.0/24", "10.0.0.1") && has("fd00::/112", "fd00::ffff") && has("0.0.0.0/0", "8.8.8.8"));
        for address in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"] {
            assert!(!has("10.0.0.0/24", address), "{address}");
        }
        assert!(!has("fd00::/112", "fd00::") && has("::/0", "fd00::1"));
    }

    #[test]
    fn a_range_stays_while_its_addresses_have_no_other() {
        let own = cidr("own", &["10.0.0.0/24"]);
        let cases: &[(&[&str], &[&str], bool)] = &[
            (&[], &[], false),
            (&[], &["10.0.0.7"], true),
            (&[], &["10.0.1.7"], false),
            (&["10.0.0.0/16"], &["10.0.0.7"], false),
            (&["10.0.0.0/24"], &["10.0.0.7"], false),
            (&["10.0.0.0/25"], &["10.0.0.7"], false),
            (&["10.0.0.0/25"], &["10.0.0.200"], true),
        ];
        for (other, addresses, expected) in cases {
            let all = [own.clone(), cidr("other", other)];
            assert_eq!(needed(&own, &all, addresses.iter().copied()), *expected, "{other:?} {addresses:?}");
        }
    }

    #[test]
    fn conditions_are_written_when_they_change() {
        let is =
            value!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "m"}]}});
        assert_eq!(ready(&is, "True", "", "m", Time(0)), None);
        assert_eq!(ready(&is, "False", "Terminating", "w", Time(0)).unwrap()["reason"].str(), "Terminating");
    }
}
