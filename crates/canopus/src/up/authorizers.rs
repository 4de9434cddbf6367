//! Who decides what is authorized: as a file says, which may change, or as flags say.

use super::audit::destination;
use crate::cli::auth::AuthzArgs;
use anyhow::{Context, Result, anyhow, bail};
use canopus_api::value;
use canopus_apiserver::authz::Union;
use canopus_apiserver::authz::abac::Policies;
use canopus_apiserver::authz::config::{self, Configured};
use canopus_apiserver::authz::privileged;
use canopus_apiserver::authz::rbac::Rbac;
use canopus_apiserver::surroundings::{Surroundings, System};
use canopus_apiserver::{Server, reload};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub struct Authorizers {
    made: privileged::Authorizers,
    file: Option<PathBuf>,
    /// Those that may not go while the server runs.
    kinds: Vec<&'static str>,
}

impl Authorizers {
    pub fn setup(server: &Server, rbac: &Arc<Rbac>, args: &AuthzArgs) -> Result<(Authorizers, Union)> {
        let configured = match &args.authorization_config {
            Some(path) => {
                let (configured, text) = parse(path)?;
                server.metrics.authorization_config.began(&text);
                configured
            }
            None => of_flags(args).map_err(|e| anyhow!("failed to understand --authorization-*: {e}"))?,
        };
        let kinds: Vec<&str> = configured.iter().map(Configured::kind).filter(|k| *k != "Webhook").collect();
        let made = privileged::Authorizers::new(server, rbac, kinds.contains(&"Node"));
        let made = made.map_err(|e| anyhow!("failed to set up authorization: {e}"))?;
        let authorizers = Authorizers { made, file: args.authorization_config.clone(), kinds };
        let union = authorizers.union(configured)?;
        Ok((authorizers, union))
    }

    fn union(&self, configured: Vec<Configured>) -> Result<Union> {
        let found = self.made.union(configured, |path| destination(path).map_err(|e| format!("{e:#}")));
        found.map_err(anyhow::Error::msg)
    }

    /// Reads the file again when it changes. What cannot be used changes nothing.
    pub fn follow(self: &Arc<Self>, server: &Arc<Server>, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let Some(path) = self.file.clone() else { return };
        let (own, server) = (self.clone(), Arc::downgrade(server));
        tasks.spawn(reload::follow(vec![path.clone()], shutdown.clone(), move || {
            let Some(server) = server.upgrade() else { return };
            let replaced = own.again(&path).and_then(|(union, text)| {
                server.gates.set_authorizer(union)?;
                Ok(text)
            });
            server.metrics.authorization_config.again(replaced.as_deref().ok(), System.now());
            match replaced {
                Ok(_) => tracing::info!("the authorization configuration was read again"),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the old authorization configuration stays");
                }
            }
        }));
    }

    fn again(&self, path: &Path) -> Result<(Union, String)> {
        let (configured, text) = parse(path)?;
        let missing: Vec<&str> =
            self.kinds.iter().copied().filter(|kind| !configured.iter().any(|c| c.kind() == *kind)).collect();
        if !missing.is_empty() {
            bail!("missing required types: [{}]", missing.join(" "));
        }
        if configured.iter().any(|c| c.kind() == "RBAC") && !self.kinds.contains(&"RBAC") {
            bail!("authorizer type RBAC is not allowed if it was not enabled at initial server startup");
        }
        Ok((self.union(configured)?, text))
    }
}

/// What the file says, and its text.
fn parse(path: &Path) -> Result<(Vec<Configured>, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let read = config::parse(&text);
    Ok((read.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?, text))
}

fn of_flags(args: &AuthzArgs) -> Result<Vec<Configured>, String> {
    let policies = match &args.authorization_policy_file {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| format!("failed to read {name}: {e}"))?;
            Some(Policies::parse(&name, &text)?)
        }
    };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let kubeconfig = args.authorization_webhook_config_file.as_ref().map(text).unwrap_or_default();
    let webhook = value!({
        "timeout": "30s",
        "failurePolicy": "NoOpinion",
        "subjectAccessReviewVersion": &args.authorization_webhook_version,
        "authorizedTTL": &args.authorization_webhook_cache_authorized_ttl,
        "unauthorizedTTL": &args.authorization_webhook_cache_unauthorized_ttl,
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
    });
    let modes = match args.authorization_mode.is_empty() {
        true => vec!["Node".to_string(), "RBAC".into()],
        false => args.authorization_mode.clone(),
    };
    config::of_modes(&modes, policies, &webhook)
}
