//! Label and field selectors: parsed once, matched on an object's facts (upstream `labels.Parse`, `fields.ParseSelector`).

use crate::names;
use crate::object::Facts;
use crate::value::Value;
use compact_str::CompactString;
use std::fmt;

/// All requirements must hold; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches nothing: what a nil `metav1.LabelSelector` means.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    pub key: CompactString,
    pub op: Op,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Equals(CompactString),
    NotEquals(CompactString),
    In(Vec<CompactString>),
    NotIn(Vec<CompactString>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.op {
            Op::Equals(want) => value == Some(want),
            Op::NotEquals(not) => value != Some(not),
            Op::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Op::NotIn(set) => !value.is_some_and(|v| set.iter().any(|s| s == v)),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::GreaterThan(n) => number().is_some_and(|v| v > *n),
            Op::LessThan(n) => number().is_some_and(|v| v < *n),
        }
    }
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn matches(&self, facts: &Facts) -> bool {
        self.matches_by(|key| facts.label(key))
    }

    /// Matches against labels in a tree (`metadata.labels`, a template's labels).
    pub fn matches_value(&self, labels: &Value) -> bool {
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }

    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Exact labels, as `spec.selector` of a Service or ReplicationController.
    pub fn from_map(labels: &Value) -> LabelSelector {
        let exact = |(k, v): (&CompactString, &Value)| Requirement { key: k.clone(), op: Op::Equals(v.str().into()) };
        LabelSelector { requirements: labels.entries().map(exact).collect(), nothing: false }
    }

    /// A `metav1.LabelSelector` tree. Null selects nothing, `{}` everything. Errors are for operators or
    /// values that validation would have refused.
    pub fn from_value(selector: &Value) -> Result<LabelSelector, String> {
        if selector.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut out = LabelSelector::from_map(&selector["matchLabels"]);
        for e in selector["matchExpressions"].items() {
            let values = e["values"].items().iter().map(|v| v.str().into()).collect::<Vec<CompactString>>();
            let op = match e["operator"].str() {
                "In" => Op::In(values),
                "NotIn" => Op::NotIn(values),
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                "Gt" => Op::GreaterThan(single_integer(&values)?),
                "Lt" => Op::LessThan(single_integer(&values)?),
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            out.requirements.push(Requirement { key: e["key"].str().into(), op });
        }
        // Upstream sorts, which shows in printed columns and in a Scale's status.
        out.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(out)
    }

    /// The query syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k,n>1`.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut lexer = Lexer { text, at: 0 };
        let mut requirements = Vec::new();
        if lexer.peek() == Token::End {
            return Ok(LabelSelector::everything());
        }
        loop {
            match lexer.peek() {
                Token::Word(_) | Token::Not => {}
                other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
            }
            let parsed = requirement(&mut lexer).map_err(|why| format!("unable to parse requirement: {why}"))?;
            requirements.push(parsed);
            match lexer.next() {
                Token::End => break,
                Token::Comma => match lexer.peek() {
                    Token::Word(_) | Token::Not => {}
                    other => return Err(format!("found '{other}', expected: identifier after ','")),
                },
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let (comma, key) = (if i > 0 { "," } else { "" }, &r.key);
            match &r.op {
                Op::Equals(v) => write!(f, "{comma}{key}={v}")?,
                Op::NotEquals(v) => write!(f, "{comma}{key}!={v}")?,
                Op::In(set) => write!(f, "{comma}{key} in ({})", set.join(","))?,
                Op::NotIn(set) => write!(f, "{comma}{key} notin ({})", set.join(","))?,
                Op::Exists => write!(f, "{comma}{key}")?,
                Op::DoesNotExist => write!(f, "{comma}!{key}")?,
                Op::GreaterThan(n) => write!(f, "{comma}{key}>{n}")?,
                Op::LessThan(n) => write!(f, "{comma}{key}<{n}")?,
            }
        }
        Ok(())
    }
}

fn single_integer(values: &[CompactString]) -> Result<i64, String> {
    match values {
        [one] => one.parse().map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".into()),
        _ => Err("for 'Gt', 'Lt' operators, exactly one value is required".into()),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    End,
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    Word(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::End => "",
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Not => "!",
            Token::Equals => "=",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Word(w) => w,
        })
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Token<'a> {
        Lexer { text: self.text, at: self.at }.next()
    }

    fn next(&mut self) -> Token<'a> {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\n', '\r']);
        self.at = self.text.len() - rest.len();
        let symbols = [
            ("==", Token::Equals),
            ("=", Token::Equals),
            ("!=", Token::NotEquals),
            ("!", Token::Not),
            (">", Token::Greater),
            ("<", Token::Less),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
        ];
        for (symbol, token) in symbols {
            if rest.starts_with(symbol) {
                self.at += symbol.len();
                return token;
            }
        }
        let end = rest.find(|c: char| "=!><(), \t\n\r".contains(c)).unwrap_or(rest.len());
        self.at += end;
        if end == 0 { Token::End } else { Token::Word(&rest[..end]) }
    }
}

