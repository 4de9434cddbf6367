//! Value validation of custom resources by the `openAPIV3Schema` of their version, with the messages of upstream's
//! kube-openapi. Updates are ratcheted (KEP-4008): what was wrong before and has not changed is let through.

use super::formats;
use canopus_api::field::{Error, Kind as ErrorKind};
use canopus_api::{Errors, Value, json};
use compact_str::CompactString;
use regex::Regex;

/// The keywords of one node of a schema.
#[derive(Default)]
pub struct Validator {
    types: Vec<&'static str>,
    nullable: bool,
    format: Option<&'static str>,
    values: Vec<Value>,
    pattern: Option<(String, Option<Regex>)>,
    maximum: Option<(Value, bool)>,
    minimum: Option<(Value, bool)>,
    multiple_of: Option<Value>,
    lengths: (Option<i64>, Option<i64>),
    items_count: (Option<i64>, Option<i64>),
    unique: bool,
    properties_count: (Option<i64>, Option<i64>),
    required: Vec<CompactString>,
    /// Sorted by name.
    properties: Vec<(CompactString, Validator)>,
    additional: Option<Box<Validator>>,
    closed: bool,
    items: Option<Box<Validator>>,
    /// The keys of a list that is a map: by them the items of an update find their former selves.
    keys: Vec<CompactString>,
    atomic_map: bool,
    all_of: Vec<Validator>,
    any_of: Vec<Validator>,
    one_of: Vec<Validator>,
    not: Option<Box<Validator>>,
}

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string", "null"];

/// What a value made of a schema: its errors, and how many checks there were (by which upstream finds the alternative
/// that came closest).
#[derive(Default)]
struct Outcome {
    errors: Vec<Error>,
    checks: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.checks += other.checks;
        for error in other.errors {
            self.add(error);
        }
    }

    fn add(&mut self, error: Error) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

/// Whether a string format is one that is checked.
pub fn known_format(name: &str) -> bool {
    formats::known(name).is_some()
}

impl Validator {
    pub fn new(schema: &Value) -> Validator {
        let all = |key: &str| schema[key].items().iter().map(Validator::new).collect::<Vec<_>>();
        let known = |name: &str| TYPES.iter().copied().find(|t| *t == name);
        let mut types: Vec<&'static str> = known(schema["type"].str()).into_iter().collect();
        if schema["x-kubernetes-int-or-string"].bool() {
            types = vec!["integer", "string"];
        }
        let number = |key: &str| schema[key].as_i64();
        let bound = |key: &str, exclusive: &str| {
            schema.get(key).filter(|v| !v.is_null()).map(|v| (v.clone(), schema[exclusive].bool()))
        };
        let pattern = schema["pattern"].str();
        let format = match types.as_slice() {
            [] | ["string"] => formats::known(schema["format"].str()),
            _ => None,
        };
        let additional = &schema["additionalProperties"];
        Validator {
            format,
            nullable: schema["nullable"].bool(),
            values: schema["enum"].items().to_vec(),
            pattern: (!pattern.is_empty()).then(|| (pattern.to_string(), Regex::new(pattern).ok())),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: schema.get("multipleOf").filter(|v| !v.is_null()).cloned(),
            lengths: (number("minLength"), number("maxLength")),
            items_count: (number("minItems"), number("maxItems")),
            unique: schema["uniqueItems"].bool(),
            properties_count: (number("minProperties"), number("maxProperties")),
            required: schema["required"].items().iter().map(|name| name.str().into()).collect(),
            properties: schema["properties"].entries().map(|(k, v)| (k.clone(), Validator::new(v))).collect(),
            additional: additional.as_object().map(|_| Box::new(Validator::new(additional))),
            closed: additional.as_bool() == Some(false),
            items: schema["items"].as_object().map(|_| Box::new(Validator::new(&schema["items"]))),
            keys: match schema["x-kubernetes-list-type"].str() {
                "map" => schema["x-kubernetes-list-map-keys"].items().iter().map(|k| k.str().into()).collect(),
                _ => Vec::new(),
            },
            atomic_map: schema["x-kubernetes-map-type"].str() == "atomic",
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: schema["not"].as_object().map(|_| Box::new(Validator::new(&schema["not"]))),
            types,
        }
    }

