//! Paths as OpenAPI v3 and v2 write them.

use super::parameters::Parameter;
use super::paths::{Operation, PathItem, tag};
use canopus_api::{Map, Value, value};

const PLAIN: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
const STREAMS: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// What a group version's answers come in.
#[derive(Clone, Copy)]
pub struct Types {
    /// Custom resources have neither messages nor strategic merge patches.
    pub custom: bool,
    /// Whether CBOR is served. Of custom resources upstream does not say so.
    pub cbor: bool,
}

impl Types {
    fn all(self, operation: &Operation) -> Vec<&'static str> {
        let plain = PLAIN.iter().copied();
        let streams = STREAMS.iter().copied().filter(|_| operation.streams);
        let mut all: Vec<&str> = plain.chain(streams).collect();
        if self.custom {
            all.retain(|kind| !kind.contains("protobuf"));
        }
        if operation.answer.is_none() {
            all = if operation.action == "connect" { vec!["*/*"] } else { [&["text/plain"], PLAIN].concat() };
        }
        self.known(all)
    }

    /// Without CBOR where there is none.
    fn known(self, mut types: Vec<&'static str>) -> Vec<&'static str> {
        types.retain(|kind| !kind.contains("cbor") || self.cbor && !self.custom);
        types
    }

    fn bodies(self, operation: &Operation) -> Vec<&'static str> {
        let mut bodies = if operation.action == "patch" { PATCHES.to_vec() } else { vec!["*/*"] };
        if self.custom {
            bodies.retain(|kind| !kind.contains("strategic"));
        }
        self.known(bodies)
    }
}

fn kind_of(operation: &Operation) -> Value {
    let (group, version, kind) = operation.kind;
    value!({"group": group, "version": version, "kind": kind})
}

fn described(parameter: &Parameter, named: &str) -> String {
    match parameter.name {
        "name" if parameter.in_path => format!("name of the {named}"),
        _ => parameter.description.to_string(),
    }
}

fn parameter(parameter: &Parameter, named: &str) -> Value {
    let place = if parameter.in_path { "path" } else { "query" };
    let mut value = value!({"name": parameter.name, "in": place, "description": described(parameter, named)});
    if parameter.in_path {
        value.set("required", true);
    }
    value
}

fn v3_parameter(of: &Parameter, named: &str) -> Value {
    let mut value = parameter(of, named);
    value.set("schema", value!({"type": of.kind, "uniqueItems": true}));
    value
}

fn v2_parameter(of: &Parameter, named: &str) -> Value {
    let mut value = parameter(of, named);
    value.set("type", of.kind);
    value.set("uniqueItems", true);
    value
}

fn item(item: &PathItem, parameter: fn(&Parameter, &str) -> Value, operation: impl Fn(&Operation) -> Value) -> Value {
    let mut map: Map = item.operations.iter().map(|o| (o.method, operation(o))).collect();
    if !item.parameters.is_empty() {
        map.insert("parameters", item.parameters.iter().map(|p| parameter(p, item.named)).collect::<Value>());
    }
    Value::Object(map)
}

/// What both versions say of an operation.
fn common(operation: &Operation, group: &str, version: &str) -> Value {
    value!({
        "operationId": (&operation.id), "description": (&operation.description), "tags": [(tag(group, version))],
        "x-kubernetes-action": (operation.action), "x-kubernetes-group-version-kind": (kind_of(operation)),
    })
}

pub fn v3(path: &PathItem, types: Types, group: &str, version: &str) -> Value {
    let reference = |name: &str| value!({"$ref": format!("#/components/schemas/{name}")});
    let content = |kinds: &[&str], schema: &Value| -> Value {
        Value::Object(kinds.iter().map(|kind| (*kind, value!({"schema": schema}))).collect())
    };
    item(path, v3_parameter, |operation| {
        let mut value = common(operation, group, version);
        if !operation.parameters.is_empty() {
            let parameters = operation.parameters.iter().map(|p| v3_parameter(p, path.named));
            value.set("parameters", parameters.collect::<Value>());
        }
        if let Some((name, required)) = &operation.body {
            let mut body = value!({"content": (content(&types.bodies(operation), &reference(name)))});
            if *required {
                body.set("required", true);
            }
            value.set("requestBody", body);
        }
        let schema = operation.answer.as_deref().map_or_else(|| value!({"type": "string"}), reference);
        let kinds = types.all(operation);
        let answers = operation.answers.iter().map(|(code, text)| {
            (code.to_string(), value!({"description": *text, "content": (content(&kinds, &schema))}))
        });
        let mut answers: Map = answers.collect();
        answers.insert("401", value!({"description": "Unauthorized"}));
        value.set("responses", answers);
        value
    })
}

pub fn v2(path: &PathItem, types: Types, group: &str, version: &str) -> Value {
    let reference = |name: &str| value!({"$ref": format!("#/definitions/{name}")});
    item(path, v2_parameter, |operation| {
        let mut value = common(operation, group, version);
        let mut parameters: Vec<Value> = operation.parameters.iter().map(|p| v2_parameter(p, path.named)).collect();
        if let Some((name, required)) = &operation.body {
            let mut body = value!({"in": "body", "name": "body", "schema": (reference(name))});
            if *required {
                body.set("required", true);
            }
            parameters.insert(0, body);
        }
        if !parameters.is_empty() {
            value.set("parameters", parameters);
        }
        let schema = operation.answer.as_deref().map_or_else(|| value!({"type": "string"}), reference);
        let answers = operation
            .answers
            .iter()
            .map(|(code, text)| (code.to_string(), value!({"description": *text, "schema": (&schema)})));
        let mut answers: Map = answers.collect();
        answers.insert("401", value!({"description": "Unauthorized"}));
        value.set("responses", answers);
        value.set("consumes", types.bodies(operation).into_iter().collect::<Value>());
        value.set("produces", types.all(operation).into_iter().collect::<Value>());
        value.set("schemes", value!(["https"]));
        value
    })
}
