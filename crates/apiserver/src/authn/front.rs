//! The first question of every request (upstream `filters.WithAuthentication`): each authenticator is asked in turn, and
//! who shows no credentials at all is anonymous, if that is allowed.

use super::request_header::Headers;
use super::{Authenticator, Credentials, Unauthenticated};
use crate::server::Server;
use crate::user::User;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use canopus_api::{Result, Status};
use http::{HeaderMap, HeaderValue, header};
use rustls_pki_types::CertificateDer;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// How a WebSocket, whose headers browsers do not let anybody set, carries a bearer token.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Who may come without a name (`anonymous` in AuthenticationConfiguration, `--anonymous-auth`).
#[derive(Clone, Debug, PartialEq)]
pub struct Anonymous {
    pub enabled: bool,
    /// The only paths it is allowed for; none: all.
    pub paths: Vec<String>,
}

impl Default for Anonymous {
    fn default() -> Anonymous {
        Anonymous { enabled: true, paths: Vec::new() }
    }
}

impl Anonymous {
    fn allows(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|p| p == path))
    }
}

/// The user who sent this. What has authenticated it is removed from the headers.
pub async fn authenticate(
    server: &Server,
    headers: &mut HeaderMap,
    certificates: &[CertificateDer<'static>],
    path: &str,
) -> Result<Arc<User>> {
    let started = Instant::now();
    let found = find(server, headers, certificates, path).await;
    let result = match &found {
        Ok(Some(_)) => "success",
        Ok(None) => "failure",
        Err(_) => "error",
    };
    let name = found.as_ref().ok().and_then(|user| user.as_ref()).map(|user| user.name.as_str());
    server.metrics.authenticated(result, name, started.elapsed());
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Status::unauthorized()),
        Err(why) => {
            tracing::debug!(%why, "authentication failed");
            Err(Status::unauthorized())
        }
    }
}

async fn find(
    server: &Server,
    headers: &mut HeaderMap,
    certificates: &[CertificateDer<'static>],
    path: &str,
) -> std::result::Result<Option<Arc<User>>, Unauthenticated> {
    let gates = server.gates.get().map_err(|status| Unauthenticated(status.message))?;
    let mut errors = Vec::new();
    let token = match bearer(headers) {
        Some(token) => Some(token),
        None => of_web_socket(headers).unwrap_or_else(|why| {
            errors.push(why.to_string());
            None
        }),
    };
    let credentials = Credentials { certificates, token: token.as_deref(), headers };
    let mut user = None;
    for authenticator in &gates.authenticators {
        let mut answer = authenticator.authenticate(&credentials);
        if answer.is_err()
            && let Some(token) = &token
            && caught_up(server, &**authenticator, token).await
        {
            answer = authenticator.authenticate(&credentials);
        }
        match answer {
            Ok(None) => {}
            Ok(found) => {
                user = found;
                break;
            }
            Err(why) => errors.push(why.0),
        }
    }
    if user.is_none()
        && let Some(token) = &token
    {
        let audiences = gates.tokens.audiences();
        for authenticator in &gates.token_authenticators {
            match authenticator.check(server, token, audiences).await {
                Ok(None) => {}
                Ok(Some((found, _))) => {
                    user = Some(found);
                    break;
                }
                Err(why) => errors.push(why.0),
            }
        }
    }
    if user.is_none() && token.is_some() && errors.is_empty() {
        errors.push("invalid bearer token".into());
    }
    if user.is_none() && errors.is_empty() && server.anonymous.read().allows(path) {
        user = Some(User::anonymous());
    }
    if user.is_none() && !errors.is_empty() {
        return Err(Unauthenticated(errors.join(", ")));
    }
    headers.remove(header::AUTHORIZATION);
    static STANDARD: LazyLock<Headers> = LazyLock::new(Headers::default);
    STANDARD.strip(headers);
    gates.authenticators.iter().for_each(|a| a.strip(headers));
    Ok(user)
}

/// What tokens may be bound to.
const BOUND: [&str; 4] = ["serviceaccounts", "secrets", "pods", "nodes"];

/// Whether it is worth to ask again about a token that was refused: where several servers write to the store, their writes
/// may not have reached this one's caches, which have caught up now (upstream asks the API for what its views don't have).
/// Who waits at the same moment asks the store together.
pub(crate) async fn caught_up(server: &Server, authenticator: &dyn Authenticator, token: &str) -> bool {
    if !server.store.shared() || !authenticator.misses(token) {
        return false;
    }
    let Ok(newest) = server.newest().await else { return false };
    for plural in BOUND {
        let Ok(cache) = server.cache("", "v1", plural) else { continue };
        if server.wait_for(&cache, newest).await.is_err() {
            return false;
        }
    }
    true
}

const EXTRA_SPACE: &str =
    "the provided Authorization header contains extra space before the bearer token, and is ignored";

/// The token of an `Authorization: Bearer …` header.
fn bearer(headers: &HeaderMap) -> Option<String> {
    // As in JSON, what is no text has a sign in its place: it is a token still, of nobody.
    let text = String::from_utf8_lossy(headers.get(header::AUTHORIZATION)?.as_bytes());
    let (scheme, token) = text.trim().split_once(' ')?;
    let scheme_only = token.starts_with(' ') && scheme.eq_ignore_ascii_case("bearer");
    if scheme_only {
        crate::notes::warn(EXTRA_SPACE);
    }
    let token = token.split(' ').next().unwrap_or("");
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.into())
}

