//! Files of `apiserver.config.k8s.io`: read strictly, since a misspelt field of one would leave a door open.

use canopus_api::{Value, yaml};

const GROUP: &str = "apiserver.config.k8s.io/";

/// What may be in a file.
pub enum Shape {
    Text,
    Flag,
    Number,
    Object(&'static [(&'static str, Shape)]),
    List(&'static Shape),
}

/// Reads a document of `kind`, in one of the versions, that has no field which `shape` does not know.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn parse(
    text: &str,
    kind: &str,
    versions: &[&str],
    shape: &'static [(&'static str, Shape)],
) -> Result<Value, String> {
    let document = yaml::parse(text).map_err(|e| format!("error converting YAML to JSON: yaml: {e}"))?;
    if let Some(why) = document.strict_error() {
        return Err(format!("strict decoding error: {why}"));
    }
    let mut file = document.value;
    let (version, said) = (file["apiVersion"].str().to_string(), file["kind"].str().to_string());
    if said.is_empty() || version.is_empty() {
        let field = if said.is_empty() { "Kind" } else { "apiVersion" };
        return Err(format!("Object '{field}' is missing in '{text}'"));
    }
    let known = version.strip_prefix(GROUP).is_some_and(|v| versions.contains(&v));
    if !known || said != kind {
        return Err(format!("no kind {said:?} is registered for version {version:?}"));
    }
    file.remove("apiVersion");
    file.remove("kind");
    let mut problems = Vec::new();
    object(shape, &file, "", &mut problems);
    if problems.is_empty() { Ok(file) } else { Err(format!("strict decoding error: {}", problems.join(", "))) }
}

fn check(shape: &Shape, value: &Value, path: &str, problems: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let fits = match shape {
        Shape::Text => value.as_str().is_some(),
        Shape::Flag => value.as_bool().is_some(),
        Shape::Number => value.as_i64().is_some(),
        Shape::Object(fields) => return object(fields, value, path, problems),
        Shape::List(of) => {
            let items = value.items().iter().enumerate();
            items.for_each(|(i, item)| check(of, item, &format!("{path}[{i}]"), problems));
            value.as_array().is_some()
        }
    };
    if !fits {
        problems.push(format!("json: cannot unmarshal {} into field {path:?}", go_type(value)));
    }
}

/// What Go calls what is there.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Int(_) | Value::Float(_) => "number",
        Value::Bool(_) => "bool",
        other => other.type_name(),
    }
}

fn object(fields: &[(&str, Shape)], value: &Value, path: &str, problems: &mut Vec<String>) {
    if value.as_object().is_none() {
        problems.push(format!("json: cannot unmarshal {} into field {path:?}", go_type(value)));
    }
    for (name, value) in value.entries() {
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, shape)) => check(shape, value, &path, problems),
            None => problems.push(format!("unknown field {path:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unknown() {
        const SHAPE: &[(&str, Shape)] =
            &[("flag", Shape::Flag), ("all", Shape::List(&Shape::Object(&[("name", Shape::Text)])))];
        let read = |body: &str| {
            parse(&format!("apiVersion: apiserver.config.k8s.io/v1\nkind: X\n{body}"), "X", &["v1"], SHAPE)
                .map(|v| v.entries().count())
        };
        assert_eq!(read("flag: true\nall: [{name: a}]"), Ok(2));
        assert_eq!(read("all: [{nam: a}]"), Err(r#"strict decoding error: unknown field "all[0].nam""#.into()));
        let wrong = r#"strict decoding error: json: cannot unmarshal string into field "flag""#;
        assert_eq!(read("flag: 'true'"), Err(wrong.into()));
        assert!(read("flag: true\nflag: false").is_err(), "twice");
        let kind = parse("apiVersion: v1\nkind: X", "X", &["v1"], SHAPE);
        assert_eq!(kind, Err(r#"no kind "X" is registered for version "v1""#.into()));
    }
}
