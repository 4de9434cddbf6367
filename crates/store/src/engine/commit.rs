//! The one place where writes are decided. It runs on a thread of its own, or in place under simulation.

use super::expiry::Expiry;
use super::index::{Garbage, Index};
use super::queue::{Batch, Queue};
use super::window::Window;
use super::{Clock, Limits, PANICKED, Shared, State};
use crate::log::{History, Log, Record};
use crate::{Change, Error, Event, Expect, Outcome, Revision, Version, Write};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Records dropped per step of compaction.
const STEP: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A write and who waits for it.
pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) reply: Reply<Outcome>,
}

pub(crate) enum Request {
    Write(Job),
    Compact { up_to: Revision, reply: Reply<()> },
}

/// A committer of whichever log.
pub(crate) trait Commit: Send {
    /// Does everything that `request` asks for.
    fn handle(&mut self, request: Request);
    /// Deletes what has expired and tells when the next key will.
    fn expire(&mut self) -> Option<u64>;
}

pub(crate) struct Committer<L> {
    shared: Arc<Shared>,
    log: L,
    clock: Clock,
    expiry: Expiry,
    /// What compaction will drop, in the order in which it becomes droppable.
    garbage: VecDeque<Garbage>,
    /// Who waits for the compaction up to which revision.
    compactions: Vec<(Revision, Reply<()>)>,
    /// Compaction is under way, or the log wants to be tidied up.
    compacting: bool,
    tidying: bool,
    failed: bool,
}

/// A commit group in the making.
struct Group {
    next: Revision,
    now: u64,
    events: Vec<Event>,
    /// What the keys of this group have become.
    touched: HashMap<Arc<str>, Option<Arc<Version>>>,
    replies: Vec<(Reply<Outcome>, Outcome)>,
}

impl Group {
    fn decide(&mut self, index: &Index, job: Job) {
        let Job { write, reply } = job;
        let touched = self.touched.get(&write.key);
        let fresh = touched.is_some();
        let current = match touched {
            Some(current) => current.clone(),
            None => index.get(&write.key).cloned(),
        };
        let allowed = match (write.expect, &current) {
            (Expect::Anything, _) => true,
            (Expect::Absent, current) => current.is_none(),
            (Expect::Revision(revision), Some(current)) => current.mod_revision == revision,
            (Expect::Revision(_), None) => false,
        };
        if !allowed || (current.is_none() && matches!(write.change, Change::Delete)) {
            let outcome = Outcome::Conflict { current, revision: self.next - 1 };
            if fresh {
                // The answer tells of a write that isn't durable yet.
                self.replies.push((reply, outcome));
            } else {
                answer(reply, Ok(outcome));
            }
            return;
        }
        let outcome = self.write(index, write.key, write.change, current);
        self.replies.push((reply, outcome));
    }

    fn write(&mut self, index: &Index, key: Arc<str>, change: Change, previous: Option<Arc<Version>>) -> Outcome {
        let revision = self.next;
        self.next += 1;
        let key = index.key(&key).cloned().unwrap_or(key);
        let version = match change {
            Change::Delete => None,
            Change::Put { value, facts, ttl } => Some(Arc::new(Version {
                key: key.clone(),
                value,
                create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
                mod_revision: revision,
                version: previous.as_ref().map_or(1, |previous| previous.version + 1),
                expires_at: ttl.map(|ttl| expiry(self.now, ttl)),
                facts,
            })),
        };
        self.touched.insert(key.clone(), version.clone());
        self.events.push(Event { revision, key, version: version.clone(), previous: previous.clone() });
        Outcome::Committed { revision, version, previous }
    }
}

/// Clamped to what a log can store.
fn expiry(now: u64, ttl: Duration) -> u64 {
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    now.saturating_add(ttl).min(i64::MAX as u64)
}

/// Nobody may be waiting any more, which is no concern of the store's.
fn answer<T>(reply: Reply<T>, outcome: Result<T, Error>) {
    let _ = reply.send(outcome);
}

impl<L: Log> Committer<L> {
    /// Replays the log.
    pub(crate) fn load(
        mut log: L,
        history: Arc<dyn History>,
        limits: Limits,
        clock: Clock,
    ) -> Result<(Arc<Shared>, Committer<L>), Error> {
        let compacted = log.compacted();
        let mut index = Index::default();
        let mut expiry = Expiry::default();
        let mut garbage = VecDeque::new();
        let mut revision = compacted.max(1);
        log.replay(&mut |record| {
            let previous = index.get(&record.key).cloned();
            let deleted = record.version.is_none();
            let old = previous.as_ref().map(|previous| previous.mod_revision);
            garbage.extend(Garbage::of(record.revision, &record.key, deleted, old));
            expiry.apply(&record, previous.as_deref());
            index.apply(&record);
            revision = revision.max(record.revision);
            Ok(())
        })?;
        let window = Window::new(revision, limits.window_events, limits.window_bytes);
        let state = State { index, window, revision, compacted, over: None };
        let shared = Arc::new(Shared::new(state, history, limits));
        // An interrupted compaction goes on.
        let compacting = compacted > 0;
        let committer = Committer {
            shared: shared.clone(),
            log,
            clock,
            expiry,
            garbage,
            compactions: Vec::new(),
            compacting,
            tidying: false,
            failed: false,
        };
        Ok((shared, committer))
    }

    /// The commit thread's life.
    pub(crate) fn run(mut self, queue: &Queue) {
        let _ending = Ending { queue, shared: self.shared.clone() };
        while !self.failed {
            let Batch { writes, compactions, closed } = queue.take(self.patience());
            let idle = writes.is_empty() && compactions.is_empty();
            self.commit(writes);
            for (up_to, reply) in compactions {
                self.begin_compaction(up_to, reply);
            }
            self.step(idle);
            if closed && idle {
                return;
            }
        }
    }

