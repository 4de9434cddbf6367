//! Evaluation: a walk over the plan that counts what it costs and stops when that is too much.

use crate::plan::{Call, Fold, Node};
use crate::val::{List, Map, Struct, Val};
use regex::Regex;
use std::marker::PhantomData;
use std::sync::Arc;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    pub message: String,
    /// The budget is spent: no other part of the expression may make up for it.
    pub over_budget: bool,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> EvalError {
        EvalError { message: message.into(), over_budget: false }
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::new("no such overload")
    }

    pub(crate) fn over_budget() -> EvalError {
        EvalError { message: "operation cancelled: actual cost limit exceeded".into(), over_budget: true }
    }
}

/// Where an expression's variables come from.
pub trait Bindings<'a> {
    /// The value of a variable; None if it has none.
    fn get(&self, name: &str) -> Option<Val<'a>>;

    /// A field of a variable that is [`Val::Lazy`], and what it cost to find out.
    fn field(&self, variable: &str, field: &str, limit: u64) -> Option<(Result<Val<'a>, EvalError>, u64)> {
        let _ = (variable, field, limit);
        None
    }

    /// Whether a variable that is [`Val::Lazy`] has the field.
    fn has_field(&self, variable: &str, field: &str) -> bool {
        let _ = (variable, field);
        false
    }
}

impl<'a, const N: usize> Bindings<'a> for [(&str, Val<'a>); N] {
    fn get(&self, name: &str) -> Option<Val<'a>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }
}

impl<'a> Bindings<'a> for std::collections::BTreeMap<String, Val<'a>> {
    fn get(&self, name: &str) -> Option<Val<'a>> {
        std::collections::BTreeMap::get(self, name).cloned()
    }
}

pub(crate) type Outcome<'a> = Result<Val<'a>, EvalError>;

