//! JSONPath templates as kubectl has them (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>):
//! `{range .items[*]}{.metadata.name}{"\n"}{end}`.

use crate::json;
use crate::value::Value;
use std::cmp::Ordering;
use std::str::FromStr;

/// How deep a template and a `..` search may go.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Path {
    /// From `$` instead of the current value.
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Every,
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Index(i64),
    Union(Vec<Step>),
    Filter(Operand, Option<(Operator, Operand)>),
    Descend,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// The text for `root`. Missing fields are empty, an index out of bounds is an error.
    pub fn render(&self, root: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, root, root, &mut out)?;
        Ok(out)
    }

    /// The values of a template that is one path.
    pub fn find<'a>(&self, root: &'a Value) -> Result<Vec<&'a Value>, String> {
        match &self.0[..] {
            [Node::Path(path)] => path.find(root, root),
            _ => Err("the template must be one path".into()),
        }
    }

    /// `{.a.b}`, `.a.b` and `a.b` alike.
    pub fn relaxed(text: &str) -> Result<Template, String> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        if inner.is_empty() || inner.contains(['{', '}']) {
            return Err(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}', got {text:?}"
            ));
        }
        let dot = if inner.starts_with(['.', '[', '$', '@']) { "" } else { "." };
        format!("{{{dot}{inner}}}").parse()
    }
}

/// A value as text: strings as they are, the rest as JSON.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| json::to_string(value), String::from)
}

fn render(nodes: &[Node], root: &Value, current: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let found: Vec<String> = path.find(root, current)?.into_iter().map(text).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(path, body) => {
                for value in path.find(root, current)? {
                    render(body, root, value, out)?;
                }
            }
        }
    }
    Ok(())
}

impl Path {
    fn find<'a>(&self, root: &'a Value, current: &'a Value) -> Result<Vec<&'a Value>, String> {
        let mut found = vec![if self.from_root { root } else { current }];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.take(root, value, &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }
}

impl Step {
    fn take<'a>(&self, root: &'a Value, value: &'a Value, out: &mut Vec<&'a Value>) -> Result<(), String> {
        match self {
            Step::Field(name) => out.extend(value.as_object().and_then(|map| map.get(name))),
            Step::Every => match value {
                Value::Array(items) => out.extend(items),
                Value::Object(map) => out.extend(map.values()),
                _ => {}
            },
            Step::Index(at) => {
                let Some(items) = value.as_array() else { return not_a_list(value) };
                let from_start = if *at < 0 { at + items.len() as i64 } else { *at };
                let item = usize::try_from(from_start).ok().and_then(|i| items.get(i));
                out.push(item.ok_or_else(|| format!("array index out of bounds: index {at}, length {}", items.len()))?);
            }
            Step::Slice { start, end, step } => {
                let Some(items) = value.as_array() else { return not_a_list(value) };
                out.extend(slice(items, *start, *end, *step));
            }
            Step::Union(steps) => {
                for step in steps {
                    step.take(root, value, out)?;
                }
            }
            Step::Filter(left, comparison) => {
                let Some(items) = value.as_array() else { return not_a_list(value) };
                for item in items {
                    if passes(root, item, left, comparison.as_ref())? {
                        out.push(item);
                    }
                }
            }
            Step::Descend => descend(value, 0, out),
        }
        Ok(())
    }
}

fn not_a_list(value: &Value) -> Result<(), String> {
    if value.is_null() { Ok(()) } else { Err(format!("{} is not array or slice", json::to_string(value))) }
}

fn slice(items: &[Value], start: Option<i64>, end: Option<i64>, step: i64) -> Vec<&Value> {
    let length = items.len() as i64;
    let bound = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length) as usize;
    let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(length)));
    let step = usize::try_from(step).unwrap_or(1).max(1);
    items.get(start..end).unwrap_or_default().iter().step_by(step).collect()
}

/// The value and all below it.
fn descend<'a>(value: &'a Value, depth: usize, out: &mut Vec<&'a Value>) {
    out.push(value);
    if depth == MAX_DEPTH {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, depth + 1, out)),
        Value::Object(map) => map.values().for_each(|item| descend(item, depth + 1, out)),
        _ => {}
    }
}

