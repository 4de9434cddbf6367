//! A compiled expression.

use crate::cost::CostEstimate;
use crate::eval::{Bindings, EvalError, Evaluator};
use crate::plan::Node;
use crate::types::Type;
use crate::val::Val;
use std::collections::BTreeSet;

/// One evaluation may cost so much: about a tenth of a second.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// All evaluations for one policy binding, or one custom resource, may cost so much together.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// All evaluations of the match conditions of one webhook or policy may cost so much together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// An expression that can be evaluated.
pub struct Program {
    pub(crate) root: Node,
    pub(crate) result: Type,
    pub(crate) cost: CostEstimate,
    pub(crate) source: String,
    pub(crate) reads: BTreeSet<String>,
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub value: Result<Val<'a>, EvalError>,
    /// What it cost.
    pub cost: u64,
}

impl Program {
    /// The type of what the expression yields.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// What an evaluation may cost, as far as the declared types bound it.
    pub fn estimated_cost(&self) -> CostEstimate {
        self.cost
    }

    /// Whether the expression speaks of a variable.
    pub fn reads(&self, variable: &str) -> bool {
        self.reads.contains(variable)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates the expression, spending at most `budget` ([`PER_CALL_LIMIT`] in any case).
    pub fn eval<'a>(&self, bindings: &dyn Bindings<'a>, budget: u64) -> Evaluation<'a> {
        let mut evaluator = Evaluator::new(bindings, budget.min(PER_CALL_LIMIT));
        let value = evaluator.eval(&self.root);
        Evaluation { value, cost: evaluator.cost }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({:?})", self.source)
    }
}
