//! YAML text to trees: bounded in depth and in what aliases may expand to.

use super::scalar::resolve;
use crate::json::MAX_DEPTH;
use crate::value::{Map, Value};
use compact_str::CompactString;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use std::collections::HashMap;

/// Nodes that the aliases of one stream may add in sum.
const MAX_ALIASED: usize = 100_000;
/// Documents in one stream.
const MAX_DOCUMENTS: usize = 10_000;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("yaml: line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("yaml: exceeded max depth")]
    TooDeep,
    #[error("yaml: document contains excessive aliasing")]
    TooManyAliases,
    #[error("yaml: too many documents")]
    TooManyDocuments,
    #[error("yaml: unknown anchor referenced")]
    UnknownAnchor,
    #[error("yaml: invalid map key")]
    BadKey,
    #[error("yaml: map merge requires map or sequence of maps as the value")]
    BadMerge,
    #[error("yaml: cannot decode {tag} `{text}`")]
    BadTag { tag: String, text: String },
    #[error("json: unsupported value: {0}")]
    NotJson(String),
}

/// One document.
#[derive(Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// What strict decoding reports: `line 3: key "a" already set in map`. At most 100.
    pub duplicates: Vec<String>,
}

impl Document {
    /// Upstream's strict decoding error for the duplicates, if there are any.
    pub fn strict_error(&self) -> Option<String> {
        (!self.duplicates.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", self.duplicates.join("\n  ")))
    }
}

/// Parses the first document of `text`, as `yaml.Unmarshal` does; an empty stream is null.
pub fn parse(text: &str) -> Result<Document, Error> {
    Ok(Loader::new(text).next_document()?.unwrap_or_default())
}

/// Parses every document of `text`; empty ones (between two `---`) are null.
pub fn parse_documents(text: &str) -> Result<Vec<Document>, Error> {
    let mut loader = Loader::new(text);
    let mut out = Vec::new();
    while let Some(document) = loader.next_document()? {
        if out.len() == MAX_DOCUMENTS {
            return Err(Error::TooManyDocuments);
        }
        out.push(document);
    }
    Ok(out)
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    duplicates: Vec<String>,
}

type Next<'a> = (Event<'a>, Span);