/// A function as the table of functions has it.
pub(crate) type Function = for<'a, 'c> fn(&Context<'a, 'c>, &[Val<'a>]) -> Outcome<'a>;

/// What a function may look at besides its arguments.
pub(crate) struct Context<'a, 'c> {
    pub(crate) overload: &'static str,
    pub(crate) regex: Option<&'c Regex>,
    /// What may still be spent.
    pub(crate) left: u64,
    values: PhantomData<&'a ()>,
}

impl<'c> Context<'_, 'c> {
    pub(crate) fn new(overload: &'static str, regex: Option<&'c Regex>, left: u64) -> Self {
        Context { overload, regex, left, values: PhantomData }
    }
}

pub(crate) struct Evaluator<'a, 'b> {
    bindings: &'b dyn Bindings<'a>,
    locals: Vec<Outcome<'a>>,
    pub(crate) cost: u64,
    limit: u64,
}

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

impl<'a, 'b> Evaluator<'a, 'b> {
    pub(crate) fn new(bindings: &'b dyn Bindings<'a>, limit: u64) -> Evaluator<'a, 'b> {
        Evaluator { bindings, locals: Vec::new(), cost: 0, limit }
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::over_budget()) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, node: &Node) -> Outcome<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Var(name) => {
                self.charge(1)?;
                self.bindings.get(name).ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
            }
            Node::Local(slot) => {
                self.charge(1)?;
                self.locals.get(*slot).cloned().unwrap_or_else(|| Err(EvalError::new("no such attribute")))
            }
            Node::Select(operand, field) => {
                let operand = self.begin(operand)?;
                self.charge(1)?;
                self.select(&operand, field)
            }
            Node::Test(operand, field) => {
                let operand = self.begin(operand)?;
                self.has(&operand, field).map(Val::Bool)
            }
            Node::OptSelect(operand, field) => {
                let operand = self.begin(operand)?;
                self.charge(1)?;
                self.optional_select(&operand, field)
            }
            Node::Index(operand, index) => {
                let operand = self.begin(operand)?;
                // A way to the index is as good as the step.
                let step = u64::from(!index.is_attribute());
                let index = self.eval(index)?;
                self.charge(step)?;
                self.index(&operand, &index)
            }
            Node::OptIndex(operand, index) => {
                let operand = self.begin(operand)?;
                // A way to the index is as good as the step.
                let step = u64::from(!index.is_attribute());
                let index = self.eval(index)?;
                self.charge(step)?;
                self.optional_index(&operand, &index)
            }
            Node::And(a, b) => self.logical(a, b, false),
            Node::Or(a, b) => self.logical(a, b, true),
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                match self.eval(condition)? {
                    Val::Bool(true) => self.branch(yes),
                    Val::Bool(false) => self.branch(no),
                    _ => Err(EvalError::no_such_overload()),
                }
            }
            Node::NotStrictlyFalse(arg) => {
                let value = match self.eval(arg) {
                    Ok(Val::Bool(b)) => b,
                    Err(e) if e.over_budget => return Err(e),
                    _ => true,
                };
                self.charge(1)?;
                Ok(Val::Bool(value))
            }
            Node::OptOr(a, b) => match self.eval(a)? {
                value @ Val::Optional(Some(_)) => Ok(value),
                Val::Optional(None) => self.eval(b),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::OptOrValue(a, b) => match self.eval(a)? {
                Val::Optional(Some(value)) => Ok((*value).clone()),
                Val::Optional(None) => self.eval(b),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::InConst(item, list) => {
                let item = self.eval(item)?;
                Ok(Val::Bool(list.iter().any(|v| item.equals(v))))
            }
            Node::Call(call) => self.call(call),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.structure(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind(value, result) => {
                let value = self.eval(value);
                if let Err(e) = &value
                    && e.over_budget
                {
                    return value;
                }
                self.locals.push(value);
                let result = self.eval(result);
                self.locals.pop();
                result
            }
            Node::Append(slot, item) => self.append(*slot, item),
            Node::Insert(slot, args) => self.insert(*slot, args),
        }
    }

    /// What a step is taken from. If it is no way itself, one begins.
    fn begin(&mut self, node: &Node) -> Outcome<'a> {
        let value = self.eval(node)?;
        if !node.is_attribute() {
            self.charge(1)?;
        }
        Ok(value)
    }

    /// What a condition chose.
    fn branch(&mut self, node: &Node) -> Outcome<'a> {
        let value = self.eval(node);
        if node.is_attribute() && !matches!(node, Node::Conditional(_)) {
            self.cost = self.cost.saturating_sub(1);
        }
        value
    }

    fn logical(&mut self, a: &Node, b: &Node, decides: bool) -> Outcome<'a> {
        let left = match self.eval(a) {
            Ok(Val::Bool(b)) if b == decides => return Ok(Val::Bool(decides)),
            Err(e) if e.over_budget => return Err(e),
            other => other,
        };
        let right = match self.eval(b) {
            Ok(Val::Bool(b)) if b == decides => return Ok(Val::Bool(decides)),
            Err(e) if e.over_budget => return Err(e),
            other => other,
        };
        match (left?, right?) {
            (Val::Bool(_), Val::Bool(_)) => Ok(Val::Bool(!decides)),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn select(&mut self, operand: &Val<'a>, field: &str) -> Outcome<'a> {
        match operand {
            Val::Map(map) => map.field(field).ok_or_else(|| missing(field)),
            Val::Lazy(variable) => self.lazy(variable, field),
            Val::Struct(s) => struct_field(s, field).ok_or_else(|| EvalError::new(format!("no such field '{field}'"))),
            Val::Optional(_) => self.optional_select(operand, field),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn lazy(&mut self, variable: &str, field: &str) -> Outcome<'a> {
        let left = self.limit.saturating_sub(self.cost);
        let (value, cost) = self.bindings.field(variable, field, left).ok_or_else(|| missing(field))?;
        self.charge(cost)?;
        value
    }

    fn has(&mut self, operand: &Val<'a>, field: &str) -> Result<bool, EvalError> {
        match operand {
            Val::Map(map) => Ok(map.field(field).is_some()),
            Val::Struct(s) => Ok(struct_field(s, field).is_some()),
            Val::Optional(Some(value)) => self.has(value, field),
            Val::Optional(None) => Ok(false),
            Val::Lazy(variable) => Ok(self.bindings.has_field(variable, field)),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn optional_select(&mut self, operand: &Val<'a>, field: &str) -> Outcome<'a> {
        let found = match operand {
            Val::Map(map) => map.field(field),
            Val::Struct(s) => struct_field(s, field),
            Val::Optional(Some(value)) => return self.optional_select(value, field),
            Val::Optional(None) => None,
            Val::Lazy(variable) => Some(self.lazy(variable, field)?),
            _ => return Err(EvalError::no_such_overload()),
        };
        Ok(Val::Optional(found.map(Arc::new)))
    }

    fn index(&mut self, operand: &Val<'a>, index: &Val<'a>) -> Outcome<'a> {
        match operand {
            Val::List(list) => {
                let i = position(index)?;
                let found = usize::try_from(i).ok().and_then(|i| list.get(i));
                found.ok_or_else(|| EvalError::new(format!("index out of bounds: {i}")))
            }
            Val::Map(map) => map.get(index).ok_or_else(|| missing(&crate::library::strings::plain(index))),
            Val::Optional(_) => self.optional_index(operand, index),
            Val::Lazy(_) | Val::Struct(_) => match index {
                Val::Str(field) => self.select(operand, field),
                _ => Err(EvalError::no_such_overload()),
            },
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn optional_index(&mut self, operand: &Val<'a>, index: &Val<'a>) -> Outcome<'a> {
        let found = match operand {
            Val::List(list) => usize::try_from(position(index)?).ok().and_then(|i| list.get(i)),
            Val::Map(map) => map.get(index),
            Val::Optional(Some(value)) => return self.optional_index(value, index),
            Val::Optional(None) => None,
            _ => return Err(EvalError::no_such_overload()),
        };
        Ok(Val::Optional(found.map(Arc::new)))
    }

    fn call(&mut self, call: &Call) -> Outcome<'a> {
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.eval(arg)?);
        }
        let context = Context::new(call.overload, call.regex.as_ref(), self.limit.saturating_sub(self.cost));
        let result = (call.function)(&context, &args);
        self.charge(crate::cost::actual(&call.name, call.overload, &args, result.as_ref().ok()))?;
        result
    }

    /// An element that may be optional: None if it is left out.
    fn element(&mut self, node: &Node, optional: bool, what: &str) -> Result<Option<Val<'a>>, EvalError> {
        let value = self.eval(node)?;
        match (optional, value) {
            (false, value) => Ok(Some(value)),
            (true, Val::Optional(value)) => Ok(value.map(|v| (*v).clone())),
            (true, other) => {
                let shown = crate::library::strings::plain(&other);
                Err(EvalError::new(format!("cannot initialize optional {what} from non-optional value {shown}")))
            }
        }
    }

    fn list(&mut self, items: &[(Node, bool)]) -> Outcome<'a> {
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            out.extend(self.element(item, *optional, "list element")?);
        }
        self.charge(LIST_COST)?;
        Ok(out.into())
    }

    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Outcome<'a> {
        let mut out = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let shown = if *optional { crate::library::strings::plain(&key) } else { String::new() };
            if let Some(value) = self.element(value, *optional, &format!("entry '{shown}'"))? {
                out.push((key, value));
            }
        }
        self.charge(MAP_COST)?;
        Map::made(out).map(Val::Map)
    }

    fn structure(&mut self, name: &Arc<str>, fields: &[(Arc<str>, Node, bool)]) -> Outcome<'a> {
        let mut out = Vec::with_capacity(fields.len());
        for (field, value, optional) in fields {
            if let Some(value) = self.element(value, *optional, &format!("entry '{field}'"))? {
                out.push((field.clone(), value));
            }
        }
        self.charge(STRUCT_COST)?;
        Ok(Val::Struct(Arc::new(Struct { name: name.clone(), fields: out })))
    }

    fn fold(&mut self, fold: &Fold) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        let base = self.locals.len();
        self.locals.push(init);
        let done = self.iterate(fold, &range, base);
        self.locals.truncate(base + 1);
        let result = done.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(base);
        result
    }

    fn iterate(&mut self, fold: &Fold, range: &Val<'a>, base: usize) -> Result<(), EvalError> {
        match range {
            Val::List(list) => {
                for i in 0..list.len() {
                    let Some(item) = list.get(i) else { break };
                    let (first, second) = if fold.two { (Val::Int(i as i64), Some(item)) } else { (item, None) };
                    if !self.step(fold, base, first, second)? {
                        break;
                    }
                }
                Ok(())
            }
            Val::Map(map) => {
                for (key, value) in map.iter() {
                    if !self.step(fold, base, key, fold.two.then_some(value))? {
                        break;
                    }
                }
                Ok(())
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// One turn of a fold: whether there is to be another.
    fn step(&mut self, fold: &Fold, base: usize, first: Val<'a>, second: Option<Val<'a>>) -> Result<bool, EvalError> {
        self.locals.truncate(base + 1);
        self.locals.push(Ok(first));
        self.locals.extend(second.map(Ok));
        match self.eval(&fold.condition) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(e) => return Err(e),
        }
        let next = self.eval(&fold.step);
        if let Err(e) = &next {
            // Only quantifiers, which go on past errors, have a condition.
            if e.over_budget || matches!(fold.condition, Node::Const(_)) {
                return Err(e.clone());
            }
        }
        self.locals[base] = next;
        Ok(true)
    }

    /// Takes the accumulator out of its place, so that it is nobody else's.
    fn take(&mut self, slot: usize) -> Outcome<'a> {
        self.charge(1)?;
        match self.locals.get_mut(slot) {
            Some(place) => std::mem::replace(place, Ok(Val::Null)),
            None => Err(EvalError::new("no such attribute")),
        }
    }

    fn append(&mut self, slot: usize, item: &Node) -> Outcome<'a> {
        let item_value = self.eval(item)?;
        if !matches!(item, Node::Const(_)) {
            self.charge(LIST_COST)?;
        }
        let accu = self.take(slot)?;
        self.charge(1)?;
        let Val::List(list) = accu else { return Err(EvalError::no_such_overload()) };
        let mut items = match list {
            List::Made(items) => items,
            other => Arc::new(other.iter().collect()),
        };
        Arc::make_mut(&mut items).push(item_value);
        Ok(Val::List(List::Made(items)))
    }

    fn insert(&mut self, slot: usize, args: &[Node]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(2);
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let accu = self.take(slot)?;
        self.charge(1)?;
        let Val::Map(map) = accu else { return Err(EvalError::no_such_overload()) };
        let mut made = map.into_made()?;
        let more: Vec<(Val, Val)> = match values.as_slice() {
            [key, value] => vec![(key.clone(), value.clone())],
            [Val::Map(entries)] => entries.iter().collect(),
            _ => return Err(EvalError::no_such_overload()),
        };
        for (key, value) in more {
            made.insert(key, value)?;
        }
        Ok(Val::Map(Map::Made(Arc::new(made))))
    }
}

fn struct_field<'a>(s: &Struct<'a>, field: &str) -> Option<Val<'a>> {
    s.fields.iter().find(|(name, _)| **name == *field).map(|(_, v)| v.clone())
}

fn missing(key: &str) -> EvalError {
    EvalError::new(format!("no such key: {key}"))
}

fn position(index: &Val) -> Result<i64, EvalError> {
    match index {
        Val::Int(i) => Ok(*i),
        Val::Uint(u) => i64::try_from(*u).map_err(|_| EvalError::new(format!("unsupported index value {u} in list"))),
        Val::Double(d) if d.fract() == 0.0 && d.abs() < 9.0e15 => Ok(*d as i64),
        other => Err(EvalError::new(format!("unsupported index type '{}' in list", other.ty().name()))),
    }
}
