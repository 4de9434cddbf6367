//! What this process is writing, for the moment in which it comes back as an event: thanks to that, the writer's facts
//! and buffer reach the watchers.

use crate::{Facts, Revision};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Facts are a function of the bytes, so it doesn't matter whose write it is that has the same bytes.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<Arc<str>, Vec<Writing>>>);

struct Writing {
    value: Bytes,
    facts: Facts,
    /// Where it went, once that is known.
    revision: Option<Revision>,
}

impl Pending {
    pub(super) fn begin(&self, key: &Arc<str>, value: &Bytes, facts: &Facts) {
        let writing = Writing { value: value.clone(), facts: facts.clone(), revision: None };
        self.0.lock().entry(key.clone()).or_default().push(writing);
    }

    /// A write has ended: `at` a revision that is yet to come back, or nowhere.
    pub(super) fn end(&self, key: &str, value: &Bytes, at: Option<Revision>) {
        let mut all = self.0.lock();
        let Some(list) = all.get_mut(key) else { return };
        let mine = |w: &Writing| w.revision.is_none() && w.value.as_ptr() == value.as_ptr();
        if let Some(i) = list.iter().position(mine) {
            match at {
                Some(revision) => list[i].revision = Some(revision),
                None => drop(list.swap_remove(i)),
            }
        }
        if list.is_empty() {
            all.remove(key);
        }
    }

    /// The writer's own of what `value` came back as at `revision`.
    pub(super) fn take(&self, key: &str, value: &[u8], revision: Revision) -> Option<(Bytes, Facts)> {
        let mut all = self.0.lock();
        let list = all.get_mut(key)?;
        let found = list.iter().position(|w| w.value == value).map(|i| list.swap_remove(i));
        list.retain(|w| w.revision.is_none_or(|at| at > revision));
        if list.is_empty() {
            all.remove(key);
        }
        found.map(|w| (w.value, w.facts))
    }

    /// Everything up to `revision` has come, or never will.
    pub(super) fn forget(&self, revision: Revision) {
        self.0.lock().retain(|_, list| {
            list.retain(|w| w.revision.is_none_or(|at| at > revision));
            !list.is_empty()
        });
    }
}
