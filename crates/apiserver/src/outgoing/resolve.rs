//! From a Service to somebody who listens, in the server's own caches (upstream `proxy.ResolveEndpoint` and the Service
//! registry's `ResourceLocation`).

use crate::cache::Cache;
use canopus_api::{Gvr, Status, Value, View, labels};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Services {
    services: Arc<Cache>,
    slices: Arc<Cache>,
    /// Endpoints take turns.
    turn: AtomicUsize,
}

/// Somebody who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// A port of a Service, as a caller asks for it.
#[derive(Clone, Copy, Debug)]
pub enum Port<'a> {
    Number(u16),
    /// "" for the port without a name.
    Name(&'a str),
}

impl Services {
    pub fn new(services: Arc<Cache>, slices: Arc<Cache>) -> Services {
        Services { services, slices, turn: AtomicUsize::new(0) }
    }

    /// The Service, if there is one.
    pub fn service(&self, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        let found = View::get(&*self.services, namespace, name);
        let missing = || {
            let mut status = Status::not_found(&Gvr::new("", "v1", "services"), name);
            // Upstream's lister knows the resource in the singular.
            status.message = format!("service {name:?} not found");
            status
        };
        Ok(found.ok_or_else(missing)?.value())
    }

    /// Whether endpoints are known for the Service at all.
    pub fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<Value>> {
        let of = |o: &canopus_api::Object| o.facts.label(labels::SERVICE_NAME) == Some(name);
        View::list(&*self.slices, namespace).into_iter().filter(|o| of(o)).map(|o| o.value()).collect()
    }

    /// Where to call a Service's port of this number.
    pub fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Endpoint, Status> {
        let service = self.service(namespace, name)?;
        match service["spec"]["type"].str() {
            "ExternalName" => Ok(Endpoint { host: service["spec"]["externalName"].str().into(), port }),
            _ => self.endpoint(&service, Port::Number(port)),
        }
    }

    /// A ready endpoint of the Service's port.
    pub fn endpoint(&self, service: &Value, port: Port) -> Result<Endpoint, Status> {
        let (namespace, name) = (service["metadata"]["namespace"].str(), service["metadata"]["name"].str());
        let port_name = match port {
            Port::Name(name) => name,
            Port::Number(number) => {
                let ports = service["spec"]["ports"].items();
                let found = ports.iter().find(|p| p["port"].int() == i64::from(number));
                let missing = || Status::unavailable(format!("no service port {number} found for service {name:?}"));
                found.ok_or_else(missing)?["name"].str()
            }
        };
        let slices = self.slices(namespace, name);
        let family = service["spec"]["ipFamilies"].items().first().map_or("", Value::str);
        let of_family = |first: bool| -> Vec<Endpoint> {
            let slices = slices.iter().filter(|s| (s["addressType"].str() == family) == first);
            slices.flat_map(|slice| ready(slice, port_name)).collect()
        };
        let mut ready = of_family(true);
        if ready.is_empty() {
            ready = of_family(false);
        }
        if ready.is_empty() {
            return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Ok(ready[turn % ready.len()].clone())
    }
}

/// The ready endpoints of a slice that has a port of this name.
fn ready(slice: &Value, port_name: &str) -> Vec<Endpoint> {
    let port = slice["ports"].items().iter().find(|p| p["name"].str() == port_name && !p["port"].is_null());
    let Some(port) = port.and_then(|p| u16::try_from(p["port"].int()).ok()) else { return Vec::new() };
    let ready = slice["endpoints"].items().iter().filter(|e| e["conditions"]["ready"].as_bool().unwrap_or(true));
    ready
        .filter_map(|e| e["addresses"].items().first())
        .map(|address| Endpoint { host: address.str().into(), port })
        .collect()
}
