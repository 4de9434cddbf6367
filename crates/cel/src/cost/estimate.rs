//! What an expression may cost, from the sizes its declarations allow (cel-go's `checker.Cost`).

use super::{CostEstimate, LIST, MAP, STRUCT, Size, calls};
use crate::ast::{ACCUMULATOR, Comprehension, Expr, Id, Kind, Literal};
use crate::checker::Checked;
use crate::env::Env;
use crate::types::Type;
use std::collections::HashMap;

pub(crate) fn estimate(env: &Env, checked: &Checked) -> CostEstimate {
    let mut coster = Coster {
        env,
        checked,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        scopes: Vec::new(),
    };
    coster.cost(&checked.expr)
}

/// Sizes of what a container holds.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    is_list: bool,
    key: Size,
    value: Size,
}

struct Local {
    name: String,
    path: Vec<String>,
    size: Option<Size>,
    entries: Option<Entries>,
}

pub(super) struct Coster<'a> {
    env: &'a Env,
    pub(super) checked: &'a Checked,
    paths: HashMap<Id, Vec<String>>,
    sizes: HashMap<Id, Size>,
    entries: HashMap<Id, Entries>,
    scopes: Vec<Local>,
}

impl Coster<'_> {
    pub(super) fn ty(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id as usize]
    }

    pub(super) fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Literal(_) => CostEstimate::fixed(0),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |l| l.path.clone());
                self.paths.insert(expr.id, path);
                CostEstimate::fixed(1)
            }
            Kind::Select { operand, field, test } => {
                let cost = self.cost(operand);
                if *test {
                    return cost;
                }
                let path = self.extended(operand, field);
                self.paths.insert(expr.id, path);
                match self.ty(operand) {
                    Type::Map(_) | Type::Object(_) | Type::Param(_) | Type::Var(_) => cost.plus(CostEstimate::fixed(1)),
                    _ => cost,
                }
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut sum = CostEstimate::fixed(LIST);
                let mut held = Size { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for (item, _) in items {
                    sum = sum.plus(self.cost(item));
                    held = held.union(self.size_or_unknown(item));
                }
                self.entries.insert(expr.id, Entries { is_list: true, key: Size::fixed(1), value: held });
                sum
            }
            Kind::Map(items) => {
                let mut sum = CostEstimate::fixed(MAP);
                let none = Size { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value) = (none, none);
                for entry in items {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { is_list: false, key, value });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(CostEstimate::fixed(STRUCT), |sum, f| sum.plus(self.cost(&f.value)))
            }
            Kind::Comprehension(fold) if fold.is_bind() => {
                let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
                let local = self.bound(&fold.accu, &fold.init);
                self.scopes.push(local);
                let sum = sum.plus(self.cost(&fold.result));
                self.scopes.pop();
                self.copy_sizes(expr, &fold.result);
                sum
            }
            Kind::Comprehension(fold) => self.fold(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.scopes.iter().rev().find(|l| l.name == name)
    }

    pub(super) fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    pub(super) fn extended(&self, expr: &Expr, step: &str) -> Vec<String> {
        let mut path = self.path(expr);
        path.push(step.into());
        path
    }

    fn bound(&mut self, name: &str, value: &Expr) -> Local {
        Local { name: name.into(), path: self.path(value), size: self.size(value), entries: self.entries_of(value) }
    }

    fn fold(&mut self, expr: &Expr, fold: &Comprehension) -> CostEstimate {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let accu = self.bound(&fold.accu, &fold.init);
        self.scopes.push(accu);
        let depth = self.scopes.len();
        let entries = self.entries_of(&fold.range);
        let is_list = entries.map_or(matches!(self.ty(&fold.range), Type::List(_)), |e| e.is_list);
        let (key, value) = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        let mut declare = |name: &str, step: &str, size: Option<Size>| {
            let path = self.extended(&fold.range, step);
            self.scopes.push(Local { name: name.into(), path, size, entries: None });
        };
        match &fold.var2 {
            Some(var2) => {
                declare(&fold.var, key, entries.map(|e| e.key));
                declare(var2, value, entries.map(|e| e.value));
            }
            None if is_list => declare(&fold.var, value, entries.map(|e| e.value)),
            None => declare(&fold.var, key, entries.map(|e| e.key)),
        }
        let turn = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.scopes.truncate(depth);
        let sum = sum.plus(self.cost(&fold.result));
        self.scopes.pop();
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum.plus(count.by_cost(turn))
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> CostEstimate {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg);
            self.copy_sizes(expr, arg);
            return cost.plus(CostEstimate::fixed(1));
        }
        let costs: Vec<CostEstimate> = args.iter().map(|a| self.cost(a)).collect();
        let overloads = self.checked.overloads[expr.id as usize].clone();
        if overloads.is_empty() {
            return CostEstimate::default();
        }
        let sum = target.map_or(CostEstimate::default(), |t| self.cost(t));
        let mut cost = CostEstimate { min: u64::MAX, max: 0 };
        let mut result: Option<Size> = None;
        for overload in overloads {
            let call = calls::estimate(self, expr, function, overload, target, args, &costs);
            cost = cost.union(call.cost);
            if let Some(size) = call.size {
                result = Some(result.map_or(size, |r| r.union(size)));
            }
            let step = match overload {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(of)) = (step, args.first()) {
                result = self.entries_of(of).map(|e| e.value);
                let path = self.extended(of, step);
                self.paths.insert(expr.id, path);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        if let Some(size) = result {
            self.sizes.insert(expr.id, size);
        }
        sum.plus(cost)
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    pub(super) fn size_or_unknown(&mut self, expr: &Expr) -> Size {
        self.size(expr).unwrap_or(Size::UNKNOWN)
    }

    /// What is known of an expression's size.
    pub(super) fn size(&mut self, expr: &Expr) -> Option<Size> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            Kind::Literal(Literal::String(s)) => return Some(Size::fixed(s.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(b)) => return Some(Size::fixed(b.len() as u64)),
            Kind::Literal(_) => return Some(Size::fixed(1)),
            Kind::List(items) => return Some(Size::fixed(items.len() as u64)),
            Kind::Map(entries) => return Some(Size::fixed(entries.len() as u64)),
            _ => {}
        }
        if let Some(size) = self.declared(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.ty(expr)) {
            return Some(Size::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.size),
            _ => None,
        }
    }

    /// What declarations say of the size of what a path leads to.
    pub(super) fn declared(&self, path: &[String]) -> Option<Size> {
        if path.first().is_none_or(|root| root == ACCUMULATOR) {
            return None;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.env.size(&path).map(|max| Size { min: 0, max })
    }

    pub(super) fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.entries),
            _ => None,
        }
    }

    /// What either may hold, if both are known.
    pub(super) fn join_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entries_of(a), self.entries_of(b)) {
            let joined = Entries { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) };
            self.entries.insert(expr.id, joined);
        }
    }
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
