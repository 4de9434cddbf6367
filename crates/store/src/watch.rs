//! Watches, whichever store they come from.

use crate::{Error, Event, Revision};
use async_trait::async_trait;
use std::sync::Arc;

/// A store's side of a [`Watch`].
#[async_trait]
pub trait WatchSource: Send {
    /// See [`Watch::next`]. Must be cancel-safe.
    async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>>;
    /// See [`Watch::revision`].
    fn revision(&self) -> Revision;
    /// See [`Watch::progress`].
    fn progress(&self) -> Progress;
}

/// The changes under a prefix, from some revision on. Dropping it ends it.
pub struct Watch(Box<dyn WatchSource>);

impl Watch {
    pub fn new(source: impl WatchSource + 'static) -> Watch {
        Watch(Box::new(source))
    }

    /// The next group of events: what one commit group changed under the prefix, in order of revision, never empty. No
    /// event is left out or repeated. After an error, and when the store was closed, there is nothing more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        self.0.next().await
    }

    /// Up to which revision everything under the prefix has been handed out. It advances with the store's revision
    /// while nothing changes under the prefix, without waking anybody.
    pub fn revision(&self) -> Revision {
        self.0.revision()
    }

    /// A handle by which others follow the watch's consumer.
    pub fn progress(&self) -> Progress {
        self.0.progress()
    }
}

/// A store's side of a [`Progress`].
#[async_trait]
pub trait ProgressSource: Send + Sync {
    /// See [`Progress::revision`].
    fn revision(&self) -> Revision;
    /// See [`Progress::reached`].
    async fn reached(&self, revision: Revision) -> Result<(), Error>;
}

/// Tells how far the consumer of a [`Watch`] has come: a group counts when it comes back for the next one. So a cache
/// that applies each group before it asks for the next is current at least to [`revision`](Progress::revision).
#[derive(Clone)]
pub struct Progress(Arc<dyn ProgressSource>);

impl Progress {
    pub fn new(source: Arc<dyn ProgressSource>) -> Progress {
        Progress(source)
    }

    /// Up to which revision the consumer has dealt with everything.
    pub fn revision(&self) -> Revision {
        self.0.revision()
    }

    /// Waits until the consumer has dealt with everything up to `revision`; at once if it has. [`Error::FutureRevision`]
    /// if the store has not reached it; [`Error::Closed`] when the watch ends before.
    pub async fn reached(&self, revision: Revision) -> Result<(), Error> {
        self.0.reached(revision).await
    }
}
