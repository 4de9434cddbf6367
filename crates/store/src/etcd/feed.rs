//! One watch of everything in etcd feeds the window that all our watches share.
//!
//! Since it follows all keys, every revision comes by, and to have seen revision N is to have seen all up to N: no
//! progress notifications are needed, which etcd before 3.4.31 and 3.5.13 sends too early.

use super::Inner;
use super::grpc::Fault;
use super::messages::{Event as Change, WatchResponse};
use crate::log::{History, Record, SCAN_BYTES, SCAN_RECORDS, Scan, Scanned};
use crate::{Error, Event, Revision};
use async_trait::async_trait;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two attempts to watch: at first, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// How long a stretch of old history may keep us waiting.
const SCAN: Duration = Duration::from_secs(20);

/// Why a watch ended.
enum End {
    /// What should come next is compacted.
    Compacted,
    Fault(Fault),
    /// This etcd isn't the one we knew.
    Foreign(String),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}

/// Follows etcd for as long as the store lives. Says when it has begun.
pub(super) async fn run(store: Weak<Inner>, begun: oneshot::Sender<()>) {
    let mut pause = PAUSE;
    let mut begun = Some(begun);
    loop {
        let Some(inner) = store.upgrade() else { return };
        let before = inner.shared.revision();
        let end = follow(&inner, &mut begun).await;
        if inner.shared.revision() > before {
            pause = PAUSE;
        }
        match end {
            End::Compacted => {
                tracing::warn!(revision = before, "etcd has compacted what we have not seen; reading everything again");
                if let Ok((_, revision)) = inner.client.revision().await {
                    inner.lose(revision);
                    continue;
                }
            }
            End::Fault(fault) => {
                tracing::warn!(%fault, "the watch of etcd broke off; watching again");
                inner.client.abandon().await;
            }
            End::Foreign(why) => {
                tracing::error!(why, "the store has failed");
                return inner.shared.end(Error::Failed(why.into()));
            }
        }
        drop(inner);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONG_PAUSE);
    }
}

async fn follow(inner: &Inner, begun: &mut Option<oneshot::Sender<()>>) -> End {
    match follow_until(inner, begun).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn follow_until(inner: &Inner, begun: &mut Option<oneshot::Sender<()>>) -> Result<std::convert::Infallible, End> {
    let last = inner.shared.revision();
    let (cluster, revision) = inner.client.revision().await?;
    if cluster != inner.cluster {
        return Err(End::Foreign("the etcd server belongs to another cluster than before".into()));
    }
    if revision < last {
        return Err(End::Foreign(format!("etcd's revision went back from {last} to {revision}")));
    }
    // From the last one that we have, so that etcd refuses if it has compacted the one after; unless there is none yet: a
    // watch of the future doesn't wait for etcd's next round of watches that have something to catch up with.
    let from = if revision == last { last + 1 } else { last };
    let mut stream = inner.client.watch(from).await?;
    loop {
        let response = WatchResponse::read(&stream.next().await?).map_err(Fault::from)?;
        if response.compacted > 0 {
            return Err(End::Compacted);
        }
        if response.canceled {
            return Err(End::Fault(Fault::Broken(response.reason.into())));
        }
        if response.created
            && let Some(begun) = begun.take()
        {
            // Nobody waits any more if the store was given up.
            let _ = begun.send(());
        }
        inner.publish(response.events.into_iter().filter(|event| event.kv.mod_revision > last));
    }
}

impl Inner {
    fn publish(&self, changes: impl Iterator<Item = Change>) {
        let events: Arc<[Event]> = changes.map(|change| self.event(change)).collect();
        if !events.is_empty() {
            self.shared.publish(&[], events);
        }
    }

    fn event(&self, change: Change) -> Event {
        let revision = change.kv.mod_revision;
        let previous = change.previous.map(|kv| Arc::new(self.layout.version(kv)));
        let version = self.layout.version(change.kv);
        let key = version.key.clone();
        let own = (!change.deleted).then(|| self.pending.take(&key, &version.value, revision)).flatten();
        let version = (!change.deleted).then(|| Arc::new(version.of_writer(own)));
        Event { revision, key, version, previous }
    }

    /// Nothing is known of what happened up to `revision`.
    fn lose(&self, revision: Revision) {
        self.pending.forget(revision);
        self.shared.lose(revision);
    }
}

/// Old history, read by a watch that starts in the past.
pub(super) struct Past {
    pub(super) client: Arc<super::client::Client>,
    pub(super) layout: super::layout::Layout,
}

impl Past {
    async fn read(&self, scan: &Scan) -> Result<Scanned, Error> {
        let unavailable = |fault: Fault| Error::Unavailable(fault.to_string().into());
        // One earlier, so that etcd refuses if it has compacted the first one that is wanted.
        let mut stream = self.client.watch((scan.from - 1).max(1)).await.map_err(unavailable)?;
        let mut events = Vec::new();
        let mut bytes = 0;
        loop {
            let message = stream.next().await.map_err(unavailable)?;
            bytes += message.len();
            let response = WatchResponse::read(&message).map_err(|error| unavailable(error.into()))?;
            if response.compacted > 0 {
                return Err(Error::Compacted { requested: scan.from, compacted: response.compacted });
            }
            if response.canceled {
                return Err(Error::Unavailable(response.reason.into()));
            }
            let reached = response.events.last().map_or(0, |event| event.kv.mod_revision);
            events.extend(response.events.into_iter().filter_map(|change| self.wanted(change, scan)));
            if reached >= scan.to {
                return Ok(Scanned { events, covered: scan.to });
            }
            if events.len() >= SCAN_RECORDS || bytes >= SCAN_BYTES {
                return Ok(Scanned { events, covered: reached });
            }
        }
    }

    fn wanted(&self, change: Change, scan: &Scan) -> Option<Event> {
        let revision = change.kv.mod_revision;
        let version = self.layout.version(change.kv);
        let key = version.key.clone();
        let in_range = *key >= *scan.start && (scan.end.is_empty() || *key < *scan.end);
        if !in_range || !(scan.from..=scan.to).contains(&revision) {
            return None;
        }
        let previous = change.previous.map(|kv| Arc::new(self.layout.version(kv)));
        Some(Event { revision, key, version: (!change.deleted).then(|| Arc::new(version)), previous })
    }
}

#[async_trait]
impl History for Past {
    /// The index asks for these, and there is none: etcd has it.
    async fn fetch(&self, _: Vec<Revision>) -> Result<Vec<Record>, Error> {
        Ok(Vec::new())
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, Error> {
        let read = tokio::time::timeout(SCAN, self.read(&scan)).await;
        read.unwrap_or_else(|_| Err(Error::Unavailable("etcd did not answer in time".into())))
    }
}
