//! One try of a probe: a command, a request, a connection. Failures are told in upstream's words.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopus_api::Value;
use canopus_runtime::ExecSession;
use canopus_runtime::spec::ExecSpec;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

use crate::node::Node;

const USER_AGENT: &str = "kube-probe/1.36";
/// Redirects that are followed; only those to the same host are.
const MAX_REDIRECTS: usize = 10;

/// The container that is probed, and how long a try may take.
pub(super) struct Action<'a> {
    pub node: &'a Arc<Node>,
    pub container: &'a Value,
    pub id: &'a str,
    pub ip: Option<IpAddr>,
    pub limit: Duration,
}

impl Action<'_> {
    pub(super) async fn run(&self, probe: &Value) -> Result<(), String> {
        if !probe["exec"].is_null() {
            return self.exec(&probe["exec"]["command"]).await;
        }
        if !probe["httpGet"].is_null() {
            return self.http(&probe["httpGet"]).await;
        }
        if !probe["tcpSocket"].is_null() {
            let (host, port) = self.address(&probe["tcpSocket"])?;
            let connected = tokio::time::timeout(self.limit, connect(&host, port)).await;
            return connected.map_err(|_| format!("dial tcp {}: i/o timeout", join(&host, port)))?.map(|_| ());
        }
        if !probe["grpc"].is_null() {
            return self.grpc(&probe["grpc"]).await;
        }
        Err("missing probe handler".to_owned())
    }

    fn address(&self, action: &Value) -> Result<(String, u16), String> {
        let host = match action["host"].str() {
            "" => self.ip.map(|ip| ip.to_string()).ok_or("the pod has no address")?,
            host => host.to_owned(),
        };
        let port = match action["port"].as_i64() {
            Some(number) => number,
            None => {
                let ports = self.container["ports"].items().iter();
                let named = ports.clone().find(|p| p["name"].str() == action["port"].str());
                let named = named.map(|p| p["containerPort"].int());
                named.or_else(|| action["port"].str().parse().ok()).unwrap_or(0)
            }
        };
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(format!("invalid port number: {port}")),
        }
    }

    async fn exec(&self, command: &Value) -> Result<(), String> {
        let args = command.items().iter().map(|a| a.str().to_owned()).collect();
        let (id, spec) = (self.id.to_owned(), ExecSpec { args, stdout: true, stderr: true, ..ExecSpec::default() });
        let work = async {
            let session = self.node.blocking(move |node| node.runtime.exec(&id, &spec)).await;
            let mut session = session.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
            let (code, out, err) = tokio::join!(exit_code(session), read_some(stdout), read_some(stderr));
            match code.map_err(|e| e.to_string())? {
                0 => Ok(()),
                _ => Err(out + &err),
            }
        };
        // Dropping the session kills the command.
        tokio::time::timeout(self.limit, work).await.unwrap_or_else(|_| {
            let words: Vec<&str> = command.items().iter().map(Value::str).collect();
            Err(format!("command timed out: {:?} timed out after {}s", words.join(" "), self.limit.as_secs()))
        })
    }

    async fn http(&self, action: &Value) -> Result<(), String> {
        let (host, port) = self.address(action)?;
        let mut path = match action["path"].str() {
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let scheme = if action["scheme"].str() == "HTTPS" { "https" } else { "http" };
        let url = |path: &str| format!("{scheme}://{}{path}", join(&host, port));
        let first = url(&path);
        let work = async {
            for _ in 0..MAX_REDIRECTS {
                let failed = |e: String| format!("Get {:?}: {e}", url(&path));
                let request = request(action, &host, port, &path).map_err(failed)?;
                let stream = connect(&host, port).await.map_err(failed)?;
                let answer = match scheme {
                    "https" => exchange(crate::tls::unverified(stream, &host).await.map_err(failed)?, request).await,
                    _ => exchange(stream, request).await,
                };
                let answer = answer.map_err(failed)?;
                match (answer.status().as_u16(), local_redirect(&answer, &url(""))) {
                    (300..400, Some(next)) => path = next,
                    (200..400, _) => return Ok(()),
                    (code, _) => return Err(format!("HTTP probe failed with statuscode: {code}")),
                }
            }
            Err(format!("Get {:?}: stopped after 10 redirects", url(&path)))
        };
        match tokio::time::timeout(self.limit, work).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "Get {first:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
        }
    }

    async fn grpc(&self, action: &Value) -> Result<(), String> {
        let (host, port) = self.address(action)?;
        let address = join(&host, port);
        let within = format!("{}s", self.limit.as_secs());
        let connected = match tokio::time::timeout(self.limit, connect(&host, port)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(format!("error: failed to connect service at {address:?}: {e}")),
            Err(_) => {
                let why = "context deadline exceeded";
                return Err(format!("timeout: failed to connect service {address:?} within {within}: {why}"));
            }
        };
        match tokio::time::timeout(self.limit, health(connected, &address, action["service"].str())).await {
            Ok(result) => result,
            Err(_) => Err(format!("timeout: health rpc did not complete within {within}")),
        }
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((host, port)).await;
    stream.map_err(|e| format!("dial tcp {}: {}", join(host, port), connect_error(&e)))
}

