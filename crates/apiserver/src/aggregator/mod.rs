//! API aggregation (upstream `kube-aggregator`): group versions that extension API servers answer for. APIServices with a
//! Service say which; whether they can be reached is looked after here, and requests for them are passed on with the
//! user in headers that a client certificate vouches for.

mod availability;
mod discovery;
mod proxy;
mod registration;
mod run;
#[cfg(test)]
mod tests;

pub use proxy::proxy;
pub use run::{HOOKS, run};

use crate::outgoing::{Destination, Trust, tls};
use crate::pki::Identity;
use base64::Engine;
use canopus_api::Value;
use parking_lot::RwLock;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What requests are routed by.
#[derive(Default)]
pub struct Aggregator {
    identity: OnceLock<Arc<Identity>>,
    remotes: RwLock<Arc<Remotes>>,
}

/// By group and version.
type Remotes = BTreeMap<(String, String), Arc<Remote>>;

/// An extension API server's group version.
pub struct Remote {
    /// The APIService's.
    pub name: String,
    pub group: String,
    pub version: String,
    pub priority: (i32, i32),
    to: Destination,
    tls: Result<Arc<ClientConfig>, String>,
    /// As the APIService's status says.
    available: bool,
}

impl Aggregator {
    /// The front-proxy client certificate. Without one extension servers have no reason to believe who asks.
    pub fn identify(&self, identity: Identity) {
        // The first stays: there is one for each process.
        let _ = self.identity.set(Arc::new(identity));
    }

    /// Who answers for a path, when it is somebody else.
    pub fn remote(&self, path: &str) -> Option<Arc<Remote>> {
        let remotes = self.remotes.read();
        if remotes.is_empty() {
            return None;
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        match (parts.next()?, parts.next()?) {
            ("apis", group) => remotes.get(&(group.to_string(), parts.next()?.to_string())).cloned(),
            ("api", version) => remotes.get(&(String::new(), version.to_string())).cloned(),
            _ => None,
        }
    }

    fn all(&self) -> Arc<Remotes> {
        self.remotes.read().clone()
    }

    /// Takes over what the APIServices say; those of this server's own are none.
    fn set<'a>(&self, services: impl Iterator<Item = &'a Value>) {
        let before = self.all();
        let found = services.filter_map(|service| {
            let remote = Remote::of(service, self.identity.get())?;
            let key = (remote.group.clone(), remote.version.clone());
            Some(match before.get(&key).filter(|known| known.same(&remote)) {
                // TLS configurations, and the sessions in them, are worth keeping.
                Some(known) => (key, known.clone()),
                None => (key, Arc::new(remote)),
            })
        });
        let remotes: Remotes = found.collect();
        if !(remotes.is_empty() && before.is_empty()) {
            *self.remotes.write() = Arc::new(remotes);
        }
    }
}

impl Remote {
    fn of(service: &Value, identity: Option<&Arc<Identity>>) -> Option<Remote> {
        let spec = &service["spec"];
        let place = &spec["service"];
        if place.is_null() {
            return None;
        }
        let bundle = base64::engine::general_purpose::STANDARD.decode(spec["caBundle"].str()).unwrap_or_default();
        let trust = if spec["insecureSkipTLSVerify"].bool() { Trust::Anybody } else { Trust::bundle(&bundle) };
        let port = u16::try_from(place["port"].as_i64().unwrap_or(443)).ok()?;
        let mut to = Destination::service(place["namespace"].str(), place["name"].str(), port, trust);
        to.identity = identity.cloned();
        let number = |field: &str| i32::try_from(spec[field].int()).unwrap_or(0);
        Some(Remote {
            name: service["metadata"]["name"].str().into(),
            group: spec["group"].str().into(),
            version: spec["version"].str().into(),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            tls: tls::client_config(&to.trust, to.identity.as_deref()).map(Arc::new),
            to,
            available: available(service),
        })
    }

    fn same(&self, other: &Remote) -> bool {
        self.to == other.to && self.available == other.available && self.priority == other.priority
    }

    /// `/apis/group/version`.
    fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }
}

fn available(service: &Value) -> bool {
    let conditions = service["status"]["conditions"].items().iter();
    conditions.filter(|c| c["type"].str() == "Available").any(|c| c["status"].str() == "True")
}
