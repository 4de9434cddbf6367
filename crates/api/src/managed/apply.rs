//! Server-side apply (KEP-555).

use super::delta::{Delta, same};
use super::entry::{self, Entry, Operation};
use super::merge::merge;
use super::set::Set;
use super::typed::{field_set, join_errors, nonconformities, with_named_parents, without};
use super::update::{FieldManager, strip};
use crate::api::Gvk;
use crate::json;
use crate::schema::{Schema, zero};
use crate::status::{Result, Status};
use crate::value::Value;
use compact_str::CompactString;

/// kubectl's record of what it applied last on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations may not be larger than this in sum.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// One field that somebody else owns and this apply would change.
#[derive(Clone, Debug, PartialEq)]
struct Conflict {
    /// `"kubectl" using apps/v1`
    with: String,
    path: String,
}

enum Failure {
    Conflicts(Vec<(Entry, Set)>),
    Other(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Other(status)
    }
}

/// An error of the server's own making as upstream returns it: 500 without a reason.
fn plain(message: String) -> Status {
    Status::new(500, "", message)
}

/// What an apply made: the merged object, not yet defaulted, and everybody's fields.
struct Applied {
    object: Value,
    entries: Vec<Entry>,
}

impl FieldManager<'_> {
    /// Applies `config` to `live` (None: create) as `self.manager`, taking others' fields when `force` is set.
    ///
    /// The result is to be pruned, defaulted and validated. 400 for a malformed configuration, 409 for conflicts, 500
    /// (as upstream) for one that does not conform to the schema.
    pub fn apply(&self, gvk: &Gvk, live: Option<&Value>, config: &Value, force: bool) -> Result<Value> {
        self.check_config(gvk, config)?;
        let empty;
        let live = match live {
            Some(live) => live,
            None => {
                empty = self.empty_object(config);
                &empty
            }
        };
        let managed = live["metadata"]["managedFields"].clone();
        let mut entries =
            entry::decode(managed, true).map_err(|e| plain(format!("failed to decode managed fields: {e}")))?;
        if entries.is_empty() {
            let mut bare = live.clone();
            bare.remove_path(&["metadata", "managedFields"]);
            let start = self.empty_object(config);
            self.update_entries(Some(&start), &bare, &mut entries, "before-first-apply");
        }
        let mut applied = match self.apply_upgrading(live, config, entries, force) {
            Ok(applied) => applied,
            Err(Failure::Other(status)) => return Err(status),
            Err(Failure::Conflicts(conflicts)) => return Err(conflict_status(&conflicts)),
        };
        if self.manager == "kubectl" {
            refresh_last_applied(&mut applied.object, config);
        }
        entry::store(applied.entries, &mut applied.object);
        Ok(applied.object)
    }

    fn check_config(&self, gvk: &Gvk, config: &Value) -> Result<()> {
        let found = Gvk::of(config);
        if found != *gvk {
            return Err(Status::bad_request(format!("invalid object type: {found}")));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let errors = nonconformities(self.ty, config, false);
        if errors.is_empty() {
            return Ok(());
        }
        let name = |field: &str| config["metadata"][field].str().to_string();
        Err(plain(format!(
            "failed to create typed patch object ({}/{}; {found}): {}",
            name("namespace"),
            name("name"),
            join_errors(&errors)
        )))
    }

    fn empty_object(&self, config: &Value) -> Value {
        let mut out = zero(self.ty);
        for name in ["apiVersion", "kind"] {
            out.set(name, config[name].clone());
        }
        out
    }

    /// Applies; kubectl's conflicts with what it applied from the client's side before don't count.
    fn apply_upgrading(
        &self,
        live: &Value,
        config: &Value,
        entries: Vec<Entry>,
        force: bool,
    ) -> std::result::Result<Applied, Failure> {
        let kept = (self.manager == "kubectl" && !force).then(|| entries.clone());
        let conflicts = match (self.apply_once(live, config, entries, force), &kept) {
            (Err(Failure::Conflicts(conflicts)), Some(_)) => conflicts,
            (other, _) => return other,
        };
        let Some(allowed) = self.fields_last_applied(live) else {
            return Err(Failure::Conflicts(conflicts));
        };
        let left: Vec<(Entry, Set)> = conflicts
            .into_iter()
            .map(|(entry, mut set)| {
                set.subtract(&allowed);
                (entry, set)
            })
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if left.is_empty() {
            self.apply_once(live, config, kept.unwrap_or_default(), true)
        } else {
            Err(Failure::Conflicts(left))
        }
    }

    /// The fields of the last client-side apply that still have the values it gave them.
    fn fields_last_applied(&self, live: &Value) -> Option<Set> {
        let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
        let last = json::parse(last.as_bytes()).ok()?;
        if last["apiVersion"].str() != self.api_version || !nonconformities(self.ty, &last, false).is_empty() {
            return None;
        }
        let mut set = field_set(self.ty, &last);
        let delta = Delta::between(self.ty, &last, live);
        for changed in [&delta.modified, &delta.added, &delta.removed] {
            set.subtract(changed);
        }
        Some(set)
    }

    fn apply_once(
        &self,
        live: &Value,
        config: &Value,
        mut entries: Vec<Entry>,
        force: bool,
    ) -> std::result::Result<Applied, Failure> {
        let merged = merge(self.ty, live, config).map_err(|e| plain(format!("failed to merge config: {e}")))?;
        let mut owned = field_set(self.ty, config);
        self.reset.filter(&mut owned);
        let mut mine = Entry { set: owned, ..self.entry(self.manager, Operation::Apply) };
        let last = entries.iter().position(|e| e.same_manager(&mine)).map(|at| entries.remove(at));
        let object = match &last {
            Some(last) if !last.set.is_empty() => self.prune(merged, last, &mine, &entries)?,
            _ => merged,
        };
        let delta = Delta::between(self.ty, live, &object).without(self.reset);
        if !force {
            let conflicts = self.conflicts(live, &object, &delta, &entries);
            if !conflicts.is_empty() {
                return Err(Failure::Conflicts(conflicts));
            }
        }
        self.take(live, &object, delta, &mut entries);
        // A configuration that changes nothing keeps the time of the one before.
        mine.time = if same(live, &object) { last.and_then(|last| last.time) } else { Some(self.now) };
        strip(&mut mine.set);
        if !mine.set.is_empty() {
            entries.push(mine);
        }
        Ok(Applied { object, entries })
    }

    fn conflicts(&self, live: &Value, object: &Value, delta: &Delta, entries: &[Entry]) -> Vec<(Entry, Set)> {
        let copy = Delta { added: delta.added.clone(), modified: delta.modified.clone(), removed: Set::new() };
        let mut deltas = vec![(CompactString::from(self.api_version), Some(copy))];
        let mut out = Vec::new();
        for entry in entries {
            let Some(delta) = self.delta_for(live, object, &entry.api_version, &mut deltas) else { continue };
            let conflict = entry.set.intersection(&delta.written());
            if !conflict.is_empty() {
                out.push((entry.clone(), conflict));
            }
        }
        out.sort_by(|(a, _), (b, _)| a.by_identity(b));
        out
    }

    /// Removes what this manager applied last time and not this time, unless somebody else owns it.
    fn prune(&self, merged: Value, last: &Entry, mine: &Entry, others: &[Entry]) -> Result<Value> {
        let Some((at_last, ty)) = self.at_version(&merged, &last.api_version) else { return Ok(merged) };
        let pruned = without(ty, &at_last, &with_named_parents(ty, &last.set));
        let pruned = self.add_back_owned((&at_last, ty), pruned, last, mine, others);
        let pruned = add_back_dangling(ty, &at_last, &pruned, &last.set);
        if last.api_version == self.api_version {
            return Ok(pruned);
        }
        let back = self.versions.convert(&pruned, self.api_version);
        back.map(|(object, _)| object)
            .ok_or_else(|| plain(format!("failed to prune fields: no version {}", self.api_version)))
    }

    fn at_version(&self, object: &Value, api_version: &str) -> Option<(Value, Schema<'_>)> {
        if api_version == self.api_version {
            return Some((object.clone(), self.ty));
        }
        self.versions.convert(object, api_version)
    }

    /// Puts back what pruning removed and any manager (this one's new configuration too) owns. Works in the version
    /// of the last apply; the sets of other versions are compared in theirs.
    fn add_back_owned(
        &self,
        (merged, ty): (&Value, Schema<'_>),
        pruned: Value,
        last: &Entry,
        mine: &Entry,
        others: &[Entry],
    ) -> Value {
        let mut versions: Vec<(CompactString, Set)> = vec![(last.api_version.clone(), Set::new())];
        for entry in others.iter().chain([mine]) {
            match versions.iter_mut().find(|(version, _)| *version == entry.api_version) {
                Some((_, set)) => set.add(&entry.set),
                None => versions.push((entry.api_version.clone(), entry.set.clone())),
            }
        }
        let mut now = (merged.clone(), pruned, ty, last.api_version.clone());
        for (version, managed) in versions {
            if version != now.3 {
                let both = self.versions.convert(&now.0, &version).zip(self.versions.convert(&now.1, &version));
                let Some(((merged, ty), (pruned, _))) = both else { continue };
                now = (merged, pruned, ty, version);
            }
            let (merged, pruned, ty) = (&now.0, &now.1, now.2);
            let mut gone = with_named_parents(ty, &field_set(ty, merged));
            gone.subtract(&with_named_parents(ty, &field_set(ty, pruned)));
            gone.subtract(&with_named_parents(ty, &managed));
            now.1 = without(ty, merged, &gone);
        }
        if now.3 == last.api_version {
            return now.1;
        }
        self.versions.convert(&now.1, &last.api_version).map_or(now.1, |(object, _)| object)
    }
}

/// Puts back what pruning removed although the manager never owned it.
fn add_back_dangling(ty: Schema<'_>, merged: &Value, pruned: &Value, last: &Set) -> Value {
    let mut gone = with_named_parents(ty, &field_set(ty, merged));
    gone.subtract(&with_named_parents(ty, &field_set(ty, pruned)));
    without(ty, merged, &gone.intersection(&with_named_parents(ty, last)))
}

/// kubectl's server-side apply keeps the annotation of its client-side apply up to date, where there is one.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    if object["metadata"]["annotations"][LAST_APPLIED].str().is_empty() {
        return;
    }
    let mut config = config.clone();
    config.remove_path(&["metadata", "annotations", LAST_APPLIED]);
    if config["metadata"]["annotations"].as_object().is_some_and(crate::value::Map::is_empty) {
        config.remove_path(&["metadata", "annotations"]);
    }
    let text = json::to_string(&config) + "\n";
    let annotations = object.obj_mut("metadata").entry("annotations", Value::object).ensure_object();
    annotations.insert(LAST_APPLIED, text);
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.str().len()).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

fn describe(entry: &Entry) -> String {
    let mut out = format!("{:?}", entry.manager.as_str());
    if !entry.subresource.is_empty() {
        out += &format!(" with subresource {:?}", entry.subresource.as_str());
    }
    if entry.operation == Operation::Update {
        out += &format!(" using {}", entry.api_version);
    }
    out
}

/// Upstream's 409 for fields that others own.
fn conflict_status(conflicts: &[(Entry, Set)]) -> Status {
    let of = |(entry, set): &(Entry, Set)| {
        let with = describe(entry);
        set.paths().into_iter().map(move |path| Conflict { with: with.clone(), path }).collect::<Vec<_>>()
    };
    let all: Vec<Conflict> = conflicts.iter().flat_map(of).collect();
    let message = match all.as_slice() {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.with, one.path),
        _ => {
            let mut lines: Vec<String> = Vec::new();
            let mut last = "";
            for conflict in &all {
                if conflict.with != last {
                    lines.push(format!("conflicts with {}:", conflict.with));
                    last = &conflict.with;
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    let status = Status::new(409, "Conflict", message);
    all.iter().fold(status, |status, conflict| {
        status.with_cause("FieldManagerConflict", format!("conflict with {}", conflict.with), &conflict.path)
    })
}
