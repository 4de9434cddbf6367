//! `/exec`: a command in a container over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`, `channel.k8s.io`): the
//! first byte of a message is its channel: 0 input, 1 output, 2 errors, 3 the exit status, 4 terminal sizes, 255 (v5)
//! closes one. The oldest protocol, which is also that of clients that name none, has only words for a failure.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopus_api::{Status, json, value};
use canopus_runtime::spec::ExecSpec;
use canopus_runtime::{ExecSession, tty};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Body, Context, flag, full, query};
use crate::probes::exit_code;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Read from a command's output at once.
const CHUNK: usize = 32 << 10;
/// How long a client gets to answer that the session is over.
const FAREWELL: Duration = Duration::from_secs(2);
const OLDEST: &str = "channel.k8s.io";
const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", OLDEST];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

pub(super) async fn serve(
    context: &Arc<Context>,
    which: [&str; 3],
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let pairs = query(request.uri().query().unwrap_or(""));
    let flags = |names: [&str; 2]| names.iter().any(|n| flag(&pairs, n));
    let spec = ExecSpec {
        args: pairs.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect(),
        tty: flag(&pairs, "tty"),
        stdin: flags(["input", "stdin"]),
        stdout: flags(["output", "stdout"]),
        stderr: flags(["error", "stderr"]) && !flag(&pairs, "tty"),
        ..ExecSpec::default()
    };
    if spec.args.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let (key, protocol) = handshake(request.headers())?;
    let instance = context.running(which).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let context = context.clone();
    tokio::spawn(async move {
        let shutdown = context.shutdown.clone();
        let session = async {
            match upgrade.await {
                Ok(upgraded) => {
                    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                    run(&context, &instance.id, spec, protocol, socket).await;
                }
                Err(error) => tracing::debug!(%error, "exec: the connection was not upgraded"),
            }
        };
        tokio::select! {
            () = session => {}
            () = shutdown.cancelled() => {}
        }
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    if !protocol.is_empty() {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response.body(full(Bytes::new())).map_err(Status::internal)
}

/// The client's key, and the protocol to speak: "" when it named none.
fn handshake(headers: &HeaderMap) -> Result<(String, &'static str), Status> {
    let get = |name: header::HeaderName| {
        let all = headers.get_all(name);
        all.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    if !get(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(Status::bad_request("unable to upgrade: only WebSocket connections are served"));
    }
    let offered = get(header::SEC_WEBSOCKET_PROTOCOL);
    let offers: Vec<&str> = offered.split(',').map(str::trim).collect();
    let protocol = PROTOCOLS.into_iter().find(|p| offers.contains(p)).or(offered.is_empty().then_some(""));
    let protocol = protocol.ok_or_else(|| Status::bad_request(format!("unable to negotiate protocol: {offered:?}")))?;
    match get(header::SEC_WEBSOCKET_KEY) {
        key if key.is_empty() => Err(Status::bad_request("the Sec-WebSocket-Key header is missing")),
        key => Ok((key, protocol)),
    }
}

async fn run(context: &Context, id: &str, spec: ExecSpec, protocol: &str, socket: Socket) {
    let (mut sink, stream) = socket.split();
    let id = id.to_owned();
    let session = context.node.blocking(move |node| node.runtime.exec(&id, &spec)).await;
    let outcome = match session {
        Ok(Ok(session)) => converse(session, &mut sink, stream).await,
        Ok(Err(error)) => Some((internal(&error.to_string()), None)),
        Err(error) => Some((internal(&error.to_string()), None)),
    };
    // The client may be gone; then there is nobody to tell.
    if let Some((status, input)) = outcome {
        if let Some(message) = verdict(protocol, &status) {
            let _ = sink.send(Message::Binary(message.into())).await;
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(normal))).await;
        // A connection closed on input that nobody has read is reset, and what it carried last is lost on the way.
        if let Some(mut input) = input {
            let _ = tokio::time::timeout(FAREWELL, &mut input).await;
            input.abort();
        }
    }
}

/// What the error channel says at the end.
fn verdict(protocol: &str, status: &canopus_api::Value) -> Option<Vec<u8>> {
    let words = match protocol {
        "" | OLDEST if status["status"].str() == "Success" => return None,
        "" | OLDEST => status["message"].str().as_bytes().to_vec(),
        _ => json::to_vec(status),
    };
    Some([&[ERROR], words.as_slice()].concat())
}

fn internal(why: &str) -> canopus_api::Value {
    let message = format!("error executing command in container: {why}");
    value!({
        "metadata": {}, "status": "Failure", "message": &message, "reason": "InternalError",
        "details": {"causes": [{"message": &message}]}, "code": 500,
    })
}

fn exit_status(code: i32) -> canopus_api::Value {
    if code == 0 {
        return value!({"metadata": {}, "status": "Success"});
    }
    value!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Moves bytes until the command has ended and its output is sent; `None` if the client went away first. With the
/// outcome comes the task that goes on reading what the client sends.
async fn converse(
    mut session: ExecSession,
    sink: &mut SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
) -> Option<(canopus_api::Value, Option<JoinHandle<()>>)> {
    let (sender, mut output) = mpsc::channel::<Vec<u8>>(16);
    let terminal = session.terminal().and_then(|t| t.try_clone().ok());
    for (channel, file) in [(STDOUT, session.stdout.take()), (STDERR, session.stderr.take())] {
        let Some(file) = file else { continue };
        let sender = sender.clone();
        match terminal {
            Some(_) => drop(tokio::task::spawn_blocking(move || pump_terminal(channel, file, &sender))),
            None => drop(tokio::spawn(pump_out(channel, file, sender))),
        }
    }
    drop(sender);
    let mut input = tokio::spawn(pump_in(stream, session.stdin.take(), terminal));
    // Dropped when the client is gone, which kills the command.
    let mut ended = std::pin::pin!(exit_code(session));
    let (mut open, mut outcome) = (true, None);
    while open || outcome.is_none() {
        tokio::select! {
            part = output.recv(), if open => match part {
                Some(part) => sink.send(Message::Binary(part.into())).await.ok()?,
                None => open = false,
            },
            code = &mut ended, if outcome.is_none() => {
                outcome = Some(code.map_or_else(|e| internal(&e.to_string()), exit_status));
            }
            // Ends only when the client goes away.
            _ = &mut input => return None,
        }
    }
    outcome.map(|outcome| (outcome, Some(input)))
}

fn message(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    message
}

async fn pump_out(channel: u8, file: File, sender: mpsc::Sender<Vec<u8>>) {
    let Ok(mut pipe) = pipe::Receiver::from_file(file) else { return };
    let mut buffer = vec![0_u8; CHUNK];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        if sender.send(message(channel, &buffer[..n])).await.is_err() {
            return;
        }
    }
}

fn pump_terminal(channel: u8, mut file: File, sender: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0_u8; CHUNK];
    // A terminal whose last process has ended reads as an error.
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        if sender.blocking_send(message(channel, &buffer[..n])).is_err() {
            return;
        }
    }
}

/// Writes what comes through the channel, from which the sender can tell that nobody reads any more.
fn feed(file: File, is_terminal: bool) -> mpsc::Sender<Bytes> {
    let (sender, mut parts) = mpsc::channel::<Bytes>(16);
    if is_terminal {
        tokio::task::spawn_blocking(move || {
            let mut file = file;
            while let Some(part) = parts.blocking_recv() {
                if file.write_all(&part).is_err() {
                    return;
                }
            }
        });
    } else {
        tokio::spawn(async move {
            let Ok(mut pipe) = pipe::Sender::from_file(file) else { return };
            while let Some(part) = parts.recv().await {
                if pipe.write_all(&part).await.is_err() {
                    return;
                }
            }
        });
    }
    sender
}

/// Handles what the client sends until it goes away.
async fn pump_in(mut stream: SplitStream<Socket>, stdin: Option<File>, terminal: Option<File>) {
    let mut writer = stdin.map(|file| feed(file, terminal.is_some()));
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        match bytes.first().copied() {
            Some(STDIN) => {
                if let Some(sender) = &writer
                    && sender.send(bytes.slice(1..)).await.is_err()
                {
                    writer = None;
                }
            }
            Some(CLOSE) if bytes.get(1) == Some(&STDIN) => writer = None,
            Some(RESIZE) => resize(terminal.as_ref(), &bytes[1..]),
            _ => {}
        }
    }
}

