//! Secret: data that only some may see.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use canopus_api::{Errors, Field, Time, Value, json, names};

pub struct Secret;

static INFO: Info =
    Info { singular: "secret", selectable_fields: &["type"], ..Info::stored("", "v1", "Secret", "secrets") };

/// All data together.
const MAX_SIZE: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

impl Resource for Secret {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        fold_string_data(object);
        if object["type"].is_empty() {
            object.set("type", "Opaque");
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let data = object.at("data");
        let mut size = 0;
        for (key, value) in data.entries() {
            for why in names::config_map_key(key) {
                errors.invalid(&value.with(&key.into()), why);
            }
            size += decoded_len(value.str());
        }
        if size > MAX_SIZE {
            errors.too_long(&data, MAX_SIZE);
        }
        contents(object, &data, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        checks::immutable(&new.at("type"), &old["type"], errors);
        if old["immutable"].bool() {
            if !new.at("immutable").bool() {
                errors.forbidden(&new.at("immutable"), FROZEN);
            }
            if new.value["data"] != old["data"] {
                errors.forbidden(&new.at("data"), FROZEN);
            }
        }
        self.validate(new, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        if object["type"].str() != "kubernetes.io/tls" {
            return Vec::new();
        }
        let data = &object["data"];
        let found = pem(&data["tls.crt"], "certificate").err().or_else(|| pem(&data["tls.key"], "key").err());
        found.into_iter().collect()
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Type", "string", "What the secret is for"),
                Column::new("Data", "string", "How many keys the secret has"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let count = object["data"].entries().count();
        vec![name(object), object["type"].str().into(), count.into(), age(object, now)]
    }
}

/// `stringData` is only for writing: it overwrites keys of `data` and isn't kept.
fn fold_string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = object.remove("stringData") else { return };
    for (key, text) in texts {
        object.obj_mut("data").insert(key, BASE64.encode(text.str()));
    }
}

/// How many bytes base64 text stands for.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// What each type of secret must contain.
fn contents(object: &Field, data: &Field, errors: &mut Errors) {
    match object.value["type"].str() {
        "kubernetes.io/service-account-token" => {
            let (meta, key) = (object.at("metadata"), "kubernetes.io/service-account.name");
            if meta.value["annotations"][key].is_empty() {
                errors.required(&meta.at("annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => json_object(&data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => json_object(&data.key(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" => {
            let keys = [data.key("username"), data.key("password")];
            if keys.iter().all(Field::is_unset) {
                keys.iter().for_each(|key| errors.required(key, ""));
            }
        }
        "kubernetes.io/ssh-auth" => {
            checks::required(&data.key("ssh-privatekey"), errors);
        }
        "kubernetes.io/tls" => {
            let keys = [data.key("tls.crt"), data.key("tls.key")];
            keys.iter().filter(|key| key.is_unset()).for_each(|key| errors.required(key, ""));
        }
        _ => {}
    }
}

fn json_object(field: &Field, errors: &mut Errors) {
    if field.is_unset() {
        return errors.required(field, "");
    }
    let bytes = BASE64.decode(field.str()).unwrap_or_default();
    let why = match json::parse(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let kind = match other.type_name() {
                "boolean" => "bool",
                "integer" => "number",
                name => name,
            };
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
        Err(error) => error.message.to_string(),
    };
    errors.invalid(&field.with(&"<secret contents redacted>".into()), why);
}

/// What Go says of a file in which nothing is in the form of PEM. Whether key and certificate belong together is not
/// looked at.
fn pem(data: &Value, what: &str) -> Result<(), String> {
    let bytes = BASE64.decode(data.str()).unwrap_or_default();
    let found = x509_parser::pem::Pem::iter_from_buffer(&bytes).any(|block| block.is_ok());
    if found { Ok(()) } else { Err(format!("tls: failed to find any PEM data in {what} input")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn string_data_is_folded_in() {
        let mut object = value!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"b": "three"}});
        Secret.default(&mut object);
        assert_eq!(object, value!({"type": "Opaque", "data": {"a": "MQ==", "b": "dGhyZWU="}}));
        assert_eq!(cells(&Secret, &object)[1..3], ["Opaque", "2"]);
    }

    #[test]
    fn what_each_type_needs() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"data": {"a": "MQ=="}}), &[]),
            (
                value!({"type": "kubernetes.io/service-account-token"}),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (value!({"type": "kubernetes.io/dockercfg"}), &["data[.dockercfg]: Required value"]),
            (value!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}}), &[]),
            (
                value!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
                &[
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character looking for beginning of object key string",
                ],
            ),
            (
                value!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "[]"}}),
                &[
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": json: cannot unmarshal array into Go value of type map[string]interface {}",
                ],
            ),
            (
                value!({"type": "kubernetes.io/basic-auth"}),
                &["data[username]: Required value", "data[password]: Required value"],
            ),
            (value!({"type": "kubernetes.io/basic-auth", "data": {"username": ""}}), &[]),
            (value!({"type": "kubernetes.io/ssh-auth"}), &["data[ssh-privatekey]: Required value"]),
            (value!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), &["data[tls.key]: Required value"]),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&Secret, object.clone()), *expected, "{object:?}");
        }
    }

    #[test]
    fn the_type_never_changes_and_the_data_not_when_immutable() {
        let old = value!({"type": "a", "immutable": true, "data": {"x": "MQ=="}});
        let cases: &[(Value, &[&str])] = &[
            (old.clone(), &[]),
            (
                value!({"type": "b", "immutable": true, "data": {"x": "MQ=="}}),
                &["type: Invalid value: \"b\": field is immutable"],
            ),
            (
                value!({"type": "a", "data": {"x": "Mg=="}}),
                &[
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                    "data: Forbidden: field is immutable when `immutable` is set",
                ],
            ),
        ];
        for (new, expected) in cases {
            assert_eq!(update(&Secret, "", old.clone(), new.clone()), *expected);
        }
    }

    #[test]
    fn files_of_tls_are_looked_at() {
        let secret = |crt: &str, key: &str| value!({"type": "kubernetes.io/tls", "data": {"tls.crt": (BASE64.encode(crt)), "tls.key": (BASE64.encode(key))}});
        let block = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
        let (crt, key) = (block("CERTIFICATE"), block("PRIVATE KEY"));
        for (secret, warning) in [
            (secret(&crt, &key), None),
            (secret("x", &key), Some("tls: failed to find any PEM data in certificate input")),
            (secret(&crt, ""), Some("tls: failed to find any PEM data in key input")),
            (value!({"type": "Opaque"}), None),
        ] {
            assert_eq!(Secret.warnings(&secret, None).first().map(String::as_str), warning);
        }
    }
}
