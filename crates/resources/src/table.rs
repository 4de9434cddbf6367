//! `meta.k8s.io/v1 Table`: what `kubectl get` asks for and prints.

use crate::resource::{ColumnOf, Resource};
use canopus_api::{Time, Value, value};

/// What each row carries of its object (the `includeObject` parameter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Of the parameter's value; nothing for one that is unknown.
    pub fn parse(text: &str) -> Option<IncludeObject> {
        match text {
            "None" => Some(IncludeObject::None),
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

/// How a table is to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub include: IncludeObject,
    /// Watches send the column definitions with their first event only.
    pub headers: bool,
    pub now: Time,
}

/// The table of one object.
pub fn of_object(resource: &dyn Resource, object: &Value, options: Options) -> Value {
    let meta = match object["metadata"].get("resourceVersion") {
        Some(version) => value!({"resourceVersion": version}),
        None => Value::object(),
    };
    of_rows(resource, meta, vec![row(resource, object, options)], options)
}

/// A table of rows. `meta` is the list's metadata: resourceVersion, continue, remainingItemCount.
pub fn of_rows(resource: &dyn Resource, meta: Value, rows: Vec<Value>, options: Options) -> Value {
    let columns = if options.headers { definitions(resource) } else { Value::Null };
    value!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": columns, "rows": rows})
}

/// `columnDefinitions`.
pub fn definitions(resource: &dyn Resource) -> Value {
    resource.columns().iter().map(definition).collect()
}

fn definition(column: &ColumnOf) -> Value {
    value!({
        "name": (column.name), "type": (column.kind), "format": (column.format),
        "description": (column.description), "priority": (column.priority),
    })
}

/// One of `rows`.
pub fn row(resource: &dyn Resource, object: &Value, options: Options) -> Value {
    let carried = match options.include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object),
        IncludeObject::Object => object.clone(),
    };
    value!({"cells": (resource.row(object, options.now)), "object": carried})
}

/// An object's `meta.k8s.io/v1 PartialObjectMetadata`.
pub fn partial_metadata(object: &Value) -> Value {
    value!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": (&object["metadata"])})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::configmap::ConfigMap;

    fn config_map() -> Value {
        value!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1"},
            "metadata": {"name": "x", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}})
    }

    fn options(include: IncludeObject, headers: bool) -> Options {
        Options { include, headers, now: Time::parse("2026-01-01T00:01:00Z").unwrap() }
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let object = config_map();
        let partial = value!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": (&object["metadata"])});
        let cases = [
            (IncludeObject::None, Value::Null),
            (IncludeObject::Metadata, partial),
            (IncludeObject::Object, object.clone()),
        ];
        for (include, carried) in cases {
            let table = of_object(&ConfigMap, &object, options(include, false));
            assert_eq!(
                table,
                value!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "7"},
                    "columnDefinitions": null, "rows": [{"cells": ["x", 1, "60s"], "object": carried}]})
            );
        }
    }

    #[test]
    fn lists_have_headers_and_their_own_metadata() {
        let meta = value!({"resourceVersion": "9", "continue": "c"});
        let options = options(IncludeObject::None, true);
        let rows = vec![row(&ConfigMap, &config_map(), options); 2];
        let table = of_rows(&ConfigMap, meta.clone(), rows, options);
        assert_eq!(table["metadata"], meta);
        assert_eq!(table["rows"].items().len(), 2);
        let names: Vec<_> = table["columnDefinitions"].items().iter().map(|c| c["name"].str()).collect();
        assert_eq!(names, ["Name", "Data", "Age"]);
        assert_eq!(table["columnDefinitions"][0]["format"].str(), "name");
    }

    #[test]
    fn every_resource_has_a_cell_for_each_column() {
        for resource in crate::ALL {
            let cells = resource.row(&value!({"metadata": {"name": "x"}}), Time(0));
            assert_eq!(cells.len(), resource.columns().len(), "{}", resource.info().kind);
        }
    }
}
