//! Whether an extension API server can be reached (upstream `remote_available_controller`), as a condition.

use super::Remote;
use super::proxy::identify;
use crate::outgoing::Place;
use crate::server::Server;
use crate::user::{MASTERS, User};
use bytes::Bytes;
use canopus_api::{Time, Value, value};
use futures::future::join_all;
use http::Request;
use std::time::Duration;

/// How many endpoints are tried.
const ATTEMPTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(5);

/// Status, reason and message of the condition `Available`.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

fn no(reason: &'static str, message: String) -> Found {
    Found { status: "False", reason, message }
}

/// Looks at the Service and its endpoints, then asks one of them for discovery.
pub async fn check(server: &Server, remote: &Remote) -> Found {
    let Place::Service { namespace, name, port } = &remote.to.place else {
        return no("ServiceNotFound", "there is no service".into());
    };
    let Ok(service) = server.outgoing.services().service(namespace, name) else {
        return no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    let slices = server.outgoing.services().slices(namespace, name);
    let endpoints = match reachable(&service, *port, &slices.iter().map(|s| &**s).collect::<Vec<_>>()) {
        Ok(endpoints) => endpoints,
        Err(found) => return found,
    };
    let attempts = (0..endpoints.clamp(1, ATTEMPTS)).map(|_| ask(server, remote));
    let mut last = None;
    for answer in join_all(attempts).await {
        match answer {
            Ok(()) => return Found { status: "True", reason: "Passed", message: "all checks passed".into() },
            Err(why) => last = Some(why),
        }
    }
    no("FailedDiscoveryCheck", last.unwrap_or_default())
}

/// How many endpoints are ready.
fn reachable(service: &Value, port: u16, slices: &[&Value]) -> Result<usize, Found> {
    let meta = &service["metadata"];
    let (name, namespace) = (meta["name"].str(), meta["namespace"].str());
    if !matches!(service["spec"]["type"].str(), "" | "ClusterIP") {
        return Ok(1);
    }
    let ports = service["spec"]["ports"].items();
    let Some(found) = ports.iter().find(|p| p["port"].int() == i64::from(port)) else {
        let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(no("ServicePortError", why));
    };
    if slices.is_empty() {
        let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(no("EndpointsNotFound", why));
    }
    let port = found["name"].str();
    let with_port = slices.iter().filter(|s| s["ports"].items().iter().any(|p| p["name"].str() == port));
    let ready = |e: &&Value| e["conditions"]["ready"].as_bool().unwrap_or(true);
    match with_port.flat_map(|s| s["endpoints"].items()).filter(ready).count() {
        0 => {
            let why =
                format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}");
            Err(no("MissingEndpoints", why))
        }
        ready => Ok(ready),
    }
}

async fn ask(server: &Server, remote: &Remote) -> Result<(), String> {
    let path = remote.path();
    let url = format!("{}{path}", remote.to.origin());
    let answer =
        get(server, remote, &path).await.map_err(|why| format!("failing or missing response from {url}: {why}"))?;
    match answer.status() {
        code if code.is_success() => Ok(()),
        code => {
            let why = format!("bad status from {url}: {}", code.as_u16());
            Err(format!("failing or missing response from {url}: {why}"))
        }
    }
}

/// Asks the extension server something as the aggregator itself, who may see everything.
pub(super) async fn get(server: &Server, remote: &Remote, path: &str) -> Result<http::Response<Bytes>, String> {
    let mut request = Request::get(path).body(Bytes::new()).map_err(|e| e.to_string())?;
    let aggregator = User { name: "system:kube-aggregator".into(), groups: vec![MASTERS.into()], ..User::default() };
    identify(request.headers_mut(), &aggregator);
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    server.outgoing.send(&remote.to, request, PATIENCE).await.map_err(|failure| failure.to_string())
}

/// The status with the condition in it; None when it says so already.
pub fn status_with(status: &Value, found: &Found, now: Time) -> Option<Value> {
    let mut conditions = status["conditions"].items().to_vec();
    let known = conditions.iter_mut().find(|c| c["type"].str() == "Available");
    let mut condition = value!({
        "type": "Available", "status": found.status, "lastTransitionTime": now, "reason": found.reason,
        "message": &found.message,
    });
    match known {
        Some(known) => {
            let said = (known["status"].str(), known["reason"].str(), known["message"].str());
            if said == (found.status, found.reason, found.message.as_str()) {
                return None;
            }
            if said.0 == found.status {
                condition.set("lastTransitionTime", &known["lastTransitionTime"]);
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    let mut status = status.clone();
    status.set("conditions", Value::Array(conditions));
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_service_from_answering() {
        let service = |kind: &str| {
            value!({
                "metadata": {"name": "s", "namespace": "n"},
                "spec": {"type": kind, "ports": [{"name": "https", "port": 443}]},
            })
        };
        let slice = |ready: bool| value!({"ports": [{"name": "https", "port": 8443}], "endpoints": [{"conditions": {"ready": ready}}]});
        let look = |kind: &str, port, slices: &[Value]| {
            reachable(&service(kind), port, &slices.iter().collect::<Vec<_>>()).map_err(|found| found.reason)
        };
        assert_eq!(look("ClusterIP", 443, &[slice(true)]), Ok(1));
        assert_eq!(look("ClusterIP", 80, &[slice(true)]), Err("ServicePortError"));
        assert_eq!(look("ClusterIP", 443, &[]), Err("EndpointsNotFound"));
        assert_eq!(look("ClusterIP", 443, &[slice(false)]), Err("MissingEndpoints"));
        assert_eq!(look("NodePort", 80, &[]), Ok(1));
    }

    #[test]
    fn a_condition_changes_when_it_says_something_else() {
        let found = |status, message: &str| Found { status, reason: "R", message: message.into() };
        let first = status_with(&Value::Null, &found("False", "a"), Time(0)).unwrap();
        assert_eq!(status_with(&first, &found("False", "a"), Time(1_000_000)), None);
        let second = status_with(&first, &found("False", "b"), Time(1_000_000)).unwrap();
        assert_eq!(second["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
        let third = status_with(&second, &found("True", "b"), Time(1_000_000)).unwrap();
        assert_ne!(third["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
        assert_eq!(third["conditions"].items().len(), 1);
    }
}
