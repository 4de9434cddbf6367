//! What waits for the commit thread.

use super::commit::{Job, Request};
use crate::{Change, Error, Revision};
use parking_lot::{Condvar, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a group may wait for company. Only under load: see [`Queue::take`].
const LINGER: Duration = Duration::from_millis(2);

/// So many writers are load; fewer do as well when groups form only while the last one is being written.
const LOAD: usize = 8;

/// Bounds of one group.
const GROUP_WRITES: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;

#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    writes: Vec<Job>,
    compactions: Vec<(Revision, oneshot::Sender<Result<(), Error>>)>,
    closed: bool,
    /// The commit thread sleeps until there are so many writes; 0 while it is awake.
    sleeping_for: usize,
    /// How many writers there seem to be: the sizes of the last two groups.
    recent: [usize; 2],
}

/// What the commit thread has to do next.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) writes: Vec<Job>,
    pub(crate) compactions: Vec<(Revision, oneshot::Sender<Result<(), Error>>)>,
    pub(crate) closed: bool,
}

impl Queue {
    /// Adds a request. Once the queue is closed it is dropped, and its sender learns that from the reply channel.
    pub(crate) fn push(&self, request: Request) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        let wake = match request {
            Request::Write(job) => {
                inner.writes.push(job);
                inner.sleeping_for != 0 && inner.writes.len() >= inner.sleeping_for
            }
            Request::Compact { up_to, reply } => {
                inner.compactions.push((up_to, reply));
                inner.sleeping_for != 0
            }
        };
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// The next thing to do; empty after `patience`, or at once if that is zero. With `None` it waits for ever.
    ///
    /// Writers who were in the last groups are about to come back: if there were many, the group waits for as many, 2 ms
    /// at most. A few writers never wait.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Batch {
        let mut inner = self.inner.lock();
        let ready = |inner: &Inner| !inner.writes.is_empty() || !inner.compactions.is_empty() || inner.closed;
        if !ready(&inner) {
            inner.sleeping_for = 1;
            let asleep = |inner: &mut Inner| !ready(inner);
            match patience {
                Some(patience) if patience.is_zero() => {}
                Some(patience) => drop(self.wake.wait_while_for(&mut inner, asleep, patience)),
                None => self.wake.wait_while(&mut inner, asleep),
            }
        }
        let expected = inner.recent[0].max(inner.recent[1]);
        if expected >= LOAD && !inner.writes.is_empty() && inner.writes.len() < expected {
            inner.sleeping_for = expected;
            let asleep =
                |inner: &mut Inner| inner.writes.len() < expected && inner.compactions.is_empty() && !inner.closed;
            self.wake.wait_while_for(&mut inner, asleep, LINGER);
        }
        inner.sleeping_for = 0;
        let count = group(&inner.writes);
        if count > 0 {
            inner.recent = [count, inner.recent[0]];
        }
        let rest = inner.writes.split_off(count);
        Batch {
            writes: std::mem::replace(&mut inner.writes, rest),
            compactions: std::mem::take(&mut inner.compactions),
            closed: inner.closed,
        }
    }
}

/// How many of the first writes make a group.
fn group(writes: &[Job]) -> usize {
    let mut bytes = 0;
    for (i, job) in writes.iter().take(GROUP_WRITES).enumerate() {
        if let Change::Put { value, .. } = &job.write.change {
            bytes += value.len();
        }
        if bytes > GROUP_BYTES {
            return (i + 1).min(writes.len());
        }
    }
    writes.len().min(GROUP_WRITES)
}
