//! Tokens of OpenID Connect issuers, and of any that publish their keys that way (upstream `token/oidc`, KEP-3331).

pub mod claims;
mod distributed;
mod keys;
#[cfg(test)]
mod tests;

use super::{Reviewed, TokenAuthenticator, Unauthenticated, jwt};
use crate::metrics::reloads::hash;
use crate::outgoing::{Outgoing, Trust};
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::Value;
use claims::Claims;
use keys::RemoteKeys;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All algorithms that tokens may be signed with; only asymmetric ones.
pub const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
/// How far `nbf` may lie ahead.
const LEEWAY: i64 = 300;

/// One issuer, and what to make of its tokens.
pub struct Settings {
    /// What it was read from: an issuer that did not change keeps what it knows.
    pub source: Value,
    pub issuer: String,
    /// Where to begin, if not at the issuer itself.
    pub discovery: String,
    pub trust: Trust,
    /// A token must be meant for one of these.
    pub audiences: Vec<String>,
    pub algorithms: Vec<String>,
    pub claims: Claims,
}

pub struct Issuer {
    /// As metrics show it.
    hash: String,
    settings: Settings,
    keys: RemoteKeys,
    /// Those whom its tokens refer to for claims.
    others: distributed::Others,
}

impl Issuer {
    pub fn new(settings: Settings) -> Issuer {
        let keys = RemoteKeys::new(&settings.issuer, &settings.discovery, settings.trust.clone());
        Issuer { hash: hash(&settings.issuer), settings, keys, others: Default::default() }
    }

    /// The claims of a token that was signed with one of the keys, for us, and for now.
    async fn verify(&self, from: &RemoteKeys, outgoing: &Outgoing, token: &str, now: i64) -> Result<Value, String> {
        let keys = from.get(outgoing).await.map_err(|e| format!("authenticator not initialized: {e}"))?;
        let unverified = jwt::unverified_claims(token).ok_or("malformed jwt")?;
        self.check_times_and_audience(&unverified, now)?;
        let algorithm = jwt::algorithm(token).unwrap_or_default();
        if !self.settings.algorithms.contains(&algorithm) {
            let known = self.settings.algorithms.join(" ");
            return Err(format!("id token signed with unsupported algorithm, expected [{known}] got {algorithm:?}"));
        }
        let verified = match jwt::verify(&keys, token) {
            Err(jwt::Error::NoKey | jwt::Error::Signature) => match from.newer(outgoing, &keys).await {
                Some(newer) => jwt::verify(&newer, token),
                None => Err(jwt::Error::Signature),
            },
            verified => verified,
        };
        verified.map_err(|_| "failed to verify signature: failed to verify id token signature".to_string())
    }

    fn check_times_and_audience(&self, claims: &Value, now: i64) -> Result<(), String> {
        let meant_for: Vec<&str> = match &claims["aud"] {
            Value::Str(one) => vec![one],
            all => all.items().iter().map(Value::str).collect(),
        };
        if !self.settings.audiences.iter().any(|a| meant_for.contains(&a.as_str())) {
            return Err(format!("expected audience in {:?} got {meant_for:?}", self.settings.audiences));
        }
        let time = |field: &str| match &claims[field] {
            Value::Float(f) => *f as i64,
            other => other.int(),
        };
        if time("exp") < now {
            return Err(format!(
                "token is expired (Token Expiry: {})",
                canopus_api::Time(time("exp").saturating_mul(1_000_000))
            ));
        }
        if !claims["nbf"].is_null() && time("nbf") > now.saturating_add(LEEWAY) {
            return Err("current time before the nbf (not before) time".into());
        }
        Ok(())
    }

    async fn check(&self, server: &Server, token: &str) -> Result<crate::User, Unauthenticated> {
        let failed = |e: String| Unauthenticated(format!("oidc: verify token: oidc: {e}"));
        let now = server.surroundings.now().unix();
        let mut claims = self.verify(&self.keys, &server.outgoing, token, now).await.map_err(failed)?;
        let expanded = distributed::expand(self, &server.outgoing, &mut claims, now).await;
        expanded.map_err(|e| Unauthenticated(format!("oidc: could not expand distributed claims: {e}")))?;
        Ok(self.settings.claims.user(&claims)?.authenticated())
    }
}

/// Who says to have issued a token.
fn issuer_of(unverified: &Value) -> &str {
    match unverified["iss"].str() {
        // As Google's tokens once said.
        "accounts.google.com" => "https://accounts.google.com",
        named => named,
    }
}

/// All issuers whose tokens are taken; they may be replaced while the server runs.
#[derive(Default)]
pub struct Issuers {
    current: RwLock<Arc<[Arc<Issuer>]>>,
}

impl Issuers {
    pub fn new(all: Vec<Settings>) -> Issuers {
        let all = all.into_iter().map(|settings| Arc::new(Issuer::new(settings))).collect();
        Issuers { current: RwLock::new(all) }
    }

    /// Takes tokens of others from now on, once their keys are known: until then the old ones stay.
    ///
    /// # Errors
    /// Whose keys could not be learnt within `patience`.
    pub async fn replace(&self, all: Vec<Settings>, outgoing: &Outgoing, patience: Duration) -> Result<(), String> {
        let known = self.current.read().clone();
        let keep = |settings: Settings| match known.iter().find(|i| i.settings.source == settings.source) {
            Some(known) => known.clone(),
            None => Arc::new(Issuer::new(settings)),
        };
        let all: Arc<[Arc<Issuer>]> = all.into_iter().map(keep).collect();
        let deadline = tokio::time::Instant::now() + patience;
        for issuer in all.iter().filter(|issuer| !known.iter().any(|k| Arc::ptr_eq(k, issuer))) {
            while let Err(why) = issuer.keys.get(outgoing).await {
                let unhealthy =
                    format!("oidc: authenticator for issuer {:?} is not healthy: {why}", issuer.settings.issuer);
                if tokio::time::Instant::now() + keys::RETRY > deadline {
                    return Err(unhealthy);
                }
                tokio::time::sleep(keys::RETRY).await;
            }
        }
        *self.current.write() = all;
        Ok(())
    }
}

#[async_trait]
impl TokenAuthenticator for Issuers {
    async fn check(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, Unauthenticated> {
        let named = match jwt::unverified_claims(token) {
            Some(claims) => issuer_of(&claims).to_string(),
            None => return Ok(None),
        };
        let issuer = self.current.read().iter().find(|issuer| issuer.settings.issuer == named).cloned();
        let Some(issuer) = issuer else { return Ok(None) };
        // The issuer's audiences are its own affair: who is let in here may be shown to whom we stand for.
        let own = server.gates.get().map_err(|e| Unauthenticated(e.message))?.tokens.audiences().to_vec();
        let good_for: Vec<String> = own.into_iter().filter(|a| audiences.contains(a)).collect();
        if good_for.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let checked = issuer.check(server, token).await;
        let result = if checked.is_ok() { "success" } else { "failure" };
        server.metrics.json_web_tokens.observe([&issuer.hash, result], started.elapsed().as_secs_f64());
        let user = checked?;
        Ok(Some((Arc::new(user), good_for)))
    }
}
