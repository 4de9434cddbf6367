//! Requests as bytes on a connection, to a server on a store in memory.

mod cbor;
mod hostile;
mod lists;
mod metrics;
mod openapi;
mod protobuf;
mod slow;
mod websocket;

use super::Peer;
use super::serve::{Patience, talk};
use crate::server::Server;
use crate::settings::Settings;
use crate::testing::{client_certificate, server_with};
use bytes::Bytes;
use canopus_api::{Value, json};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io::Read;
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
    server: Arc<Server>,
}

impl Client {
    async fn new(name: &str, group: &str) -> Client {
        Client::with(name, group, Settings::default()).await
    }

    async fn with(name: &str, group: &str, settings: Settings) -> Client {
        Client::of(server_with(settings).await, name, group).await
    }

    /// A connection to a server that there is.
    async fn of(server: Arc<Server>, name: &str, group: &str) -> Client {
        let peer = Peer { certificates: vec![client_certificate(name, group)], address: None };
        let (near, far) = tokio::io::duplex(1 << 16);
        let kept = server.clone();
        tokio::spawn(async move {
            talk(server, Arc::new(peer), far, CancellationToken::new(), Patience::default()).await.unwrap()
        });
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        Client { requests, server: kept }
    }

    /// The answer's head; its body may take its time.
    async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_ref()))).unwrap();
        self.requests.ready().await.unwrap();
        self.requests.send_request(request).await.unwrap()
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let (head, body) = self.open(method, path, headers, body).await.into_parts();
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

#[tokio::test]
async fn a_review_is_no_table() {
    let mut admin = Client::new("admin", "system:masters").await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = r#"{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}"#;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(admin.send("POST", path, &[("accept", table)], review).await.code, 406);
    let either = format!("{table},application/json");
    let answer = admin.send("POST", path, &[("accept", &either)], review).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.json()["kind"].str(), "SelfSubjectAccessReview");
}

#[tokio::test]
async fn strict_validation_tells_unknown_and_duplicate_fields_together() {
    let mut admin = Client::new("admin", "system:masters").await;
    let twice = r#"{"metadata":{"name":"a"},"immutable":true,"immutable":false,"dataa":{}}"#;
    let refused = admin.send("POST", &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    let message = r#"strict decoding error: unknown field "dataa", duplicate field "immutable""#;
    assert_eq!(refused.code, 400);
    assert!(refused.json()["message"].str().ends_with(message), "{:?}", refused.json());
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, size: usize) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"k":"{}"}}}}"#, "x".repeat(size))
}

