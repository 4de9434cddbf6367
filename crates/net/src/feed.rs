//! Which Services changed, by themselves or by their EndpointSlices: what the proxy and the DNS server both follow.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use canopus_api::{Object, Value};
use canopus_client::{Change, Informer, Informers};
use compact_str::{CompactString, format_compact};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// `namespace/name`.
pub(crate) type Key = CompactString;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keys that wait to be looked at again; each once.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    keys: Mutex<BTreeSet<Key>>,
    wake: Arc<Notify>,
}

impl Dirty {
    /// Keys of another sort that wake the same waiter.
    pub(crate) fn beside(other: &Dirty) -> Arc<Dirty> {
        Arc::new(Dirty { keys: Mutex::default(), wake: other.wake.clone() })
    }

    pub(crate) fn add(&self, key: Key) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }

    pub(crate) fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.keys.lock())
    }

    /// Wakes the waiter without a key.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until something was added since the last wait, by this or one beside it.
    pub(crate) async fn added(&self) {
        self.wake.notified().await;
    }
}

/// Services and their EndpointSlices, and which of the Services changed.
pub(crate) struct Feed {
    pub(crate) dirty: Arc<Dirty>,
    services: Arc<Informer>,
    slices: Arc<Informer>,
    /// Keys of the slices of each Service.
    slices_of: Arc<Mutex<HashMap<Key, BTreeSet<Key>>>>,
}

impl Feed {
    /// Follows all Services; each that there is counts as changed. Returns when both views are complete.
    pub(crate) async fn start(informers: &Informers) -> Feed {
        let services = informers.get("", "v1", "services");
        let slices = informers.get("discovery.k8s.io", "v1", "endpointslices");
        let (dirty, slices_of) = (Arc::<Dirty>::default(), Arc::<Mutex<HashMap<Key, BTreeSet<Key>>>>::default());
        let (changed, index) = (dirty.clone(), slices_of.clone());
        slices.on_change(move |change| note_slice(change, &changed, &mut index.lock()));
        let changed = dirty.clone();
        services.on_change(move |change| changed.add(change.object().key()));
        services.synced().await;
        slices.synced().await;
        Feed { dirty, services, slices, slices_of }
    }

    pub(crate) fn service(&self, key: &str) -> Option<Arc<Value>> {
        self.services.by_key(key).map(|service| service.value())
    }

    /// A Service's slices, in the order of their names.
    pub(crate) fn slices(&self, key: &str) -> Vec<Arc<Value>> {
        let keys = self.slices_of.lock().get(key).cloned().unwrap_or_default();
        keys.iter().filter_map(|key| self.slices.by_key(key)).map(|slice| slice.value()).collect()
    }
}

/// A slice may change hands: both Services count as changed then.
fn note_slice(change: &Change, dirty: &Dirty, slices_of: &mut HashMap<Key, BTreeSet<Key>>) {
    let (old, new) = (change.old.and_then(owner), change.new.and_then(owner));
    let slice = change.object().key();
    if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
        if let Some(slices) = slices_of.get_mut(&old) {
            slices.remove(&slice);
            if slices.is_empty() {
                slices_of.remove(&old);
            }
        }
        dirty.add(old);
    }
    if let Some(new) = new {
        slices_of.entry(new.clone()).or_default().insert(slice);
        dirty.add(new);
    }
}

/// The Service that a slice belongs to.
fn owner(slice: &Arc<Object>) -> Option<Key> {
    let name = slice.facts.label(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(format_compact!("{}/{name}", slice.namespace()))
}

/// The address type, ports and endpoints of a slice hold names instead of addresses.
pub(crate) fn is_fqdn(slice: &Value) -> bool {
    slice["addressType"].str() == "FQDN"
}

/// A protocol by its name; TCP when not given.
pub(crate) fn protocol(value: &Value) -> Option<crate::proxy::Protocol> {
    use crate::proxy::Protocol;
    match value.str() {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// A port number; `None` when it is missing, 0 or no port.
pub(crate) fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.int()).ok().filter(|port| *port != 0)
}

/// The addresses in a list, without what isn't one.
pub(crate) fn addresses(list: &Value) -> Vec<std::net::IpAddr> {
    list.items().iter().filter_map(|ip| ip.str().parse().ok()).collect()
}

/// `spec.clusterIPs`, or `spec.clusterIP` where only that is given; empty for headless Services.
pub(crate) fn cluster_ips(spec: &Value) -> Vec<std::net::IpAddr> {
    match spec["clusterIPs"].items() {
        [] => spec["clusterIP"].str().parse().into_iter().collect(),
        _ => addresses(&spec["clusterIPs"]),
    }
}
