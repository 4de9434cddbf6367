//! Calls of gRPC without TLS: one question, one answer.
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>)

use crate::authn::request_header::unescape;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

type Sender = SendRequest<Full<Bytes>>;

/// Between two attempts to reach a server that is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Codes of gRPC, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Why there is no answer, in the words of gRPC's own clients.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct Fault {
    pub code: &'static str,
    pub message: String,
}

impl Fault {
    fn unavailable(why: impl Display) -> Fault {
        Fault { code: "Unavailable", message: why.to_string() }
    }

    fn internal(why: impl Display) -> Fault {
        Fault { code: "Internal", message: why.to_string() }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// `host:port`
    Tcp(String),
    /// A socket's path; one in the abstract name space begins with a zero byte.
    Unix(PathBuf),
}

/// A server, and the connection to it: opened when it is needed, and again after it broke.
pub struct Channel {
    place: Place,
    /// Whether calls wait for a server that cannot be reached yet.
    wait: bool,
    connection: Mutex<Option<Sender>>,
}

impl Channel {
    pub fn new(place: Place) -> Channel {
        Channel { place, wait: false, connection: Mutex::default() }
    }

    /// One whose calls wait for the server, for as long as they have time (gRPC's "wait for ready").
    pub fn waiting(place: Place) -> Channel {
        Channel { wait: true, ..Channel::new(place) }
    }

    /// Asks, and answers the message that comes back, which has `most` bytes at most.
    pub async fn call(&self, path: &str, message: &[u8], most: usize, patience: Duration) -> Result<Bytes, Fault> {
        let deadline = Instant::now() + patience;
        let sender = self.sender(deadline).await?;
        let late = |_| Fault { code: "DeadlineExceeded", message: "context deadline exceeded".into() };
        let answer = tokio::time::timeout_at(deadline, self.exchange(sender, path, message, most)).await;
        let answer = answer.map_err(late).and_then(|answer| answer);
        // What the server says is no reason to leave it.
        if answer.as_ref().is_err_and(|fault| matches!(fault.code, "Unavailable" | "DeadlineExceeded" | "Internal")) {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn sender(&self, deadline: Instant) -> Result<Sender, Fault> {
        loop {
            let fault = match tokio::time::timeout_at(deadline, self.connection()).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::unavailable("connecting took too long"),
            };
            if !self.wait {
                return Err(fault);
            }
            if Instant::now() + PAUSE >= deadline {
                let message = format!("context deadline exceeded: {}", fault.message);
                return Err(Fault { code: "DeadlineExceeded", message });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn connection(&self) -> Result<Sender, Fault> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let failed = |place: &dyn Display, error: std::io::Error| {
            Fault::unavailable(format_args!("connection error: desc = \"error while dialing {place}: {error}\""))
        };
        let sender = match &self.place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await.map_err(|e| failed(address, e))?;
                shake(stream).await?
            }
            Place::Unix(path) => {
                shake(UnixStream::connect(path).await.map_err(|e| failed(&path.display(), e))?).await?
            }
        };
        *connection = Some(sender.clone());
        Ok(sender)
    }

    async fn exchange(&self, mut sender: Sender, path: &str, message: &[u8], most: usize) -> Result<Bytes, Fault> {
        let authority = match &self.place {
            Place::Tcp(address) => address,
            Place::Unix(_) => "localhost",
        };
        let uri: Uri = format!("http://{authority}{path}").parse().map_err(Fault::internal)?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).map_err(Fault::internal)?);
        frame.put_slice(message);
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .map_err(Fault::internal)?;
        let answer = sender.send_request(request).await.map_err(Fault::unavailable)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, most + 5).collect().await.map_err(Fault::unavailable)?;
        // One that has nothing else to say says it at once.
        match status(&head.headers).or_else(|| body.trailers().and_then(status)) {
            Some(Ok(())) => content(body.to_bytes()),
            Some(Err(fault)) => Err(fault),
            None => Err(Fault { code: "Unknown", message: format!("unexpected HTTP status {}", head.status) }),
        }
    }
}

async fn shake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, Fault> {
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(Fault::unavailable)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of gRPC ended");
        }
    });
    Ok(sender)
}

/// What headers or trailers say about the outcome.
fn status(headers: &HeaderMap) -> Option<Result<(), Fault>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let number = text("grpc-status")?;
    if number == "0" {
        return Some(Ok(()));
    }
    let code = number.parse().ok().and_then(|n: usize| CODES.get(n)).copied().unwrap_or("Unknown");
    Some(Err(Fault { code, message: unescape(text("grpc-message").unwrap_or_default()) }))
}

/// The message in a body that holds one.
fn content(mut body: Bytes) -> Result<Bytes, Fault> {
    match body.split_first_chunk::<5>() {
        // Nothing at all is an empty message to those who ignore the answer.
        None if body.is_empty() => Ok(body),
        Some(([0, a, b, c, d], rest)) if u32::from_be_bytes([*a, *b, *c, *d]) as usize == rest.len() => {
            Ok(body.split_off(5))
        }
        _ => Err(Fault::internal("the answer is compressed or cut short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            status(&pairs.collect::<HeaderMap>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("grpc-status", "0")]), Some(Ok(())));
        let told = of(&[("grpc-status", "7"), ("grpc-message", "no%2C%20never")]).unwrap().unwrap_err();
        assert_eq!(told.to_string(), "rpc error: code = PermissionDenied desc = no, never");
        assert_eq!(of(&[("grpc-status", "99")]).unwrap().unwrap_err().code, "Unknown");
        for (body, message) in [
            (&b""[..], Ok(&b""[..])),
            (b"\0\0\0\0\x02ab", Ok(b"ab")),
            (b"\0\0\0\0\x03ab", Err(())),
            (b"\x01\0\0\0\x02ab", Err(())),
            (b"\0\0", Err(())),
        ] {
            assert_eq!(
                content(body.into()).map_err(drop).as_deref(),
                message.as_ref().map(|m| &m[..]).map_err(|()| &())
            );
        }
    }
}
