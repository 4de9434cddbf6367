//! Users that an authenticating proxy names in headers; the proxy proves itself by a certificate (upstream `headerrequest`).

use super::certificates::{Authority, ClientCertificates};
use super::{Authenticator, Credentials, Unauthenticated};
use crate::surroundings::Surroundings;
use crate::user::User;
use compact_str::CompactString;
use http::HeaderMap;
use std::sync::Arc;

/// `--requestheader-*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Headers {
    /// Common names of proxies; none: every certificate of the authority will do.
    pub allowed_names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

impl Default for Headers {
    /// As kubeadm has them.
    fn default() -> Headers {
        Headers {
            allowed_names: vec!["front-proxy-client".into()],
            username: vec!["x-remote-user".into()],
            uid: vec!["x-remote-uid".into()],
            group: vec!["x-remote-group".into()],
            extra_prefix: vec!["x-remote-extra-".into()],
        }
    }
}

impl Headers {
    /// The user these headers name.
    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let name = first(headers, &self.username)?;
        let uid = first(headers, &self.uid).unwrap_or_default();
        let groups = self.group.iter().flat_map(|n| texts(headers, n)).filter(|g| !g.is_empty()).collect();
        let mut extra: Vec<(CompactString, Vec<CompactString>)> = Vec::new();
        for prefix in &self.extra_prefix {
            for header in headers.keys() {
                let Some(key) = without_prefix(header.as_str(), prefix) else { continue };
                let key: CompactString = unescape(&key.to_ascii_lowercase()).into();
                let values = texts(headers, header.as_str());
                match extra.iter_mut().find(|(k, _)| *k == key) {
                    Some((_, known)) => known.extend(values),
                    None => extra.push((key, values.collect())),
                }
            }
        }
        extra.sort();
        Some(User { name, uid, groups, extra }.authenticated())
    }

    /// Removes what names users, so that nobody behind can take it for a proxy's.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.group) {
            headers.remove(name.as_str());
        }
        let extra = |name: &str| self.extra_prefix.iter().any(|p| without_prefix(name, p).is_some());
        let named: Vec<_> = headers.keys().filter(|name| extra(name.as_str())).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }
}

/// All values of a header that are text.
fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = CompactString> + use<'a> {
    headers.get_all(name).iter().filter_map(|v| std::str::from_utf8(v.as_bytes()).ok().map(CompactString::from))
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<CompactString> {
    names.iter().filter_map(|name| texts(headers, name).next()).find(|value| !value.is_empty())
}

fn without_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Decodes `%xx`; what is malformed stays as it is (Go's `PathUnescape`).
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let code = text.get(at + 1..at + 3).filter(|c| c.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) else { return text.into() };
        out.push(byte);
        at += 3;
    }
    String::from_utf8(out).unwrap_or_else(|_| text.into())
}

pub struct RequestHeader {
    pub headers: Headers,
    proxies: ClientCertificates,
    authority: Arc<Authority>,
}

impl RequestHeader {
    pub fn new(headers: Headers, clock: Arc<dyn Surroundings>, authority: Arc<Authority>) -> RequestHeader {
        RequestHeader { headers, proxies: ClientCertificates::new(clock, authority.clone()), authority }
    }

    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }
}

impl Authenticator for RequestHeader {
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        // Most clients name nobody; their certificates need no second look.
        let Some(user) = self.headers.user(credentials.headers) else { return Ok(None) };
        let Some(proxy) = self.proxies.user(credentials.certificates)? else { return Ok(None) };
        let names = &self.headers.allowed_names;
        if !names.is_empty() && !names.iter().any(|name| name == proxy.name.as_str()) {
            return Err(Unauthenticated(format!("x509: subject with cn={} is not in the allowed list", proxy.name)));
        }
        Ok(Some(Arc::new(user)))
    }

    fn strip(&self, headers: &mut HeaderMap) {
        self.headers.strip(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_headers_say() {
        let mut sent = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-example.com%2fscopes", "read"),
            ("x-remote-extra-bad%zz", "kept"),
            ("accept", "*/*"),
        ]);
        let names = Headers::default();
        let user = names.user(&sent).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        let extra: Vec<(&str, &str)> = user.extra.iter().map(|(k, v)| (k.as_str(), v[0].as_str())).collect();
        assert_eq!(extra, [("bad%zz", "kept"), ("example.com/scopes", "read")]);
        names.strip(&mut sent);
        assert_eq!(sent.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["accept"]);
        assert_eq!(names.user(&headers(&[("x-remote-group", "system:masters")])), None);
    }
}
