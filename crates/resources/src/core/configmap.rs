//! ConfigMap: configuration data for pods to consume.

use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::field::Kind;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct ConfigMap;

static INFO: Info =
    Info { singular: "configmap", short_names: &["cm"], ..Info::stored("", "v1", "ConfigMap", "configmaps") };

/// Data and binaryData together.
const MAX_SIZE: usize = 1024 * 1024;

impl Resource for ConfigMap {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (data, binary) = (object.at("data"), object.at("binaryData"));
        let mut size = 0;
        for (key, value) in data.entries() {
            check_key(key, &value, errors);
            if binary.value.get(key).is_some() {
                errors.invalid(&value.with(&key.into()), "duplicate of key present in binaryData");
            }
            size += value.str().len();
        }
        for (key, value) in binary.entries() {
            check_key(key, &value, errors);
            size += value.str().len() / 4 * 3;
        }
        if size > MAX_SIZE {
            let root = Field::root(object.value);
            errors.push(Kind::TooLong, &root.at(""), format!("may not be more than {MAX_SIZE} bytes"));
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        if old["immutable"].bool() {
            if !new.at("immutable").bool() {
                errors.forbidden(&new.at("immutable"), "field is immutable when `immutable` is set");
            }
            for part in ["data", "binaryData"] {
                if new.value[part] != old[part] {
                    errors.forbidden(&new.at(part), "field is immutable when `immutable` is set");
                }
            }
        }
        self.validate(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("Data", "string", "Data contains the configuration data."), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let count = object["data"].entries().count() + object["binaryData"].entries().count();
        vec![name(object), count.into(), age(object, now)]
    }
}

fn check_key(key: &str, value: &Field, errors: &mut Errors) {
    for why in names::config_map_key(key) {
        errors.invalid(&value.with(&key.into()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn keys_and_immutability() {
        let bad = value!({"data": {"a/b": "x"}, "binaryData": {"..": ""}});
        let mut errors = Errors::new();
        ConfigMap.validate(&Field::root(&bad), &mut errors);
        let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["data[a/b]", "binaryData[..]"]);

        let (old, new) =
            (value!({"immutable": true, "data": {"a": "1"}}), value!({"immutable": true, "data": {"a": "2"}}));
        let mut errors = Errors::new();
        let cx = crate::testing::context("");
        ConfigMap.validate_update(&Field::root(&new), &old, &cx, &mut errors);
        assert_eq!(errors.aggregate(), "data: Forbidden: field is immutable when `immutable` is set");
    }
}
