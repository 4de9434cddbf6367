//! Validation rules of custom resources (`x-kubernetes-validations`, KEP-2876), evaluated within a budget. Updates are
//! ratcheted (KEP-4008): a value that has not changed may break a rule that does not look at what it was.

use super::fieldpath;
use canopus_api::field::{Error, Kind};
use canopus_api::{Errors, Value, json};
use canopus_cel::{DeclType, DeclTypes, Env, PER_CALL_LIMIT, Program, RUNTIME_BUDGET, Type, Val, issues_text, schema};
use compact_str::CompactString;
use std::sync::Arc;

const LONGEST_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A rule that has been compiled.
pub struct Rule {
    pub program: Program,
    pub message_expression: Option<Result<Program, String>>,
    spec: Value,
    field_path: String,
}

/// What rules of one node of a schema are compiled against.
pub struct Scope {
    pub decl: DeclType,
    plain: Env,
    optional: Env,
}

impl Scope {
    /// None if expressions cannot see what the schema describes.
    pub fn of(node: &Value, root: bool) -> Option<Scope> {
        let decl = schema::declare(node, "selfType", root)?;
        let types = Arc::new(DeclTypes::new([("self".into(), decl.clone()), ("oldSelf".into(), decl.clone())]));
        let env = |old: Type| Env::new().variable("self", decl.ty()).variable("oldSelf", old).types(types.clone());
        let (plain, optional) = (env(decl.ty()), env(Type::optional(decl.ty())));
        Some(Scope { decl, plain, optional })
    }

    /// Compiles a rule of `node`. The error is upstream's.
    pub fn compile(&self, node: &Value, rule: &Value) -> Result<Rule, String> {
        let env = if rule["optionalOldSelf"].bool() { &self.optional } else { &self.plain };
        let compiled = env.compile(rule["rule"].str());
        let program = compiled.map_err(|issues| format!("compilation failed: {}", issues_text(&issues)))?;
        if program.result() != &Type::Bool {
            return Err("cel expression must evaluate to a bool".into());
        }
        let message = Some(rule["messageExpression"].str()).filter(|text| !text.is_empty());
        Ok(Rule {
            program,
            message_expression: message.map(|text| message_expression(env, text)),
            field_path: fieldpath::normalize(rule["fieldPath"].str(), node).unwrap_or_default(),
            spec: rule.clone(),
        })
    }
}

fn message_expression(env: &Env, text: &str) -> Result<Program, String> {
    let compiled = env.compile(text);
    let program = compiled.map_err(|i| format!("messageExpression compilation failed: {}", issues_text(&i)))?;
    match program.result() {
        Type::String => Ok(program),
        _ => Err("messageExpression must evaluate to a string".into()),
    }
}

/// The rules of one node of a schema and of those below it.
pub struct Rules {
    kind: CompactString,
    /// What the value is to expressions, if there are rules for it.
    decl: Option<DeclType>,
    rules: Vec<Result<Rule, String>>,
    properties: Vec<(CompactString, Rules)>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    all_of: Vec<Rules>,
    /// By what items of a list that is a map find their former selves.
    keys: Vec<CompactString>,
}

/// What a value was before.
#[derive(Clone, Copy, Default)]
struct Former<'a> {
    /// For `oldSelf`.
    old: Option<&'a Value>,
    /// With what it is compared for ratcheting.
    same: Option<&'a Value>,
    /// The nearest value around it that can be compared, now and before.
    around: Option<(&'a Value, &'a Value)>,
}

impl<'a> Former<'a> {
    fn unchanged(&self, value: &Value) -> bool {
        match (self.same, self.around) {
            (Some(same), _) => same == value,
            (None, Some((now, before))) => now == before,
            (None, None) => false,
        }
    }

    fn below(&self, parent: &'a Value, old: Option<&'a Value>, same: Option<&'a Value>) -> Former<'a> {
        let around = self.same.map(|before| (parent, before)).or(self.around);
        Former { old, same: self.same.and(same), around }
    }
}

struct Run<'e> {
    errors: &'e mut Errors,
    left: u64,
}

/// No further rule is looked at.
struct Stop;

impl Rules {
    /// Of a schema and what is below it; None if nothing there has rules.
    pub fn new(node: &Value) -> Option<Rules> {
        Rules::of(node, node, true)
    }

