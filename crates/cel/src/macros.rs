//! The macros: calls that become comprehensions before anything is checked.

use crate::ast::{ACCUMULATOR, Comprehension, Expr, Id, Kind, Literal};
use crate::parser::{Parser, Stop};

type Expand = Result<Expr, Stop>;

/// So many nodes may exist more than once because of macros that repeat their target.
const MOST_COPIED: usize = 20_000;

/// How many nodes the tree has.
fn count(expr: &Expr) -> usize {
    let mut all = 1;
    expr.kind.children(&mut |child| all += count(child));
    all
}

pub(crate) fn global_call(p: &mut Parser, id: Id, function: String, mut args: Vec<Expr>) -> Expand {
    if function == "has" && args.len() == 1 {
        let arg = args.remove(0);
        return match arg.kind {
            Kind::Select { operand, field, test: false } => Ok(p.make(id, Kind::Select { operand, field, test: true })),
            _ => Err(p.fail_at(arg.id, "invalid argument to has() macro".into())),
        };
    }
    Ok(p.make(id, Kind::Call { function, target: None, args }))
}

pub(crate) fn member_call(p: &mut Parser, id: Id, function: String, target: Expr, args: Vec<Expr>) -> Expand {
    let m = &mut Maker { p, id };
    match (function.as_str(), args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2) => m.quantifier(&function, target, args, 1),
        ("all" | "exists" | "existsOne", 3) => m.quantifier(&function, target, args, 2),
        ("map", 2 | 3) | ("filter", 2) => m.list(&function, target, args),
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => m.transform(&function, target, args),
        ("optMap" | "optFlatMap", 2) => m.opt_map(&function, target, args),
        ("bind", 3) if m.p.bindings && matches!(&target.kind, Kind::Ident(name) if name == "cel") => m.cel_bind(args),
        ("sortBy", 2) => m.sort_by(target, args),
        _ => Ok(m.p.make(id, Kind::Call { function, target: Some(Box::new(target)), args })),
    }
}

struct Maker<'p, 'a> {
    p: &'p mut Parser<'a>,
    id: Id,
}

