//! The bounded window of recent events that all watchers share.

use crate::{Event, Revision, Version};
use std::collections::VecDeque;
use std::sync::Arc;

/// What one commit group changed.
pub(crate) struct Group {
    pub(crate) events: Arc<[Event]>,
    bytes: usize,
}

impl Group {
    pub(crate) fn first(&self) -> Revision {
        self.events[0].revision
    }

    pub(crate) fn last(&self) -> Revision {
        self.events[self.events.len() - 1].revision
    }
}

/// The groups with revisions above `evicted`, numbered so that a cursor is one integer.
pub(crate) struct Window {
    groups: VecDeque<Group>,
    /// The number of the oldest group.
    start: u64,
    events: usize,
    bytes: usize,
    evicted: Revision,
    max_events: usize,
    max_bytes: usize,
}

impl Window {
    pub(crate) fn new(revision: Revision, max_events: usize, max_bytes: usize) -> Window {
        Window { groups: VecDeque::new(), start: 0, events: 0, bytes: 0, evicted: revision, max_events, max_bytes }
    }

    /// The number the next group will get.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.groups.len() as u64
    }

    /// Adds a group, which is not empty. Returns its number, and what had to go, to be dropped outside of any lock.
    pub(crate) fn push(&mut self, events: Arc<[Event]>) -> (u64, Vec<Group>) {
        let bytes = events.iter().map(weight).sum();
        let number = self.end();
        self.events += events.len();
        self.bytes += bytes;
        self.groups.push_back(Group { events, bytes });
        let mut dropped = Vec::new();
        while self.groups.len() > 1 && (self.events > self.max_events || self.bytes > self.max_bytes) {
            dropped.extend(self.evict());
        }
        (number, dropped)
    }

    /// Drops the groups that lie at or before `revision` as a whole.
    pub(crate) fn trim(&mut self, revision: Revision) -> Vec<Group> {
        let mut dropped = Vec::new();
        while self.groups.front().is_some_and(|group| group.last() <= revision) {
            dropped.extend(self.evict());
        }
        dropped
    }

    /// Nothing up to `revision` can be had. Returns the number of what was lost, and what has to go.
    pub(crate) fn lose(&mut self, revision: Revision) -> (u64, Vec<Group>) {
        let dropped = std::mem::take(&mut self.groups).into();
        let lost = self.start + Vec::len(&dropped) as u64;
        (self.start, self.events, self.bytes) = (lost + 1, 0, 0);
        self.evicted = self.evicted.max(revision);
        (lost, dropped)
    }

    fn evict(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.start += 1;
        self.events -= group.events.len();
        self.bytes -= group.bytes;
        self.evicted = group.last();
        Some(group)
    }

    /// Whether every event from `revision` on is here, or yet to come.
    pub(crate) fn reaches(&self, revision: Revision) -> bool {
        revision > self.evicted
    }

    /// The number of the first group with an event at or after `revision`.
    pub(crate) fn number(&self, revision: Revision) -> u64 {
        self.start + self.groups.partition_point(|group| group.last() < revision) as u64
    }

    /// Group `number`; `None` if it has been evicted or is yet to come.
    pub(crate) fn get(&self, number: u64) -> Option<&Group> {
        self.groups.get(usize::try_from(number.checked_sub(self.start)?).ok()?)
    }

    /// The version written at `revision`, if that is in the window.
    pub(crate) fn version(&self, revision: Revision) -> Option<&Arc<Version>> {
        let group = self.get(self.number(revision))?;
        // Each write has a revision of its own, so a group is contiguous.
        let i = usize::try_from(revision.checked_sub(group.first())?).ok()?;
        group.events.get(i)?.version.as_ref()
    }
}

/// About how much memory an event keeps from being freed.
fn weight(event: &Event) -> usize {
    let value = |version: &Option<Arc<Version>>| version.as_ref().map_or(0, |version| version.value.len() + 150);
    value(&event.version) + value(&event.previous) + 60
}
