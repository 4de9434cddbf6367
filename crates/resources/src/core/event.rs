//! Event: what happened to an object. Served as `v1` and as `events.k8s.io/v1`, stored as `v1`.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, since};
use canopus_api::{Errors, Facts, Field, Time, Value, names};

pub struct Event;

/// Where events are stored, whichever version they come in.
pub const STORAGE: (&str, &str, &str) = ("", "v1", "events");

static INFO: Info = Info {
    singular: "event",
    short_names: &["ev"],
    selectable_fields: &[
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    name: names::path_segment,
    create_on_update: true,
    ..Info::stored("", "v1", "Event", "events")
};

const MAX_TEXT: usize = 128;
const MAX_NOTE: usize = 1024;

impl Resource for Event {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate(object, "reportingComponent", errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
    }

    fn facts(&self, object: &Value) -> Facts {
        let mut facts = Facts::extract(object, INFO.selectable_fields);
        if let Some((_, source)) = facts.fields.iter_mut().find(|(name, _)| *name == "source") {
            *source = first(&object["source"]["component"], &object["reportingComponent"]).into();
        }
        facts
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        row(object, now)
    }
}

/// What holds for events of every version (`object` is in core's): a new one has an eventTime, an old one hasn't.
/// `controller` is what the version calls reportingComponent.
pub fn validate(object: &Field, controller: &str, errors: &mut Errors) {
    let (meta, involved) = (object.at("metadata"), object.at("involvedObject"));
    let (namespace, about) = (meta.value["namespace"].str(), involved.at("namespace"));
    let timed = Time::parse(object.value["eventTime"].str()).is_some();
    let good = match about.str() {
        "" if timed => matches!(namespace, "default" | "kube-system"),
        "" => matches!(namespace, "" | "default"),
        other => timed || other == namespace,
    };
    if !good {
        errors.invalid(&about.with(&about.str().into()), "does not match event.namespace");
    }
    if timed {
        let reporter = object.at(controller);
        let value: Value = object.value["reportingComponent"].str().into();
        let reporter = reporter.with(&value);
        checks::required(&reporter, errors);
        checks::check(&reporter, names::qualified_name, errors);
        for key in ["reportingInstance", "action", "reason"] {
            checks::required(&object.at(key), errors);
            at_most(&object.at(key), MAX_TEXT, errors);
        }
        at_most(&object.at("message"), MAX_NOTE, errors);
    }
    let field = object.at("namespace");
    checks::check(&field.with(&namespace.into()), names::dns1123_subdomain, errors);
}

fn at_most(field: &Field, max: usize, errors: &mut Errors) {
    if field.str().len() > max {
        errors.invalid(&field.with(&"".into()), format!("can have at most {max} characters"));
    }
}

fn first<'a>(a: &'a Value, b: &'a Value) -> &'a str {
    if a.is_empty() { b.str() } else { a.str() }
}

pub const COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "The time at which the most recent occurrence of this event was recorded."),
    Column::new("Type", "string", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column::new("Reason", "string", "Why the object came into its current status, for machines."),
    Column::new("Object", "string", "The object that this event is about."),
    Column::wide("Subobject", "string", "The part of the object that this event is about."),
    Column::wide("Source", "string", "The component reporting this event."),
    Column::new("Message", "string", "A human-readable description of the status of this operation."),
    Column::wide("First Seen", "string", "The time at which the event was first recorded."),
    Column::wide("Count", "string", "The number of times this event has occurred."),
    Column { priority: 1, ..Column::NAME },
];

/// The cells of an event in core's form.
pub fn row(event: &Value, now: Time) -> Vec<Value> {
    let first_seen = since(first(&event["firstTimestamp"], &event["eventTime"]), now);
    let mut last_seen =
        if event["lastTimestamp"].is_empty() { first_seen.clone() } else { since(event["lastTimestamp"].str(), now) };
    let mut count = event["count"].int().max(1);
    if let Some(series) = event.get("series").filter(|s| !s.is_null()) {
        last_seen = since(series["lastObservedTime"].str(), now);
        count = series["count"].int();
    }
    let about = &event["involvedObject"];
    let kind = about["kind"].str().to_lowercase();
    let object = if about["name"].is_empty() { kind } else { format!("{kind}/{}", about["name"].str()) };
    let mut source = first(&event["source"]["component"], &event["reportingComponent"]).to_string();
    let instance = first(&event["source"]["host"], &event["reportingInstance"]);
    if !instance.is_empty() {
        source = format!("{source}, {instance}");
    }
    vec![
        last_seen,
        event["type"].str().into(),
        event["reason"].str().into(),
        object.into(),
        about["fieldPath"].str().into(),
        source.into(),
        event["message"].str().trim().into(),
        first_seen,
        count.into(),
        event["metadata"]["name"].str().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create};
    use canopus_api::value;

    #[test]
    fn old_and_new_events() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}}), &[]),
            (value!({"metadata": {"namespace": "default"}, "involvedObject": {}}), &[]),
            (
                value!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
                &["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
            ),
            (
                value!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
                    "reportingComponent": "x.y/z", "reportingInstance": "i", "action": "a"}),
                &["reason: Required value"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&Event, object.clone()), *expected, "{object:?}");
        }
    }

    #[test]
    fn the_source_is_selectable_whoever_reports() {
        let cases = [
            (value!({"source": {"component": "kubelet"}, "reportingComponent": "x"}), "kubelet"),
            (value!({"source": {}, "reportingComponent": "x"}), "x"),
        ];
        for (event, source) in cases {
            assert_eq!(Event.facts(&event).field("source"), Some(source));
        }
    }

    #[test]
    fn rows() {
        let event = value!({"metadata": {"name": "p.1"}, "type": "Normal", "reason": "Pulled", "message": "done\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2025-12-31T23:00:00Z", "lastTimestamp": "2025-12-31T23:59:30Z"});
        let expected =
            ["30s", "Normal", "Pulled", "pod/p", "spec.containers{c}", "kubelet, n", "done", "60m", "3", "p.1"];
        assert_eq!(cells(&Event, &event), expected);
        let event = value!({"eventTime": "2025-12-31T23:59:00Z", "series": {"count": 7, "lastObservedTime": "2025-12-31T23:59:50Z"}});
        assert_eq!(cells(&Event, &event)[..2], ["10s", ""]);
        assert_eq!(cells(&Event, &event)[7..9], ["60s", "7"]);
    }
}
