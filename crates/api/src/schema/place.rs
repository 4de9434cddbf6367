//! A place in an object as the tables type it: what every schema-driven walk stands on.

use crate::json;
use crate::value::{Map, Value};
use canopus_schema::{Field, FieldType, ListKind, Shape, Type};

/// The type of one place and how its field treats lists and maps.
#[derive(Clone, Copy)]
pub struct Place {
    pub ty: FieldType,
    pub list: ListKind,
    pub map_atomic: bool,
}

/// What structured-merge-diff makes of a place.
#[derive(Clone, Copy)]
pub enum Atom {
    Scalar(Scalar),
    List {
        item: Place,
        kind: ListKind,
    },
    Map {
        item: Place,
        atomic: bool,
    },
    Object {
        ty: &'static Type,
        atomic: bool,
    },
    /// Untyped: scalars and lists are leaves, maps are walked.
    Deduced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

impl Place {
    pub fn of_field(field: &'static Field) -> Place {
        // Where upstream doesn't say what kind of list it is, the key it is patched by counts.
        let list = match field.patch.merge_key.as_slice() {
            _ if field.listed => field.list,
            [] if field.patch.merge => ListKind::Set,
            keys if field.patch.merge => ListKind::Map(keys),
            _ => field.list,
        };
        Place { ty: field.ty, list, map_atomic: field.map_atomic }
    }

    /// A place of which nothing is known.
    pub fn any() -> Place {
        Place::inner(&FieldType::Any)
    }

    /// The place of an item or value whose list kind no field states.
    pub fn inner(ty: &FieldType) -> Place {
        Place { ty: *ty, list: ListKind::Atomic, map_atomic: false }
    }

    pub fn atom(self) -> Atom {
        match self.ty {
            FieldType::Ref(id) => {
                let ty = id.get();
                match ty.shape {
                    Shape::Object => Atom::Object { ty, atomic: self.map_atomic || ty.atomic },
                    Shape::RawExtension | Shape::FieldsV1 => Atom::Map { item: Place::any(), atomic: self.map_atomic },
                    Shape::Any | Shape::Json => Atom::Deduced,
                    Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime => {
                        Atom::Scalar(Scalar::Untyped)
                    }
                }
            }
            FieldType::String | FieldType::Bytes => Atom::Scalar(Scalar::String),
            FieldType::Int32 | FieldType::Int64 | FieldType::Double => Atom::Scalar(Scalar::Numeric),
            FieldType::Bool => Atom::Scalar(Scalar::Boolean),
            FieldType::Array(item) => Atom::List { item: Place::inner(item), kind: self.list },
            FieldType::Map(item) => Atom::Map { item: Place::inner(item), atomic: self.map_atomic },
            FieldType::Any => Atom::Deduced,
        }
    }
}

impl Atom {
    /// The root of an object of type `ty`.
    pub fn root(ty: &'static Type) -> Atom {
        Atom::Object { ty, atomic: false }
    }

    /// The place of the entry `name` of a map or object; None when an object has no such field.
    pub fn entry(&self, name: &str) -> Option<Place> {
        match self {
            Atom::Object { ty, .. } => find_field(ty, name).map(Place::of_field),
            Atom::Map { item, .. } => Some(*item),
            Atom::Deduced => Some(Place::any()),
            Atom::Scalar(_) | Atom::List { .. } => None,
        }
    }

    /// Whether entry `name` is a named field rather than a key of a map.
    pub fn names(&self, name: &str) -> bool {
        matches!(self, Atom::Object { ty, .. } if find_field(ty, name).is_some())
    }
}

/// The field `name` of `ty`; names are case-sensitive.
pub fn find_field(ty: &'static Type, name: &str) -> Option<&'static Field> {
    let fields: &'static [Field] = ty.fields;
    fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|i| &fields[i])
}

/// Does `each` to the objects right below one of type `ty`, through lists and maps.
pub(super) fn each_inner(ty: &'static Type, map: &mut Map, each: fn(&'static Type, &mut Value)) {
    for (name, value) in map.iter_mut() {
        if matches!(value, Value::Object(_) | Value::Array(_))
            && let Some(field) = find_field(ty, name)
        {
            each_object(&field.ty, value, each);
        }
    }
}

fn each_object(ty: &'static FieldType, value: &mut Value, each: fn(&'static Type, &mut Value)) {
    match (ty, value) {
        (FieldType::Ref(id), value) if id.get().shape == Shape::Object => each(id.get(), value),
        (FieldType::Array(item), Value::Array(items)) => items.iter_mut().for_each(|v| each_object(item, v, each)),
        (FieldType::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| each_object(item, v, each)),
        _ => {}
    }
}

/// The field's default as the tables have it.
pub fn default_of(field: &Field) -> Option<Value> {
    json::parse(field.default?.as_bytes()).ok()
}
