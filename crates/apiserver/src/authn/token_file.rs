//! `--token-auth-file`: tokens in comma-separated values (RFC 4180), with name, UID and, quoted, groups of whom each is for
//! (upstream `token/tokenfile`).

use super::tokens::StaticTokens;
use crate::user::User;
use compact_str::CompactString;
use std::sync::Arc;

/// Reads such a file. Of a token that comes twice the last counts.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<StaticTokens, String> {
    let mut tokens: Vec<(String, Arc<User>)> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let line = line + 1;
        if text.is_empty() {
            continue;
        }
        let record = record(text).ok_or_else(|| format!("record on line {line}: wrong quotes"))?;
        if record.len() < 3 {
            let found = record.len();
            return Err(format!("token file must have at least 3 columns (token, user name, user uid), found {found}"));
        }
        let [token, name, uid, more @ ..] = record.as_slice() else { continue };
        if token.is_empty() {
            tracing::warn!(line, "a token is empty");
            continue;
        }
        let groups = more.first().map_or_else(Vec::new, |all| all.split(',').map(CompactString::from).collect());
        let user = User { name: name.into(), uid: uid.into(), groups, ..User::default() }.authenticated();
        if tokens.iter().any(|(known, _)| known == token) {
            tracing::warn!(line, "a token is there twice");
            tokens.retain(|(known, _)| known != token);
        }
        tokens.push((token.clone(), Arc::new(user)));
    }
    Ok(StaticTokens(tokens))
}

/// The fields of a line. None: it ends within quotes, or something follows them.
fn record(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line.trim_end_matches('\r');
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (mut field, mut quoted) = (String::new(), quoted);
                loop {
                    let (before, after) = quoted.split_once('"')?;
                    field.push_str(before);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None => break (field, after),
                    }
                }
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_string(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return after.is_empty().then_some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let text = "t1,ann,1,\"a,b\"\n,nobody,2\nt2,\"bob \"\"b\"\"\",,\n\nt3,old,3\nt3,new,3\n";
        let found = parse(text).unwrap();
        let shown: Vec<String> =
            found.0.iter().map(|(t, u)| format!("{t} {} {} {:?}", u.name, u.uid, u.groups)).collect();
        assert_eq!(
            shown,
            [
                "t1 ann 1 [\"a\", \"b\", \"system:authenticated\"]",
                "t2 bob \"b\"  [\"\", \"system:authenticated\"]",
                "t3 new 3 [\"system:authenticated\"]",
            ]
        );
        for bad in ["t,u", "t,\"u,1", "t,\"u\"x,1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
