//! Ownership after a create, an update or a patch that is not an apply.

use super::delta::Delta;
use super::entry::{self, Entry, Operation};
use super::reset::Reset;
use super::set::Set;
use super::shapes;
use crate::schema::{Schema, zero};
use crate::time::Time;
use crate::value::Value;
use compact_str::CompactString;
use std::sync::LazyLock;

/// More entries of updates than this are merged into one, the oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;

/// How the other versions of a kind look, for managers that wrote in them.
pub trait Versions {
    /// `object` as `api_version` has it and that version's type; None when there is no such version (any more):
    /// what its managers own is forgotten.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, Schema<'_>)>;
}

/// A kind with one version only.
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert(&self, _: &Value, _: &str) -> Option<(Value, Schema<'_>)> {
        None
    }
}

/// Who writes what, in which version, and when.
pub struct FieldManager<'a> {
    pub ty: Schema<'a>,
    /// Of the request: `apps/v1`.
    pub api_version: &'a str,
    /// The fieldManager, or the start of the user agent. "" is "unknown".
    pub manager: &'a str,
    pub subresource: &'a str,
    /// Fields that a write of this (sub)resource never owns.
    pub reset: Reset<'a>,
    pub versions: &'a dyn Versions,
    pub now: Time,
}

/// What nobody owns.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    let mut out = Set::new();
    let names = ["name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation"];
    for name in ["apiVersion", "kind", "metadata"] {
        out.insert(&[super::set::field(name)]);
    }
    for name in names.into_iter().chain(["managedFields", "resourceVersion"]) {
        out.insert(&[super::set::field("metadata"), super::set::field(name)]);
    }
    out
});

impl FieldManager<'_> {
    /// Sets `new`'s managedFields, given what it replaces (None on create). `new` must be pruned and defaulted.
    ///
    /// A client may send managedFields of its own, or `[]` to have none any more; those that don't parse are ignored.
    pub fn update(&self, old: Option<&Value>, new: &mut Value) {
        let sent = new.get_mut("metadata").and_then(|m| m.remove("managedFields"));
        let mut entries = self.current_entries(old, sent);
        if entries.is_empty() && old.is_some_and(|old| !old["metadata"]["uid"].is_empty()) {
            return;
        }
        self.update_entries(old, new, &mut entries, self.manager);
        entry::store(entries, new);
    }

    fn current_entries(&self, old: Option<&Value>, sent: Option<Value>) -> Vec<Entry> {
        let live = old.map_or(&Value::Null, |old| &old["metadata"]["managedFields"]);
        if self.subresource.is_empty()
            && let Some(sent) = sent
        {
            if entry::is_reset(&sent) {
                return Vec::new();
            }
            let trusted = sent == *live;
            match entry::decode(sent, trusted) {
                Ok(entries) if !entries.is_empty() => return entries,
                _ => {}
            }
        } else if let Some(sent) = sent.filter(|sent| sent == live) {
            return entry::decode(sent, true).unwrap_or_default();
        }
        entry::decode(live.clone(), true).unwrap_or_default()
    }

    /// Gives what changed from `old` to `new` to `manager` and takes it from the others.
    pub(super) fn update_entries(&self, old: Option<&Value>, new: &Value, entries: &mut Vec<Entry>, manager: &str) {
        let written = match old {
            None if entries.is_empty() => shapes::remembered(self.ty, self.reset, new, || {
                let mut all = Delta::between(self.ty, &zero(self.ty), new).without(self.reset).written();
                all.subtract(&STRIPPED);
                all
            }),
            _ => {
                let empty = if old.is_none() { zero(self.ty) } else { Value::Null };
                let old = old.unwrap_or(&empty);
                let delta = Delta::between(self.ty, old, new).without(self.reset);
                let mut written = delta.written();
                self.take(old, new, delta, entries);
                written.subtract(&STRIPPED);
                written
            }
        };
        if !written.is_empty() {
            let entry = Entry { set: written, time: Some(self.now), ..self.entry(manager, Operation::Update) };
            match entries.iter_mut().find(|e| e.same_manager(&entry)) {
                Some(previous) => {
                    previous.set.add(&entry.set);
                    previous.time = entry.time;
                }
                None => entries.push(entry),
            }
        }
        cap(entries);
    }

    /// An empty entry of a manager of this request.
    pub(super) fn entry(&self, manager: &str, operation: Operation) -> Entry {
        Entry {
            manager: if manager.is_empty() { "unknown".into() } else { manager.into() },
            operation,
            api_version: self.api_version.into(),
            subresource: self.subresource.into(),
            time: None,
            set: Set::new(),
        }
    }

    /// Takes what `delta` says was written or removed from everybody.
    pub(super) fn take(&self, old: &Value, new: &Value, delta: Delta, entries: &mut Vec<Entry>) {
        let mut deltas = vec![(CompactString::from(self.api_version), Some(delta))];
        for entry in entries.iter_mut() {
            match self.delta_for(old, new, &entry.api_version, &mut deltas) {
                None => entry.set = Set::new(),
                Some(delta) => {
                    for set in [&delta.added, &delta.modified, &delta.removed] {
                        if entry.set.overlaps(set) {
                            entry.set.subtract(set);
                        }
                    }
                }
            }
        }
        entries.retain(|e| !e.set.is_empty());
    }

    /// The changes as another version sees them; None when that version is gone.
    pub(super) fn delta_for<'d>(
        &self,
        old: &Value,
        new: &Value,
        api_version: &str,
        deltas: &'d mut Vec<(CompactString, Option<Delta>)>,
    ) -> Option<&'d Delta> {
        let at = match deltas.iter().position(|(version, _)| version == api_version) {
            Some(at) => at,
            None => {
                let both = self.versions.convert(old, api_version).zip(self.versions.convert(new, api_version));
                let delta = both.map(|((old, ty), (new, _))| Delta::between(ty, &old, &new).without(self.reset));
                deltas.push((api_version.into(), delta));
                deltas.len() - 1
            }
        };
        deltas[at].1.as_ref()
    }
}

