//! From a tree that a client has sent to an object of a kind: what doesn't fit is refused, what is unknown dropped.

use canopus_api::api::FieldValidation;
use canopus_api::schema::Schema;
use canopus_api::{Errors, Field, Gvk, Result, Status, Value, WriteOptions, json, schema, value};

/// Checks a body against the schema of `gvk` and drops what is unknown. Answers warnings.
pub(crate) fn decode_as(
    gvk: &Gvk,
    schema: Schema<'_>,
    body: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>> {
    if body.as_object().is_none() {
        let why = format!("json: cannot unmarshal {} into Go value of type {NAMED}", go_kind(body));
        return Err(unrecognized(&gvk.kind, &format!("{NO_KIND}{why}"), &json::to_vec(body)));
    }
    right_kind(gvk, schema, body)?;
    let unknown = fit(gvk, schema, body).map_err(|why| cannot_be_handled(gvk, &why))?;
    strictness(gvk, &unknown, options.field_validation)
}

/// Like [`decode_as`], of what a patch has made of an object; `problems` are those of the patch itself.
pub(crate) fn decode_patched(
    gvk: &Gvk,
    schema: Schema<'_>,
    before: &Value,
    body: &mut Value,
    mut problems: Vec<String>,
    options: &WriteOptions,
) -> Result<Vec<String>> {
    let unknown = apart(body, before, |body| fit(gvk, schema, body));
    problems.extend(unknown.map_err(|why| bad_patch(body, &why))?);
    match options.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !problems.is_empty() => {
            Err(bad_patch(body, &format!("strict decoding error: {}", problems.join(", "))))
        }
        _ => Ok(problems),
    }
}

/// Does `work` to `body` without the members that it shares with `before`, what it was made of: a patch of a pod's status
/// leaves the spec alone, and what was right stays right.
pub(crate) fn apart<T>(body: &mut Value, before: &Value, work: impl FnOnce(&mut Value) -> T) -> T {
    let shares = |name: &str, value: &Value| match (value, &before[name]) {
        (Value::Object(new), Value::Object(old)) => !new.is_empty() && new.is_shared_with(old),
        _ => false,
    };
    let shared: Vec<_> = body.entries().filter(|(k, v)| shares(k, v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    shared.iter().for_each(|(name, _)| drop(body.remove(name)));
    let done = work(body);
    for (name, value) in shared {
        body.set(&name, value);
    }
    done
}

/// Whether `body` has the spec of `before`, untouched.
pub(crate) fn same_spec(body: &Value, before: &Value) -> bool {
    matches!((&body["spec"], &before["spec"]), (Value::Object(new), Value::Object(old)) if new.is_shared_with(old))
}

fn fit(gvk: &Gvk, schema: Schema<'_>, body: &mut Value) -> std::result::Result<Vec<String>, String> {
    body.set("apiVersion", gvk.api_version());
    body.set("kind", gvk.kind.clone());
    schema::decode(schema, body)
}

/// Upstream refuses what a patch leads to as an invalid `patch` of no kind.
fn bad_patch(patched: &Value, why: &str) -> Status {
    let tree = value!({"patch": (json::to_string(patched))});
    let mut errors = Errors::new();
    errors.invalid(&Field::root(&tree).at("patch"), why);
    Status::invalid(&Gvk::default(), "", errors)
}

/// What upstream reads of a body first.
const NAMED: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
pub const NO_KIND: &str = "couldn't get version/kind; json parse error: ";

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Str(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    }
}

/// Refuses a body that says it is something else.
fn right_kind(gvk: &Gvk, schema: Schema<'_>, body: &Value) -> Result<()> {
    for name in ["apiVersion", "kind"] {
        if !matches!(&body[name], Value::Null | Value::Str(_)) {
            let why = format!("cannot unmarshal {} into Go struct field .{name} of type string", go_kind(&body[name]));
            return Err(unrecognized(&gvk.kind, &format!("{NO_KIND}json: {why}"), &json::to_vec(body)));
        }
    }
    let said = body["apiVersion"].str();
    if said.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {said}");
        return Err(unrecognized(&gvk.kind, &why, &json::to_vec(body)));
    }
    let sent = Gvk::of(body);
    let kind_differs = !sent.kind.is_empty() && sent.kind != gvk.kind;
    if !kind_differs && (said.is_empty() || said == gvk.api_version()) {
        return Ok(());
    }
    let kind = if sent.kind.is_empty() { &gvk.kind } else { &sent.kind };
    let known = said.is_empty() || canopus_schema::kind(&sent.group, &sent.version, kind).is_some();
    let why = match (schema.table(), known, kind_differs) {
        (Some(_), true, true) => {
            let (from, to) = (&sent.version, internal_package(&gvk.group));
            format!("converting ({from}.{kind}) to ({to}.{}): unknown conversion", gvk.kind)
        }
        (Some(_), false, _) => {
            format!("no kind {kind:?} is registered for version {said:?} in scheme {:?}", scheme(&gvk.group))
        }
        (None, _, true) => "no kind match".into(),
        (_, _, false) => {
            let expected = gvk.api_version();
            let why =
                format!("the API version in the data ({said}) does not match the expected API version ({expected})");
            return Err(Status::bad_request(why));
        }
    };
    let version = &sent.version;
    Err(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", gvk.kind)))
}

/// What upstream calls its own form of a group's kinds.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        _ => group.split('.').next().unwrap_or(group),
    }
}

