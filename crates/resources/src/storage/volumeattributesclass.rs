//! VolumeAttributesClass: what of a volume can be changed while it is used (KEP-3751).

use super::storageclass::{parameters, provisioner};
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct VolumeAttributesClass;

static INFO: Info = Info {
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    ..Info::stored("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
};

impl Resource for VolumeAttributesClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        provisioner(&object.at("driverName"), errors);
        let settings = object.at("parameters");
        parameters(&settings, errors);
        if settings.value.is_empty() {
            errors.required(&settings, "must contain at least one key/value pair");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        for field in ["driverName", "parameters"] {
            if new.value[field] != old[field] {
                errors.forbidden(&new.at(field), format!("updates to {field} are forbidden."));
            }
        }
        self.validate(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("DriverName", "string", "Name of the CSI driver"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["driverName"].str().into(), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create, update};
    use canopus_api::value;

    #[test]
    fn classes_do_not_change() {
        let class = |driver: &str, speed: &str| value!({"driverName": driver, "parameters": {"iops": speed}});
        assert!(create(&VolumeAttributesClass, class("a.b", "1")).is_empty());
        assert_eq!(
            create(&VolumeAttributesClass, value!({})),
            ["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"]
        );
        assert_eq!(
            update(&VolumeAttributesClass, "", class("a.b", "1"), class("a.c", "2")),
            [
                "driverName: Forbidden: updates to driverName are forbidden.",
                "parameters: Forbidden: updates to parameters are forbidden.",
            ]
        );
    }
}
