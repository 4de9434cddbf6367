//! What a kind of expression may use, and the way from its text to a program.

use crate::ast::{Expr, Kind, Literal};
use crate::decl::TypeProvider;
use crate::issue::Issue;
use crate::program::Program;
use crate::types::Type;
use crate::{checker, cost, parser, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The variables and types that expressions of one kind see. Functions are those of Kubernetes 1.36's base environment.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
    provider: Option<Arc<dyn TypeProvider>>,
    mutation: bool,
    bindings: bool,
}

impl Env {
    pub fn new() -> Env {
        Env::default()
    }

    /// Declares a variable.
    pub fn variable(mut self, name: &str, ty: Type) -> Env {
        self.variables.insert(name.into(), ty);
        self
    }

    /// Says where the fields of object types are known.
    pub fn types(mut self, provider: Arc<dyn TypeProvider>) -> Env {
        self.provider = Some(provider);
        self
    }

    /// Allows what mutations need: `Object{…}`, `JSONPatch{…}`, `jsonpatch.escapeKey`.
    pub fn mutations(mut self) -> Env {
        self.mutation = true;
        self
    }

    /// Allows `cel.bind(name, value, expression)`.
    pub fn bindings(mut self) -> Env {
        self.bindings = true;
        self
    }

    /// Reads, checks and plans an expression.
    pub fn compile(&self, source: &str) -> Result<Program, Vec<Issue>> {
        let parsed = parser::parse(source, self.bindings)?;
        let checked = checker::check(self, source, parsed)?;
        let cost = cost::estimate(self, &checked);
        let mut reads = BTreeSet::new();
        read(self, &checked.expr, &mut reads);
        Ok(Program { root: plan::plan(self, &checked), result: checked.result, cost, source: source.into(), reads })
    }

    /// Whether an expression asks for `field` of `variable`, be it `variable.field`, `variable.?field` or `has(…)`.
    pub fn selects(source: &str, variable: &str, field: &str) -> bool {
        parser::parse(source, false).is_ok_and(|parsed| selects(&parsed.expr, variable, field))
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<Type> {
        if let Some(ty) = self.variables.get(name) {
            return Some(ty.clone());
        }
        let named = crate::signatures::type_name(name).or_else(|| self.is_object(name).then(|| Type::object(name)))?;
        Some(Type::Type(Some(Arc::new(named))))
    }

    pub(crate) fn is_variable(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    pub(crate) fn is_object(&self, name: &str) -> bool {
        (self.mutation && is_mutation_type(name)) || self.provider.as_ref().is_some_and(|p| p.is_object(name))
    }

    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Type> {
        if self.mutation && is_mutation_type(object) {
            return Some(if object == "JSONPatch" && field != "value" { Type::String } else { Type::Dyn });
        }
        self.provider.as_ref()?.field(object, field)
    }

    pub(crate) fn size(&self, path: &[&str]) -> Option<u64> {
        self.provider.as_ref()?.size(path)
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.mutation || !crate::signatures::MUTATION_ONLY.contains(&name)
    }
}

/// The declared variables that an expression speaks of.
fn read(env: &Env, expr: &Expr, found: &mut BTreeSet<String>) {
    if let Kind::Ident(name) = &expr.kind
        && env.is_variable(name)
    {
        found.insert(name.clone());
    }
    expr.kind.children(&mut |child| read(env, child, found));
}

fn selects(expr: &Expr, variable: &str, field: &str) -> bool {
    let is_variable = |e: &Expr| matches!(&e.kind, Kind::Ident(name) if name == variable);
    let here = match &expr.kind {
        Kind::Select { operand, field: name, .. } => name == field && is_variable(operand),
        Kind::Call { function, target: None, args } if function == "_?._" => match args.as_slice() {
            [operand, Expr { kind: Kind::Literal(Literal::String(name)), .. }] => name == field && is_variable(operand),
            _ => false,
        },
        _ => false,
    };
    let mut found = here;
    expr.kind.children(&mut |child| found |= selects(child, variable, field));
    found
}

fn is_mutation_type(name: &str) -> bool {
    name == "JSONPatch" || name == "Object" || name.starts_with("Object.")
}