/// As Go says it.
fn connect_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn request(action: &Value, host: &str, port: u16, path: &str) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::builder().uri(path);
    let named = |name: &str| action["httpHeaders"].items().iter().any(|h| h["name"].str().eq_ignore_ascii_case(name));
    for (name, value) in
        [("Host", join(host, port)), ("User-Agent", USER_AGENT.to_owned()), ("Accept", "*/*".to_owned())]
    {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    for header in action["httpHeaders"].items().iter().filter(|h| !h["value"].str().is_empty()) {
        request = request.header(header["name"].str(), header["value"].str());
    }
    request.body(Empty::new()).map_err(|e| e.to_string())
}

/// Where a redirect leads, if it stays with the host: anywhere else counts as an answer, as upstream.
fn local_redirect(answer: &Response<Incoming>, base: &str) -> Option<String> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    match location.strip_prefix(base) {
        Some("") => Some("/".to_owned()),
        Some(path) if path.starts_with('/') => Some(path.to_owned()),
        _ => (location.starts_with('/') && !location.starts_with("//")).then(|| location.to_owned()),
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|e| e.to_string());
    driving.abort();
    answer
}

/// A call of `grpc.health.v1.Health/Check` over HTTP/2 in plain text.
async fn health(stream: TcpStream, address: &str, service: &str) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("error: health rpc probe failed: {e}");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
    let driving = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(Bytes::from(health_request(service))));
    let work = async {
        let answer = sender.send_request(request.map_err(|e| failed(&e))?).await.map_err(|e| failed(&e))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, 64 << 10).collect().await.map_err(|e| failed(&e))?;
        let code = |map: &http::HeaderMap| map.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
        let status = code(&parts.headers).or_else(|| body.trailers().and_then(code)).unwrap_or(2);
        Ok((status, body.to_bytes()))
    };
    let answer: Result<(u32, Bytes), String> = work.await;
    driving.abort();
    match answer? {
        (0, message) => match serving(&message) {
            1 => Ok(()),
            other => Err(format!("service unhealthy (responded with {:?})", health_name(other))),
        },
        (12, _) => {
            Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
        }
        (code, _) => Err(failed(&format!("rpc error: code = {code}"))),
    }
}

/// A gRPC message: uncompressed, its length, then field 1: the service's name.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(0);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// Field 1 of the answer, a small enumeration; absent means 0.
fn serving(frame: &[u8]) -> u8 {
    match frame.get(5..) {
        Some([0x08, value, ..]) => *value,
        _ => 0,
    }
}

fn health_name(status: u8) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// At most 10 KiB, as upstream; what follows is read and dropped so that the command can end.
async fn read_some(file: Option<std::fs::File>) -> String {
    let Some(Ok(mut pipe)) = file.map(pipe::Receiver::from_file) else { return String::new() };
    let mut kept = Vec::new();
    let mut part = vec![0_u8; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut part).await {
        let room = (10_usize << 10) - kept.len();
        kept.extend_from_slice(&part[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Waits for a command's end without a thread.
pub(crate) async fn exit_code(session: ExecSession) -> Result<i32, crate::Error> {
    // SAFETY: the descriptor is the session's own socket, open and the same until the session is dropped.
    let session = unsafe { AsyncFd::register_with_interest(session, Interest::READABLE) };
    let mut session = session.map_err(std::io::Error::from)?;
    // Its end may have been told along with its start, and have been read with it.
    if let Some(code) = session.get_mut().wait_timeout(Duration::ZERO)? {
        return Ok(code);
    }
    loop {
        let mut ready = session.readable_mut().await?;
        if let Some(code) = ready.get_inner_mut().wait_timeout(Duration::ZERO)? {
            return Ok(code);
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_request(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
        assert_eq!([serving(&[0, 0, 0, 0, 2, 8, 1]), serving(&[0, 0, 0, 0, 0]), serving(&[])], [1, 0, 0]);
    }
}
