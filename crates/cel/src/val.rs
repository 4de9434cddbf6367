//! Values while an expression is evaluated. What comes from outside is borrowed; what is made is shared.

use crate::decl::{DeclKind, DeclType, ListType};
use crate::eval::EvalError;
use crate::library::kubernetes::Opaque;
use crate::made::Made;
use crate::time::Timestamp;
use crate::types::Type;
use canopus_api::Value;
use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

/// A value of the language.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    Type(Type),
    Optional(Option<Arc<Val<'a>>>),
    /// An object that the expression made: `Object{…}`.
    Struct(Arc<Struct<'a>>),
    /// A value of Kubernetes' own types.
    Opaque(Arc<Opaque<'a>>),
    /// A variable whose fields are asked of the bindings, one by one.
    Lazy(&'static str),
}

/// A string, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    /// JSON, and what the list is declared to be.
    Json(&'a [Value], Option<&'a DeclType>),
    Made(Arc<Vec<Val<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A JSON object, and what it is declared to be.
    Json(&'a canopus_api::Map, Option<&'a DeclType>),
    Made(Arc<Made<'a>>),
}

#[derive(Clone, Debug)]
pub struct Struct<'a> {
    pub name: Arc<str>,
    pub fields: Vec<(Arc<str>, Val<'a>)>,
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(s) => s,
            Text::Shared(s) => s,
        }
    }
}

impl<'a> From<&'a str> for Val<'a> {
    fn from(s: &'a str) -> Val<'a> {
        Val::Str(Text::Borrowed(s))
    }
}

impl From<String> for Val<'_> {
    fn from(s: String) -> Self {
        Val::Str(Text::Shared(s.into()))
    }
}

impl From<bool> for Val<'_> {
    fn from(b: bool) -> Self {
        Val::Bool(b)
    }
}

impl From<i64> for Val<'_> {
    fn from(i: i64) -> Self {
        Val::Int(i)
    }
}

impl<'a> From<Vec<Val<'a>>> for Val<'a> {
    fn from(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Made(Arc::new(items)))
    }
}

impl<'a> Val<'a> {
    /// A JSON value as it is.
    pub fn json(value: &'a Value) -> Val<'a> {
        match value {
            Value::Null => Val::Null,
            Value::Bool(b) => Val::Bool(*b),
            Value::Int(i) => Val::Int(*i),
            Value::Float(f) => Val::Double(*f),
            Value::Str(s) => Val::Str(Text::Borrowed(s)),
            Value::Array(items) => Val::List(List::Json(items, None)),
            Value::Object(map) => Val::Map(Map::Json(map, None)),
        }
    }

    /// A JSON value as what it is declared to be: a string may be a time, an integer a double. What does not fit its
    /// declaration stays what it is.
    pub fn declared(value: &'a Value, decl: &'a DeclType) -> Val<'a> {
        match (&decl.kind, value) {
            (DeclKind::Dyn, value) => Val::json(value),
            (DeclKind::Double, Value::Int(i)) => Val::Double(*i as f64),
            (DeclKind::Int, Value::Float(f)) if f.fract() == 0.0 && f.abs() < 9.0e18 => Val::Int(*f as i64),
            (DeclKind::Bytes, Value::Str(s)) => {
                use base64::Engine;
                match base64::engine::general_purpose::STANDARD.decode(s.as_bytes()) {
                    Ok(bytes) => Val::Bytes(bytes.into()),
                    Err(_) => Val::json(value),
                }
            }
            (DeclKind::Timestamp, Value::Str(s)) => {
                Timestamp::parse(s).map_or_else(|| Val::json(value), Val::Timestamp)
            }
            (DeclKind::Date, Value::Str(s)) => {
                Timestamp::parse_date(s).map_or_else(|| Val::json(value), Val::Timestamp)
            }
            (DeclKind::Duration, Value::Str(s)) => {
                crate::time::parse_duration(s).map_or_else(|| Val::json(value), Val::Duration)
            }
            (DeclKind::List(..), Value::Array(items)) => Val::List(List::Json(items, Some(decl))),
            (DeclKind::Escaped, Value::Array(items)) => Val::List(List::Json(items, Some(decl))),
            (DeclKind::Map(_) | DeclKind::Object(_) | DeclKind::Escaped, Value::Object(map)) => {
                Val::Map(Map::Json(map, Some(decl)))
            }
            _ => Val::json(value),
        }
    }

