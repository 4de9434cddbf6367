//! Leases, each shared by many keys that expire at about the same time (upstream `leaseManager`).

use super::client::Client;
use super::grpc::Fault;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A lease may outlive what it was asked for by so much, or a twentieth, whichever is less.
const REUSE: u64 = 60;
/// And so many keys share one.
const MAX_KEYS: u32 = 1000;

#[derive(Default)]
pub(super) struct Leases(Mutex<Option<Lease>>);

struct Lease {
    id: u64,
    expires: Instant,
    keys: u32,
}

impl Leases {
    /// A lease that lasts `ttl`, and a little longer.
    pub(super) async fn get(&self, client: &Client, ttl: Duration) -> Result<u64, Fault> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let extra = (seconds / 20).min(REUSE);
        let mut last = self.0.lock().await;
        let now = Instant::now();
        let (least, most) = (now + Duration::from_secs(seconds), now + Duration::from_secs(seconds + extra));
        if let Some(lease) = &mut *last
            && lease.expires > least
            && lease.expires < most
            && lease.keys < MAX_KEYS
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let id = client.grant((seconds + extra).max(1)).await?;
        *last = Some(Lease { id, expires: most, keys: 1 });
        Ok(id)
    }

    /// etcd doesn't know this lease any more.
    pub(super) async fn forget(&self, id: u64) {
        let mut last = self.0.lock().await;
        if last.as_ref().is_some_and(|lease| lease.id == id) {
            *last = None;
        }
    }
}
