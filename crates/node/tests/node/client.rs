//! What the API server asks of a node: logs and exec over TLS.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn connect(tls: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let mut tries = 0;
    let stream = loop {
        tries += 1;
        match TcpStream::connect("127.0.0.1:10250").await {
            Ok(stream) => break stream,
            Err(error) if tries > 100 => panic!("the node's server: {error}"),
            // The agent is just starting.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let name = ServerName::try_from("node").expect("name");
    TlsConnector::from(tls.clone()).connect(name, stream).await.expect("TLS")
}

/// The whole answer to a GET, headers included.
pub async fn get(tls: &Arc<ClientConfig>, path: &str) -> String {
    get_as(tls, path, "").await
}

/// The same with further headers, each with its line end.
pub async fn get_as(tls: &Arc<ClientConfig>, path: &str, headers: &str) -> String {
    let mut stream = connect(tls).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("request");
    let mut answer = Vec::new();
    // The server may close without saying goodbye to TLS.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Runs a command on a terminal of 100 columns and 30 lines, ended by typing `input`; what it showed.
pub async fn terminal(tls: &Arc<ClientConfig>, path: &str, input: &[u8]) -> String {
    let mut request = format!("ws://node{path}").into_client_request().expect("request");
    let protocol = http::HeaderValue::from_static("v5.channel.k8s.io");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let (mut socket, _) = client_async(request, connect(tls).await).await.expect("upgrade");
    let size = [&[4][..], br#"{"Width":100,"Height":30}"#].concat();
    for message in [size, [&[0][..], input].concat()] {
        socket.send(Message::Binary(message.into())).await.expect("input");
    }
    let mut shown = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) if bytes.first() == Some(&1) => shown.extend_from_slice(&bytes[1..]),
            _ => {}
        }
    }
    String::from_utf8_lossy(&shown).into_owned()
}

/// Runs a command with `input` and returns output, errors and the status.
pub async fn exec(tls: &Arc<ClientConfig>, path: &str, input: Option<&[u8]>) -> [String; 3] {
    let mut request = format!("ws://node{path}").into_client_request().expect("request");
    let protocol = http::HeaderValue::from_static("v5.channel.k8s.io");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let (mut socket, _) = client_async(request, connect(tls).await).await.expect("upgrade");
    if let Some(input) = input {
        for part in input.chunks(1 << 20) {
            let message = [&[0], part].concat();
            socket.send(Message::Binary(message.into())).await.expect("input");
        }
        socket.send(Message::Binary(vec![255, 0].into())).await.expect("end of input");
    }
    let mut channels: [Vec<u8>; 3] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message
            && let Some(channel) = bytes.first().and_then(|c| channels.get_mut(usize::from(*c).wrapping_sub(1)))
        {
            channel.extend_from_slice(&bytes[1..]);
        }
    }
    channels.map(|c| String::from_utf8_lossy(&c).into_owned())
}