    /// The validator of the property `name`.
    pub fn property(&self, name: &str) -> Option<&Validator> {
        self.properties.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok().map(|at| &self.properties[at].1)
    }

    /// All that is wrong with `value`. `old` is what it replaces. `prefix` is where it is (`status`), for the errors only.
    pub fn validate(&self, value: &Value, old: Option<&Value>, prefix: &str, errors: &mut Errors) {
        for mut error in self.check(value, old, "").errors {
            let path = error.field.trim_start_matches('.');
            error.field = match (prefix, path) {
                ("", "") | ("", "<nil>") => "<nil>".into(),
                (prefix, "" | "<nil>") => prefix.into(),
                ("", path) => path.into(),
                (prefix, path) => format!("{prefix}.{path}"),
            };
            errors.add(error);
        }
    }

    fn check(&self, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut out = self.check_all(value, old, path);
        if !out.errors.is_empty() && old == Some(value) {
            out.errors.clear();
        }
        out
    }

    fn check_all(&self, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut out = Outcome::default();
        self.check_type(value, path, &mut out);
        if value.is_null() {
            self.check_enum(value, path, &mut out);
            return out;
        }
        self.check_junctors(value, old, path, &mut out);
        match value {
            Value::Str(text) => self.check_string(text, path, &mut out),
            Value::Int(_) | Value::Float(_) => self.check_number(value, path, &mut out),
            Value::Array(items) => self.check_items(items, old, path, &mut out),
            _ => {}
        }
        self.check_enum(value, path, &mut out);
        if let Value::Object(_) = value {
            self.check_object(value, old, path, &mut out);
        }
        out.checks += 1;
        out
    }

    fn check_type(&self, value: &Value, path: &str, out: &mut Outcome) {
        let (found, integral) = match value {
            Value::Null => ("null", false),
            Value::Bool(_) => ("boolean", false),
            Value::Int(_) => ("integer", true),
            Value::Float(f) => ("number", f.fract() == 0.0 && f.abs() < 9.007_199_254_740_992e15),
            Value::Str(_) => ("string", false),
            Value::Array(_) => ("array", false),
            Value::Object(_) => ("object", false),
        };
        let is = |name: &str| self.types.contains(&name);
        let good = self.types.is_empty()
            || is(found)
            || found == "null" && self.nullable
            || integral && is("integer")
            || found == "integer" && is("number");
        if good {
            out.checks += 1;
            return;
        }
        let detail = format!("{path} in body must be of type {}: {found:?}", self.types.join(","));
        out.add(error(ErrorKind::TypeInvalid, path, format!("{found:?}"), detail));
    }

    fn check_enum(&self, value: &Value, path: &str, out: &mut Outcome) {
        if self.values.is_empty() || self.values.iter().any(|allowed| equal(allowed, value)) {
            return;
        }
        let text = |v: &Value| v.as_str().map_or_else(|| json::to_string(v), str::to_string);
        let names: Vec<String> = self.values.iter().map(|v| format!("{:?}", text(v))).collect();
        let detail = format!("supported values: {}", names.join(", "));
        out.add(error(ErrorKind::NotSupported, path, shown(value), detail));
    }

