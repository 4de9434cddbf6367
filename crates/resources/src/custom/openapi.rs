//! What OpenAPI v3 says about a custom resource: its schema with upstream's descriptions of what every object has.

use crate::resource::InfoOf;
use canopus_api::{Value, value};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The definitions of the kind and of its list, by name.
pub fn definitions(definition: &Value, version: usize, info: &InfoOf) -> Vec<(String, Value)> {
    let spec = &definition["spec"];
    let given = &spec["versions"][version]["schema"]["openAPIV3Schema"];
    let list_kind = match definition["status"]["acceptedNames"]["listKind"].str() {
        "" => spec["names"]["listKind"].str(),
        accepted => accepted,
    };
    let name = |kind: &str| definition_name(info.group, info.version, kind);
    let gvk = |kind: &str| value!([{"group": info.group, "version": info.version, "kind": kind}]);
    let mut own = if given.is_null() || spec["preserveUnknownFields"].bool() && given["properties"].is_empty() {
        value!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    } else {
        given.clone()
    };
    describe(&mut own, "ObjectMeta", METADATA);
    own.set("x-kubernetes-group-version-kind", gvk(info.kind));
    let fields: Vec<String> = info.selectable_fields.iter().map(|f| format!(".{f}")).collect();
    if !fields.is_empty() {
        let list: Value = fields.iter().map(|f| value!({"fieldPath": f.trim_start_matches('.')})).collect();
        own.set("x-kubernetes-selectable-fields", list);
    }
    let mut list = value!({
        "description": format!("{list_kind} is a list of {}", info.kind), "type": "object", "required": ["items"],
        "properties": {"items": {
            "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", info.plural),
            "type": "array",
            "items": {"allOf": [{"$ref": format!("#/components/schemas/{}", name(info.kind))}]},
        }},
        "x-kubernetes-group-version-kind": gvk(list_kind),
    });
    describe(&mut list, "ListMeta", LIST_METADATA);
    vec![(name(info.kind), own), (name(list_kind), list)]
}

/// `com.example.stable.v1.CronTab` of `stable.example.com`.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

fn describe(schema: &mut Value, meta: &str, description: &str) {
    let preserve = schema["x-kubernetes-preserve-unknown-fields"].bool() && schema["properties"].is_empty();
    if preserve {
        schema.set("type", "object");
    }
    let properties = schema.obj_mut("properties");
    properties.insert("apiVersion", value!({"description": API_VERSION, "type": "string"}));
    properties.insert("kind", value!({"description": KIND, "type": "string"}));
    let reference = format!("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.{meta}");
    properties.insert("metadata", value!({"description": description, "allOf": [{"$ref": reference}]}));
}
