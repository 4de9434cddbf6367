//! The `scale` subresource of a custom resource: where its definition says the counts are.

use canopus_api::field::{Error, Kind};
use canopus_api::{Errors, Value, value};

pub struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

impl Paths {
    /// Of `subresources.scale` of a version.
    pub fn of(scale: &Value) -> Option<Paths> {
        scale.as_object()?;
        let selector = scale["labelSelectorPath"].str();
        Some(Paths {
            spec: scale["specReplicasPath"].str().into(),
            status: scale["statusReplicasPath"].str().into(),
            selector: (!selector.is_empty()).then(|| selector.into()),
        })
    }

    /// The steps to the wanted count.
    pub fn spec_steps(&self) -> Vec<&str> {
        steps(&self.spec)
    }

    pub fn check_spec(&self, object: &Value, errors: &mut Errors) {
        check_count(object, &self.spec, errors);
    }

    pub fn check_status(&self, object: &Value, errors: &mut Errors) {
        check_count(object, &self.status, errors);
        let Some(path) = &self.selector else { return };
        let found = object.path(&steps(path));
        if !found.is_null() && found.as_str().is_none() {
            let why =
                format!("{path} accessor error: {} is of the type {}, expected string", shown(found), go_type(found));
            errors.add(Error { kind: Kind::Invalid, field: path.clone(), value: "\"\"".into(), detail: why });
        }
    }

    /// The object's Scale.
    pub fn to_scale(&self, object: &Value) -> Value {
        let mut meta = Value::object();
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object["metadata"].get(field) {
                meta.set(field, value);
            }
        }
        let count = |path: &str| object.path(&steps(path)).int();
        let mut scale = value!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {},
            "status": {"replicas": (count(&self.status))},
        });
        if count(&self.spec) != 0 {
            scale.set_path(&["spec", "replicas"], count(&self.spec));
        }
        let selector = self.selector.as_ref().map_or("", |path| object.path(&steps(path)).str());
        if !selector.is_empty() {
            scale.set_path(&["status", "selector"], selector);
        }
        scale
    }

    /// Sets the wanted count.
    pub fn apply(&self, object: &mut Value, scale: &Value) {
        object.set_path(&self.spec_steps(), scale["spec"]["replicas"].int());
    }
}

fn steps(path: &str) -> Vec<&str> {
    path.trim_start_matches('.').split('.').collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| canopus_api::json::to_string(value), str::to_string)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Str(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn check_count(object: &Value, path: &str, errors: &mut Errors) {
    let mut add = |value: String, detail: String| {
        errors.add(Error { kind: Kind::Invalid, field: path.to_string(), value, detail });
    };
    match object.path(&steps(path)) {
        Value::Null => {}
        Value::Int(n) if *n < 0 => add(n.to_string(), "should be a non-negative integer".into()),
        Value::Int(n) if *n > i64::from(i32::MAX) => {
            add(n.to_string(), format!("should be less than or equal to {}", i32::MAX));
        }
        Value::Int(_) => {}
        other => add(
            "0".into(),
            format!("{path} accessor error: {} is of the type {}, expected int64", shown(other), go_type(other)),
        ),
    }
}