    /// The first of the rules for strings that is broken.
    fn check_string(&self, text: &str, path: &str, out: &mut Outcome) {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let (min, max) = self.lengths;
        if let Some(max) = max.filter(|max| length() > *max) {
            let unit = if max == 1 { "byte" } else { "bytes" };
            out.add(error(ErrorKind::TooLong, path, String::new(), format!("may not be more than {max} {unit}")));
        } else if let Some(min) = min.filter(|min| length() < *min) {
            invalid(out, path, &text.into(), format!("{path} in body should be at least {min} chars long"));
        } else if let Some((pattern, regex)) = &self.pattern {
            match regex {
                Some(regex) if regex.is_match(text) => {}
                Some(_) => invalid(out, path, &text.into(), format!("{path} in body should match '{pattern}'")),
                None => {
                    let why = format!("{path} in body must be of type string, because: pattern is invalid {pattern}");
                    invalid(out, path, &text.into(), why);
                }
            }
        }
        if let Some(format) = self.format.filter(|format| !formats::conforms(format, text)) {
            let detail = format!("{path} in body must be of type {format}: {text:?}");
            out.add(error(ErrorKind::TypeInvalid, path, format!("{text:?}"), detail));
        }
        out.checks += 1;
    }

    fn check_number(&self, value: &Value, path: &str, out: &mut Outcome) {
        if let Some(factor) = &self.multiple_of
            && !is_multiple(value, factor)
        {
            invalid(out, path, value, format!("{path} in body should be a multiple of {}", shown(factor)));
        }
        let order = |bound: &Value| compare(value, bound);
        if let Some((bound, exclusive)) = &self.maximum {
            let bad = if *exclusive { order(bound).is_ge() } else { order(bound).is_gt() };
            if bad {
                let words = if *exclusive { "less than" } else { "less than or equal to" };
                invalid(out, path, value, format!("{path} in body should be {words} {}", shown(bound)));
            }
        }
        if let Some((bound, exclusive)) = &self.minimum {
            let bad = if *exclusive { order(bound).is_le() } else { order(bound).is_lt() };
            if bad {
                let words = if *exclusive { "greater than" } else { "greater than or equal to" };
                invalid(out, path, value, format!("{path} in body should be {words} {}", shown(bound)));
            }
        }
        out.checks += 1;
    }

    fn check_items(&self, items: &[Value], old: Option<&Value>, path: &str, out: &mut Outcome) {
        if let Some(schema) = &self.items {
            for (i, item) in items.iter().enumerate() {
                let before = old.and_then(|old| self.former(item, old));
                out.merge(schema.check(item, before, &format!("{path}[{i}]")));
            }
        }
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = self.items_count.0.filter(|min| count < *min) {
            let value = Value::Int(count);
            invalid(out, path, &value, format!("{path} in body should have at least {min} items"));
        }
        if let Some(max) = self.items_count.1.filter(|max| count > *max) {
            out.add(too_many(path, count, max));
        }
        if self.unique && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
            invalid(out, path, &"".into(), format!("{path} in body shouldn't contain duplicates"));
        }
        out.checks += 1;
    }

    /// What an item was before, if items can be told apart.
    fn former<'a>(&self, item: &Value, old: &'a Value) -> Option<&'a Value> {
        if self.keys.is_empty() {
            return None;
        }
        old.items().iter().find(|other| self.keys.iter().all(|key| other[key.as_str()] == item[key.as_str()]))
    }

    fn check_object(&self, value: &Value, old: Option<&Value>, path: &str, out: &mut Outcome) {
        let count = i64::try_from(value.entries().count()).unwrap_or(i64::MAX);
        let old = old.filter(|_| !self.atomic_map);
        if let Some(min) = self.properties_count.0.filter(|min| count < *min) {
            invalid(out, path, value, format!("{path} in body should have at least {min} properties"));
        }
        if let Some(max) = self.properties_count.1.filter(|max| count > *max) {
            out.add(too_many(path, count, max));
        }
        let at = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        for (name, value) in value.entries() {
            let schema = self.property(name);
            if schema.is_none() && self.closed {
                let detail = format!("{} in body is a forbidden property", at(name));
                invalid(out, path, &"".into(), detail);
            }
            if let Some(schema) = schema.or(self.additional.as_deref()) {
                out.merge(schema.check(value, old.and_then(|old| old.get(name)), &at(name)));
            }
        }
        for name in self.required.iter().filter(|name| value.get(name).is_none()) {
            out.add(error(ErrorKind::Required, &at(name), String::new(), String::new()));
        }
        out.checks += 1;
    }

    fn check_junctors(&self, value: &Value, old: Option<&Value>, path: &str, out: &mut Outcome) {
        let check = |schema: &Validator| schema.check(value, old, path);
        if !self.any_of.is_empty() {
            let (valid, best) = alternatives(self.any_of.iter().map(check), true);
            if valid == 0 {
                out.add(composite(format!("{path:?} must validate at least one schema (anyOf)")));
            }
            out.merge(best);
        }
        if !self.one_of.is_empty() {
            let (valid, best) = alternatives(self.one_of.iter().map(check), false);
            match valid {
                1 => out.merge(best),
                0 => {
                    let why = format!("{path:?} must validate one and only one schema (oneOf). Found none valid");
                    out.add(composite(why));
                    out.merge(best);
                }
                n => out.add(composite(format!(
                    "{path:?} must validate one and only one schema (oneOf). Found {n} valid alternatives"
                ))),
            }
        }
        let mut valid = 0;
        for result in self.all_of.iter().map(check) {
            valid += usize::from(result.errors.is_empty());
            out.merge(result);
        }
        if valid != self.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.add(composite(format!("{path:?} must validate all the schemas (allOf){none}")));
        }
        if self.not.as_ref().is_some_and(|not| check(not).errors.is_empty()) {
            out.add(composite(format!("{path:?} must not validate the schema (not)")));
        }
        out.checks += 1;
    }
}

