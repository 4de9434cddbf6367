//! A body over a WebSocket (upstream `wsstream.Reader`): each piece is a message, in bytes (`binary.k8s.io`, also for who
//! names no protocol) or in base64 (`base64.binary.k8s.io`).

use super::{Body, empty};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

const BASE64: &str = "base64.binary.k8s.io";
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];

/// A client that asked for a WebSocket, and what it wants to speak on it.
pub(super) struct Socket {
    upgrade: OnUpgrade,
    key: String,
    protocol: Option<&'static str>,
}

impl Socket {
    /// Takes the wish for a WebSocket out of the request, which then is an ordinary one. None when it had none.
    pub(super) fn take(request: &mut Request<Incoming>) -> Result<Option<Socket>> {
        let Some((key, protocol)) = handshake(request.headers())? else { return Ok(None) };
        let upgrade = hyper::upgrade::on(&mut *request);
        for name in [header::CONNECTION, header::UPGRADE] {
            request.headers_mut().remove(name);
        }
        Ok(Some(Socket { upgrade, key, protocol }))
    }

    /// Sends the body over the socket, once the client has it.
    pub(super) fn copy(self, body: Body) -> Result<Response<Body>> {
        let base64 = self.protocol == Some(BASE64);
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
                Ok(upgraded) => pump(upgraded, body, base64).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        response.body(empty()).map_err(Status::internal)
    }
}

fn handshake(headers: &HeaderMap) -> Result<Option<(String, Option<&'static str>)>> {
    let get = |name: header::HeaderName| {
        let all = headers.get_all(name);
        all.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    if !get(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Ok(None);
    }
    let offered = get(header::SEC_WEBSOCKET_PROTOCOL);
    let offers: Vec<&str> = offered.split(',').map(str::trim).collect();
    let protocol = PROTOCOLS.into_iter().find(|p| offers.contains(p));
    if protocol.is_none() && !offered.is_empty() {
        return Err(Status::bad_request(format!("unable to negotiate protocol: {offered:?}")));
    }
    match get(header::SEC_WEBSOCKET_KEY) {
        key if key.is_empty() => Err(Status::bad_request("the Sec-WebSocket-Key header is missing")),
        key => Ok(Some((key, protocol))),
    }
}

async fn pump(upgraded: Upgraded, body: Body, base64: bool) {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (mut sink, mut incoming) = socket.split();
    let mut frames = BodyStream::new(body);
    loop {
        tokio::select! {
            frame = frames.next() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                let message = if base64 { Message::Text(STANDARD.encode(&data).into()) } else { Message::Binary(data) };
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
            handshake(&headers).map(|found| found.unwrap().1).map_err(|e| e.code)
        };
        assert_eq!(ask(""), Ok(None));
        assert_eq!(ask("x, base64.binary.k8s.io"), Ok(Some(BASE64)));
        assert_eq!(ask("x"), Err(400));
        assert_eq!(handshake(&HeaderMap::new()), Ok(None));
    }
}
