//! Custom resources from one of their versions to another (upstream `apiserver/conversion` and the codec of
//! `customresource_handler.go`): what is stored is read by the schema of the version it was stored in, renamed or put to the
//! definition's conversion webhook, and pruned by the schema of the version that is wanted.

mod known;
pub mod metrics;
mod review;
#[cfg(test)]
mod tests;
mod webhook;

pub use known::Known;
pub use webhook::Webhook;

use crate::server::Server;
use canopus_api::{Result, Status, Value};
use canopus_resources::Resource;
use canopus_resources::custom::CustomResource;
use std::sync::Arc;

/// All versions of a definition, and who converts between them.
pub struct Conversion {
    versions: Vec<Arc<CustomResource>>,
    webhook: Option<Webhook>,
}

impl Conversion {
    pub fn of(server: &Arc<Server>, definition: &Value, versions: Vec<Arc<CustomResource>>) -> Conversion {
        let asks = definition["spec"]["conversion"]["strategy"].str() == "Webhook";
        Conversion { versions, webhook: asks.then(|| Webhook::of(server, definition)) }
    }

    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }

    fn version(&self, api_version: &str) -> Option<&CustomResource> {
        self.versions.iter().find(|v| v.api_version() == api_version).map(|v| &**v)
    }

    /// An object as it was stored, by the schema that its own version has now: pruned, and with its defaults.
    fn read(&self, object: &mut Value) {
        if let Some(version) = self.version(object["apiVersion"].str()) {
            version.prune(object);
            version.default(object);
        }
    }

    /// A stored object in another version when only its name differs (strategy `None`).
    pub fn read_as(&self, object: &mut Value, api_version: &str) {
        self.read(object);
        self.rename(object, api_version);
    }

    /// An object in another version when only its name differs (strategy `None`).
    pub fn rename(&self, object: &mut Value, api_version: &str) {
        if object["apiVersion"].str() == api_version {
            return;
        }
        object.set("apiVersion", api_version);
        if let Some(version) = self.version(api_version) {
            version.prune(object);
        }
    }

    /// Stored objects in another version, by webhook or without.
    pub async fn read_all(&self, mut objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>> {
        objects.iter_mut().for_each(|object| self.read(object));
        self.convert_all(objects, api_version).await
    }

    /// Objects in another version, by webhook or without.
    pub async fn convert_all(&self, mut objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>> {
        let Some(webhook) = &self.webhook else {
            objects.iter_mut().for_each(|object| self.rename(object, api_version));
            return Ok(objects);
        };
        let Some(to) = self.version(api_version) else {
            return Err(failed(format!("request to convert CR to an invalid group/version: {api_version}")));
        };
        let (mut wanted, mut renamed) = (Vec::new(), Vec::new());
        for (at, object) in objects.iter().enumerate() {
            let from = object["apiVersion"].str();
            if self.version(from).is_none() {
                return Err(failed(format!("request to convert CR from an invalid group/version: {from}")));
            }
            if is_empty(object) {
                renamed.push(at);
            } else if from != api_version {
                wanted.push(at);
            }
        }
        renamed.into_iter().for_each(|at| self.rename(&mut objects[at], api_version));
        let sent = wanted.iter().map(|at| std::mem::take(&mut objects[*at])).collect();
        let converted = webhook.convert(sent, api_version).await.map_err(failed)?;
        for (at, mut object) in wanted.into_iter().zip(converted) {
            to.prune(&mut object);
            objects[at] = object;
        }
        Ok(objects)
    }

    pub async fn convert(&self, object: &mut Value, api_version: &str) -> Result<()> {
        let all = self.convert_all(vec![std::mem::take(object)], api_version).await?;
        *object = all.into_iter().next().unwrap_or_default();
        Ok(())
    }
}

/// Nothing but a kind: no webhook need be asked what that is.
fn is_empty(object: &Value) -> bool {
    object.entries().all(|(field, value)| match field.as_str() {
        "apiVersion" | "kind" => true,
        "metadata" => value.entries().all(|(_, value)| value.is_null()),
        _ => false,
    })
}

/// Upstream knows no better word for it.
fn failed(why: String) -> Status {
    Status::new(500, "", why)
}