fn passes(
    root: &Value,
    item: &Value,
    left: &Operand,
    comparison: Option<&(Operator, Operand)>,
) -> Result<bool, String> {
    let value = |operand: &Operand| -> Result<Option<Value>, String> {
        match operand {
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Path(path) => match path.find(root, item)?[..] {
                [] => Ok(None),
                [one] => Ok(Some(one.clone())),
                _ => Err("can only compare one element at a time".into()),
            },
        }
    };
    let left = value(left)?;
    let Some((operator, right)) = comparison else { return Ok(left.is_some()) };
    let (Some(left), Some(right)) = (left, value(right)?) else { return Ok(false) };
    let order = compare(&left, &right);
    Ok(match operator {
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    let number = |v: &Value| match v {
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ if a == b => Some(Ordering::Equal),
        _ => Some(a.as_str()?.cmp(b.as_str()?)),
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut parser = Parser { rest: text };
        let nodes = parser.nodes(0)?;
        if !parser.rest.is_empty() {
            return Err("not in range, nothing to end".into());
        }
        Ok(Template(nodes))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected {token:?} at {:?} in the jsonpath", self.rest)) }
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// The longest start of the rest whose characters are all `wanted`.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    /// Up to the end of the text, or of the range one is in.
    fn nodes(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        if depth > MAX_DEPTH {
            return Err("the jsonpath is nested too deeply".into());
        }
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            let text = self.run(|c| c != '{');
            if !text.is_empty() {
                nodes.push(Node::Text(text.into()));
                continue;
            }
            if depth > 0 && self.end() {
                return Ok(nodes);
            }
            if self.rest.strip_prefix('{').is_some_and(|r| r.trim_start().starts_with("end}")) {
                return Ok(nodes);
            }
            self.expect("{")?;
            self.action(depth, &mut nodes)?;
        }
        if depth > 0 { Err("unclosed range: {end} is missing".into()) } else { Ok(nodes) }
    }

    fn end(&mut self) -> bool {
        let Some(inner) = self.rest.strip_prefix('{') else { return false };
        match inner.trim_start().strip_prefix("end").and_then(|r| r.trim_start().strip_prefix('}')) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What is between braces.
    fn action(&mut self, depth: usize, nodes: &mut Vec<Node>) -> Result<(), String> {
        self.blank();
        if let Some(rest) = self.rest.strip_prefix("range").filter(|r| r.starts_with([' ', '.', '$', '@', '['])) {
            self.rest = rest;
            self.blank();
            let path = self.path()?;
            self.blank();
            self.expect("}")?;
            let body = self.nodes(depth + 1)?;
            nodes.push(Node::Range(path, body));
            return Ok(());
        }
        loop {
            self.blank();
            if self.eat("}") {
                return Ok(());
            }
            match self.rest.chars().next() {
                None => return Err("unclosed action: } is missing".into()),
                Some('"' | '\'') => nodes.push(Node::Text(self.quoted()?)),
                Some(_) => nodes.push(Node::Path(self.path()?)),
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut out = String::new();
        loop {
            match chars.next() {
                None => return Err("unterminated quoted string in the jsonpath".into()),
                c if c == quote => break,
                Some('\\') => match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(c) => out.push(c),
                    None => return Err("unterminated quoted string in the jsonpath".into()),
                },
                Some(c) => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(out)
    }

    fn path(&mut self) -> Result<Path, String> {
        let from_root = self.eat("$");
        let start = self.rest;
        let at = !from_root && self.eat("@");
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.eat(".") {
                // A lone `.` is the value itself; `.[` is `[`.
                if self.rest.starts_with(|c: char| c == '[' || c == '}' || c.is_whitespace()) {
                    continue;
                }
                steps.push(self.name()?);
            } else if self.eat("[") {
                steps.push(self.brackets()?);
            } else {
                break;
            }
        }
        if steps.is_empty() && !from_root && !at && start.len() == self.rest.len() {
            return Err(format!("unrecognized text in the jsonpath: {:?}", self.rest));
        }
        Ok(Path { from_root, steps })
    }

    /// `name`, with `\.` for a dot in it, or `*`.
    fn name(&mut self) -> Result<Step, String> {
        if self.eat("*") {
            return Ok(Step::Every);
        }
        let mut name = String::new();
        loop {
            name += self.run(|c| !(c.is_whitespace() || ".[]{}()=!<>,\\".contains(c)));
            if !self.eat("\\") {
                break;
            }
            let mut chars = self.rest.chars();
            name.extend(chars.next());
            self.rest = chars.as_str();
        }
        if name.is_empty() { Err(format!("a name is missing before {:?}", self.rest)) } else { Ok(Step::Field(name)) }
    }

    /// After `[`.
    fn brackets(&mut self) -> Result<Step, String> {
        if self.eat("?(") {
            return self.filter();
        }
        let mut steps = Vec::new();
        loop {
            self.blank();
            steps.push(match self.rest.chars().next() {
                Some('"' | '\'') => Step::Field(self.quoted()?),
                Some('*') => {
                    self.expect("*")?;
                    Step::Every
                }
                _ => self.numbers()?,
            });
            self.blank();
            if self.eat("]") {
                break;
            }
            self.expect(",")?;
        }
        match steps.pop() {
            Some(only) if steps.is_empty() => Ok(only),
            last => {
                steps.extend(last);
                Ok(Step::Union(steps))
            }
        }
    }

    /// `3`, `-1`, `1:3`, `::2`.
    fn numbers(&mut self) -> Result<Step, String> {
        let text = self.run(|c| c.is_ascii_digit() || c == '-' || c == ':');
        let bad = || format!("invalid array index {text:?}");
        let parts: Result<Vec<Option<i64>>, String> = text
            .split(':')
            .map(|p| if p.is_empty() { Ok(None) } else { p.parse().map(Some).map_err(|_| bad()) })
            .collect();
        match parts?[..] {
            [Some(index)] => Ok(Step::Index(index)),
            [start, end] => Ok(Step::Slice { start, end, step: 1 }),
            [start, end, step] if step.is_none_or(|s| s > 0) => Ok(Step::Slice { start, end, step: step.unwrap_or(1) }),
            _ => Err(bad()),
        }
    }

    /// After `[?(`.
    fn filter(&mut self) -> Result<Step, String> {
        let left = self.operand()?;
        self.blank();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let mut comparison = None;
        if let Some((_, operator)) = operators.iter().find(|(token, _)| self.eat(token)) {
            comparison = Some((*operator, self.operand()?));
        }
        self.blank();
        self.expect(")")?;
        self.blank();
        self.expect("]")?;
        Ok(Step::Filter(left, comparison))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.blank();
        match self.rest.chars().next() {
            Some('"' | '\'') => Ok(Operand::Literal(Value::from(self.quoted()?))),
            Some('@' | '$' | '.' | '[') => Ok(Operand::Path(self.path()?)),
            _ => {
                let word = self.run(|c| c.is_ascii_alphanumeric() || "-+.".contains(c));
                json::parse(word.as_bytes())
                    .map(Operand::Literal)
                    .map_err(|_| format!("unrecognized value {word:?} in a filter"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn sample() -> Value {
        value!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "n": 1, "c": [{"type": "Ready", "status": "True"}]},
                {"metadata": {"name": "b"}, "n": 2, "c": [{"type": "Ready", "status": "False"}, {"type": "Other"}]},
                {"metadata": {"name": "c"}, "n": 3, "ok": true},
            ],
        })
    }

    #[test]
    fn templates_render() {
        for (template, text) in [
            ("{.kind}", "List"),
            ("kind: {.kind}!", "kind: List!"),
            ("{.items[*].metadata.name}", "a b c"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1:].metadata.name}", "c"),
            ("{.items[-1].metadata.name}", "c"),
            ("{.items[0:2].metadata.name}", "a b"),
            ("{.items[::2].metadata.name}", "a c"),
            ("{.items[0,2].metadata.name}", "a c"),
            ("{.items[0]['n', 'ok']}", "1"),
            ("{.items[0].metadata.labels.app\\.io/x}", "1"),
            ("{.items[0].metadata.labels['app.io/x']}", "1"),
            ("{.items[?(@.metadata.name==\"b\")].n}", "2"),
            ("{.items[?(@.n>1)].metadata.name}", "b c"),
            ("{.items[?(@.n!=2)].metadata.name}", "a c"),
            ("{.items[?(@.ok)].metadata.name}", "c"),
            ("{.items[?(@.ok==true)].metadata.name}", "c"),
            ("{.items[1].c[?(@.type=='Ready')].status}", "False"),
            ("{..name}", "a b c"),
            ("{.missing.field}", ""),
            ("{.items[2].metadata}", "{\"name\":\"c\"}"),
            ("{.items[2].n}/{.items[2].ok}", "3/true"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.n}{\"\\n\"}{end}", "a\t1\nb\t2\nc\t3\n"),
            ("{range .items[*]}{range .c[*]}{.type},{end};{end}", "Ready,;Ready,Other,;;"),
            ("{range .items[*]}{$.kind}{end}", "ListListList"),
            ("{.kind} {'{'}", "List {"),
        ] {
            let rendered = template.parse::<Template>().and_then(|t| t.render(&sample()));
            assert_eq!(rendered.as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for template in
            ["{.a", "{range .a}", "{end}", "{.a[}", "{.a[x]}", "{.a[?(@.b=)]}", "{\"a}", "{foo}", "{..}", "{.a[::0]}"]
        {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
        let error = "{.items[9]}".parse::<Template>().unwrap().render(&sample()).unwrap_err();
        assert_eq!(error, "array index out of bounds: index 9, length 3");
    }

    #[test]
    fn paths_for_wait_may_be_plain() {
        for text in ["{.kind}", ".kind", "kind", "{kind}"] {
            assert_eq!(Template::relaxed(text).unwrap().find(&sample()).unwrap(), [&value!("List")], "{text}");
        }
        assert!(Template::relaxed("{.a}{.b}").is_err());
    }
}
