//! The loop that keeps the zone in step with the cluster's Services, and serves it.

mod publish;
mod translate;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use canopus_client::{Informer, Informers};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use publish::publish;
pub use translate::translate;

use super::{DnsServer, Forwarder, Resolver, Zone, upstreams};
use crate::feed::{Dirty, Feed, Key};

/// How often `resolv.conf` is looked at (CoreDNS' `reload`).
const RESOLV_CONF_PERIOD: Duration = Duration::from_secs(30);

/// Pauses after a failure to listen: the first, doubled with each further one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How the cluster's DNS is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, by UDP and TCP. These must be addresses of the node, such as its own: from a wildcard address
    /// responses could leave by another address than the one that was asked, and be lost.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// Names the servers for all other names; read again when it changes.
    pub resolv_conf: PathBuf,
    /// The cluster IPs of the DNS Service: what the zone's name server is called by, and never asked upstream.
    pub cluster_ips: Vec<IpAddr>,
}

/// Serves the cluster's names until `shutdown`. Listens when all of them are known, so that none is denied that
/// exists; failures to listen are logged and tried again.
pub async fn run(config: Config, informers: Arc<Informers>, shutdown: CancellationToken) {
    tokio::select! {
        () = serve(config, &informers) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn serve(config: Config, informers: &Informers) {
    let zone = Zone::new(&config.domain, config.cluster_ips.clone());
    let resolver = Arc::new(Resolver::new(zone, Forwarder::new(vec![])));
    let feed = Feed::start(informers).await;
    let namespaces = informers.get("", "v1", "namespaces");
    let changed = Dirty::beside(&feed.dirty);
    let dirty = changed.clone();
    namespaces.on_change(move |change| {
        if change.old.is_none() || change.new.is_none() {
            dirty.add(change.object().key());
        }
    });
    namespaces.synced().await;
    take_changes(&feed, &namespaces, changed.take(), &resolver);
    tokio::join!(listen(&config.listen, resolver.clone()), follow_resolv_conf(&config, resolver.clone()), async {
        loop {
            feed.dirty.added().await;
            take_changes(&feed, &namespaces, changed.take(), &resolver);
        }
    },);
}

/// Brings everything that changed into the zone, at once.
fn take_changes(feed: &Feed, namespaces: &Informer, changed: BTreeSet<Key>, resolver: &Resolver) {
    let translated = feed.dirty.take().into_iter().map(|key| {
        let service = feed.service(&key).and_then(|service| {
            // Only headless Services are known by their endpoints.
            let headless = service["spec"]["clusterIP"].str() == "None";
            translate(&service, &if headless { feed.slices(&key) } else { vec![] })
        });
        (key, service)
    });
    let services: Vec<_> = translated.collect();
    let namespaces: Vec<_> = changed.into_iter().map(|name| (namespaces.by_key(&name).is_some(), name)).collect();
    resolver.update(|zone| {
        for (key, service) in services {
            let Some((namespace, name)) = key.split_once('/') else { continue };
            if zone.service(namespace, name) != service.as_ref() {
                zone.set_service(namespace, name, service);
            }
        }
        for (exists, name) in namespaces {
            zone.set_namespace(&name, exists);
        }
    });
}

async fn listen(addresses: &[SocketAddr], resolver: Arc<Resolver>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match DnsServer::bind(resolver.clone(), addresses).await {
            Ok(server) => {
                tracing::info!(addresses = ?server.addresses(), "serving the cluster's DNS");
                server.run().await;
            }
            Err(error) => tracing::warn!(%error, ?addresses, again_in = ?pause, "failed to listen for DNS"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn follow_resolv_conf(config: &Config, resolver: Arc<Resolver>) {
    let own: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).chain(config.cluster_ips.iter().copied()).collect();
    let mut known = None;
    loop {
        let text = read(&config.resolv_conf).await;
        if text.is_some() && text != known {
            let servers = upstreams(text.as_deref().unwrap_or_default(), &own);
            tracing::info!(?servers, "other names are asked of these servers");
            resolver.forwarder().set_upstreams(servers);
            known = text;
        }
        sleep(RESOLV_CONF_PERIOD).await;
    }
}

async fn read(path: &Path) -> Option<String> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "failed to read the list of upstream DNS servers");
            None
        }
    }
}
