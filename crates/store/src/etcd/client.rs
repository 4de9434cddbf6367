//! etcd's calls over whichever of its servers answers.

use super::grpc::{Channel, Fault, Stream, code};
use super::messages::{self, Compare, Operation, RangeRequest, RangeResponse, TxnResponse};
use super::tls::{Endpoint, Tls};
use crate::{Error, Revision};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a call may take, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts: at first, and at most.
const PAUSE: Duration = Duration::from_millis(20);
const LONG_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Client {
    endpoints: Vec<Endpoint>,
    tls: Tls,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// The open connection, with the turn in which it was opened.
    channel: Mutex<Option<(Channel, usize)>>,
}

/// What may be done about a call that failed.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    /// It changes nothing: ask again.
    Freely,
    /// Only if it was never sent.
    IfUnsent,
}

impl Client {
    pub(super) fn new(servers: &[String], tls: Tls) -> Result<Client, Error> {
        let endpoints: Vec<Endpoint> = servers.iter().map(|text| Endpoint::parse(text)).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Configuration("no etcd server is given".into()));
        }
        if endpoints.iter().any(|endpoint| endpoint.server_name().is_some()) {
            tls.check()?;
        }
        Ok(Client { endpoints, tls, turn: AtomicUsize::new(0), channel: Mutex::new(None) })
    }

    async fn channel(&self) -> Result<(Channel, usize), Fault> {
        let mut channel = self.channel.lock().await;
        let turn = self.turn.load(Ordering::Acquire);
        if let Some((open, of)) = &*channel
            && *of == turn
        {
            return Ok((open.clone(), turn));
        }
        *channel = None;
        match Channel::connect(&self.endpoints[turn % self.endpoints.len()], &self.tls).await {
            Ok(open) => {
                *channel = Some((open.clone(), turn));
                Ok((open, turn))
            }
            Err(fault) => {
                self.next_turn(turn);
                Err(fault)
            }
        }
    }

    /// What was tried in `turn` is no good; others may have noticed before.
    fn next_turn(&self, turn: usize) {
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire);
    }

    async fn call(&self, path: &str, message: &[u8], repeat: Repeat) -> Result<Bytes, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let attempt = async {
                let (channel, turn) = self.channel().await?;
                let answer = channel.unary(path, message).await;
                if answer.as_ref().is_err_and(another_server) {
                    self.next_turn(turn);
                }
                answer
            };
            let fault = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) => fault,
                Err(_) => {
                    self.next_turn(self.turn.load(Ordering::Acquire));
                    return Err(Fault::Broken("etcd did not answer in time".into()));
                }
            };
            let again = match fault {
                Fault::NotSent(_) => true,
                _ => repeat == Repeat::Freely && another_server(&fault),
            };
            if !again || Instant::now() + pause >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONG_PAUSE);
        }
    }

    pub(super) async fn range(&self, request: &RangeRequest<'_>) -> Result<RangeResponse, Fault> {
        let answer = self.call("/etcdserverpb.KV/Range", &request.write().finish(), Repeat::Freely).await?;
        Ok(RangeResponse::read(&answer)?)
    }

    /// The cluster's id, and its revision as of now, linearizable.
    pub(super) async fn revision(&self) -> Result<(u64, Revision), Fault> {
        let nothing = RangeRequest { key: b"compact_rev_key", keys_only: true, ..RangeRequest::default() };
        self.range(&nothing).await.map(|answer| (answer.cluster, answer.revision))
    }

    pub(super) async fn txn(
        &self,
        compare: Option<Compare<'_>>,
        then: &Operation<'_>,
        or: Option<&Operation<'_>>,
    ) -> Result<TxnResponse, Fault> {
        let answer = self.call("/etcdserverpb.KV/Txn", &messages::txn(compare, then, or), Repeat::IfUnsent).await?;
        Ok(TxnResponse::read(&answer)?)
    }

    pub(super) async fn compact(&self, revision: Revision) -> Result<(), Fault> {
        self.call("/etcdserverpb.KV/Compact", &messages::compact(revision), Repeat::IfUnsent).await.map(drop)
    }

    /// A lease of so many seconds.
    pub(super) async fn grant(&self, seconds: u64) -> Result<u64, Fault> {
        let answer = self.call("/etcdserverpb.Lease/LeaseGrant", &messages::grant(seconds), Repeat::IfUnsent).await?;
        Ok(messages::granted(&answer)?)
    }

    /// Follows every key from `revision` on. One attempt.
    pub(super) async fn watch(&self, revision: Revision) -> Result<Stream, Fault> {
        let open = async {
            let (channel, turn) = self.channel().await?;
            let stream = channel.stream("/etcdserverpb.Watch/Watch", &messages::watch_everything(revision)).await;
            if stream.as_ref().is_err_and(another_server) {
                self.next_turn(turn);
            }
            stream
        };
        let opened = tokio::time::timeout(PATIENCE, open).await;
        opened.unwrap_or_else(|_| Err(Fault::Broken("etcd did not answer in time".into())))
    }

    /// Another connection must be found: this one's watch has ended without need.
    pub(super) async fn abandon(&self) {
        self.channel.lock().await.take();
        self.next_turn(self.turn.load(Ordering::Acquire));
    }
}

/// Whether another server, or a later moment, may do better.
fn another_server(fault: &Fault) -> bool {
    match fault {
        Fault::NotSent(_) | Fault::Broken(_) => true,
        Fault::Status { code, .. } => matches!(*code, code::UNAVAILABLE | code::DEADLINE_EXCEEDED),
    }
}

/// A fault as the store's callers see it. etcd tells what is wrong by its messages.
pub(super) fn error(fault: Fault, requested: Revision, compacted: Revision, current: Revision) -> Error {
    let message: Arc<str> = match fault {
        Fault::NotSent(message) | Fault::Broken(message) => return Error::Unavailable(message),
        Fault::Status { message, .. } => message,
    };
    if message.contains("required revision has been compacted") {
        // It doesn't say up to where.
        return Error::Compacted { requested, compacted: compacted.max(requested + 1) };
    }
    if message.contains("required revision is a future revision") {
        return Error::FutureRevision { requested, current };
    }
    Error::Unavailable(message)
}

#[cfg(any(test, feature = "contract"))]
impl Client {
    /// A `DeleteRange`.
    pub(super) async fn delete(&self, request: super::wire::Writer) -> Result<(), Fault> {
        self.call("/etcdserverpb.KV/DeleteRange", &request.finish(), Repeat::IfUnsent).await.map(drop)
    }
}

#[cfg(test)]
impl Client {
    /// Ends a lease.
    pub(super) async fn revoke(&self, id: u64) -> Result<(), Fault> {
        let request = super::wire::Writer::default().int(1, id).finish();
        self.call("/etcdserverpb.Lease/LeaseRevoke", &request, Repeat::IfUnsent).await.map(drop)
    }
}