/// Where upstream knows a group's kinds.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
        "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

fn cannot_be_handled(gvk: &Gvk, why: &str) -> Status {
    let (kind, version) = (&gvk.kind, &gvk.version);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// Unknown and duplicate fields by the request's fieldValidation: an error, warnings or nothing.
pub fn strictness(gvk: &Gvk, problems: &[String], validation: FieldValidation) -> Result<Vec<String>> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !problems.is_empty() => {
            Err(cannot_be_handled(gvk, &format!("strict decoding error: {}", problems.join(", "))))
        }
        _ => Ok(problems.to_vec()),
    }
}

/// The refusal of a body of which not even the kind can be told.
pub fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    let summary = summary(body);
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({summary})"))
}

/// How a body begins (upstream `summarizeData`).
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (start, more) = (&body[..body.len().min(SHOWN)], if body.len() > SHOWN { " ..." } else { "" });
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned() + more,
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

/// Puts what is created through a subresource into the request's namespace; refuses one that says otherwise.
pub(crate) fn place_namespace(namespace: &str, body: &mut Value) -> Result<()> {
    same_namespace(namespace, body)?;
    body.obj_mut("metadata").insert("namespace", namespace);
    Ok(())
}

/// Refuses an object that says it is in another namespace than the request.
pub(crate) fn same_namespace(namespace: &str, body: &Value) -> Result<()> {
    let said = body["metadata"]["namespace"].str();
    if said.is_empty() || said == namespace {
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

/// Refuses an object that says it is another than the request's.
pub(crate) fn same_name(name: &str, body: &Value) -> Result<()> {
    match body["metadata"]["name"].str() {
        said if said == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        said => Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut body: Value, validation: FieldValidation) -> std::result::Result<Vec<String>, String> {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let schema = canopus_schema::kind("", "v1", "ConfigMap").unwrap().get();
        let options = WriteOptions { field_validation: validation, ..WriteOptions::default() };
        decode_as(&gvk, schema.into(), &mut body, &options).map_err(|e| e.message)
    }

    #[test]
    fn what_is_shared_is_not_looked_at() {
        let before = value!({"spec": {"a": 1}, "status": {"b": 1}, "metadata": {"name": "x"}});
        let mut body = before.clone();
        body.set_path(&["status", "b"], 2);
        assert!(same_spec(&body, &before));
        let seen = apart(&mut body, &before, |body| body.entries().map(|(k, _)| k.to_string()).collect::<Vec<_>>());
        assert_eq!(seen, ["status"]);
        assert_eq!(body, value!({"spec": {"a": 1}, "status": {"b": 2}, "metadata": {"name": "x"}}));
        body.set_path(&["spec", "a"], 1);
        assert!(!same_spec(&body, &before), "equal, but who knows");
    }

    #[test]
    fn refusals_are_upstreams() {
        let unknown = || value!({"dataa": {}});
        assert_eq!(decode(unknown(), FieldValidation::Warn), Ok(vec![r#"unknown field "dataa""#.into()]));
        assert_eq!(decode(unknown(), FieldValidation::Ignore), Ok(vec![]));
        let handled = r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: "#;
        let cases = [
            (unknown(), format!(r#"{handled}strict decoding error: unknown field "dataa""#)),
            (value!({"data": 1}), handled.to_string()),
            (
                value!({"kind": "Pod", "apiVersion": "v1"}),
                r#"Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"#.into(),
            ),
            (
                value!({"kind": "ConfigMap", "apiVersion": "v2"}),
                r#"ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30""#.into(),
            ),
            (value!([]), "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion".into()),
            (value!({"apiVersion": "a/b/c"}), r#"the object provided is unrecognized (must be of type ConfigMap): unexpected GroupVersion string: a/b/c ({"apiVersion":"a/b/c"})"#.into()),
            (value!({"kind": 5}), r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({"kind":5})"#.into()),
        ];
        for (body, message) in cases {
            let refused = decode(body, FieldValidation::Strict).unwrap_err();
            assert!(refused.starts_with(&message), "{refused}");
        }
        assert_eq!((summary(b""), summary(b"a: b")), ("<empty>".into(), "613a2062".into()));
        assert_eq!(summary(&[b'{'; 31]), format!("{} ...", "{".repeat(30)));
    }
}
