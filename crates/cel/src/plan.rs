//! A checked expression as it is evaluated: names resolved, constants folded, functions found.

use crate::ast::{ACCUMULATOR, Comprehension, Expr, Kind, Literal};
use crate::checker::Checked;
use crate::env::Env;
use crate::eval::{Context, Function};
use crate::library;
use crate::val::{List, Map, Val};
use regex::Regex;
use std::sync::Arc;

pub(crate) enum Node {
    Const(Val<'static>),
    Var(Arc<str>),
    /// A variable of a comprehension, by its place among those in scope.
    Local(usize),
    Select(Box<Node>, Arc<str>),
    Test(Box<Node>, Arc<str>),
    OptSelect(Box<Node>, Arc<str>),
    Index(Box<Node>, Box<Node>),
    OptIndex(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    NotStrictlyFalse(Box<Node>),
    OptOr(Box<Node>, Box<Node>),
    OptOrValue(Box<Node>, Box<Node>),
    /// Membership of a list of constants, which costs nothing.
    InConst(Box<Node>, Arc<Vec<Val<'static>>>),
    Call(Box<Call>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct(Arc<str>, Vec<(Arc<str>, Node, bool)>),
    Fold(Box<Fold>),
    Bind(Box<Node>, Box<Node>),
    /// The accumulator with one item more.
    Append(usize, Box<Node>),
    /// The accumulator with more entries.
    Insert(usize, Vec<Node>),
}

impl Node {
    /// Whether the way to a value begins here: a variable, or a step from one. What it costs to begin is counted once, and
    /// not at all where a condition chooses between such ways.
    pub(crate) fn is_attribute(&self) -> bool {
        use Node::*;
        matches!(self, Var(_) | Local(_) | Select(..) | OptSelect(..) | Index(..) | OptIndex(..) | Conditional(_))
    }
}

pub(crate) struct Call {
    pub(crate) name: String,
    /// The only overload that the checker found, or the first.
    pub(crate) overload: &'static str,
    pub(crate) function: Function,
    pub(crate) args: Vec<Node>,
    /// The last argument, if it is a regular expression that is known.
    pub(crate) regex: Option<Regex>,
}

pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) two: bool,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

pub(crate) fn plan(env: &Env, checked: &Checked) -> Node {
    Planner { env, checked, locals: Vec::new() }.node(&checked.expr)
}

struct Planner<'a> {
    env: &'a Env,
    checked: &'a Checked,
    locals: Vec<String>,
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => Node::Const(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                let operand = self.boxed(operand);
                let field = field.as_str().into();
                if *test { Node::Test(operand, field) } else { Node::Select(operand, field) }
            }
            Kind::Call { function, target, args } => {
                let args: Vec<&Expr> = target.as_deref().into_iter().chain(args).collect();
                self.call(expr, function, &args)
            }
            Kind::List(items) => {
                let items: Vec<(Node, bool)> =
                    items.iter().map(|(item, optional)| (self.node(item), *optional)).collect();
                match items.iter().map(|(n, optional)| if *optional { None } else { as_const(n) }).collect() {
                    Some(constants) => Node::Const(Val::List(List::Made(Arc::new(constants)))),
                    None => Node::List(items),
                }
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => {
                let fields = fields.iter().map(|f| (f.name.as_str().into(), self.node(&f.value), f.optional)).collect();
                Node::Struct(name.as_str().into(), fields)
            }
            Kind::Comprehension(fold) if fold.is_bind() => {
                let value = self.boxed(&fold.init);
                self.locals.push(fold.accu.clone());
                let result = self.boxed(&fold.result);
                self.locals.pop();
                Node::Bind(value, result)
            }
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Node {
        if let Some(slot) = self.locals.iter().rposition(|n| n == name) {
            return Node::Local(slot);
        }
        match crate::signatures::type_name(name).filter(|_| !self.env.is_variable(name)) {
            Some(ty) => Node::Const(Val::Type(ty)),
            None => Node::Var(name.into()),
        }
    }

    fn map(&mut self, entries: &[crate::ast::Entry]) -> Node {
        let entries: Vec<(Node, Node, bool)> =
            entries.iter().map(|e| (self.node(&e.key), self.node(&e.value), e.optional)).collect();
        let constants: Option<Vec<(Val<'static>, Val<'static>)>> = entries
            .iter()
            .map(|(k, v, optional)| if *optional { None } else { Some((as_const(k)?, as_const(v)?)) })
            .collect();
        match constants.and_then(|c| Map::made(c).ok()) {
            Some(map) => Node::Const(Val::Map(map)),
            None => Node::Map(entries),
        }
    }

    fn fold(&mut self, fold: &Comprehension) -> Node {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let outer = self.locals.len();
        self.locals.push(fold.accu.clone());
        self.locals.push(fold.var.clone());
        self.locals.extend(fold.var2.clone());
        let condition = self.node(&fold.condition);
        let step = self.node(&fold.step);
        self.locals.truncate(outer + 1);
        let result = self.node(&fold.result);
        self.locals.truncate(outer);
        Node::Fold(Box::new(Fold { range, two: fold.var2.is_some(), init, condition, step, result }))
    }

    /// The accumulator's place, if that is what the expression is.
    fn accumulator(&self, expr: &Expr) -> Option<usize> {
        match &expr.kind {
            Kind::Ident(name) if name == ACCUMULATOR => self.locals.iter().rposition(|n| n == name),
            _ => None,
        }
    }

    fn call(&mut self, expr: &Expr, function: &str, args: &[&Expr]) -> Node {
        match (function, args) {
            ("_&&_", [a, b]) => return Node::And(self.boxed(a), self.boxed(b)),
            ("_||_", [a, b]) => return Node::Or(self.boxed(a), self.boxed(b)),
            ("_?_:_", [a, b, c]) => return Node::Conditional(Box::new([self.node(a), self.node(b), self.node(c)])),
            ("@not_strictly_false", [a]) => return Node::NotStrictlyFalse(self.boxed(a)),
            ("_[_]", [a, b]) => return Node::Index(self.boxed(a), self.boxed(b)),
            ("_[?_]", [a, b]) => return Node::OptIndex(self.boxed(a), self.boxed(b)),
            ("or", [a, b]) => return Node::OptOr(self.boxed(a), self.boxed(b)),
            ("orValue", [a, b]) => return Node::OptOrValue(self.boxed(a), self.boxed(b)),
            ("_?._", [a, Expr { kind: Kind::Literal(Literal::String(field)), .. }]) => {
                return Node::OptSelect(self.boxed(a), field.as_str().into());
            }
            ("_+_", [accu, Expr { kind: Kind::List(items), .. }]) => {
                if let (Some(slot), [(item, false)]) = (self.accumulator(accu), items.as_slice()) {
                    return Node::Append(slot, self.boxed(item));
                }
            }
            ("cel.@mapInsert", [accu, rest @ ..]) => {
                if let Some(slot) = self.accumulator(accu) {
                    return Node::Insert(slot, rest.iter().map(|e| self.node(e)).collect());
                }
            }
            _ => {}
        }
        let overload = self.checked.overloads[expr.id as usize].first().copied().unwrap_or("");
        let args: Vec<Node> = args.iter().map(|a| self.node(a)).collect();
        if let ("@in", [item, Node::Const(Val::List(List::Made(list)))]) = (function, args.as_slice())
            && !matches!(item, Node::Const(_))
            && list.iter().all(|v| matches!(v, Val::Str(_) | Val::Int(_) | Val::Uint(_) | Val::Bool(_)))
        {
            let list = list.clone();
            let item = args.into_iter().next();
            return item.map_or(Node::Const(Val::Null), |item| Node::InConst(Box::new(item), list));
        }
        let regex = match (function, args.last()) {
            ("matches" | "find", Some(Node::Const(Val::Str(pattern)))) => crate::regexp::compile(pattern).ok(),
            ("findAll", _) => match args.get(1) {
                Some(Node::Const(Val::Str(pattern))) => crate::regexp::compile(pattern).ok(),
                _ => None,
            },
            _ => None,
        };
        let call = Call { name: function.into(), overload, function: library::find(function), args, regex };
        folded(&call).unwrap_or_else(|| Node::Call(Box::new(call)))
    }
}

/// A conversion of a constant, which is one itself.
fn folded(call: &Call) -> Option<Node> {
    let [Node::Const(arg)] = call.args.as_slice() else { return None };
    match call.name.as_str() {
        "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint" => {
            (call.function)(&Context::new(call.overload, None, 0), std::slice::from_ref(arg)).ok().map(Node::Const)
        }
        _ => None,
    }
}

fn as_const(node: &Node) -> Option<Val<'static>> {
    match node {
        Node::Const(value) => Some(value.clone()),
        _ => None,
    }
}

fn constant(literal: &Literal) -> Val<'static> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(b) => Val::Bool(*b),
        Literal::Int(i) => Val::Int(*i),
        Literal::Uint(u) => Val::Uint(*u),
        Literal::Double(d) => Val::Double(*d),
        Literal::String(s) => Val::string(s.as_str()),
        Literal::Bytes(b) => Val::Bytes(b.as_slice().into()),
    }
}