/// Removes from a set what nobody may own.
pub(super) fn strip(set: &mut Set) {
    set.subtract(&STRIPPED);
}

/// Merges the oldest entries of updates, by version, until there are few enough.
fn cap(entries: &mut Vec<Entry>) {
    let count = |entries: &[Entry]| entries.iter().filter(|e| e.operation == Operation::Update).count();
    if count(entries) <= MAX_UPDATE_MANAGERS {
        return;
    }
    let (mut updates, mut kept): (Vec<Entry>, Vec<Entry>) =
        std::mem::take(entries).into_iter().partition(|e| e.operation == Operation::Update);
    let seconds = |e: &Entry| e.time.map_or(0, Time::unix);
    updates.sort_by(|a, b| seconds(a).cmp(&seconds(b)).then_with(|| a.by_identity(b)));
    let mut excess = updates.len() - MAX_UPDATE_MANAGERS;
    // Per version: the oldest entry, which becomes the bucket as soon as a second one joins it.
    let mut buckets: Vec<Entry> = Vec::new();
    for entry in updates {
        match buckets.iter_mut().find(|b| b.api_version == entry.api_version) {
            Some(bucket) if excess > 0 => {
                bucket.set.add(&entry.set);
                bucket.time = entry.time;
                bucket.manager = "ancient-changes".into();
                bucket.subresource = CompactString::default();
                excess -= 1;
            }
            None if excess > 0 => buckets.push(entry),
            _ => kept.push(entry),
        }
    }
    for bucket in buckets {
        match kept.iter_mut().find(|e| e.same_manager(&bucket)) {
            Some(same) => same.set.add(&bucket.set),
            None => kept.push(bucket),
        }
    }
    *entries = kept;
}

/// Puts back the old timestamps when nothing but timestamps of managedFields would change, so that the write can be
/// recognised as one that changes nothing.
pub fn keep_times_if_unchanged(old: &Value, new: &mut Value) {
    let (was, is) = (&old["metadata"]["managedFields"], &new["metadata"]["managedFields"]);
    if was == is || was.items().len() != is.items().len() || is.items().is_empty() {
        return;
    }
    let alike = |a: &Value, b: &Value, except: &str| {
        let rest = |v: &'_ Value| -> Vec<(CompactString, Value)> {
            v.entries().filter(|(k, _)| *k != except).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        rest(a) == rest(b)
    };
    if !was.items().iter().zip(is.items()).all(|(a, b)| alike(a, b, "time")) {
        return;
    }
    let equal = old.entries().filter(|(k, _)| *k != "metadata").eq(new.entries().filter(|(k, _)| *k != "metadata"))
        && alike(&old["metadata"], &new["metadata"], "managedFields");
    if equal {
        new.set_path(&["metadata", "managedFields"], was.clone());
    }
}
