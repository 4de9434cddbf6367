//! ConversionReview, and what is checked of an answer (upstream `webhook_converter.go`).

use canopus_api::{Errors, Field, Gvk, Value, value};
use canopus_resources::checks;

/// What we speak.
pub const API_VERSIONS: [&str; 2] = ["apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"];
const KIND: &str = "ConversionReview";
const SUCCESS: &str = "Success";

/// The question, and what it holds of each object that the answer is compared with.
pub fn request(version: &str, uid: &str, api_version: &str, objects: Vec<Value>) -> (Value, Vec<Original>) {
    let originals = objects.iter().map(Original::of).collect();
    let review = value!({
        "kind": KIND, "apiVersion": version,
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": Value::Array(objects)},
    });
    (review, originals)
}

/// The converted objects of an answer.
pub fn response(version: &str, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
    // What speaks the older version need not say what it answers.
    let strict = version == API_VERSIONS[0];
    let got = Gvk::of(&answer);
    let wanted = format!("{version}, Kind={KIND}");
    if strict && got.to_string() != wanted {
        return Err(format!("expected webhook response of {wanted}, got {got}"));
    }
    let Some(response) = answer.get_mut("response").filter(|r| !r.is_null()) else {
        return Err("no response provided".into());
    };
    if strict && response["uid"].str() != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].str()));
    }
    let result = &response["result"];
    if result["status"].str() != SUCCESS {
        return Err(match result["message"].str() {
            "" => format!("response.result.status was '{}', not 'Success'", result["status"].str()),
            message => message.into(),
        });
    }
    Ok(match response.get_mut("convertedObjects").map(std::mem::take) {
        Some(Value::Array(objects)) => objects,
        _ => Vec::new(),
    })
}

/// What a conversion may not change.
pub struct Original {
    kind: String,
    metadata: Value,
}

impl Original {
    fn of(object: &Value) -> Original {
        Original { kind: object["kind"].str().into(), metadata: object["metadata"].clone() }
    }
}

/// What is wrong with a converted object.
pub enum Wrong {
    /// It is of another version or kind.
    Kind(String),
    /// It is another object.
    Object(String),
    Metadata(String),
}

impl Wrong {
    /// In upstream's words, which differ for an object that was alone.
    pub fn at(self, at: usize, alone: bool) -> String {
        match (self, alone) {
            (Wrong::Kind(why), true) => format!("returned invalid object at index {at}: {why}"),
            (Wrong::Object(why), true) => format!("returned invalid object: {why}"),
            (Wrong::Metadata(why), true) => format!("returned invalid metadata: {why}"),
            (Wrong::Kind(why) | Wrong::Object(why), false) => {
                format!("returned invalid converted object at index {at}: {why}")
            }
            (Wrong::Metadata(why), false) => format!("returned invalid metadata in object at index {at}: {why}"),
        }
    }
}

/// A converted object with the metadata it had, but for labels and annotations, which may be converted too.
pub fn checked(original: &Original, mut converted: Value, api_version: &str) -> Result<Value, Wrong> {
    let Gvk { kind, .. } = Gvk::of(&converted);
    let got = converted["apiVersion"].str();
    if got != api_version {
        return Err(Wrong::Kind(format!("invalid groupVersion (expected {api_version}, received {got})")));
    }
    if kind != original.kind {
        return Err(Wrong::Kind(format!("invalid kind (expected {}, received {kind})", original.kind)));
    }
    let sent = &original.metadata;
    for (field, called) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, got) = (sent[field].str(), converted["metadata"][field].str());
        if expected != got {
            return Err(Wrong::Object(format!("must have the same {called}: {expected} != {got}")));
        }
    }
    let metadata = restored(sent, converted.get("metadata")).map_err(Wrong::Metadata)?;
    converted.set("metadata", metadata);
    Ok(converted)
}

fn restored(sent: &Value, answered: Option<&Value>) -> Result<Value, String> {
    let answered = answered.ok_or("missing metadata in converted object")?;
    if !matches!(answered, Value::Object(_)) {
        return Err(format!("invalid metadata of type {} in converted object", go_type(answered)));
    }
    let mut metadata = if sent.is_null() { Value::object() } else { sent.clone() };
    for field in ["labels", "annotations"] {
        let Some(given) = answered.get(field).filter(|given| !given.is_null()) else {
            metadata.remove(field);
            continue;
        };
        if !matches!(given, Value::Object(_)) {
            return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(given)));
        }
        if let Some((key, value)) = given.entries().find(|(_, value)| value.as_str().is_none()) {
            let kind = go_type(value);
            return Err(format!("metadata.{field}[{key}] must be a string, but is {kind} in converted object"));
        }
        if *given != sent[field] {
            valid(field, given)?;
        }
        metadata.set(field, given);
    }
    Ok(metadata)
}

fn valid(field: &str, given: &Value) -> Result<(), String> {
    let tree = value!({"metadata": Value::object()});
    let mut errors = Errors::new();
    let (root, meta) = (Field::root(&tree), "metadata");
    let at = root.at(meta);
    match field {
        "labels" => checks::labels(&at.at("labels").with(given), &mut errors),
        // Upstream's path.
        _ => checks::annotations(&at.at("annotation").with(given), &mut errors),
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.aggregate()) }
}

/// What Go calls the type of a JSON value.
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

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
