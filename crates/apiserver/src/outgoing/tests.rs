//! The client against a TLS server with an authority of its own.

use super::*;
use crate::testing::{listen, server};
use canopus_api::value;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const SECOND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_webhook_is_asked_over_one_connection() {
    let server = server().await;
    let (port, ca, connections) = listen(|asked, _| (200, format!("{{\"path\": {:?}}}", asked.uri.to_string()))).await;
    let to = Destination::url(&format!("https://127.0.0.1:{port}/ask"), Trust::bundle(ca.as_bytes())).unwrap();
    for _ in 0..3 {
        let answer = server.outgoing.post(&to, &value!({"a": 1}), SECOND).await.unwrap();
        assert_eq!(answer["path"].str(), "/ask?timeout=10s");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn failures_in_upstreams_words() {
    let server = server().await;
    let (port, ca, _) = listen(|_, _| (500, "broken".into())).await;
    let ask = async |to: &Destination| server.outgoing.post(to, &value!({}), SECOND).await.unwrap_err();
    let url = format!("https://127.0.0.1:{port}/");
    let refused = ask(&Destination::url(&url, Trust::bundle(ca.as_bytes())).unwrap()).await;
    let Failure::Refused(status) = &refused else { panic!("{refused}") };
    assert_eq!(status.code, 500);
    assert_eq!(refused.to_string(), r#"an error on the server ("broken") has prevented the request from succeeding"#);

    let (_, other, _) = listen(|_, _| (200, String::new())).await;
    let stranger = ask(&Destination::url(&url, Trust::bundle(other.as_bytes())).unwrap()).await.to_string();
    let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(stranger, format!("Post \"https://127.0.0.1:{port}/?timeout=10s\": {why}"));
    let wrong = Destination::url(&format!("https://localhost.localdomain:{port}"), Trust::bundle(ca.as_bytes()));
    assert!(wrong.is_ok());
    let garbage = ask(&Destination::url(&url, Trust::bundle(b"x")).unwrap()).await.to_string();
    assert!(garbage.ends_with("unable to load root certificates: unable to parse bytes as PEM block"), "{garbage}");
    assert!(server.outgoing.post(&Destination::url(&url, Trust::Anybody).unwrap(), &value!({}), SECOND).await.is_err());

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let closed = ask(&Destination::url(&format!("https://127.0.0.1:{closed}/"), Trust::Anybody).unwrap()).await;
    assert!(closed.to_string().ends_with("connect: connection refused"), "{closed}");
    let config = value!({"service": {"namespace": "n", "name": "s", "path": "/x", "port": 8443}, "caBundle": ""});
    let nowhere = ask(&Destination::of_client_config(&config).unwrap()).await.to_string();
    assert!(
        nowhere == r#"Post "https://s.n.svc:8443/x?timeout=10s": service "s" not found"#
            || nowhere.contains("root certificates"),
        "{nowhere}"
    );
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for() {
    let server = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let to = Destination::url(&url, Trust::Anybody).unwrap();
    let late = server.outgoing.post(&to, &value!({}), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(late, Failure::Timeout(_)));
    assert!(late.to_string().ends_with("/?timeout=1s\": context deadline exceeded"), "{late}");
}

/// Says `first`, and then `more` for as long as somebody listens; how many bytes it got rid of.
async fn babbler(first: &'static str, more: &'static [u8]) -> (Destination, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let said = Arc::new(AtomicUsize::new(0));
    let count = said.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let more = more.repeat((32 << 10) / more.len().max(1));
                let mut next = stream.write_all(first.as_bytes()).await;
                while next.is_ok() && !more.is_empty() {
                    next = stream.write_all(&more).await;
                    count.fetch_add(more.len(), Ordering::Relaxed);
                }
                // One that has no more to say holds the line.
                std::future::pending::<()>().await;
            });
        }
    });
    (Destination::url(&url, Trust::Anybody).unwrap(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_ends_is_cut_off_and_others_are_asked_meanwhile() {
    let server = server().await;
    let (port, ca, _) = listen(|_, _| (200, "{}".into())).await;
    let calm = Destination::url(&format!("https://127.0.0.1:{port}/"), Trust::bundle(ca.as_bytes())).unwrap();
    let patience = Duration::from_secs(3);
    for (what, first, more) in [
        ("a body without end", "HTTP/1.1 200 OK\r\n\r\n", &b" "[..]),
        ("chunks without end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        ("a length beyond all measure", "HTTP/1.1 200 OK\r\ncontent-length: 9000000000000000000\r\n\r\n", b" "),
        ("a length that is none", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", b" "),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 1\r\n\r\n{}", b" "),
        ("headers without end", "HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        ("a header without end", "HTTP/1.1 200 OK\r\na: ", b"b"),
        ("no HTTP", "", b"\0\xff"),
        ("not yet, for ever", "", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("nothing after the head", "HTTP/1.1 200 OK\r\n\r\n", b""),
        ("a document of brackets", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"["),
    ] {
        let (to, said) = babbler(first, more).await;
        let question = value!({});
        let asked = server.outgoing.post(&to, &question, patience);
        let (answer, other) = tokio::join!(asked, server.outgoing.post(&calm, &question, SECOND));
        assert!(answer.is_err() && other.is_ok(), "{what}: {answer:?} {other:?}");
        let said = said.load(Ordering::Relaxed);
        // What is in the buffers between the two counts as well. Early hints are looked at and forgotten.
        assert!(
            said < 2 * MAX_ANSWER + (16 << 20) || what.starts_with("not yet"),
            "{what}: {said} bytes were listened to"
        );
    }
}

#[tokio::test]
async fn a_service_leads_to_a_ready_endpoint() {
    let server = server().await;
    let admin = crate::LocalApi::shared(server.clone(), crate::User::new("a", &[crate::user::MASTERS]), "tests");
    let create = async |group: &str, plural: &str, object: Value| {
        let target = canopus_api::Target::new(&canopus_api::Gvr::new(group, "v1", plural), "default", "");
        admin.create(&target, object, &Default::default()).await.unwrap()
    };
    let ports = value!([{"name": "web", "port": 443, "targetPort": 8443}]);
    create("", "services", value!({"metadata": {"name": "s"}, "spec": {"ports": ports}})).await;
    let resolve = |port| server.outgoing.services().resolve("default", "s", port);
    let cache = server.cache("", "v1", "services").unwrap();
    cache.reached(server.store.revision()).await.unwrap();
    assert_eq!(resolve(443).unwrap_err().message, r#"no endpoints available for service "s""#);
    assert_eq!(resolve(80).unwrap_err().message, r#"no service port 80 found for service "s""#);
    let last = create(
        "discovery.k8s.io",
        "endpointslices",
        value!({
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}],
            "ports": [{"name": "web", "port": 8443}],
        }),
    );
    let last = last.await.revision;
    server.cache("discovery.k8s.io", "v1", "endpointslices").unwrap().reached(last).await.unwrap();
    assert_eq!(resolve(443).unwrap(), resolve::Endpoint { host: "10.0.0.2".into(), port: 8443 });
}
