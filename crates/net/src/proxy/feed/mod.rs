//! The loop that keeps the proxy in step with the cluster's Services.

mod translate;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{FieldSelector, Gvr, ListOptions, Target};
use canopus_client::{Informer, Informers};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use translate::translate;

use super::state::{ProxyConfig, ProxyState, ServicePortKey};
use super::{Proxy, ProxyError, SyncReport};
use crate::feed::{Feed, Key};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Synchronizations begin at least so far apart; the first after a pause begins at once.
const MIN_PERIOD: Duration = Duration::from_millis(50);

/// How often the rules are looked for in the kernel (upstream's sync period).
const CHECK_PERIOD: Duration = Duration::from_secs(30);

/// Pauses after failures: the first, doubled with each further one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Serves the cluster's Services on this node until `shutdown`, in the network namespace of the calling thread. The
/// rules stay, as does what they do.
///
/// `config.zone` is replaced by the label of the Node `config.node_name`, once that has one. Failures are logged and
/// tried again.
pub async fn run(config: ProxyConfig, informers: Arc<Informers>, shutdown: CancellationToken) {
    let stop = shutdown.child_token();
    let _stop_node = stop.clone().drop_guard();
    tokio::select! {
        () = follow(config, &informers, stop) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn follow(config: ProxyConfig, informers: &Informers, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let proxy = loop {
        match Proxy::open() {
            Ok(proxy) => break proxy,
            Err(error) => back_off(&error, &mut pause).await,
        }
    };
    let feed = Arc::new(Feed::start(informers).await);
    let node = own_node(&config.node_name, informers, &feed, stop).await;
    let state = ProxyState { config: Arc::new(config), ..ProxyState::default() };
    let mut worker = Worker { proxy, feed: feed.clone(), node, state, ports: HashMap::new() };
    let mut job = Job::Sync;
    loop {
        let began = Instant::now();
        let (done, result) = match tokio::task::spawn_blocking(move || worker.work(job)).await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        worker = done;
        job = Job::Sync;
        match result {
            Ok(report) => {
                pause = FIRST_PAUSE;
                tracing::debug!(?report, took = ?began.elapsed(), "synchronized the service rules");
            }
            Err(error) => {
                back_off(&error, &mut pause).await;
                continue;
            }
        }
        tokio::select! {
            () = feed.dirty.added() => sleep_until(began + MIN_PERIOD).await,
            () = sleep(CHECK_PERIOD) => job = Job::Check,
        }
    }
}

async fn back_off(error: &ProxyError, pause: &mut Duration) {
    tracing::warn!(%error, again_in = ?*pause, "failed to synchronize the service rules");
    sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

/// Follows this node's Node, if it has a name; its changes wake the loop.
async fn own_node(name: &str, informers: &Informers, feed: &Feed, stop: CancellationToken) -> Option<Arc<Informer>> {
    if name.is_empty() {
        return None;
    }
    let target = Target::new(&Gvr::new("", "v1", "nodes"), "", "");
    let options = ListOptions { fields: FieldSelector::equal("metadata.name", name), ..ListOptions::default() };
    let node = Informer::start(informers.api().clone(), target, options, stop);
    let dirty = feed.dirty.clone();
    node.on_change(move |change| {
        let zone = |node: &Arc<canopus_api::Object>| node.facts.label(ZONE).map(String::from);
        if change.old.and_then(zone) != change.new.and_then(zone) {
            dirty.wake();
        }
    });
    node.synced().await;
    Some(node)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Sync,
    /// As well load everything anew if somebody removed it.
    Check,
}

/// What is done on a blocking thread.
struct Worker {
    proxy: Proxy,
    feed: Arc<Feed>,
    node: Option<Arc<Informer>>,
    state: ProxyState,
    /// The ports of each Service in the state.
    ports: HashMap<Key, Vec<ServicePortKey>>,
}

impl Worker {
    fn work(mut self, job: Job) -> (Worker, Result<SyncReport, ProxyError>) {
        self.take_zone();
        let mut changed = BTreeSet::new();
        for key in self.feed.dirty.take() {
            self.take_service(key, &mut changed);
        }
        let result = match job {
            Job::Check => self.proxy.check().and_then(|()| self.proxy.sync_changed(&self.state, &changed)),
            Job::Sync => self.proxy.sync_changed(&self.state, &changed),
        };
        (self, result)
    }

    /// Translates one Service again. Ports that come out the same keep their value.
    fn take_service(&mut self, key: Key, changed: &mut BTreeSet<ServicePortKey>) {
        let service = self.feed.service(&key);
        let slices = if service.is_some() { self.feed.slices(&key) } else { vec![] };
        let node_name = &self.state.config.node_name;
        let new = service.map(|service| translate(&service, &slices, node_name)).unwrap_or_default();
        let keys: Vec<ServicePortKey> = new.iter().map(|(key, _)| key.clone()).collect();
        for gone in self.ports.remove(&key).unwrap_or_default().into_iter().filter(|key| !keys.contains(key)) {
            self.state.services.remove(&gone);
            changed.insert(gone);
        }
        for (key, port) in new {
            if self.state.services.get(&key).is_none_or(|old| **old != port) {
                self.state.services.insert(key.clone(), Arc::new(port));
                changed.insert(key);
            }
        }
        if !keys.is_empty() {
            self.ports.insert(key, keys);
        }
    }

    fn take_zone(&mut self) {
        let node = self.node.as_ref().and_then(|node| node.by_key(&self.state.config.node_name));
        if let Some(zone) = node.as_ref().and_then(|node| node.facts.label(ZONE))
            && zone != self.state.config.zone
        {
            self.state.config = Arc::new(ProxyConfig { zone: zone.into(), ..(*self.state.config).clone() });
        }
    }
}
