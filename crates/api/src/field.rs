//! Field errors, and the cursor that validation walks an object with (upstream `field.Path` and `field.Error`).

use crate::status::Cause;
use crate::value::Value;
use std::fmt::Write;

/// A place in an object: where it is and what is there. Cheap to copy; the path is only rendered for an error.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    parent: Option<&'a Field<'a>>,
    step: Step<'a>,
    pub value: &'a Value,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Field<'a> {
    pub fn root(value: &'a Value) -> Field<'a> {
        Field { parent: None, step: Step::Root, value }
    }

    /// The field `name`; its value is Null when absent.
    pub fn at<'b>(&'b self, name: &'b str) -> Field<'b> {
        Field { parent: Some(self), step: Step::Name(name), value: self.value.at(name) }
    }

    /// The entry `key` of a map: `data[key]`.
    pub fn key<'b>(&'b self, key: &'b str) -> Field<'b> {
        Field { parent: Some(self), step: Step::Key(key), value: self.value.at(key) }
    }

    pub fn index(&self, i: usize) -> Field<'_> {
        Field { parent: Some(self), step: Step::Index(i), value: &self.value[i] }
    }

    /// The same place with another value, for errors about a value that is not literally there.
    pub fn with<'b>(&'b self, value: &'b Value) -> Field<'b> {
        Field { parent: self.parent, step: self.step, value }
    }

    pub fn items(&self) -> impl Iterator<Item = Field<'_>> {
        (0..self.value.items().len()).map(|i| self.index(i))
    }

    /// The entries of a map, as (key, `path[key]`).
    pub fn entries(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        let entry = |(k, v): (&'a compact_str::CompactString, &'a Value)| {
            (k.as_str(), Field { parent: Some(self), step: Step::Key(k), value: v })
        };
        self.value.entries().map(entry)
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }
    /// The field is not there, or null.
    pub fn is_unset(&self) -> bool {
        self.value.is_null()
    }
    pub fn str(&self) -> &'a str {
        self.value.str()
    }
    pub fn int(&self) -> i64 {
        self.value.int()
    }
    pub fn bool(&self) -> bool {
        self.value.bool()
    }

    /// The path as upstream writes it: `spec.containers[0].env[1].name`, `metadata.labels[a/b]`.
    pub fn path(&self) -> String {
        let mut out = String::new();
        self.render(&mut out);
        if out.is_empty() { "<nil>".into() } else { out }
    }

    fn render(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.render(out);
        }
        let _ = match self.step {
            Step::Root => Ok(()),
            // As upstream writes a name that is empty.
            Step::Name("") => write!(out, "[]"),
            Step::Name(name) if out.is_empty() => write!(out, "{name}"),
            Step::Name(name) => write!(out, ".{name}"),
            Step::Index(i) => write!(out, "[{i}]"),
            Step::Key(key) => write!(out, "[{key}]"),
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Required,
    Invalid,
    TypeInvalid,
    Duplicate,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    Internal,
}

impl Kind {
    fn reason(self) -> &'static str {
        match self {
            Kind::Required => "FieldValueRequired",
            Kind::Invalid => "FieldValueInvalid",
            Kind::TypeInvalid => "FieldValueTypeInvalid",
            Kind::Duplicate => "FieldValueDuplicate",
            Kind::NotSupported => "FieldValueNotSupported",
            Kind::Forbidden => "FieldValueForbidden",
            Kind::TooLong => "FieldValueTooLong",
            Kind::TooMany => "FieldValueTooMany",
            Kind::NotFound => "FieldValueNotFound",
            Kind::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::Required => "Required value",
            Kind::Invalid | Kind::TypeInvalid => "Invalid value",
            Kind::Duplicate => "Duplicate value",
            Kind::NotSupported => "Unsupported value",
            Kind::Forbidden => "Forbidden",
            Kind::TooLong => "Too long",
            Kind::TooMany => "Too many",
            Kind::NotFound => "Not found",
            Kind::Internal => "Internal error",
        }
    }

    /// Whether the bad value belongs in the message.
    fn shows_value(self) -> bool {
        !matches!(self, Kind::Required | Kind::Forbidden | Kind::TooLong | Kind::Internal)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: Kind,
    pub field: String,
    /// The bad value, rendered.
    pub value: String,
    pub detail: String,
}