    /// How long there is nothing to do unless somebody asks for something.
    fn patience(&self) -> Option<Duration> {
        if self.compacting || self.tidying {
            return Some(Duration::ZERO);
        }
        let wake = self.expiry.wake()?;
        Some(Duration::from_millis(wake.saturating_sub((self.clock)())))
    }

    /// Commits what has expired and as many of `jobs` as find what they expect.
    fn commit(&mut self, jobs: Vec<Job>) {
        let mut group = Group {
            next: 0,
            now: (self.clock)(),
            events: Vec::with_capacity(jobs.len()),
            touched: HashMap::with_capacity(jobs.len()),
            replies: Vec::with_capacity(jobs.len()),
        };
        {
            let state = self.shared.state.read();
            group.next = state.revision + 1;
            for (revision, key) in self.expiry.due(group.now) {
                if let Some(version) = state.index.get(key)
                    && version.mod_revision == revision
                {
                    group.write(&state.index, key.clone(), Change::Delete, Some(version.clone()));
                }
            }
            for job in jobs {
                group.decide(&state.index, job);
            }
        }
        if group.events.is_empty() {
            return;
        }
        let done = self.log.append(&group.events).and_then(|()| self.log.between_groups());
        if let Err(error) = done {
            self.fail(error);
            for (reply, _) in group.replies {
                answer(reply, Err(self.over()));
            }
            return;
        }
        self.publish(group.events);
        for (reply, outcome) in group.replies {
            answer(reply, Ok(outcome));
        }
    }

    fn publish(&mut self, events: Vec<Event>) {
        let mut records = Vec::with_capacity(events.len());
        for event in &events {
            let Event { revision, key, version, previous } = event;
            let record = Record { revision: *revision, key: key.clone(), version: version.clone() };
            self.expiry.apply(&record, previous.as_deref());
            let old = previous.as_ref().map(|previous| previous.mod_revision);
            self.garbage.extend(Garbage::of(*revision, key, version.is_none(), old));
            records.push(record);
        }
        self.shared.publish(&records, events.into());
    }

    fn begin_compaction(&mut self, up_to: Revision, reply: Reply<()>) {
        let mut state = self.shared.state.write();
        if up_to > state.revision {
            let error = Error::FutureRevision { requested: up_to, current: state.revision };
            drop(state);
            return answer(reply, Err(error));
        }
        let mut dropped = Vec::new();
        if up_to > state.compacted {
            state.compacted = up_to;
            dropped = state.window.trim(up_to);
        }
        drop(state);
        drop(dropped);
        self.compactions.push((up_to, reply));
        self.compacting = true;
    }

    /// One step of what is to be done besides commits.
    fn step(&mut self, idle: bool) {
        if self.failed {
            return;
        }
        let done = if self.compacting {
            self.compact_step()
        } else if self.tidying && idle {
            self.log.tidy().map(|more| self.tidying = more)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            self.fail(error);
        }
    }

    fn compact_step(&mut self) -> Result<(), Error> {
        let up_to = self.shared.state.read().compacted;
        let ripe = self.garbage.iter().take(STEP).take_while(|garbage| garbage.at <= up_to).count();
        let step: Vec<Garbage> = self.garbage.drain(..ripe).collect();
        let revisions: Vec<Revision> = step.iter().map(|garbage| garbage.revision).collect();
        self.log.compact(up_to, &revisions)?;
        {
            let mut state = self.shared.state.write();
            step.iter().for_each(|garbage| state.index.forget(garbage));
        }
        if ripe == STEP {
            return Ok(());
        }
        self.garbage.shrink_to(4 * STEP);
        self.compacting = false;
        self.tidying = true;
        self.log.compacted_all();
        for (_, reply) in self.compactions.drain(..) {
            answer(reply, Ok(()));
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        tracing::error!(%error, "the store has failed");
        self.failed = true;
        let why = match error {
            Error::Failed(why) => why,
            other => other.to_string().into(),
        };
        self.shared.end(Error::Failed(why));
        for (_, reply) in std::mem::take(&mut self.compactions) {
            answer(reply, Err(self.over()));
        }
    }

    fn over(&self) -> Error {
        self.shared.state.read().over.clone().unwrap_or(Error::Closed)
    }
}

impl<L: Log> Commit for Committer<L> {
    fn handle(&mut self, request: Request) {
        if self.failed {
            return;
        }
        match request {
            Request::Write(job) => self.commit(vec![job]),
            Request::Compact { up_to, reply } => self.begin_compaction(up_to, reply),
        }
        while !self.failed && (self.compacting || self.tidying) {
            self.step(true);
        }
    }

    fn expire(&mut self) -> Option<u64> {
        while !self.failed && self.expiry.next().is_some_and(|at| at <= (self.clock)()) {
            self.commit(Vec::new());
        }
        self.expiry.next()
    }
}

/// Closes the queue when the commit thread ends, however it does, so that nobody waits for a thread that is gone.
struct Ending<'a> {
    queue: &'a Queue,
    shared: Arc<Shared>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let why = match std::thread::panicking() {
            true => Error::Failed(PANICKED.into()),
            false => Error::Closed,
        };
        self.shared.end(why);
        self.queue.close();
        // What is still queued is dropped, which answers it.
        while !{
            let rest = self.queue.take(Some(Duration::ZERO));
            rest.writes.is_empty() && rest.compactions.is_empty()
        } {}
    }
}
