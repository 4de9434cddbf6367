//! Trees to YAML text, laid out as `kubectl -o yaml` does (go-yaml v2's emitter).

use super::scalar::is_special;
use crate::json;
use crate::value::{Map, Value};

/// Lines are folded at spaces beyond this column.
const WIDTH: usize = 80;

/// One document, keys sorted, ending in a newline.
pub fn to_yaml(value: &Value) -> String {
    let mut writer = Writer { out: String::new(), column: 0 };
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(map, 0, true),
        Value::Array(items) if !items.is_empty() => writer.sequence(items, 0, true),
        other => {
            writer.inline(other, 0);
            writer.newline(0);
        }
    }
    writer.out
}

struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn newline(&mut self, indent: usize) {
        self.out.push('\n');
        self.column = 0;
        if indent > 0 {
            self.put(&" ".repeat(indent));
        }
    }

    /// `started`: the first key goes where the cursor is.
    fn mapping(&mut self, map: &Map, indent: usize, started: bool) {
        for (i, (key, value)) in map.iter().enumerate() {
            if i > 0 || !started {
                self.put(&" ".repeat(indent));
            }
            self.scalar(key, indent, true);
            self.put(":");
            match value {
                Value::Object(map) if !map.is_empty() => {
                    self.newline(0);
                    self.mapping(map, indent + 2, false);
                }
                // Items stand under the key, not indented.
                Value::Array(items) if !items.is_empty() => {
                    self.newline(0);
                    self.sequence(items, indent, false);
                }
                other => {
                    self.put(" ");
                    self.inline(other, indent);
                    self.newline(0);
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize, started: bool) {
        for (i, item) in items.iter().enumerate() {
            if i > 0 || !started {
                self.put(&" ".repeat(indent));
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, indent + 2, true),
                Value::Array(items) if !items.is_empty() => self.sequence(items, indent + 2, true),
                other => {
                    self.inline(other, indent);
                    self.newline(0);
                }
            }
        }
    }

    fn inline(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Str(s) => self.scalar(s, indent, false),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
            other => {
                let text = json::to_string(other);
                self.put(&text);
            }
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, key: bool) {
        let found = Analysis::of(text);
        let indent = indent + 2;
        if text.contains('\n') && !key && found.block {
            self.literal(text, indent);
        } else if text.contains('\n') || is_special(text) || (found.special && !found.single) {
            self.double_quoted(text, indent, key);
        } else if found.plain && !text.is_empty() {
            self.folded(text, indent, key, |out, c| out.push(c));
        } else if found.single {
            self.put("'");
            self.folded(text, indent, key, |out, c| {
                if c == '\'' {
                    out.push(c);
                }
                out.push(c);
            });
            self.put("'");
        } else {
            self.double_quoted(text, indent, key);
        }
    }

    /// Writes `text`, breaking the line at lone spaces when it is wider than allowed.
    fn folded(&mut self, text: &str, indent: usize, key: bool, write: fn(&mut String, char)) {
        let mut after_space = false;
        let chars: Vec<char> = text.chars().collect();
        for (i, &c) in chars.iter().enumerate() {
            let lone = c == ' ' && !after_space && i > 0 && chars.get(i + 1).is_some_and(|next| *next != ' ');
            after_space = c == ' ';
            if lone && !key && self.column > WIDTH {
                self.newline(indent);
            } else {
                write(&mut self.out, c);
                self.column += 1;
            }
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text.ends_with("\n\n") || text == "\n" {
            self.put("+");
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            self.newline(if line.is_empty() { 0 } else { indent });
            self.put(line);
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.put("\"");
        let chars: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (i, &c) in chars.iter().enumerate() {
            let inner = i > 0 && i + 1 < chars.len();
            if c == ' ' && !key && !after_space && inner && self.column > WIDTH {
                self.newline(indent);
                if chars[i + 1] == ' ' {
                    self.put("\\");
                }
                after_space = true;
                continue;
            }
            after_space = c == ' ';
            match escape(c) {
                Some(escaped) => self.put(&escaped),
                None => self.put(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.put("\"");
    }
}

fn escape(c: char) -> Option<String> {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '\u{85}' => "\\N",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        '\u{feff}' => "\\uFEFF",
        c if is_printable(c) => return None,
        c if (c as u32) <= 0xff => return Some(format!("\\x{:02X}", c as u32)),
        c if (c as u32) <= 0xffff => return Some(format!("\\u{:04X}", c as u32)),
        c => return Some(format!("\\U{:08X}", c as u32)),
    };
    Some(short.into())
}

/// go-yaml v2 counts neither tabs nor anything beyond the basic plane as printable.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

/// Which styles can carry a text in block context (libyaml's `analyze_scalar`).
struct Analysis {
    plain: bool,
    single: bool,
    block: bool,
    special: bool,
}

impl Analysis {
    fn of(text: &str) -> Analysis {
        let is_break = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\t') || is_break(*c));
        let chars: Vec<char> = text.chars().collect();
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut breaks, mut space_break, mut break_space) = (false, false, false, false);
        for (i, &c) in chars.iter().enumerate() {
            let previous = i.checked_sub(1).map(|j| &chars[j]);
            let next = chars.get(i + 1);
            indicators |= match c {
                '#' => previous.is_none() || blank(previous),
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => i == 0,
                '?' | '-' if i == 0 => blank(next),
                ':' => blank(next),
                _ => false,
            };
            special |= !is_printable(c) && !is_break(c) || c == '\r';
            breaks |= is_break(c);
            space_break |= is_break(c) && previous == Some(&' ');
            break_space |= c == ' ' && previous.is_some_and(|p| is_break(*p));
        }
        let edge = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
        let edged = edge(chars.first()) || edge(chars.last());
        let unsafe_text = space_break || special;
        Analysis {
            plain: !(indicators || edged || breaks || break_space || unsafe_text),
            single: !(break_space || unsafe_text),
            block: !(unsafe_text || chars.last() == Some(&' ') || chars.is_empty()),
            special,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;
    use crate::yaml::parse;
    use proptest::prelude::*;

    #[test]
    fn looks_like_kubectls() {
        let v = value!({
            "apiVersion": "v1", "empty": {}, "none": [], "yes": "yes", "n": null,
            "spec": {"args": ["-c", "a: b", "#x", "", " lead", "it's: so", "tab\there"], "nested": [[1, 2], [{"a": 1.5}]],
                "containers": [{"name": "c", "ports": [{"containerPort": 80}]}, {}]},
            "text": "line one\nline two\n", "kept": "a\n\n", "stripped": "a\nb", "when": "2026-01-01T00:00:00Z",
            "cpu": "100m", "port": "80", "url": "http://x/y?z=1", "time": "10:30",
        });
        let want = r##"apiVersion: v1
cpu: 100m
empty: {}
kept: |+
  a

"n": null
none: []
port: "80"
spec:
  args:
  - -c
  - 'a: b'
  - '#x'
  - ""
  - ' lead'
  - 'it''s: so'
  - "tab\there"
  containers:
  - name: c
    ports:
    - containerPort: 80
  - {}
  nested:
  - - 1
    - 2
  - - a: 1.5
stripped: |-
  a
  b
text: |
  line one
  line two
time: "10:30"
url: http://x/y?z=1
when: "2026-01-01T00:00:00Z"
"yes": "yes"
"##;
        assert_eq!(to_yaml(&v), want);
        assert_eq!(parse(want).unwrap().value, v);
    }

    #[test]
    fn long_lines_fold() {
        let message =
            "Failed to pull image \"nope\": rpc error: code = Unknown desc = failed to pull and unpack image \"x\"";
        let v = value!({"message": message});
        assert_eq!(
            to_yaml(&v),
            "message: 'Failed to pull image \"nope\": rpc error: code = Unknown desc = failed to\n  pull and unpack image \"x\"'\n"
        );
        assert_eq!(parse(&to_yaml(&v)).unwrap().value, v);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[-a:{}&*!|> '\"#%?,0.\n\t~é]{0,12}".prop_map(Value::from),
            "(word | a|  ){0,40}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[-a:{ '#\n]{0,6}", inner), 0..4)
                    .prop_map(|e| Value::Object(e.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn survives_its_own_parser(v in tree()) {
            let text = to_yaml(&v);
            let back = parse(&text);
            prop_assert_eq!(back.as_ref().map(|d| &d.value), Ok(&v), "{}", text);
        }
    }
}
