//! ControllerRevision: what a controller's template was once, for its owner to go back to. Its data never changes.

use crate::checks::{self, IMMUTABLE};
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct ControllerRevision;

static INFO: Info =
    Info { singular: "controllerrevision", ..Info::stored("apps", "v1", "ControllerRevision", "controllerrevisions") };

impl Resource for ControllerRevision {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        object.set_default("revision", 0);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let data = object.at("data");
        checks::nonnegative(&object.at("revision"), errors);
        if data.is_unset() {
            errors.required(&data, "data is mandatory");
        } else if data.value.as_object().is_none() {
            errors.required(&data, "data must be a valid JSON object");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        checks::nonnegative(&new.at("revision"), errors);
        if new.value["data"] != old["data"] {
            errors.invalid(&new.at("data"), IMMUTABLE);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Controller", "string", "Controller of the object"),
                Column::new("Revision", "string", "Revision indicates the revision of the state represented by Data."),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), controller(object).into(), object["revision"].int().into(), age(object, now)]
    }
}

/// `statefulset.apps/web`, or `<none>`.
fn controller(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].items();
    let Some(owner) = owners.iter().find(|owner| owner["controller"].bool()) else { return "<none>".into() };
    let kind = owner["kind"].str().to_lowercase();
    let group = owner["apiVersion"].str().split_once('/').map(|(group, _)| format!(".{group}"));
    format!("{kind}{}/{}", group.unwrap_or_default(), owner["name"].str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn data_is_an_object_and_stays() {
        let cases = [
            (value!({"data": {"a": 1}}), vec![]),
            (
                value!({"revision": (-1)}),
                vec![
                    "revision: Invalid value: -1: must be greater than or equal to 0",
                    "data: Required value: data is mandatory",
                ],
            ),
            (value!({"data": "x"}), vec!["data: Required value: data must be a valid JSON object"]),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&ControllerRevision, object), expected);
        }
        let changed =
            update(&ControllerRevision, "", value!({"data": {"a": 1}}), value!({"data": {"a": 2}, "revision": 2}));
        assert_eq!(changed, [r#"data: Invalid value: {"a":2}: field is immutable"#]);
    }

    #[test]
    fn rows() {
        let owned = value!({"revision": 2, "metadata": {"name": "r",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}});
        assert_eq!(cells(&ControllerRevision, &owned), ["r", "statefulset.apps/web", "2", "<unknown>"]);
        assert_eq!(cells(&ControllerRevision, &value!({}))[1], "<none>");
    }
}