#[tokio::test]
async fn what_is_to_be_patched_is_looked_up_first() {
    let mut admin = Client::new("admin", "system:masters").await;
    admin.send("POST", MAPS, &[], config_map("a", 1)).await;
    let twice = r#"{"data":{"a":"1","a":"2"}}"#;
    for kind in ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
        let kind = format!("application/{kind}");
        let apply = kind.contains("apply");
        for (name, code) in [("a", 400), ("nope", if apply { 400 } else { 404 })] {
            for body in ["{", twice] {
                let path = format!("{MAPS}/{name}?fieldValidation=Strict&fieldManager=m");
                let answer = admin.send("PATCH", &path, &[("content-type", &kind)], body).await;
                assert_eq!(answer.code, code, "{kind} {name} {body}: {:?}", answer.json());
            }
        }
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut admin = Client::new("admin", "system:masters").await;
    let refused = admin.send("POST", MAPS, &[], &config_map("a", 3 << 20)).await;
    assert_eq!(refused.code, 413);
    let status = refused.json();
    assert_eq!(status["reason"].str(), "RequestEntityTooLarge");
    assert_eq!(status["message"].str(), "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    let mut admin = Client::new("admin", "system:masters").await;
    for name in ["a", "b"] {
        assert_eq!(admin.send("POST", MAPS, &[], &config_map(name, 90_000)).await.code, 201);
    }
    let gzip = [("accept-encoding", "deflate, gzip")];
    let (one, plain) = (admin.send("GET", &format!("{MAPS}/a"), &gzip, "").await, admin.get(MAPS).await);
    assert!(!one.headers.contains_key("content-encoding") && !plain.headers.contains_key("content-encoding"));
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    for more in [&[][..], &[("accept", "application/yaml")], &[table]] {
        let path = if more.contains(&table) { format!("{MAPS}?includeObject=Object") } else { MAPS.to_string() };
        let answer = admin.send("GET", &path, &[&gzip[..], more].concat(), "").await;
        assert_eq!(
            (&answer.headers["content-encoding"], &answer.headers["vary"]),
            (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
        );
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
        assert!(text.len() > 180_000 && answer.body.len() < 20_000, "{more:?}");
        if more.is_empty() {
            assert_eq!(text.as_bytes(), plain.body);
        }
    }
}

#[tokio::test]
async fn a_bad_timeout_is_refused() {
    let mut admin = Client::new("admin", "system:masters").await;
    let refused = admin.get("/api/v1/pods?timeout=soon").await;
    let message = r#"invalid timeout specified in the request URL - time: invalid duration "soon""#;
    assert_eq!((refused.code.as_u16(), refused.json()["message"].str()), (400, message));
}

#[tokio::test]
async fn what_takes_too_long_is_given_up() {
    let never = tokio::spawn(std::future::pending());
    let gone =
        super::in_time(never, Some(std::time::Duration::from_millis(1)), &Default::default()).await.err().unwrap();
    let message = "Timeout: request did not complete within the allotted timeout";
    assert_eq!((gone.code, gone.message.as_str()), (504, message));
}

#[tokio::test]
async fn features_show_in_the_metrics() {
    let features = canopus_api::gates::Gates::parse("APIResponseCompression=false").unwrap();
    let settings = Settings { features, ..Settings::default() };
    let mut admin = Client::with("admin", "system:masters", settings).await;
    let text = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"kubernetes_feature_enabled{name="APIResponseCompression",stage="BETA"} 0"#,
        r#"kubernetes_feature_enabled{name="AuthorizeWithSelectors",stage=""} 1"#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
    ] {
        assert!(text.contains(line), "{line}");
    }
    admin.send("POST", MAPS, &[], &config_map("a", 200_000)).await;
    let plain = admin.send("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert!(!plain.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn watches_end_properly_when_the_server_stops() {
    let mut admin = Client::new("admin", "system:masters").await;
    assert_eq!(admin.get("/readyz").await.body, "ok");
    let watch = admin.open("GET", &format!("{MAPS}?watch=1"), &[], "").await;
    admin.server.closing.cancel();
    assert!(watch.into_body().collect().await.unwrap().to_bytes().is_empty());
    let ready = admin.get("/readyz").await;
    assert!(ready.code == 500 && ready.body.starts_with(b"[+]ping ok"));
    assert_eq!(admin.get("/livez").await.code, 200);
}

#[tokio::test]
async fn an_extension_server_is_asked_in_the_clients_name() {
    let (port, ca, _) = crate::testing::listen(|asked, _| {
        let header = |name: &str| asked.headers.get(name).map(|v| v.to_str().unwrap_or("").to_string());
        let said = canopus_api::value!({
            "uri": asked.uri.to_string(), "user": header("x-remote-user"), "group": header("x-remote-group"),
            "authorization": header("authorization"), "impersonated": header("impersonate-user"),
        });
        match asked.uri.path() {
            "/openapi/v3" => (200, r#"{"paths":{"apis/wardle.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1?hash=A"}}}"#.into()),
            _ => (200, json::to_string(&said)),
        }
    })
    .await;
    let mut admin = Client::new("admin", "system:masters").await;
    let stop = CancellationToken::new();
    tokio::spawn(crate::aggregator::run(admin.server.clone(), stop.clone()));
    let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
    let service = format!(
        r#"{{"metadata":{{"name":"v1.wardle.example.com"}},"spec":{{"group":"wardle.example.com","version":"v1","caBundle":"{bundle}",
        "groupPriorityMinimum":1,"versionPriority":1,"service":{{"namespace":"default","name":"ext","port":{port}}}}}}}"#
    );
    assert_eq!(admin.send("POST", "/apis/apiregistration.k8s.io/v1/apiservices", &[], &service).await.code, 201);
    let flunders = "/apis/wardle.example.com/v1/namespaces/default/flunders?limit=5&x=%2F";
    loop {
        let answer = admin.get(flunders).await;
        if answer.code == 503 {
            assert_eq!(answer.body, "service unavailable\n");
            break;
        }
        tokio::task::yield_now().await;
    }
    let service = r#"{"metadata":{"name":"ext"},"spec":{"type":"ExternalName","externalName":"localhost"}}"#;
    assert_eq!(admin.send("POST", "/api/v1/namespaces/default/services", &[], service).await.code, 201);
    let pretended = [
        ("authorization", "Bearer x"),
        ("x-remote-user", "root"),
        ("impersonate-user", "ann"),
        ("impersonate-group", "people"),
    ];
    let answer = loop {
        let answer = admin.send("GET", flunders, &pretended[1..2], "").await;
        if answer.code != 503 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let said = answer.json();
    assert_eq!((said["uri"].str(), said["user"].str(), said["group"].str()), (flunders, "admin", "system:masters"));
    assert!(said["authorization"].is_null() && said["impersonated"].is_null());
    let impersonated = admin.send("GET", "/apis/wardle.example.com/v1", &pretended[2..], "").await;
    // Discovery is for everybody who is authenticated.
    assert_eq!((impersonated.code, impersonated.json()["user"].str()), (StatusCode::OK, "ann"));
    assert_eq!(admin.send("GET", flunders, &pretended[2..], "").await.code, 403);
    let groups = admin.get("/apis").await.json();
    assert!(groups["groups"].items().iter().any(|g| g["name"].str() == "wardle.example.com"));
    let index = admin.get("/openapi/v3").await.json();
    let document = index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"].str();
    assert_eq!(admin.get(document).await.json()["uri"].str(), "/openapi/v3/apis/wardle.example.com/v1?hash=A");
    stop.cancel();
}

