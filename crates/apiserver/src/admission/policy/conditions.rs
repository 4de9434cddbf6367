//! `matchConditions`: which requests a webhook or policy is about, beyond what rules can say (KEP-3716).

use super::scope::Scope;
use canopus_api::Value;
use canopus_cel::{MATCH_CONDITIONS_BUDGET, Program, Val};
use canopus_resources::admissionregistration::expressions::{CONDITION, Expressions, Uses};

/// Compiled conditions; an error is why one does not compile.
pub struct Conditions(Vec<Result<Program, String>>);

impl Conditions {
    pub fn of(conditions: &Value, params: bool) -> Conditions {
        let expressions = Expressions::plain();
        let uses = Uses { params, authorizer: true, patches: false };
        let compile = |c: &Value| expressions.compile(c["expression"].str().trim(), uses, CONDITION);
        Conditions(conditions.items().iter().map(compile).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not decides, whatever is wrong with the others.
    pub fn hold(&self, scope: &Scope) -> Result<bool, String> {
        let scope = scope.of_conditions();
        let mut budget = MATCH_CONDITIONS_BUDGET;
        let mut wrong = Vec::new();
        for condition in &self.0 {
            match scope.run(condition, &mut budget)? {
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => wrong.push(why),
            }
        }
        match wrong.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
