//! Event as `events.k8s.io/v1` has it: core's events under other names, with stricter rules.

use crate::checks;
use crate::core::event as core;
use crate::resource::{Column, Context, Info, Resource};
use canopus_api::{Errors, Field, Time, Value};

pub struct Event;

static INFO: Info = Info {
    singular: "event",
    short_names: &["ev"],
    selectable_fields: &[
        "reason",
        "regarding.apiVersion",
        "regarding.fieldPath",
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.resourceVersion",
        "regarding.uid",
        "reportingController",
        "type",
    ],
    create_on_update: true,
    storage: Some(core::STORAGE),
    ..Info::stored("events.k8s.io", "v1", "Event", "events")
};

/// What core calls a field, and what this version does.
const RENAMED: &[(&str, &str)] = &[
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

/// Selectable fields here, and in core. They are looked up in storage.
const FIELDS: &[(&str, &str)] = &[
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.uid", "involvedObject.uid"),
    ("reportingController", "reportingComponent"),
];

/// Turns a `v1` event into an `events.k8s.io/v1` one.
pub fn from_core(event: &mut Value) {
    event.set("apiVersion", "events.k8s.io/v1");
    for (core, here) in RENAMED {
        rename(event, core, here);
    }
}

/// Turns an `events.k8s.io/v1` event into a `v1` one.
pub fn to_core(event: &mut Value) {
    event.set("apiVersion", "v1");
    for (core, here) in RENAMED {
        rename(event, here, core);
    }
}

fn rename(event: &mut Value, from: &str, to: &str) {
    if let Some(value) = event.remove(from) {
        event.set(to, value);
    }
}

fn in_core(event: &Value) -> Value {
    let mut event = event.clone();
    to_core(&mut event);
    event
}

impl Resource for Event {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn convert_from_storage(&self, object: &mut Value) {
        from_core(object);
    }

    fn convert_to_storage(&self, object: &mut Value) {
        to_core(object);
    }

    fn field_in_storage<'a>(&self, name: &'a str) -> &'a str {
        FIELDS.iter().find(|(here, _)| *here == name).map_or(name, |(_, core)| core)
    }

    /// As upstream, errors speak of core's fields.
    fn validate(&self, object: &Field, errors: &mut Errors) {
        let event = in_core(object.value);
        let root = Field::root(&event);
        core::validate(&root, "reportingController", errors);
        series(&root, errors);
        checks::required(&root.at("eventTime"), errors);
        let (kind, empty) = (root.at("type"), "".into());
        if !matches!(kind.str(), "Normal" | "Warning") {
            errors.invalid(&kind.with(&empty), format!("has invalid value: {}", kind.str()));
        }
        let source = &event["source"];
        let sourced = !source["component"].is_empty() || !source["host"].is_empty();
        let old_ways = ["firstTimestamp", "lastTimestamp", "count"].map(|key| (key, !event[key].is_empty()));
        for (key, _) in old_ways.into_iter().chain([("source", sourced)]).filter(|(_, set)| *set) {
            errors.invalid(&root.at(key).with(&empty), "needs to be unset");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        let (event, old) = (in_core(new.value), in_core(old));
        let root = Field::root(&event);
        core::validate(&root, "reportingController", errors);
        if event["series"] != old["series"] {
            series(&root, errors);
        }
        const SAME: &[&str] = &[
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "action",
            "related",
            "reportingInstance",
        ];
        for key in SAME {
            // An empty field and a missing one are the same.
            if !(event[*key].is_empty() && old[*key].is_empty()) {
                checks::immutable(&root.at(key), &old[*key], errors);
            }
        }
        let reporter = root.at("reportingController");
        checks::immutable(&reporter.with(&event["reportingComponent"]), &old["reportingComponent"], errors);
        if Time::parse(event["eventTime"].str()) != Time::parse(old["eventTime"].str()) {
            errors.invalid(&root.at("eventTime"), checks::IMMUTABLE);
        }
    }

    fn columns(&self) -> &'static [Column] {
        core::COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        core::row(&in_core(object), now)
    }
}

fn series(event: &Field, errors: &mut Errors) {
    let series = event.at("series");
    if series.is_unset() {
        return;
    }
    let count = series.at("count");
    if count.int() < 2 {
        errors.invalid(&count.with(&"".into()), "should be at least 2");
    }
    checks::required(&series.at("lastObservedTime"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn event() -> Value {
        value!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "a"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "p", "namespace": "a"},
            "note": "done", "reason": "Pulled", "action": "Pull", "type": "Normal",
            "reportingController": "kubelet", "reportingInstance": "n"})
    }

    #[test]
    fn to_storage_and_back() {
        let mut all = event();
        for (_, here) in RENAMED {
            all.set(here, value!({"x": (*here)}));
        }
        let mut stored = all.clone();
        Event.convert_to_storage(&mut stored);
        assert_eq!(stored["apiVersion"].str(), "v1");
        assert_eq!(stored["involvedObject"]["x"].str(), "regarding");
        assert!(RENAMED.iter().all(|(_, here)| stored.get(here).is_none()));
        Event.convert_from_storage(&mut stored);
        assert_eq!(stored, all);
    }

    #[test]
    fn selectable_fields_are_known_to_storage() {
        let storage = crate::find(core::STORAGE.0, core::STORAGE.1, core::STORAGE.2).unwrap().info();
        for field in INFO.selectable_fields {
            assert!(storage.selectable_fields.contains(&Event.field_in_storage(field)), "{field}");
        }
    }

    #[test]
    fn creating_is_stricter_than_in_core() {
        assert_eq!(create(&Event, event()), Vec::<String>::new());
        let mut bad = event();
        bad.set("type", "Odd");
        bad.set("deprecatedCount", 1);
        bad.set("series", value!({"count": 1}));
        bad.set("reportingController", "");
        assert_eq!(
            create(&Event, bad)[2..],
            [
                "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
    }

    #[test]
    fn only_the_series_and_metadata_change() {
        let mut new = event();
        new.set("series", value!({"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}));
        assert_eq!(update(&Event, "", event(), new.clone()), Vec::<String>::new());
        new.set("note", "other");
        new.set("eventTime", "2026-01-01T00:00:00.000001Z");
        assert_eq!(
            update(&Event, "", event(), new.clone()),
            [
                "message: Invalid value: \"other\": field is immutable",
                "eventTime: Invalid value: \"2026-01-01T00:00:00.000001Z\": field is immutable",
            ]
        );
        assert_eq!(cells(&Event, &new)[3], "pod/p");
    }
}