    pub fn string(text: impl Into<Arc<str>>) -> Val<'a> {
        Val::Str(Text::Shared(text.into()))
    }

    pub(crate) fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn opaque(value: Opaque<'a>) -> Val<'a> {
        Val::Opaque(Arc::new(value))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Val::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Val::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The type that `type(x)` yields.
    pub fn ty(&self) -> Type {
        match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Uint(_) => Type::Uint,
            Val::Double(_) => Type::Double,
            Val::Str(_) => Type::String,
            Val::Bytes(_) => Type::Bytes,
            Val::List(_) => Type::list(Type::Dyn),
            Val::Map(Map::Json(_, Some(DeclType { kind: DeclKind::Object(object), .. }))) => Type::object(&object.name),
            Val::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Val::Timestamp(_) => Type::Timestamp,
            Val::Duration(_) => Type::Duration,
            Val::Type(_) => Type::Type(None),
            Val::Optional(_) => Type::optional(Type::Dyn),
            Val::Struct(s) => Type::Object(s.name.clone()),
            Val::Opaque(o) => o.ty(),
            Val::Lazy(_) => Type::Dyn,
        }
    }

    /// How large the value counts as: characters, bytes, items; one for anything else.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Val::Str(s) => s.chars().count() as u64,
            Val::Bytes(b) => b.len() as u64,
            Val::List(l) => l.len() as u64,
            Val::Map(m) => m.len() as u64,
            Val::Optional(Some(v)) => v.size(),
            Val::Opaque(o) => o.size(),
            _ => 1,
        }
    }

    /// Whether two values are equal. Those of different types are not, but that numbers are compared across types.
    pub fn equals(&self, other: &Val<'a>) -> bool {
        self.equals_within(other, &Fuel::new())
    }

    fn equals_within(&self, other: &Val<'a>, fuel: &Fuel) -> bool {
        if !fuel.burn() {
            return false;
        }
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => **a == **b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a.name() == b.name(),
            (Val::List(a), Val::List(b)) if a.is_keyed() || b.is_keyed() => crate::keyed::equal(a, b),
            (Val::List(a), Val::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals_within(&b, fuel))
            }
            (Val::Map(a), Val::Map(b)) => a.equals(b, fuel),
            (Val::Optional(None), Val::Optional(None)) => true,
            (Val::Optional(Some(a)), Val::Optional(Some(b))) => a.equals_within(b, fuel),
            (Val::Struct(a), Val::Struct(b)) => {
                a.name == b.name
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().all(|(k, v)| b.fields.iter().any(|(n, w)| k == n && v.equals_within(w, fuel)))
            }
            (Val::Opaque(a), Val::Opaque(b)) => a.equals(b),
            _ => numbers(self, other) == Some(Ordering::Equal),
        }
    }

    /// Which is greater; None if the two have no order.
    pub(crate) fn order(&self, other: &Val<'a>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Str(a), Val::Str(b)) => Some((**a).cmp(&**b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            _ => numbers(self, other),
        }
    }

    /// The value as JSON; what has no JSON form is an error.
    pub fn to_json(&self) -> Result<Value, EvalError> {
        self.to_json_within(&Fuel::new())
    }

    fn to_json_within(&self, fuel: &Fuel) -> Result<Value, EvalError> {
        if !fuel.burn() {
            return Err(EvalError::over_budget());
        }
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(b) => Value::Bool(*b),
            Val::Int(i) => Value::Int(*i),
            Val::Uint(u) => i64::try_from(*u).map_or(Value::Float(*u as f64), Value::Int),
            Val::Double(d) => Value::Float(*d),
            Val::Str(s) => Value::Str((**s).into()),
            Val::Bytes(b) => {
                use base64::Engine;
                Value::Str(base64::engine::general_purpose::STANDARD.encode(b).into())
            }
            Val::Timestamp(t) => Value::Str(t.rfc3339().into()),
            Val::Duration(d) => Value::Str(crate::time::duration_text(*d).into()),
            Val::List(List::Json(items, _)) => Value::Array(items.to_vec()),
            Val::List(list) => Value::Array(list.iter().map(|v| v.to_json_within(fuel)).collect::<Result<_, _>>()?),
            Val::Map(Map::Json(map, _)) => Value::Object((*map).clone()),
            Val::Map(Map::Made(entries)) => {
                let mut out = Value::object();
                for (key, value) in entries.iter() {
                    out.set(&crate::library::strings::plain(key), value.to_json_within(fuel)?);
                }
                out
            }
            Val::Struct(s) => {
                let mut out = Value::object();
                for (key, value) in &s.fields {
                    out.set(key, value.to_json_within(fuel)?);
                }
                out
            }
            Val::Optional(Some(v)) => v.to_json_within(fuel)?,
            other => {
                return Err(EvalError::new(format!("unsupported type conversion of '{}' to JSON", other.ty().name())));
            }
        })
    }
}

