//! The store in etcd v3, which several API servers may share, with upstream's key layout.
//!
//! Reads and writes go to etcd. What it reports about all keys, in one watch, feeds the same window of events and the
//! same watches as the built-in store has (see [`feed`]).

mod client;
mod feed;
mod grpc;
mod layout;
mod lease;
mod messages;
mod pending;
mod rounds;
#[cfg(any(test, feature = "contract"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use crate::engine::{Clock, Limits, Shared, SlotProgress, Watcher, system_clock};
use crate::watch::{Progress, ProgressSource, WatchSource};
use crate::{Change, Error, Event, Expect, Outcome, Range, Revision, Store, Version, Watch, Write};
use async_trait::async_trait;
use client::Client;
use grpc::Fault;
use layout::Layout;
use lease::Leases;
use messages::{Compare, Operation, RangeRequest, TxnResponse};
use parking_lot::Mutex;
use pending::Pending;
use rounds::Rounds;
use std::sync::Arc;
use std::time::Duration;
pub use tls::Tls;

/// Keys read by one request at first; later pages are as large as memory suggests.
const PAGE: u64 = 500;
const PAGE_BYTES: u64 = 16 << 20;
/// How long a watch may lag behind what is known to exist before its reader gives up.
const LAG: Duration = Duration::from_secs(10);
/// Upstream's: its version counts the compactions, its value is the revision of the last.
const COMPACT_KEY: &str = "compact_rev_key";

/// How an [`EtcdStore`] is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--etcd-servers`: URLs.
    pub servers: Vec<String>,
    /// `--etcd-prefix`: stands in place of `/registry`.
    pub prefix: String,
    pub tls: Tls,
    pub limits: Limits,
}

/// A store in etcd.
pub struct EtcdStore {
    inner: Arc<Inner>,
    feed: tokio::task::JoinHandle<()>,
}

struct Inner {
    client: Arc<Client>,
    cluster: u64,
    layout: Layout,
    shared: Arc<Shared>,
    pending: Pending,
    leases: Leases,
    newest: Rounds,
    /// How many compactions there have been, by [`COMPACT_KEY`].
    compactions: Mutex<u64>,
    limits: Limits,
    clock: Clock,
}

impl EtcdStore {
    /// Connects to etcd, and begins to follow it.
    pub async fn connect(options: Options) -> Result<EtcdStore, Error> {
        let client = Arc::new(Client::new(&options.servers, options.tls)?);
        let layout = Layout::new(if options.prefix.is_empty() { "/registry" } else { &options.prefix });
        let (cluster, revision) = client.revision().await.map_err(|fault| client::error(fault, 0, 0, 0))?;
        let past = feed::Past { client: client.clone(), layout: layout.clone() };
        let shared = Shared::following(revision, Arc::new(past), options.limits.clone());
        let inner = Arc::new(Inner {
            client,
            cluster,
            layout,
            shared,
            pending: Pending::default(),
            leases: Leases::default(),
            newest: Rounds::default(),
            compactions: Mutex::new(0),
            limits: options.limits,
            clock: system_clock(),
        });
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let store = EtcdStore { feed: tokio::spawn(feed::run(Arc::downgrade(&inner), begun)), inner };
        match tokio::time::timeout(LAG, beginning).await {
            Ok(Ok(())) => Ok(store),
            _ => Err(Error::Unavailable("it can't be watched".into())),
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.feed.abort();
        self.inner.shared.end(Error::Closed);
    }
}

impl Inner {
    /// A fault of a request for `requested`.
    fn error(&self, fault: Fault, requested: Revision) -> Error {
        client::error(fault, requested, self.shared.compacted(), self.shared.newest())
    }

    async fn current(&self) -> Result<Revision, Error> {
        let ask = || async { self.client.revision().await.map(|(_, revision)| revision) };
        let revision = self.newest.next(ask).await.map_err(|fault| self.error(fault, 0))?;
        Ok(self.shared.learn(revision))
    }

    async fn commit(&self, write: Write) -> Result<Outcome, Error> {
        let Write { key, expect, change } = &write;
        if let Change::Put { value, facts: Some(facts), .. } = change {
            self.pending.begin(key, value, facts);
        }
        let outcome = self.transact(key, *expect, change).await;
        if let Change::Put { value, facts: Some(_), .. } = change {
            let at = match &outcome {
                Ok(Outcome::Committed { revision, .. }) if *revision > self.shared.revision() => Some(*revision),
                _ => None,
            };
            self.pending.end(key, value, at);
        }
        outcome
    }

