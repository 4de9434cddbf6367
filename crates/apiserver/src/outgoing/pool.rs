//! Connections to destinations, kept for the next call.

use super::destination::{Destination, Place};
use super::resolve::{Endpoint, Services};
use super::tls;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How many destinations are remembered (upstream's cache of webhook clients).
const DESTINATIONS: usize = 200;
/// How many idle connections of each.
const IDLE: usize = 16;
/// A connection that was idle for longer is not used again.
const IDLE_FOR: Duration = Duration::from_secs(90);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Sender = SendRequest<Full<Bytes>>;

#[derive(Default)]
pub struct Pool {
    known: Mutex<HashMap<Destination, Arc<Known>>>,
}

struct Known {
    tls: Option<Arc<ClientConfig>>,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

impl Known {
    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE_FOR);
        idle.pop().map(|(sender, _)| sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }
}

impl Pool {
    fn known(&self, to: &Destination) -> Result<Arc<Known>, String> {
        if let Some(known) = self.known.lock().get(to) {
            return Ok(known.clone());
        }
        // Certificates are parsed outside the lock; two at once do no harm.
        let tls = match to.is_https() {
            true => Some(Arc::new(tls::client_config(&to.trust, to.identity.as_deref())?)),
            false => None,
        };
        let known = Arc::new(Known { tls, idle: Mutex::default() });
        let mut all = self.known.lock();
        if all.len() >= DESTINATIONS {
            all.clear();
        }
        all.insert(to.clone(), known.clone());
        Ok(known)
    }

    /// One request and its whole answer, of `most` bytes at most.
    pub async fn exchange(
        &self,
        services: &Services,
        to: &Destination,
        mut request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, String> {
        let known = self.known(to)?;
        let host = HeaderValue::from_str(&to.authority()).map_err(|e| e.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        if let Some(authorization) = &to.authorization {
            let value = HeaderValue::from_str(authorization).map_err(|e| e.to_string())?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let mut request = request.map(Full::new);
        // The other side may have closed a kept connection just now: then the next one is tried.
        while let Some(mut sender) = known.take() {
            match sender.try_send_request(request).await {
                Ok(answer) => return read(answer, sender, &known, most).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(plain(error.error())),
                },
            }
        }
        let endpoint = locate(services, &to.place)?;
        let stream = connect(&endpoint, known.tls.as_ref(), &to.server_name()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| plain(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an outgoing connection ended");
            }
        });
        let answer = sender.send_request(request).await.map_err(|e| plain(&e))?;
        read(answer, sender, &known, most).await
    }
}

async fn read(
    answer: Response<hyper::body::Incoming>,
    mut sender: Sender,
    known: &Known,
    most: usize,
) -> Result<Response<Bytes>, String> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|e| format!("failed to read the answer: {e}"))?.to_bytes();
    if sender.ready().await.is_ok() {
        known.keep(sender);
    }
    Ok(Response::from_parts(parts, body))
}

fn locate(services: &Services, place: &Place) -> Result<Endpoint, String> {
    match place {
        Place::Url { host, port, .. } => Ok(Endpoint { host: host.clone(), port: *port }),
        Place::Service { namespace, name, port } => {
            services.resolve(namespace, name, *port).map_err(|status| status.message)
        }
    }
}

/// A connection, with TLS when there is a configuration for it.
pub async fn connect(to: &Endpoint, tls: Option<&Arc<ClientConfig>>, server_name: &str) -> Result<Box<dyn Io>, String> {
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(|e| dial(to, &e))?;
    let _ = stream.set_nodelay(true);
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(server_name.to_string()).map_err(|e| format!("{server_name:?}: {e}"))?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|e| tls::words(&e))?;
    Ok(Box::new(stream))
}

/// `dial tcp 127.0.0.1:1: connect: connection refused`.
fn dial(to: &Endpoint, error: &io::Error) -> String {
    let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ if error.raw_os_error().is_none() => return format!("dial tcp: lookup {}: no such host", to.host),
        _ => format!("connect: {error}"),
    };
    format!("dial tcp {host}:{}: {why}", to.port)
}

/// An error of the connection with its cause: hyper says what, its source says why.
fn plain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        _ if error.is_incomplete_message() || error.is_canceled() => "EOF".into(),
        Some(cause) => match cause.downcast_ref::<io::Error>() {
            Some(io) => tls::words(io),
            None => format!("{error}: {cause}"),
        },
        None => error.to_string(),
    }
}