fn requirement(lexer: &mut Lexer) -> Result<Requirement, String> {
    let negated = lexer.peek() == Token::Not;
    if negated {
        lexer.next();
    }
    let key = match lexer.next() {
        Token::Word(key) => key,
        other => return Err(format!("found '{other}', expected: identifier")),
    };
    if let Some(why) = names::qualified_name(key).into_iter().next() {
        return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
    }
    let key = CompactString::from(key);
    if negated {
        return Ok(Requirement { key, op: Op::DoesNotExist });
    }
    let op = match lexer.peek() {
        Token::End | Token::Comma => Op::Exists,
        Token::Word("in") => Op::In(set(lexer)?),
        Token::Word("notin") => Op::NotIn(set(lexer)?),
        Token::Word(other) => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        operator => {
            lexer.next();
            let value = match lexer.peek() {
                Token::Word(value) => {
                    lexer.next();
                    value
                }
                Token::End | Token::Comma => "",
                other => return Err(format!("found '{other}', expected: identifier")),
            };
            let number = || {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                value.parse().map_err(|_| format!("values[0]: Invalid value: {value:?}: {why}"))
            };
            match operator {
                Token::Equals => Op::Equals(checked(value, &key)?),
                Token::NotEquals => Op::NotEquals(checked(value, &key)?),
                Token::Greater => Op::GreaterThan(number()?),
                Token::Less => Op::LessThan(number()?),
                other => {
                    return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
                }
            }
        }
    };
    Ok(Requirement { key, op })
}

fn checked(value: &str, key: &str) -> Result<CompactString, String> {
    match names::label_value(value).into_iter().next() {
        Some(why) => Err(format!("values[0][{key}]: Invalid value: {value:?}: {why}")),
        None => Ok(value.into()),
    }
}

fn set(lexer: &mut Lexer) -> Result<Vec<CompactString>, String> {
    lexer.next();
    match lexer.next() {
        Token::Open => {}
        other => return Err(format!("found '{other}' expected: '('")),
    }
    let mut values = Vec::new();
    loop {
        match lexer.next() {
            Token::Word(word) => {
                values.push(CompactString::from(word));
                match lexer.next() {
                    Token::Comma => {}
                    Token::Close => break,
                    other => return Err(format!("found '{other}', expected: ',' or ')'")),
                }
            }
            Token::Comma => values.push(CompactString::default()),
            Token::Close => break,
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
    }
    values.sort();
    values.dedup();
    Ok(values)
}

/// Field, whether it is wanted to be equal, value.
pub type FieldTerm = (CompactString, bool, CompactString);

/// `spec.nodeName=n1,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let (field, equal, value) = split_operator(&term)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            terms.push((field.into(), equal, unescape(value)?));
        }
        Ok(FieldSelector { terms })
    }

    pub fn equal(field: &str, value: &str) -> FieldSelector {
        FieldSelector { terms: vec![(field.into(), true, value.into())] }
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, when one is demanded.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, equal, _)| *equal && f == field).map(|(_, _, v)| v.as_str())
    }

    pub fn matches(&self, facts: &Facts) -> bool {
        self.terms.iter().all(|(field, equal, value)| {
            let is = facts.field(field).is_some_and(|v| v == value);
            is == *equal
        })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (field, equal, value)) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{field}{}{value}", if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(std::mem::take(&mut term));
        } else {
            term.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    terms.push(term);
    terms
}

fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).map(|value| (field, true, value))
}

fn unescape(value: &str) -> Result<CompactString, String> {
    let mut out = CompactString::default();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(format!("invalid field selector: invalid escape sequence in {value:?}")),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in {value:?}: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;
    use proptest::prelude::*;

    #[test]
    fn label_selectors_match() {
        let labels = value!({"a": "1", "b": "x", "n": "5"});
        let cases = [
            ("", true),
            ("a=1", true),
            ("a==1,b=x", true),
            ("a!=1", false),
            ("c!=1", true),
            ("b in (x, y)", true),
            ("b notin (x,y)", false),
            ("c notin (x)", true),
            ("a", true),
            ("!a", false),
            ("!c", true),
            ("n>4", true),
            ("n<5", false),
            ("b=", false),
            ("b in (x,)", true),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches_value(&labels), expected, "{text}");
        }
    }

    #[test]
    fn bad_label_selectors() {
        for bad in ["a=b=c", "a in", "a in (b", ",", "a,", "a b", "=x", "a>x", "a in b", "-a=1", "a=b%"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn selector_objects() {
        let s = LabelSelector::from_value(&value!({
            "matchLabels": {"app": "x"}, "matchExpressions": [{"key": "t", "operator": "NotIn", "values": ["a"]}],
        }));
        let s = s.unwrap();
        assert!(s.matches_value(&value!({"app": "x"})));
        assert!(!s.matches_value(&value!({"app": "x", "t": "a"})));
        assert_eq!(s.to_string(), "app=x,t notin (a)");
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches_value(&value!({})));
    }

    #[test]
    fn field_selectors() {
        let facts =
            Facts { name: "p,1".into(), fields: Box::new([("spec.nodeName".into(), "n1".into())]), ..Facts::default() };
        let matches = |text: &str| FieldSelector::parse(text).unwrap().matches(&facts);
        assert!(matches("spec.nodeName=n1,metadata.name=p\\,1"));
        assert!(matches("spec.nodeName!=n2"));
        assert!(!matches("spec.nodeName=="));
        assert!(FieldSelector::parse("spec.nodeName").is_err());
        assert_eq!(FieldSelector::parse("a=b\\,c").unwrap().to_string(), "a=b\\,c");
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,60}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
            let _ = FieldSelector::parse(&text);
        }
    }
}
