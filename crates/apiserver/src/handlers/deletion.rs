//! What a deletion does to an object: grace, finalizers, propagation (upstream `rest.BeforeDelete` and what `Store.Delete`
//! makes of it). Pure.

use canopus_api::api::Propagation;
use canopus_api::{DeleteOptions, Time, Value, labels};
use canopus_resources::{InfoOf, Resource};
use std::time::Duration;

#[derive(Debug, PartialEq)]
pub enum Plan {
    /// Its grace is running already, or it waits for its finalizers: nothing changes.
    Pending,
    /// It stays, marked: until its grace is over and its finalizers are gone.
    Mark(Value),
    /// It goes now; this is its last state.
    Delete(Value),
}

pub fn plan(resource: &dyn Resource, before: &Value, options: &DeleteOptions, now: Time) -> Plan {
    let deleting = !before["metadata"]["deletionTimestamp"].is_null();
    let mut object = before.clone();
    if !deleting {
        resource.before_delete(&mut object, now);
    }
    if is(resource.info(), "namespaces") {
        if !deleting {
            set_finalizers(&mut object, options.propagation_policy);
            object.set_path(&["metadata", "deletionTimestamp"], now);
            object.set_path(&["status", "phase"], "Terminating");
            return Plan::Mark(object);
        }
        if resource.finalizing(before) {
            return Plan::Pending;
        }
    }
    // Negative grace means as little as possible.
    let requested = options.grace_period_seconds.map(|grace| if grace < 0 { 1 } else { grace });
    let grace = match resource.grace_seconds(before, requested) {
        None => None,
        Some(_) if deleting => match shortened(&mut object, requested, now) {
            Shortened::Not => return Plan::Pending,
            Shortened::Over => None,
            Shortened::To(grace) => Some(grace),
        },
        Some(grace) => {
            mark(&mut object, now.plus(Duration::from_secs(grace.unsigned_abs())), grace);
            Some(grace)
        }
    };
    let policy = options.propagation_policy.or_else(|| unsaid(resource, before));
    set_finalizers(&mut object, if is(resource.info(), "events") { Some(Propagation::Background) } else { policy });
    let held = !object["metadata"]["finalizers"].is_empty();
    match grace {
        None if held => {
            let since = Time::parse(object["metadata"]["deletionTimestamp"].str()).filter(|t| *t <= now);
            mark(&mut object, since.unwrap_or(now), 0);
            Plan::Mark(object)
        }
        None => Plan::Delete(before.clone()),
        Some(0) if !held => Plan::Delete(object),
        Some(_) => Plan::Mark(object),
    }
}

fn is(info: &InfoOf, plural: &str) -> bool {
    info.plural == plural && (info.group.is_empty() || plural == "events")
}

/// Says when the object is to be gone. What it is about changes with that, once.
fn mark(object: &mut Value, when: Time, grace: i64) {
    let meta = object.obj_mut("metadata");
    let generation = meta.get("generation").map_or(0, Value::int);
    if generation > 0 && meta.get("deletionTimestamp").is_none_or(Value::is_null) {
        meta.insert("generation", generation + 1);
    }
    meta.insert("deletionTimestamp", when);
    meta.insert("deletionGracePeriodSeconds", grace);
}

enum Shortened {
    Not,
    /// No grace is left.
    Over,
    To(i64),
}

/// A second deletion may only shorten the grace.
fn shortened(object: &mut Value, requested: Option<i64>, now: Time) -> Shortened {
    let meta = &object["metadata"];
    let left = match meta["deletionGracePeriodSeconds"].int() {
        0 => return Shortened::Over,
        negative if negative < 0 => 1,
        left => left,
    };
    let Some(grace) = requested.filter(|grace| *grace < left) else { return Shortened::Not };
    let since = Time::parse(meta["deletionTimestamp"].str()).map_or(now.unix(), |t| t.unix().saturating_sub(left));
    let end = since.saturating_add(grace);
    let (end, grace) = if end < now.unix() { (now.unix(), grace.min(1)) } else { (end, grace) };
    mark(object, Time::from_unix(end), grace);
    Shortened::To(grace)
}

/// What a deletion that says nothing does to dependents: what the object says, else what its kind does.
fn unsaid(resource: &dyn Resource, object: &Value) -> Option<Propagation> {
    let of_collector = |f: &Value| [labels::FINALIZER_ORPHAN, labels::FINALIZER_FOREGROUND].contains(&f.str());
    let said = object["metadata"]["finalizers"].items().iter().any(of_collector);
    (resource.orphans_by_default() && !said).then_some(Propagation::Orphan)
}

