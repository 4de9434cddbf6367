//! Service-account tokens, bound to their account and perhaps to a Pod, Secret or Node (KEP-1205): issued and checked.

use super::certificates::CREDENTIAL_ID;
use super::jwt::{self, PublicKey, SigningKey};
use super::{Authenticator, Credentials, Unauthenticated};
use crate::server::{Server, TokenClaims, TokenIssuer};
use crate::surroundings::{Surroundings, uuid};
use crate::user::User;
use canopus_api::{Object, Status, Time, Value, View, value};
use compact_str::{CompactString, format_compact};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How much clocks may differ, in seconds.
const LEEWAY: i64 = 60;
/// Tokens whose signature is remembered as good. What they say is checked every time.
const REMEMBERED: usize = 4096;

/// Whose token it is, and the audiences it is good for.
type Checked = (Arc<User>, Vec<String>);

/// The keys that tokens are verified with.
pub type Keys = Arc<[PublicKey]>;

/// The objects that tokens are bound to.
#[derive(Clone)]
pub struct BoundObjects {
    pub accounts: Arc<dyn View>,
    pub pods: Arc<dyn View>,
    pub secrets: Arc<dyn View>,
    pub nodes: Arc<dyn View>,
}

impl BoundObjects {
    /// As the server's own caches have them.
    pub fn of(server: &Server) -> Result<BoundObjects, Status> {
        let view = |plural| server.cache("", "v1", plural).map(|cache| cache as Arc<dyn View>);
        Ok(BoundObjects {
            accounts: view("serviceaccounts")?,
            pods: view("pods")?,
            secrets: view("secrets")?,
            nodes: view("nodes")?,
        })
    }
}

pub struct ServiceAccountTokens {
    /// The first signs; tokens of the others are taken as well.
    issuers: Vec<String>,
    jwks_uri: String,
    /// The API server's own audiences.
    audiences: Vec<String>,
    key: SigningKey,
    keys: Keys,
    clock: Arc<dyn Surroundings>,
    objects: BoundObjects,
    verified: Mutex<HashMap<[u8; 32], Arc<Value>>>,
}

impl ServiceAccountTokens {
    /// `audiences`: whom a token must be meant for to be taken here; empty means the issuer's name, as upstream.
    pub fn new(
        issuer: &str,
        audiences: Vec<String>,
        key: SigningKey,
        clock: Arc<dyn Surroundings>,
        objects: BoundObjects,
    ) -> ServiceAccountTokens {
        let audiences = if audiences.is_empty() { vec![issuer.to_string()] } else { audiences };
        let jwks_uri = format!("{}/openid/v1/jwks", issuer.trim_end_matches('/'));
        ServiceAccountTokens {
            issuers: vec![issuer.into()],
            jwks_uri,
            audiences,
            keys: [key.public().clone()].into(),
            key,
            clock,
            objects,
            verified: Mutex::default(),
        }
    }

    /// Says in the OpenID configuration that the keys are served at `address`, HOST:PORT (upstream's default for
    /// --service-account-jwks-uri).
    pub fn published_at(mut self, address: &str) -> ServiceAccountTokens {
        self.jwks_uri = format!("https://{address}/openid/v1/jwks");
        self
    }

    /// Says in the OpenID configuration that the keys are at a URL of their own (--service-account-jwks-uri).
    pub fn published_as(mut self, url: &str) -> ServiceAccountTokens {
        self.jwks_uri = url.into();
        self
    }

    /// Takes tokens of further issuers and keys as well, for as long as those are being replaced
    /// (--service-account-issuer, --service-account-key-file).
    pub fn accepting(mut self, issuers: &[String], keys: Vec<PublicKey>) -> ServiceAccountTokens {
        for issuer in issuers {
            if !self.issuers.contains(issuer) {
                self.issuers.push(issuer.clone());
            }
        }
        let mut all = self.keys.to_vec();
        all.extend(keys.into_iter().filter(|key| key.id() != self.key.public().id()));
        self.keys = all.into();
        self
    }

    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    fn issuer(&self) -> &str {
        self.issuers.first().map_or("", |issuer| issuer)
    }

    fn is_ours(&self, claims: &Value) -> bool {
        self.issuers.iter().any(|issuer| issuer == claims["iss"].str())
    }

