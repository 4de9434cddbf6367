//! A body over a WebSocket (upstream `wsstream.Reader`): each piece is a message, in bytes (`binary.k8s.io`, also for who
//! names no protocol) or in base64 (`base64.binary.k8s.io`). Of a watch each event is a message, whatever the protocol.

use super::{Body, empty};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use canopus_api::{Result, Status};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

const BASE64: &str = "base64.binary.k8s.io";
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];

/// Whoever only listens has little to say.
const MAX_SAID: usize = 64 << 10;

/// What becomes of a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum As {
    Binary,
    Base64,
    /// It is text already.
    Text,
    /// Bytes without the four that tell their length.
    Unframed,
}

/// A client that asked for a WebSocket, and what it wants to speak on it.
pub(super) struct Socket {
    upgrade: OnUpgrade,
    key: String,
    protocol: Option<String>,
}

impl Socket {
    /// Takes the wish for a WebSocket out of the request, which then is an ordinary one. None when it had none.
    pub(super) fn take(request: &mut Request<Incoming>) -> Result<Option<Socket>> {
        let Some((key, offered)) = handshake(request.headers())? else { return Ok(None) };
        let protocol = PROTOCOLS.into_iter().find(|known| offered.iter().any(|offer| offer == known));
        if protocol.is_none() && !offered.is_empty() {
            return Err(Status::bad_request(format!("unable to negotiate protocol: {:?}", offered.join(","))));
        }
        Ok(Some(Socket::of(request, key, protocol.map(String::from))))
    }

    /// The same for one who may call the protocol what he likes.
    pub(super) fn take_any(request: &mut Request<Incoming>) -> Result<Option<Socket>> {
        match handshake(request.headers())? {
            None => Ok(None),
            Some((_, offered)) if offered.len() > 1 => Err(Status::bad_request("bad protocol")),
            Some((key, offered)) => Ok(Some(Socket::of(request, key, offered.into_iter().next()))),
        }
    }

    fn of(request: &mut Request<Incoming>, key: String, protocol: Option<String>) -> Socket {
        let upgrade = hyper::upgrade::on(&mut *request);
        for name in [header::CONNECTION, header::UPGRADE] {
            request.headers_mut().remove(name);
        }
        Socket { upgrade, key, protocol }
    }

    /// What the protocol says.
    pub(super) fn way(&self) -> As {
        if self.protocol.as_deref() == Some(BASE64) { As::Base64 } else { As::Binary }
    }

    /// Sends the body over the socket, once the client has it.
    pub(super) fn copy(self, body: Body, way: As) -> Result<Response<Body>> {
        let mut response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(self.key.as_bytes()));
        if let Some(protocol) = self.protocol {
            response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        tokio::spawn(async move {
            match self.upgrade.await {
                Ok(upgraded) => pump(upgraded, body, way).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        response.body(empty()).map_err(Status::internal)
    }
}

/// The key, and the protocols that are offered.
fn handshake(headers: &HeaderMap) -> Result<Option<(String, Vec<String>)>> {
    let get = |name: header::HeaderName| {
        let all = headers.get_all(name);
        all.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    if !get(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Ok(None);
    }
    let offered = get(header::SEC_WEBSOCKET_PROTOCOL);
    let offers = offered.split(',').map(str::trim).filter(|offer| !offer.is_empty()).map(String::from).collect();
    match get(header::SEC_WEBSOCKET_KEY) {
        key if key.is_empty() => Err(Status::bad_request("the Sec-WebSocket-Key header is missing")),
        key => Ok(Some((key, offers))),
    }
}

async fn pump(upgraded: Upgraded, body: Body, way: As) {
    let limits = WebSocketConfig::default().max_message_size(Some(MAX_SAID)).max_frame_size(Some(MAX_SAID));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
    let (mut sink, mut incoming) = socket.split();
    let mut frames = BodyStream::new(body);
    loop {
        tokio::select! {
            frame = frames.next() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                let Some(message) = message(data, way) else { break };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            // Nothing is expected but a farewell.
            said = incoming.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // The client may be gone already.
    let _ = sink.send(Message::Close(Some(normal))).await;
}

fn message(mut data: Bytes, way: As) -> Option<Message> {
    Some(match way {
        As::Binary => Message::Binary(data),
        As::Base64 => Message::Text(STANDARD.encode(&data).into()),
        As::Text => Message::Text(data.try_into().ok()?),
        As::Unframed => Message::Binary(data.split_off(data.len().min(4))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        let ask = |protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, "websocket".parse().unwrap());
            headers.insert(header::SEC_WEBSOCKET_KEY, "key".parse().unwrap());
            if !protocols.is_empty() {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
            }
            handshake(&headers).map(|found| found.unwrap().1.join(" ")).map_err(|e| e.code)
        };
        assert_eq!(ask(""), Ok(String::new()));
        assert_eq!(ask("x, base64.binary.k8s.io"), Ok("x base64.binary.k8s.io".into()));
        assert_eq!(handshake(&HeaderMap::new()), Ok(None));
        let mut keyless = HeaderMap::new();
        keyless.insert(header::UPGRADE, "websocket".parse().unwrap());
        assert_eq!(handshake(&keyless).map_err(|e| e.code), Err(400));
    }

    #[test]
    fn messages() {
        for (way, expected) in [
            (As::Binary, Message::Binary(Bytes::from_static(b"abcdef"))),
            (As::Base64, Message::Text("YWJjZGVm".into())),
            (As::Text, Message::Text("abcdef".into())),
            (As::Unframed, Message::Binary(Bytes::from_static(b"ef"))),
        ] {
            assert_eq!(message(Bytes::from_static(b"abcdef"), way), Some(expected));
        }
    }
}
