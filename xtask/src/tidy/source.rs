//! Rules of one source file.

/// Longer files are to be divided.
const MAX_LINES: usize = 800;

/// Files that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// What must not be in a source file, and why. Written apart, so that this file is clean of it.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it, or leave it out"),
    (concat!("unimple", "mented!("), "finish it, or leave it out"),
    (concat!("dbg", "!("), "meant for the moment"),
    (concat!("#[ign", "ore"), "a test runs or is removed"),
    (concat!("TO", "DO"), "do it, or write an issue"),
    (concat!("FIX", "ME"), "do it, or write an issue"),
];

/// Problems of the file at `path`.
pub fn check(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES && !LONG.iter().any(|(long, _)| *long == path) {
        problems.push(format!("{path}: {lines} lines, more than {MAX_LINES}: divide it"));
    }
    for (number, line) in text.lines().enumerate() {
        for (word, why) in FORBIDDEN {
            if line.contains(word) {
                problems.push(format!("{path}:{}: {word:?} ({why})", number + 1));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_found() {
        assert!(check("a.rs", "fn main() {}\n").is_empty());
        let unfinished = format!("fn main() {{\n    {})\n}}\n", FORBIDDEN[0].0);
        assert_eq!(check("a.rs", &unfinished), [format!("a.rs:2: {:?} (finish it, or leave it out)", FORBIDDEN[0].0)]);
        assert!(check("a.rs", &"\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(check("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