    /// None: not one of our tokens. Answers whose it is and the audiences of `wanted` it is good for.
    fn check(&self, token: &str, wanted: &[String]) -> Result<Option<Checked>, Unauthenticated> {
        let bad = |why: String| Err(Unauthenticated(why));
        let Some(claims) = self.claims(token)? else { return Ok(None) };
        let own = || self.audiences.clone();
        let meant_for = match &claims["aud"] {
            Value::Str(one) => vec![one.to_string()],
            Value::Array(all) if !all.is_empty() => all.iter().map(|a| a.str().to_string()).collect(),
            _ => own(),
        };
        let wanted = if wanted.is_empty() { own() } else { wanted.to_vec() };
        let good_for: Vec<String> = meant_for.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if good_for.is_empty() {
            return bad(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_list(&meant_for),
                go_list(&wanted)
            ));
        }
        let now = self.clock.now().unix();
        if now - LEEWAY > claims["exp"].int() {
            return bad("service account token has expired".into());
        }
        if now + LEEWAY < claims["nbf"].int() {
            return bad("service account token is not valid yet".into());
        }
        if now + LEEWAY < claims["iat"].int() {
            return bad("service account token is issued in the future".into());
        }
        self.check_objects(&claims["kubernetes.io"], now)?;
        Ok(Some((user(&claims), good_for)))
    }

    /// The claims of a token with a good signature of ours.
    fn claims(&self, token: &str) -> Result<Option<Arc<Value>>, Unauthenticated> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.verified.lock().get(&hash) {
            return Ok(Some(known.clone()));
        }
        match jwt::unverified_claims(token) {
            Some(claims) if self.is_ours(&claims) => {}
            _ => return Ok(None),
        }
        let claims = Arc::new(jwt::verify(&self.keys, token).map_err(|e| Unauthenticated(e.to_string()))?);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(hash, claims.clone());
        Ok(Some(claims))
    }

    /// A token dies with its account and with the object it is bound to.
    fn check_objects(&self, claims: &Value, now: i64) -> Result<(), Unauthenticated> {
        let bad = |why: String| Err(Unauthenticated(why));
        let invalidated = || Unauthenticated("service account token has been invalidated".into());
        let namespace = claims["namespace"].str();
        let (name, uid) = (claims["serviceaccount"]["name"].str(), claims["serviceaccount"]["uid"].str());
        let Some(account) = self.objects.accounts.get(namespace, name) else {
            return bad(format!("serviceaccounts {name:?} not found"));
        };
        if account.facts.uid != uid {
            return bad(format!("service account UID ({}) does not match claim ({uid})", account.facts.uid));
        }
        if gone(&account, now) {
            return bad(format!("service account {namespace}/{name} has been deleted"));
        }
        let kinds = [
            ("secret", &self.objects.secrets, namespace),
            ("pod", &self.objects.pods, namespace),
            ("node", &self.objects.nodes, ""),
        ];
        for (kind, view, namespace) in kinds {
            let bound = &claims[kind];
            // A pod's token tells its node, but is not bound to it.
            if bound.is_null() || kind == "node" && !claims["pod"].is_null() {
                continue;
            }
            let (name, uid) = (bound["name"].str(), bound["uid"].str());
            let object = view.get(namespace, name).ok_or_else(invalidated)?;
            if object.facts.uid != uid {
                let actual = &object.facts.uid;
                return bad(format!("{kind} UID ({actual}) does not match service account {kind} ref claim ({uid})"));
            }
            if gone(&object, now) {
                return Err(invalidated());
            }
        }
        Ok(())
    }
}

/// Deleted for longer than clocks may differ.
fn gone(object: &Object, now: i64) -> bool {
    let since = || Time::parse(object.value()["metadata"]["deletionTimestamp"].str());
    object.facts.deleting && since().is_none_or(|t| t.unix() < now - LEEWAY)
}

/// `["a" "b"]`, as Go prints a list of strings.
fn go_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn user(claims: &Value) -> Arc<User> {
    let k8s = &claims["kubernetes.io"];
    let (namespace, account) = (k8s["namespace"].str(), &k8s["serviceaccount"]);
    let mut extra: Vec<(CompactString, Vec<CompactString>)> = Vec::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.push((key.into(), vec![value.into()]));
        }
    };
    if !claims["jti"].str().is_empty() {
        add(CREDENTIAL_ID, &format_compact!("JTI={}", claims["jti"].str()));
    }
    for kind in ["node", "pod"] {
        add(&format_compact!("authentication.kubernetes.io/{kind}-name"), k8s[kind]["name"].str());
        add(&format_compact!("authentication.kubernetes.io/{kind}-uid"), k8s[kind]["uid"].str());
    }
    Arc::new(service_account(namespace, account["name"].str(), account["uid"].str(), extra))
}

