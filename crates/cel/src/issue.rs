//! What is wrong with an expression, as cel-go prints it.

use std::fmt;

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub message: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 0.
    pub column: usize,
    /// The line's text.
    snippet: String,
}

/// A line longer than this is not repeated in a message.
const LONGEST_SNIPPET: usize = 16384;
/// So many issues are printed, the others only counted.
const PRINTED: usize = 100;

impl Issue {
    pub(crate) fn at(source: &str, offset: usize, message: String) -> Issue {
        let mut line = 1;
        let mut start = 0;
        for (i, c) in source.chars().enumerate().take(offset) {
            if c == '\n' {
                line += 1;
                start = i + 1;
            }
        }
        let snippet = source.split('\n').nth(line - 1).unwrap_or("").to_string();
        Issue { message, line, column: offset.saturating_sub(start), snippet }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR: <input>:{}:{}: {}", self.line, self.column + 1, self.message)?;
        if self.snippet.len() > LONGEST_SNIPPET {
            return Ok(());
        }
        let snippet = self.snippet.replace('\t', " ");
        write!(f, "\n | {snippet}\n | ")?;
        let mut chars = snippet.chars();
        for c in chars.by_ref().take(self.column) {
            f.write_str(if c.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if chars.next().is_none_or(|c| c.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

/// All issues of an expression as one text, in the order of their places.
pub fn issues_text(issues: &[Issue]) -> String {
    let mut sorted: Vec<&Issue> = issues.iter().collect();
    sorted.sort_by_key(|i| (i.line, i.column));
    let mut lines: Vec<String> = sorted.iter().take(PRINTED).map(|i| i.to_string()).collect();
    if sorted.len() > PRINTED {
        lines.push(format!("{} more errors were truncated", sorted.len() - PRINTED));
    }
    lines.join("\n")
}
