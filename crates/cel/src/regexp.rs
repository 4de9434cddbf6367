//! Regular expressions: RE2's syntax, which is that of the `regex` crate but for a few corners, within bounds.

use regex::{Regex, RegexBuilder};

/// A compiled expression may take so many bytes.
const LARGEST: usize = 4 << 20;

/// Compiles an expression; the error is for people.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let pattern = translate(pattern);
    RegexBuilder::new(&pattern).size_limit(LARGEST).dfa_size_limit(LARGEST).nest_limit(200).build().map_err(|e| {
        let text = e.to_string();
        let last = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ").to_string();
        format!("error parsing regexp: {last}: `{pattern}`")
    })
}

/// What RE2 writes otherwise: `\Q…\E` quotes, and within a class neither `[`, `&&`, `--` nor `~~` mean anything.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        let first = std::mem::take(&mut class_start);
        match c {
            '\\' => match chars.next() {
                Some('Q') if !in_class => {
                    let mut quoted = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        quoted.push(c);
                    }
                    out.push_str(&regex::escape(&quoted));
                }
                Some(next) => {
                    out.push('\\');
                    out.push(next);
                }
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                class_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
            }
            '[' if chars.peek() == Some(&':') => {
                // A named class: to its end as it is.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if in_class && first => out.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}
