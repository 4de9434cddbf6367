//! ComponentStatus: how scheduler, controller manager and store are, as of the moment somebody asks (upstream
//! `pkg/registry/core/componentstatus`). Deprecated, yet `kubectl get componentstatuses` is what many look at.

use crate::cache::selected;
use crate::outgoing::{Destination, Failure, Trust};
use crate::server::Server;
use bytes::Bytes;
use canopus_api::{Gvr, List, ListOptions, Object, Result, Status, value};
use http::Request;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

const STORE: &str = "etcd-0";
/// Components, and the ports of this machine where they answer if they run by themselves.
const PARTS: &[(&str, u16)] = &[("controller-manager", 10257), ("scheduler", 10259)];
/// Upstream `probeTimeOut`.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer is shown up to here.
const LONGEST: usize = 10 << 10;

/// The components that run in this process.
#[derive(Default)]
pub struct Components(Mutex<BTreeMap<&'static str, usize>>);

struct Running<'a>(&'a Components, &'static str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.0.lock().get_mut(self.1) {
            *count -= 1;
        }
    }
}

impl Components {
    /// Runs a component (`scheduler`, `controller-manager`), which is healthy for as long as it runs.
    pub async fn run<T>(&self, name: &'static str, component: impl Future<Output = T>) -> T {
        *self.0.lock().entry(name).or_default() += 1;
        let _running = Running(self, name);
        component.await
    }

    fn runs(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|count| *count > 0)
    }
}

/// A ComponentStatus with its one condition. `error` is set when it could not even be asked.
fn status(name: &str, healthy: bool, message: &str, error: &str) -> Arc<Object> {
    let mut condition = value!({"type": "Healthy", "status": if healthy { "True" } else { "False" }});
    for (field, text) in [("message", message), ("error", error)] {
        if !text.is_empty() {
            condition.set(field, text);
        }
    }
    let tree = value!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition],
    });
    Arc::new(Object::from_value(tree, &[], 0))
}

impl Server {
    async fn component(&self, name: &str, port: u16) -> Arc<Object> {
        if self.components.runs(name) {
            return status(name, true, "ok", "");
        }
        let asked = Request::get("/healthz").body(Bytes::new());
        let answer = match (asked, Destination::url(&format!("https://127.0.0.1:{port}"), Trust::Anybody)) {
            (Ok(request), Ok(to)) => self.outgoing.send(&to, request, PATIENCE).await,
            (Err(why), _) => Err(Failure::Transport(why.to_string())),
            (_, Err(why)) => Err(Failure::Transport(why)),
        };
        match answer {
            Ok(answer) => {
                let body = answer.body();
                let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
                match answer.status() {
                    code if code.is_success() || code.is_redirection() => status(name, true, &text, ""),
                    code => status(name, false, &format!("HTTP probe failed with statuscode: {}", code.as_u16()), ""),
                }
            }
            Err(why) => status(name, false, &why.to_string(), ""),
        }
    }

    async fn store_component(&self) -> Arc<Object> {
        match self.health.store(&*self.store).await {
            Ok(()) => status(STORE, true, "ok", ""),
            Err(why) => status(STORE, false, "", &why),
        }
    }

    pub(crate) async fn component_status(&self, name: &str) -> Result<Arc<Object>> {
        if name == STORE {
            return Ok(self.store_component().await);
        }
        let part = PARTS.iter().find(|(part, _)| *part == name);
        let (name, port) = part.ok_or_else(|| Status::not_found(&Gvr::new("", "v1", "componentstatus"), name))?;
        Ok(self.component(name, *port).await)
    }

    pub(crate) async fn component_statuses(&self, options: &ListOptions) -> List {
        let parts = PARTS.iter().map(|(name, port)| self.component(name, *port));
        let (mut items, store) = tokio::join!(futures::future::join_all(parts), self.store_component());
        items.insert(1, store);
        items.retain(|object| selected(object, options));
        List { items, ..List::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::Value;

    fn condition(object: &Object) -> Value {
        object.value()["conditions"][0].clone()
    }

    #[tokio::test]
    async fn what_runs_here_is_healthy() {
        let server = crate::testing::server().await;
        let healthy = value!({"type": "Healthy", "status": "True", "message": "ok"});
        let asked = server.components.run("scheduler", server.component_status("scheduler"));
        assert_eq!(condition(&asked.await.unwrap()), healthy);
        assert!(!server.components.runs("scheduler"));
        assert_eq!(condition(&server.component_status("etcd-0").await.unwrap()), healthy);
        // Nobody listens on port 1.
        let gone = server.component("scheduler", 1).await;
        let gone = condition(&gone);
        assert_eq!(gone["status"].str(), "False");
        assert!(gone["message"].str().starts_with("Get \"https://127.0.0.1:1/healthz\": dial tcp"), "{gone:?}");
        let e = server.component_status("kubelet").await.unwrap_err();
        assert_eq!((e.code, e.message.as_str()), (404, "componentstatus \"kubelet\" not found"));
        let all = server.component_statuses(&ListOptions::default()).await;
        let names: Vec<String> = all.items.iter().map(|o| o.name().to_string()).collect();
        assert_eq!(names, ["controller-manager", "etcd-0", "scheduler"]);
    }
}
