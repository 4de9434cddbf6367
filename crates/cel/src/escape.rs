//! Field names as identifiers: `a-b` is `a__dash__b`, `namespace` is `__namespace__`.

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The identifier that stands for a field; None if there can be none.
pub fn escape(field: &str) -> Option<String> {
    if field.is_empty() || field.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    if RESERVED.contains(&field) {
        return Some(format!("__{field}__"));
    }
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The field that an identifier stands for; None if it stands for none.
pub fn unescape(ident: &str) -> Option<String> {
    let mut out = String::with_capacity(ident.len());
    let mut rest = ident;
    while !rest.is_empty() {
        let escaped = rest.strip_prefix("__").and_then(|r| {
            let end = r.find('_').filter(|&end| end > 0 && r[end..].starts_with("__"))?;
            Some((&r[..end], &r[end + 2..]))
        });
        let Some((name, after)) = escaped else {
            let c = rest.chars().next()?;
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        match name {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            name if RESERVED.contains(&name) && ident.len() == name.len() + 4 => out.push_str(name),
            _ => return None,
        }
        rest = after;
    }
    Some(out)
}
