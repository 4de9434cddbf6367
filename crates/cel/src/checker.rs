//! Types: what each part of an expression is, and which overloads its calls may mean.

use crate::ast::{Comprehension, Entry, Expr, Id, Kind, Literal, StructField};
use crate::env::Env;
use crate::issue::Issue;
use crate::parser::Parsed;
use crate::signatures::{Overload, functions};
use crate::types::{Substitutions, Type, most_general};

/// A type of more parts than this is refused.
const LARGEST_TYPE: usize = 500;

/// An expression whose types agree.
pub(crate) struct Checked {
    pub(crate) expr: Expr,
    pub(crate) types: Vec<Type>,
    pub(crate) overloads: Vec<Vec<&'static str>>,
    pub(crate) result: Type,
}

pub(crate) fn check(env: &Env, source: &str, parsed: Parsed) -> Result<Checked, Vec<Issue>> {
    let nodes = parsed.offsets.len();
    let mut expr = parsed.expr;
    let mut checker = Checker {
        env,
        source,
        offsets: parsed.offsets,
        scopes: Vec::new(),
        subs: Substitutions::default(),
        types: vec![Type::Error; nodes],
        overloads: vec![Vec::new(); nodes],
        issues: Vec::new(),
    };
    checker.check(&mut expr);
    if checker.issues.is_empty() {
        checker.literals(&expr);
    }
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let types: Vec<Type> = checker.types.iter().map(|t| checker.subs.apply(t, true)).collect();
    let result = types[expr.id as usize].clone();
    Ok(Checked { expr, types, overloads: checker.overloads, result })
}

