//! The server: UDP and TCP on the same addresses.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::answer;
use super::forward::Forwarder;
use super::wire::{Request, Response, read};
use super::zone::Zone;

/// Most TCP connections at a time, and questions waiting for upstream by UDP; further ones are dropped.
const MOST: usize = 1000;

/// A TCP connection on which nothing happens for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Most aliases followed for one question.
const MOST_ALIASES: usize = 8;

/// What answers questions: the zone, and upstream servers for everything else.
#[derive(Debug)]
pub struct Resolver {
    zone: RwLock<Zone>,
    forwarder: Forwarder,
    turn: AtomicUsize,
}

/// The open sockets of a server, one of each kind per address.
#[derive(Debug)]
pub struct DnsServer {
    resolver: Arc<Resolver>,
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
}

impl Resolver {
    pub fn new(zone: Zone, forwarder: Forwarder) -> Resolver {
        Resolver { zone: RwLock::new(zone), forwarder, turn: AtomicUsize::new(0) }
    }

    /// Changes the zone; questions are answered from before or after, not from between.
    pub fn update<T>(&self, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(&mut self.zone.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// The answer, if it is at hand.
    fn local(&self, query: &Query) -> Option<Response> {
        let found = answer(&self.zone.read().unwrap_or_else(PoisonError::into_inner), query);
        match found {
            Some(found) if found.follow.is_none() => Some(Response {
                code: found.code,
                authoritative: true,
                answers: self.take_turns(found.answers),
                authorities: found.authorities,
                additionals: found.additionals,
            }),
            Some(_) => None,
            None => self.forwarder.cached(query).map(|reply| Response {
                code: reply.code,
                authoritative: false,
                answers: self.take_turns(reply.answers),
                authorities: reply.authorities,
                additionals: vec![],
            }),
        }
    }

    /// The answer, from wherever it has to be fetched; aliases are followed.
    pub async fn resolve(&self, query: &Query) -> Response {
        let mut response = Response::default();
        let mut query = query.clone();
        for _ in 0..MOST_ALIASES {
            let found = answer(&self.zone.read().unwrap_or_else(PoisonError::into_inner), &query);
            let Some(found) = found else {
                let reply = self.forwarder.ask(&query).await;
                response.code = reply.code;
                response.answers.extend(self.take_turns(reply.answers));
                response.authorities = reply.authorities;
                return response;
            };
            response.authoritative = true;
            response.code = found.code;
            response.answers.extend(self.take_turns(found.answers));
            response.authorities = found.authorities;
            response.additionals = found.additionals;
            match found.follow {
                Some(next) => query.set_name(next),
                None => return response,
            };
        }
        Response { code: ResponseCode::ServFail, ..Response::default() }
    }

    /// Moves another address to the front each time: most clients take the first.
    fn take_turns(&self, mut records: Vec<Record>) -> Vec<Record> {
        let first = records.iter().position(|record| record.record_type() != RecordType::CNAME);
        if let Some(addresses) = first.map(|first| &mut records[first..])
            && addresses.iter().all(|record| record.record_type().is_ip_addr())
        {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
            addresses.rotate_left(turn);
        }
        records
    }
}

impl DnsServer {
    /// Binds these addresses; with port 0 the TCP socket takes the port that the UDP socket got.
    pub async fn bind(resolver: Arc<Resolver>, addresses: &[SocketAddr]) -> io::Result<DnsServer> {
        let mut server = DnsServer { resolver, udp: vec![], tcp: vec![] };
        for address in addresses {
            let udp = UdpSocket::bind(address).await?;
            server.tcp.push(TcpListener::bind(udp.local_addr()?).await?);
            server.udp.push(Arc::new(udp));
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until dropped, which ends everything it does.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(self.resolver.clone(), socket));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(self.resolver.clone(), listener));
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn serve_udp(resolver: Arc<Resolver>, socket: Arc<UdpSocket>) {
    let mut buffer = [0; 4096];
    let mut waiting = JoinSet::new();
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // Reports of clients that are gone.
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let request = match read(&buffer[..length]) {
            Ok(request) => request,
            Err(refusal) => {
                if let Some(bytes) = refusal {
                    let _ = socket.send_to(&bytes, client).await;
                }
                continue;
            }
        };
        match resolver.local(&request.query) {
            Some(response) => send(&socket, &request, response, client).await,
            None if waiting.len() < MOST => {
                let (resolver, socket) = (resolver.clone(), socket.clone());
                waiting.spawn(async move {
                    let response = resolver.resolve(&request.query).await;
                    send(&socket, &request, response, client).await;
                });
            }
            None => tracing::debug!(%client, "too many questions under way, dropped one"),
        }
    }
}

async fn send(socket: &UdpSocket, request: &Request, response: Response, client: SocketAddr) {
    if let Some(bytes) = request.respond(response, true)
        && let Err(error) = socket.send_to(&bytes, client).await
    {
        tracing::debug!(%client, %error, "failed to send a response");
    }
}

async fn serve_tcp(resolver: Arc<Resolver>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if connections.len() < MOST => {
                let resolver = resolver.clone();
                connections.spawn(async move {
                    if let Err(error) = serve_connection(&resolver, stream).await {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                });
            }
            Ok(_) => tracing::debug!("too many DNS connections, dropped one"),
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn serve_connection(resolver: &Resolver, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = match timeout(IDLE, stream.read_u16()).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let mut buffer = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut buffer)).await??;
        let bytes = match read(&buffer) {
            Ok(request) => request.respond(resolver.resolve(&request.query).await, false),
            Err(refusal) => refusal,
        };
        let Some(bytes) = bytes else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())).await??;
    }
}

/// An error that stays, such as too many open files, must not make a busy loop.
async fn pause_after(error: &io::Error) {
    tracing::debug!(%error, "DNS socket failed");
    tokio::time::sleep(Duration::from_millis(10)).await;
}
