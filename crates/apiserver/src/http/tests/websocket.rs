//! Watches over a WebSocket.

use super::*;
use futures::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

const PATH: &str = "/api/v1/namespaces/default/configmaps?watch=true";

/// A connection on which a WebSocket was asked for.
async fn open(
    server: &Arc<Server>,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<tokio::io::DuplexStream>, tungstenite::Error> {
    let peer = Peer { certificates: vec![client_certificate("admin", "system:masters")], address: None };
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    tokio::spawn(async move { talk(server, Arc::new(peer), far, CancellationToken::new(), Patience::default()).await });
    let mut request = Request::builder()
        .uri(format!("ws://test{path}"))
        .header("host", "test")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (socket, _) = tokio_tungstenite::client_async(request.body(()).unwrap(), near).await?;
    Ok(socket)
}

#[tokio::test]
async fn each_event_is_a_message() {
    let mut admin = Client::new("admin", "system:masters").await;
    let server = admin.server.clone();
    let mut json = open(&server, PATH, &[("sec-websocket-protocol", "base64.binary.k8s.io")]).await.unwrap();
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    let mut protobuf = open(&server, &format!("{PATH}&timeoutSeconds=1"), &protobuf).await.unwrap();
    for name in ["a", "b"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        let json = [("content-type", "application/json")];
        assert_eq!(admin.send("POST", "/api/v1/namespaces/default/configmaps", &json, body).await.code, 201);
    }
    let mut seen = Vec::new();
    while !seen.contains(&"b".to_string()) {
        let Some(Ok(Message::Text(text))) = json.next().await else { panic!("a text") };
        let event = json::parse(text.as_bytes()).unwrap();
        assert_eq!(event["type"].str(), "ADDED");
        seen.push(event["object"]["metadata"]["name"].str().to_string());
    }
    assert!(seen.contains(&"a".to_string()));
    // Its time is over soon, and it says so.
    let mut messages = Vec::new();
    while let Some(Ok(message)) = protobuf.next().await {
        messages.push(message);
    }
    let Some(Message::Close(Some(farewell))) = messages.pop() else { panic!("a farewell") };
    assert_eq!(u16::from(farewell.code), 1000);
    assert!(messages.len() >= 2);
    for message in messages {
        let Message::Binary(message) = message else { panic!("bytes") };
        assert!(message.starts_with(b"\n\x05ADDED\x12"), "{message:?}");
    }
}

#[tokio::test]
async fn refusals() {
    let server = Client::new("admin", "system:masters").await.server;
    for (path, headers, code) in [
        ("/api/v1/nothings?watch=true", &[][..], 404),
        (PATH, &[("sec-websocket-protocol", "a, b")], 400),
        ("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=x", &[], 400),
    ] {
        match open(&server, path, headers).await.map(drop).unwrap_err() {
            tungstenite::Error::Http(answer) => assert_eq!(answer.status(), code, "{path}"),
            other => panic!("{path}: {other}"),
        }
    }
}