/// The token among a WebSocket's subprotocols, from which it is removed.
fn of_web_socket(headers: &mut HeaderMap) -> std::result::Result<Option<String>, &'static str> {
    let upgrade = headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    if !upgrade || !offered.iter().any(|v| v.to_str().is_ok_and(|text| text.contains(PROTOCOL))) {
        return Ok(None);
    }
    let all: Vec<&str> = offered.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    let (tokens, others): (Vec<&str>, Vec<&str>) = all.iter().map(|p| p.trim()).partition(|p| p.starts_with(PROTOCOL));
    let token = match tokens[..] {
        [] => return Ok(None),
        [token] => token.trim_start_matches(PROTOCOL),
        _ => return Err("multiple base64.bearer.authorization tokens specified"),
    };
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let token = String::from_utf8(token).map_err(|_| "invalid base64.bearer.authorization token")?;
    if others.is_empty() {
        return Err("missing additional subprotocol");
    }
    let others = HeaderValue::from_str(&others.join(",")).map_err(|_| "invalid subprotocols")?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    Ok(Some(token).filter(|t| !t.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[tokio::test]
    async fn who_says_nothing_is_anonymous() {
        let server = server().await;
        let ask = async |authorization: &str, path: &str| {
            let mut headers = headers(&[("authorization", authorization.into()), ("x-remote-user", "root".into())]);
            let user = authenticate(&server, &mut headers, &[], path).await.map(|user| user.name.to_string());
            if user.is_ok() {
                assert!(headers.is_empty(), "what authenticates does not travel on");
            }
            user.map_err(|status| status.code)
        };
        assert_eq!(ask("Basic YTpi", "/").await, Ok("system:anonymous".into()));
        assert_eq!(ask("Bearer ", "/").await, Ok("system:anonymous".into()));
        assert_eq!(ask("Bearer junk", "/").await, Err(401));
        *server.anonymous.write() = Arc::new(Anonymous { enabled: true, paths: vec!["/livez".into()] });
        assert_eq!(ask("", "/livez").await, Ok("system:anonymous".into()));
        assert_eq!(ask("", "/livez/ping").await, Err(401));
        *server.anonymous.write() = Arc::new(Anonymous { enabled: false, paths: Vec::new() });
        assert_eq!(ask("", "/livez").await, Err(401));
    }

    #[test]
    fn tokens_of_web_sockets() {
        let token = format!("{PROTOCOL}{}", URL_SAFE_NO_PAD.encode("secret"));
        let ask = |protocols: String| {
            let mut headers = headers(&[("upgrade", "websocket".into()), ("sec-websocket-protocol", protocols)]);
            let token = of_web_socket(&mut headers);
            (token, headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_string())
        };
        let (found, rest) = ask(format!("v4.channel.k8s.io, {token}"));
        assert_eq!((found, rest.as_str()), (Ok(Some("secret".into())), "v4.channel.k8s.io"));
        assert_eq!(ask("v4.channel.k8s.io".into()).0, Ok(None));
        for bad in [token.clone(), format!("{token},{token},x"), format!("{PROTOCOL}***,x")] {
            assert!(ask(bad.clone()).0.is_err(), "{bad}");
        }
    }
}
