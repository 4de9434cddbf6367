//! `/portForward`: connections to a pod's own ports, each a pair of SPDY streams, for data and for what went wrong. SPDY is
//! spoken on the upgraded connection itself or in the messages of a WebSocket (KEP-4006). The older way of WebSockets is a
//! connection for each port, whose pair is two channels: the first byte of a message.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopus_api::{Status, View};
use canopus_net::netns::NetNs;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{self, Frame, Reader, Writer, pong};
use super::upgrade::{Protocols, Socket, Transport, Upgrade};
use super::{Body, Context, query};
use crate::observe;

const SPDY: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOLS: Protocols = Protocols { websocket: &[TUNNEL, "v4.channel.k8s.io", ""], spdy: &[SPDY] };
/// Read from a connection at once.
const CHUNK: usize = 32 << 10;
/// How long a port gets to take up a connection.
const DIAL: Duration = Duration::from_secs(10);
/// How many connections a session may have open.
const MAX_CONNECTIONS: usize = 1024;
/// How much a session may have said that its ports have not heard yet.
const MAX_WAITING: usize = 4 << 20;
/// Two channels for each have numbers below 255.
const MAX_PORTS: usize = 127;

/// Where a pod's ports are: in its network namespace, or in the host's.
#[derive(Clone)]
struct Pod {
    name: String,
    netns: Option<PathBuf>,
}

pub(super) async fn serve(
    context: &Arc<Context>,
    [namespace, name]: [&str; 2],
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let upgrade = Upgrade::of(&mut request, &PROTOCOLS)?;
    let channels = ![SPDY, TUNNEL].contains(&upgrade.protocol);
    let ports = if channels { ports(&query(request.uri().query().unwrap_or("")))? } else { Vec::new() };
    let pod = find(context, namespace, name).await?;
    upgrade.answer(context, move |transport| async move {
        match transport {
            Transport::Spdy(io) => run(pod, io).await,
            Transport::WebSocket(socket) if channels => on_channels(pod, &ports, *socket).await,
            Transport::WebSocket(socket) => {
                let (near, far) = tokio::io::duplex(2 * CHUNK);
                tokio::join!(run(pod, near), tunnel(*socket, far));
            }
        }
    })
}

/// The ports that are forwarded by channels, which are agreed upon beforehand.
fn ports(pairs: &[(String, String)]) -> Result<Vec<u16>, Status> {
    let asked = pairs.iter().filter(|(name, _)| name == "port" || name == "ports");
    let mut ports = Vec::new();
    for port in asked.flat_map(|(_, value)| value.split(',')) {
        let number = port.parse().ok().filter(|port| *port > 0);
        ports.push(number.ok_or_else(|| Status::bad_request(format!("unable to parse {port:?} as a port")))?);
    }
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"port\" is required")),
        MAX_PORTS.. => Err(Status::bad_request("too many ports")),
        _ => Ok(ports),
    }
}

async fn find(context: &Arc<Context>, namespace: &str, name: &str) -> Result<Pod, Status> {
    let object = context.node.pods.get(namespace, name);
    let missing = || Status::new(404, "NotFound", format!("pod \"{name}\" not found\n"));
    let uid = object.ok_or_else(missing)?.facts.uid.to_string();
    let found = context.node.blocking(move |node| observe::by_pod(&node.runtime)).await;
    let mut pods = found.map_err(Status::internal)?.map_err(Status::internal)?;
    let sandboxes = pods.remove(&uid).unwrap_or_default();
    let ready = sandboxes.into_iter().find(|s| s.pid.is_some());
    let ready = ready.ok_or_else(|| Status::internal(format!("sandbox of pod \"{name}\" is not running")))?;
    Ok(Pod { name: format!("{name}_{namespace}"), netns: ready.netns })
}

/// Carries SPDY in the messages of a WebSocket.
async fn tunnel(socket: Socket, carried: impl AsyncRead + AsyncWrite) {
    let (mut sink, mut stream) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(carried);
    let out = async {
        let mut buffer = vec![0_u8; CHUNK];
        while let Ok(n @ 1..) = reader.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
                return;
            }
        }
        // The client may be gone already.
        let _ = sink.send(Message::Close(None)).await;
    };
    let back = async {
        while let Some(Ok(message)) = stream.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The session sees the end, and answers it with its own.
        let _ = writer.shutdown().await;
    };
    tokio::join!(out, back);
}