    /// `rules` is where rules are found: the node, or a schema in its `allOf`.
    fn of(rules: &Value, node: &Value, root: bool) -> Option<Rules> {
        let inner = |rules: &Value, node: &Value| {
            (rules.as_object().is_some() && node.as_object().is_some())
                .then(|| Rules::of(rules, node, node["x-kubernetes-embedded-resource"].bool()))?
        };
        let below = |key: &str| inner(&rules[key], &node[key]).map(Box::new);
        let properties = rules["properties"].entries();
        let mut found = Rules {
            kind: node["type"].str().into(),
            decl: None,
            rules: Vec::new(),
            properties: properties
                .filter_map(|(name, rules)| Some((name.clone(), inner(rules, &node["properties"][name.as_str()])?)))
                .collect(),
            additional: below("additionalProperties"),
            items: below("items"),
            all_of: rules["allOf"].items().iter().filter_map(|branch| Rules::of(branch, node, root)).collect(),
            keys: match node["x-kubernetes-list-type"].str() {
                "map" => node["x-kubernetes-list-map-keys"].items().iter().map(|k| k.str().into()).collect(),
                _ => Vec::new(),
            },
        };
        let own = rules["x-kubernetes-validations"].items();
        if !own.is_empty() {
            // The environments are needed no longer than this.
            let scope = Scope::of(node, root);
            found.rules = match &scope {
                Some(scope) => own.iter().map(|rule| scope.compile(node, rule)).collect(),
                None => vec![Err("failed to convert to declType for CEL validation rules".into())],
            };
            found.decl = scope.map(|scope| scope.decl);
        }
        let empty = found.rules.is_empty()
            && found.properties.is_empty()
            && found.additional.is_none()
            && found.items.is_none()
            && found.all_of.is_empty();
        (!empty).then_some(found)
    }

