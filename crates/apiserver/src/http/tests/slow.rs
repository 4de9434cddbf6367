//! Clients that take their time to keep connections: they are closed, and those that ask for something are not.

use super::super::Peer;
use super::super::serve::{Patience, connection, talk};
use super::client_certificate;
use crate::pki;
use crate::server::Server;
use crate::surroundings::{Surroundings, System};
use crate::testing::server;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_millis(50);
const SHORT: Patience = Patience { handshake: SOON, headers: SOON, idle: SOON };

fn connect(server: &Arc<Server>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    let peer = Peer { certificates: vec![client_certificate("admin", "system:masters")], address: None };
    tokio::spawn(async move { talk(server, Arc::new(peer), far, CancellationToken::new(), SHORT).await });
    near
}

/// Says something, then a bit more now and again; answers when the server has closed the connection.
async fn dribble(mut stream: DuplexStream, first: Vec<u8>, more: &'static [u8]) {
    stream.write_all(&first).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        while write.write_all(more).await.is_ok() {
            tokio::time::sleep(SOON / 5).await;
        }
    });
    let mut rest = Vec::new();
    // A connection that is reset is closed as well.
    let _ = read.read_to_end(&mut rest).await;
    writing.abort();
}

#[tokio::test]
async fn nothing_is_waited_for_for_ever() {
    let server = server().await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    // HEADERS of stream 1 without END_HEADERS, then CONTINUATIONs that never end them.
    let headers = [PREFACE, b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"].concat();
    const CONTINUATION: &[u8] = b"\x00\x00\x01\x09\x00\x00\x00\x00\x01\x84";
    const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";
    for (what, first, more) in [
        ("says nothing", &b""[..], &b""[..]),
        ("cannot decide between versions", b"PRI", b""),
        ("headers that never end", b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"),
        ("no request in HTTP/2", PREFACE, b""),
        ("only pings in HTTP/2", PREFACE, PING),
        ("headers that never end in HTTP/2", &headers, CONTINUATION),
    ] {
        let slow = tokio::spawn(tokio::time::timeout(
            Duration::from_secs(30),
            dribble(connect(&server), first.to_vec(), more),
        ));
        let other = super::Client::of(server.clone(), "admin", "system:masters").await.get("/livez").await;
        assert_eq!(other.code, 200, "{what}: others are served");
        assert!(slow.await.unwrap().is_ok(), "{what}");
    }
}

#[tokio::test]
async fn handshakes_end() {
    let (server, dir) = (server().await, tempfile::tempdir().unwrap());
    let own = pki::Pki::open(dir.path(), System.now()).unwrap();
    let tls = pki::server_config(&own.api_server(&[], &[]).unwrap(), own.ca_pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    // The beginning of a handshake, and no more.
    client.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let served = connection(server, tls.into(), stream, CancellationToken::new(), SHORT);
    let ended = tokio::time::timeout(Duration::from_secs(30), served).await;
    assert!(ended.expect("it ends").is_err());
}

async fn http2(stream: DuplexStream) -> SendRequest<Bytes> {
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

#[tokio::test]
async fn who_asks_for_something_stays() {
    let server = server().await;
    let mut requests = http2(connect(&server)).await;
    let request = Request::get("https://x/api/v1/namespaces/default/configmaps?watch=1").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let mut watch = answer.await.unwrap().into_body();
    let nothing = tokio::time::timeout(SOON * 6, watch.data()).await;
    assert!(nothing.is_err(), "a watch without events goes on: {nothing:?}");
    // When it is over, so is the connection.
    drop(watch);
    let closed = async {
        while requests.clone().ready().await.is_ok() {
            tokio::time::sleep(SOON / 5).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), closed).await.is_ok());
}
