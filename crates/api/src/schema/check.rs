//! Whether an object decodes: the type errors of Go's encoding/json, in its words.

use super::place::find_field;
use crate::patch::json::go_kind;
use crate::quantity::{BadQuantity, Quantity};
use crate::time::Time;
use crate::value::Value;
use canopus_schema::{FieldType, Shape, Type};
use std::fmt::Write;

/// Why an object does not decode: Go's message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

/// The first value that cannot be what its field is. Fields unknown to the type are not looked at.
pub fn check(ty: &'static Type, value: &Value) -> Result<(), Problem> {
    Checker { path: Vec::new(), inside: None }.object(ty, value)
}

/// Upstream's text for a body that does not decode:
/// `Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal …`.
pub fn cannot_be_handled(kind: &str, version: &str, problem: &str) -> String {
    format!("{kind} in version {version:?} cannot be handled as a {kind}: {problem}")
}

/// Upstream's text for what strict field validation refuses: unknown and duplicate fields, by path.
/// None when there is nothing.
pub fn strict_error(unknown: &[String], duplicate: &[String]) -> Option<String> {
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let duplicate = duplicate.iter().map(|path| format!("duplicate field {path:?}"));
    let all: Vec<String> = unknown.chain(duplicate).collect();
    (!all.is_empty()).then(|| format!("strict decoding error: {}", all.join(", ")))
}

struct Checker {
    /// The names of fields from the root; items and keys of maps do not count.
    path: Vec<&'static str>,
    /// The struct that holds the current field.
    inside: Option<&'static Type>,
}

impl Checker {
    fn object(&mut self, ty: &'static Type, value: &Value) -> Result<(), Problem> {
        let Value::Object(map) = value else {
            return if value.is_null() { Ok(()) } else { Err(self.wrong(value, &go_name(ty))) };
        };
        let outside = self.inside;
        for (name, value) in map.iter() {
            if let Some(field) = find_field(ty, name) {
                self.inside = Some(ty);
                self.path.push(field.name);
                self.place(&field.ty, value)?;
                self.path.pop();
            }
        }
        self.inside = outside;
        Ok(())
    }

    fn place(&mut self, ty: &'static FieldType, value: &Value) -> Result<(), Problem> {
        match (ty, value) {
            (FieldType::Ref(id), value) => self.shape(id.get(), value),
            (_, Value::Null) | (FieldType::Any, _) => Ok(()),
            (FieldType::String, Value::Str(_)) | (FieldType::Bool, Value::Bool(_)) => Ok(()),
            (FieldType::Int32, Value::Int(i)) if i32::try_from(*i).is_ok() => Ok(()),
            (FieldType::Int64, Value::Int(_)) | (FieldType::Double, Value::Int(_) | Value::Float(_)) => Ok(()),
            (FieldType::Bytes, Value::Str(text)) => base64(text),
            (FieldType::Array(item), Value::Array(items)) => items.iter().try_for_each(|v| self.place(item, v)),
            (FieldType::Map(item), Value::Object(map)) => map.values().try_for_each(|v| self.place(item, v)),
            (ty, wrong) => Err(self.wrong(wrong, &go_type(ty))),
        }
    }

    fn shape(&mut self, ty: &'static Type, value: &Value) -> Result<(), Problem> {
        match ty.shape {
            Shape::Object => self.object(ty, value),
            Shape::Quantity => quantity(value),
            Shape::IntOrString => int_or_string(value),
            Shape::Time => time(value, "2006-01-02T15:04:05Z07:00"),
            Shape::MicroTime => time(value, "2006-01-02T15:04:05.000000Z07:00"),
            Shape::RawExtension | Shape::Any | Shape::Json | Shape::FieldsV1 => Ok(()),
        }
    }

    fn wrong(&self, value: &Value, wanted: &str) -> Problem {
        let mut out = format!("json: cannot unmarshal {} into Go ", found(value, wanted));
        let _ = match self.inside {
            Some(ty) => write!(out, "struct field {}.{} of type {wanted}", short(ty.name), self.path.join(".")),
            None => write!(out, "value of type {wanted}"),
        };
        Problem(out)
    }
}

