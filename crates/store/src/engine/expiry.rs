//! When keys expire.

use crate::log::Record;
use crate::{Revision, Version};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The timer is armed for the end of the step in which the next key expires, so that many keys cost few wake-ups. As
/// fine as etcd's.
const STEP_MS: u64 = 500;

/// At most this many keys expire in one commit group.
const PER_GROUP: usize = 512;

#[derive(Default)]
pub(crate) struct Expiry {
    keys: BTreeMap<(u64, Revision), Arc<str>>,
}

impl Expiry {
    /// Takes note of a write.
    pub(crate) fn apply(&mut self, record: &Record, previous: Option<&Version>) {
        if let Some(previous) = previous
            && let Some(at) = previous.expires_at
        {
            self.keys.remove(&(at, previous.mod_revision));
        }
        if let Some(at) = record.version.as_ref().and_then(|version| version.expires_at) {
            self.keys.insert((at, record.revision), record.key.clone());
        }
    }

    /// The keys that have expired, with the revision of the write that said so; at most a group's share.
    pub(crate) fn due(&self, now: u64) -> impl Iterator<Item = (Revision, &Arc<str>)> {
        self.keys.range(..=(now, Revision::MAX)).map(|((_, revision), key)| (*revision, key)).take(PER_GROUP)
    }

    /// When the next key expires.
    pub(crate) fn next(&self) -> Option<u64> {
        self.keys.keys().next().map(|(at, _)| *at)
    }

    /// When to wake up for it.
    pub(crate) fn wake(&self) -> Option<u64> {
        self.next().map(|at| at.div_ceil(STEP_MS).saturating_mul(STEP_MS).max(at))
    }
}
