//! Who may talk to the node: a client certificate or a bearer token says who it is, the API server whether they may
//! (upstream's webhook modes, with the fine-grained subresources of KubeletFineGrainedAuthz). Nobody is anonymous.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{Api, Gvr, Status, Target, Time, Value, WriteOptions, value};
use canopus_client::now;
use http::{HeaderMap, Method, header};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long answers hold, as upstream.
const TOKEN: Duration = Duration::from_secs(120);
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
/// Answers remembered of each kind.
const REMEMBERED: usize = 1024;
const AUTHENTICATED: &str = "system:authenticated";

/// A `userInfo` as reviews have it: username, uid, groups, extra.
pub type User = Arc<Value>;

pub(crate) struct Gate {
    api: Arc<dyn Api>,
    node: String,
    tokens: Remembered<String, Option<User>>,
    verdicts: Remembered<(String, String, String), bool>,
}

/// Answers with the time until which they hold.
struct Remembered<K, V>(Mutex<HashMap<K, (V, Time)>>);

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K, now: Time) -> Option<V> {
        self.0.lock().get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, until: Time) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key, (value, until));
    }
}

/// Why a request is refused: code and text.
pub(crate) type Refusal = (http::StatusCode, String);

impl Gate {
    pub(crate) fn new(api: Arc<dyn Api>, node: &str) -> Gate {
        Gate { api, node: node.to_owned(), tokens: Remembered::new(), verdicts: Remembered::new() }
    }

    /// Lets the request pass or says why not.
    pub(crate) async fn check(
        &self,
        certificate: Option<&User>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let unauthorized = || (http::StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let user = match (certificate, bearer(headers)) {
            (Some(user), _) => user.clone(),
            (None, Some(token)) => match self.review_token(token).await {
                Ok(Some(user)) => user,
                Ok(None) => return Err(unauthorized()),
                Err(error) => {
                    tracing::warn!(%error, "failed to review a token");
                    return Err(unauthorized());
                }
            },
            (None, None) => return Err(unauthorized()),
        };
        let (verb, subresources) = (verb(method), subresources(path));
        let name = user["username"].str();
        for subresource in &subresources {
            match self.review_access(&user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, user = name, "failed to authorize a request");
                    let what = format!("user={name}, verb={verb}, resource=nodes, subresource={subresource}");
                    return Err((http::StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error ({what})")));
                }
            }
        }
        let what = format!("user={name}, verb={verb}, resource=nodes, subresource(s)=[{}]", subresources.join(" "));
        Err((http::StatusCode::FORBIDDEN, format!("Forbidden ({what})")))
    }

    async fn review_token(&self, token: &str) -> Result<Option<User>, Status> {
        if let Some(known) = self.tokens.get(&token.to_owned(), now()) {
            return Ok(known);
        }
        let body = value!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": token},
        });
        let target = Target::new(&Gvr::new("authentication.k8s.io", "v1", "tokenreviews"), "", "");
        let answer = self.api.create(&target, body, &WriteOptions::default()).await?.value();
        let status = &answer["status"];
        let user = status["authenticated"].bool().then(|| Arc::new(status["user"].clone()));
        let life = if user.is_some() { TOKEN } else { DENIED };
        self.tokens.put(token.to_owned(), user.clone(), now().plus(life));
        Ok(user)
    }

    async fn review_access(&self, user: &Value, verb: &str, subresource: &str) -> Result<bool, Status> {
        let key = (canopus_api::json::to_string(user), verb.to_owned(), subresource.to_owned());
        if let Some(known) = self.verdicts.get(&key, now()) {
            return Ok(known);
        }
        let mut spec = value!({
            "user": user["username"].clone(), "groups": user["groups"].clone(),
            "resourceAttributes": {
                "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": &self.node,
            },
        });
        for field in ["uid", "extra"] {
            if !user[field].is_null() {
                spec.set(field, &user[field]);
            }
        }
        let body = value!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec,
        });
        let target = Target::new(&Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews"), "", "");
        let answer = self.api.create(&target, body, &WriteOptions::default()).await?.value();
        let allowed = answer["status"]["allowed"].bool();
        self.verdicts.put(key, allowed, now().plus(if allowed { ALLOWED } else { DENIED }));
        Ok(allowed)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The user a client certificate names, which TLS has verified. `None`: it names nobody.
pub(crate) fn certificate_user(der: &CertificateDer) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    let organizations = certificate.subject().iter_organization().map(|o| o.as_str());
    let mut groups: Vec<&str> = organizations.collect::<Result<_, _>>().ok()?;
    if !groups.contains(&AUTHENTICATED) {
        groups.push(AUTHENTICATED);
    }
    let lives = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now().unix());
    (lives && !name.is_empty()).then(|| Arc::new(value!({"username": name, "groups": groups})))
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The subresources of the node of which any one suffices.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let fine = [("/pods", "pods"), ("/healthz", "healthz"), ("/configz", "configz"), ("/runningpods", "pods")];
    let mut list: Vec<&str> = fine.into_iter().filter(|(root, _)| below(root)).map(|(_, name)| name).collect();
    let own = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    list.push(own.into_iter().find(|(root, _)| below(root)).map_or("proxy", |(_, name)| name));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_upstreams_subresources() {
        let cases = [
            ("/exec/ns/p/c", vec!["proxy"]),
            ("/containerLogs/ns/p/c", vec!["proxy"]),
            ("/pods", vec!["pods", "proxy"]),
            ("/pods/", vec!["pods", "proxy"]),
            ("/podsx", vec!["proxy"]),
            ("/healthz/ping", vec!["healthz", "proxy"]),
            ("/runningpods/", vec!["pods", "proxy"]),
            ("/metrics/cadvisor", vec!["metrics"]),
            ("/stats/summary", vec!["stats"]),
            ("/logs/x", vec!["log"]),
            ("/", vec!["proxy"]),
        ];
        for (path, wanted) in cases {
            assert_eq!(subresources(path), wanted, "{path}");
        }
    }

    #[test]
    fn bearer_tokens() {
        for (header, wanted) in [("Bearer abc", Some("abc")), ("bearer  abc ", Some("abc")), ("Basic abc", None)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header.parse().expect("header"));
            assert_eq!(bearer(&headers), wanted, "{header}");
        }
    }
}
