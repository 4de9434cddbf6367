//! The API in-process: the same handlers, authorization and admission, under a fixed identity; only TLS and parsing are skipped.

use crate::audit;
use crate::authz::Attributes;
use crate::server::Server;
use crate::user::User;
use async_trait::async_trait;
use canopus_api::{Api, DeleteOptions, List, ListOptions, Object, Patch, Result, Target, Value, Watch, WriteOptions};
use std::sync::Arc;

pub struct LocalApi {
    server: Arc<Server>,
    user: Arc<User>,
    /// The field manager of writes that name none.
    manager: String,
}

impl LocalApi {
    /// The door for one identity. `manager` is the component's name, as it would appear in a User-Agent.
    pub fn shared(server: Arc<Server>, user: Arc<User>, manager: &str) -> Arc<dyn Api> {
        Arc::new(LocalApi { server, user, manager: manager.into() })
    }

    async fn allow(&self, verb: &str, target: &Target) -> Result<()> {
        self.server.authorize(&Attributes::target(&self.user, verb, target)).await
    }

    async fn allow_selected(&self, verb: &str, target: &Target, options: &ListOptions) -> Result<()> {
        let target = if verb == "deletecollection" { target.clone() } else { pinned(target, options) };
        self.server
            .authorize(&Attributes {
                fields: &options.fields.terms,
                labels: options.labels.requirements(),
                ..Attributes::target(&self.user, verb, &target)
            })
            .await
    }

    /// Tells the audit log, if there is one.
    async fn recorded<T>(
        &self,
        verb: &str,
        target: &Target,
        body: Option<Value>,
        work: impl Future<Output = Result<T>> + Send,
        object: impl FnOnce(&T) -> Option<Arc<Object>> + Send,
    ) -> Result<T> {
        let Some(audit) = self.server.audit.get() else { return work.await };
        let attributes = Attributes::target(&self.user, verb, target);
        audit::local(audit, &attributes, &uri(verb, target), body.as_ref(), work, object).await
    }

    /// What is shown to the audit log of what is written.
    fn shown(&self, body: &Value) -> Option<Value> {
        self.server.audit.get().map(|_| body.clone())
    }

    /// Cancelling a caller must not cancel a write half-way between its parts (an address reserved, an object not yet
    /// written).
    async fn detached<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.server.runtime.spawn(work).await.map_err(canopus_api::Status::internal)?
    }

    fn options(&self, options: &WriteOptions) -> WriteOptions {
        let mut options = options.clone();
        if options.field_manager.is_empty() {
            options.field_manager = self.manager.as_str().into();
        }
        options
    }
}

#[async_trait]
impl Api for LocalApi {
    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        let work = async {
            self.allow("get", target).await?;
            if target.subresource.is_empty() || target.subresource == "status" {
                return self.server.get(target, None).await;
            }
            self.server.get_subresource(target).await
        };
        self.recorded("get", target, None, work, |object| Some(object.clone())).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let work = async {
            self.allow_selected("list", target, options).await?;
            self.server.list(target, options).await
        };
        self.recorded("list", target, None, work, |_| None).await
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let work = async {
            self.allow_selected("watch", target, options).await?;
            self.server.watch(target, options).await
        };
        self.recorded("watch", target, None, work, |_| None).await
    }

    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>> {
        let shown = self.shown(&body);
        let work = async {
            self.allow("create", target).await?;
            let (server, user, target, options) =
                (self.server.clone(), self.user.clone(), target.clone(), self.options(options));
            self.detached(async move { Ok(server.post(&user, &target, body, &options).await?.object) }).await
        };
        self.recorded("create", target, shown, work, |object| Some(object.clone())).await
    }

    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>> {
        let shown = self.shown(&body);
        let work = async {
            self.allow("update", target).await?;
            let (server, user, target, options) =
                (self.server.clone(), self.user.clone(), target.clone(), self.options(options));
            self.detached(async move { Ok(server.put_target(&user, &target, body, &options).await?.object) }).await
        };
        self.recorded("update", target, shown, work, |object| Some(object.clone())).await
    }

    async fn patch(&self, target: &Target, patch: Patch, options: &WriteOptions) -> Result<Arc<Object>> {
        let work = async {
            self.allow("patch", target).await?;
            let (server, user, target, options) =
                (self.server.clone(), self.user.clone(), target.clone(), self.options(options));
            self.detached(async move { Ok(server.patch_target(&user, &target, patch, &options).await?.object) }).await
        };
        self.recorded("patch", target, None, work, |object| Some(object.clone())).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Arc<Object>> {
        let work = async {
            self.allow("delete", target).await?;
            let (server, user, target, options) =
                (self.server.clone(), self.user.clone(), target.clone(), options.clone());
            self.detached(async move { Ok(server.delete(&user, &target, &options).await?.object) }).await
        };
        self.recorded("delete", target, None, work, |object| Some(object.clone())).await
    }

    async fn delete_collection(&self, target: &Target, list: &ListOptions, options: &DeleteOptions) -> Result<()> {
        let work = async {
            self.allow_selected("deletecollection", target, list).await?;
            self.server.delete_collection(&self.user, target, list, options).await.map(|_| ())
        };
        self.recorded("deletecollection", target, None, work, |()| None).await
    }
}

/// A list or watch of one named object is authorized as such (upstream puts the name of a field selector into the request).
pub fn pinned(target: &Target, options: &ListOptions) -> Target {
    let mut pinned = target.clone();
    if let Some(name) = options.fields.required("metadata.name") {
        pinned.name = name.into();
    }
    pinned
}

/// The path such a request would have had.
fn uri(verb: &str, target: &Target) -> String {
    let gvr = &target.gvr;
    let mut uri = match gvr.group.is_empty() {
        true => format!("/api/{}", gvr.version),
        false => format!("/apis/{}/{}", gvr.group, gvr.version),
    };
    if !target.namespace.is_empty() {
        uri += &format!("/namespaces/{}", target.namespace);
    }
    uri += &format!("/{}", gvr.resource);
    // What is created is named in its body, unless it is a part of something.
    for part in [&target.name, &target.subresource] {
        if !part.is_empty() && (verb != "create" || !target.subresource.is_empty()) {
            uri += &format!("/{part}");
        }
    }
    uri
}
