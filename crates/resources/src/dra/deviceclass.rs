//! DeviceClass: a kind of device that claims can ask for, as the cluster's administrator names it.

use super::rules::{configuration, fits, selectors};
use crate::core::pod::requirements::is_extended;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct DeviceClass;

static INFO: Info = Info {
    singular: "deviceclass",
    namespaced: false,
    generation: true,
    ..Info::stored("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
};

impl Resource for DeviceClass {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        selectors(&spec.at("selectors"), errors);
        let config = spec.at("config");
        if fits(&config, 32, errors) {
            config.items().for_each(|one| configuration(&one, errors));
        }
        let extended = spec.at("extendedResourceName");
        if extended.is_set() && !is_extended(extended.str()) {
            errors.invalid(&extended, "must be a valid extended resource name");
        }
    }

    fn validate_update(&self, new: &Field, _old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::value;

    #[test]
    fn classes() {
        let class = |spec: Value| value!({"spec": spec});
        let good = value!({"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "a.b/c",
            "config": [{"opaque": {"driver": "a.b", "parameters": {"k": 1}}}]});
        assert!(create(&DeviceClass, class(good)).is_empty());
        assert_eq!(
            create(
                &DeviceClass,
                class(
                    value!({"selectors": [{}], "config": [{"opaque": {"parameters": 3}}, {}], "extendedResourceName": "cpu"})
                )
            ),
            [
                "spec.selectors[0].cel: Required value",
                "spec.config[0].opaque.driver: Required value",
                "spec.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                "spec.config[1].opaque: Required value",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ]
        );
    }
}