    /// All rules that a custom resource breaks.
    pub fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let former = Former { old, same: old, around: None };
        let _ = self.walk(object, former, "", &mut Run { errors, left: RUNTIME_BUDGET });
    }

    fn walk(&self, value: &Value, former: Former, path: &str, run: &mut Run) -> Result<(), Stop> {
        if value.is_null() {
            return Ok(());
        }
        self.own(value, former, path, run)?;
        for branch in &self.all_of {
            branch.walk(value, Former { same: None, ..former }, path, run)?;
        }
        let at = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        match value {
            Value::Array(items) => {
                let Some(rules) = &self.items else { return Ok(()) };
                for (i, item) in items.iter().enumerate() {
                    let (old, same) = (self.former(item, former.old), self.former(item, former.same));
                    rules.walk(item, former.below(value, old, same), &format!("{path}[{i}]"), run)?;
                }
            }
            Value::Object(map) => {
                for (name, inner) in map.iter() {
                    let below = former.below(
                        value,
                        former.old.and_then(|old| old.get(name)),
                        former.same.and_then(|old| old.get(name)),
                    );
                    if let Some(rules) = &self.additional {
                        rules.walk(inner, below, &format!("{path}[{name}]"), run)?;
                    }
                    let known = self.properties.binary_search_by(|(key, _)| key.as_str().cmp(name));
                    if let Ok(found) = known {
                        // Old and new are read in the same version: that these differ can't be seen.
                        let hidden = path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind");
                        let below = if hidden { Former { old: below.old, ..Former::default() } } else { below };
                        self.properties[found].1.walk(inner, below, &at(name), run)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn former<'a>(&self, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
        if self.keys.is_empty() {
            return None;
        }
        old?.items().iter().find(|other| self.keys.iter().all(|key| other[key.as_str()] == item[key.as_str()]))
    }

    fn own(&self, value: &Value, former: Former, path: &str, run: &mut Run) -> Result<(), Stop> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let Some(decl) = &self.decl else {
            let why = self.rules.iter().find_map(|rule| rule.as_ref().err()).map_or("", String::as_str);
            self.fail(path, format!("rule compiler initialization error: {why}"), run);
            return Ok(());
        };
        for rule in &self.rules {
            match rule {
                Err(why) => self.fail(path, format!("rule compile error: {why}"), run),
                Ok(rule) => self.evaluate(rule, decl, (value, former), path, run)?,
            }
        }
        Ok(())
    }

    /// An error that shows the type, as upstream does where a rule has no answer.
    fn fail(&self, path: &str, detail: String, run: &mut Run) {
        run.errors.add(invalid(path, format!("{:?}", self.kind.as_str()), detail));
    }

    fn evaluate(
        &self,
        rule: &Rule,
        decl: &DeclType,
        (value, former): (&Value, Former),
        path: &str,
        run: &mut Run,
    ) -> Result<(), Stop> {
        let optional = rule.spec["optionalOldSelf"].bool();
        let old = former.old.filter(|old| !old.is_null()).map(|old| Val::declared(old, decl));
        let transition = rule.program.reads("oldSelf");
        if transition && old.is_none() && !optional {
            return Ok(());
        }
        let this = Val::declared(value, decl);
        let old = if optional { Val::Optional(old.map(Arc::new)) } else { old.unwrap_or(Val::Null) };
        let bindings = [("self", this), ("oldSelf", old)];
        let done = rule.program.eval(&bindings, PER_CALL_LIMIT);
        let Some(left) = run.left.checked_sub(done.cost) else {
            self.fail(path, OUT_OF_BUDGET.into(), run);
            return Err(Stop);
        };
        run.left = left;
        match done.value {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(why) => {
                let text = rule.text();
                if why.over_budget {
                    let what = "no further validation rules will be run due to call cost exceeds limit for rule";
                    self.fail(path, format!("'{why}': {what}: {text}"), run);
                    return Err(Stop);
                }
                let what = "call arguments did not match a supported operator, function or macro signature for rule";
                let detail = match why.message.starts_with("no such overload") {
                    true => format!("'{why}': {what}: {text}"),
                    false => format!("{why} evaluating rule: {text}"),
                };
                self.fail(path, detail, run);
                return Ok(());
            }
        }
        let at = match (path, rule.field_path.as_str()) {
            (path, "") => path.to_string(),
            ("", below) => below.to_string(),
            (path, below) => format!("{path}.{below}"),
        };
        let ratcheted = !transition && former.unchanged(value);
        let message = match rule.message(&bindings, run) {
            Ok(message) => message,
            Err(why) => {
                if !ratcheted {
                    self.fail(&at, why, run);
                }
                return Err(Stop);
            }
        };
        if !ratcheted {
            let shown = match self.kind.as_str() {
                "object" | "array" => String::new(),
                _ => json::to_string(value),
            };
            run.errors.add(Error { kind: rule.reason(), ..invalid(&at, shown, message) });
        }
        Ok(())
    }
}

impl Rule {
    fn text(&self) -> &str {
        Some(self.spec["message"].str()).filter(|m| !m.is_empty()).unwrap_or(self.spec["rule"].str()).trim()
    }

    fn reason(&self) -> Kind {
        match self.spec["reason"].str() {
            "FieldValueForbidden" => Kind::Forbidden,
            "FieldValueRequired" => Kind::Required,
            "FieldValueDuplicate" => Kind::Duplicate,
            _ => Kind::Invalid,
        }
    }

    /// What is said of a value that breaks the rule. An error if the budget is spent.
    fn message<'a>(&self, bindings: &[(&str, Val<'a>); 2], run: &mut Run) -> Result<String, String> {
        if let Some(Ok(program)) = &self.message_expression {
            let done = program.eval(bindings, PER_CALL_LIMIT);
            let Some(left) = run.left.checked_sub(done.cost) else {
                let what = "messageExpression evaluation failed due to running out of cost budget";
                return Err(format!("{what}, no further validation rules will be run"));
            };
            run.left = left;
            match done.value {
                Err(why) if why.over_budget => {
                    let what = "no further validation rules will be run due to call cost exceeds limit for";
                    return Err(format!("{what} messageExpression: {:?}", program.source()));
                }
                Ok(Val::Str(text)) => {
                    let text = text.trim();
                    if !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n') {
                        return Ok(text.to_string());
                    }
                }
                _ => {}
            }
        }
        Ok(match self.spec["message"].str() {
            "" => format!("failed rule: {}", self.text()),
            message => message.trim().to_string(),
        })
    }
}

fn invalid(path: &str, value: String, detail: String) -> Error {
    let field = if path.is_empty() { "<nil>" } else { path };
    Error { kind: Kind::Invalid, field: field.into(), value, detail }
}

#[cfg(test)]
mod tests;