struct Checker<'a> {
    env: &'a Env,
    source: &'a str,
    offsets: Vec<usize>,
    scopes: Vec<(String, Type)>,
    subs: Substitutions,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static str>>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn issue(&mut self, id: Id, message: String) {
        let at = self.offsets.get(id as usize).copied().unwrap_or(0);
        self.issues.push(Issue::at(self.source, at, message));
    }

    fn set(&mut self, id: Id, ty: Type) {
        let ty = if ty.fits(&mut LARGEST_TYPE.clone()) {
            ty
        } else {
            self.issue(id, "type is too large".into());
            Type::Error
        };
        self.types[id as usize] = ty;
    }

    fn get(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone()
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.issue(id, format!("undeclared reference to '{name}' (in container '')"));
        self.set(id, Type::Error);
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.issue(id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// A variable or the name of a type. The names of a comprehension hide what is further out.
    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.scopes.iter().rev().find(|(n, _)| n == name);
        local.map(|(_, ty)| ty.clone()).or_else(|| self.env.lookup(name))
    }

    fn check(&mut self, expr: &mut Expr) {
        match &mut expr.kind {
            Kind::Literal(literal) => {
                let ty = match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::String(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                };
                self.set(expr.id, ty);
            }
            Kind::Ident(name) => match self.lookup(name) {
                Some(ty) => self.set(expr.id, ty),
                None => {
                    let name = name.clone();
                    self.undeclared(expr.id, &name);
                }
            },
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(items) => {
                let ty = self.list(items);
                self.set(expr.id, ty);
            }
            Kind::Map(entries) => {
                let ty = self.map(entries);
                self.set(expr.id, ty);
            }
            Kind::Struct { name, fields } => {
                let ty = self.structure(expr.id, name, fields);
                self.set(expr.id, ty);
            }
            Kind::Comprehension(fold) => {
                let ty = self.comprehension(fold);
                self.set(expr.id, ty);
            }
        }
    }

    fn select(&mut self, expr: &mut Expr) {
        if let Some(name) = expr.qualified_name()
            && let Some(ty) = self.lookup(&name)
        {
            self.set(expr.id, ty);
            expr.kind = Kind::Ident(name);
            return;
        }
        let Kind::Select { operand, field, test } = &mut expr.kind else { return };
        let mut ty = self.field(expr.id, operand, field, false);
        if *test {
            ty = Type::Bool;
        }
        let ty = self.subs.apply(&ty, false);
        self.set(expr.id, ty);
    }

    fn field(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.subs.apply(&self.get(operand), false);
        let (target, is_optional) = match &operand_type {
            Type::Optional(of) => ((**of).clone(), true),
            other => (other.clone(), false),
        };
        let result = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Object(name) => match self.env.field(name, field) {
                Some(ty) => ty,
                None if self.env.is_object(name) => {
                    self.issue(id, format!("undefined field '{field}'"));
                    Type::Error
                }
                None => {
                    self.issue(id, format!("unexpected failed resolution of '{name}'"));
                    Type::Error
                }
            },
            Type::Var(_) | Type::Param(_) => {
                self.subs.assignable(&[(&Type::Dyn, &target)]);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.issue(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(result) } else { result }
    }

    fn call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Call { function, target, args } = &mut expr.kind else { return };
        if function == "_?._" {
            let Some(Expr { kind: Kind::Literal(Literal::String(field)), .. }) = args.get(1) else {
                return self.issue(id, "unsupported optional field selection".into());
            };
            let field = field.clone();
            let ty = self.field(id, &mut args[0], &field, true);
            let ty = self.subs.apply(&ty, false);
            self.set(id, ty);
            self.set(args[1].id, Type::String);
            self.overloads[id as usize].push("select_optional_field");
            return;
        }
        args.iter_mut().for_each(|a| self.check(a));
        let known = |name: &str| functions().get(name).filter(|_| self.env.has_function(name));
        let Some(receiver) = target else {
            return match known(function) {
                Some(overloads) => self.resolve(id, function, overloads, None, args),
                None => self.undeclared(id, function),
            };
        };
        // `a.b.c(x)` is the function `a.b.c` if there is one.
        if let Some(prefix) = receiver.qualified_name() {
            let name = format!("{prefix}.{function}");
            if let Some(overloads) = known(&name) {
                self.resolve(id, &name, overloads, None, args);
                *function = name;
                *target = None;
                return;
            }
        }
        self.check(receiver);
        match functions().get(function.as_str()).filter(|_| self.env.has_function(function)) {
            Some(overloads) => self.resolve(id, function, overloads, Some(receiver), args),
            None => self.undeclared(id, function),
        }
    }

    fn resolve(&mut self, id: Id, name: &str, overloads: &'static [Overload], target: Option<&Expr>, args: &[Expr]) {
        let given: Vec<Type> = target.into_iter().chain(args).map(|a| self.get(a)).collect();
        if matches!(name, "_&&_" | "_||_") {
            return self.logical(id, name, args);
        }
        let mut result: Option<Type> = None;
        for overload in overloads {
            if overload.member != target.is_some() || overload.args.len() != given.len() {
                continue;
            }
            let fresh: Vec<Type> = overload.params.iter().map(|_| self.subs.fresh()).collect();
            let instantiate = |ty: &Type| instantiate(ty, overload, &fresh);
            let wanted: Vec<Type> = overload.args.iter().map(instantiate).collect();
            let pairs: Vec<(&Type, &Type)> = given.iter().zip(&wanted).collect();
            if !self.subs.assignable(&pairs) {
                continue;
            }
            self.overloads[id as usize].push(&overload.id);
            let ty = self.subs.apply(&instantiate(&overload.result), false);
            result = Some(match result {
                None => ty,
                Some(Type::Dyn) => Type::Dyn,
                Some(previous) if previous == ty => ty,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(ty) => self.set(id, ty),
            None => {
                let shown: Vec<String> = given.iter().map(|t| self.subs.apply(t, true).to_string()).collect();
                let signature = match (target, shown.split_first()) {
                    (Some(_), Some((first, rest))) => format!("{first}.({})", rest.join(", ")),
                    _ => format!("({})", shown.join(", ")),
                };
                self.issue(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
                self.set(id, Type::Error);
            }
        }
    }

    fn logical(&mut self, id: Id, name: &str, args: &[Expr]) {
        self.overloads[id as usize].push(if name == "_&&_" { "logical_and" } else { "logical_or" });
        let mut ty = Type::Bool;
        for arg in args {
            let found = self.get(arg);
            if !self.subs.assignable(&[(&found, &Type::Bool)]) {
                self.mismatch(arg.id, &Type::Bool, &found);
                ty = Type::Error;
            }
        }
        self.set(id, ty);
    }

    /// The type of an element that may be optional.
    fn element(&mut self, expr: &Expr, optional: bool) -> Type {
        let ty = self.get(expr);
        match (optional, &ty) {
            (false, _) => ty,
            (true, Type::Optional(of)) => (**of).clone(),
            (true, other) => {
                if !other.is_dyn_or_error() {
                    self.mismatch(expr.id, &Type::optional(ty.clone()), &ty);
                }
                ty
            }
        }
    }

    /// The type of both; anything, if they have none in common.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.subs.assignable(&[(&previous, &current)]) {
            return most_general(&previous, &current).clone();
        }
        Type::Dyn
    }

    fn list(&mut self, items: &mut [(Expr, bool)]) -> Type {
        let mut of = None;
        for (item, optional) in items {
            self.check(item);
            let ty = self.element(item, *optional);
            of = Some(self.join(of, ty));
        }
        Type::list(of.unwrap_or_else(|| self.subs.fresh()))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let ty = self.get(&entry.key);
            key = Some(self.join(key, ty));
            self.check(&mut entry.value);
            let ty = self.element(&entry.value, entry.optional);
            value = Some(self.join(value, ty));
        }
        let key = key.unwrap_or_else(|| self.subs.fresh());
        Type::map(key, value.unwrap_or_else(|| self.subs.fresh()))
    }

    fn structure(&mut self, id: Id, name: &str, fields: &mut [StructField]) -> Type {
        let Some(found) = self.lookup(name) else {
            self.undeclared(id, name);
            return Type::Error;
        };
        let ty = match found {
            Type::Type(Some(of)) if matches!(*of, Type::Object(_)) && self.env.is_object(name) => (*of).clone(),
            Type::Type(Some(of)) => {
                self.issue(id, format!("'{}' is not a message type", of.name()));
                return Type::Error;
            }
            other => {
                self.issue(id, format!("'{}' is not a type", other.name()));
                return Type::Error;
            }
        };
        for field in fields {
            self.check(&mut field.value);
            let wanted = self.env.field(name, &field.name).unwrap_or_else(|| {
                self.issue(field.id, format!("undefined field '{}'", field.name));
                Type::Error
            });
            let given = self.element(&field.value, field.optional);
            if !self.subs.assignable(&[(&wanted, &given)]) {
                let message =
                    format!("expected type of field '{}' is '{wanted}' but provided type is '{given}'", field.name);
                self.issue(field.id, message);
            }
        }
        ty
    }

    fn comprehension(&mut self, fold: &mut Comprehension) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.subs.apply(&self.get(&fold.range), false);
        let accu = self.get(&fold.init);
        let scope = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let (key, value) = match &range {
            Type::List(of) => (Type::Int, (**of).clone()),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Var(_) | Type::Dyn | Type::Error | Type::Param(_) => {
                self.subs.assignable(&[(&Type::Dyn, &range)]);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        match &fold.var2 {
            Some(var2) => {
                self.scopes.push((fold.var.clone(), key));
                self.scopes.push((var2.clone(), value));
            }
            None => {
                let one = if matches!(range, Type::List(_)) { value } else { key };
                self.scopes.push((fold.var.clone(), one));
            }
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &accu);
        self.scopes.truncate(scope + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(scope);
        self.subs.apply(&self.get(&fold.result), false)
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.get(expr);
        if !self.subs.assignable(&[(wanted, &found)]) {
            self.mismatch(expr.id, wanted, &found);
        }
    }

    /// Durations, times and regular expressions that are written out must be right, and what lists and maps that are
    /// written out hold must be of one type, but for the arguments of `format`.
    fn literals(&mut self, expr: &Expr) {
        let mut stack = vec![(expr, false)];
        while let Some((expr, within_format)) = stack.pop() {
            let mut mixed = within_format;
            match &expr.kind {
                Kind::Call { function, args, .. } => {
                    mixed |= function == "format";
                    self.written_argument(function, args);
                }
                Kind::List(items) if !mixed => self.one_type(items.iter().map(|(item, optional)| (item, *optional))),
                Kind::Map(entries) if !mixed => {
                    self.one_type(entries.iter().map(|e| (&e.key, false)));
                    self.one_type(entries.iter().map(|e| (&e.value, e.optional)));
                }
                _ => {}
            }
            expr.kind.children(&mut |child| stack.push((child, mixed)));
        }
    }

    fn one_type<'e>(&mut self, items: impl Iterator<Item = (&'e Expr, bool)>) {
        let mut first: Option<Type> = None;
        for (item, optional) in items {
            let ty = match self.subs.apply(&self.get(item), true) {
                Type::Optional(of) if optional => (*of).clone(),
                other => other,
            };
            match &first {
                None => first = Some(ty),
                Some(first) if *first != ty => {
                    self.mismatch(item.id, first, &ty);
                    return;
                }
                Some(_) => {}
            }
        }
    }

    fn written_argument(&mut self, function: &str, args: &[Expr]) {
        let Some(Expr { id, kind: Kind::Literal(Literal::String(text)) }) = args.last() else { return };
        let right = match function {
            "duration" => crate::time::parse_duration(text).is_some(),
            "timestamp" => crate::time::Timestamp::parse(text).is_some(),
            "matches" => crate::regexp::compile(text).is_ok(),
            _ => true,
        };
        if !right {
            self.issue(*id, format!("invalid {function} argument"));
        }
    }
}

fn instantiate(ty: &Type, overload: &Overload, fresh: &[Type]) -> Type {
    match ty {
        Type::Param(name) => {
            let found = overload.params.iter().position(|p| p == name).and_then(|i| fresh.get(i));
            found.cloned().unwrap_or(Type::Dyn)
        }
        Type::List(of) => Type::list(instantiate(of, overload, fresh)),
        Type::Optional(of) => Type::optional(instantiate(of, overload, fresh)),
        Type::Map(of) => Type::map(instantiate(&of.0, overload, fresh), instantiate(&of.1, overload, fresh)),
        Type::Type(Some(of)) => Type::Type(Some(std::sync::Arc::new(instantiate(of, overload, fresh)))),
        other => other.clone(),
    }
}
