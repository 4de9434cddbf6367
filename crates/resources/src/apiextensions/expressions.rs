//! What is wrong with the validation rules of a schema once they are compiled, and what they may cost (upstream
//! `apiextensions/validation/cel_validation.go`).

use crate::custom::rules::{Rule, Scope};
use canopus_api::field::{Error, Kind};
use canopus_api::{Errors, Field, Value};

/// What a rule may cost, by estimate, and all rules of a schema together.
const RULE_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;
/// No request is larger.
const REQUEST: u64 = 3 * 1024 * 1024;

/// All that is wrong with the rules of the schema at the root.
pub fn validate(schema: &Field, errors: &mut Errors) {
    let mut check = Check { total: 0, expensive: Vec::new(), errors };
    check.node(schema, &Place { root: true, times: Some(1), uncorrelated: None });
    let (total, mut expensive) = (check.total, check.expensive);
    if total <= SCHEMA_LIMIT {
        return;
    }
    expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    for (_, field) in expensive.into_iter().take(4) {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.add(Error { kind: Kind::Forbidden, field, value: String::new(), detail: detail.into() });
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.forbidden(schema, exceeds(what, total, SCHEMA_LIMIT));
}

#[derive(Clone)]
struct Place {
    root: bool,
    /// How many such values an object has at most, if there is a bound.
    times: Option<u64>,
    /// From where on values can't be compared with what they were.
    uncorrelated: Option<String>,
}

struct Check<'e> {
    total: u64,
    expensive: Vec<(u64, String)>,
    errors: &'e mut Errors,
}

impl Check<'_> {
    fn node(&mut self, schema: &Field, place: &Place) {
        let additional = schema.at("additionalProperties");
        let times = match schema.value["type"].str() {
            "object" if !additional.value.is_null() => product(place.times, &schema.value["maxProperties"]),
            "array" => product(place.times, &schema.value["maxItems"]),
            _ => place.times,
        };
        let below = |schema: &Field, uncorrelated: Option<String>| Place {
            root: schema.value["x-kubernetes-embedded-resource"].bool(),
            times,
            uncorrelated,
        };
        for (_, property) in schema.at("properties").entries() {
            self.node(&property, &below(&property, place.uncorrelated.clone()));
        }
        if additional.value.as_object().is_some() {
            self.node(&additional, &below(&additional, place.uncorrelated.clone()));
        }
        let items = schema.at("items");
        if items.value.as_object().is_some() {
            let keyed = schema.value["x-kubernetes-list-type"].str() == "map";
            let here = place.uncorrelated.clone().or_else(|| (!keyed).then(|| schema.path()));
            self.node(&items, &below(&items, here));
        }
        let rules = schema.at("x-kubernetes-validations");
        if rules.value.items().is_empty() {
            return;
        }
        let Some(scope) = Scope::of(schema.value, place.root) else {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            return self.errors.push(Kind::Internal, &rules, detail);
        };
        let fallback = REQUEST / (scope.decl.min_serialized + 1);
        for rule in rules.items() {
            match scope.compile(schema.value, rule.value) {
                Ok(compiled) => self.rule(&rule, &compiled, place, place.times.unwrap_or(fallback)),
                Err(why) => self.invalid(&rule, "rule", why),
            }
        }
    }

    fn rule(&mut self, rule: &Field, compiled: &Rule, place: &Place, times: u64) {
        let cost = compiled.program.estimated_cost().max.saturating_mul(times);
        self.cost(&rule.at("rule"), "estimated rule cost", cost);
        match &compiled.message_expression {
            Some(Ok(program)) => {
                let cost = program.estimated_cost().max;
                self.cost(&rule.at("messageExpression"), "estimated messageExpression cost", cost);
            }
            Some(Err(why)) => self.invalid(rule, "messageExpression", why.clone()),
            None => {}
        }
        let optional = rule.at("optionalOldSelf");
        match (compiled.program.reads("oldSelf"), &place.uncorrelated) {
            (true, Some(path)) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                self.errors.invalid(&rule.at("rule"), why);
            }
            (false, _) if !optional.value.is_null() => {
                self.errors.invalid(&optional, "may not be set if oldSelf is not used in rule");
            }
            _ => {}
        }
    }

    fn cost(&mut self, field: &Field, what: &str, cost: u64) {
        if cost > RULE_LIMIT {
            self.errors.forbidden(field, exceeds(what, cost, RULE_LIMIT));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, field.path()));
        }
    }

    /// Upstream shows the whole rule.
    fn invalid(&mut self, rule: &Field, name: &str, detail: String) {
        let field = rule.at(name).path();
        self.errors.add(Error { kind: Kind::Invalid, field, value: shown(rule.value), detail });
    }
}

fn product(times: Option<u64>, bound: &Value) -> Option<u64> {
    times?.checked_mul(u64::try_from(bound.as_i64()?).unwrap_or(0)).or(Some(u64::MAX))
}

fn shown(rule: &Value) -> String {
    let text = |name: &str| rule[name].str();
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, FieldPath:{:?}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        text("fieldPath")
    )
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_string(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
