//! What OpenAPI v3 says about a custom resource: its schema with upstream's descriptions of what every object has.

use crate::resource::InfoOf;
use canopus_api::{Value, value};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const EMBEDDED_API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const EMBEDDED_KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
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
    // What has no schema says nothing of its fields, or clients would refuse all others.
    let mut own = if given.is_null() { value!({"type": "object"}) } else { given.clone() };
    if !given.is_null() {
        describe(&mut own, "ObjectMeta", METADATA);
        embedded(&mut own);
    }
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
    type_and_metadata(schema, [API_VERSION, KIND, description], meta);
}

fn type_and_metadata(schema: &mut Value, [version, kind, metadata]: [&str; 3], meta: &str) {
    let properties = schema.obj_mut("properties");
    properties.insert("apiVersion", value!({"description": version, "type": "string"}));
    properties.insert("kind", value!({"description": kind, "type": "string"}));
    let reference = format!("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.{meta}");
    properties.insert("metadata", value!({"description": metadata, "allOf": [{"$ref": reference}]}));
}

/// Whole objects inside of a resource have what every object has (upstream `addEmbeddedProperties`).
fn embedded(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(embedded);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            embedded(inner);
        }
    }
    if schema["x-kubernetes-embedded-resource"].bool() {
        type_and_metadata(schema, [EMBEDDED_API_VERSION, EMBEDDED_KIND, METADATA], "ObjectMeta");
        let mut required = schema["required"].items().to_vec();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known.str() == name) {
                required.push(name.into());
            }
        }
        schema.set("required", required);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_objects_have_type_and_metadata() {
        let mut schema = value!({"type": "object", "properties": {"all": {"type": "array", "items": {
            "type": "object", "x-kubernetes-embedded-resource": true, "required": ["kind", "spec"],
            "properties": {"spec": {"type": "object"}},
        }}}});
        embedded(&mut schema);
        let inner = &schema["properties"]["all"]["items"];
        let names = &inner["properties"];
        assert_eq!(names.as_object().map(|p| p.iter().count()), Some(4), "{names:?}");
        assert_eq!(inner["required"], value!(["kind", "spec", "apiVersion"]));
    }
}