impl Maker<'_, '_> {
    fn node(&mut self, kind: Kind) -> Expr {
        let id = self.p.id_like(self.id);
        self.p.make(id, kind)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: None, args })
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }

    fn fold(&mut self, fold: Comprehension) -> Expr {
        self.node(Kind::Comprehension(Box::new(fold)))
    }

    fn variable(&mut self, arg: &Expr) -> Result<String, Stop> {
        match &arg.kind {
            Kind::Ident(name) if name == "__result__" => {
                Err(self.p.fail_at(arg.id, "iteration variable overwrites accumulator variable".into()))
            }
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(self.p.fail_at(arg.id, "argument is not an identifier".into())),
        }
    }

    /// One or two variables off the front of the arguments.
    fn variables(&mut self, args: &mut Vec<Expr>, count: usize) -> Result<(String, Option<String>), Stop> {
        if count == 1 {
            let arg = args.remove(0);
            return Ok((self.variable(&arg)?, None));
        }
        let (first, second) = (args.remove(0), args.remove(0));
        let (a, b) = match (&first.kind, &second.kind) {
            (Kind::Ident(_), Kind::Ident(_)) => (self.variable(&first)?, self.variable(&second)?),
            (Kind::Ident(_), _) => return Err(self.p.fail_at(second.id, "argument must be a simple name".into())),
            _ => return Err(self.p.fail_at(first.id, "argument must be a simple name".into())),
        };
        if a == b {
            return Err(self.p.fail_at(second.id, format!("duplicate variable name: {a}")));
        }
        Ok((a, Some(b)))
    }

    fn quantifier(&mut self, function: &str, range: Expr, mut args: Vec<Expr>, vars: usize) -> Expand {
        let (var, var2) = self.variables(&mut args, vars)?;
        let predicate = args.remove(0);
        let (init, condition, step, result) = match function {
            "all" => {
                let init = self.literal(Literal::Bool(true));
                let accu = self.accu();
                let condition = self.call("@not_strictly_false", vec![accu]);
                let accu = self.accu();
                (init, condition, self.call("_&&_", vec![accu, predicate]), self.accu())
            }
            "exists" => {
                let init = self.literal(Literal::Bool(false));
                let accu = self.accu();
                let not = self.call("!_", vec![accu]);
                let condition = self.call("@not_strictly_false", vec![not]);
                let accu = self.accu();
                (init, condition, self.call("_||_", vec![accu, predicate]), self.accu())
            }
            _ => {
                let init = self.literal(Literal::Int(0));
                let condition = self.literal(Literal::Bool(true));
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                let more = self.call("_+_", vec![accu, one]);
                let accu = self.accu();
                let step = self.call("_?_:_", vec![predicate, more, accu]);
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                (init, condition, step, self.call("_==_", vec![accu, one]))
            }
        };
        Ok(self.fold(Comprehension { range, var, var2, accu: ACCUMULATOR.into(), init, condition, step, result }))
    }

    /// A fold that goes through everything and adds to what `init` begins.
    fn collect(
        &mut self,
        range: Expr,
        vars: (String, Option<String>),
        init: Kind,
        filter: Option<Expr>,
        add: Expr,
    ) -> Expr {
        let init = self.node(init);
        let condition = self.literal(Literal::Bool(true));
        let step = match filter {
            Some(filter) => {
                let accu = self.accu();
                self.call("_?_:_", vec![filter, add, accu])
            }
            None => add,
        };
        let result = self.accu();
        let (var, var2) = vars;
        self.fold(Comprehension { range, var, var2, accu: ACCUMULATOR.into(), init, condition, step, result })
    }

    fn append(&mut self, item: Expr) -> Expr {
        let accu = self.accu();
        let item = self.node(Kind::List(vec![(item, false)]));
        self.call("_+_", vec![accu, item])
    }

    fn list(&mut self, function: &str, range: Expr, mut args: Vec<Expr>) -> Expand {
        let vars = self.variables(&mut args, 1)?;
        let (filter, item) = match (function, args.len()) {
            ("filter", _) => (Some(args.remove(0)), self.ident(&vars.0)),
            (_, 2) => (Some(args.remove(0)), args.remove(0)),
            _ => (None, args.remove(0)),
        };
        let add = self.append(item);
        Ok(self.collect(range, vars, Kind::List(Vec::new()), filter, add))
    }

    fn transform(&mut self, function: &str, range: Expr, mut args: Vec<Expr>) -> Expand {
        let vars = self.variables(&mut args, 2)?;
        let filter = (args.len() == 2).then(|| args.remove(0));
        let item = args.remove(0);
        let (init, add) = match function {
            "transformList" => (Kind::List(Vec::new()), self.append(item)),
            "transformMap" => {
                let (accu, key) = (self.accu(), self.ident(&vars.0));
                (Kind::Map(Vec::new()), self.call("cel.@mapInsert", vec![accu, key, item]))
            }
            _ => {
                let accu = self.accu();
                (Kind::Map(Vec::new()), self.call("cel.@mapInsert", vec![accu, item]))
            }
        };
        Ok(self.collect(range, vars, init, filter, add))
    }

    /// `result` with `value` under the name `name`.
    fn bind(&mut self, name: String, value: Expr, result: Expr) -> Expr {
        let range = self.node(Kind::List(Vec::new()));
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(&name);
        self.fold(Comprehension {
            range,
            var: "#unused".into(),
            var2: None,
            accu: name,
            init: value,
            condition,
            step,
            result,
        })
    }

    fn cel_bind(&mut self, mut args: Vec<Expr>) -> Expand {
        let name = args.remove(0);
        let Kind::Ident(name) = name.kind else {
            return Err(self.p.fail_at(name.id, "cel.bind() variable names must be simple identifiers".into()));
        };
        let value = args.remove(0);
        Ok(self.bind(name, value, args.remove(0)))
    }

    fn opt_map(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Expand {
        let Kind::Ident(name) = args.remove(0).kind else {
            let message = format!("{function}() variable name must be a simple identifier");
            return Err(self.p.fail_at(self.id, message));
        };
        let mapped = args.remove(0);
        // The target is there twice from here on, and twice again with the next one.
        self.p.copied += count(&target);
        if self.p.copied > MOST_COPIED {
            return Err(self.p.fail_at(self.id, "expression is too large after macro expansion".into()));
        }
        let value = self.node(Kind::Call {
            function: "value".into(),
            target: Some(Box::new(target.clone())),
            args: Vec::new(),
        });
        let bound = self.bind(name, value, mapped);
        let some = if function == "optMap" { self.call("optional.of", vec![bound]) } else { bound };
        let has =
            self.node(Kind::Call { function: "hasValue".into(), target: Some(Box::new(target)), args: Vec::new() });
        let none = self.call("optional.none", Vec::new());
        Ok(self.call("_?_:_", vec![has, some, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Expand {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err(self.p.fail_at(target.id, message.into()));
        }
        let input = self.ident(INPUT);
        let keys = self.list("map", input, args)?;
        let input = self.ident(INPUT);
        let sorted = self.node(Kind::Call {
            function: "@sortByAssociatedKeys".into(),
            target: Some(Box::new(input)),
            args: vec![keys],
        });
        Ok(self.bind(INPUT.into(), target, sorted))
    }
}