fn resize(terminal: Option<&File>, bytes: &[u8]) {
    let (Some(terminal), Ok(size)) = (terminal, json::parse(bytes)) else { return };
    let part = |name: &str| u16::try_from(size[name].int()).unwrap_or(0);
    if let Err(error) = tty::resize(terminal, part("Width"), part("Height")) {
        tracing::debug!(%error, "failed to resize a terminal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_clients_are_spoken_to() {
        let offer = |protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, "websocket".parse().expect("a value"));
            headers.insert(header::SEC_WEBSOCKET_KEY, "key".parse().expect("a value"));
            if !protocols.is_empty() {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().expect("a value"));
            }
            handshake(&headers).map(|(_, protocol)| protocol).map_err(|e| e.code)
        };
        assert_eq!(offer("v4.channel.k8s.io, v5.channel.k8s.io"), Ok("v5.channel.k8s.io"));
        assert_eq!(offer("channel.k8s.io"), Ok("channel.k8s.io"));
        assert_eq!(offer(""), Ok(""));
        assert_eq!(offer("v9.channel.k8s.io"), Err(400));
    }

    #[test]
    fn the_oldest_protocol_has_words_for_a_failure_only() {
        let (good, bad) = (exit_status(0), exit_status(3));
        assert_eq!(verdict(OLDEST, &good), None);
        assert_eq!(
            verdict("", &bad).as_deref(),
            Some(&b"\x03command terminated with non-zero exit code: exit status 3"[..])
        );
        assert!(verdict("v4.channel.k8s.io", &good).is_some_and(|v| v.starts_with(b"\x03{")));
    }
}