impl Error {
    /// The message without the path.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.text());
        if self.kind.shows_value() && !self.value.is_empty() {
            let _ = write!(out, ": {}", self.value);
        }
        if !self.detail.is_empty() {
            let _ = write!(out, ": {}", self.detail);
        }
        out
    }

    pub fn cause(&self) -> Cause {
        Cause { reason: self.kind.reason().into(), message: self.body(), field: self.field.clone() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

fn render_value(value: &Value) -> String {
    match value {
        Value::Str(s) => format!("{s:?}"),
        Value::Null => "null".into(),
        other => crate::json::to_string(other),
    }
}

/// All errors of one validation, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Vec<Error>);

impl Errors {
    pub fn new() -> Errors {
        Errors::default()
    }

    pub fn push(&mut self, kind: Kind, field: &Field, detail: impl Into<String>) {
        let (field, value) = (field.path(), render_value(field.value));
        self.0.push(Error { kind, field, value, detail: detail.into() });
    }

    pub fn add(&mut self, error: Error) {
        self.0.push(error);
    }

    pub fn required(&mut self, field: &Field, detail: impl Into<String>) {
        self.push(Kind::Required, field, detail);
    }
    pub fn invalid(&mut self, field: &Field, detail: impl Into<String>) {
        self.push(Kind::Invalid, field, detail);
    }
    /// Like [`Self::invalid`], without showing the value.
    pub fn invalid_unshown(&mut self, field: &Field, detail: impl Into<String>) {
        self.0.push(Error { kind: Kind::Invalid, field: field.path(), value: String::new(), detail: detail.into() });
    }
    pub fn type_invalid(&mut self, field: &Field, detail: impl Into<String>) {
        self.push(Kind::TypeInvalid, field, detail);
    }
    pub fn duplicate(&mut self, field: &Field) {
        self.push(Kind::Duplicate, field, "");
    }
    pub fn forbidden(&mut self, field: &Field, detail: impl Into<String>) {
        self.push(Kind::Forbidden, field, detail);
    }
    pub fn not_found(&mut self, field: &Field) {
        self.push(Kind::NotFound, field, "");
    }
    /// `supported` is listed in the order given, as upstream does (which sorts some of its lists itself).
    pub fn not_supported(&mut self, field: &Field, supported: &[&str]) {
        let names: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        self.push(Kind::NotSupported, field, format!("supported values: {}", names.join(", ")));
    }
    pub fn too_long(&mut self, field: &Field, max_bytes: usize) {
        self.push(Kind::TooLong, field, format!("may not be more than {max_bytes} bytes"));
    }
    pub fn too_many(&mut self, field: &Field, actual: usize, max: usize) {
        let items = if max == 1 { "item" } else { "items" };
        let (path, detail) = (field.path(), format!("must have at most {max} {items}"));
        self.0.push(Error { kind: Kind::TooMany, field: path, value: actual.to_string(), detail });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.0.iter()
    }
    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    /// One message for all: a single error alone, several distinct ones in brackets.
    pub fn aggregate(&self) -> String {
        let mut texts: Vec<String> = Vec::new();
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => one.clone(),
            _ => format!("[{}]", texts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn paths_and_messages() {
        let v = value!({"spec": {"ports": [{"port": 0}]}, "metadata": {"labels": {"a/b": "%"}}});
        let mut errors = Errors::new();
        let root = Field::root(&v);
        let (spec, meta) = (root.at("spec"), root.at("metadata"));
        for port in spec.at("ports").items() {
            errors.invalid(&port.at("port"), "must be between 1 and 65535, inclusive");
        }
        errors.required(&spec.at("name"), "");
        for (_, label) in meta.at("labels").entries() {
            errors.not_supported(&label, &["b", "a"]);
        }
        errors.too_many(&spec.at("ports"), 5, 3);
        let texts: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
        assert_eq!(
            texts,
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.name: Required value",
                r#"metadata.labels[a/b]: Unsupported value: "%": supported values: "b", "a""#,
                "spec.ports: Too many: 5: must have at most 3 items",
            ]
        );
    }
}
