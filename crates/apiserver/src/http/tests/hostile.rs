//! Clients that mean harm: the server answers or closes, and another client doesn't notice.

use super::super::Peer;
use super::super::serve::{Patience, talk};
use super::{Answer, Client, client_certificate};
use crate::server::Server;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
/// What must not be taken for a request of its own.
const SMUGGLED: &str = "DELETE /api/v1/namespaces/default/configmaps/a HTTP/1.1\r\nhost: t\r\n\r\n";

/// Another connection to the same server, of one who may do everything.
fn connect(server: &Arc<Server>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    let peer = Peer { certificates: vec![client_certificate("mallory", "system:masters")], address: None };
    tokio::spawn(async move { talk(server, Arc::new(peer), far, CancellationToken::new(), Patience::default()).await });
    near
}

/// The other client, who is answered as ever.
async fn calm(client: &mut Client) {
    let answer = tokio::time::timeout(Duration::from_secs(30), client.get(MAPS)).await.expect("others are served");
    assert_eq!(answer.code, StatusCode::OK);
}

async fn admin() -> Client {
    let mut admin = Client::new("admin", "system:masters").await;
    let map = r#"{"metadata":{"name":"a","labels":{"x":"y"}},"data":{"k":"v"}}"#;
    assert_eq!(admin.send("POST", MAPS, &[("content-type", JSON)], map).await.code, StatusCode::CREATED);
    admin
}

