//! Which API servers there are, when several share a store: each keeps a key alive under upstream's `masterleases`, and
//! `default/kubernetes` leads to all whose keys live (upstream `leaseEndpointReconciler`).

use crate::bootstrap;
use crate::server::Server;
use crate::storage;
use canopus_api::{Object, Result, value};
use canopus_store::{Change, Expect, Write, prefix_end};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "/registry/masterleases/";
/// How long a server counts that doesn't renew its key.
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(10);

/// Renews this server's key; answers everybody's addresses, sorted.
pub(crate) async fn renew(server: &Server, address: IpAddr) -> Result<Vec<IpAddr>> {
    if !server.store.shared() {
        return Ok(vec![address]);
    }
    let mut lease = value!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"generation": 1},
        "subsets": [{"addresses": [{"ip": address.to_string()}]}],
    });
    let change = Change::Put { value: Object::encode(&mut lease), facts: None, ttl: Some(TTL) };
    let write = Write { key: format!("{PREFIX}{address}").into(), expect: Expect::Anything, change };
    server.store.commit(write).await.map_err(storage::status)?;
    list(server).await
}

async fn list(server: &Server) -> Result<Vec<IpAddr>> {
    let range = server.store.range(PREFIX, &prefix_end(PREFIX), None, 0).await.map_err(storage::status)?;
    let address = |bytes| storage::decode(bytes).ok()?.0["subsets"][0]["addresses"][0]["ip"].str().parse().ok();
    let mut all: Vec<IpAddr> = range.items.iter().filter_map(|version| address(&version.value)).collect();
    all.sort();
    Ok(all)
}

/// Keeps the key and `default/kubernetes` true until `shutdown`, then takes this server out of both.
pub async fn run(server: Arc<Server>, address: IpAddr, port: u16, shutdown: CancellationToken) {
    if !server.store.shared() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => break,
        }
        let renewed = async { bootstrap::publish(&server, &renew(&server, address).await?, port).await };
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "failed to renew this server's lease");
        }
    }
    let left = async {
        server
            .store
            .commit(Write::delete(format!("{PREFIX}{address}"), Expect::Anything))
            .await
            .map_err(storage::status)?;
        match &*list(&server).await? {
            // The last one leaves the door as it was.
            [] => Ok(()),
            others => bootstrap::publish(&server, others, port).await,
        }
    };
    if let Err(error) = left.await {
        tracing::warn!(%error, "failed to give up this server's lease");
    }
}