    async fn transact(&self, key: &Arc<str>, expect: Expect, change: &Change) -> Result<Outcome, Error> {
        let place = self.layout.outward(key);
        let compare = || match expect {
            Expect::Anything => None,
            Expect::Absent => Some(Compare::ModRevision(&place, 0)),
            // No key has this; 0 would mean one that is absent.
            Expect::Revision(0) => Some(Compare::ModRevision(&place, i64::MAX as u64)),
            Expect::Revision(revision) => Some(Compare::ModRevision(&place, revision)),
        };
        let or = Operation::Get(&place);
        let response = match change {
            Change::Delete => self.client.txn(compare(), &Operation::Delete(&place), Some(&or)).await,
            Change::Put { value, ttl: None, .. } => {
                let put = Operation::Put { key: &place, value, lease: 0 };
                self.client.txn(compare(), &put, Some(&or)).await
            }
            Change::Put { value, ttl: Some(ttl), .. } => {
                let mut lost = false;
                loop {
                    let lease = self.leases.get(&self.client, *ttl).await.map_err(|fault| self.error(fault, 0))?;
                    let put = Operation::Put { key: &place, value, lease };
                    match self.client.txn(compare(), &put, Some(&or)).await {
                        Err(Fault::Status { message, .. }) if message.contains("lease not found") && !lost => {
                            self.leases.forget(lease).await;
                            lost = true;
                        }
                        done => break done,
                    }
                }
            }
        };
        let response = response.map_err(|fault| self.refused(fault, change))?;
        self.shared.learn(response.revision);
        Ok(self.outcome(key, change, response))
    }

    fn refused(&self, fault: Fault, change: &Change) -> Error {
        match (&fault, change) {
            (Fault::Status { message, .. }, Change::Put { value, .. }) if message.contains("request is too large") => {
                // etcd's default of --max-request-bytes; it doesn't tell its own.
                Error::TooLarge { what: "value", size: value.len(), limit: 3 << 19 }
            }
            _ => self.error(fault, 0),
        }
    }

    fn outcome(&self, key: &Arc<str>, change: &Change, response: TxnResponse) -> Outcome {
        let TxnResponse { revision, succeeded, kv, deleted } = response;
        let found = kv.map(|kv| Arc::new(self.layout.version(kv)));
        match change {
            _ if !succeeded => Outcome::Conflict { current: found, revision },
            Change::Delete if deleted == 0 => Outcome::Conflict { current: None, revision },
            Change::Delete => Outcome::Committed { revision, version: None, previous: found },
            Change::Put { value, facts, ttl } => {
                let ttl = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                let version = Version {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: found.as_ref().map_or(revision, |previous| previous.create_revision),
                    mod_revision: revision,
                    version: found.as_ref().map_or(1, |previous| previous.version + 1),
                    expires_at: ttl.map(|ttl| (self.clock)().saturating_add(ttl)),
                    facts: facts.clone(),
                };
                Outcome::Committed { revision, version: Some(Arc::new(version)), previous: found }
            }
        }
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        let end = self.layout.outward(end);
        let end = if end.is_empty() { b"\0" } else { end.as_bytes() };
        let mut from = self.layout.outward(start).into_owned().into_bytes();
        if from.is_empty() {
            from.push(0);
        }
        let mut range = Range { revision: at.unwrap_or(0), items: Vec::new(), more: false, remaining: 0 };
        let mut page = PAGE;
        loop {
            let wanted = if limit == 0 { page } else { page.min((limit - range.items.len()) as u64) };
            let request = RangeRequest { key: &from, end, limit: wanted, revision: range.revision, keys_only: false };
            let answer = self.client.range(&request).await.map_err(|fault| self.error(fault, range.revision))?;
            self.shared.learn(answer.revision);
            if range.revision == 0 {
                range.revision = answer.revision;
            }
            let count = answer.kvs.len() as u64;
            let left = answer.count.saturating_sub(count);
            let Some(last) = answer.kvs.last() else { return Ok(range) };
            from = format!("{}\0", last.key).into_bytes();
            let bytes: u64 = answer.kvs.iter().map(|kv| kv.value.len() as u64 + 1).sum();
            page = (PAGE_BYTES * count / bytes).clamp(16, 20 * PAGE);
            range.items.extend(answer.kvs.into_iter().map(|kv| Arc::new(self.layout.version(kv))));
            if left == 0 || range.items.len() == limit {
                (range.more, range.remaining) = (left > 0, left);
                return Ok(range);
            }
        }
    }

