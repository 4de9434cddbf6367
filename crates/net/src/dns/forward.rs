//! Asking upstream servers.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::cache::{Cache, Question, Reply};
use super::wire::UDP_SIZE;

/// How long one server is waited for, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the list of servers is gone through.
const ROUNDS: usize = 2;

/// Most questions under way at a time; more are refused at once.
const MOST: usize = 1000;

/// Asks upstream servers in their order and remembers the answers. The same question is asked once at a time, which
/// also stops a question that comes back to this server from going round.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Mutex<Arc<[SocketAddr]>>,
    cache: Mutex<Cache>,
    under_way: Mutex<HashMap<Question, Arc<OnceCell<Reply>>>>,
    permits: Semaphore,
    patience: Duration,
}

impl Forwarder {
    pub fn new(upstreams: Vec<SocketAddr>) -> Forwarder {
        Forwarder {
            upstreams: Mutex::new(upstreams.into()),
            cache: Mutex::default(),
            under_way: Mutex::default(),
            permits: Semaphore::new(MOST),
            patience: PATIENCE,
        }
    }

    /// Sets how long one server is waited for; each is asked twice at most.
    pub fn with_patience(self, patience: Duration) -> Forwarder {
        Forwarder { patience, ..self }
    }

    /// Replaces the servers, after a change of `resolv.conf`.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddr>) {
        *lock(&self.upstreams) = upstreams.into();
    }

    /// A remembered answer.
    pub fn cached(&self, query: &Query) -> Option<Reply> {
        lock(&self.cache).get(&(query.name().clone(), query.query_type()), Instant::now())
    }

    /// Asks until a server answers. Without servers the answer is REFUSED, when none answers in time SERVFAIL.
    pub async fn ask(&self, query: &Query) -> Reply {
        if let Some(reply) = self.cached(query) {
            return reply;
        }
        let question = (query.name().clone(), query.query_type());
        let cell = lock(&self.under_way).entry(question.clone()).or_default().clone();
        let reply = cell.get_or_init(|| self.ask_servers(query)).await.clone();
        let mut under_way = lock(&self.under_way);
        if under_way.get(&question).is_some_and(|current| Arc::ptr_eq(current, &cell)) {
            under_way.remove(&question);
            lock(&self.cache).put(question, &reply, Instant::now());
        }
        reply
    }

    async fn ask_servers(&self, query: &Query) -> Reply {
        let upstreams = lock(&self.upstreams).clone();
        if upstreams.is_empty() {
            return failure(ResponseCode::Refused);
        }
        let Ok(_permit) = self.permits.try_acquire() else { return failure(ResponseCode::ServFail) };
        for server in upstreams.iter().cycle().take(ROUNDS * upstreams.len()) {
            match timeout(self.patience, ask_one(*server, query)).await {
                Ok(Ok(reply)) if usable(&reply) => return reply,
                Ok(Ok(reply)) => tracing::debug!(%server, code = %reply.code, "upstream server did not answer"),
                Ok(Err(error)) => tracing::debug!(%server, %error, "failed to ask upstream server"),
                Err(_) => tracing::debug!(%server, "upstream server took too long"),
            }
        }
        failure(ResponseCode::ServFail)
    }
}

/// A server that fails or refuses leaves the question to the next one.
fn usable(reply: &Reply) -> bool {
    !matches!(reply.code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

fn failure(code: ResponseCode) -> Reply {
    Reply { code, answers: vec![], authorities: vec![] }
}

/// Asks by UDP, from a port of its own, and by TCP when the answer doesn't fit.
async fn ask_one(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_SIZE as u16);
    message.set_edns(edns);
    let request = message.to_vec().map_err(io::Error::other)?;
    let answer = ask_udp(server, &request, &message).await?;
    let answer = if answer.metadata.truncation { ask_tcp(server, &request, &message).await? } else { answer };
    Ok(Reply { code: answer.metadata.response_code, answers: answer.answers, authorities: answer.authorities })
}

async fn ask_udp(server: SocketAddr, request: &[u8], question: &Message) -> io::Result<Message> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = [0; UDP_SIZE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What isn't an answer to this question may be forged: go on waiting for the real one.
        if let Some(answer) = check(&buffer[..length], question) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    check(&buffer, question).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Parses a message and makes sure that it answers this question.
fn check(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let ours = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries;
    ours.then_some(answer)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