pub(super) fn service_account(
    namespace: &str,
    name: &str,
    uid: &str,
    extra: Vec<(CompactString, Vec<CompactString>)>,
) -> User {
    let groups = vec!["system:serviceaccounts".into(), format_compact!("system:serviceaccounts:{namespace}")];
    User { name: format_compact!("system:serviceaccount:{namespace}:{name}"), uid: uid.into(), groups, extra }
        .authenticated()
}

/// Whether a view has this very object.
pub(super) fn has(view: &dyn View, namespace: &str, name: &str, uid: &str) -> bool {
    view.get(namespace, name).is_some_and(|object| object.facts.uid == uid)
}

impl Authenticator for ServiceAccountTokens {
    fn misses(&self, token: &str) -> bool {
        // The signature of what is remembered was good; nothing else is worth the trouble.
        let hash: [u8; 32] = Sha256::digest(token).into();
        let Some(claims) = self.verified.lock().get(&hash).cloned() else { return false };
        let (k8s, objects) = (&claims["kubernetes.io"], &self.objects);
        let namespace = k8s["namespace"].str();
        let has = |view: &Arc<dyn View>, namespace: &str, kind: &str| {
            let bound = &k8s[kind];
            bound.is_null() || has(&**view, namespace, bound["name"].str(), bound["uid"].str())
        };
        !has(&objects.accounts, namespace, "serviceaccount")
            || !has(&objects.secrets, namespace, "secret")
            || !has(&objects.pods, namespace, "pod")
            || k8s["pod"].is_null() && !has(&objects.nodes, "", "node")
    }

    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        match credentials.token {
            Some(token) => Ok(self.check(token, &[])?.map(|(user, _)| user)),
            None => Ok(None),
        }
    }

    fn review(&self, token: &str, audiences: &[String]) -> Result<Option<(Arc<User>, Vec<String>)>, Unauthenticated> {
        self.check(token, audiences)
    }
}

impl TokenIssuer for ServiceAccountTokens {
    fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn jwks(&self) -> Value {
        value!({"keys": self.keys.iter().map(PublicKey::jwk).collect::<Value>()})
    }

    /// OpenID Connect Discovery 1.0.
    fn openid_configuration(&self) -> Value {
        let algorithms: BTreeSet<&str> = self.keys.iter().map(PublicKey::algorithm).collect();
        value!({
            "issuer": self.issuer(),
            "jwks_uri": &self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms.into_iter().collect::<Value>(),
        })
    }

    fn issue(&self, claims: TokenClaims) -> Result<String, Status> {
        let now = self.clock.now().unix();
        let after = |d: Duration| now.saturating_add(i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let mut k8s = value!({
            "namespace": &claims.namespace,
            "serviceaccount": {"name": &claims.service_account, "uid": &claims.service_account_uid},
        });
        if let Some((kind, name, uid)) = &claims.bound {
            k8s.set(&kind.to_ascii_lowercase(), value!({"name": name, "uid": uid}));
        }
        if let Some((name, uid)) = &claims.node {
            k8s.set("node", value!({"name": name, "uid": uid}));
        }
        if let Some(warn_after) = claims.warn_after {
            k8s.set("warnafter", after(warn_after));
        }
        let payload = value!({
            "iss": self.issuer(),
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account),
            "aud": claims.audiences,
            "exp": after(claims.lifetime), "iat": now, "nbf": now,
            "jti": uuid(self.clock.random()),
            "kubernetes.io": k8s,
        });
        self.key.sign(&payload).map_err(|e| Status::internal(format!("failed to generate token: {e}")))
    }
}

/// Tokens that the administrator has handed out: each is somebody's.
#[derive(Default)]
pub struct StaticTokens(pub Vec<(String, Arc<User>)>);

impl StaticTokens {
    fn find(&self, token: &str) -> Option<Arc<User>> {
        let same = |a: &str| aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), token.as_bytes()).is_ok();
        self.0.iter().find(|(secret, _)| !secret.is_empty() && same(secret)).map(|(_, user)| user.clone())
    }
}

impl Authenticator for StaticTokens {
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated> {
        Ok(credentials.token.and_then(|token| self.find(token)))
    }

    fn review(&self, token: &str, _: &[String]) -> Result<Option<(Arc<User>, Vec<String>)>, Unauthenticated> {
        Ok(self.find(token).map(|user| (user, Vec::new())))
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
