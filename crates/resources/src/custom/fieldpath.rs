//! Paths into a schema, as `fieldPath` of a rule has them: `.spec.names['a key']`.

use canopus_api::Value;

/// The path as errors show it; None if it leads to nothing in the schema.
pub fn normalize(path: &str, schema: &Value) -> Option<String> {
    let (mut out, mut at, mut rest) = (String::new(), schema, path);
    while !rest.is_empty() {
        let (name, after) = step(rest)?;
        rest = after;
        if at["properties"].as_object().is_some() {
            at = at["properties"].get(&name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else if at["additionalProperties"].as_object().is_some() {
            at = &at["additionalProperties"];
            out.push_str(&format!("[{name}]"));
        } else {
            return None;
        }
    }
    Some(out)
}

/// One step, and what follows it.
fn step(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        return (end > 0).then(|| (rest[..end].to_string(), &rest[end..]));
    }
    let rest = path.strip_prefix("['")?;
    let (mut name, mut chars) = (String::new(), rest.char_indices());
    while let Some((i, c)) = chars.next() {
        match c {
            '\'' => return Some((name, rest[i + 1..].strip_prefix(']')?)),
            '\\' => name.push(match chars.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => name.push(c),
        }
    }
    None
}
