//! What is written down about requests, and how what is stored is encrypted: from files to the server.

use crate::cli::UpArgs;
use anyhow::{Context, Result, anyhow};
use canopus_apiserver::audit::log::{self, Log};
use canopus_apiserver::audit::policy::Policy;
use canopus_apiserver::audit::webhook::{self, Webhook};
use canopus_apiserver::audit::{Audit, Counts};
use canopus_apiserver::encryption::{Config, EncryptedStore, Encryption};
use canopus_apiserver::metrics::reloads::server_id;
use canopus_apiserver::outgoing::{Destination, Trust};
use canopus_apiserver::pki::Identity;
use canopus_apiserver::surroundings::System;
use canopus_apiserver::traces::{self, Traces};
use canopus_apiserver::{Server, reload};
use canopus_client::kubeconfig;
use canopus_store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// The one whom a kubeconfig's current context leads to.
pub fn destination(path: &Path) -> Result<Destination> {
    let name = path.display();
    let config = kubeconfig::load(&path.to_string_lossy()).with_context(|| format!("failed to understand {name}"))?;
    let mut to = Destination::url(&config.server, Trust::bundle(&config.ca)).map_err(|e| anyhow!("{name}: {e}"))?;
    if !config.client_certificate.is_empty() {
        let text = |pem: Vec<u8>| String::from_utf8(pem).with_context(|| format!("{name}: not PEM"));
        let (certificate_pem, key_pem) = (text(config.client_certificate)?, text(config.client_key)?);
        to.identity = Some(Arc::new(Identity { certificate_pem, key_pem }));
    }
    to.authorization = config.token.map(|token| format!("Bearer {token}"));
    Ok(to)
}

/// Begins the audit log, if there is a policy.
pub fn setup(server: &Arc<Server>, args: &UpArgs, shutdown: &CancellationToken) -> Result<()> {
    let args = &args.audit;
    let Some(path) = &args.audit_policy_file else { return Ok(()) };
    let policy = Policy::parse(&read(path)?).map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
    let log = match &args.audit_log_path {
        Some(path) => {
            let options = log::Options {
                path: path.clone(),
                max_age: args.audit_log_maxage,
                max_backup: args.audit_log_maxbackup,
                max_size: args.audit_log_maxsize,
            };
            Some(Log::open(options).with_context(|| format!("failed to open {}", path.display()))?)
        }
        None => None,
    };
    let webhook = match &args.audit_webhook_config_file {
        Some(path) => {
            let options = webhook::Options {
                buffer: args.audit_webhook_batch_buffer_size,
                batch: args.audit_webhook_batch_max_size,
                wait: Duration::from_secs(args.audit_webhook_batch_max_wait),
                ..webhook::Options::default()
            };
            Some(Webhook::start(server, destination(path)?, options, shutdown.clone()))
        }
        None => None,
    };
    if log.is_none() && webhook.is_none() {
        return Ok(());
    }
    let audit = Audit { policy, log, webhook, clock: Arc::new(System), counts: Counts::default() };
    server.audit.set(Arc::new(audit)).map_err(|_| anyhow!("the audit log has been begun already"))
}

/// Begins to trace requests, if there is a configuration.
pub fn traces(server: &Arc<Server>, args: &UpArgs, shutdown: &CancellationToken) -> Result<()> {
    let Some(path) = &args.audit.tracing_config_file else { return Ok(()) };
    let configuration = traces::Configuration::parse(&read(path)?);
    let configuration = configuration.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
    let instance = server_id().to_string();
    let traces = Traces::start(configuration, Arc::new(System), instance, shutdown.clone());
    server.traces.set(traces).map_err(|_| anyhow!("requests are traced already"))
}

/// The store behind what encrypts, if there is a configuration.
pub fn encrypted(
    store: Arc<dyn Store>,
    args: &UpArgs,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Arc<dyn Store>> {
    let Some(path) = args.auth.encryption_provider_config.clone() else { return Ok(store) };
    let load = move |path: &Path| -> Result<Config> {
        Config::parse(&read(path)?).map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))
    };
    let encryption = Encryption::new(load(&path)?);
    let store = EncryptedStore::new(store, encryption.clone());
    if args.auth.encryption_provider_config_automatic_reload {
        tasks.spawn(reload::follow(vec![path.clone()], shutdown.clone(), move || match load(&path) {
            Ok(config) => encryption.replace(config),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the old encryption configuration stays"),
        }));
    }
    Ok(Arc::new(store))
}