/// Requests of somebody without rights, and of somebody without a name.
#[tokio::test]
async fn who_may_do_nothing_learns_nothing() {
    let mut client = Client::new("nobody", "nothing").await;
    for (path, what) in [
        ("/api/v1/namespaces/default/secrets/there", "secrets \"there\""),
        ("/api/v1/namespaces/nowhere/pods", "pods"),
        ("/apis/no.such.group/v1/things", "things.no.such.group"),
        ("//api/v1//namespaces/kube-system/secrets", "secrets"),
        ("/api/v1/namespaces/default/../kube-system/secrets", ""),
        ("/api/v1/namespaces/default/%2e%2e/kube-system/secrets", ""),
        ("/healthz/../api/v1/secrets", ""),
    ] {
        let answer = client.get(path).await;
        assert!([403, 404].contains(&answer.code.as_u16()), "{path}: {}", answer.code);
        assert!(
            what.is_empty()
                || answer.json()["message"].str().starts_with(&format!("{what} is forbidden: User \"nobody\"")),
            "{path}: {:?}",
            answer.json()
        );
    }
    for token in ["", "a", "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3VlciJ9."] {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        let answer = client.send("GET", "/api/v1/secrets", &headers, "").await;
        // The certificate still says who it is: a bad token takes nothing away from it, as upstream.
        assert_eq!(answer.code, 403, "{token}");
    }
    let headers = [("impersonate-user", "system:admin"), ("impersonate-group", "system:masters")];
    let answer = client.send("GET", "/api/v1/secrets", &headers, "").await;
    assert_eq!(answer.code, 403);
    let headers = [("x-remote-user", "system:admin"), ("x-remote-group", "system:masters")];
    let answer = client.send("GET", "/api/v1/secrets", &headers, "").await;
    assert!(answer.json()["message"].str().contains("User \"nobody\" cannot list"), "it is no proxy");
}

#[tokio::test]
async fn a_request_over_the_network_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new("admin", "system:masters").await;
    let path = audited(&client.server, dir.path());
    let body = r#"{"metadata":{"name":"c"},"data":{"k":"v"}}"#;
    let headers = [("content-type", "application/json"), ("audit-id", "mine"), ("impersonate-user", "jane")];
    let answer = client.send("POST", "/api/v1/namespaces/default/configmaps", &headers[..2], body).await;
    assert_eq!((answer.code.as_u16(), answer.headers["audit-id"].to_str().unwrap()), (201, "mine"));
    let refused = client.send("GET", "/api/v1/secrets?limit=1", &headers[2..], "").await;
    assert_eq!(refused.code, 403);
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = text.lines().map(|line| json::parse(line.as_bytes()).unwrap()).collect();
    let [created, refused] = &events[..] else { panic!("{text}") };
    assert_eq!(created["requestObject"]["data"]["k"].str(), "v");
    assert_eq!(created["responseObject"]["metadata"]["name"].str(), "c");
    assert_eq!(created["responseStatus"]["code"].int(), 201);
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"].str(), "allow");
    assert_eq!(refused["impersonatedUser"]["username"].str(), "jane");
    assert_eq!(refused["user"]["username"].str(), "admin");
    assert_eq!(refused["requestURI"].str(), "/api/v1/secrets?limit=1");
    assert_eq!(refused["responseStatus"]["reason"].str(), "Forbidden");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"].str(), "forbid");
}

/// Begins an audit log in `dir`; its path.
fn audited(server: &Server, dir: &std::path::Path) -> std::path::PathBuf {
    let path = dir.join("audit.log");
    let policy =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: RequestResponse}]";
    let log = crate::audit::log::Log::open(crate::audit::log::Options { path: path.clone(), ..Default::default() });
    let audit = crate::audit::Audit {
        policy: crate::audit::policy::Policy::parse(policy).unwrap(),
        log: Some(log.unwrap()),
        webhook: None,
        clock: server.surroundings.clone(),
        counts: Default::default(),
    };
    assert!(server.audit.set(Arc::new(audit)).is_ok());
    path
}

/// A plugin with a bug.
struct Broken;

