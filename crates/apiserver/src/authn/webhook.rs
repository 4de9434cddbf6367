//! `--authentication-token-webhook-config-file`: tokens that somebody else knows, who is asked with a TokenReview
//! (upstream `token/webhook`). Answers are kept for a while.

use super::{Reviewed, TokenAuthenticator, Unauthenticated};
use crate::outgoing::Destination;
use crate::remembered::Remembered;
use crate::reviews;
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::{Value, value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's `--authentication-token-webhook-version`s.
pub const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const GROUP: &str = "authentication.k8s.io";
/// For one call, and then again when it failed in passing.
const PATIENCE: Duration = Duration::from_secs(30);
const REMEMBERED: usize = 4096;

pub struct TokenWebhook {
    to: Destination,
    version: String,
    /// How long an answer is kept, be it yes or no.
    ttl: Duration,
    known: Remembered<[u8; 32], Option<Reviewed>>,
}

impl TokenWebhook {
    pub fn new(to: Destination, version: &str, ttl: Duration) -> TokenWebhook {
        TokenWebhook { to, version: version.into(), ttl, known: Remembered::new(REMEMBERED) }
    }

    async fn ask(&self, server: &Server, token: &str, audiences: &[String]) -> Result<Option<Reviewed>, String> {
        let version = format!("{GROUP}/{}", self.version);
        let mut spec = value!({"token": token});
        if !audiences.is_empty() {
            spec.set("audiences", audiences.iter().cloned().collect::<Value>());
        }
        let review = value!({
            "kind": "TokenReview", "apiVersion": &version, "metadata": {}, "spec": spec, "status": {"user": {}},
        });
        let answer = server.outgoing.post_until(&self.to, &review, PATIENCE).await.map_err(|e| e.to_string())?;
        if answer["kind"].str() != "TokenReview" || answer["apiVersion"].str() != version {
            let (kind, said) = (answer["kind"].str(), answer["apiVersion"].str());
            return Err(format!("no kind {kind:?} is registered for version {said:?} in the webhook's answer"));
        }
        let status = &answer["status"];
        // One that says nothing about audiences knows only those of the API server.
        let own = server.gates.get().map_err(|e| e.message)?.tokens.audiences().to_vec();
        let named: Vec<String> = status["audiences"].items().iter().map(|a| a.str().to_string()).collect();
        let named = if named.is_empty() { own } else { named };
        let good_for: Vec<String> = audiences.iter().filter(|a| named.contains(a)).cloned().collect();
        if good_for.is_empty() && !audiences.is_empty() {
            return Ok(None);
        }
        if !status["authenticated"].bool() {
            return match status["error"].str() {
                "" => Ok(None),
                why => Err(why.into()),
            };
        }
        Ok(Some((Arc::new(reviews::of_user_info(&status["user"]).authenticated()), good_for)))
    }
}

#[async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn check(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, Unauthenticated> {
        let mut key = Sha256::new();
        for part in audiences.iter().map(String::as_str).chain([token]) {
            key.update((part.len() as u64).to_le_bytes());
            key.update(part);
        }
        let key: [u8; 32] = key.finalize().into();
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let answer = self.ask(server, token, audiences).await.map_err(|why| {
            tracing::debug!(why, "the token webhook did not let somebody in");
            Unauthenticated(why)
        })?;
        self.known.put(key, answer.clone(), self.ttl);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::Trust;
    use crate::testing::{listen, server};
    use canopus_api::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A webhook that knows `ann` for audiences that it names, `busy` the second time, and refuses others.
    async fn webhook(version: &'static str, asked: Arc<AtomicUsize>) -> TokenWebhook {
        let (port, ca, _) = listen(move |parts, review| {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(parts.uri.to_string(), "/hook?timeout=30s");
            assert_eq!(parts.headers["authorization"], "Bearer secret");
            let status = match review["spec"]["token"].str() {
                "ann" => value!({"authenticated": true, "user": {
                    "username": "ann", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]},
                }}),
                "other" => value!({"authenticated": true, "user": {"username": "x"}, "audiences": ["other"]}),
                "bad" => value!({"authenticated": false, "error": "run out"}),
                "busy" if count == 0 => return (429, "{}".into()),
                "busy" => value!({"authenticated": true, "user": {"username": "busy"}}),
                "odd" => return (200, r#"{"kind":"Pod","apiVersion":"v1"}"#.into()),
                _ => value!({"authenticated": false}),
            };
            let mut answer = review.clone();
            answer.set("status", status);
            (200, json::to_string(&answer))
        })
        .await;
        let mut to = Destination::url(&format!("https://localhost:{port}/hook"), Trust::bundle(ca.as_bytes())).unwrap();
        to.authorization = Some("Bearer secret".into());
        TokenWebhook::new(to, version, Duration::from_secs(120))
    }

    #[tokio::test]
    async fn somebody_else_knows() {
        let server = server().await;
        for version in VERSIONS {
            let asked = Arc::new(AtomicUsize::new(0));
            let webhook = webhook(version, asked.clone()).await;
            let own = ["https://issuer".to_string()];
            let ask = async |token: &str| webhook.check(&server, token, &own).await;
            for _ in 0..2 {
                let (user, audiences) = ask("ann").await.unwrap().unwrap();
                assert_eq!((user.name.as_str(), user.uid.as_str(), &audiences[..]), ("ann", "1", &own[..]));
                assert_eq!(user.groups, ["g", "system:authenticated"]);
                assert_eq!(user.extra, [("k".into(), vec!["v".into()])]);
                assert_eq!(ask("nobody").await, Ok(None));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 2, "answers are kept");
            assert_eq!(ask("other").await, Ok(None), "good for somebody else");
            for _ in 0..2 {
                assert_eq!(ask("bad").await, Err(Unauthenticated("run out".into())));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 5, "errors are not kept");
            assert!(ask("odd").await.is_err());
        }
    }

    #[tokio::test]
    async fn asked_again_when_it_is_busy() {
        let (server, asked) = (server().await, Arc::new(AtomicUsize::new(0)));
        let webhook = webhook("v1", asked.clone()).await;
        assert!(webhook.check(&server, "busy", &[]).await.unwrap().is_some());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
