//! Image names, with the grammar and defaults of `github.com/distribution/reference`, which upstream and its runtimes use.

use std::fmt;
use std::str::FromStr;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A full image name: `domain/path[:tag][@digest]`, with a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Registry host, perhaps with a port: `docker.io`, `[::1]:5000`.
    pub domain: String,
    /// Path of the repository there: `library/busybox`.
    pub path: String,
    pub tag: Option<String>,
    /// As `sha256:…`; sha384 and sha512 are well-formed too.
    pub digest: Option<String>,
}

/// A name that cannot be an image's. A pod that has it waits with reason `InvalidImageName`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {reason}")]
pub struct ReferenceError {
    pub name: String,
    pub reason: String,
}

/// Completes a name as Docker does: `hello` is `docker.io/library/hello:latest`.
pub fn normalize(name: &str) -> Result<Reference, ReferenceError> {
    parse(name).map_err(|reason| ReferenceError { name: name.chars().take(2 * MAX_NAME).collect(), reason })
}

impl Reference {
    /// The name without tag and digest, as upstream's `Named.Name()`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name that a tag is known by, if it has one: what [`fmt::Display`] gives, without the digest.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.repository()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        normalize(name)
    }
}

fn parse(name: &str) -> Result<Reference, String> {
    let invalid = || "invalid reference format".to_owned();
    if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"));
    }
    let (domain, rest) = split_domain(name);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.chars().any(char::is_uppercase) {
        return Err(format!("invalid reference format: repository name ({remote}) must be lowercase"));
    }
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest.as_str(), None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if !is_domain(domain) || !is_path(path) || !tag.is_none_or(is_tag) {
        return Err(invalid());
    }
    if path.len() > MAX_NAME {
        return Err(format!("repository name must not be more than {MAX_NAME} characters"));
    }
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
    Ok(Reference { domain: domain.into(), path: path.into(), tag: tag.map(Into::into), digest: digest.map(Into::into) })
}

/// What is before the first slash is a registry if it looks like a host: with a dot, a port or upper case.
fn split_domain(name: &str) -> (&str, String) {
    let (domain, rest) = match name.split_once('/') {
        None => return (DEFAULT_DOMAIN, format!("{OFFICIAL}{name}")),
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((domain, rest))
            if domain == "localhost" || domain.contains(['.', ':']) || domain.chars().any(char::is_uppercase) =>
        {
            (domain, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, name),
    };
    match domain == DEFAULT_DOMAIN && !rest.contains('/') {
        true => (domain, format!("{OFFICIAL}{rest}")),
        false => (domain, rest.to_owned()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let valid = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            if !valid {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None => return rest.is_empty(),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && bytes.first().is_some_and(|byte| *byte != b'-')
            && bytes.last().is_some_and(|byte| *byte != b'-')
    };
    host.is_none_or(|host| host.split('.').all(is_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_component)
}

/// Lower-case letters and digits, with single separators between: `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let separators = bytes.split(alphanumeric).filter(|run| !run.is_empty());
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && separators.into_iter().all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= MAX_TAG
        && bytes.first().is_some_and(|byte| word(*byte))
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
}

fn check_digest(digest: &str) -> Result<(), String> {
    let invalid = || "invalid reference format".to_owned();
    let (algorithm, hex) = digest.split_once(':').ok_or_else(invalid)?;
    let named = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
    };
    if !algorithm.split(['-', '_', '+', '.']).all(named)
        || hex.len() < 32
        || !hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(invalid());
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".into()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".into());
    }
    if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("invalid checksum digest format".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_completed_as_docker_does() {
        for (name, full) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:1", "docker.io/library/hello:1"),
            ("user/hello", "docker.io/user/hello:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/hello:1", "docker.io/library/hello:1"),
            ("index.docker.io/user/hello", "docker.io/user/hello:latest"),
            ("localhost/hello", "localhost/hello:latest"),
            ("localhost:5000/a/b/c:T_1.x-y", "localhost:5000/a/b/c:T_1.x-y"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("Host/hello", "Host/hello:latest"),
            ("[2001:db8::1]/a", "[2001:db8::1]/a:latest"),
            ("[2001:db8::1]:5000/a:1", "[2001:db8::1]:5000/a:1"),
            ("a--b__c/f.d_e", "docker.io/a--b__c/f.d_e:latest"),
            ("abc123", "docker.io/library/abc123:latest"),
        ] {
            assert_eq!(normalize(name).unwrap().to_string(), full);
        }
        let digest = format!("sha256:{HEX}");
        let both = normalize(&format!("x.io/a:1@{digest}")).unwrap();
        assert_eq!((both.tag.as_deref(), both.digest.as_deref()), (Some("1"), Some(digest.as_str())));
        let only = normalize(&format!("a@{digest}")).unwrap();
        assert_eq!(only.to_string(), format!("docker.io/library/a@{digest}"));
        assert_eq!((only.tagged(), only.repository()), (None, "docker.io/library/a".into()));
    }

    #[test]
    fn bad_names_say_why() {
        let long = "a/".repeat(128) + "b";
        for (name, reason) in [
            ("", "invalid reference format"),
            ("Hello", "invalid reference format: repository name (library/Hello) must be lowercase"),
            ("a:b:c", "invalid reference format"),
            ("a:", "invalid reference format"),
            (":1", "invalid reference format"),
            ("a@", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a_-b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a ", "invalid reference format"),
            ("https://x.io/a", "invalid reference format"),
            ("x.io:port/a", "invalid reference format"),
            ("-x.io/a", "invalid reference format"),
            ("[::1/a", "invalid reference format"),
            ("a:-tag", "invalid reference format"),
            ("a@sha256:abc", "invalid reference format"),
            (&format!("a@md5:{HEX}"), "unsupported digest algorithm"),
            (&format!("a@sha256:{HEX}00"), "invalid checksum digest length"),
            (&format!("a@sha256:{}", HEX.to_uppercase()), "invalid checksum digest format"),
            (&format!("a:{}", "t".repeat(129)), "invalid reference format"),
            (&format!("x.io/{long}"), "repository name must not be more than 255 characters"),
        ] {
            let error = normalize(name).unwrap_err();
            assert_eq!(error.reason, reason, "{name}");
        }
        let id = normalize(HEX).unwrap_err();
        assert!(id.reason.ends_with("cannot specify 64-byte hexadecimal strings"));
        let text = "couldn't parse image name \"a:\": invalid reference format";
        assert_eq!(normalize("a:").unwrap_err().to_string(), text);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn anything_is_parsed_or_refused(name in "(\\PC|[a-zA-Z0-9.:/@_-]){0,80}") {
            if let Ok(reference) = normalize(&name) {
                prop_assert_eq!(normalize(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn what_is_well_formed_is_accepted(
            name in "([a-z0-9]+([.]|_|__|-{1,3})[a-z0-9]+/){0,3}[a-z0-9]{1,20}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,20})?"
        ) {
            let hex = name.len() == 64 && !name.contains([':', '/']);
            prop_assume!(!hex && !name.split('/').next().unwrap_or_default().contains('_'));
            prop_assert!(normalize(&name).is_ok(), "{}", name);
        }
    }
}
