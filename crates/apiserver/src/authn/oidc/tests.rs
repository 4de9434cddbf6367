//! An issuer as a server of its own, over TLS.

use super::*;
use crate::authn::config::Configuration;
use crate::authn::jwt::SigningKey;
use crate::testing::{listen, server};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use canopus_api::{json, value};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Provider {
    url: String,
    ca: String,
    /// Those it publishes.
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    /// What it says to those who ask for claims.
    told: Arc<Mutex<String>>,
}

fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> SigningKey {
    SigningKey::from_pem(&rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem()).unwrap()
}

async fn provider() -> Provider {
    let (keys, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let told = Arc::new(Mutex::new(String::new()));
    let (published, count, claims) = (keys.clone(), asked.clone(), told.clone());
    let (port, ca, _) = listen(move |parts, _| {
        let at = parts.uri.authority().map(ToString::to_string);
        let host = at.unwrap_or_else(|| parts.headers["host"].to_str().unwrap().to_string());
        let document = match parts.uri.path() {
            "/tenant/.well-known/openid-configuration" | "/elsewhere" => {
                value!({"issuer": format!("https://{host}/tenant"), "jwks_uri": format!("https://{host}/keys?all=1")})
            }
            "/keys" if parts.uri.query() == Some("all=1") => {
                count.fetch_add(1, Ordering::Relaxed);
                value!({"keys": Value::Array(published.lock().clone())})
            }
            "/claims" if parts.headers["authorization"] == "Bearer please" => return (200, claims.lock().clone()),
            _ => return (404, "{}".into()),
        };
        (200, json::to_string(&document))
    })
    .await;
    Provider { url: format!("https://localhost:{port}/tenant"), ca, keys, asked, told }
}

impl Provider {
    fn publish(&self, keys: &[&SigningKey]) {
        *self.keys.lock() = keys.iter().map(|k| k.public().jwk()).collect();
    }

    /// The file that makes its tokens good; `rest` is about mappings and rules.
    fn file(&self, issuer: &str, rest: &str) -> String {
        let ca = json::to_string(&Value::from(self.ca.as_str()));
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {{url: '{}', audiences: [me], certificateAuthority: {ca}{issuer}}}\n{rest}",
            self.url
        )
    }

    fn issuers(&self, issuer: &str, rest: &str) -> Issuers {
        Issuers::new(Configuration::parse(&self.file(issuer, rest), &[]).unwrap().issuers)
    }

    fn claims(&self, change: Value) -> Value {
        let mut claims = value!({"iss": &self.url, "aud": "me", "exp": 4_000_000_000_i64, "sub": "ann"});
        change.entries().for_each(|(k, v)| claims.set(k, v.clone()));
        claims
    }
}

const PLAIN: &str = "  claimMappings: {username: {claim: sub, prefix: 'x:'}, groups: {claim: roles, prefix: 'g:'}}\n";

async fn ask(server: &Server, issuers: &Issuers, token: &str) -> Result<String, String> {
    let audiences = server.gates.get().unwrap().tokens.audiences().to_vec();
    match issuers.check(server, token, &audiences).await {
        Ok(None) => Ok("nobody".into()),
        Ok(Some((user, _))) => Ok(json::to_string(&crate::reviews::user_info(&user))),
        Err(why) => Err(why.0),
    }
}

