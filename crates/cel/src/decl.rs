//! What an expression may use: variables and the fields of their types.

use crate::types::Type;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Knows the fields of object types, and how large what a path leads to can become.
pub trait TypeProvider: Send + Sync {
    /// The type of `field` of the object type `object`; None if there is no such field.
    fn field(&self, object: &str, field: &str) -> Option<Type>;

    /// Whether `name` is an object type at all, so that `Name{…}` makes one.
    fn is_object(&self, name: &str) -> bool;

    /// Upper bound of the length of what `path` leads to (a variable, then fields, `@items`, `@values` or `@keys`).
    fn size(&self, path: &[&str]) -> Option<u64> {
        let _ = path;
        None
    }
}

/// A type with the bounds that a schema sets, for cost estimates, and what a JSON value of it becomes.
#[derive(Clone, Debug)]
pub struct DeclType {
    pub kind: DeclKind,
    /// At most so many items, entries or bytes.
    pub max_elements: Option<u64>,
    /// The fewest bytes that JSON of this type takes.
    pub min_serialized: u64,
}

#[derive(Clone, Debug)]
pub enum DeclKind {
    /// Whatever the value is.
    Dyn,
    /// The same, where expressions spell keys as they spell fields: `a.b__dot__c` is the key `b.c`.
    Escaped,
    Bool,
    Int,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339 in JSON.
    Timestamp,
    /// `YYYY-MM-DD` in JSON.
    Date,
    /// `1h2m` in JSON.
    Duration,
    List(Arc<DeclType>, ListType),
    /// With strings as keys.
    Map(Arc<DeclType>),
    Object(Arc<ObjectDecl>),
}

/// Whether the order of a list's items matters, and what makes two of them the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// By the values of these fields.
    Map(Vec<String>),
}

/// An object type. Fields are known by the names that expressions use for them ([`crate::escape`]).
#[derive(Clone, Default)]
pub struct ObjectDecl {
    pub name: String,
    pub fields: BTreeMap<String, DeclType>,
}

impl fmt::Debug for ObjectDecl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectDecl({}: {:?})", self.name, self.fields.keys())
    }
}

impl DeclType {
    pub fn new(kind: DeclKind, min_serialized: u64) -> DeclType {
        DeclType { kind, max_elements: None, min_serialized }
    }

    pub fn with_max(mut self, max: u64) -> DeclType {
        self.max_elements = Some(max);
        self
    }

    /// What the checker sees.
    pub fn ty(&self) -> Type {
        match &self.kind {
            DeclKind::Dyn | DeclKind::Escaped => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Timestamp | DeclKind::Date => Type::Timestamp,
            DeclKind::Duration => Type::Duration,
            DeclKind::List(of, _) => Type::list(of.ty()),
            DeclKind::Map(of) => Type::map(Type::String, of.ty()),
            DeclKind::Object(object) => Type::object(&object.name),
        }
    }

    /// The type one step of a path further.
    fn step(&self, name: &str) -> Option<&DeclType> {
        match (&self.kind, name) {
            (DeclKind::List(of, _), "@items") | (DeclKind::Map(of), "@values") => Some(of),
            (DeclKind::Object(object), field) => object.fields.get(field),
            _ => None,
        }
    }

    fn objects(&self, found: &mut BTreeMap<String, Arc<ObjectDecl>>) {
        match &self.kind {
            DeclKind::List(of, _) | DeclKind::Map(of) => of.objects(found),
            DeclKind::Object(object) => {
                found.insert(object.name.clone(), object.clone());
                object.fields.values().for_each(|f| f.objects(found));
            }
            _ => {}
        }
    }
}

/// A [`TypeProvider`] over the types of some variables.
///
/// Each object type in them needs a name of its own; [`crate::schema::declare`] sees to it.
#[derive(Default)]
pub struct DeclTypes {
    roots: BTreeMap<String, DeclType>,
    objects: BTreeMap<String, Arc<ObjectDecl>>,
}

impl DeclTypes {
    pub fn new(variables: impl IntoIterator<Item = (String, DeclType)>) -> DeclTypes {
        let mut types = DeclTypes::default();
        for (name, decl) in variables {
            decl.objects(&mut types.objects);
            types.roots.insert(name, decl);
        }
        types
    }
}

impl TypeProvider for DeclTypes {
    fn field(&self, object: &str, field: &str) -> Option<Type> {
        Some(self.objects.get(object)?.fields.get(field)?.ty())
    }

    fn is_object(&self, name: &str) -> bool {
        self.objects.contains_key(name)
    }

    fn size(&self, path: &[&str]) -> Option<u64> {
        let (first, rest) = path.split_first()?;
        let mut at = self.roots.get(*first)?;
        for name in rest {
            if *name == "@keys" && matches!(at.kind, DeclKind::Map(_)) {
                // As upstream: a schema says nothing of the lengths of its maps' keys, which count for nothing.
                return Some(0);
            }
            at = at.step(name)?;
        }
        Some(at.max_elements.unwrap_or(0))
    }
}