/// `orphan` and `foregroundDeletion` say to the garbage collector how to treat dependents. Without a policy what the
/// object says itself counts.
fn set_finalizers(object: &mut Value, policy: Option<Propagation>) {
    let Some(policy) = policy else { return };
    let wanted = match policy {
        Propagation::Orphan => Some(labels::FINALIZER_ORPHAN),
        Propagation::Foreground => Some(labels::FINALIZER_FOREGROUND),
        Propagation::Background => None,
    };
    let of_collector = |f: &str| [labels::FINALIZER_ORPHAN, labels::FINALIZER_FOREGROUND].contains(&f);
    let old = object["metadata"]["finalizers"].items();
    let mut finalizers: Vec<Value> =
        old.iter().filter(|f| !of_collector(f.str()) || Some(f.str()) == wanted).cloned().collect();
    if let Some(wanted) = wanted.filter(|w| !finalizers.iter().any(|f| f.str() == *w)) {
        finalizers.push(wanted.into());
    }
    let meta = object.obj_mut("metadata");
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers", Value::Array(finalizers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Value {
        Time::from_unix(NOW + seconds).into()
    }

    /// What becomes of an object: its metadata without the name, or nothing.
    fn check(plural: &str, object: Value, options: DeleteOptions) -> (&'static str, Value) {
        let group = if plural == "deployments" { "apps" } else { "" };
        let resource = canopus_resources::find(group, "v1", plural).unwrap();
        match plan(resource, &object, &options, Time::from_unix(NOW)) {
            Plan::Pending => ("pending", Value::Null),
            Plan::Mark(object) => ("mark", object["metadata"].clone()),
            Plan::Delete(object) => ("delete", object["metadata"].clone()),
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    fn policy(policy: Propagation) -> DeleteOptions {
        DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() }
    }

    #[test]
    fn pods_get_their_grace() {
        let usual = DeleteOptions::default;
        let pod =
            |meta: Value| value!({"metadata": meta, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let dying =
            |when: i64, grace: i64| value!({"deletionTimestamp": at(when), "deletionGracePeriodSeconds": grace});
        let cases = [
            (pod(value!({})), usual(), "mark", dying(30, 30)),
            (pod(value!({})), grace(5), "mark", dying(5, 5)),
            (pod(value!({})), grace(-9), "mark", dying(1, 1)),
            (pod(value!({})), grace(0), "delete", dying(0, 0)),
            (value!({"metadata": {}, "spec": {"terminationGracePeriodSeconds": 30}}), usual(), "delete", dying(0, 0)),
            // Already dying: only sooner. It began ten seconds ago.
            (pod(dying(20, 30)), usual(), "pending", Value::Null),
            (pod(dying(20, 30)), grace(30), "pending", Value::Null),
            (pod(dying(20, 30)), grace(15), "mark", dying(5, 15)),
            (pod(dying(20, 30)), grace(5), "mark", dying(0, 1)),
            (pod(dying(20, 30)), grace(0), "delete", dying(0, 0)),
            (pod(dying(-5, 0)), usual(), "delete", dying(-5, 0)),
        ];
        for (object, options, what, meta) in cases {
            assert_eq!(check("pods", object.clone(), options.clone()), (what, meta), "{object:?} {options:?}");
        }
        let mut held = dying(0, 0);
        held.set("finalizers", value!(["a/b"]));
        held.set("generation", 2);
        let object = pod(value!({"finalizers": ["a/b"], "generation": 1}));
        assert_eq!(check("pods", object, grace(0)), ("mark", held));
    }

    #[test]
    fn finalizers_hold_the_rest() {
        let marked = |finalizers: Value| value!({"generation": 2, "deletionTimestamp": at(0), "deletionGracePeriodSeconds": 0, "finalizers": finalizers});
        let new = |finalizers: Value| value!({"metadata": {"generation": 1, "finalizers": finalizers}});
        let cases = [
            (new(Value::Null), DeleteOptions::default(), "delete", value!({"generation": 1, "finalizers": null})),
            (new(value!(["a/b"])), DeleteOptions::default(), "mark", marked(value!(["a/b"]))),
            (new(value!(["a/b"])), policy(Propagation::Orphan), "mark", marked(value!(["a/b", "orphan"]))),
            (new(Value::Null), policy(Propagation::Foreground), "mark", marked(value!(["foregroundDeletion"]))),
            (new(value!(["orphan", "a/b"])), DeleteOptions::default(), "mark", marked(value!(["orphan", "a/b"]))),
            (
                new(value!(["orphan", "a/b"])),
                policy(Propagation::Foreground),
                "mark",
                marked(value!(["a/b", "foregroundDeletion"])),
            ),
            (
                new(value!(["orphan"])),
                policy(Propagation::Background),
                "delete",
                value!({"generation": 1, "finalizers": ["orphan"]}),
            ),
            (value!({"metadata": marked(value!(["a/b"]))}), grace(5), "mark", marked(value!(["a/b"]))),
        ];
        for (object, options, what, meta) in cases {
            assert_eq!(check("deployments", object.clone(), options.clone()), (what, meta), "{object:?} {options:?}");
        }
        let namespace = value!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(
            check("namespaces", namespace, DeleteOptions::default()),
            ("mark", value!({"deletionTimestamp": at(0)}))
        );
        let waiting = value!({"metadata": {"deletionTimestamp": at(0)}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(check("namespaces", waiting, grace(0)), ("pending", Value::Null));
        let event = value!({"metadata": {"name": "e"}});
        assert_eq!(check("events", event, policy(Propagation::Orphan)), ("delete", value!({"name": "e"})));
    }
}
