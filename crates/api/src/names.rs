//! What names may look like, with upstream's messages (`apimachinery/pkg/util/validation`, `api/validation`).
//! Each check returns the reasons why a name is bad; none means it is good.

use std::cmp::Ordering;

/// Which of two API versions is the newer one, as upstream orders them: `v10`, `v2`, `v1`, `v1beta2`, `v1alpha1`, and then,
/// from A to Z, whatever isn't of this form.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (kube_version(a), kube_version(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// (stability, major, minor) of `v1beta2`.
fn kube_version(text: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| match text.as_bytes() {
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => text.parse().ok(),
        _ => None,
    };
    let rest = text.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = number(&rest[..end])?;
    match &rest[end..] {
        "" => Some((2, major, 0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => Some((1, major, number(minor)?)),
            (_, Some(minor)) => Some((0, major, number(minor)?)),
            _ => None,
        },
    }
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// First and last byte satisfy `edge`, the others `edge` or one of `inner`.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner.contains(b)),
        _ => false,
    }
}

pub fn max_length(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// As labels say it, which upstream checks elsewhere.
fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// RFC 1123 label: at most 63 lower-case letters, digits and '-'.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 63 {
        why.push(max_length(63));
    }
    if !shaped(text, lower, b"-") {
        // Upstream says which of the two shapes would do for a name that is a subdomain.
        why.push(if is_subdomain(text) { "must not contain dots".into() } else { LABEL.into() });
    }
    why
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|part| shaped(part, lower, b"-"))
}

/// RFC 1123 subdomain: at most 253 bytes of labels joined by dots.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 253 {
        why.push(max_length(253));
    }
    if !is_subdomain(text) {
        why.push(SUBDOMAIN.into());
    }
    why
}

/// `*.` and an RFC 1123 subdomain (RFC 1034, section 4.3.3).
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 253 {
        why.push(max_length(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        why.push(WILDCARD.into());
    }
    why
}

/// RFC 1035 label: as RFC 1123's, but starting with a letter (names of Services).
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 63 {
        why.push(max_length(63));
    }
    if !shaped(text, lower, b"-") || text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        why.push(LABEL_1035.into());
    }
    why
}

/// `[prefix/]name`: label keys, annotation keys, resource names, finalizers.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                why.push("prefix part must be non-empty".into());
            } else {
                if prefix.len() > 253 {
                    why.push(format!("prefix part {}", max_bytes(253)));
                }
                if !is_subdomain(prefix) {
                    why.push(format!("prefix part {SUBDOMAIN}"));
                }
            }
            *name
        }
        _ => {
            let shape = QUALIFIED.strip_prefix("name part ").unwrap_or(QUALIFIED);
            let hint = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            why.push(format!("a valid label key {shape} {hint}"));
            return why;
        }
    };
    if name.is_empty() {
        why.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        why.push(format!("name part {}", max_bytes(63)));
    }
    if !shaped(name, alnum, b"-_.") {
        why.push(QUALIFIED.into());
    }
    why
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 63 {
        why.push(max_bytes(63));
    }
    if !text.is_empty() && !shaped(text, alnum, b"-_.") {
        why.push(LABEL_VALUE.into());
    }
    why
}

/// A name that becomes one segment of a URL path (names of RBAC objects).
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%'].into_iter().filter(|c| text.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// Keys of ConfigMaps and Secrets.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 253 {
        why.push(max_length(253));
    }
    if text.is_empty() || !text.bytes().all(|b| alnum(b) || b"-_.".contains(&b)) {
        why.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    if text == "." {
        why.push("must not be '.'".into());
    } else if text == ".." {
        why.push("must not be '..'".into());
    } else if text.starts_with("..") {
        why.push("must not start with '..'".into());
    }
    why
}

/// Port names: IANA service names.
pub fn port_name(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 15 {
        why.push("must be no more than 15 characters".into());
    }
    if !text.bytes().all(|b| lower(b) || b == b'-') {
        why.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        why.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        why.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        why.push("must not begin or end with a hyphen".into());
    }
    why
}

/// The length that a generateName may have so that the generated name fits 63 bytes.
pub const MAX_GENERATE_NAME: usize = 58;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_names() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: &[(Check, &[&str], &[&str])] = &[
            (dns1123_label, &["a", "a-1", "1a"], &["", "-a", "a-", "A", "a.b", &long]),
            (dns1123_subdomain, &["a", "a.b-c.1"], &["", "a..b", ".a", "a.", "A", "a_b"]),
            (dns1035_label, &["a", "a-1"], &["1a", "", "a.b"]),
            (qualified_name, &["a", "A_b.c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "X/a", "-a"]),
            (label_value, &["", "A.b_c-1"], &["-a", "a b", &long]),
            (config_map_key, &[".a", "a_B-c.d"], &["", ".", "..", "..a", "a/b"]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "UP", "sixteen-chars-ab"]),
            (path_segment, &["a:b", "x"], &[".", "..", "a/b", "a%b"]),
        ];
        for (check, good, bad) in cases {
            for name in *good {
                assert_eq!(check(name), Vec::<String>::new(), "{name}");
            }
            for name in *bad {
                assert_ne!(check(name), Vec::<String>::new(), "{name}");
            }
        }
    }
}
