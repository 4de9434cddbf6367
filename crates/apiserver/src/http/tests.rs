//! Requests as bytes on a connection, to a server on a store in memory.

use super::serve::talk;
use crate::testing::server;
use bytes::Bytes;
use canopus_api::{Value, json};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        json::parse(&self.body).unwrap()
    }
}

/// One connection, with a client certificate of `name` in `group`.
struct Client {
    requests: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    async fn new(name: &str, group: &str) -> Client {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate: Arc<[u8]> = Arc::from(certificate.der().as_ref());
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = server().await;
        tokio::spawn(async move { talk(server, Some(certificate), far, CancellationToken::new()).await.unwrap() });
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        Client { requests }
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let (head, body) = self.requests.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: head.status, headers: head.headers, body }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }
}

#[tokio::test]
async fn token_keys_are_published_to_service_accounts() {
    let mut account = Client::new("system:serviceaccount:default:x", "system:serviceaccounts").await;
    let configuration = account.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.json()["issuer"].str(), "https://issuer");
    let keys = account.get("/openid/v1/jwks").await;
    assert_eq!(keys.json()["keys"][0]["alg"].str(), "ES256");
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.headers["cache-control"], "public, max-age=3600");
    let mut stranger = Client::new("ann", "people").await;
    assert_eq!(stranger.get("/openid/v1/jwks").await.code, 403);
}

#[tokio::test]
async fn selectors_count_in_authorization() {
    let mut node = Client::new("system:node:n1", "system:nodes").await;
    for (path, code) in [
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", 403),
        ("/api/v1/pods", 403),
        ("/api/v1/watch/pods?fieldSelector=spec.nodeName%3Dn1", 403),
        ("/api/v1/nodes?fieldSelector=metadata.name%3Dn1", 200),
        ("/api/v1/nodes?fieldSelector=metadata.name%3Dn2", 403),
    ] {
        assert_eq!(node.get(path).await.code, code, "{path}");
    }
    let review = r#"{"spec":{"user":"system:node:n1","groups":["system:nodes"],"resourceAttributes":
        {"verb":"list","resource":"pods","version":"v1","fieldSelector":{"rawSelector":"spec.nodeName=n1"}}}}"#;
    let mut admin = Client::new("admin", "system:masters").await;
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert!(admin.send("POST", path, &[], review).await.json()["status"]["allowed"].bool());
    let wide = review.replace("=n1", "!=n1");
    assert!(!admin.send("POST", path, &[], &wide).await.json()["status"]["allowed"].bool());
}
