//! A place in an object as the tables type it: what every schema-driven walk stands on.

use super::structural::Structural;
use crate::json;
use crate::value::{Map, Value};
use canopus_schema::{Field, FieldType, ListKind, Shape, Type};
use compact_str::CompactString;

/// What is known of a whole object: a built-in type, or the structural schema of a custom resource.
#[derive(Clone, Copy)]
pub enum Schema<'a> {
    Table(&'static Type),
    Custom(&'a Structural),
}

impl From<&'static Type> for Schema<'_> {
    fn from(ty: &'static Type) -> Self {
        Schema::Table(ty)
    }
}

impl<'a> Schema<'a> {
    /// The type, for what only built-in kinds have (strategic merge, protobuf).
    pub fn table(self) -> Option<&'static Type> {
        match self {
            Schema::Table(ty) => Some(ty),
            Schema::Custom(_) => None,
        }
    }

    /// The field `name`; None when there is none.
    fn field(self, name: &str) -> Option<Place<'a>> {
        match self {
            Schema::Table(ty) => find_field(ty, name).map(Place::of_field),
            Schema::Custom(schema) => schema.field(name),
        }
    }

    /// The default of the field `name`.
    pub fn default_of(self, name: &str) -> Option<Value> {
        match self {
            Schema::Table(ty) => find_field(ty, name).and_then(default_of),
            Schema::Custom(schema) => schema.properties.get(name)?.default.clone(),
        }
    }
}

/// The type of one place and how its field treats lists and maps.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Table { ty: FieldType, list: ListKind, map_atomic: Option<bool> },
    Custom(&'a Structural),
}

/// What structured-merge-diff makes of a place.
#[derive(Clone, Copy)]
pub enum Atom<'a> {
    Scalar(Scalar),
    List {
        item: Place<'a>,
        kind: ItemKind<'a>,
    },
    Map {
        item: Place<'a>,
        atomic: bool,
    },
    Object {
        ty: Schema<'a>,
        atomic: bool,
    },
    /// Untyped: scalars and lists are leaves, maps are walked.
    Deduced,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy)]
pub enum ItemKind<'a> {
    Atomic,
    Set,
    Map(Keys<'a>),
}

impl ItemKind<'_> {
    pub fn is_atomic(self) -> bool {
        matches!(self, ItemKind::Atomic)
    }
}

impl From<ListKind> for ItemKind<'_> {
    fn from(kind: ListKind) -> Self {
        match kind {
            ListKind::Atomic => ItemKind::Atomic,
            ListKind::Set => ItemKind::Set,
            ListKind::Map(keys) => ItemKind::Map(Keys::Table(keys)),
        }
    }
}

/// The fields that make the key of an item.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    Table(&'static [&'static str]),
    Custom(&'a [CompactString]),
}

impl<'a> Keys<'a> {
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (table, custom): (&'static [&'static str], &'a [CompactString]) = match self {
            Keys::Table(keys) => (keys, &[]),
            Keys::Custom(keys) => (&[], keys),
        };
        table.iter().copied().chain(custom.iter().map(CompactString::as_str))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

impl<'a> Place<'a> {
    pub fn of_field(field: &'static Field) -> Place<'a> {
        // Where upstream doesn't say what kind of list it is, the key it is patched by counts.
        let list = match field.patch.merge_key.as_slice() {
            _ if field.listed => field.list,
            [] if field.patch.merge => ListKind::Set,
            keys if field.patch.merge => ListKind::Map(keys),
            _ => field.list,
        };
        Place::Table { ty: field.ty, list, map_atomic: field.map_atomic }
    }

    /// A place of which nothing is known.
    pub fn any() -> Place<'a> {
        Place::inner(&FieldType::Any)
    }