fn nested(open: &str, close: &str) -> String {
    format!("{{\"metadata\":{{\"name\":\"deep\"}},\"data\":{}{}}}", open.repeat(10_000), close.repeat(10_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_refused() {
    let mut admin = admin().await;
    let labels: String = (0..100_000).map(|i| format!("\"l{i}\":\"\",")).collect();
    let million: String = (0..1_000_000).map(|i| format!("\"l{i}\":\"\",")).collect();
    let laughs: String = (1..40).map(|i| format!("a{i}: &a{i} [*a{},*a{}]\n", i - 1, i - 1)).collect();
    let copies: String =
        (0..60).map(|i| format!(",{{\"op\":\"copy\",\"from\":\"/data\",\"path\":\"/data/c{i}\"}}")).collect();
    let ops = ",{\"op\":\"test\",\"path\":\"/kind\",\"value\":\"ConfigMap\"}".repeat(20_000);
    let patch =
        |ops: &str| format!("[{{\"op\":\"add\",\"path\":\"/data/z\",\"value\":\"{}\"}}{ops}]", "z".repeat(100_000));
    let one = format!("{MAPS}/a");
    let cases: Vec<(&str, &str, &str, String, &[u16])> = vec![
        ("POST", MAPS, JSON, nested("{\"a\":", "}").replace("{\"a\":}", "{}"), &[400, 422]),
        ("POST", MAPS, JSON, nested("[", "]"), &[400, 422]),
        ("POST", MAPS, "application/yaml", nested("[", "]"), &[400, 422]),
        ("POST", MAPS, "application/yaml", format!("a0: &a0 x\n{laughs}"), &[400, 422]),
        ("POST", MAPS, "application/yaml", "- ".repeat(10_000), &[400, 422]),
        (
            "POST",
            MAPS,
            JSON,
            format!("{{\"metadata\":{{\"name\":\"l\",\"labels\":{{{labels}\"z\":\"\"}}}}}}"),
            &[201, 413, 422],
        ),
        ("POST", MAPS, JSON, format!("{{\"metadata\":{{\"name\":\"m\",\"labels\":{{{million}\"z\":\"\"}}}}}}"), &[413]),
        (
            "PATCH",
            &one,
            "application/merge-patch+json",
            format!("{{\"metadata\":{{\"labels\":{{{labels}\"z\":\"\"}}}}}}"),
            &[200, 413, 422],
        ),
        (
            "PATCH",
            &one,
            "application/apply-patch+yaml",
            format!("{{\"metadata\":{{\"labels\":{{{labels}\"z\":\"\"}}}}}}"),
            &[400, 409, 413, 422],
        ),
        ("POST", MAPS, JSON, format!("{{\"metadata\":{{\"name\":\"n\"}},\"x\":{}}}", "9".repeat(1 << 20)), &[400, 422]),
        ("PATCH", &one, "application/json-patch+json", patch(&copies), &[400, 413, 422]),
        ("PATCH", &one, "application/json-patch+json", patch(&ops), &[400, 413, 422]),
        ("PATCH", &one, "application/merge-patch+json", nested("{\"a\":", "}"), &[400, 422]),
        ("PATCH", &one, "application/strategic-merge-patch+json", nested("{\"$patch\":", "}"), &[400, 422]),
        ("PATCH", &one, "application/apply-patch+yaml", nested("{a: ", "}"), &[400, 422]),
        ("POST", MAPS, "application/vnd.kubernetes.protobuf", "k8s\0\u{12}\u{7f}\u{7f}\u{7f}".into(), &[400]),
    ];
    for (method, path, kind, body, codes) in cases {
        let shown: String = body.chars().take(60).collect();
        // The server may hang up after it has refused.
        let mut mallory = Client::of(admin.server.clone(), "mallory", "system:masters").await;
        let Answer { code, body, .. } = mallory.send(method, path, &[("content-type", kind)], body).await;
        let why = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        assert!(codes.contains(&code.as_u16()), "{kind} {shown}: {code} {why}");
        calm(&mut admin).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_are_not_taken_in() {
    let mut admin = admin().await;
    let server = admin.server.clone();
    // Announced: refused at once.
    let mut raw = connect(&server);
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\ncontent-length: 104857600\r\n\r\n");
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    raw.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // Unannounced: the connection may end under the client's hands.
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = futures::stream::iter((0..100).map(move |_| Ok::<_, Infallible>(Frame::data(chunk.clone()))));
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(connect(&server))).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(MAPS).header("host", "t").header("content-type", JSON);
    if let Ok(answer) = requests.send_request(request.body(StreamBody::new(chunks).boxed()).unwrap()).await {
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    calm(&mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded() {
    let mut admin = admin().await;
    let server = admin.server.clone();
    let selector = |count: usize| {
        let terms: Vec<String> = (0..count).map(|i| format!("k{i}%20in%20(a,b,c)")).collect();
        format!("GET {MAPS}?labelSelector={} HTTP/1.1\r\nhost: t\r\n\r\n", terms.join(","))
    };
    let cases = [
        format!("GET {MAPS} HTTP/1.1\r\nhost: t\r\n{}\r\n", "x: y\r\n".repeat(20_000)),
        format!("GET {MAPS} HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(2 << 20)),
        format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a/".repeat(1 << 20)),
        selector(2_000),
        selector(200_000),
        format!("GET {MAPS}?fieldSelector={} HTTP/1.1\r\nhost: t\r\n\r\n", "metadata.name%3Dx,".repeat(3_000)),
        format!("GET {MAPS}?continue={} HTTP/1.1\r\nhost: t\r\n\r\n", "A".repeat(60_000)),
        "GET /api/v1/namespaces/../../../etc/passwd HTTP/1.1\r\nhost: t\r\n\r\n".into(),
        "GET /api/v1/namespaces/%2e%2e/%00/pods HTTP/1.1\r\nhost: t\r\n\r\n".into(),
        "GET http://[ HTTP/1.1\r\nhost: t\r\n\r\n".into(),
        "GET / HTTP/9.9\r\n\r\n".into(),
        // Two ways to say where the body ends.
        format!(
            "POST {MAPS} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        ),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        "\0".repeat(100_000),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{SMUGGLED}"),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ncontent-length: +5\r\n\r\nhello{SMUGGLED}"),
        format!("POST {MAPS} HTTP/1.1\r\nhost: t\r\ncontent-length: 5, 5\r\n\r\nhello"),
        format!("GET {MAPS} HTTP/1.1\r\nhost: t\r\n x: folded\r\n\r\n{SMUGGLED}"),
        format!("GET {MAPS} HTTP/1.1\r\nhost: t\r\nx: a\rb\r\n\r\n"),
    ];
    for head in cases {
        let mut raw = connect(&server);
        let (mut answers, mut questions) = tokio::io::split(raw);
        let shown = head.chars().take(70).collect::<String>();
        let sent = tokio::spawn(async move {
            // The server may have closed before all of it was sent.
            let _ = questions.write_all(head.as_bytes()).await;
            let _ = questions.shutdown().await;
            questions
        });
        let mut answer = Vec::new();
        let read = answers.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(60), read).await;
        assert!(ended.is_ok(), "{shown}: neither an answer nor the end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1 || !answer.contains("/livez"), "{shown}: {answer}");
        let line = answer.lines().next().unwrap_or_default().to_owned();
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4") || line.starts_with("HTTP/1.1 2"), "{shown}: {line}");
        raw = answers.unsplit(sent.await.unwrap());
        drop(raw);
        calm(&mut admin).await;
        assert_eq!(admin.get(&format!("{MAPS}/a")).await.code, StatusCode::OK, "{shown}");
    }
}

/// Paths that mean to lead elsewhere than they say, for one who may read configmaps of one namespace only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tricks_of_paths_lead_nowhere() {
    let mut admin = admin().await;
    let secret = r#"{"metadata":{"name":"s"},"data":{"k":"aHVudGVyMg=="}}"#;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    assert_eq!(admin.send("POST", secrets, &[("content-type", JSON)], secret).await.code, StatusCode::CREATED);
    let role = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["*"]}]}"#;
    let binding = r#"{"metadata":{"name":"r"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"mallory","apiGroup":"rbac.authorization.k8s.io"}]}"#;
    let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    for (plural, body) in [("roles", role), ("rolebindings", binding)] {
        let made = admin.send("POST", &format!("{group}/{plural}"), &[("content-type", JSON)], body).await;
        assert_eq!(made.code, StatusCode::CREATED);
    }
    let may = async |path: &str| Client::of(admin.server.clone(), "mallory", "people").await.get(path).await;
    while may(MAPS).await.code != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let own = "/api/v1/namespaces/default/configmaps";
    for trick in [
        "/../../kube-system/secrets/s",
        "/..%2f..%2fkube-system%2fsecrets%2fs",
        "/%2e%2e/%2e%2e/kube-system/secrets/s",
        "/%252e%252e/%252e%252e/kube-system/secrets/s",
        "/..;/..;/kube-system/secrets/s",
        "/a/../../../kube-system/secrets",
        "/a%00/../s",
        "//../secrets",
        "/a?namespace=kube-system&resource=secrets",
        "/a%3f/../../../kube-system/secrets/s",
    ] {
        let answer = may(&format!("{own}{trick}")).await;
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("aHVudGVyMg"), "{trick}: {} {body}", answer.code);
        assert!(answer.code.is_client_error() || trick.contains('?'), "{trick}: {}", answer.code);
    }
    for path in [
        "//api//v1//namespaces//kube-system//secrets",
        "/api/v1/namespaces/kube-system/secrets/",
        "/API/v1/secrets",
        "/api/v1/watch/namespaces/kube-system/secrets",
    ] {
        assert!(may(path).await.code.is_client_error(), "{path}");
    }
    calm(&mut admin).await;
}

/// Tokens that were signed by nobody, are of another time, or mean to cost the server much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_let_nobody_in() {
    let mut admin = admin().await;
    let made = admin
        .send(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts",
            &[("content-type", JSON)],
            r#"{"metadata":{"name":"x"}}"#,
        )
        .await;
    assert!(made.code == StatusCode::CREATED || made.code == StatusCode::CONFLICT, "{}", made.code);
    let asked = r#"{"spec":{"expirationSeconds":600}}"#;
    let issued = admin
        .send("POST", "/api/v1/namespaces/default/serviceaccounts/x/token", &[("content-type", JSON)], asked)
        .await;
    let issued = issued.json();
    let good = issued["status"]["token"].str();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("a token: {issued:?}") };
    let other = "eyJhbGciOiJub25lIn0";
    let forged = [
        format!("{other}.{claims}."),
        format!("{other}.{claims}.{signature}"),
        format!("{header}.eyK{}.{signature}", claims.strip_prefix("eyJ").unwrap()),
        format!("{header}.{claims}.{}", signature.chars().rev().collect::<String>()),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{}.{signature}", "A".repeat(500_000)),
        ".".repeat(100_000),
        "..".into(),
        "\u{e9}".into(),
    ];
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let server = admin.server.clone();
    let nobody = async |token: &str| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = server.clone();
        let peer = Peer { certificates: Vec::new(), address: None };
        tokio::spawn(
            async move { talk(server, Arc::new(peer), far, CancellationToken::new(), Patience::default()).await },
        );
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        let body = http_body_util::Full::new(Bytes::from("{}"));
        let request = Request::post(who).header("host", "t").header("content-type", JSON);
        let request = request.header("authorization", format!("Bearer {token}")).body(body).unwrap();
        requests.send_request(request).await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(nobody(good).await.unwrap(), 201);
    for token in forged {
        let code = nobody(&token).await.unwrap();
        assert!(matches!(code, 401 | 431), "{}: {code}", &token[..token.len().min(80)]);
        calm(&mut admin).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_opened_and_reset_harm_nobody_else() {
    let mut admin = admin().await;
    let server = admin.server.clone();
    for _ in 0..3 {
        let (requests, connection) = h2::client::handshake(connect(&server)).await.unwrap();
        let driver = tokio::spawn(connection);
        for _ in 0..5_000 {
            // The server hangs up on who does this.
            let Ok(mut ready) = requests.clone().ready().await else { break };
            let request = Request::get(format!("https://t{MAPS}?watch=1")).body(()).unwrap();
            match ready.send_request(request, true) {
                Ok((_, mut stream)) => stream.send_reset(h2::Reason::CANCEL),
                Err(_) => break,
            }
        }
        calm(&mut admin).await;
        driver.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_watches_is_a_flood_for_its_own_connection_only() {
    let mut admin = admin().await;
    let server = admin.server.clone();
    let mut floods = Vec::new();
    for _ in 0..5 {
        let (requests, connection) = h2::client::handshake(connect(&server)).await.unwrap();
        floods.push(tokio::spawn(async move { drop(connection.await) }));
        for _ in 0..100 {
            let Ok(mut ready) = requests.clone().ready().await else { break };
            let request = Request::get(format!("https://t{MAPS}?watch=1")).body(()).unwrap();
            // Nobody reads the answers.
            floods.extend(ready.send_request(request, true).ok().map(|(answer, _)| {
                tokio::spawn(async move {
                    let _unread = answer.await;
                    std::future::pending::<()>().await;
                })
            }));
        }
    }
    for i in 0..50 {
        let body = format!("{{\"metadata\":{{\"name\":\"m{i}\"}},\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(10_000));
        assert_eq!(admin.send("POST", MAPS, &[("content-type", JSON)], body).await.code, StatusCode::CREATED);
    }
    calm(&mut admin).await;
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}