#[async_trait::async_trait]
impl crate::admission::Plugin for Broken {
    fn name(&self) -> &'static str {
        "Broken"
    }

    fn handles(&self, _: &crate::admission::Request) -> bool {
        true
    }

    async fn validate(&self, _: &crate::admission::Request<'_>) -> canopus_api::Result<()> {
        panic!("a bug")
    }
}

#[tokio::test]
async fn a_bug_is_written_down() {
    let mut client = Client::new("admin", "system:masters").await;
    let gates = crate::server::Gates::clone(&*client.server.gates.get().unwrap());
    let admission = Arc::new(crate::admission::Chain::new(vec![Box::new(Broken)]));
    client.server.gates.set(crate::server::Gates { admission, ..gates });
    let dir = tempfile::tempdir().unwrap();
    let path = audited(&client.server, dir.path());
    let body = r#"{"metadata":{"name":"a"}}"#;
    let answer =
        client.send("POST", "/api/v1/namespaces/default/configmaps", &[("content-type", "application/json")], body);
    let answer = answer.await;
    let words = "This request caused apiserver to panic. Look in the logs for details.";
    assert!(answer.code == 500 && answer.json()["message"].str().contains(words));
    assert_eq!(client.get("/livez").await.code, 200);
    let text = std::fs::read_to_string(path).unwrap();
    let event = json::parse(text.lines().next().unwrap().as_bytes()).unwrap();
    assert_eq!((event["stage"].str(), event["responseStatus"]["code"].int()), ("Panic", 500));
    assert_eq!(event["responseStatus"]["message"].str(), "APIServer panic'd: a bug");
}

#[tokio::test]
async fn tokens_live_no_longer_than_they_may() {
    let hour = Some(std::time::Duration::from_secs(3600));
    let settings = Settings { max_token_expiration: hour, ..Settings::default() };
    let mut client = Client::with("admin", "system:masters", settings).await;
    let json = [("content-type", "application/json")];
    let account = r#"{"metadata":{"name":"sa"}}"#;
    let base = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(client.send("POST", base, &json, account).await.code, 201);
    for (asked, given) in [(7200, 3600), (600, 600)] {
        let body = format!(r#"{{"spec":{{"expirationSeconds":{asked}}}}}"#);
        let answer = client.send("POST", &format!("{base}/sa/token"), &json, body).await;
        assert_eq!((answer.code.as_u16(), answer.json()["spec"]["expirationSeconds"].int()), (201, given));
        let claims = crate::authn::jwt::unverified_claims(answer.json()["status"]["token"].str()).unwrap();
        assert_eq!(claims["exp"].int() - claims["iat"].int(), given);
        let warned = answer.headers.get("warning").map(|w| w.to_str().unwrap());
        let shortened = "299 - \"requested expiration of 7200 seconds shortened to 3600 seconds\"";
        assert_eq!(warned, (asked != given).then_some(shortened));
    }
}

#[tokio::test]
async fn what_is_proxied_to() {
    let mut admin = Client::new("admin", "system:masters").await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let account = r#"{"metadata":{"name":"default"}}"#;
    admin.send("POST", "/api/v1/namespaces/default/serviceaccounts", &[], account).await;
    assert_eq!(admin.send("POST", "/api/v1/namespaces/default/pods", &[], pod).await.code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let moved = admin.get(&format!("{pods}/p:80/proxy?a=b")).await;
    assert_eq!(
        (moved.code.as_u16(), moved.headers["location"].to_str().unwrap()),
        (301, &*format!("{pods}/p:80/proxy/?a=b"))
    );
    for (method, path, code) in [
        // It has no address yet.
        ("GET", format!("{pods}/p/proxy/"), 400),
        ("POST", format!("{pods}/p/proxy"), 400),
        ("GET", format!("{pods}/none/proxy/"), 404),
        ("GET", format!("{pods}/ftp:p:1/proxy/"), 400),
        ("GET", format!("{pods}/p/proxy/%2e%2e/%2e%2e/x"), 404),
        ("GET", format!("{pods}/p/proxy/.."), 404),
        ("GET", format!("{pods}/p/exec?command=ls"), 400),
        ("PUT", format!("{pods}/p/exec?command=ls"), 405),
        ("GET", "/api/v1/pods/p/proxy/x".into(), 404),
        ("GET", "/api/v1/nodes/none/proxy/healthz".into(), 404),
        ("GET", "/api/v1/namespaces/default/services/none/proxy/".into(), 404),
    ] {
        assert_eq!(admin.send(method, &path, &[], "").await.code, code, "{method} {path}");
    }
    // Who may look at a stream may not start one.
    let mut viewer = Client::new("ann", "people").await;
    assert_eq!(viewer.get(&format!("{pods}/p/exec?command=ls")).await.code, 403);
}
