//! Forgets history that nobody can still ask for: every five minutes, what is older than the five minutes before.

use crate::server::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Upstream's etcd-compaction-interval.
const PERIOD: Duration = Duration::from_secs(300);

pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    let mut last = server.store.revision();
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = compact(&server, last).await {
            tracing::warn!(%error, "failed to compact the store");
        }
        last = server.store.revision();
    }
}

/// Servers that share a store take turns.
async fn compact(server: &Server, up_to: u64) -> Result<(), canopus_store::Error> {
    if server.store.may_compact(up_to).await? { server.store.compact(up_to).await } else { Ok(()) }
}