/// How many values a walk may visit. A value that holds another twice, and so on, is small and yet has no end of parts.
struct Fuel(Cell<u32>);

impl Fuel {
    fn new() -> Fuel {
        Fuel(Cell::new(2_000_000))
    }

    fn burn(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

fn numbers(a: &Val, b: &Val) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Double(a), Val::Int(b)) => double(*a, i128::from(*b)),
        (Val::Int(a), Val::Double(b)) => double(*b, i128::from(*a)).map(Ordering::reverse),
        (Val::Double(a), Val::Uint(b)) => double(*a, i128::from(*b)),
        (Val::Uint(a), Val::Double(b)) => double(*b, i128::from(*a)).map(Ordering::reverse),
        _ => None,
    }
}

fn double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1.0e30 {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let whole = a.floor();
    Some((whole as i128).cmp(&b).then(if a > whole { Ordering::Greater } else { Ordering::Equal }))
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, i: usize) -> Option<Val<'a>> {
        match self {
            List::Json(items, decl) => items.get(i).map(|v| match decl.map(|d| (d, &d.kind)) {
                Some((_, DeclKind::List(of, _))) => Val::declared(v, of),
                Some((decl, DeclKind::Escaped)) => Val::declared(v, decl),
                _ => Val::json(v),
            }),
            List::Made(items) => items.get(i).cloned(),
        }
    }

    /// What makes two of its items the same, if that is declared.
    pub(crate) fn list_type(&self) -> &'a ListType {
        match self {
            List::Json(_, Some(DeclType { kind: DeclKind::List(_, list_type), .. })) => list_type,
            _ => &ListType::Atomic,
        }
    }

    pub(crate) fn is_keyed(&self) -> bool {
        *self.list_type() != ListType::Atomic
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry under a key. Fields of declared objects go by the names that expressions use.
    pub fn get(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Map::Json(..), Val::Str(name)) => self.field(name),
            (Map::Json(..), _) => None,
            (Map::Made(made), key) => made.get(key),
        }
    }

    pub fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Map::Json(map, None) => map.get(name).map(Val::json),
            Map::Json(map, Some(decl)) => match &decl.kind {
                DeclKind::Object(object) => {
                    let field = object.fields.get(name)?;
                    let value = match map.get(name) {
                        Some(value) => value,
                        None => map.get(&crate::escape::unescape(name)?)?,
                    };
                    Some(Val::declared(value, field))
                }
                DeclKind::Map(of) => map.get(name).map(|v| Val::declared(v, of)),
                DeclKind::Escaped => {
                    let spelled = crate::escape::unescape(name);
                    map.get(spelled.as_deref().unwrap_or(name)).map(|v| Val::declared(v, decl))
                }
                _ => map.get(name).map(Val::json),
            },
            Map::Made(made) => made.field(name),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Val<'a>, Val<'a>)> + '_ {
        let json: Box<dyn Iterator<Item = (Val<'a>, Val<'a>)> + '_> = match self {
            Map::Json(map, decl) => {
                let (map, decl) = (*map, *decl);
                Box::new(map.iter().map(move |(k, v)| {
                    let value = match decl.map(|d| (d, &d.kind)) {
                        Some((_, DeclKind::Map(of))) => Val::declared(v, of),
                        Some((decl, DeclKind::Escaped)) => Val::declared(v, decl),
                        Some((_, DeclKind::Object(object))) => {
                            match crate::escape::escape(k).and_then(|k| object.fields.get(&k)) {
                                Some(field) => Val::declared(v, field),
                                None => Val::json(v),
                            }
                        }
                        _ => Val::json(v),
                    };
                    (Val::Str(Text::Borrowed(k)), value)
                }))
            }
            Map::Made(entries) => Box::new(entries.iter().cloned()),
        };
        json
    }

    fn equals(&self, other: &Map<'a>, fuel: &Fuel) -> bool {
        if let (Map::Json(a, None), Map::Json(b, None)) = (self, other)
            && a.is_shared_with(b)
        {
            return true;
        }
        self.len() == other.len() && self.iter().all(|(k, v)| other.get(&k).is_some_and(|w| v.equals_within(&w, fuel)))
    }
}