/// Forwards a connection for each port, by channels that begin with the port's number.
async fn on_channels(pod: Pod, ports: &[u16], socket: Socket) {
    let (mut sink, mut stream) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Vec<u8>>(64);
    let (mut inputs, mut connections) = (Vec::new(), tokio::task::JoinSet::new());
    for (channel, port) in (0_u32..).step_by(2).zip(ports) {
        for channel in [channel, channel + 1] {
            let beginning = message(channel, &port.to_le_bytes(), false).unwrap_or_default();
            if sink.send(Message::Binary(beginning.into())).await.is_err() {
                return;
            }
        }
        let (input, from_client) = mpsc::channel(64);
        inputs.push(input);
        let back = Back { frames: frames.clone(), encode: message };
        connections.spawn(forward(pod.clone(), *port, (channel, channel + 1), from_client, back));
    }
    drop(frames);
    let there = There::new();
    let listen = async {
        while let Some(Ok(message)) = stream.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            let channel = bytes.first().map_or(1, |channel| usize::from(*channel));
            if channel % 2 == 0
                && let Some(input) = inputs.get(channel / 2)
            {
                there.send(input, bytes.slice(1..)).await;
            }
        }
    };
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            if sink.send(Message::Binary(frame.into())).await.is_err() {
                return;
            }
        }
        // The client may be gone already.
        let _ = sink.send(Message::Close(None)).await;
    };
    tokio::select! {
        () = listen => {}
        () = write => {}
    }
}

fn message(channel: u32, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
    // Nothing says that a channel ends.
    (!last).then(|| [&[u8::try_from(channel).unwrap_or(u8::MAX)], bytes].concat())
}

/// The way back to the client.
struct Back {
    frames: mpsc::Sender<Vec<u8>>,
    /// Stream, bytes, whether they are the last.
    encode: fn(u32, &[u8], bool) -> Option<Vec<u8>>,
}