/// How many of the alternatives are valid, and the first valid one or the one that came closest.
fn alternatives(results: impl Iterator<Item = Outcome>, first: bool) -> (usize, Outcome) {
    let (mut valid, mut best): (usize, Option<Outcome>) = (0, None);
    for result in results {
        if result.errors.is_empty() {
            valid += 1;
            if valid == 1 {
                best = Some(result);
            }
            if first {
                break;
            }
        } else if valid == 0 && best.as_ref().is_none_or(|best| result.checks > best.checks) {
            best = Some(result);
        }
    }
    (valid, best.unwrap_or_default())
}

fn error(kind: ErrorKind, path: &str, value: String, detail: String) -> Error {
    Error { kind, field: path.to_string(), value, detail }
}

fn invalid(out: &mut Outcome, path: &str, value: &Value, detail: String) {
    out.add(error(ErrorKind::Invalid, path, shown(value), detail));
}

/// Errors of junctors belong to no field.
fn composite(detail: String) -> Error {
    error(ErrorKind::Invalid, "<nil>", "\"\"".into(), detail)
}

fn too_many(path: &str, actual: i64, max: i64) -> Error {
    let items = if max == 1 { "item" } else { "items" };
    error(ErrorKind::TooMany, path, actual.to_string(), format!("must have at most {max} {items}"))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("{text:?}"),
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e21 => format!("{f:.0}"),
        other => json::to_string(other),
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Int(i) => *i as f64,
        Value::Float(f) => *f,
        _ => 0.0,
    }
}

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        _ => float(a).total_cmp(&float(b)),
    }
}

fn is_multiple(value: &Value, factor: &Value) -> bool {
    match (value, factor) {
        (_, factor) if float(factor) <= 0.0 => true,
        (Value::Int(value), Value::Int(factor)) => value % factor == 0,
        _ => {
            let ratio = float(value) / float(factor);
            (ratio - ratio.round()).abs() < 1e-9
        }
    }
}

/// Equality of JSON, in which 1 and 1.0 are the same.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => compare(a, b).is_eq(),
        _ => a == b,
    }
}