    /// The place of an item or value whose list kind no field states.
    pub fn inner(ty: &FieldType) -> Place<'a> {
        Place::Table { ty: *ty, list: ListKind::Atomic, map_atomic: None }
    }

    pub fn atom(self) -> Atom<'a> {
        let (ty, list, map_atomic) = match self {
            Place::Table { ty, list, map_atomic } => (ty, list, map_atomic),
            Place::Custom(schema) => return schema.atom(),
        };
        match ty {
            FieldType::Ref(id) => {
                let ty = id.get();
                match ty.shape {
                    Shape::Object => Atom::Object { ty: ty.into(), atomic: map_atomic.unwrap_or(ty.atomic) },
                    // Nobody knows what it is.
                    Shape::RawExtension | Shape::FieldsV1 => Atom::Map { item: Place::any(), atomic: true },
                    Shape::Any | Shape::Json => Atom::Deduced,
                    Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime => {
                        Atom::Scalar(Scalar::Untyped)
                    }
                }
            }
            FieldType::String | FieldType::Bytes => Atom::Scalar(Scalar::String),
            FieldType::Int32 | FieldType::Int64 | FieldType::Double => Atom::Scalar(Scalar::Numeric),
            FieldType::Bool => Atom::Scalar(Scalar::Boolean),
            FieldType::Array(item) => Atom::List { item: Place::inner(item), kind: list.into() },
            FieldType::Map(item) => Atom::Map { item: Place::inner(item), atomic: map_atomic == Some(true) },
            FieldType::Any => Atom::Deduced,
        }
    }
}

impl<'a> Atom<'a> {
    /// The root of an object.
    pub fn root(ty: Schema<'a>) -> Atom<'a> {
        Atom::Object { ty, atomic: false }
    }

    /// The place of the entry `name` of a map or object; None when an object has no such field.
    pub fn entry(&self, name: &str) -> Option<Place<'a>> {
        match self {
            Atom::Object { ty, .. } => ty.field(name),
            Atom::Map { item, .. } => Some(*item),
            Atom::Deduced => Some(Place::any()),
            Atom::Scalar(_) | Atom::List { .. } => None,
        }
    }

    /// Whether entry `name` is a named field rather than a key of a map.
    pub fn names(&self, name: &str) -> bool {
        match self {
            Atom::Object { ty: Schema::Table(ty), .. } => find_field(ty, name).is_some(),
            Atom::Object { ty: Schema::Custom(schema), .. } => schema.names(name),
            _ => false,
        }
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

fn holds_objects(ty: &FieldType) -> bool {
    match ty {
        FieldType::Array(item) | FieldType::Map(item) => holds_objects(item),
        FieldType::Ref(id) => id.get().shape == Shape::Object,
        _ => false,
    }
}

fn each_object(ty: &'static FieldType, value: &mut Value, each: fn(&'static Type, &mut Value)) {
    match (ty, value) {
        (FieldType::Ref(id), value) if id.get().shape == Shape::Object => each(id.get(), value),
        // What holds no objects is left alone, and so goes on being shared.
        (FieldType::Array(item) | FieldType::Map(item), _) if !holds_objects(item) => {}
        (FieldType::Array(item), Value::Array(items)) => items.iter_mut().for_each(|v| each_object(item, v, each)),
        (FieldType::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| each_object(item, v, each)),
        _ => {}
    }
}

/// Whether each of the objects right below one of type `ty`, through lists and maps, is `such`.
pub(super) fn all_inner(ty: &'static Type, map: &Map, such: fn(&'static Type, &Value) -> bool) -> bool {
    map.iter().all(|(name, value)| {
        !matches!(value, Value::Object(_) | Value::Array(_))
            || find_field(ty, name).is_none_or(|field| all_objects(&field.ty, value, such))
    })
}

fn all_objects(ty: &'static FieldType, value: &Value, such: fn(&'static Type, &Value) -> bool) -> bool {
    match (ty, value) {
        (FieldType::Ref(id), value) if id.get().shape == Shape::Object => such(id.get(), value),
        (FieldType::Array(item) | FieldType::Map(item), _) if !holds_objects(item) => true,
        (FieldType::Array(item), Value::Array(items)) => items.iter().all(|v| all_objects(item, v, such)),
        (FieldType::Map(item), Value::Object(map)) => map.values().all(|v| all_objects(item, v, such)),
        _ => true,
    }
}

/// The field's default as the tables have it.
pub fn default_of(field: &Field) -> Option<Value> {
    json::parse(field.default?.as_bytes()).ok()
}