/// What Go says was found; numbers that do not fit are shown.
fn found(value: &Value, wanted: &str) -> String {
    match value {
        Value::Int(i) if wanted == "int32" => format!("number {i}"),
        Value::Float(f) if wanted == "int32" || wanted == "int64" => format!("number {f:?}"),
        other => go_kind(other).into(),
    }
}

fn short(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn go_name(ty: &Type) -> String {
    let mut parts = ty.name.rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ => ty.name.into(),
    }
}

fn go_type(ty: &FieldType) -> String {
    match ty {
        FieldType::Ref(id) => go_name(id.get()),
        FieldType::String => "string".into(),
        FieldType::Bytes => "[]uint8".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Double => "float64".into(),
        FieldType::Bool => "bool".into(),
        FieldType::Array(item) => format!("[]{}", go_type(item)),
        FieldType::Map(item) => format!("map[string]{}", go_type(item)),
        FieldType::Any => "interface {}".into(),
    }
}

fn quantity(value: &Value) -> Result<(), Problem> {
    let good = match value {
        Value::Null | Value::Int(_) | Value::Float(_) => true,
        Value::Str(text) => Quantity::parse(text.trim()).is_ok(),
        _ => false,
    };
    if good { Ok(()) } else { Err(Problem(BadQuantity.to_string())) }
}

fn int_or_string(value: &Value) -> Result<(), Problem> {
    match value {
        Value::Null | Value::Str(_) => Ok(()),
        Value::Int(i) if i32::try_from(*i).is_ok() => Ok(()),
        wrong => Err(Problem(format!("json: cannot unmarshal {} into Go value of type int32", found(wrong, "int32")))),
    }
}

fn time(value: &Value, layout: &str) -> Result<(), Problem> {
    match value {
        Value::Null => Ok(()),
        Value::Str(text) if Time::parse(text).is_some() => Ok(()),
        Value::Str(text) => Err(Problem(bad_time(text, layout))),
        wrong => Err(Problem(format!("json: cannot unmarshal {} into Go value of type string", go_kind(wrong)))),
    }
}

/// Go's account of where a time stops being one.
fn bad_time(text: &str, layout: &str) -> String {
    let rest_at = |at: usize| text.get(at..).unwrap_or("");
    let digits =
        |from: usize| text.as_bytes().get(from..).map_or(0, |b| b.iter().take_while(|d| d.is_ascii_digit()).count());
    let elements = [("2006", 4), ("-", 0), ("01", 2), ("-", 0), ("02", 2), ("T", 0), ("15", 2), (":", 0)];
    let mut at = 0;
    for (element, count) in elements.into_iter().chain([("04", 2), (":", 0), ("05", 2)]) {
        let good = if count > 0 { digits(at) >= count } else { rest_at(at).starts_with(element) };
        if !good {
            return format!("parsing time {text:?} as {layout:?}: cannot parse {:?} as {element:?}", rest_at(at));
        }
        at += element.len();
    }
    let number = |from: usize| text[from..from + 2].parse().unwrap_or(0);
    let ranges = [("month", 5, 1..=12), ("day", 8, 1..=31), ("hour", 11, 0..=23), ("minute", 14, 0..=59)];
    for (name, from, good) in ranges.into_iter().chain([("second", 17, 0..=59)]) {
        if !good.contains(&number(from)) {
            return format!("parsing time {text:?}: {name} out of range");
        }
    }
    let rest = rest_at(at);
    let zone = rest.strip_prefix('.').map_or(rest, |f| f.trim_start_matches(|c: char| c.is_ascii_digit()));
    if zone.starts_with('Z') && zone.len() > 1 {
        return format!("parsing time {text:?}: extra text: {:?}", &zone[1..]);
    }
    if zone == "Z" {
        return format!("parsing time {text:?}: day out of range");
    }
    format!("parsing time {text:?} as {layout:?}: cannot parse {zone:?} as \"Z07:00\"")
}

