//! gRPC over one HTTP/2 connection.
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>)

use super::tls::{Endpoint, Tls};
use super::wire::Malformed;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Uri};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What one message may weigh: upstream's clients take 2 GB.
const MAX_MESSAGE: usize = 512 << 20;
/// What may be under way before we have read it.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Upstream's keepalive: a ping after so long, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// gRPC's status codes.
pub(super) mod code {
    pub(in crate::etcd) const UNKNOWN: u32 = 2;
    pub(in crate::etcd) const DEADLINE_EXCEEDED: u32 = 4;
    pub(in crate::etcd) const UNAVAILABLE: u32 = 14;
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    /// There is no connection, so nothing was asked.
    #[error("{0}")]
    NotSent(Arc<str>),
    /// The connection broke, or nothing came in time: whether it was done is unknown.
    #[error("{0}")]
    Broken(Arc<str>),
    /// etcd says no.
    #[error("{message}")]
    Status { code: u32, message: Arc<str> },
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Fault {
        Fault::Broken(error.to_string().into())
    }
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Broken(error.to_string().into())
}

fn not_sent(error: impl std::fmt::Display) -> Fault {
    Fault::NotSent(error.to_string().into())
}

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Channel {
    send: SendRequest<Bytes>,
    base: Arc<str>,
}

impl Channel {
    pub(super) async fn connect(endpoint: &Endpoint, tls: &Tls) -> Result<Channel, Fault> {
        let connecting = async {
            let stream = TcpStream::connect(&*endpoint.address).await.map_err(not_sent)?;
            stream.set_nodelay(true).map_err(not_sent)?;
            let base: Arc<str> = endpoint.base().into();
            match endpoint.server_name() {
                None => Channel::over(stream, base).await,
                Some(name) => Channel::over(tls.connect(name, stream).await.map_err(not_sent)?, base).await,
            }
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(not_sent("connecting took too long")),
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        base: Arc<str>,
    ) -> Result<Channel, Fault> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (send, mut connection) = builder.handshake::<_, Bytes>(stream).await.map_err(not_sent)?;
        let pings = connection.ping_pong();
        // Ends when the last channel and its streams are gone, or when the peer doesn't answer.
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to etcd ended");
                    }
                }
                () = keep_alive(pings) => tracing::warn!("etcd doesn't answer: connection dropped"),
            }
        });
        Ok(Channel { send, base })
    }

    /// Opens a stream and sends one message; `last` if there will be no more of them.
    async fn open(&self, path: &str, message: &[u8], last: bool) -> Result<(Messages, SendStream<Bytes>), Fault> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(not_sent)?;
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member that has lost its cluster says so rather than keep a watch waiting.
            .header("hasleader", "true")
            .body(())
            .map_err(not_sent)?;
        let mut ready = self.send.clone().ready().await.map_err(not_sent)?;
        let (response, mut stream) = ready.send_request(request, false).map_err(not_sent)?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).map_err(not_sent)?);
        frame.put_slice(message);
        stream.send_data(frame.freeze(), last).map_err(broken)?;
        let (head, body) = response.await.map_err(broken)?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(broken(format_args!("HTTP status {}", head.status)));
        }
        check(&head.headers)?;
        Ok((Messages { body, buffer: BytesMut::new() }, stream))
    }

    /// One question, one answer.
    pub(super) async fn unary(&self, path: &str, message: &[u8]) -> Result<Bytes, Fault> {
        let (mut messages, _) = self.open(path, message, true).await?;
        let answer = messages.next().await?;
        // The status comes after the message.
        match messages.next().await? {
            Some(_) => Err(broken("two answers to one question")),
            None => answer.ok_or_else(|| broken("no answer")),
        }
    }

    /// One question, many answers, for as long as the stream is kept.
    pub(super) async fn stream(&self, path: &str, message: &[u8]) -> Result<Stream, Fault> {
        let (messages, question) = self.open(path, message, false).await?;
        Ok(Stream { messages, _question: question })
    }
}

async fn keep_alive(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if !matches!(tokio::time::timeout(PING_TIMEOUT, pings.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// An open stream of answers.
pub(super) struct Stream {
    messages: Messages,
    /// Dropping it would end the stream.
    _question: SendStream<Bytes>,
}

impl Stream {
    /// The next answer; an error when there are no more. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, Fault> {
        self.messages.next().await?.ok_or_else(|| broken("the stream ended"))
    }
}

struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    /// The next message; None, once, when all went well.
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data.map_err(broken)?;
                    self.body.flow_control().release_capacity(data.len()).map_err(broken)?;
                    self.buffer.extend_from_slice(&data);
                }
                None if !self.buffer.is_empty() => return Err(broken("a message was cut short")),
                None => {
                    let trailers = self.body.trailers().await.map_err(broken)?;
                    return check(&trailers.unwrap_or_default()).map(|()| None);
                }
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > MAX_MESSAGE {
            return Err(broken("a message that is compressed or too large"));
        }
        if rest.len() < length {
            self.buffer.reserve(length - rest.len());
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The status in headers or trailers; none is no error.
fn check(headers: &HeaderMap) -> Result<(), Fault> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => {
            let message = text("grpc-message").unwrap_or("no reason given").into();
            Err(Fault::Status { code: status.parse().unwrap_or(code::UNKNOWN), message })
        }
    }
}
