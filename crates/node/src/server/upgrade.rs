//! Agreeing on how to go on: WebSocket, or SPDY/3.1 for clients of before (upstream `httpstream`, `wsstream`).

use std::sync::Arc;

use bytes::Bytes;
use canopus_api::Status;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Body, Context, full};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL_VERSION: &str = "X-Stream-Protocol-Version";

/// No message is longer (that of Go's WebSockets): clients put a whole archive into one.
const MAX_MESSAGE: usize = 32 << 20;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What the two have to speak on from now on.
pub(super) enum Transport {
    WebSocket(Box<Socket>),
    Spdy(TokioIo<Upgraded>),
}

/// The protocols that are spoken. Of a client's the first that is there is taken.
pub(super) struct Protocols {
    /// "" stands for a client that names none.
    pub websocket: &'static [&'static str],
    pub spdy: &'static [&'static str],
}

/// A client that may go on in a protocol of ours.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub protocol: &'static str,
    /// Of the WebSocket; SPDY has none.
    key: Option<String>,
    on: OnUpgrade,
}

impl Upgrade {
    pub(super) fn of(request: &mut Request<Incoming>, protocols: &Protocols) -> Result<Upgrade, Status> {
        let (key, protocol) = agree(request.headers(), protocols)?;
        Ok(Upgrade { protocol, key, on: hyper::upgrade::on(request) })
    }

    /// Agrees, and lets them speak for as long as the agent runs.
    pub(super) fn answer<F>(
        self,
        context: &Arc<Context>,
        speak: impl FnOnce(Transport) -> F + Send + 'static,
    ) -> Result<Response<Body>, Status>
    where
        F: Future<Output = ()> + Send,
    {
        let Upgrade { protocol, key, on } = self;
        let mut response =
            Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
        response = match &key {
            Some(key) => response
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
            None => response.header(header::UPGRADE, SPDY).header(PROTOCOL_VERSION, protocol),
        };
        if key.is_some() && !protocol.is_empty() {
            response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let shutdown = context.shutdown.clone();
        tokio::spawn(async move {
            let session = async {
                let io = match on.await {
                    Ok(upgraded) => TokioIo::new(upgraded),
                    Err(error) => return tracing::debug!(%error, "a connection was not upgraded"),
                };
                let transport = match key {
                    Some(_) => {
                        let limits = WebSocketConfig::default();
                        let limits = limits.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
                        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
                        Transport::WebSocket(Box::new(socket))
                    }
                    None => Transport::Spdy(io),
                };
                speak(transport).await;
            };
            tokio::select! {
                () = session => {}
                () = shutdown.cancelled() => {}
            }
        });
        response.body(full(Bytes::new())).map_err(Status::internal)
    }
}

/// The key of the client's WebSocket, and the protocol to speak.
fn agree(headers: &HeaderMap, protocols: &Protocols) -> Result<(Option<String>, &'static str), Status> {
    let get = |name: &str| {
        let all = headers.get_all(name);
        all.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    let offers = |name: &str| -> Vec<String> {
        get(name).split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
    };
    let chosen = |offers: &[String], ours: &[&'static str]| -> Option<&'static str> {
        offers.iter().find_map(|offer| ours.iter().find(|p| *p == offer).copied())
    };
    match get("upgrade") {
        upgrade if upgrade.eq_ignore_ascii_case("websocket") => {
            let offers = offers("sec-websocket-protocol");
            let unnamed = protocols.websocket.iter().find(|p| p.is_empty()).filter(|_| offers.is_empty()).copied();
            let protocol = chosen(&offers, protocols.websocket).or(unnamed);
            let protocol =
                protocol.ok_or_else(|| Status::bad_request(format!("unable to negotiate protocol: {offers:?}")))?;
            match get("sec-websocket-key") {
                key if key.is_empty() => Err(Status::bad_request("the Sec-WebSocket-Key header is missing")),
                key => Ok((Some(key), protocol)),
            }
        }
        upgrade if upgrade.eq_ignore_ascii_case(SPDY) => {
            let offers = offers(PROTOCOL_VERSION);
            if offers.is_empty() {
                let count = headers.len();
                let why = format!("header {PROTOCOL_VERSION} does not exist in request with {count} headers");
                return Err(Status::bad_request(format!("unable to upgrade: {why}")));
            }
            let protocol = chosen(&offers, protocols.spdy).ok_or_else(|| {
                let (theirs, ours) = (offers.join(" "), protocols.spdy.join(" "));
                let why = format!("unable to negotiate protocol: client supports [{theirs}], server accepts [{ours}]");
                Status::new(403, "Forbidden", format!("unable to upgrade: {why}"))
            })?;
            Ok((None, protocol))
        }
        _ => Err(Status::bad_request("unable to upgrade: missing upgrade headers in request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Protocols = Protocols { websocket: &["v2", "v1", ""], spdy: &["v2", "v1"] };

    fn ask(pairs: &[(&'static str, &str)]) -> Result<(Option<String>, &'static str), u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        agree(&headers, &OURS).map_err(|status| status.code)
    }

    #[test]
    fn who_is_understood() {
        let socket = |protocols: &str| {
            let all = [("upgrade", "websocket"), ("sec-websocket-key", "k"), ("sec-websocket-protocol", protocols)];
            ask(&all[..if protocols.is_empty() { 2 } else { 3 }])
        };
        let key = || Some("k".to_owned());
        assert_eq!(socket("v3, v1, v2"), Ok((key(), "v1")));
        assert_eq!(socket(""), Ok((key(), "")));
        assert_eq!(socket("v3"), Err(400));
        assert_eq!(ask(&[("upgrade", "websocket")]), Err(400));
        let spdy = |protocols: &str| ask(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocols)]);
        assert_eq!(spdy("v3, v1, v2"), Ok((None, "v1")));
        assert_eq!(spdy("v3"), Err(403));
        assert_eq!(spdy(""), Err(400));
        assert_eq!(ask(&[("upgrade", "h2c")]), Err(400));
        assert_eq!(ask(&[]), Err(400));
    }
}