/// Standard, padded base64; line breaks are allowed.
fn base64(text: &str) -> Result<(), Problem> {
    let bad = |at: usize| Err(Problem(format!("illegal base64 data at input byte {at}")));
    let (mut digits, mut padding) = (0usize, 0usize);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'\r' | b'\n' => {}
            b'=' if digits % 4 >= 2 && digits % 4 + padding < 4 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => digits += 1,
            _ => return bad(at),
        }
    }
    if (digits + padding) % 4 == 0 { Ok(()) } else { bad(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::deployment;
    use crate::value;

    fn message(value: Value) -> String {
        check(deployment(), &value).err().map_or_else(String::new, |p| p.0)
    }

    fn container(value: Value) -> Value {
        value!({"spec": {"template": {"spec": {"containers": [value]}}}})
    }

    #[test]
    fn errors_are_gos() {
        let unmarshal = |rest: &str| format!("json: cannot unmarshal {rest}");
        let created = |text: &str| value!({"metadata": {"creationTimestamp": text}});
        let cases = [
            (
                value!({"spec": {"replicas": "x"}}),
                unmarshal("string into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                value!({"spec": {"replicas": 3000000000i64}}),
                unmarshal("number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                value!({"spec": {"replicas": 1.5}}),
                unmarshal("number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (value!({"spec": []}), unmarshal("array into Go struct field Deployment.spec of type v1.DeploymentSpec")),
            (
                value!({"metadata": {"labels": {"a": 1}}}),
                unmarshal("number into Go struct field ObjectMeta.metadata.labels of type string"),
            ),
            (
                container(value!({"ports": {}})),
                unmarshal(
                    "object into Go struct field Container.spec.template.spec.containers.ports of type []v1.ContainerPort",
                ),
            ),
            (
                container(value!({"resources": {"limits": {"cpu": "1x"}}})),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into(),
            ),
            (
                value!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
                unmarshal("bool into Go value of type int32"),
            ),
            (
                created("yesterday"),
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#.into(),
            ),
            (created("2024-13-01T00:00:00Z"), r#"parsing time "2024-13-01T00:00:00Z": month out of range"#.into()),
            (
                created("2024-01-01T00:00:00"),
                r#"parsing time "2024-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#
                    .into(),
            ),
            (value!("x"), unmarshal("string into Go value of type v1.Deployment")),
        ];
        for (value, want) in cases {
            assert_eq!(message(value), want);
        }
    }

    #[test]
    fn what_decodes() {
        let good = [
            value!({"spec": {"replicas": null, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
            value!({"unknown": {"x": []}, "metadata": null}),
            container(value!({"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "args": [null]})),
        ];
        for value in good {
            assert_eq!(message(value), "");
        }
    }

    #[test]
    fn base64_is_strict() {
        for good in ["", "YQ==", "YWI=", "YWJj", "YW\nJj"] {
            assert_eq!(base64(good), Ok(()), "{good}");
        }
        for (bad, at) in [("YQ", 2), ("Y", 1), ("YQ=", 3), ("Y Q=", 1), ("=", 0), ("YQ==YQ==", 4), ("YWJj=", 4)] {
            assert_eq!(base64(bad), Err(Problem(format!("illegal base64 data at input byte {at}"))), "{bad}");
        }
    }

    #[test]
    fn texts() {
        assert_eq!(
            cannot_be_handled("Deployment", "v1", "json: x"),
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: x"#
        );
        assert_eq!(
            strict_error(&["spec.foo".into()], &["spec.bar".into()]).unwrap(),
            r#"strict decoding error: unknown field "spec.foo", duplicate field "spec.bar""#
        );
        assert_eq!(strict_error(&[], &[]), None);
    }

    proptest::proptest! {
        #[test]
        fn bad_times_never_panic(text in "[-0-9T:Z.+é]{0,30}") {
            let _ = bad_time(&text, "x");
        }
    }
}