    /// Whether it is this server's turn to compact, by upstream's protocol.
    async fn may_compact(&self, up_to: Revision) -> Result<bool, Error> {
        let known = *self.compactions.lock();
        let value = up_to.to_string();
        let put = Operation::Put { key: COMPACT_KEY, value: value.as_bytes(), lease: 0 };
        let or = Operation::Get(COMPACT_KEY);
        let response = self.client.txn(Some(Compare::Version(COMPACT_KEY, known)), &put, Some(&or)).await;
        let response = response.map_err(|fault| self.error(fault, 0))?;
        *self.compactions.lock() = match &response.kv {
            _ if response.succeeded => known + 1,
            Some(kv) => kv.version,
            None => 0,
        };
        Ok(response.succeeded)
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn commit(&self, write: Write) -> Result<Outcome, Error> {
        self.inner.shared.usable()?;
        self.inner.limits.check(&write)?;
        let inner = self.inner.clone();
        let done = tokio::spawn(async move { inner.commit(write).await });
        done.await.unwrap_or_else(|lost| Err(Error::Unavailable(lost.to_string().into())))
    }

    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
        self.inner.shared.usable()?;
        self.inner.limits.check_key(key)?;
        let key = self.inner.layout.outward(key);
        let request = RangeRequest { key: key.as_bytes(), ..RangeRequest::default() };
        let answer = self.inner.client.range(&request).await.map_err(|fault| self.inner.error(fault, 0))?;
        self.inner.shared.learn(answer.revision);
        let found = answer.kvs.into_iter().next().map(|kv| Arc::new(self.inner.layout.version(kv)));
        Ok((found, answer.revision))
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        self.inner.shared.usable()?;
        loop {
            match self.inner.range(start, end, at, limit).await {
                // Compaction has overtaken a reading that never asked for an old revision: begin again at the new one.
                Err(Error::Compacted { .. }) if at.is_none() => {}
                range => return range,
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        let watcher = Watcher::start(&self.inner.shared, prefix, from)?;
        Ok(Watch::new(EtcdWatch { watcher, inner: self.inner.clone() }))
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        self.inner.shared.usable()?;
        match self.inner.client.compact(up_to).await.map_err(|fault| self.inner.error(fault, up_to)) {
            Ok(()) | Err(Error::Compacted { .. }) => {
                self.inner.shared.compacted_to(up_to);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn may_compact(&self, up_to: Revision) -> Result<bool, Error> {
        self.inner.may_compact(up_to).await
    }

    fn shared(&self) -> bool {
        true
    }

    async fn current(&self) -> Result<Revision, Error> {
        self.inner.shared.usable()?;
        self.inner.current().await
    }

    fn revision(&self) -> Revision {
        self.inner.shared.newest()
    }

    fn compacted(&self) -> Revision {
        self.inner.shared.compacted()
    }
}

struct EtcdWatch {
    watcher: Watcher,
    inner: Arc<Inner>,
}

#[async_trait]
impl WatchSource for EtcdWatch {
    async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        self.watcher.next().await
    }

    fn revision(&self) -> Revision {
        self.watcher.revision()
    }

    fn progress(&self) -> Progress {
        Progress::new(Arc::new(EtcdProgress { slot: self.watcher.slot_progress(), inner: self.inner.clone() }))
    }
}

struct EtcdProgress {
    slot: SlotProgress,
    inner: Arc<Inner>,
}

#[async_trait]
impl ProgressSource for EtcdProgress {
    fn revision(&self) -> Revision {
        self.slot.revision()
    }

    async fn reached(&self, revision: Revision) -> Result<(), Error> {
        if revision > self.inner.shared.newest() {
            // Another server may have written it.
            self.inner.current().await?;
        }
        let reached = tokio::time::timeout(LAG, self.slot.reached(revision)).await;
        reached.unwrap_or_else(|_| Err(Error::Unavailable("the watch of etcd is behind".into())))
    }
}