#[tokio::test]
async fn only_its_own_good_tokens() {
    let (server, provider) = (server().await, provider().await);
    let issuers = provider.issuers("", PLAIN);
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let (good, other) = (key(algorithm), key(algorithm));
        provider.publish(&[&good]);
        let token = |change: Value| good.sign(&provider.claims(change)).unwrap();
        let ann = r#"{"groups":["g:a","g:b","system:authenticated"],"username":"x:ann"}"#;
        assert_eq!(ask(&server, &issuers, &token(value!({"roles": ["a", "b"]}))).await, Ok(ann.into()));
        let one = r#"{"groups":["g:a","system:authenticated"],"username":"x:ann"}"#;
        assert_eq!(ask(&server, &issuers, &token(value!({"roles": "a", "aud": ["you", "me"]}))).await, Ok(one.into()));
        assert_eq!(ask(&server, &issuers, &token(value!({"iss": "https://other"}))).await, Ok("nobody".into()));
        assert_eq!(ask(&server, &issuers, "abc").await, Ok("nobody".into()));
        let forged = other.sign(&provider.claims(Value::object())).unwrap();
        let unsigned = format!(
            "{}.{}.",
            BASE64.encode(r#"{"alg":"none"}"#),
            BASE64.encode(json::to_vec(&provider.claims(Value::object())))
        );
        let late = canopus_api::Time(4_000_000_000 * 1_000_000);
        for (token, why) in [
            (forged, "failed to verify id token signature"),
            (unsigned, "unsupported algorithm"),
            (token(value!({"aud": "you"})), "expected audience in [\"me\"] got [\"you\"]"),
            (token(value!({"exp": 1})), "token is expired (Token Expiry: 1970-01-01T00:00:01Z)"),
            (token(value!({"nbf": late.unix()})), "before the nbf"),
            (token(value!({"sub": 1})), "oidc: parse username claims \"sub\": json: cannot unmarshal number"),
            (token(value!({"sub": null})), "json: cannot unmarshal null"),
            (token(value!({"roles": [1]})), "oidc: parse groups claim \"roles\""),
        ] {
            let said = ask(&server, &issuers, &token).await.unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}

#[tokio::test]
async fn keys_that_change() {
    let (server, provider) = (server().await, provider().await);
    let issuers = provider.issuers("", PLAIN);
    let (old, new) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ECDSA_P384_SHA384));
    let token = |key: &SigningKey| key.sign(&provider.claims(Value::object())).unwrap();
    let (first, second) = (token(&old), token(&new));
    provider.publish(&[&old]);
    for _ in 0..3 {
        assert!(ask(&server, &issuers, &first).await.is_ok());
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1, "keys are kept");
    provider.publish(&[&new]);
    assert!(ask(&server, &issuers, &second).await.is_ok(), "a new key is fetched");
    assert!(ask(&server, &issuers, &first).await.is_err(), "one that is gone is good no more");
    for _ in 0..50 {
        assert!(ask(&server, &issuers, &first).await.is_err());
    }
    let asked = provider.asked.load(Ordering::Relaxed);
    let mut metrics = String::new();
    server.metrics.json_web_tokens.write(&mut metrics);
    for line in ["result=\"success\"} 4", "result=\"failure\"} 51"] {
        assert!(metrics.contains(line) && metrics.contains("jwt_issuer_hash=\"sha256:"), "{line} in\n{metrics}");
    }
    assert!(asked < 25, "forged tokens are no attack on the issuer: {asked}");
}

#[tokio::test]
async fn expressions_make_the_user() {
    let (server, provider) = (server().await, provider().await);
    let good = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    provider.publish(&[&good]);
    let rules = r#"
  claimMappings:
    username: {expression: "claims.org__dot__x.name + ':' + claims.sub"}
    groups: {expression: "claims.roles.split(',')"}
    uid: {claim: id}
    extra:
    - {key: example.org/tier, valueExpression: "claims.?tier.orValue('')"}
    - {key: example.org/all, valueExpression: "['a', '', 'b']"}
  claimValidationRules:
  - {claim: hd, requiredValue: example.org}
  - {expression: "claims.exp - claims.iat <= 3600", message: too long}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
  - {expression: "user.extra.example__dot__org__slash__all.size() == 2"}
"#;
    // What discovery finds may be elsewhere.
    let elsewhere = provider.url.replace("/tenant", "/elsewhere");
    let issuers = provider.issuers(&format!(", discoveryURL: '{elsewhere}'"), rules);
    let now = server.surroundings.now().unix();
    let claims = value!({
        "org.x": {"name": "acme"}, "roles": "a,b", "id": "7", "hd": "example.org", "iat": now, "exp": now + 60, "jti": "j",
    });
    let token = |change: Value| {
        let mut claims = provider.claims(claims.clone());
        change.entries().for_each(|(k, v)| claims.set(k, v.clone()));
        good.sign(&claims).unwrap()
    };
    let ann = r#"{"extra":{"authentication.kubernetes.io/credential-id":["JTI=j"],"example.org/all":["a","b"],"example.org/tier":["gold"]},"groups":["a","b","system:authenticated"],"uid":"7","username":"acme:ann"}"#;
    assert_eq!(ask(&server, &issuers, &token(value!({"tier": "gold"}))).await, Ok(ann.into()));
    for (change, why) in [
        (value!({"hd": "x"}), "oidc: required claim hd value does not match. Got = x, want = example.org"),
        (value!({"exp": now + 7200}), "validation expression 'claims.exp - claims.iat <= 3600' failed: too long"),
        (value!({"org.x": {"name": "system"}}), "error evaluating user info validation rule: validation expression"),
        (value!({"org.x": {}}), "error evaluating username claim expression: expression"),
        (value!({"roles": 7}), "error evaluating group claim expression"),
        (value!({"tier": 7}), "expression must return a string or a list of strings"),
    ] {
        let said = ask(&server, &issuers, &token(change)).await.unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[tokio::test]
async fn others_take_over_when_their_keys_are_known() {
    let (server, one, two) = (server().await, provider().await, provider().await);
    let good = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    one.publish(&[&good]);
    two.publish(&[&good]);
    let issuers = one.issuers("", PLAIN);
    let settings = |p: &Provider| Configuration::parse(&p.file("", PLAIN), &[]).unwrap().issuers;
    let (first, second) = (good.sign(&one.claims(Value::object())), good.sign(&two.claims(Value::object())));
    let (first, second) = (first.unwrap(), second.unwrap());
    let mut lost = settings(&two);
    lost[0].discovery = format!("{}/lost", two.url);
    let lost = issuers.replace(lost, &server.outgoing, Duration::ZERO).await.unwrap_err();
    assert!(lost.contains("is not healthy") && lost.contains("404"), "{lost}");
    assert!(ask(&server, &issuers, &first).await.is_ok_and(|user| user != "nobody"));
    issuers.replace(settings(&two), &server.outgoing, Duration::ZERO).await.unwrap();
    assert_eq!(ask(&server, &issuers, &first).await, Ok("nobody".into()));
    assert!(ask(&server, &issuers, &second).await.is_ok_and(|user| user != "nobody"));
}

#[tokio::test]
async fn groups_that_are_elsewhere() {
    let (server, provider) = (server().await, provider().await);
    let (good, other) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ECDSA_P256_SHA256));
    provider.publish(&[&good]);
    let issuers = provider.issuers("", PLAIN);
    let told = provider.told.clone();
    let elsewhere = provider.url.replace("/tenant", "/claims");
    let token = good.sign(&provider.claims(value!({
        "_claim_names": {"roles": "src"},
        "_claim_sources": {"src": {"endpoint": &elsewhere, "access_token": "please"}},
    })));
    let token = token.unwrap();
    let say = |key: &SigningKey, change: Value| *told.lock() = key.sign(&provider.claims(change)).unwrap();
    say(&good, value!({"roles": ["a", "b"]}));
    let ann = r#"{"groups":["g:a","g:b","system:authenticated"],"username":"x:ann"}"#;
    assert_eq!(ask(&server, &issuers, &token).await, Ok(ann.into()));
    for (key, change, why) in [
        (&other, value!({"roles": ["a"]}), "verify distributed claim token: failed to verify signature"),
        (&good, value!({"roles": ["a"], "aud": "you"}), "verify distributed claim token: expected audience"),
        (&good, value!({"roles": ["a"], "exp": 1}), "verify distributed claim token: token is expired"),
        (&good, value!({"groups": ["a"]}), "did not contain claim: roles"),
        (&good, value!({"roles": ["a"], "iss": "http://plain"}), "is not an https URL"),
    ] {
        say(key, change);
        let said = ask(&server, &issuers, &token).await.unwrap_err();
        assert!(said.contains("could not expand distributed claims") && said.contains(why), "{why}: {said}");
    }
    *told.lock() = "nonsense".into();
    assert!(ask(&server, &issuers, &token).await.unwrap_err().contains("malformed token"));
}