impl<'a> Loader<'a> {
    fn new(text: &'a str) -> Loader<'a> {
        let parser = Parser::new_from_str(text);
        Loader { parser, anchors: HashMap::new(), aliased: 0, duplicates: Vec::new() }
    }

    fn event(&mut self) -> Result<Next<'a>, Error> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(e)) => Err(Error::Syntax { line: e.marker().line(), message: e.info().to_string() }),
            None => Err(Error::Syntax { line: 0, message: "unexpected end of stream".into() }),
        }
    }

    fn next_document(&mut self) -> Result<Option<Document>, Error> {
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(_), _) => {
                    let first = self.event()?;
                    let value = self.node(first, 0)?;
                    self.anchors.clear();
                    return Ok(Some(Document { value, duplicates: std::mem::take(&mut self.duplicates) }));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, (event, _): Next<'a>, depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(&text, style, tag.as_deref())?),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(id) => return self.alias(id),
            _ => (0, Value::Null),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, id: usize) -> Result<Value, Error> {
        let value = self.anchors.get(&id).ok_or(Error::UnknownAnchor)?;
        self.aliased += nodes(value);
        if self.aliased > MAX_ALIASED {
            return Err(Error::TooManyAliases);
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                next => items.push(self.node(next, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Error> {
        let mut map = Map::new();
        let mut merged: Vec<Map> = Vec::new();
        loop {
            let next = self.event()?;
            if next.0 == Event::MappingEnd {
                break;
            }
            let line = next.1.start.line();
            let merge = matches!(&next.0, Event::Scalar(text, ScalarStyle::Plain, _, None) if text.as_ref() == "<<");
            let key = self.node(next, depth + 1)?;
            let following = self.event()?;
            let value = self.node(following, depth + 1)?;
            if merge {
                merge_sources(value, &mut merged)?;
                continue;
            }
            let key = key_text(&key)?;
            if map.insert(key.clone(), value).is_some() && self.duplicates.len() < 100 {
                self.duplicates.push(format!("line {line}: key {:?} already set in map", key.as_str()));
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            if !map.contains_key(&key) {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

/// The mappings that `<<:` names; earlier ones win.
fn merge_sources(value: Value, into: &mut Vec<Map>) -> Result<(), Error> {
    match value {
        Value::Object(map) => into.push(map),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(map) => into.push(map),
                    _ => return Err(Error::BadMerge),
                }
            }
        }
        _ => return Err(Error::BadMerge),
    }
    Ok(())
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

/// JSON's keys are strings: other scalars become their text, as sigs.k8s.io/yaml has it.
fn key_text(key: &Value) -> Result<CompactString, Error> {
    match key {
        Value::Str(s) => Ok(s.clone()),
        Value::Bool(b) => Ok(CompactString::const_new(if *b { "true" } else { "false" })),
        Value::Int(i) => Ok(compact_str::format_compact!("{i}")),
        Value::Float(f) => Ok(compact_str::format_compact!("{f}")),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Error::BadKey),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
    let core = tag.filter(|t| t.is_yaml_core_schema() || t.handle == "!!").map(|t| t.suffix.as_str());
    let bad = |tag: &str| Error::BadTag { tag: format!("!!{tag}"), text: text.to_string() };
    let plain = || resolve(text).ok_or_else(|| Error::NotJson(text.to_string()));
    match (core, tag) {
        (Some("str"), _) => Ok(text.into()),
        (Some("binary"), _) => {
            let bytes = decode_base64(text).ok_or_else(|| bad("binary"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned().into())
        }
        (Some(name @ ("bool" | "int" | "float" | "null")), _) => {
            let value = plain()?;
            let fits = match name {
                "bool" => matches!(value, Value::Bool(_)),
                "null" => value.is_null(),
                "int" => matches!(value, Value::Int(_)),
                _ => matches!(value, Value::Int(_) | Value::Float(_)),
            };
            if fits { Ok(value) } else { Err(bad(name)) }
        }
        // Tags of others mean nothing here; their scalars are text.
        (_, Some(_)) => Ok(text.into()),
        (None, None) if style == ScalarStyle::Plain => plain(),
        _ => Ok(text.into()),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let digit = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;
    use proptest::prelude::*;

    #[test]
    fn manifests() {
        let document = parse(
            "# comment\napiVersion: v1\nmetadata:\n  labels: {a: 'yes', b: \"1\", 1: on}\nspec:\n  containers:\n  - name: c\n    \
             args:\n    - |\n      a\n      b\n    - >-\n      folded\n      text\n    when: 2001-12-14\n    w: ~\n    x: !!str 12\n",
        )
        .unwrap();
        assert_eq!(
            document.value,
            value!({"apiVersion": "v1", "metadata": {"labels": {"a": "yes", "b": "1", "1": true}},
                "spec": {"containers": [{"name": "c", "args": ["a\nb\n", "folded text"], "when": "2001-12-14",
                    "w": null, "x": "12"}]}})
        );
        assert!(document.duplicates.is_empty());
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(
            parse(r#"{"a": [1, "b", null, {"c": true}]}"#).unwrap().value,
            value!({"a": [1, "b", null, {"c": true}]})
        );
    }

    #[test]
    fn several_documents() {
        let all = parse_documents("a: 1\n---\n---\nb: 2\n...\n").unwrap();
        let values: Vec<Value> = all.into_iter().map(|d| d.value).collect();
        assert_eq!(values, [value!({"a": 1}), Value::Null, value!({"b": 2})]);
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("a: 1\n---\nb: 2").unwrap().value, value!({"a": 1}));
    }

    #[test]
    fn duplicates_name_their_line() {
        let document = parse("a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
        assert_eq!(document.value, value!({"a": 1, "b": {"c": 2}}));
        assert_eq!(document.strict_error().unwrap(), "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map");
    }

    #[test]
    fn anchors_and_merges() {
        let document = parse("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\n").unwrap();
        assert_eq!(document.value["b"], value!({"p": 1, "q": 2}));
        assert_eq!(document.value["c"], value!({"p": 1, "q": 3}));
        assert_eq!(parse("a: {<<: 1}"), Err(Error::BadMerge));
    }

    #[test]
    fn bounded() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let items = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{items}]\n");
        }
        assert_eq!(parse(&bomb), Err(Error::TooManyAliases));
        assert!(parse(&"[".repeat(5000)).is_err());
        assert_eq!(parse(&("[".repeat(200) + &"]".repeat(200))), Err(Error::TooDeep));
    }

    #[test]
    fn refused() {
        for bad in ["a: b: c", "{a", "a: .nan", "[1]: x", "a: !!int x", "\t- x: y:", "a: *nope"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a:{}\\[\\]&*!|> \n'\"#%?,0.]{0,60}") {
            let _ = parse_documents(&text);
        }
    }
}
