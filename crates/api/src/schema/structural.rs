//! The structural schema of a custom resource (KEP-2332): the part of its OpenAPI schema that says what fields there are,
//! as an owned tree that lives as long as whoever serves the resource.

use super::place::{Atom, ItemKind, Keys, Place, Scalar};
use crate::value::Value;
use canopus_schema::{FieldType, Type, TypeId};
use compact_str::CompactString;
use std::sync::LazyLock;

/// One node of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    pub kind: Kind,
    pub properties: Properties,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub default: Option<Value>,
    pub list: List,
    /// Replaced as a whole by server-side apply.
    pub map_atomic: bool,
    pub nullable: bool,
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields` of this very node.
    pub preserve: bool,
    /// And of this node or one above it: what server-side apply goes by.
    preserved: bool,
    /// A whole object with apiVersion, kind and metadata; the root is one.
    pub embedded: bool,
    /// Whether a default is set anywhere in or below this node.
    pub has_defaults: bool,
    /// A string of which server-side apply knows only that it is a scalar, since it has a format.
    formatted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Untyped,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub fn parse(name: &str) -> Kind {
        match name {
            "object" => Kind::Object,
            "array" => Kind::Array,
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            _ => Kind::Untyped,
        }
    }
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Unset,
    Bool(bool),
    Schema(Box<Structural>),
}

impl Additional {
    pub fn schema(&self) -> Option<&Structural> {
        match self {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<CompactString>),
}

/// Named fields, sorted.
#[derive(Clone, Debug, Default)]
pub struct Properties(Box<[(CompactString, Structural)]>);

impl Properties {
    pub fn get(&self, name: &str) -> Option<&Structural> {
        self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok().map(|at| &self.0[at].1)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&CompactString, &Structural)> {
        self.0.iter().map(|(name, schema)| (name, schema))
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
pub(super) fn object_meta() -> Option<&'static Type> {
    static META: LazyLock<Option<TypeId>> =
        LazyLock::new(|| canopus_schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    META.map(TypeId::get)
}

impl Structural {
    /// Of the `openAPIV3Schema` of a version, Null for a version without.
    pub fn root(schema: &Value) -> Structural {
        let mut root = Structural::of(schema, schema.is_null());
        root.kind = Kind::Object;
        root.embedded = true;
        root.preserve |= schema.is_null();
        root
    }

    fn of(schema: &Value, preserved: bool) -> Structural {
        let preserve = schema["x-kubernetes-preserve-unknown-fields"].bool();
        let preserved = preserved || preserve;
        let below = |schema: &Value| Structural::of(schema, preserved);
        let properties: Box<[_]> =
            schema["properties"].entries().map(|(name, schema)| (name.clone(), below(schema))).collect();
        let additional = match &schema["additionalProperties"] {
            Value::Bool(any) => Additional::Bool(*any),
            Value::Object(_) => Additional::Schema(Box::new(below(&schema["additionalProperties"]))),
            _ => Additional::Unset,
        };
        let items = schema.get("items").filter(|items| items.as_object().is_some()).map(|items| Box::new(below(items)));
        let default = schema.get("default").filter(|d| !d.is_null()).cloned();
        let has_defaults = default.is_some()
            || properties.iter().any(|(_, schema)| schema.has_defaults)
            || additional.schema().is_some_and(|schema| schema.has_defaults)
            || items.as_ref().is_some_and(|schema| schema.has_defaults);
        Structural {
            kind: Kind::parse(schema["type"].str()),
            properties: Properties(properties),
            additional,
            items,
            default,
            list: match schema["x-kubernetes-list-type"].str() {
                "set" => List::Set,
                "map" => {
                    List::Map(schema["x-kubernetes-list-map-keys"].items().iter().map(|k| k.str().into()).collect())
                }
                _ => List::Atomic,
            },
            map_atomic: schema["x-kubernetes-map-type"].str() == "atomic",
            nullable: schema["nullable"].bool(),
            int_or_string: schema["x-kubernetes-int-or-string"].bool(),
            preserve,
            preserved,
            embedded: schema["x-kubernetes-embedded-resource"].bool(),
            has_defaults,
            formatted: !matches!(schema["format"].str(), "" | "byte"),
        }
    }

    /// The place of the field `name`; None when the schema has no such field and forbids others.
    pub(super) fn field(&self, name: &str) -> Option<Place<'_>> {
        if self.embedded {
            match name {
                "apiVersion" | "kind" => return Some(Place::inner(&FieldType::String)),
                "metadata" => {
                    return Some(object_meta().map_or(Place::any(), |ty| Place::inner(&FieldType::Ref(TypeId(ty)))));
                }
                _ => {}
            }
        }
        if let Some(schema) = self.properties.get(name) {
            return Some(Place::Custom(schema));
        }
        match &self.additional {
            Additional::Schema(schema) => Some(Place::Custom(schema)),
            Additional::Bool(true) => Some(Place::any()),
            Additional::Unset if self.preserved || self.properties.is_empty() => Some(Place::any()),
            _ => None,
        }
    }

    /// Whether `name` is a field of its own rather than a key of a map.
    pub(super) fn names(&self, name: &str) -> bool {
        self.embedded && matches!(name, "apiVersion" | "kind" | "metadata") || self.properties.get(name).is_some()
    }

    pub(super) fn atom(&self) -> Atom<'_> {
        match self.kind {
            Kind::Untyped => Atom::Deduced,
            Kind::Object => Atom::Object { ty: super::place::Schema::Custom(self), atomic: self.map_atomic },
            Kind::Array => Atom::List {
                item: self.items.as_deref().map_or(Place::any(), Place::Custom),
                kind: match &self.list {
                    List::Atomic => ItemKind::Atomic,
                    List::Set => ItemKind::Set,
                    List::Map(keys) => ItemKind::Map(Keys::Custom(keys)),
                },
            },
            Kind::String if self.formatted => Atom::Scalar(Scalar::Untyped),
            Kind::String => Atom::Scalar(Scalar::String),
            Kind::Integer | Kind::Number => Atom::Scalar(Scalar::Numeric),
            Kind::Boolean => Atom::Scalar(Scalar::Boolean),
        }
    }
}