/// What an issuer may publish that is none, and what may be in place of its keys.
#[tokio::test]
async fn nonsense_for_documents_and_keys() {
    let server = server().await;
    let good = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let keys = |jwk: &str| format!("{{\"keys\": [{}]}}", vec![jwk; 20_000].join(","));
    let jwk = json::to_string(&good.public().jwk());
    let documents: Vec<String> = [
        "",
        "null",
        "[]",
        "\"\"",
        "{\"keys\": 7}",
        "{\"keys\": [null, 1, {}, [], \"x\"]}",
        "{\"jwks_uri\": [1]}",
        "\u{0}",
        &deep,
    ]
    .map(String::from)
    .into_iter()
    .chain([
        keys(&jwk),
        keys(r#"{"kty":"RSA","n":"AQAB","e":""}"#),
        keys(r#"{"kty":"EC","crv":"P-256","x":"","y":""}"#),
    ])
    .chain([format!("{{\"keys\": \"{}\"}}", "x".repeat(2 << 20))])
    .collect();
    for document in documents {
        let shown: String = document.chars().take(60).collect();
        for at_keys in [false, true] {
            let said = document.clone();
            let (port, ca, _) = listen(move |parts, _| {
                let host = parts.headers["host"].to_str().unwrap_or("").to_string();
                match parts.uri.path() {
                    "/tenant/.well-known/openid-configuration" if at_keys => {
                        let own = value!({"issuer": format!("https://{host}/tenant"), "jwks_uri": format!("https://{host}/keys")});
                        (200, json::to_string(&own))
                    }
                    _ => (200, said.clone()),
                }
            })
            .await;
            let url = format!("https://localhost:{port}/tenant");
            let provider = Provider { url, ca, keys: Arc::default(), asked: Arc::default(), told: Arc::default() };
            let issuers = provider.issuers("", PLAIN);
            let token = key(&rcgen::PKCS_ECDSA_P256_SHA256).sign(&provider.claims(Value::object())).unwrap();
            assert!(ask(&server, &issuers, &token).await.is_err(), "{shown}");
        }
    }
}
