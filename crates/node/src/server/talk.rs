//! What exec and attach have in common: a client that says and hears things by stream, over WebSocket, where a message's
//! first byte is its channel, or over SPDY, where each is a stream of its own.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use canopus_api::{Status, Value, json, value};
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::flag;
use super::spdy::{Frame, Reader, Writer, data, pong};
use super::upgrade::{Protocols, Socket, Transport};

const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Closes another channel (v5).
const CLOSE: u8 = 255;
/// How long a client gets to answer that the session is over.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long it gets to open its streams, as upstream.
const OPENING: Duration = Duration::from_secs(30);
/// Passed on at once of what a client says.
const PART: usize = 64 << 10;
/// A terminal's size takes less.
const MAX_SIZE: usize = 1024;
const OLDEST: &str = "channel.k8s.io";

/// The oldest protocols have only words for a failure.
pub(super) const PROTOCOLS: Protocols = Protocols {
    websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io", OLDEST, ""],
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", OLDEST],
};

/// The streams that a client wants.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    pub(super) fn of(pairs: &[(String, String)]) -> Result<Streams, Status> {
        let flags = |names: [&str; 2]| names.iter().any(|n| flag(pairs, n));
        let tty = flag(pairs, "tty");
        let (stdin, stdout) = (flags(["input", "stdin"]), flags(["output", "stdout"]));
        let stderr = flags(["error", "stderr"]) && !tty;
        if !(stdin || stdout || stderr) {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(Streams { stdin, stdout, stderr, tty })
    }
}

/// What a client says.
pub(super) enum Said {
    Input(Bytes),
    NoMoreInput,
    Size { width: u16, height: u16 },
}

/// The two ends of a conversation.
pub(super) struct Talk {
    /// Ends when the client goes away.
    pub said: mpsc::Receiver<Said>,
    /// What it is to hear, by channel.
    pub say: mpsc::Sender<(u8, Bytes)>,
}

/// Lets `speak` talk with the client, and then tells how it ended: nothing if the client went away first.
pub(super) async fn hold<F>(transport: Transport, protocol: &str, streams: Streams, speak: impl FnOnce(Talk) -> F)
where
    F: Future<Output = Option<Value>>,
{
    match transport {
        Transport::WebSocket(socket) => over_websocket(*socket, protocol, speak).await,
        Transport::Spdy(io) => {
            if let Err(error) = over_spdy(io, protocol, streams, speak).await {
                tracing::debug!(%error, "a session over SPDY ended");
            }
        }
    }
}

async fn over_websocket<F>(socket: Socket, protocol: &str, speak: impl FnOnce(Talk) -> F)
where
    F: Future<Output = Option<Value>>,
{
    let (mut sink, stream) = socket.split();
    let (say, mut outgoing) = mpsc::channel::<(u8, Bytes)>(16);
    let (hear, said) = mpsc::channel(16);
    let listener = tokio::spawn(listen(stream, hear));
    let write = async {
        while let Some((channel, bytes)) = outgoing.recv().await {
            let message = [&[channel], &bytes[..]].concat();
            if sink.send(Message::Binary(message.into())).await.is_err() {
                break;
            }
        }
        outgoing.close();
    };
    let (outcome, ()) = tokio::join!(speak(Talk { said, say }), write);
    let Some(status) = outcome else { return listener.abort() };
    // The client may be gone; then there is nobody to tell.
    if let Some(words) = verdict(protocol, &status) {
        let _ = sink.send(Message::Binary([&[ERROR], &words[..]].concat().into())).await;
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(normal))).await;
    part(listener).await;
}

/// A connection closed on input that nobody has read is reset, and what it carried last is lost on the way.
async fn part(mut listener: JoinHandle<()>) {
    let _ = tokio::time::timeout(FAREWELL, &mut listener).await;
    listener.abort();
}

/// Passes on what the client sends until it goes away.
async fn listen(mut stream: SplitStream<Socket>, hear: mpsc::Sender<Said>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        let said = match bytes.first().copied() {
            Some(STDIN) => {
                hear_input(&hear, &bytes.slice(1..)).await;
                continue;
            }
            Some(CLOSE) if bytes.get(1) == Some(&STDIN) => Said::NoMoreInput,
            Some(RESIZE) => match size(&bytes[1..]) {
                Some(size) => size,
                None => continue,
            },
            _ => continue,
        };
        // When nobody listens any more, the client is still to be heard saying goodbye.
        let _ = hear.send(said).await;
    }
}