impl Back {
    async fn send(&self, stream: u32, bytes: &[u8], last: bool) -> io::Result<()> {
        match (self.encode)(stream, bytes, last) {
            Some(frame) => self.frames.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

/// What a client says to a port, with what it takes of the session's share.
struct Part {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// The way to the ports.
struct There {
    share: Arc<Semaphore>,
}

impl There {
    fn new() -> There {
        There { share: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Waits until there is room for it.
    async fn send(&self, input: &mpsc::Sender<Part>, bytes: Bytes) {
        let size = u32::try_from(bytes.len().clamp(1, MAX_WAITING)).unwrap_or(1);
        let Ok(share) = self.share.clone().acquire_many_owned(size).await else { return };
        // Nobody may read it any more: its own end is on the way.
        let _ = input.send(Part { bytes, _share: share }).await;
    }
}

/// The streams of one connection, as far as they are there.
#[derive(Default)]
struct Pair {
    port: u16,
    data: Option<u32>,
    error: Option<u32>,
}

/// Serves a session until the client leaves.
async fn run(pod: Pod, io: impl AsyncRead + AsyncWrite) {
    let (reader, mut writer) = tokio::io::split(io);
    let (frames, mut outgoing) = mpsc::channel::<Vec<u8>>(64);
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let read = async {
        if let Err(error) = converse(&pod, Reader::new(reader), frames).await {
            tracing::debug!(%error, pod = pod.name, "port-forward ended");
        }
    };
    tokio::join!(read, write);
}

async fn converse<R: AsyncRead + Unpin>(
    pod: &Pod,
    mut reader: Reader<R>,
    frames: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut replies = Writer::new();
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut inputs: HashMap<u32, mpsc::Sender<Part>> = HashMap::new();
    let there = There::new();
    // Dropped, and with it the connections, when the client is gone.
    let mut connections = tokio::task::JoinSet::new();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    while let Some(frame) = reader.next().await? {
        match frame {
            Frame::Open { stream, headers, .. } => {
                while connections.try_join_next().is_some() {}
                if pairs.len() + connections.len() >= MAX_CONNECTIONS {
                    return Err(io::Error::other("too many connections"));
                }
                let get = |name: &str| headers.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
                let id = get("requestid").to_owned();
                let port = get("port").parse().map_err(|_| io::Error::other("a stream without a port"))?;
                let pair = pairs.entry(id.clone()).or_default();
                pair.port = port;
                match get("streamtype") {
                    "error" => pair.error = Some(stream),
                    "data" => pair.data = Some(stream),
                    _ => return Err(io::Error::other("a stream of unknown type")),
                }
                frames.send(replies.reply(stream)).await.map_err(|_| gone())?;
                if let (Some(data), Some(error)) = (pair.data, pair.error) {
                    pairs.remove(&id);
                    let (input, from_client) = mpsc::channel(64);
                    inputs.retain(|_, sender| !sender.is_closed());
                    inputs.insert(data, input);
                    let back = Back {
                        frames: frames.clone(),
                        encode: |stream, bytes, last| Some(spdy::data(stream, bytes, last)),
                    };
                    connections.spawn(forward(pod.clone(), port, (data, error), from_client, back));
                }
            }
            Frame::Data { stream, bytes, last } => {
                if let Some(input) = inputs.get(&stream)
                    && !bytes.is_empty()
                {
                    there.send(input, bytes).await;
                }
                if last {
                    inputs.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(inputs.remove(&stream)),
            Frame::Ping(id) => frames.send(pong(id)).await.map_err(|_| gone())?,
            Frame::Bye => break,
        }
    }
    Ok(())
}

/// One connection to a port, from its beginning to its end.
async fn forward(pod: Pod, port: u16, (stream, error): (u32, u32), from_client: mpsc::Receiver<Part>, back: Back) {
    let failed = match dial(&pod, port).await {
        Ok(connection) => copy(connection, stream, from_client, &back).await.err(),
        Err(error) => Some(error),
    };
    // The client may be gone, of all this.
    if let Some(why) = failed {
        let why = format!("error forwarding port {port} to pod {}: {why}", pod.name);
        let _ = back.send(error, why.as_bytes(), false).await;
    }
    for stream in [stream, error] {
        let _ = back.send(stream, b"", true).await;
    }
}

async fn dial(pod: &Pod, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let netns = pod.netns.clone();
    let connected = tokio::task::spawn_blocking(move || match netns {
        Some(path) => NetNs::open(&path)?.run(|| BlockingStream::connect_timeout(&address, DIAL))?,
        None => BlockingStream::connect_timeout(&address, DIAL),
    });
    let connected = connected.await.map_err(io::Error::other)?;
    let stream = connected.map_err(|e| {
        io::Error::new(e.kind(), format!("failed to connect to localhost:{port} inside namespace: {e}"))
    })?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Both directions, each to its end.
async fn copy(
    connection: TcpStream,
    stream: u32,
    mut from_client: mpsc::Receiver<Part>,
    back: &Back,
) -> io::Result<()> {
    let (mut reader, mut writer) = connection.into_split();
    let here = async {
        let mut buffer = vec![0_u8; CHUNK];
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, io::Error>(());
            }
            back.send(stream, &buffer[..n], false).await?;
        }
    };
    let there = async {
        while let Some(part) = from_client.recv().await {
            writer.write_all(&part.bytes).await?;
        }
        writer.shutdown().await
    };
    tokio::pin!(here, there);
    let mut sent = false;
    loop {
        tokio::select! {
            // What the port has said is said; what the client still says nobody hears.
            done = &mut here => return done,
            done = &mut there, if !sent => {
                sent = true;
                done?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_channels() {
        let ask = |text| ports(&query(text)).map_err(|status| status.code);
        assert_eq!(ask("port=80&port=81,82"), Ok(vec![80, 81, 82]));
        for bad in ["", "port=", "port=0", "port=65536", "port=80,x", &format!("port={}", ["1"; 127].join(","))] {
            assert_eq!(ask(bad), Err(400), "{bad}");
        }
    }

    /// Reads data frames until both streams have ended: what each said.
    async fn outcome(client: &mut tokio::io::DuplexStream) -> (String, String) {
        let (mut said, mut ended) = ([String::new(), String::new()], 0);
        while ended < 2 {
            let mut head = [0_u8; 8];
            client.read_exact(&mut head).await.expect("a frame");
            let mut body = vec![0; usize::from(head[6]) << 8 | usize::from(head[7])];
            client.read_exact(&mut body).await.expect("its body");
            if head[0] & 0x80 != 0 {
                continue;
            }
            said[usize::from(head[3] == 1)].push_str(&String::from_utf8_lossy(&body));
            ended += usize::from(head[4] & 1);
        }
        let [data, error] = said;
        (data, error)
    }

    async fn ask(port: u16) -> (String, String) {
        let (mut client, far) = tokio::io::duplex(4096);
        let pod = Pod { name: "p_n".into(), netns: None };
        tokio::spawn(run(pod, far));
        let number = port.to_string();
        let headers = |kind| [("streamtype", kind), ("port", number.as_str()), ("requestid", "0")];
        let frames = [
            spdy::open(1, &headers("error"), true),
            spdy::data(1, b"", true),
            spdy::open(3, &headers("data"), false),
            spdy::data(3, b"ping", true),
        ];
        client.write_all(&frames.concat()).await.expect("it is read");
        outcome(&mut client).await
    }

    #[tokio::test]
    async fn bytes_go_there_and_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("text");
            stream.write_all(format!("{said} pong").as_bytes()).await.expect("it is read");
        });
        assert_eq!(ask(port).await, ("ping pong".into(), String::new()));
        let (said, error) = ask(port).await;
        assert!(said.is_empty() && error.starts_with(&format!("error forwarding port {port} to pod p_n: ")), "{error}");
    }

    /// What a session does with a client that says this, and then `more` for ever: how much of it was taken.
    async fn flood(first: Vec<u8>, more: Vec<u8>) -> usize {
        let (mut client, far) = tokio::io::duplex(4096);
        let pod = Pod { name: "p_n".into(), netns: None };
        let session = tokio::spawn(run(pod, far));
        if client.write_all(&first).await.is_err() {
            return 0;
        }
        let mut taken = 0;
        while taken < 64 << 20 {
            // Ends when the session does, or when it takes no more.
            match tokio::time::timeout(Duration::from_millis(500), client.write_all(&more)).await {
                Ok(Ok(())) if !session.is_finished() => taken += more.len(),
                _ => break,
            }
        }
        session.abort();
        taken
    }

    #[tokio::test]
    async fn floods_are_not_taken_in_and_others_are_served() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Takes up connections, and reads nothing but what is meant for it.
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut said = [0; 4];
                match tokio::time::timeout(Duration::from_millis(200), stream.peek(&mut said)).await {
                    Ok(Ok(_)) if &said == b"ping" => drop(stream.write_all(b"pong").await),
                    _ => kept.push(stream),
                }
            }
        });
        let number = port.to_string();
        let open = |stream: u32, kind: &str, id: &str, first: bool| {
            spdy::open(stream, &[("streamtype", kind), ("port", &number), ("requestid", id)], first)
        };
        let pair = |n: u32, first: bool| {
            let id = n.to_string();
            [open(4 * n + 1, "error", &id, first), open(4 * n + 3, "data", &id, false)].concat()
        };
        // Far more than the buffers between the two hold.
        let said = spdy::data(3, &vec![b'x'; 1 << 20], false);
        let taken = flood(pair(0, true), said).await;
        assert!((MAX_WAITING..40 << 20).contains(&taken), "{taken}");
        assert_eq!(ask(port).await.0, "pong");
        // Streams that never become pairs.
        let halves: Vec<u8> = (1..5000).flat_map(|n| open(2 * n + 1, "error", &n.to_string(), false)).collect();
        assert!(flood(pair(0, true), halves).await < 64 << 20);
        assert_eq!(ask(port).await.0, "pong");
        // Nobody hears the answers to all this.
        let pings: Vec<u8> = (0..4096).flat_map(spdy::pong).collect();
        assert!(flood(Vec::new(), pings).await < 8 << 20);
        assert_eq!(ask(port).await.0, "pong");
    }
}
