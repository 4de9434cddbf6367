//! CEL's types, how they print, and when one may stand for another.

use std::fmt;
use std::sync::Arc;

/// A type of the language.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Dyn,
    /// What an expression in error has: it fits everywhere, so that one mistake is reported once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    Optional(Arc<Type>),
    /// An object with declared fields.
    Object(Arc<str>),
    /// A type without fields: `net.IP`.
    Opaque(Arc<str>),
    /// A type parameter of a function's signature.
    Param(Arc<str>),
    /// A free type variable of the checker.
    Var(u32),
}

impl Type {
    pub fn list(of: Type) -> Type {
        Type::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    pub fn object(name: &str) -> Type {
        Type::Object(name.into())
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    fn parameters(&self) -> Vec<&Type> {
        match self {
            Type::List(of) | Type::Optional(of) | Type::Type(Some(of)) => vec![of],
            Type::Map(of) => vec![&of.0, &of.1],
            _ => Vec::new(),
        }
    }

    /// Whether the type has at most `left` parts. Types can double with each step of an expression.
    pub(crate) fn fits(&self, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.parameters().into_iter().all(|p| p.fits(left))
    }

    fn is_free(&self) -> bool {
        matches!(self, Type::Param(_) | Type::Var(_))
    }

    /// The name that `type(x)` prints.
    pub fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Type(_) => "type",
            Type::Optional(_) => "optional_type",
            Type::Object(name) | Type::Opaque(name) | Type::Param(name) => name,
            Type::Var(_) => "_var",
        }
    }
}

impl fmt::Display for Type {
    /// As cel-go's checker prints types in its messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Type::Var(n) => write!(f, "_var{n}"),
            other => f.write_str(other.name()),
        }
    }
}

/// What the free type variables of one expression have been found to be.
#[derive(Default)]
pub(crate) struct Substitutions {
    bound: Vec<Option<Type>>,
    /// What was bound before, so that it can be undone.
    trail: Vec<(usize, Option<Type>)>,
}

impl Substitutions {
    pub(crate) fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Var(self.bound.len() as u32 - 1)
    }

    fn find(&self, t: &Type) -> Option<&Type> {
        match t {
            Type::Var(n) => self.bound.get(*n as usize)?.as_ref(),
            _ => None,
        }
    }

    fn set(&mut self, t: &Type, to: Type) {
        if let Type::Var(n) = t
            && let Some(slot) = self.bound.get_mut(*n as usize)
        {
            self.trail.push((*n as usize, slot.replace(to)));
        }
    }

    /// The type with what is known of its variables filled in; with `to_dyn`, the others become `dyn`.
    pub(crate) fn apply(&self, t: &Type, to_dyn: bool) -> Type {
        if let Some(found) = self.find(t) {
            return self.apply(found, to_dyn);
        }
        match t {
            Type::Var(_) | Type::Param(_) if to_dyn => Type::Dyn,
            Type::List(of) => Type::list(self.apply(of, to_dyn)),
            Type::Optional(of) => Type::optional(self.apply(of, to_dyn)),
            Type::Map(of) => Type::map(self.apply(&of.0, to_dyn), self.apply(&of.1, to_dyn)),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(self.apply(of, to_dyn)))),
            other => other.clone(),
        }
    }

    /// Whether the pairs agree; what that says of variables is kept only if they all do.
    pub(crate) fn assignable(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        self.trail.clear();
        let all = pairs.iter().all(|(a, b)| self.unify(a, b));
        if !all {
            while let Some((n, before)) = self.trail.pop() {
                self.bound[n] = before;
            }
        }
        all
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if b.is_free() {
            let (valid, known) = self.substitutes(a, b);
            if valid {
                return true;
            }
            if known {
                return false;
            }
        }
        if a.is_free() {
            return self.substitutes(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Timestamp | Type::Duration
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            _ => a == b,
        }
    }

    /// Whether `t` may stand for the variable `var`, and whether `var` is bound already.
    fn substitutes(&mut self, t: &Type, var: &Type) -> (bool, bool) {
        if t == var {
            return (true, true);
        }
        if let Some(bound) = self.find(var).cloned() {
            if *t == bound {
                return (true, true);
            }
            if self.unify(t, &bound) {
                let general = most_general(t, &bound).clone();
                if !self.occurs(var, &general) {
                    self.set(var, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.occurs(var, t) {
            return (false, false);
        }
        self.set(var, t.clone());
        (true, false)
    }

    fn occurs(&self, var: &Type, within: &Type) -> bool {
        if var == within {
            return true;
        }
        if within.is_free() {
            return self.find(within).is_some_and(|bound| self.occurs(var, bound));
        }
        within.parameters().into_iter().any(|p| self.occurs(var, p))
    }
}

/// Of two types that agree, the one that says less.
pub(crate) fn most_general<'a>(a: &'a Type, b: &'a Type) -> &'a Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if matches!(a, Type::Dyn) || a.is_free() {
        return true;
    }
    if matches!(b, Type::Dyn) || b.is_free() {
        return false;
    }
    match (a, b) {
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        _ => a == b,
    }
}