/// Input in parts, so that what waits to be read is of a few messages at most, however long they are.
async fn hear_input(hear: &mpsc::Sender<Said>, bytes: &Bytes) {
    for at in (0..bytes.len()).step_by(PART) {
        let _ = hear.send(Said::Input(bytes.slice(at..bytes.len().min(at + PART)))).await;
    }
}

fn size(bytes: &[u8]) -> Option<Said> {
    let size = json::parse(bytes).ok()?;
    let part = |name: &str| u16::try_from(size[name].int()).unwrap_or(0);
    Some(Said::Size { width: part("Width"), height: part("Height") })
}

/// What the error channel says at the end.
fn verdict(protocol: &str, status: &Value) -> Option<Vec<u8>> {
    match protocol {
        "v5.channel.k8s.io" | "v4.channel.k8s.io" => Some(json::to_vec(status)),
        _ if status["status"].str() == "Success" => None,
        _ => Some(status["message"].str().as_bytes().to_vec()),
    }
}

/// The streams of SPDY: their numbers by channel.
type Numbers = HashMap<u8, u32>;

async fn over_spdy<F>(
    io: TokioIo<Upgraded>,
    protocol: &str,
    streams: Streams,
    speak: impl FnOnce(Talk) -> F,
) -> io::Result<()>
where
    F: Future<Output = Option<Value>>,
{
    let (reader, writer) = tokio::io::split(io);
    let mut reader = Reader::new(reader);
    let (frames, outgoing) = mpsc::channel::<Vec<u8>>(16);
    let (hear, said) = mpsc::channel(16);
    // Ends when nobody has anything to send.
    let mut writer = tokio::spawn(write(writer, outgoing));
    let wanted = wanted(protocol, streams);
    let opening = opened(&mut reader, &frames, &hear, &wanted);
    let numbers = tokio::time::timeout(OPENING, opening)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "timed out waiting for client to create streams"))??;
    let listener = tokio::spawn(listen_to_frames(reader, numbers.clone(), frames.clone(), hear));
    let (say, mut parts) = mpsc::channel::<(u8, Bytes)>(16);
    let pass = async {
        while let Some((channel, bytes)) = parts.recv().await {
            if let Some(number) = numbers.get(&channel)
                && frames.send(data(*number, &bytes, false)).await.is_err()
            {
                break;
            }
        }
        parts.close();
    };
    let (outcome, ()) = tokio::join!(speak(Talk { said, say }), pass);
    let Some(status) = outcome else {
        listener.abort();
        return Ok(());
    };
    let words = verdict(protocol, &status).unwrap_or_default();
    for (channel, words) in [(STDOUT, &[][..]), (STDERR, &[]), (ERROR, &words)] {
        if let Some(number) = numbers.get(&channel) {
            // The client may be gone; then there is nobody to tell.
            let _ = frames.send(data(*number, words, true)).await;
        }
    }
    drop(frames);
    part(listener).await;
    let _ = tokio::time::timeout(FAREWELL, &mut writer).await;
    writer.abort();
    Ok(())
}

async fn write(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
    // It may be closed already.
    let _ = to.shutdown().await;
}

fn wanted(protocol: &str, streams: Streams) -> Vec<u8> {
    let resizes = streams.tty && !["v2.channel.k8s.io", OLDEST].contains(&protocol);
    let all = [(STDIN, streams.stdin), (STDOUT, streams.stdout), (STDERR, streams.stderr), (RESIZE, resizes)];
    [ERROR].into_iter().chain(all.into_iter().filter(|(_, wanted)| *wanted).map(|(channel, _)| channel)).collect()
}

/// Waits until the client has opened what it asked for.
async fn opened<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    frames: &mpsc::Sender<Vec<u8>>,
    hear: &mpsc::Sender<Said>,
    wanted: &[u8],
) -> io::Result<Numbers> {
    let mut replies = Writer::new();
    let mut numbers = Numbers::new();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    while !wanted.iter().all(|channel| numbers.contains_key(channel)) {
        match reader.next().await?.ok_or_else(gone)? {
            Frame::Open { stream, headers, .. } => {
                let kind = headers.iter().find(|(name, _)| name == "streamtype").map_or("", |(_, kind)| kind);
                let channel = match kind {
                    "stdin" => STDIN,
                    "stdout" => STDOUT,
                    "stderr" => STDERR,
                    "error" => ERROR,
                    "resize" => RESIZE,
                    other => return Err(io::Error::other(format!("unexpected stream type: {other:?}"))),
                };
                numbers.insert(channel, stream);
                frames.send(replies.reply(stream)).await.map_err(|_| gone())?;
            }
            Frame::Data { stream, bytes, last } if numbers.get(&STDIN) == Some(&stream) => {
                let said = [Said::Input(bytes)].into_iter().chain(last.then_some(Said::NoMoreInput));
                for said in said {
                    hear.try_send(said).map_err(|_| io::Error::other("too much input before the streams are open"))?;
                }
            }
            Frame::Ping(id) => frames.send(pong(id)).await.map_err(|_| gone())?,
            Frame::Bye => return Err(gone()),
            Frame::Data { .. } | Frame::Reset { .. } => {}
        }
    }
    Ok(numbers)
}

/// The same as [`listen`], of frames.
async fn listen_to_frames(
    mut reader: Reader<ReadHalf<TokioIo<Upgraded>>>,
    numbers: Numbers,
    frames: mpsc::Sender<Vec<u8>>,
    hear: mpsc::Sender<Said>,
) {
    let is = |channel: u8, stream: u32| numbers.get(&channel) == Some(&stream);
    let mut sizes = Vec::new();
    while let Ok(Some(frame)) = reader.next().await {
        match frame {
            Frame::Data { stream, bytes, last } if is(STDIN, stream) => {
                hear_input(&hear, &bytes).await;
                if last {
                    let _ = hear.send(Said::NoMoreInput).await;
                }
            }
            Frame::Data { stream, bytes, .. } if is(RESIZE, stream) => {
                sizes.extend_from_slice(&bytes);
                while let Some(end) = sizes.iter().position(|byte| *byte == b'}') {
                    let text: Vec<u8> = sizes.drain(..=end).collect();
                    if let Some(size) = size(text.trim_ascii_start()) {
                        let _ = hear.send(size).await;
                    }
                }
                if sizes.len() > MAX_SIZE {
                    return;
                }
            }
            Frame::Reset { stream } if is(STDIN, stream) => drop(hear.send(Said::NoMoreInput).await),
            Frame::Ping(id) => drop(frames.send(pong(id)).await),
            Frame::Bye => return,
            _ => {}
        }
    }
}

/// How a session failed that never began.
pub(super) fn failed(message: &str) -> Value {
    value!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
        "details": {"causes": [{"message": message}]}, "code": 500,
    })
}

/// How it ended, by the exit code.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return value!({"metadata": {}, "status": "Success"});
    }
    value!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

#[cfg(test)]
mod tests {
    use super::super::spdy;
    use super::*;

    #[test]
    fn the_oldest_protocol_has_words_for_a_failure_only() {
        let (good, bad) = (exit_status(0), exit_status(3));
        assert_eq!(verdict(OLDEST, &good), None);
        assert_eq!(
            verdict("", &bad).as_deref(),
            Some(&b"command terminated with non-zero exit code: exit status 3"[..])
        );
        assert!(verdict("v4.channel.k8s.io", &good).is_some_and(|v| v.starts_with(b"{")));
    }

    #[tokio::test]
    async fn streams_are_waited_for() {
        let all = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(wanted("v4.channel.k8s.io", all), [ERROR, STDIN, STDOUT, RESIZE]);
        let wanted = wanted("v2.channel.k8s.io", all);
        let mut frames = spdy::open(1, &[("streamtype", "error")], true);
        frames.extend(spdy::open(3, &[("streamtype", "stdin")], false));
        frames.extend(data(3, b"early", true));
        frames.extend(spdy::open(5, &[("streamtype", "stdout")], false));
        let (say, mut replies) = mpsc::channel(16);
        let (hear, mut said) = mpsc::channel(16);
        let numbers = opened(&mut Reader::new(&frames[..]), &say, &hear, &wanted).await.expect("they are opened");
        assert_eq!(numbers, HashMap::from([(ERROR, 1), (STDIN, 3), (STDOUT, 5)]));
        drop((say, hear));
        assert!(matches!(said.recv().await, Some(Said::Input(bytes)) if bytes == "early"));
        assert!(matches!(said.recv().await, Some(Said::NoMoreInput)));
        assert_eq!(std::iter::from_fn(|| replies.try_recv().ok()).count(), 3);
    }
}
